//! What a changed file does: nothing is defined, nothing is left.

use std::fs;
use std::path::PathBuf;

use consign::digest::{ContentRoot, Digest};
use consign::release::assemble::{Facts, assemble};
use consign::release::manifest::DiskLine;
use consign::report::Silent;
use consign::units::ByteSize;

use super::{Small, fails, succeeds};
use crate::release::{inventory, keygen, signer};
use crate::support::{TestFolder, consign, must_run, run, temp_folder, text_of};

/// [`Small`] as a signed release, and its public key.
fn release(keys: &TestFolder) -> (Small, PathBuf) {
    let small = Small::new();
    let key = keys.path().join("vendor");
    let public = keygen(&key);
    let facts = Facts {
        lock: Digest::of(b"lock"),
        expires: None,
        openpgp: None,
        signers: vec![signer(&public)],
        disk: DiskLine {
            size: ByteSize::from_mib(1),
            root: ContentRoot(Digest::of(b"disk")),
        },
        partitions: Vec::new(),
    };
    assemble(small.path(), &inventory(), &facts, &Silent).expect("assembled");
    must_run(
        consign()
            .arg("sign")
            .arg(small.path())
            .arg("--key")
            .arg(&key),
    );
    (small, public)
}

fn import(small: &Small, storage: &TestFolder, args: &[&str]) -> std::process::Command {
    let mut command = small.import(&["--connect", "none", "--virt-type", "qemu", "--noreboot"]);
    command.arg("--storage").arg(storage.path()).args(args);
    command
}

fn is_empty(storage: &TestFolder) -> bool {
    consign::tree::list_folder(storage.path())
        .expect("a folder")
        .is_empty()
}

#[test]
fn with_a_pinned_key_no_byte_may_change() {
    let (keys, storage) = (temp_folder(), temp_folder());
    let (small, public) = release(&keys);
    let public = public.to_str().expect("UTF-8");
    let pinned = ["--key", public];
    succeeds(&mut import(
        &small,
        &storage,
        &[&pinned[..], &["--dry-run", "--verify"]].concat(),
    ));
    for name in ["disk.raw", "appliance.xml", "MANIFEST"] {
        let path = small.file(name);
        let sound = fs::read(&path).expect("read");
        let last = sound.len() - 1;
        for at in (0..16).map(|n| last * n / 15) {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("written");
            let output = run(&mut import(&small, &storage, &pinned));
            let said = text_of(&output);
            // A descriptor that is no XML any more is refused before it is compared.
            let code = output.status.code();
            assert_eq!(code, Some(3), "{name}, byte {at}: {said}");
            assert!(is_empty(&storage), "{name}, byte {at}");
        }
        fs::write(&path, sound).expect("written");
    }
    // A file too many, and somebody else's key.
    fs::write(small.file("site.img"), "x").expect("written");
    let output = run(&mut import(&small, &storage, &pinned));
    assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
    fs::remove_file(small.file("site.img")).expect("removed");
    let other = keygen(&keys.path().join("other"));
    let other = ["--key", other.to_str().expect("UTF-8")];
    let output = run(&mut import(&small, &storage, &other));
    assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
    assert!(is_empty(&storage));
    // It cannot be waived.
    let waived = [&pinned[..], &["--skip-checksum"]].concat();
    assert_eq!(
        run(&mut import(&small, &storage, &waived)).status.code(),
        Some(2)
    );
    let said = text_of(&run(&mut import(&small, &storage, &pinned)));
    assert!(
        said.contains("imported `small`") && !said.contains("integrity only"),
        "{said}"
    );
}

#[test]
fn without_a_key_damage_is_found_and_no_more_is_promised() {
    let storage = temp_folder();
    let small = Small::new();
    let path = small.file("disk.raw");
    let sound = fs::read(&path).expect("read");
    let mut bytes = sound.clone();
    bytes[700_000] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let hint = "fetch the files again";
    for mode in [
        &[][..],
        &["--dry-run", "--verify"],
        &["--print-xml"],
        &["--emit", "qemu"],
    ] {
        fails(
            &mut import(&small, &storage, mode),
            "import-checksum",
            3,
            "sha256",
            hint,
        );
        assert!(is_empty(&storage));
    }
    succeeds(&mut import(
        &small,
        &storage,
        &["--skip-checksum", "-n", "careless"],
    ));
    fs::write(&path, sound).expect("written");
    let output = run(&mut import(&small, &storage, &[]));
    let said = text_of(&output);
    assert!(
        output.status.success() && said.contains("integrity only"),
        "{said}"
    );
}
