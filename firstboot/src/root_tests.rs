use super::testing::Folder;
use super::*;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_file_is_written_once() {
    let folder = Folder::new();
    let put = |text: &str, mode| {
        folder
            .root
            .put("/etc/deep/file", text.as_bytes(), Access::own(mode))
            .expect("put")
    };
    assert_eq!(put("one", 0o640), Change::Written);
    let before = std::fs::metadata(folder.path().join("etc/deep/file")).expect("there");
    assert_eq!(put("one", 0o640), Change::Same);
    let after = std::fs::metadata(folder.path().join("etc/deep/file")).expect("there");
    assert_eq!(
        (before.ino(), before.mtime_nsec(), before.ctime_nsec()),
        (after.ino(), after.mtime_nsec(), after.ctime_nsec())
    );
    assert_eq!(put("one", 0o600), Change::Written);
    assert_eq!(put("two", 0o600), Change::Written);
    assert_eq!(folder.text("etc/deep/file"), "two");
    let names = folder.root.list("/etc/deep").expect("list");
    assert_eq!(names, ["file"]);
}

#[test]
fn links_lead_nowhere_outside() {
    let folder = Folder::with(&[("var/home/x", "")]);
    symlink("/var/home", folder.path().join("home")).expect("a link");
    symlink("../../../../etc", folder.path().join("out")).expect("a link");
    folder
        .root
        .put("/home/file", b"in", Access::own(0o644))
        .expect("put");
    assert_eq!(folder.text("var/home/file"), "in");
    folder
        .root
        .put("/out/file", b"in", Access::own(0o644))
        .expect_err("the link leads nowhere inside");
    assert!(!Path::new("/etc/file").exists());
}

#[test]
fn links_upwards_are_followed_while_others_rename() {
    let folder = Folder::with(&[("devices/disk/size", "1")]);
    let class = folder.path().join("class/block");
    std::fs::create_dir_all(&class).expect("folders");
    symlink("../../devices/disk", class.join("disk")).expect("a link");
    let others = Folder::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, two) = (others.path().join("1"), others.path().join("2"));
            std::fs::write(&one, "").expect("a file");
            while !is_over.load(Ordering::Relaxed) {
                std::fs::rename(&one, &two).expect("renamed");
                std::fs::rename(&two, &one).expect("renamed");
            }
        });
        for _ in 0..50_000 {
            let text = folder.root.read_text("/class/block/disk/size", 16);
            if !matches!(text.as_deref(), Ok("1")) {
                is_over.store(true, Ordering::Relaxed);
                panic!("{text:?}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_last_component_is_replaced_and_not_followed() {
    let folder = Folder::with(&[("target", "keep")]);
    symlink("target", folder.path().join("link")).expect("a link");
    folder
        .root
        .put("/link", b"new", Access::own(0o644))
        .expect("put");
    assert_eq!(folder.text("target"), "keep");
    assert_eq!(folder.text("link"), "new");
    assert_eq!(
        folder.root.put_link("/link", "target").expect("link"),
        Change::Written
    );
    assert_eq!(
        folder.root.put_link("/link", "target").expect("link"),
        Change::Same
    );
    assert_eq!(folder.text("link"), "keep");
}

#[test]
fn a_leftover_of_a_cut_does_no_harm() {
    let folder = Folder::with(&[("etc/.file.consign-new", "half")]);
    folder
        .root
        .put("/etc/file", b"whole", Access::own(0o600))
        .expect("put");
    assert_eq!(folder.text("etc/file"), "whole");
    assert_eq!(folder.root.list("/etc").expect("list"), ["file"]);
}

#[test]
fn directories_get_their_access() {
    let folder = Folder::new();
    assert_eq!(
        folder
            .root
            .put_directory("/home/ann", Access::own(0o700))
            .expect("made"),
        Change::Written
    );
    assert_eq!(
        folder
            .root
            .put_directory("/home/ann", Access::own(0o700))
            .expect("there"),
        Change::Same
    );
    let mode = std::fs::metadata(folder.path().join("home/ann"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn a_folder_is_not_the_system() {
    assert!(!Folder::new().root.is_system().expect("a folder"));
    let system = Root::open(Path::new("/")).expect("a root");
    assert!(system.is_system().expect("the system"));
}

#[test]
fn a_lock_is_waited_for_no_longer_than_said() {
    let folder = Folder::new();
    let within = |patience| folder.root.lock_within("/run/lock", patience);
    let held = within(Duration::ZERO).expect("free");
    let error = within(Duration::from_millis(1)).expect_err("held");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(held);
    within(Duration::ZERO).expect("free again");
}

#[test]
fn reading_is_bounded() {
    let folder = Folder::with(&[("big", "12345")]);
    assert_eq!(
        folder.root.read("/big", 5).expect("fits").as_deref(),
        Some(b"12345".as_slice())
    );
    assert_eq!(
        folder.root.read("/big", 4).expect_err("too large").kind(),
        io::ErrorKind::FileTooLarge
    );
    assert_eq!(folder.root.read("/none/at/all", 4).expect("missing"), None);
}
