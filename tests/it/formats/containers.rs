//! VMDK, VHDX, VHD and zstd images, judged by qemu-img, libvmdk, libvhdi,
//! zstd and a walk through the stream as importers do it.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use consign::artifact::Artifact;
use consign::image::{ImageFormat, ImageSpec, WriteOptions, write_all};
use consign::report::Silent;
use consign::sparse::{PageMap, SparseSource, Zeros};
use consign::units::{ByteSize, GIB, MIB, TIB};
use flate2::read::ZlibDecoder;
use proptest::prelude::*;

use super::image::{a_disk, digest, disk, disk_formats, names_in, with_threads};
use crate::support::{Checker, cases, must_run, program, temp_folder};

const SECTOR: usize = 512;

fn write(disk: &dyn SparseSource, folder: &Path, options: &WriteOptions) -> Vec<Artifact> {
    let specs: Vec<ImageSpec> = disk_formats()
        .iter()
        .map(|format| ImageSpec::new("disk", *format))
        .collect();
    write_all(&specs, disk, folder, options, &Silent).expect("written")
}

fn bytes_of(disk: &dyn SparseSource) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size().bytes()).expect("small")];
    disk.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

/// Every judge of every format.
fn judge(folder: &Path) {
    let raw = folder.join("disk.raw");
    for name in ["disk.vmdk", "disk.vhdx", "disk.vhd", "disk.qcow2"] {
        Checker::QemuImgCompare.accepts_all(&[&raw, &folder.join(name)]);
    }
    Checker::QemuImgCheckOther.accepts(&folder.join("disk.vmdk"));
    Checker::QemuImgCheckOther.accepts(&folder.join("disk.vhdx"));
    Checker::ZstdTest.accepts(&folder.join("disk.raw.zst"));
    let Some(mut zstd) = program("zstd", "zstd") else {
        return;
    };
    zstd.args(["-d", "-q", "-f", "--sparse", "-o"]);
    zstd.arg(folder.join("unpacked.raw"));
    must_run(zstd.arg(folder.join("disk.raw.zst")));
    Checker::QemuImgCompare.accepts_all(&[&raw, &folder.join("unpacked.raw")]);
}

#[test]
fn every_container_is_sound_and_holds_the_disk() {
    let folder = temp_folder();
    let disk = disk(40 * MIB + 512);
    let made = write(&disk, folder.path(), &WriteOptions::default());
    judge(folder.path());
    Checker::VmdkInfo.accepts(&folder.path().join("disk.vmdk"));
    Checker::VhdiInfo.accepts(&folder.path().join("disk.vhdx"));
    Checker::VhdiInfo.accepts(&folder.path().join("disk.vhd"));
    assert!(walk(&fs::read(folder.path().join("disk.vmdk")).expect("read")) == bytes_of(&disk));
    for image in &made {
        assert_eq!(image.content_root, made[0].content_root);
        let wants_digest = !image.path.to_string_lossy().ends_with("raw")
            && !image.path.to_string_lossy().ends_with("vhd");
        assert_eq!(image.digest, wants_digest.then(|| digest(&image.path)));
    }
}

#[test]
fn each_judge_rejects_a_damaged_image() {
    let folder = temp_folder();
    write(&disk(40 * MIB), folder.path(), &WriteOptions::default());
    let path = |name: &str| folder.path().join(name);
    let damage = |name: &str, at: usize, bytes: &[u8]| {
        let sound = fs::read(path(name)).expect("read");
        let mut damaged = sound.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(path(name), damaged).expect("write");
        sound
    };
    let restore = |name: &str, sound: Vec<u8>| fs::write(path(name), sound).expect("write");
    let length = |name: &str| usize::try_from(fs::metadata(path(name)).expect("stat").len());
    // The first grain: its marker's address, then its bytes.
    let sound = damage("disk.vmdk", 128 * SECTOR + 40, &[0x55; 32]);
    Checker::QemuImgCompare.rejects_all(&[&path("disk.raw"), &path("disk.vmdk")]);
    restore("disk.vmdk", sound);
    // The footer's magic number.
    let footer = length("disk.vmdk").expect("small") - 2 * SECTOR;
    let sound = damage("disk.vmdk", footer, b"XXXX");
    Checker::QemuImgCheckOther.rejects(&path("disk.vmdk"));
    restore("disk.vmdk", sound);
    let sound = damage("disk.vmdk", 0, b"XXXX");
    Checker::VmdkInfo.rejects(&path("disk.vmdk"));
    restore("disk.vmdk", sound);
    // Both copies of the region table.
    let sound = damage("disk.vhdx", 192 << 10, b"XXXX");
    damage("disk.vhdx", 256 << 10, b"XXXX");
    Checker::QemuImgCheckOther.rejects(&path("disk.vhdx"));
    Checker::VhdiInfo.rejects(&path("disk.vhdx"));
    restore("disk.vhdx", sound);
    // A block behind the end of the file.
    damage("disk.vhdx", 3 << 20, &(99_u64 << 20 | 6).to_le_bytes());
    Checker::QemuImgCompare.rejects_all(&[&path("disk.raw"), &path("disk.vhdx")]);
    // The footer's cookie.
    let footer = length("disk.vhd").expect("small") - SECTOR;
    damage("disk.vhd", footer, b"X");
    Checker::QemuImgCompare.rejects_all(&[&path("disk.raw"), &path("disk.vhd")]);
    Checker::VhdiInfo.rejects(&path("disk.vhd"));
    damage("disk.raw.zst", 1000, &[0x55; 16]);
    Checker::ZstdTest.rejects(&path("disk.raw.zst"));
}

#[test]
fn neither_threads_nor_other_outputs_nor_a_cache_show_in_the_bytes() {
    let disk = disk(40 * MIB);
    let cache = temp_folder();
    let cached = WriteOptions {
        cluster_cache: Some(cache.path().to_owned()),
        ..with_threads(2)
    };
    let all = [with_threads(1), with_threads(7), cached.clone(), cached].map(|options| {
        let folder = temp_folder();
        let made = write(&disk, folder.path(), &options);
        made.iter()
            .map(|made| digest(&made.path))
            .collect::<Vec<_>>()
    });
    assert!(all.iter().all(|digests| *digests == all[0]));
    for (format, together) in disk_formats().iter().zip(&all[0]) {
        let folder = temp_folder();
        let spec = ImageSpec::new("disk", *format);
        let options = WriteOptions::default();
        let alone = write_all(&[spec], &disk, folder.path(), &options, &Silent);
        assert_eq!(
            digest(&alone.expect("written")[0].path),
            *together,
            "{format}"
        );
    }
}

#[test]
fn zeros_cost_nothing_in_any_container() {
    let folder = temp_folder();
    let mut disk = PageMap::new(ByteSize::from_bytes(64 * GIB));
    disk.write_at(&[1], 0).expect("inside");
    disk.write_at(&[2; 4096], 64 * GIB - 4096).expect("inside");
    let made = write(&disk, folder.path(), &WriteOptions::default());
    for image in &made {
        let stored =
            std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image.path).expect("stat"));
        let most = if image.file_name().ends_with("zst") {
            40 * MIB
        } else {
            10 * MIB
        };
        assert!(stored * 512 < most, "{}: {stored}", image.path.display());
    }
    // qemu-img reads every zero of a VHDX.
    for name in ["disk.vmdk", "disk.vhd"] {
        let pair = [folder.path().join("disk.raw"), folder.path().join(name)];
        Checker::QemuImgCompare.accepts_all(&[&pair[0], &pair[1]]);
    }
}

#[test]
fn an_empty_disk_has_an_image_of_every_kind() {
    for size in [512, 3 * MIB, 4 * MIB + 512] {
        let folder = temp_folder();
        write(
            &Zeros(ByteSize::from_bytes(size)),
            folder.path(),
            &with_threads(1),
        );
        judge(folder.path());
    }
}

#[test]
fn what_a_container_cannot_hold_is_said_before_anything_is_written() {
    let folder = temp_folder();
    let refuse = |spec: ImageSpec, size: u64| {
        let disk = Zeros(ByteSize::from_bytes(size));
        let options = WriteOptions::default();
        write_all(&[spec], &disk, folder.path(), &options, &Silent).expect_err("impossible")
    };
    let spec = |format| ImageSpec::new("disk", format);
    for (format, limit, text) in [
        (
            ImageFormat::Vmdk,
            2 * TIB,
            "a disk of 2199023256064 bytes (2 TiB) does not fit vmdk, \
             which ends at 2199023255552 bytes (2 TiB)",
        ),
        (
            ImageFormat::Vhdx,
            64 * TIB,
            "a disk of 70368744178176 bytes (64 TiB) does not fit vhdx, \
             which ends at 70368744177664 bytes (64 TiB)",
        ),
        (
            ImageFormat::Vhd,
            2040 * GIB,
            "a disk of 2190433321472 bytes (2 TiB) does not fit vhd, \
             which ends at 2190433320960 bytes (2 TiB)",
        ),
    ] {
        let error = refuse(spec(format), limit + 512);
        assert_eq!(error.to_string(), text);
        assert!(
            error
                .hint()
                .expect("others")
                .starts_with("make the disk smaller, or use one of: raw")
        );
        assert_eq!(refuse(spec(format), 1000).slug(), "image-partial-sector");
    }
    let quoted = ImageSpec {
        file_name: "a\"b.vmdk".into(),
        ..spec(ImageFormat::Vmdk)
    };
    let error = refuse(quoted, MIB);
    assert_eq!(error.to_string(), "a VMDK cannot be called `a\\\"b.vmdk`");
    assert!(names_in(folder.path()).is_empty());
}

/// Reads a streamOptimized VMDK front to back, by its markers alone.
fn walk(stream: &[u8]) -> Vec<u8> {
    let u32_at = |at: usize| u32::from_le_bytes(stream[at..at + 4].try_into().expect("4"));
    let u64_at = |at: usize| u64::from_le_bytes(stream[at..at + 8].try_into().expect("8"));
    let place = |n: u64| usize::try_from(n).expect("small");
    assert_eq!(&stream[..4], b"KDMV");
    assert_eq!(u64_at(0x38), u64::MAX, "the footer knows the directory");
    let grain = place(u64_at(0x14)) * SECTOR;
    let mut disk = vec![0; place(u64_at(0x0c)) * SECTOR];
    let mut at = place(u64_at(0x40)) * SECTOR;
    let (mut last, mut kinds) = (None, Vec::new());
    loop {
        let (value, size) = (u64_at(at), u32_at(at + 8) as usize);
        if size > 0 {
            assert!(last.is_none_or(|last| value > last), "grains ascend");
            last = Some(value);
            let mut bytes = Vec::new();
            let mut zlib = ZlibDecoder::new(&stream[at + 12..at + 12 + size]);
            zlib.read_to_end(&mut bytes).expect("a sound grain");
            assert_eq!(zlib.total_in(), size as u64);
            let start = place(value) * SECTOR;
            let room = grain.min(disk.len() - start);
            disk[start..start + room].copy_from_slice(&bytes[..room]);
            at += (12 + size).next_multiple_of(SECTOR);
            continue;
        }
        let kind = u32_at(at + 12);
        kinds.push(kind);
        at += SECTOR + place(value) * SECTOR;
        if kind == 3 {
            let footer = at - SECTOR;
            assert_eq!(&stream[footer..footer + 4], b"KDMV");
            assert_ne!(u64_at(footer + 0x38), u64::MAX);
        }
        if kind == 0 {
            break;
        }
    }
    assert_eq!(at, stream.len(), "nothing behind the end of the stream");
    assert_eq!(kinds[kinds.len() - 3..], [2, 3, 0]);
    disk
}

#[test]
fn another_writer_of_streams_agrees_with_the_walk() {
    let folder = temp_folder();
    let disk = disk(40 * MIB);
    write(&disk, folder.path(), &WriteOptions::default());
    let Some(mut python) = program("/usr/bin/python3", "python3-vmdkstream") else {
        return;
    };
    let theirs = folder.path().join("theirs.vmdk");
    python.args([
        "-c",
        "import sys, VMDKstream; VMDKstream.convert_to_stream(sys.argv[1], sys.argv[2])",
    ]);
    must_run(python.arg(folder.path().join("disk.raw")).arg(&theirs));
    let ours = fs::read(folder.path().join("disk.vmdk")).expect("read");
    let theirs = fs::read(theirs).expect("read");
    assert!(walk(&ours) == walk(&theirs));
    // Flags, grain size, tables, line ends and compression are the same.
    let fixed = |image: &[u8]| {
        (
            image[8..0x1c].to_vec(),
            image[0x2c..0x30].to_vec(),
            image[0x48..0x4f].to_vec(),
        )
    };
    assert_eq!(fixed(&ours), fixed(&theirs));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(8), ..ProptestConfig::default() })]
    #[test]
    fn random_disks_survive_in_every_container(disk in a_disk()) {
        let folder = temp_folder();
        write(&disk, folder.path(), &with_threads(2));
        judge(folder.path());
    }
}
