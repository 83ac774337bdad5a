//! Partitioned disks, judged by `sgdisk -v` and `sfdisk`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use consign::disk::{Attributes, BACKUP_TABLE, Disk, DiskSpec, PartitionSpec, types};
use consign::sparse::{Bytes, SparseSource, Zeros};
use consign::units::{ByteSize, Guid, MIB, TIB};
use proptest::prelude::*;

use crate::support::{Checker, cases, must_run, program, temp_folder, text_of};

const MIB1: ByteSize = ByteSize::from_mib(1);

fn partition(name: &str, type_guid: Guid, start: u64, size: u64) -> PartitionSpec {
    PartitionSpec {
        name: name.to_owned(),
        type_guid,
        guid: Guid::from_u128(0x1000_0000_0000_8000_8000_0000_0000_0000 + u128::from(start)),
        start: ByteSize::from_mib(start),
        size: ByteSize::from_mib(size),
        attributes: Attributes::empty(),
    }
}

/// The layout of an appliance with two slots.
fn two_slots() -> DiskSpec {
    let mut partitions = vec![
        partition("bios", types::BIOS_BOOT, 1, 1),
        partition("esp", types::ESP, 2, 256),
        partition("root-a", types::ROOT_X86_64, 258, 512),
        partition("root-b", types::ROOT_X86_64, 770, 512),
        partition("daten-für-später", types::VAR, 1282, 128),
    ];
    partitions[3].attributes = Attributes::NO_AUTO;
    partitions[4].attributes = Attributes::GROW_FILE_SYSTEM | Attributes::REQUIRED;
    let end = partitions[4].start.bytes() + partitions[4].size.bytes();
    let mut boot_mbr = [0; 440];
    for (at, byte) in boot_mbr.iter_mut().enumerate() {
        *byte = b"boot code"[at % 9];
    }
    DiskSpec {
        size: DiskSpec::size_for(ByteSize::from_bytes(end)).expect("fits"),
        guid: Guid::from_u128(0xd15c_0000_0000_8000_8000_0000_0000_0001),
        partitions,
        boot_mbr: Some(boot_mbr),
    }
}

fn bytes(length: usize, fill: u8) -> Box<dyn SparseSource> {
    Box::new(Bytes(Arc::from(vec![fill; length])))
}

fn empty(spec: &DiskSpec) -> Vec<Box<dyn SparseSource>> {
    spec.partitions
        .iter()
        .map(|partition| Box::new(Zeros(partition.size)) as Box<dyn SparseSource>)
        .collect()
}

fn write(disk: &Disk, folder: &Path, name: &str) -> PathBuf {
    let target = folder.join(name);
    let file = File::create(&target).expect("create");
    file.set_len(disk.size().bytes()).expect("grow");
    for range in disk.data_ranges() {
        let mut data = vec![0; usize::try_from(range.end - range.start).expect("fits")];
        disk.read_exact_at(&mut data, range.start).expect("read");
        file.write_all_at(&data, range.start).expect("write");
    }
    target
}

fn sfdisk_json(image: &Path) -> Option<serde_json::Value> {
    let mut sfdisk = program("sfdisk", "fdisk")?;
    let output = must_run(sfdisk.arg("--json").arg(image));
    let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    Some(parsed["partitiontable"].clone())
}

#[test]
fn the_table_says_what_the_plan_says() {
    let folder = temp_folder();
    let spec = two_slots();
    let disk = Disk::assemble(&spec, empty(&spec)).expect("fits");
    let image = write(&disk, folder.path(), "disk.raw");
    Checker::Sgdisk.accepts(&image);
    Checker::Sfdisk.accepts(&image);
    let Some(table) = sfdisk_json(&image) else {
        return;
    };
    assert_eq!(table["label"], "gpt");
    assert_eq!(table["id"], spec.guid.to_string().to_uppercase());
    assert_eq!(table["sectorsize"], 512);
    let found = table["partitions"].as_array().expect("a list");
    assert_eq!(found.len(), spec.partitions.len());
    for (number, (found, planned)) in (1..).zip(found.iter().zip(&spec.partitions)) {
        let node = format!("{}{number}", image.display());
        assert_eq!(found["node"], node);
        assert_eq!(found["name"], planned.name);
        assert_eq!(found["start"], planned.start.bytes() / 512);
        assert_eq!(found["size"], planned.size.bytes() / 512);
        assert_eq!(found["uuid"], planned.guid.to_string().to_uppercase());
        assert_eq!(found["type"], planned.type_guid.to_string().to_uppercase());
    }
    assert_eq!(found[3]["attrs"], "GUID:63");
    assert_eq!(found[4]["attrs"], "RequiredPartition GUID:59");
}

#[test]
fn the_attribute_bits_of_the_discoverable_partitions_are_set() {
    let folder = temp_folder();
    let mut spec = two_slots();
    for (partition, bits) in spec.partitions.iter_mut().zip([
        Attributes::GROW_FILE_SYSTEM,
        Attributes::READ_ONLY,
        Attributes::NO_AUTO,
        Attributes::GROW_FILE_SYSTEM | Attributes::READ_ONLY | Attributes::NO_AUTO,
        Attributes::LEGACY_BOOT,
    ]) {
        partition.attributes = bits;
    }
    let disk = Disk::assemble(&spec, empty(&spec)).expect("fits");
    let image = write(&disk, folder.path(), "bits.raw");
    Checker::Sgdisk.accepts(&image);
    for (number, bits) in [
        (1, "0800000000000000"),
        (2, "1000000000000000"),
        (3, "8000000000000000"),
        (4, "9800000000000000"),
        (5, "0000000000000004"),
    ] {
        let Some(mut sgdisk) = program("sgdisk", "gdisk") else {
            return;
        };
        let said = text_of(&must_run(sgdisk.arg(format!("-i{number}")).arg(&image)));
        let line = format!("Attribute flags: {bits}");
        assert!(said.contains(&line), "{number}: no `{line}` in\n{said}");
    }
}

#[test]
fn volumes_boot_code_and_gaps_are_where_they_belong() {
    let spec = two_slots();
    let core_image = bytes(184_420, 0xc0);
    let mut volumes = empty(&spec);
    volumes[0] = core_image;
    volumes[1] = bytes(usize::try_from(256 * MIB).expect("fits"), 0xe5);
    volumes[4] = bytes(100_000, 0x7a);
    let disk = Disk::assemble(&spec, volumes).expect("fits");
    let read = |at: u64, count: usize| {
        let mut buf = vec![0xff; count];
        disk.read_exact_at(&mut buf, at).expect("inside");
        buf
    };
    assert_eq!(read(0, 440), spec.boot_mbr.expect("given"));
    assert_eq!(read(440, 6), [0; 6], "no disk signature");
    assert_eq!(read(510, 10), *b"\x55\xaaEFI PART");
    // The end of one volume, the zeros behind it, and the start of the next.
    let around = read(2 * MIB - 5, 10);
    assert_eq!(around, [0, 0, 0, 0, 0, 0xe5, 0xe5, 0xe5, 0xe5, 0xe5]);
    assert_eq!(read(MIB + 184_418, 4), [0xc0, 0xc0, 0, 0]);
    let across = read(MIB - 1, usize::try_from(257 * MIB + 2).expect("fits"));
    assert_eq!((across[0], across[1]), (0, 0xc0));
    assert_eq!(across[across.len() - 2..], [0xe5, 0]);
    assert!(
        disk.read_exact_at(&mut [0; 2], spec.size.bytes() - 1)
            .is_err()
    );
    let ranges: Vec<_> = disk.data_ranges().collect();
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
    assert_eq!(ranges[1], MIB..MIB + 184_420);
    assert_eq!(ranges[2], 2 * MIB..258 * MIB);
    assert_eq!(ranges.last().expect("the backup").end, spec.size.bytes());
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    let spec = two_slots();
    let tables = || {
        let disk = Disk::assemble(&spec, empty(&spec)).expect("fits");
        let mut all = Vec::new();
        for range in disk.data_ranges() {
            let mut data = vec![0; usize::try_from(range.end - range.start).expect("fits")];
            disk.read_exact_at(&mut data, range.start).expect("read");
            all.push((range, data));
        }
        all
    };
    assert!(tables() == tables());
}

#[test]
fn a_disk_of_many_tebibytes_costs_nothing() {
    let folder = temp_folder();
    let mut spec = two_slots();
    spec.size = ByteSize::from_bytes(12 * TIB);
    spec.partitions[4].size = ByteSize::from_bytes(11 * TIB - spec.partitions[4].start.bytes());
    let disk = Disk::assemble(&spec, empty(&spec)).expect("fits");
    let data: u64 = disk
        .data_ranges()
        .map(|range| range.end - range.start)
        .sum();
    assert!(data < 128 << 10, "{data} bytes of tables");
    let image = write(&disk, folder.path(), "huge.raw");
    Checker::Sgdisk.accepts(&image);
    Checker::Sfdisk.accepts(&image);
}

#[test]
fn checkers_reject_a_damaged_table() {
    let folder = temp_folder();
    let spec = two_slots();
    let disk = Disk::assemble(&spec, empty(&spec)).expect("fits");
    let backup_header = spec.size.bytes() - 512;
    let backup_entries = spec.size.bytes() - BACKUP_TABLE.bytes();
    for (what, offset) in [
        ("primary header", 512 + 16),
        ("size of the usable area", 512 + 48),
        ("a primary entry", 1024 + 128 + 33),
        ("a name", 1024 + 57),
        ("backup header", backup_header + 60),
        ("a backup entry", backup_entries + 40),
    ] {
        let image = write(&disk, folder.path(), "damaged.raw");
        Checker::Sgdisk.accepts(&image);
        let file = File::options()
            .read(true)
            .write(true)
            .open(&image)
            .expect("open");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("read");
        file.write_all_at(&[byte[0] ^ 0x20], offset)
            .expect("damage");
        let verdict = Checker::Sgdisk.judge(&[&image]);
        assert!(
            verdict.is_none_or(|verdict| !verdict.sound),
            "sgdisk accepts damage: {what}"
        );
    }
    let image = write(&disk, folder.path(), "damaged.raw");
    let file = File::options().write(true).open(&image).expect("open");
    file.write_all_at(b"EFI PURT", 512).expect("damage");
    Checker::Sfdisk.rejects(&image);
}

#[test]
fn each_broken_rule_is_one_clear_error() {
    let refuse = |change: &dyn Fn(&mut DiskSpec)| {
        let mut spec = two_slots();
        change(&mut spec);
        let volumes = empty(&spec);
        Disk::assemble(&spec, volumes).expect_err("a rule is broken")
    };
    let said = |change: &dyn Fn(&mut DiskSpec)| refuse(change).to_string();
    assert_eq!(
        said(&|spec| spec.size = ByteSize::from_mib(1300)),
        "partition `daten-für-später` needs 128 MiB, but only 18 MiB of the 1.3 GiB disk is left"
    );
    assert_eq!(
        said(&|spec| spec.partitions[1].size = ByteSize::from_mib(257)),
        "partitions `esp` and `root-a` overlap"
    );
    assert_eq!(
        said(&|spec| spec.partitions[2].start = ByteSize::from_bytes(258 * MIB + 512)),
        "partition `root-a` starts at byte 270533120, not at a multiple of 1 MiB"
    );
    assert_eq!(
        said(&|spec| spec.partitions[0].size = ByteSize::ZERO),
        "partition `bios` cannot have a size of 0 bytes"
    );
    assert_eq!(
        said(&|spec| spec.partitions[0].name = "n".repeat(37)),
        format!("partition name `{}` does not fit the table", "n".repeat(37))
    );
    assert_eq!(
        said(&|spec| spec.partitions[0].type_guid = Guid::from_u128(0)),
        "partition `bios` has no type"
    );
    assert_eq!(
        said(&|spec| spec.partitions[0].start = ByteSize::from_bytes(u64::MAX - MIB + 1)),
        "partition `bios` needs 1 MiB, but only 0 B of the 1.4 GiB disk is left"
    );
    assert_eq!(
        said(&|spec| spec.partitions[1].guid = spec.partitions[4].guid),
        "partitions `esp` and `daten-für-später` have the same identifier \
         10000000-0000-8000-8000-000000000502"
    );
    assert_eq!(
        said(&|spec| spec.size = ByteSize::from_bytes(4 * MIB + 1)),
        "a disk of 4 MiB (4194305 bytes) cannot be partitioned"
    );
    let too_many = refuse(&|spec| {
        let many = (1..=129).map(|start| partition("p", types::LINUX, start, 1));
        spec.partitions = many.collect();
        spec.size = ByteSize::from_mib(200);
    });
    assert_eq!(
        too_many.to_string(),
        "129 partitions do not fit a table of 128"
    );
    let spec = two_slots();
    let mut volumes = empty(&spec);
    volumes[0] = Box::new(Zeros(ByteSize::from_mib(2)));
    let error = Disk::assemble(&spec, volumes).expect_err("too large");
    assert_eq!(
        error.to_string(),
        "the volume of partition `bios` has 2 MiB, but the partition only 1 MiB"
    );
    let error = Disk::assemble(&spec, Vec::new()).expect_err("none");
    assert_eq!(error.to_string(), "there are 0 volumes for 5 partitions");
}

/// Partitions in any order of their starts, with gaps between them.
fn a_disk() -> impl Strategy<Value = DiskSpec> {
    let one = (
        0_u64..3,
        1_u64..20_000,
        any::<u64>(),
        "[ -~]{0,36}",
        0..types::NAMED.len(),
    );
    (
        proptest::collection::vec(one, 0..128),
        any::<u128>(),
        0_u64..4,
        any::<u64>(),
    )
        .prop_map(|(parts, guid, slack, seed)| {
            let mut at = MIB;
            let mut partitions = Vec::new();
            for (index, (gap, sectors, bits, name, kind)) in parts.into_iter().enumerate() {
                at += gap * MIB;
                let size = sectors * 512;
                partitions.push(PartitionSpec {
                    name,
                    type_guid: types::NAMED[kind].1,
                    guid: Guid::from_u128(u128::from(seed) << 64 | index as u128 | 1 << 32),
                    start: ByteSize::from_bytes(at),
                    size: ByteSize::from_bytes(size),
                    attributes: Attributes::from_bits_truncate(bits),
                });
                at = (at + size).next_multiple_of(MIB);
            }
            partitions.sort_by_key(|partition| partition.name.clone());
            let end = ByteSize::from_bytes(at.max(2 * MIB));
            let size = DiskSpec::size_for(end).expect("fits").bytes() + slack * 512;
            DiskSpec {
                size: ByteSize::from_bytes(size),
                guid: Guid::from_u128(guid | 1),
                partitions,
                boot_mbr: None,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn random_partition_sets_are_sound(spec in a_disk()) {
        let folder = temp_folder();
        let volumes = spec
            .partitions
            .iter()
            .map(|partition| bytes(partition.size.bytes().min(700) as usize, 0x11))
            .collect();
        let disk = Disk::assemble(&spec, volumes).expect("every rule is kept");
        let image = write(&disk, folder.path(), "random.raw");
        Checker::Sgdisk.accepts(&image);
        if let Some(table) = sfdisk_json(&image) {
            let empty = Vec::new();
            let found = table["partitions"].as_array().unwrap_or(&empty);
            prop_assert_eq!(found.len(), spec.partitions.len());
            for (found, planned) in found.iter().zip(&spec.partitions) {
                prop_assert_eq!(&found["start"], planned.start.bytes() / 512);
                prop_assert_eq!(&found["uuid"], &planned.guid.to_string().to_uppercase());
            }
        }
        for partition in &spec.partitions {
            let mut first = [0; 512];
            disk.read_exact_at(&mut first, partition.start.bytes()).expect("inside");
            prop_assert_eq!(first, [0x11; 512]);
        }
        prop_assert!(disk.size() >= MIB1);
    }
}
