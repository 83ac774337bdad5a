//! Guests of a boot sector, in a real libvirt and in QEMU alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{READY, Small, fails, succeeds, tree_digest, virt_image};
use crate::support::libvirt::Libvirt;
use crate::support::{TestFolder, program, run, temp_folder, text_of};

/// How long a boot sector may take to say a line.
const PATIENCE: &str = "120";

pub(super) fn at(small: &Small, libvirt: &Libvirt, storage: &TestFolder, args: &[&str]) -> Command {
    let mut command = small.import(&["--connect", &libvirt.uri, "--virt-type", "qemu"]);
    command.arg("--storage").arg(storage.path()).args(args);
    command.current_dir("/");
    command
}

pub(super) fn remove(
    libvirt: &Libvirt,
    name: &str,
    storage: &TestFolder,
    args: &[&str],
) -> Command {
    let mut command = virt_image();
    command.args(["remove", name, "--connect", &libvirt.uri]);
    command.arg("--storage").arg(storage.path()).args(args);
    command
}

pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = consign::tree::list_folder(folder).unwrap_or_default();
    let names = entries.iter().map(|entry| entry.name.to_string_lossy());
    names.map(String::from).collect()
}

/// The line of a guest's description with `word`.
pub(super) fn line(xml: &str, word: &str) -> String {
    let line = xml.lines().find(|line| line.contains(word));
    line.unwrap_or_else(|| panic!("no {word} in\n{xml}"))
        .trim()
        .to_owned()
}

#[test]
fn two_guests_of_one_appliance_run_side_by_side() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let before = (tree_digest(small.path()), libvirt.inventory());
    for name in ["t1", "t2"] {
        let args = ["--name", name, "-w", "user", "--wait-ready", PATIENCE];
        let said = succeeds(&mut at(&small, &libvirt, &storage, &args));
        assert!(said.contains("VA state=ready"), "{said}");
        assert_eq!(libvirt.ask(&["domstate", name]), "running");
    }
    // A preview changes nothing there either.
    let running = (libvirt.inventory(), names(storage.path()));
    for preview in [&["--dry-run"][..], &["-p"], &["--emit", "virt-install"]] {
        let args = [&["--name", "t3", "-w", "default"], preview].concat();
        succeeds(&mut at(&small, &libvirt, &storage, &args));
    }
    assert_eq!((libvirt.inventory(), names(storage.path())), running);
    let one = libvirt.ask(&["dumpxml", "t1"]);
    let two = libvirt.ask(&["dumpxml", "t2"]);
    for word in ["<uuid>", "<mac ", "system.raw"] {
        assert_ne!(line(&one, word), line(&two, word), "{word}");
    }
    let import = line(&one, "<va:import");
    assert!(
        import.contains("version=\"1.0\"") && import.contains("descriptor=\"sha256:"),
        "{import}"
    );
    // A running guest is not removed, and its name is taken.
    let (slug, hint) = ("import-guest-running", "--force");
    fails(
        &mut remove(&libvirt, "t1", &storage, &[]),
        slug,
        2,
        "t1",
        hint,
    );
    let taken = &mut at(&small, &libvirt, &storage, &["--name", "t1"]);
    fails(taken, "import-name-taken", 2, "`t1`", "--replace");
    for name in ["t1", "t2"] {
        succeeds(&mut remove(&libvirt, name, &storage, &["--force"]));
    }
    assert_eq!(names(storage.path()), Vec::<String>::new());
    assert_eq!((tree_digest(small.path()), libvirt.inventory()), before);
    let gone = &mut remove(&libvirt, "t1", &storage, &[]);
    fails(gone, "import-no-guest", 2, "t1", "virsh list");
}

#[test]
fn twenty_imports_leave_nothing_after_they_are_removed() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let before = libvirt.inventory();
    for count in 0..20 {
        let name = format!("often-{}", count % 3);
        let clone = ["full", "overlay"][count % 2];
        let firmware = ["bios", "uefi"][count % 2];
        let args = [
            "--name",
            &name,
            "--noreboot",
            "--clone",
            clone,
            "--firmware",
            firmware,
        ];
        succeeds(&mut at(&small, &libvirt, &storage, &args));
        let record = fs::read_to_string(storage.path().join(&name).join("import.json"));
        let record = record.expect("a record");
        assert!(record.contains("\"checksum\": \"sha256:"), "{record}");
        assert_eq!(
            record.contains("\"is_overlay\": true"),
            clone == "overlay",
            "{record}"
        );
        if count == 1 {
            // Only a guest that was started has variables of its firmware.
            libvirt.ask(&["start", &name]);
            assert_ne!(libvirt.inventory(), before);
        }
        succeeds(&mut remove(&libvirt, &name, &storage, &["--force"]));
        assert_eq!(libvirt.inventory(), before, "after {count}");
        assert_eq!(names(storage.path()), Vec::<String>::new());
    }
}

#[test]
fn a_replaced_and_an_upgraded_guest_keep_the_users_disk() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let newer = Small::saying("VA state=ready v=2\r\n", "2.0");
    let before = libvirt.inventory();
    succeeds(&mut at(
        &small,
        &libvirt,
        &storage,
        &["-n", "kept", "--noreboot"],
    ));
    let folder = storage.path().join("kept");
    fs::write(folder.join("data.raw"), "the user's").expect("written");
    let uuid = libvirt.ask(&["domuuid", "kept"]);

    let upgrade = |args: &[&str]| {
        let mut command = virt_image();
        command.arg("upgrade").arg(newer.descriptor());
        command.args(["-n", "kept", "--connect", &libvirt.uri, "--storage"]);
        command.arg(storage.path()).args(args);
        command
    };
    let said = succeeds(&mut upgrade(&["--start", "--wait-ready", PATIENCE]));
    assert!(said.contains("VA state=ready v=2"), "{said}");
    let data = || fs::read_to_string(storage.path().join("kept/data.raw")).expect("a disk");
    assert_eq!(data(), "the user's");
    assert_eq!(libvirt.ask(&["domuuid", "kept"]), uuid);
    let xml = libvirt.ask(&["dumpxml", "kept"]);
    assert!(
        line(&xml, "<va:import").contains("version=\"2.0\""),
        "{xml}"
    );
    let files = names(&folder);
    assert_eq!(
        files
            .iter()
            .filter(|name| name.starts_with("system"))
            .count(),
        1,
        "{files:?}"
    );
    fails(
        &mut upgrade(&[]),
        "import-guest-running",
        2,
        "kept",
        "--force",
    );

    // Historic: `--replace` ends the guest. Ours keeps what is the user's.
    let again = ["-n", "kept", "--replace", "--wait-ready", PATIENCE];
    let said = succeeds(&mut at(&small, &libvirt, &storage, &again));
    assert!(said.contains(READY.trim_end()), "{said}");
    assert_eq!(data(), "the user's");

    // A guest that will not be replaced is as it was, and runs again.
    let xml = libvirt.ask(&["dumpxml", "--inactive", "kept"]);
    let bad = ["-n", "kept", "--replace", "--cpu", "nonsense-9000"];
    fails(
        &mut at(&small, &libvirt, &storage, &bad),
        "libvirt-failed",
        4,
        "nonsense-9000",
        "",
    );
    assert_eq!(libvirt.ask(&["dumpxml", "--inactive", "kept"]), xml);
    assert_eq!(libvirt.ask(&["domstate", "kept"]), "running");
    assert_eq!(data(), "the user's");
    assert_eq!(names(storage.path()), ["kept"]);
    succeeds(&mut remove(&libvirt, "kept", &storage, &["--force"]));
    assert_eq!(libvirt.inventory(), before);
}

#[test]
fn what_libvirt_refuses_is_taken_back() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let network = small.file("network.xml");
    fs::write(
        &network,
        "<network><name>idle</name><ip address='192.0.2.1'/></network>",
    )
    .expect("xml");
    libvirt.ask(&["net-define", network.to_str().expect("UTF-8")]);
    let before = libvirt.inventory();
    let import = |args: &[&str], slug, words, hint| {
        let all = [&["-n", "bad"], args].concat();
        fails(
            &mut at(&small, &libvirt, &storage, &all),
            slug,
            4,
            words,
            hint,
        );
        assert_eq!(libvirt.inventory(), before, "{args:?}");
        assert_eq!(names(storage.path()), Vec::<String>::new(), "{args:?}");
    };
    import(
        &["-w", "idle"],
        "import-network",
        "not active",
        "virsh net-start idle",
    );
    import(
        &["-w", "none-such"],
        "import-network",
        "not defined",
        "--network",
    );
    import(
        &["--cpu", "nonsense-9000"],
        "libvirt-failed",
        "nonsense-9000",
        "journalctl",
    );
    import(
        &["-w", "user,model=nonsense"],
        "libvirt-failed",
        "nonsense",
        "journalctl",
    );
    libvirt.ask(&["net-undefine", "idle"]);
    // A guest that came by another way is not ours to remove.
    let xml = "<domain type='qemu'><name>theirs</name><memory>1024</memory>\
               <os><type>hvm</type></os></domain>";
    let path = small.file("theirs.xml");
    fs::write(&path, xml).expect("written");
    libvirt.ask(&["define", path.to_str().expect("UTF-8")]);
    let theirs = &mut remove(&libvirt, "theirs", &storage, &[]);
    fails(
        theirs,
        "import-not-ours",
        2,
        "theirs",
        "the tool that made it",
    );
    libvirt.ask(&["undefine", "theirs"]);
}

#[test]
fn a_pool_says_where_and_stays_as_it_is() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let folder = storage.path().display().to_string();
    let define = ["pool-define-as", "place", "dir", "--target", &folder];
    libvirt.ask(&define);
    let before = libvirt.inventory();
    let import = |pool: &str| {
        let mut command = small.import(&["--connect", &libvirt.uri, "--virt-type", "qemu"]);
        command.args(["-n", "pooled", "--noreboot", "--storage", pool]);
        command
    };
    succeeds(&mut import("pool=place"));
    assert_eq!(names(storage.path()), ["pooled"]);
    succeeds(&mut remove(&libvirt, "pooled", &storage, &[]));
    assert_eq!(libvirt.inventory(), before);
    let mut other = import("pool=elsewhere");
    fails(
        &mut other,
        "import-pool",
        2,
        "elsewhere",
        "--storage FOLDER",
    );
    libvirt.ask(&["pool-undefine", "place"]);
}

#[test]
fn a_guest_that_is_not_ready_stays_for_a_look() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let storage = temp_folder();
    let small = Small::saying("VA state=waiting fw=bios\r\n", "1.0");
    let args = ["-n", "waits", "--wait-ready", PATIENCE];
    let (slug, words) = ("guest-not-in-service", "VA state=waiting");
    fails(
        &mut at(&small, &libvirt, &storage, &args),
        slug,
        5,
        words,
        "site.toml",
    );
    assert_eq!(libvirt.ask(&["domstate", "waits"]), "running");
    succeeds(&mut remove(&libvirt, "waits", &storage, &["--force"]));
}

#[test]
fn without_libvirt_a_guest_runs_in_qemu_alone() {
    if program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let (small, storage) = (Small::new(), temp_folder());
    let newer = Small::saying("VA state=ready v=2\r\n", "2.0");
    let place = |command: &mut Command| {
        command
            .args(["--connect", "none", "--storage"])
            .arg(storage.path());
    };
    let import = |args: &[&str]| {
        let mut command = small.import(&["--virt-type", "qemu"]);
        place(&mut command);
        command.args(args);
        command
    };
    let other = |verb: &str, what: &Path, args: &[&str]| {
        let mut command = virt_image();
        command.arg(verb).arg(what).args(args);
        place(&mut command);
        command
    };
    let small_name = Path::new("small");
    let said = succeeds(&mut import(&["--wait-ready", PATIENCE, "--format", "json"]));
    assert!(
        said.contains("\"ready\":\"VA state=ready fw=bios\""),
        "{said}"
    );
    let folder = storage.path().join("small");
    fails(
        &mut import(&[]),
        "import-name-taken",
        2,
        "small",
        "--replace",
    );
    let running = &mut other("remove", small_name, &[]);
    fails(running, "import-guest-running", 2, "small", "--force");
    // The disk of a running guest is not copied either.
    let second = Small::new();
    fs::remove_file(second.file("disk.raw")).expect("removed");
    fs::hard_link(folder.join("system.raw"), second.file("disk.raw")).expect("one file");
    let mut in_use = second.import(&["-n", "second", "--virt-type", "qemu"]);
    place(&mut in_use);
    fails(
        &mut in_use,
        "import-disk-in-use",
        2,
        "system",
        "shut that guest down",
    );

    fs::write(folder.join("data.raw"), "the user's").expect("written");
    let mut upgrade = other("upgrade", &newer.descriptor(), &["--force", "--start"]);
    upgrade.args(["--wait-ready", PATIENCE]);
    assert!(succeeds(&mut upgrade).contains("v=2"));
    assert_eq!(
        fs::read_to_string(folder.join("data.raw")).expect("a disk"),
        "the user's"
    );
    let again = &mut import(&["--replace", "--wait-ready", PATIENCE]);
    assert!(succeeds(again).contains("fw=bios"));
    assert_eq!(
        fs::read_to_string(folder.join("data.raw")).expect("a disk"),
        "the user's"
    );
    succeeds(&mut other("remove", small_name, &["--force"]));
    assert_eq!(names(storage.path()), Vec::<String>::new());
}

#[test]
fn what_a_killed_import_left_is_taken_away_by_the_next() {
    let (small, storage) = (Small::new(), temp_folder());
    let import = || {
        let mut command = small.import(&["--connect", "none", "--virt-type", "qemu", "--noreboot"]);
        command.arg("--storage").arg(storage.path());
        command
    };
    succeeds(&mut import());
    let record = storage.path().join("small/import.json");
    let text = fs::read_to_string(&record).expect("a record");
    let partial = text.replace("\"is_whole\": true", "\"is_whole\": false");
    assert_ne!(text, partial);
    fs::write(&record, partial).expect("written");
    for words in [
        &["start", "small"][..],
        &["upgrade", &small.descriptor().display().to_string()],
    ] {
        let mut command = virt_image();
        command.args(words).args(["--connect", "none", "--storage"]);
        fails(
            command.arg(storage.path()),
            "import-unfinished",
            2,
            "small",
            "import it again",
        );
    }
    succeeds(&mut import());
    // A folder that is nobody's guest is not touched.
    fs::remove_file(&record).expect("removed");
    fails(
        &mut import(),
        "import-folder-taken",
        2,
        "small",
        "another name",
    );
}

#[test]
fn no_replacement_takes_the_users_data() {
    let (small, storage) = (Small::new(), temp_folder());
    let import = |small: &Small, args: &[&str]| {
        let mut command = small.import(&["--connect", "none", "--virt-type", "qemu", "--noreboot"]);
        command.args(args).arg("--storage").arg(storage.path());
        command
    };
    succeeds(&mut import(&small, &[]));
    let folder = storage.path().join("small");
    let data = folder.join("data.raw");
    let is_kept = || fs::read_to_string(&data).is_ok_and(|text| text == "the user's");
    fs::write(&data, "the user's").expect("written");

    // The next version calls the disk something else.
    let renamed = Small::new();
    let text = fs::read_to_string(renamed.descriptor()).expect("read");
    let other = text.replace("disk=\"data\"", "disk=\"state\"");
    let other = other.replace("id=\"data\"", "id=\"state\"");
    assert_ne!(text, other);
    fs::write(renamed.descriptor(), other).expect("written");
    fails(
        &mut import(&renamed, &["--replace"]),
        "import-other-appliance",
        2,
        "data",
        "another name",
    );
    assert!(is_kept());

    // Killed while it copies: the guest before stands aside, the new one is partial.
    let aside = storage.path().join(".small.consign-old");
    let record = fs::read_to_string(folder.join("import.json")).expect("a record");
    fs::rename(&folder, &aside).expect("renamed");
    fs::create_dir(&folder).expect("a folder");
    let partial = record.replace("\"is_whole\": true", "\"is_whole\": false");
    let partial = partial.replace("\"data.raw\"", "\"never-made.raw\"");
    fs::write(folder.join("import.json"), partial).expect("written");
    fs::write(folder.join("system.raw"), "half").expect("written");
    succeeds(&mut import(&small, &["--replace"]));
    assert!(is_kept());
    assert_eq!(names(storage.path()), ["small"]);

    // Killed so, and nobody wants it any more.
    let command = |words: &[&str]| {
        let mut command = virt_image();
        command.args(words).args(["--connect", "none", "--storage"]);
        command.arg(storage.path());
        command
    };
    fs::rename(&folder, &aside).expect("renamed");
    succeeds(&mut command(&["remove", "small"]));
    assert_eq!(names(storage.path()), Vec::<String>::new());

    // Killed when all but the last step was done. With a disk of the user's
    // it is asked what shall become of it.
    succeeds(&mut import(&small, &[]));
    fs::create_dir(&aside).expect("a folder");
    fs::copy(folder.join("import.json"), aside.join("import.json")).expect("copied");
    fs::write(aside.join("system.raw"), "old").expect("written");
    fs::write(aside.join("data.raw"), "older").expect("written");
    let (words, hint) = (".small.consign-old", "move it away");
    let mut refused = command(&["remove", "small"]);
    fails(&mut refused, "import-folder-taken", 2, words, hint);
    fs::remove_file(aside.join("data.raw")).expect("removed");
    succeeds(&mut command(&["remove", "small"]));
    assert_eq!(names(storage.path()), Vec::<String>::new());

    // What else is in the guest's folder stays in it, and stops nothing.
    succeeds(&mut import(&small, &[]));
    fs::write(folder.join("notes.txt"), "the user's").expect("written");
    succeeds(&mut import(&small, &["--replace"]));
    succeeds(&mut import(&small, &["--replace"]));
    assert_eq!(names(storage.path()), ["small"]);
    let output = run(&mut command(&["remove", "small"]));
    let said = text_of(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("are not the guest's; they stay"), "{said}");
    assert_eq!(names(&folder), ["notes.txt"]);
    fs::remove_dir_all(&folder).expect("removed");

    // A copy under another name has no files of its own.
    let copy = storage.path().join("copy");
    fs::create_dir(&copy).expect("a folder");
    fs::write(copy.join("import.json"), record).expect("written");
    fs::write(copy.join("data.raw"), "another's").expect("written");
    let mut remove = virt_image();
    remove.args(["remove", "copy", "--connect", "none", "--storage"]);
    fails(remove.arg(storage.path()), "import-no-guest", 2, "copy", "");
    assert!(copy.join("data.raw").exists());
}
