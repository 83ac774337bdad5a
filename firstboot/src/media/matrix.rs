//! Every format, label case and place on a disk, made by other people's tools:
//! mkfs.vfat and mtools, genisoimage, mke2fs, sfdisk.
#![expect(clippy::indexing_slicing, reason = "a test may fail")]

use std::path::Path;

use super::hostile::{collect, run};
use super::parts::CONFIG_TYPE;
use super::*;

const SITE: &[u8] = b"schema = 1\n[system]\nhostname = \"a\"\n";

/// A file system to be made, and what the reader calls it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    Fat(&'static str, u32),
    Iso(&'static [&'static str]),
    Ext(&'static str, &'static str),
}

const FORMATS: [(Format, &str); 11] = [
    (Format::Fat("12", 1440), "FAT12"),
    (Format::Fat("16", 16_384), "FAT16"),
    (Format::Fat("32", 66_000), "FAT32"),
    (Format::Iso(&["-iso-level", "3"]), "ISO 9660"),
    (Format::Iso(&["-J"]), "ISO 9660 with Joliet"),
    (Format::Iso(&["-R"]), "ISO 9660 with Rock Ridge"),
    (Format::Iso(&["-J", "-r"]), "ISO 9660 with Rock Ridge"),
    (Format::Ext("ext2", "^resize_inode"), "ext2"),
    (Format::Ext("ext3", "^resize_inode"), "ext3"),
    (Format::Ext("ext4", "64bit,metadata_csum"), "ext4"),
    (
        Format::Ext("ext4", "^64bit,^metadata_csum,^flex_bg"),
        "ext4",
    ),
];

/// The folder that a customer puts onto a medium.
fn content(folder: &Path) -> PathBuf {
    let root = folder.join("content");
    std::fs::create_dir_all(root.join("license")).expect("folder");
    std::fs::create_dir_all(root.join("payload")).expect("folder");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(root.join(name), bytes).expect("write");
    };
    write("site.toml", SITE);
    write("license/product.key", b"KEY");
    write("payload/app.vab", &vec![7; 30_000]);
    write("other.txt", b"other");
    root
}

/// A volume with `label`; `None` without the tools.
pub(super) fn volume(format: Format, label: &str) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().expect("folder");
    let root = content(folder.path());
    let image = folder.path().join("volume.img");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let (root, path) = (text(&root), text(&image));
    let made = match format {
        Format::Fat(bits, kib) => {
            let kib = kib.to_string();
            // mkfs.vfat warns of small letters, which Windows writes too.
            run("mkfs.vfat", &["-C", "-F", bits, "-n", label, &path, &kib])
                && ["site.toml", "license", "payload", "other.txt"]
                    .iter()
                    .all(|name| {
                        run(
                            "mcopy",
                            &["-s", "-i", &path, &format!("{root}/{name}"), "::"],
                        )
                    })
        }
        Format::Iso(options) => {
            let args = [&["-quiet", "-V", label, "-o", &path], options, &[&root]].concat();
            run("genisoimage", &args)
        }
        Format::Ext(kind, features) => run(
            "mke2fs",
            &[
                "-q", "-t", kind, "-O", features, "-L", label, "-d", &root, &path, "4M",
            ],
        ),
    };
    made.then(|| std::fs::read(&image).expect("read"))
}

/// Where a volume lies on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Whole,
    Mbr,
    Logical,
    Gpt,
    GptOfOurs,
}

/// A disk with the volume; the partition's number.
fn disk(volume: &[u8], place: Place) -> Option<(Vec<u8>, u32)> {
    if place == Place::Whole {
        return Some((volume.to_vec(), 0));
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("disk.img");
    let sectors = volume.len().div_ceil(512);
    let (script, start, number) = match place {
        Place::Mbr => (
            format!(
                "label: dos\nstart=2048, size=1024, type=83\nstart=4096, size={sectors}, type=c\n"
            ),
            4096,
            2,
        ),
        Place::Logical => (
            format!(
                "label: dos\nstart=2048, size={}, type=5\nstart=4096, size={sectors}, type=c\n",
                sectors + 8192
            ),
            4096,
            5,
        ),
        Place::Gpt => (
            format!("label: gpt\nstart=2048, size=1024, type=L\nstart=4096, size={sectors}\n"),
            4096,
            2,
        ),
        _ => (
            format!("label: gpt\nstart=4096, size={sectors}, type={CONFIG_TYPE}\n"),
            4096,
            1,
        ),
    };
    let length = (start + sectors + 8192) * 512;
    let mut bytes = vec![0; length];
    std::fs::write(&path, &bytes).expect("write");
    let name = path.to_str().expect("text").to_owned();
    if !super::hostile::run_with("sfdisk", &["-q", &name], script.as_bytes()) {
        return None;
    }
    bytes = std::fs::read(&path).expect("read");
    bytes[start * 512..start * 512 + volume.len()].copy_from_slice(volume);
    Some((bytes, number))
}

#[test]
fn every_format_in_every_place_with_a_label_in_any_case_is_found() {
    let mut cells = 0;
    for (format, kind) in FORMATS {
        for (label, place) in [
            ("VACONFIG", Place::Whole),
            ("vaconfig", Place::Whole),
            ("VaConfig", Place::Whole),
            ("VACONFIG", Place::Mbr),
            ("vaconfig", Place::Mbr),
            ("VACONFIG", Place::Logical),
            ("VACONFIG", Place::Gpt),
            ("VaConfig", Place::Gpt),
            ("STICK", Place::GptOfOurs),
        ] {
            let Some(volume) = volume(format, label) else {
                return;
            };
            let Some((disk, number)) = disk(&volume, place) else {
                return;
            };
            let told = collect(&disk);
            let what = format!("{format:?} {label} {place:?}: {told:?}");
            assert!(told.unreadable.is_empty(), "{what}");
            assert_eq!(told.candidates.len(), 1, "{what}");
            let found = &told.candidates[0];
            assert_eq!(found.filesystem, kind, "{what}");
            assert_eq!(found.partition, number, "{what}");
            assert_eq!(found.files["site.toml"], SITE, "{what}");
            assert_eq!(found.files["license/product.key"], b"KEY", "{what}");
            assert_eq!(found.payload["payload/app.vab"], 30_000, "{what}");
            assert_eq!(found.ignored.len(), 1, "{what}");
            let mut bundle = Vec::new();
            content::stream(
                &disk,
                512,
                disk.len() as u64,
                number,
                "payload/app.vab",
                &mut |piece| {
                    bundle.extend_from_slice(piece);
                    Ok(())
                },
            )
            .expect("the bundle");
            assert_eq!(bundle, vec![7; 30_000], "{what}");
            cells += 1;
        }
    }
    assert_eq!(cells, FORMATS.len() * 9);
}

#[test]
fn media_for_cloud_init_are_told_as_such() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("content");
    std::fs::create_dir(&root).expect("folder");
    std::fs::write(root.join("user-data"), "#cloud-config\n").expect("write");
    std::fs::write(root.join("meta-data"), "instance-id: a\n").expect("write");
    let (root, image) = (root.display().to_string(), folder.path().join("seed.img"));
    let path = image.display().to_string();
    if !run(
        "genisoimage",
        &["-quiet", "-R", "-V", "cidata", "-o", &path, &root],
    ) {
        return;
    }
    let told = collect(&std::fs::read(&image).expect("read"));
    assert_eq!(told.candidates[0].form, Form::NoCloud);
    assert_eq!(told.candidates[0].files["user-data"], b"#cloud-config\n");
}

/// What `VMware` attaches, and what tools write whose names are shorter.
#[test]
fn a_cd_with_the_environment_of_an_ovf_is_told_as_such() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("content");
    std::fs::create_dir(&root).expect("folder");
    std::fs::write(root.join(OVF_FILE), "<Environment/>").expect("write");
    let (root, image) = (root.display().to_string(), folder.path().join("env.iso"));
    let path = image.display().to_string();
    for option in ["-J", "-R", "-U", "-N"] {
        let args = ["-quiet", option, "-V", "OVF ENV", "-o", &path, &root];
        if !run("genisoimage", &args) {
            return;
        }
        let told = collect(&std::fs::read(&image).expect("read"));
        assert_eq!(told.candidates.len(), 1, "{option}: {told:?}");
        assert_eq!(told.candidates[0].form, Form::Ovf, "{option}");
        assert_eq!(told.candidates[0].files[OVF_FILE], b"<Environment/>");
    }
}

#[test]
fn media_of_strangers_are_left_alone() {
    for (format, _) in FORMATS {
        for label in ["HOLIDAYS", "VACONFI", "VACONFIGS"] {
            let Some(volume) = volume(format, label) else {
                return;
            };
            let told = collect(&volume);
            assert!(told.candidates.is_empty(), "{format:?} {label}");
            assert!(told.unreadable.is_empty(), "{format:?} {label}: {told:?}");
        }
    }
}

#[test]
fn two_volumes_on_one_disk_are_both_told() {
    let volumes = [
        volume(Format::Fat("12", 1440), "VACONFIG"),
        volume(Format::Ext("ext4", "64bit"), "vaconfig"),
    ];
    let [Some(fat), Some(ext)] = volumes else {
        return;
    };
    let Some((mut bytes, _)) = disk(&fat, Place::Mbr) else {
        return;
    };
    // A third entry, by hand: type 0x83 from 1 MiB behind the first.
    let start = bytes.len().next_multiple_of(1 << 20);
    let entry = 446 + 32;
    let (first, count) = (start / 512, ext.len() / 512);
    bytes[entry + 4] = 0x83;
    let number = |n: usize| u32::try_from(n).expect("small").to_le_bytes();
    bytes[entry + 8..entry + 12].copy_from_slice(&number(first));
    bytes[entry + 12..entry + 16].copy_from_slice(&number(count));
    bytes.resize(start, 0);
    bytes.extend_from_slice(&ext);
    let told = collect(&bytes);
    let kinds: Vec<&str> = told
        .candidates
        .iter()
        .map(|found| found.filesystem.as_str())
        .collect();
    assert_eq!(kinds, ["FAT12", "ext4"]);
}
