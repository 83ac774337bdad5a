//! Bundles made with `tar` and `ssh-keygen`, good ones and others.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "other people's programs make the bundles"
)]

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::root::testing::Folder;

fn run(command: &mut Command) -> Option<()> {
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{command:?}: {output:?}");
            Some(())
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{command:?}: {error}");
            eprintln!("SKIPPED: {command:?}: {error}");
            None
        }
    }
}

fn keygen(folder: &Path, name: &str) -> Option<()> {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(folder.join(name));
    run(&mut command)
}

const MANIFEST_HEAD: &str =
    "kind = \"consign-bundle\"\nschema = 1\nname = \"site\"\nversion = \"2\"\nrole = \"web\"\n";

fn manifest(files: &[(&str, &[u8])]) -> String {
    let mut text = MANIFEST_HEAD.to_owned();
    for (path, bytes) in files {
        let _ = write!(
            text,
            "[[file]]\npath = \"{path}\"\nsize = {}\nmode = 0o644\nsha256 = \"{}\"\n",
            bytes.len(),
            Digest::of(bytes)
        );
    }
    text
}

/// Signs `manifest`, and packs it with `files` in the order of `names`.
fn bundle(
    folder: &Path,
    manifest: &str,
    files: &[(&str, &[u8])],
    names: &[&str],
) -> Option<Vec<u8>> {
    let _ = std::fs::remove_dir_all(folder.join("b"));
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join("b").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, bytes).expect("written");
    };
    write("manifest.toml", manifest.as_bytes());
    for (path, bytes) in files {
        write(&format!("files/{path}"), bytes);
    }
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-Y", "sign", "-n", "consign-bundle", "-f"]);
    run(sign
        .arg(folder.join("vendor"))
        .arg(folder.join("b/manifest.toml")))?;
    pack(folder, "ustar", names)
}

fn pack(folder: &Path, format: &str, names: &[&str]) -> Option<Vec<u8>> {
    let mut tar = Command::new("tar");
    tar.arg(format!("--format={format}"))
        .arg("-cf")
        .arg(folder.join("x.vab"));
    tar.arg("-C").arg(folder.join("b")).args(names);
    run(&mut tar)?;
    std::fs::read(folder.join("x.vab")).ok()
}

fn take(root: &Root, bytes: &[u8], piece: usize) -> Result<Option<Manifest>, BundleError> {
    let mut unpacker = Unpacker::new(root, Some("web"))?;
    let read = bytes
        .chunks(piece)
        .try_for_each(|piece| unpacker.push(piece));
    unpacker.finish(read)
}

/// A machine that knows the key of `folder`.
fn machine(folder: &Path) -> Option<Folder> {
    if !folder.join("vendor").exists() {
        keygen(folder, "vendor")?;
    }
    let key = std::fs::read_to_string(folder.join("vendor.pub")).expect("the key");
    Some(Folder::with(&[(VENDOR, &key)]))
}

const FILES: [(&str, &[u8]); 3] = [
    ("a", b""),
    ("www/b.html", b"hello\n"),
    ("www/c", &[7; 1500]),
];
const NAMES: [&str; 5] = [
    "manifest.toml",
    "manifest.toml.sig",
    "files/a",
    "files/www/b.html",
    "files/www/c",
];

#[test]
fn a_signed_bundle_is_unpacked_whole_in_pieces_of_any_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(first) = machine(folder.path()) else {
        return;
    };
    let bytes = bundle(folder.path(), &manifest(&FILES), &FILES, &NAMES).expect("made");
    for piece in [1, 511, 512, 513, 1 << 20] {
        let machine = machine(folder.path()).expect("a machine");
        let made = take(&machine.root, &bytes, piece)
            .expect("taken")
            .expect("for this role");
        for (path, bytes) in FILES {
            let path = machine.path().join(&made.folder()[1..]).join(path);
            assert!(std::fs::read(&path).expect("unpacked") == bytes);
            let access = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(access & 0o7777, 0o644);
        }
        assert_eq!(
            machine.root.list(RELEASES).expect("listed"),
            [made.digest.to_string()]
        );
        // Again: nothing more is read than who it is.
        let head = &bytes[..6 * BLOCK];
        assert_eq!(take(&machine.root, head, piece).expect("known"), Some(made));
    }
    let mut unpacker = Unpacker::new(&first.root, Some("db")).expect("a key");
    let read = unpacker.push(&bytes);
    assert_eq!(unpacker.finish(read).expect("another's"), None);
    assert_eq!(first.root.list(RELEASES).expect("listed"), [""; 0]);
}

#[test]
fn nothing_is_left_of_a_bundle_that_is_not_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(machine) = machine(folder.path()) else {
        return;
    };
    let path = folder.path();
    let good = bundle(path, &manifest(&FILES), &FILES, &NAMES).expect("made");
    let refused = |bytes: &[u8], what: &str| {
        let error = take(&machine.root, bytes, 700).expect_err(what);
        assert_eq!(
            machine.root.list(RELEASES).expect("listed"),
            [""; 0],
            "{what}"
        );
        error
    };
    // Every block damaged, but for padding, which nobody reads.
    for at in (0..good.len()).step_by(BLOCK) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&bytes, "damaged");
        refused(
            &good[..at.min(good.len() - 3 * BLOCK).min(8 * BLOCK)],
            "cut",
        );
    }
    let mut surplus = NAMES.to_vec();
    surplus.push("files/a");
    let order = [NAMES[0], NAMES[1], NAMES[3], NAMES[2], NAMES[4]];
    for (what, names) in [
        ("missing", &NAMES[..4]),
        ("surplus", &surplus),
        ("order", &order),
    ] {
        let bytes = bundle(path, &manifest(&FILES), &FILES, names).expect("made");
        refused(&bytes, what);
    }
    for bad in ["../a", "/etc/x", "a/../b", "./a", "a//b", ""] {
        let text = manifest(&[(bad, b"")]);
        let bytes = bundle(path, &text, &FILES, &NAMES[..3]).expect("made");
        assert!(
            matches!(refused(&bytes, bad), BundleError::Form(_)),
            "{bad}"
        );
    }
    // What it asks for besides would not be heeded.
    let requires = format!("requires = [\"base\"]\n{}", manifest(&FILES));
    let owner = manifest(&FILES).replacen("mode = ", "owner = 0\nmode = ", 1);
    for text in [requires, owner] {
        let bytes = bundle(path, &text, &FILES, &NAMES).expect("made");
        let error = refused(&bytes, &text).to_string();
        assert!(error.contains("that this appliance knows"), "{error}");
    }
    // Links, folders, devices and other forms of tar.
    std::os::unix::fs::symlink("/etc/passwd", path.join("b/files/l")).expect("a link");
    for (format, names) in [
        ("ustar", vec![NAMES[0], NAMES[1], "files/l"]),
        ("ustar", vec![NAMES[0], NAMES[1], "files"]),
        ("gnu", NAMES[..3].to_vec()),
    ] {
        bundle(path, &manifest(&[("l", b"")]), &FILES, &NAMES).expect("made");
        std::os::unix::fs::symlink("/etc/passwd", path.join("b/files/l")).expect("a link");
        let bytes = pack(path, format, &names).expect("packed");
        refused(&bytes, format);
    }
    // By another key, and for an image without one.
    keygen(path, "other").expect("a key");
    let other = std::fs::read_to_string(path.join("other.pub")).expect("the key");
    let stranger = Folder::with(&[(VENDOR, &other)]);
    let error = take(&stranger.root, &good, 512).expect_err("unknown");
    assert!(matches!(error, BundleError::Signature(_)), "{error}");
    assert!(matches!(
        take(&Folder::new().root, &good, 512),
        Err(BundleError::NoKey)
    ));
}

/// What `consign bundle` writes, judged here: `tests/it/cli/bundle.rs` makes
/// sure that it still does.
#[test]
fn the_builders_bundle_is_taken() {
    let bytes = include_bytes!("../../tests/golden/bundle.vab");
    let key = include_str!("../../tests/golden/bundle.pub");
    let machine = Folder::with(&[(VENDOR, key)]);
    let made = take(&machine.root, bytes, 4096)
        .expect("taken")
        .expect("for this role");
    assert_eq!((made.name.as_str(), made.version.as_str()), ("site", "2.0"));
    assert_eq!(
        machine.text(&format!("{}/www/index.html", made.folder())),
        "<p>2</p>\n"
    );
}
