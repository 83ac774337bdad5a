//! Hostile disks: sound images of which somebody changed a field. No reader
//! panics, hangs, takes more than 256 MiB or opens another file.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use consign::image::{Compression, ImageFormat, ImageSpec, write_all};
use consign::inspect::{self, FileSystem};
use consign::report::Silent;
use consign::sparse::Bytes;
use consign::units::MIB;

use super::image::{Noise, disk, disk_formats, with_threads};
use super::inspect::{mke2fs, mkfs_vfat};
use crate::support::{consign_path, must_run, program, run, temp_folder, text_of};

/// How an image is changed.
#[derive(Debug, Clone)]
enum Change {
    /// Other bytes at a place.
    Put(usize, Vec<u8>),
    /// Cut off.
    Cut(usize),
}

/// A change, and what must be said about the result: a slug, or `ok`.
type Case = (&'static str, Change, &'static str);

fn put(at: usize, bytes: impl Into<Vec<u8>>) -> Change {
    Change::Put(at, bytes.into())
}

fn be32(at: usize, value: u32) -> Change {
    put(at, value.to_be_bytes())
}

fn be64(at: usize, value: u64) -> Change {
    put(at, value.to_be_bytes())
}

fn le32(at: usize, value: u32) -> Change {
    put(at, value.to_le_bytes())
}

fn le64(at: usize, value: u64) -> Change {
    put(at, value.to_le_bytes())
}

const DAMAGED: &str = "inspect-damaged-image";
const UNSUPPORTED: &str = "inspect-unsupported-image";
const OTHER_FILE: &str = "inspect-other-file";
const VOLUME: &str = "inspect-damaged-volume";

fn qcow2_cases(image: &[u8]) -> Vec<Case> {
    let mut cases = qcow2_header_cases();
    cases.extend(qcow2_table_cases(image));
    cases
}

fn qcow2_header_cases() -> Vec<Case> {
    vec![
        (
            "backing file",
            put(8, [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 11]),
            OTHER_FILE,
        ),
        ("backing file of no length", be64(8, 512), OTHER_FILE),
        ("data file", be64(72, 1 << 2), OTHER_FILE),
        (
            "data file by extension",
            put(104, *b"DATA\0\0\0\x0b/etc/passwd\0"),
            OTHER_FILE,
        ),
        (
            "encryption by extension",
            be32(104, 0x0537_be77),
            UNSUPPORTED,
        ),
        (
            "endless extensions",
            put(104, [1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff]),
            DAMAGED,
        ),
        ("encryption", be32(32, 1), UNSUPPORTED),
        ("corrupt bit", be64(72, 2), DAMAGED),
        ("dirty bit", be64(72, 1), DAMAGED),
        ("extended L2", be64(72, 16), UNSUPPORTED),
        ("unknown feature", be64(72, 1 << 40), UNSUPPORTED),
        ("compression bit alone", be64(72, 8), DAMAGED),
        ("version 4", be32(4, 4), UNSUPPORTED),
        ("clusters of 2 bytes", be32(20, 1), DAMAGED),
        ("clusters of 4 GiB", be32(20, 32), DAMAGED),
        ("huge disk", be64(24, u64::MAX), DAMAGED),
        ("larger disk than L1", be64(24, 1 << 50), DAMAGED),
        (
            "huge L1",
            put(
                24,
                [
                    (1_u64 << 60).to_be_bytes().to_vec(),
                    vec![0, 0, 0, 0],
                    u32::MAX.to_be_bytes().to_vec(),
                ]
                .concat(),
            ),
            UNSUPPORTED,
        ),
        ("no L1", be32(36, 0), DAMAGED),
    ]
}

fn qcow2_table_cases(image: &[u8]) -> Vec<Case> {
    let be = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().expect("8"));
    let l1 = usize::try_from(be(40)).expect("small");
    let l2 = usize::try_from(be(l1) & !(1 << 63)).expect("small");
    let refcounts = usize::try_from(be(48)).expect("small");
    let block = usize::try_from(be(refcounts)).expect("small");
    vec![
        ("L1 off its cluster", be64(40, 65_537), DAMAGED),
        ("L1 behind the end", be64(40, 1 << 40), DAMAGED),
        ("L1 over the header", be64(40, 0), DAMAGED),
        ("L1 at the end of the numbers", be64(40, !0xffff), DAMAGED),
        ("L2 off its cluster", be64(l1, 512), DAMAGED),
        ("L2 behind the end", be64(l1, 1 << 50), DAMAGED),
        ("no L2", be64(l1, 1 << 63), "ok"),
        ("L2 over the L1", be64(l1, 65_536), DAMAGED),
        ("flags in L1", be64(l1, 1), DAMAGED),
        ("cluster over a table", be64(l2, l2 as u64), DAMAGED),
        ("cluster behind the end", be64(l2, 1 << 45), DAMAGED),
        ("flags in L2", be64(l2, 2), DAMAGED),
        (
            "packed cluster behind the end",
            be64(l2, 1 << 62 | 1 << 50),
            DAMAGED,
        ),
        (
            "packed cluster over the L1",
            be64(l2, 1 << 62 | 65_536),
            DAMAGED,
        ),
        ("packed and copied", be64(l2, 3 << 62), DAMAGED),
        (
            "two entries, one cluster",
            put(
                l2,
                [[0, 0, 0, 0, 0, 2, 0, 0], [0, 0, 0, 0, 0, 2, 0, 0]].concat(),
            ),
            DAMAGED,
        ),
        (
            "noise in a packed cluster",
            put(2 * 65_536 + 20, [0x55; 64]),
            "inspect-content-root",
        ),
        ("refcounts too wide", be32(96, 7), DAMAGED),
        ("refcount table of 4 GiB", be32(56, u32::MAX), UNSUPPORTED),
        ("refcount table behind the end", be64(48, 1 << 40), DAMAGED),
        ("used but not counted", put(block, [0, 0]), DAMAGED),
        (
            "refcount block off its cluster",
            be64(refcounts, 513),
            DAMAGED,
        ),
        ("header of no length", be32(100, 0), DAMAGED),
        ("cut header", Change::Cut(60), DAMAGED),
        ("cut in half", Change::Cut(image.len() / 2), DAMAGED),
    ]
}

/// Where a text is in an image.
fn place_of(image: &[u8], text: &[u8]) -> usize {
    let mut windows = image.windows(text.len());
    windows
        .position(|bytes| bytes == text)
        .expect("it is there")
}

fn vmdk_cases(image: &[u8]) -> Vec<Case> {
    let parent = place_of(image, b"parentCID=ffffffff");
    let kind = place_of(image, b"createType=");
    let footer = image.len() - 1024;
    let gd = u64::from_le_bytes(image[footer + 0x38..footer + 0x40].try_into().expect("8"));
    let gd = usize::try_from(gd).expect("small") * 512;
    vec![
        (
            "other extents",
            put(0, *b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n"),
            OTHER_FILE,
        ),
        ("old ESX", put(0, *b"COWD"), UNSUPPORTED),
        (
            "a second extent",
            put(kind - 1, *b"\nRW 2048 FLAT \"/etc/passwd\" 0\n"),
            OTHER_FILE,
        ),
        ("a parent", put(parent, *b"parentCID=00000001"), OTHER_FILE),
        ("no footer", put(image.len() - 1536, [0x55; 16]), DAMAGED),
        ("no end", put(image.len() - 512, [1; 16]), DAMAGED),
        ("other footer", le64(footer + 0x0c, 7), DAMAGED),
        ("version 9", le32(footer + 4, 9), UNSUPPORTED),
        (
            "odd grains",
            put(0x14, [[3, 0, 0, 0, 0, 0, 0, 0]].concat()),
            DAMAGED,
        ),
        ("huge disk", le64(footer + 0x0c, u64::MAX), DAMAGED),
        (
            "unknown compression",
            put(footer + 0x4d, [7, 0]),
            UNSUPPORTED,
        ),
        ("no markers", le32(footer + 8, 0x1_0001), UNSUPPORTED),
        ("long tables", le32(footer + 0x2c, u32::MAX), DAMAGED),
        (
            "directory behind the end",
            le64(footer + 0x38, 1 << 40),
            DAMAGED,
        ),
        (
            "directory over all numbers",
            le64(footer + 0x38, u64::MAX - 1),
            DAMAGED,
        ),
        ("table behind the end", le32(gd, u32::MAX), DAMAGED),
        ("descriptor of 4 EiB", le64(footer + 0x24, 1 << 53), DAMAGED),
        ("no descriptor", le64(footer + 0x1c, 0), OTHER_FILE),
        (
            "noise in a grain",
            put(128 * 512 + 14, [0x55; 64]),
            "inspect-content-root",
        ),
        (
            "grain of another place",
            le64(128 * 512, 99),
            "inspect-content-root",
        ),
        (
            "grain of 4 GiB",
            le32(128 * 512 + 8, u32::MAX),
            "inspect-content-root",
        ),
        ("cut in half", Change::Cut(image.len() / 2), DAMAGED),
    ]
}

fn vhdx_cases(image: &[u8]) -> Vec<Case> {
    const TABLE: usize = 3 << 20;
    let first = image[TABLE..TABLE + 8].to_vec();
    let both = |at: usize, bytes: &[u8]| {
        // The first copy alone: the second one is used.
        put(at, bytes.to_vec())
    };
    vec![
        ("one bad header", both(64 << 10, b"XXXX"), "ok"),
        ("one bad region table", both(192 << 10, b"XXXX"), "ok"),
        (
            "no region table",
            put(192 << 10, vec![0; 128 << 10]),
            DAMAGED,
        ),
        ("no header", put(64 << 10, vec![0; 128 << 10]), DAMAGED),
        ("no metadata", put(2 << 20, [0; 8]), DAMAGED),
        ("a parent", le32((2 << 20) + (64 << 10) + 4, 2), OTHER_FILE),
        (
            "blocks of 3 bytes",
            le32((2 << 20) + (64 << 10), 3),
            DAMAGED,
        ),
        (
            "blocks of 2 GiB",
            le32((2 << 20) + (64 << 10), 1 << 31),
            DAMAGED,
        ),
        (
            "huge disk",
            le64((2 << 20) + (64 << 10) + 8, u64::MAX),
            DAMAGED,
        ),
        (
            "larger disk than its table",
            le64((2 << 20) + (64 << 10) + 8, 1 << 45),
            DAMAGED,
        ),
        ("odd sectors", le32((2 << 20) + (64 << 10) + 32, 7), DAMAGED),
        ("unknown item", le64((2 << 20) + 32, 7), DAMAGED),
        (
            "item behind its region",
            le32((2 << 20) + 32 + 16, u32::MAX),
            DAMAGED,
        ),
        ("two blocks, one place", put(TABLE + 24, first), DAMAGED),
        ("block over the log", le64(TABLE, 1 << 20 | 6), DAMAGED),
        ("block over the metadata", le64(TABLE, 2 << 20 | 6), DAMAGED),
        ("block over the table", le64(TABLE, 3 << 20 | 6), DAMAGED),
        ("block behind the end", le64(3 << 20, 1 << 50 | 6), DAMAGED),
        ("block over the headers", le64(3 << 20, 6), DAMAGED),
        ("block of a parent", le64(3 << 20, 1 << 22 | 7), DAMAGED),
        ("cut in half", Change::Cut(2 << 20), DAMAGED),
    ]
}

fn vhd_cases(image: &[u8]) -> Vec<Case> {
    let footer = image.len() - 512;
    vec![
        ("sum", put(footer + 20, [1]), DAMAGED),
        ("qcow2 in front", put(0, *b"QFI\xfb"), "inspect-two-formats"),
        ("footer alone", put(footer + 60, [0, 0, 0, 3]), DAMAGED),
    ]
}

fn zst_cases(image: &[u8]) -> Vec<Case> {
    let footer = image.len() - 9;
    let frames = u32::from_le_bytes(image[footer..footer + 4].try_into().expect("4")) as usize;
    let table = footer - frames * 8;
    vec![
        ("no seek table", put(footer + 5, [0]), UNSUPPORTED),
        ("four billion frames", le32(footer, u32::MAX), UNSUPPORTED),
        ("more frames than bytes", le32(footer, 1 << 19), DAMAGED),
        ("a frame of 4 GiB", le32(table + 4, u32::MAX), UNSUPPORTED),
        ("a frame behind the end", le32(table, u32::MAX), DAMAGED),
        (
            "a frame of another length",
            le32(table + 4, 5 << 20),
            "inspect-content-root",
        ),
        ("noise", put(100, [0x55; 64]), "inspect-content-root"),
    ]
}

fn fat_cases(volume: &[u8]) -> Vec<Case> {
    let le = |at: usize| usize::from(u16::from_le_bytes([volume[at], volume[at + 1]]));
    let fat = le(14) * 512;
    let root = fat + usize::from(volume[16]) * le(22) * 512;
    let entries = (root..root + 512).step_by(32);
    let mut files = entries.filter(|at| volume[at + 11] == 0x20);
    let file = files.next().expect("a file in the root");
    vec![
        (
            "clusters of no sector",
            put(13, [0]),
            "inspect-no-file-system",
        ),
        ("no table", put(22, [0, 0]), VOLUME),
        ("longer than its partition", put(19, [0xff, 0xff]), VOLUME),
        ("four billion sectors", put(19, [0; 2]), VOLUME),
        ("no reserved sector", put(14, [0, 0]), VOLUME),
        ("a root of 65,535 entries", put(17, [0xff, 0xff]), "ok"),
        (
            "every chain loops",
            put(fat + 4, [2, 0].repeat(3000)),
            VOLUME,
        ),
        ("every chain is free", put(fat + 4, vec![0; 6000]), VOLUME),
        (
            "every chain leaves",
            put(fat + 4, [0xf0, 0xff].repeat(3000)),
            VOLUME,
        ),
        ("a file of 4 GiB", put(file + 28, [0xff; 4]), VOLUME),
        (
            "names of noise",
            put(
                root + 32,
                (0..2000_u32)
                    .map(|n| (n * 7).to_le_bytes()[0] | 1)
                    .collect::<Vec<_>>(),
            ),
            "inspect-no-path",
        ),
    ]
}

fn ext4_cases(volume: &[u8]) -> Vec<Case> {
    let le = |at: usize| u32::from_le_bytes(volume[at..at + 4].try_into().expect("4")) as usize;
    let table = le(4096 + 8) * 4096;
    let inode = |number: usize| table + (number - 1) * 256;
    let root_block = le(inode(2) + 0x28 + 12 + 8) * 4096;
    vec![
        (
            "blocks of 4 TiB",
            le32(1024 + 0x18, 32),
            "inspect-unsupported-volume",
        ),
        (
            "unknown feature",
            le32(1024 + 0x60, 0x8000_0042),
            "inspect-unsupported-volume",
        ),
        ("more blocks than disk", le32(1024 + 4, u32::MAX), VOLUME),
        ("no inodes a group", le32(1024 + 0x28, 0), VOLUME),
        ("no blocks a group", le32(1024 + 0x20, 0), VOLUME),
        ("inodes of 3 bytes", put(1024 + 0x58, [3, 0]), VOLUME),
        ("inodes of 32 KiB", put(1024 + 0x58, [0, 0x80]), VOLUME),
        (
            "inode table behind the end",
            le32(4096 + 8, u32::MAX),
            VOLUME,
        ),
        ("inode table 0", le32(4096 + 8, 0), VOLUME),
        (
            "root is a file",
            put(inode(2), [0xa4, 0x81]),
            "inspect-no-path",
        ),
        (
            "root of 4 EiB",
            le32(inode(2) + 0x6c, u32::MAX),
            "inspect-too-large",
        ),
        ("root of another type", put(inode(2), [0, 0xf0]), VOLUME),
        ("tree of height 6", put(inode(2) + 0x28 + 6, [6, 0]), VOLUME),
        ("tree of height 1", put(inode(2) + 0x28 + 6, [1, 0]), VOLUME),
        (
            "too many extents",
            put(inode(2) + 0x28 + 2, [0xff, 0xff, 0xff, 0xff]),
            VOLUME,
        ),
        (
            "extent behind the end",
            le32(inode(2) + 0x28 + 12 + 8, u32::MAX),
            VOLUME,
        ),
        (
            "empty extent",
            put(inode(2) + 0x28 + 12 + 4, [0, 0]),
            VOLUME,
        ),
        ("no extent", put(inode(2) + 0x28 + 2, [0, 0]), VOLUME),
        ("entry of no length", put(root_block + 4, [0, 0]), VOLUME),
        (
            "entry over its block",
            put(root_block + 4, [0xfc, 0xff]),
            VOLUME,
        ),
        ("long name", put(root_block + 6, [255]), VOLUME),
        (
            "inode four billion",
            le32(root_block + 24, u32::MAX),
            VOLUME,
        ),
        (
            "attributes behind the end",
            le32(inode(11) + 0x68, u32::MAX),
            VOLUME,
        ),
        (
            "second half of 64 KiB",
            put(inode(11) + 128, [0xff, 0xff]),
            VOLUME,
        ),
        ("cut in half", Change::Cut(volume.len() / 2), VOLUME),
    ]
}

fn write(path: &Path, sound: &[u8], change: &Change) {
    let mut bytes = sound.to_vec();
    match change {
        Change::Put(at, new) => bytes[*at..*at + new.len()].copy_from_slice(new),
        Change::Cut(length) => bytes.truncate(*length),
    }
    fs::write(path, bytes).expect("write");
}

/// `consign` in 256 MiB and ten seconds.
pub(super) fn bounded(args: &[&str], image: &str, behind: &[&str]) -> Option<Output> {
    within(256 << 20, 10, args, image, behind)
}

/// `consign` in so many bytes and seconds.
pub(super) fn within(
    bytes: u64,
    seconds: u32,
    args: &[&str],
    image: &str,
    behind: &[&str],
) -> Option<Output> {
    let mut command = program("prlimit", "util-linux")?;
    command
        .arg(format!("--data={bytes}"))
        .args(["timeout", &seconds.to_string()])
        .arg(consign_path());
    command.args(args).arg(image).args(behind);
    Some(run(&mut command))
}

/// Runs the case; panics when it ends otherwise than it should.
fn judge(image: &Path, name: &str, wanted: &str, is_volume: bool) {
    let path = image.to_string_lossy();
    let mut said = String::new();
    let mut codes = Vec::new();
    let runs: &[(&[&str], &[&str])] = if is_volume {
        &[
            (&["inspect", "ls"], &["/"]),
            (&["inspect", "ls"], &["/many"]),
            (&["inspect", "cat"], &["/A long name with spaces.txt"]),
            (&["inspect", "--no-root"], &[]),
        ]
    } else {
        &[(&["inspect"], &[])]
    };
    for (args, behind) in runs {
        let Some(output) = bounded(args, &path, behind) else {
            return;
        };
        let code = output.status.code();
        let text = text_of(&output);
        assert!(
            code.is_some_and(|code| (0..=3).contains(&code)) && !text.contains("panicked"),
            "{name}: {:?} ended with {:?}: {text}",
            args,
            output.status
        );
        codes.push(code);
        said.push_str(&text);
    }
    match wanted {
        "ok" => assert!(codes.iter().all(|code| *code == Some(0)), "{name}: {said}"),
        slug => assert!(
            said.contains(&format!("error[{slug}]")),
            "{name}: not {slug}: {said}"
        ),
    }
}

fn run_cases(
    folder: &Path,
    extension: &str,
    sound: &[u8],
    cases: &[Case],
    is_volume: bool,
) -> usize {
    for (name, change, wanted) in cases {
        let path = folder.join(format!("hostile.{extension}"));
        write(&path, sound, change);
        judge(&path, name, wanted, is_volume);
    }
    cases.len()
}

fn sound_images(folder: &Path) -> Vec<PathBuf> {
    let mut specs: Vec<ImageSpec> = disk_formats()
        .iter()
        .map(|format| ImageSpec::new("disk", *format))
        .collect();
    specs.push(ImageSpec {
        file_name: "zstd.qcow2".into(),
        compression: Compression::Zstd("3".parse().expect("a level")),
        ..ImageSpec::new("", ImageFormat::Qcow2)
    });
    let made = write_all(&specs, &disk(12 * MIB), folder, &with_threads(2), &Silent);
    made.expect("written")
        .into_iter()
        .map(|made| made.path)
        .collect()
}

#[test]
fn hostile_containers_are_refused() {
    let folder = temp_folder();
    let images = sound_images(folder.path());
    let bytes = |at: usize| fs::read(&images[at]).expect("read");
    let (zst, qcow2, vmdk, vhdx, vhd) = (bytes(1), bytes(2), bytes(3), bytes(4), bytes(5));
    let count = run_cases(folder.path(), "qcow2", &qcow2, &qcow2_cases(&qcow2), false)
        + run_cases(folder.path(), "vmdk", &vmdk, &vmdk_cases(&vmdk), false)
        + run_cases(folder.path(), "vhdx", &vhdx, &vhdx_cases(&vhdx), false)
        + run_cases(folder.path(), "vhd", &vhd, &vhd_cases(&vhd), false)
        + run_cases(folder.path(), "raw.zst", &zst, &zst_cases(&zst), false);
    assert!(count >= 60, "{count}");
}

#[test]
fn hostile_volumes_are_refused() {
    let folder = temp_folder();
    let source = folder.path().join("tree");
    fs::create_dir_all(source.join("many")).expect("make");
    fs::write(source.join("A long name with spaces.txt"), vec![7; 50_000]).expect("write");
    for number in 0..40 {
        fs::write(source.join(format!("many/file-{number}")), "x").expect("write");
    }
    let path = folder.path().join("sound");
    // Without sums, so that the readers see what was changed.
    let plain = [
        "-O",
        "^metadata_csum,^metadata_csum_seed,^64bit",
        "-b",
        "4096",
        "-I",
        "256",
    ];
    if mke2fs(&source, &path, &plain).is_none() {
        return;
    }
    let ext4 = fs::read(&path).expect("read");
    run_cases(folder.path(), "ext4", &ext4, &ext4_cases(&ext4), true);
    if mkfs_vfat(&source, &path, "16", 12).is_none() {
        return;
    }
    let fat = fs::read(&path).expect("read");
    run_cases(folder.path(), "fat", &fat, &fat_cases(&fat), true);
}

/// Reads everything of an image in memory, as long as that is little.
pub(super) fn read_everything(bytes: Vec<u8>, format: Option<ImageFormat>) {
    const MOST: u64 = 64 << 20;
    let Ok(image) = inspect::open_source(Arc::new(Bytes(bytes.into())), format) else {
        return;
    };
    let Ok(overview) = inspect::overview(&image, false) else {
        return;
    };
    if overview.data.bytes() <= MOST {
        let mut buffer = vec![0; 1 << 16];
        for range in image.disk.data_ranges() {
            for at in range.clone().step_by(1 << 16) {
                let length = usize::try_from(range.end - at).unwrap_or(usize::MAX);
                let _read = image
                    .disk
                    .read_exact_at(&mut buffer[..length.min(1 << 16)], at);
            }
        }
    }
    let known =
        |facts: &inspect::PartitionFacts| matches!(facts.file_system, FileSystem::Known { .. });
    for partition in overview.partitions.iter().filter(|facts| known(facts)) {
        let number = partition.number.map(|number| number.to_string());
        let Ok(volume) = image.volume(number.as_deref()) else {
            continue;
        };
        for path in ["/", "/many"] {
            let _listed = volume.list(path);
        }
        let mut taken = 0;
        let _read = volume.read("/A long name with spaces.txt", &mut |piece| {
            taken += piece.len() as u64;
            if taken > MOST {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            Ok(())
        });
    }
}

#[test]
fn changed_bytes_anywhere_are_read_or_refused() {
    let folder = temp_folder();
    let mut noise = Noise(77);
    for path in &sound_images(folder.path())[1..] {
        let sound = fs::read(path).expect("read");
        let format = if path.ends_with("zstd.qcow2") {
            None
        } else {
            path.to_string_lossy()
                .split_once("disk.")
                .and_then(|(_, name)| name.parse().ok())
        };
        for round in 0..60 {
            let mut bytes = sound.clone();
            // Structures are where the bytes are not noise: mostly the first of a sector.
            for _ in 0..=round % 4 {
                let sector = (noise.next() % bytes.len() as u64) / 512;
                let at = sector * 512 + noise.next() % 96;
                let at = usize::try_from(at).unwrap_or(0).min(bytes.len() - 1);
                bytes[at] = noise.next().to_le_bytes()[2];
            }
            read_everything(bytes, format);
        }
    }
}

/// A VHDX that says it has a parent, with its locator.
fn with_parent(mut vhdx: Vec<u8>, name: &str) -> Vec<u8> {
    const METADATA: usize = 2 << 20;
    const ITEMS: usize = METADATA + (64 << 10);
    const LOCATOR: usize = 4096;
    let count = usize::from(vhdx[METADATA + 10]);
    vhdx[METADATA + 10] += 1;
    let entry = METADATA + 32 + count * 32;
    // {A8D35F2D-B30B-454D-ABF7-D3D84834AB0C}, of the standard's list.
    let locator = 0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c_u128.to_be_bytes();
    vhdx[entry..entry + 16].copy_from_slice(&locator);
    vhdx[entry..entry + 4].reverse();
    vhdx[entry + 4..entry + 6].reverse();
    vhdx[entry + 6..entry + 8].reverse();
    let mut text = vec![0; 40];
    text.extend("relative_path".encode_utf16().flat_map(u16::to_le_bytes));
    text.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    let place = [(64 << 10) + LOCATOR, text.len(), 4].map(|n| u32::try_from(n).expect("small"));
    for (n, number) in place.into_iter().enumerate() {
        let at = entry + 16 + n * 4;
        vhdx[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    vhdx[ITEMS + LOCATOR..ITEMS + LOCATOR + text.len()].copy_from_slice(&text);
    vhdx[ITEMS + 4] |= 2;
    vhdx
}

#[test]
fn no_file_that_an_image_names_is_opened() {
    let folder = temp_folder();
    let images = sound_images(folder.path());
    let canary = folder.path().join("canary");
    fs::write(&canary, "secret").expect("write");
    let name = canary.to_string_lossy().into_owned();
    let mut named = Vec::new();
    let qcow2 = fs::read(&images[2]).expect("read");
    let mut backing = qcow2.clone();
    backing[8..16].copy_from_slice(&512_u64.to_be_bytes());
    backing[16..20].copy_from_slice(&u32::try_from(name.len()).expect("short").to_be_bytes());
    backing[512..512 + name.len()].copy_from_slice(name.as_bytes());
    named.push(("backing.qcow2", backing));
    let mut data = qcow2;
    data[72..80].copy_from_slice(&4_u64.to_be_bytes());
    data[104..108].copy_from_slice(b"DATA");
    data[108..112].copy_from_slice(&u32::try_from(name.len()).expect("short").to_be_bytes());
    data[112..112 + name.len()].copy_from_slice(name.as_bytes());
    named.push(("data.qcow2", data));
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=2\nparentFileNameHint=\"{name}\"\n\
         createType=\"monolithicFlat\"\nRW 2048 FLAT \"{name}\" 0\n"
    );
    named.push(("extents.vmdk", descriptor.into_bytes()));
    // Inside of what could be read alone, too.
    let (vmdk, vhdx) = (&images[3], &images[4]);
    let mut parent = fs::read(vmdk).expect("read");
    let at = place_of(&parent, b"parentCID=ffffffff");
    let hint = format!("parentFileNameHint=\"{name}\"\n");
    let kind = place_of(&parent, b"createType=");
    parent[kind..kind + hint.len()].copy_from_slice(hint.as_bytes());
    named.push(("hint.vmdk", parent.clone()));
    parent[at + 10..at + 18].copy_from_slice(b"00000001");
    named.push(("parent.vmdk", parent));
    named.push((
        "parent.vhdx",
        with_parent(fs::read(vhdx).expect("read"), &name),
    ));
    for (file, bytes) in named {
        let path = folder.path().join(file);
        fs::write(&path, bytes).expect("write");
        let Some(mut strace) = program("strace", "strace") else {
            return;
        };
        strace.args([
            "-f",
            "-qq",
            "-e",
            "trace=open,openat,openat2,connect,execve",
        ]);
        strace.arg(consign_path()).arg("inspect").arg(&path);
        let output = run(&mut strace);
        let said = text_of(&output);
        assert!(said.contains("error[inspect-other-file]"), "{said}");
        assert!(said.contains(file), "the trace shows what is opened");
        let opened = said
            .lines()
            .filter(|line| line.contains("open") && line.contains(&name));
        assert_eq!(opened.count(), 0, "{said}");
    }
    // And a pipe is no file to wait for.
    let pipe = folder.path().join("pipe");
    let Some(mut mkfifo) = program("mkfifo", "coreutils") else {
        return;
    };
    must_run(mkfifo.arg(&pipe));
    let Some(output) = bounded(&["inspect"], &pipe.to_string_lossy(), &[]) else {
        return;
    };
    assert!(text_of(&output).contains("error[inspect-not-a-file]"));
}

#[test]
fn a_sparse_file_that_claims_much_is_quick() {
    let folder = temp_folder();
    let path = folder.path().join("huge.qcow2");
    let images = sound_images(folder.path());
    let sound = fs::read(&images[2]).expect("read");
    let file = fs::File::create(&path).expect("create");
    file.write_all_at(&sound[..65_536], 0).expect("write");
    // An L1 table of 4 Mi entries, each with an L2 table in a hole of its own.
    let l1: Vec<u8> = (0..4_u64 << 20)
        .flat_map(|n| ((1 << 63) | ((1 << 30) + n * 65_536)).to_be_bytes())
        .collect();
    file.write_all_at(&l1, 1 << 16).expect("write");
    file.write_all_at(&(2_u64 << 50).to_be_bytes(), 24)
        .expect("write");
    file.write_all_at(&(4_u32 << 20).to_be_bytes(), 36)
        .expect("write");
    file.set_len(1 << 39).expect("grow");
    judge(&path, "huge", DAMAGED, false);
}

/// One packed cluster, and a table of 2 MiB that says so for half a TiB.
#[test]
fn one_packed_cluster_is_not_a_quarter_of_a_million() {
    const CLUSTER: usize = 2 << 20;
    const ENTRIES: usize = CLUSTER / 8;
    let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
    let mut packed = Vec::with_capacity(8192);
    let done = deflate.compress_vec(
        &vec![7; CLUSTER],
        &mut packed,
        flate2::FlushCompress::Finish,
    );
    assert_eq!(done.expect("packed"), flate2::Status::StreamEnd);
    let mut image = vec![0; 6 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &21_u32.to_be_bytes());
    put(24, &((ENTRIES * CLUSTER) as u64).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    let offset = |cluster: usize| ((cluster * CLUSTER) as u64).to_be_bytes();
    // Header, L1, L2, refcounts in two, and what is packed.
    put(40, &offset(1));
    put(48, &offset(3));
    put(56, &1_u32.to_be_bytes());
    put(96, &[4_u32, 104].map(u32::to_be_bytes).concat());
    put(CLUSTER, &(1 << 63 | (2 * CLUSTER) as u64).to_be_bytes());
    let sectors = (packed.len() as u64 - 1) / 512;
    let entry = 1 << 62 | sectors << 49 | (5 * CLUSTER) as u64;
    put(2 * CLUSTER, &entry.to_be_bytes().repeat(ENTRIES));
    put(3 * CLUSTER, &offset(4));
    put(4 * CLUSTER, &[0, 1].repeat(6));
    put(5 * CLUSTER, &packed);
    let folder = temp_folder();
    let path = folder.path().join("bomb.qcow2");
    fs::write(&path, &image).expect("write");
    judge(&path, "one for many", DAMAGED, false);
    // A few clusters that do share it are what any reader takes.
    let few = entry.to_be_bytes().repeat(3);
    image[2 * CLUSTER..3 * CLUSTER].fill(0);
    image[2 * CLUSTER..2 * CLUSTER + few.len()].copy_from_slice(&few);
    fs::write(&path, &image).expect("write");
    judge(&path, "one for three", "ok", false);
}

/// A sparse VMDK of QEMU's, of which two grains are one, or lie on a table.
#[test]
fn grains_that_are_not_packed_lie_apart() {
    let folder = temp_folder();
    let (raw, path) = (folder.path().join("raw"), folder.path().join("sound.vmdk"));
    fs::write(&raw, vec![7; 3 << 16]).expect("write");
    let Some(mut qemu) = program("qemu-img", "qemu-utils") else {
        return;
    };
    qemu.args(["convert", "-f", "raw", "-O", "vmdk"]);
    must_run(qemu.arg(&raw).arg(&path));
    let sound = fs::read(&path).expect("read");
    let le = |at: usize| u32::from_le_bytes(sound[at..at + 4].try_into().expect("4"));
    let directory = le(0x38);
    let table = le(directory as usize * 512);
    let entries = table as usize * 512;
    let grain = le(entries);
    let cases = [
        ("sound", le32(entries, grain), "ok"),
        ("one grain twice", le32(entries + 4, grain), DAMAGED),
        (
            "grains that overlap",
            le32(entries + 4, grain + 64),
            DAMAGED,
        ),
        ("grain over the descriptor", le32(entries, 2), DAMAGED),
        (
            "grain over the directory",
            le32(entries, directory),
            DAMAGED,
        ),
        ("grain before its table", le32(entries, table - 1), DAMAGED),
    ];
    run_cases(folder.path(), "vmdk", &sound, &cases, false);
}
