//! OVMF starts a program from an EFI system partition of any size, whichever
//! FAT it has: the program is a few instructions that write to the serial port.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use consign::disk::{Attributes, Disk as PartitionedDisk, DiskSpec, PartitionSpec, types};
use consign::fs::fat::{FatKind, FatOptions, FatVolume};
use consign::machine::{Disk, Firmware, Format, GuestSpec, Writes};
use consign::sparse::SparseSource as _;
use consign::tree::{Content, FileTree, Node, TreePath};
use consign::units::{ByteSize, Guid, KIB, MIB, Timestamp};

use crate::support::guests::TestGuest;
use crate::support::temp_folder;

const WORDS: &str = "started from this volume";

/// Writes what follows it to COM1, byte by byte, then waits for ever.
const CODE: [u8; 23] = [
    0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip + 16]: behind the code
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xac, // lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x03, // jz over the next two
    0xee, // out dx, al
    0xeb, 0xf8, // jmp to lodsb
    0xf3, 0x90, // pause
    0xeb, 0xfc, // jmp to pause
];

/// A PE32+ file with one section, to be run by UEFI 2.x on x86-64. Source:
/// Microsoft, "PE Format".
fn program() -> Vec<u8> {
    const SECTION_RVA: u32 = 0x1000;
    const FILE_ALIGNMENT: u32 = 0x200;
    let mut file = vec![0; 2 * FILE_ALIGNMENT as usize];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    // x86-64, one section, an optional header of 240 bytes; executable.
    put(0x44, &0x8664_u16.to_le_bytes());
    put(0x46, &1_u16.to_le_bytes());
    put(0x54, &240_u16.to_le_bytes());
    put(0x56, &0x22_u16.to_le_bytes());
    let optional = 0x58;
    put(optional, &0x20b_u16.to_le_bytes());
    for (at, value) in [
        (4, FILE_ALIGNMENT),
        (16, SECTION_RVA),
        (20, SECTION_RVA),
        (32, 0x1000),
        (36, FILE_ALIGNMENT),
        (56, 2 * SECTION_RVA),
        (60, FILE_ALIGNMENT),
        // Subsystem: EFI application.
        (68, 10),
        (108, 16),
    ] {
        put(optional + at, &value.to_le_bytes());
    }
    let section = optional + 240;
    put(section, b".text");
    for (at, value) in [
        (8, FILE_ALIGNMENT),
        (12, SECTION_RVA),
        (16, FILE_ALIGNMENT),
        (20, FILE_ALIGNMENT),
        // Code that is read and executed.
        (36, 0x6000_0020),
    ] {
        put(section + at, &value.to_le_bytes());
    }
    put(FILE_ALIGNMENT as usize, &CODE);
    let words = format!("\r\n{WORDS}\r\n\0");
    put(FILE_ALIGNMENT as usize + CODE.len(), words.as_bytes());
    file
}

fn disk_with(esp: ByteSize, kind: FatKind, folder: &Path) -> (Disk, ByteSize) {
    let mut tree = FileTree::new();
    let loader = TreePath::parse(b"EFI/BOOT/BOOTX64.EFI").expect("a path");
    let node = Node::file(0o644, Content::from_bytes(program()));
    tree.insert(loader, node).expect("insert");
    let volume = FatVolume::new(
        &tree,
        &FatOptions {
            size: esp,
            kind,
            volume_id: 1,
            label: "ESP".parse().expect("a label"),
            source_date: Timestamp::from_seconds(1_700_000_000),
        },
    )
    .expect("it fits");
    let cluster = volume.cluster_size();
    let start = ByteSize::from_mib(1);
    let spec = DiskSpec {
        size: DiskSpec::size_for(ByteSize::from_bytes(MIB + esp.bytes())).expect("fits"),
        guid: Guid::from_u128(0x0807_0605_0403_8100_8000_0000_0000_0001),
        partitions: vec![PartitionSpec {
            name: "esp".into(),
            type_guid: types::ESP,
            guid: Guid::from_u128(0x0807_0605_0403_8100_8000_0000_0000_0002),
            start,
            size: esp,
            attributes: Attributes::empty(),
        }],
        boot_mbr: None,
    };
    let disk = PartitionedDisk::assemble(&spec, vec![Box::new(volume)]).expect("fits");
    let path = folder.join("esp.raw");
    let file = File::create(&path).expect("create");
    file.set_len(disk.size().bytes()).expect("grow");
    for range in disk.data_ranges() {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("small")];
        disk.read_exact_at(&mut bytes, range.start).expect("read");
        file.write_all_at(&bytes, range.start).expect("write");
    }
    let disk = Disk {
        path,
        format: Format::Raw,
        writes: Writes::Discarded,
    };
    (disk, cluster)
}

fn starts(esp: ByteSize, kind: FatKind, cluster: u64) {
    let folder = temp_folder();
    let (disk, found) = disk_with(esp, kind, folder.path());
    assert_eq!(found.bytes(), cluster, "{esp}");
    let mut spec = GuestSpec::new(Firmware::Uefi);
    spec.memory = ByteSize::from_mib(256);
    spec.disks = vec![disk];
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    guest.says(WORDS);
    guest.report(&format!("{kind}, {esp}"));
}

/// 5,047 clusters: not far above FAT12.
#[test]
fn uefi_starts_from_the_smallest_fat16() {
    starts(ByteSize::from_bytes(5 * MIB / 2), FatKind::Auto, 512);
}

/// 65,508 clusters, the most that FAT16 gets here.
#[test]
fn uefi_starts_from_the_fullest_fat16() {
    starts(ByteSize::from_bytes(66_053 * 512), FatKind::Auto, 512);
}

/// 66,670 clusters of 4 KiB: the fewest that a FAT32 of a usual size has.
#[test]
fn uefi_starts_from_a_fat32_of_few_clusters() {
    starts(ByteSize::from_mib(261), FatKind::Auto, 4 * KIB);
}

#[test]
#[ignore = "minutes of boots: ci/nightly.d/fs"]
fn uefi_starts_from_every_size() {
    for (mib, cluster) in [
        (33, KIB),
        (34, KIB),
        (63, KIB),
        (64, 512),
        (100, 512),
        (256, 512),
        (260, 512),
        (262, 4 * KIB),
        (512, 4 * KIB),
        (1024, 4 * KIB),
        (2048, 4 * KIB),
    ] {
        starts(ByteSize::from_mib(mib), FatKind::Auto, cluster);
    }
    starts(ByteSize::from_mib(34), FatKind::Fat32, 512);
    starts(ByteSize::from_mib(2047), FatKind::Fat16, 32 * KIB);
}
