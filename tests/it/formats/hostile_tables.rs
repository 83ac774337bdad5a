//! Partition tables with one wrong field and the right sums: each rule of the
//! reader is the one that refuses.

use std::fs;
use std::path::Path;

use super::hostile_disks::bounded;
use crate::support::{must_run, program, temp_folder, text_of};

const HEADER: usize = 512;
const ENTRIES: usize = 1024;
/// The second entry.
const SECOND: usize = ENTRIES + 128;
const SECTORS: usize = 8192;
const BACKUP: usize = (SECTORS - 1) * 512;
const BACKUP_ENTRIES: usize = (SECTORS - 33) * 512;

/// Other bytes at places.
type Change<'a> = &'a [(usize, &'a [u8])];

fn number(disk: &[u8], at: usize, length: usize) -> usize {
    let bytes = disk[at..at + length].iter().rev();
    bytes.fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    zlib_rs::crc32::crc32(0, bytes).to_le_bytes()
}

/// Gives the header at `at`, and the table that it names, the right sums.
fn seal(disk: &mut [u8], at: usize) {
    let table = number(disk, at + 72, 8).saturating_mul(512);
    let length = number(disk, at + 80, 4).saturating_mul(number(disk, at + 84, 4));
    let sum = disk
        .get(table..table.saturating_add(length))
        .map_or([0; 4], crc32);
    disk[at + 88..at + 92].copy_from_slice(&sum);
    let size = number(disk, at + 12, 4).min(512);
    disk[at + 16..at + 20].fill(0);
    let sum = crc32(&disk[at..at + size]);
    disk[at + 16..at + 20].copy_from_slice(&sum);
}

/// A disk of 4 MiB with two partitions.
fn sound(folder: &Path) -> Option<Vec<u8>> {
    let path = folder.join("sound.raw");
    fs::write(&path, vec![0; SECTORS * 512]).expect("write");
    let mut sgdisk = program("sgdisk", "gdisk")?;
    must_run(sgdisk.args(["-n1:2048:4095", "-n2:4096:6143"]).arg(&path));
    Some(fs::read(&path).expect("read"))
}

/// What `consign inspect` says about `sound` with the changes, and its exit code.
fn said(folder: &Path, sound: &[u8], change: Change<'_>, seals: &[usize]) -> (String, Option<i32>) {
    let mut disk = sound.to_vec();
    for (at, bytes) in change {
        disk[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    for at in seals {
        seal(&mut disk, *at);
    }
    let path = folder.join("changed.raw");
    fs::write(&path, disk).expect("write");
    let output = bounded(&["inspect", "--no-root"], &path.to_string_lossy(), &[]);
    let output = output.expect("prlimit was there before");
    (text_of(&output), output.status.code())
}

/// With a sound backup, the rules of entries are told all the same; those of
/// the table make the backup count, where the disk is not `alone` without it.
fn judge_rule(folder: &Path, disk: &[u8], alone: &[u8], change: Change<'_>, wrong: &str) {
    let (text, code) = said(folder, disk, change, &[HEADER]);
    let is_read = text.contains(&format!("GPT primary   {wrong}"));
    assert_eq!(code, Some(if is_read { 0 } else { 3 }), "{wrong}: {text}");
    assert!(is_read || wrong.contains("partition"), "{wrong}: {text}");
    let (text, code) = said(folder, alone, change, &[HEADER]);
    assert_eq!(code, Some(3), "{wrong}: {text}");
    let wanted =
        format!("error[inspect-partition-table]: the partition table is not sound: {wrong}");
    assert!(text.contains(&wanted), "{wrong}: {text}");
}

#[test]
fn each_broken_rule_of_a_table_with_right_sums_is_named() {
    let folder = temp_folder();
    let Some(disk) = sound(folder.path()) else {
        return;
    };
    if program("prlimit", "util-linux").is_none() {
        return;
    }
    let (text, code) = said(folder.path(), &disk, &[], &[HEADER, BACKUP]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("GPT backup"), "{text}");
    let guid = disk[ENTRIES + 16..ENTRIES + 32].to_vec();
    let lba = u64::to_le_bytes;
    let four = u32::to_le_bytes;
    let cases: [(Change<'_>, &str); 19] = [
        (&[(SECOND + 32, &lba(4000))], "two partitions overlap"),
        (
            &[(ENTRIES + 40, &lba(2047))],
            "a partition ends before it begins",
        ),
        (
            &[(SECOND + 40, &lba(8159))],
            "a partition is outside of the usable space",
        ),
        (
            &[(ENTRIES + 32, &lba(33))],
            "a partition is outside of the usable space",
        ),
        (
            &[(SECOND + 40, &lba(u64::MAX))],
            "a partition is outside of the usable space",
        ),
        (
            &[(SECOND + 16, &guid)],
            "two partitions have one identifier",
        ),
        (
            &[(HEADER + 72, &lba(100))],
            "the table is where partitions may be",
        ),
        (
            &[(HEADER + 72, &lba(1))],
            "the table is where partitions may be",
        ),
        (
            &[(HEADER + 72, &lba(8170))],
            "the table is behind the end of the disk",
        ),
        (
            &[(HEADER + 72, &lba(u64::MAX))],
            "the table is behind the end of the disk",
        ),
        (
            &[(HEADER + 84, &four(0))],
            "the entries' number or size is impossible",
        ),
        (
            &[(HEADER + 84, &four(1 << 31))],
            "the entries' number or size is impossible",
        ),
        (
            &[(HEADER + 80, &four(5000))],
            "the entries' number or size is impossible",
        ),
        (
            &[(HEADER + 80, &four(4096)), (HEADER + 84, &four(512))],
            "the table is longer than 1 MiB",
        ),
        (
            &[(HEADER + 48, &lba(8192))],
            "the usable space is not on the disk",
        ),
        (
            &[(HEADER + 40, &lba(9000))],
            "the usable space is not on the disk",
        ),
        (&[(HEADER + 24, &lba(7))], "the header belongs elsewhere"),
        (
            &[(HEADER + 12, &four(91))],
            "the header's revision or size is unknown",
        ),
        (
            &[(HEADER + 12, &four(513))],
            "the header's revision or size is unknown",
        ),
    ];
    let mut alone = disk.clone();
    alone[BACKUP..BACKUP + 8].fill(0);
    for (change, wrong) in cases {
        judge_rule(folder.path(), &disk, &alone, change, wrong);
    }
    for (at, wrong) in [
        (HEADER + 60, "the header's sum is wrong"),
        (ENTRIES + 32, "the table's sum is wrong"),
    ] {
        let (text, code) = said(folder.path(), &alone, &[(at, &[9])], &[]);
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains(&format!("is not sound: {wrong}")), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_backup_table_is_said_beside_the_partitions() {
    let folder = temp_folder();
    let Some(disk) = sound(folder.path()) else {
        return;
    };
    if program("prlimit", "util-linux").is_none() {
        return;
    }
    let cases: [(Change<'_>, &[usize], &str); 7] = [
        (
            &[(HEADER + 32, &8000_u64.to_le_bytes())],
            &[HEADER],
            "it is not at the end of the disk",
        ),
        (
            &[(BACKUP_ENTRIES + 56, b"x")],
            &[BACKUP],
            "it has other partitions",
        ),
        (
            &[(BACKUP_ENTRIES + 56, b"x")],
            &[],
            "the table's sum is wrong",
        ),
        (&[(BACKUP + 60, &[9])], &[], "the header's sum is wrong"),
        (
            &[(BACKUP + 24, &1_u64.to_le_bytes())],
            &[BACKUP],
            "the header belongs elsewhere",
        ),
        (
            &[(BACKUP + 72, &100_u64.to_le_bytes())],
            &[BACKUP],
            "the table is where partitions may be",
        ),
        (
            &[(BACKUP, &[0; 512])],
            &[],
            "the header's revision or size is unknown",
        ),
    ];
    for (change, seals, wrong) in cases {
        let (text, code) = said(folder.path(), &disk, change, seals);
        assert_eq!(code, Some(0), "{wrong}: {text}");
        let row = text.lines().find(|line| line.starts_with("GPT backup"));
        assert!(
            row.is_some_and(|row| row.ends_with(wrong)),
            "{wrong}: {text}"
        );
    }
}
