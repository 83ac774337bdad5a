//! `SHA256SUMS`, judged by coreutils.

use std::fs;
use std::path::Path;

use consign::artifact::{Artifact, ArtifactKind, write_file};
use consign::digest::Digest;
use consign::release::sums;
use consign::units::ByteSize;

use crate::support::{Checker, temp_folder};

fn artifact(folder: &Path, name: &str, content: &[u8]) -> Artifact {
    let path = folder.join(name);
    write_file(&path, content).expect("write");
    Artifact {
        path,
        kind: ArtifactKind::Disk,
        size: ByteSize::from_bytes(content.len() as u64),
        digest: Some(Digest::of(content)),
        content_root: None,
    }
}

#[test]
fn sha256sum_accepts_the_list_until_a_file_changes() {
    let folder = temp_folder();
    let artifacts = [
        artifact(folder.path(), "wiki.qcow2", b"image"),
        artifact(folder.path(), "appliance.xml", b"<image/>"),
    ];
    let list = sums::write(&artifacts, folder.path()).expect("the list is written");
    assert_eq!(list.file_name(), "SHA256SUMS");
    Checker::Sha256sum.accepts(&list.path);
    fs::write(folder.path().join("wiki.qcow2"), "imagf").expect("write");
    Checker::Sha256sum.rejects(&list.path);
}
