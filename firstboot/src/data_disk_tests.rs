//! Folders with files that stand for disks.

use super::*;
use crate::root::testing::Folder;
use std::os::unix::fs::symlink;

const SIZE: u64 = 32 << 20;

/// A machine with disks of these names, blank.
fn machine(disks: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    for (name, place) in disks {
        let real = folder
            .path()
            .join(format!("sys/devices/{place}/block/{name}"));
        std::fs::create_dir_all(real.join("device")).expect("folders");
        std::fs::write(real.join("size"), format!("{}\n", SIZE / 512)).expect("size");
        std::fs::write(real.join("serial"), format!("S-{name}\n")).expect("serial");
        let class = folder.path().join("sys/class/block");
        std::fs::create_dir_all(&class).expect("folders");
        symlink(
            format!("../../devices/{place}/block/{name}"),
            class.join(name),
        )
        .expect("a link");
        let dev = folder.path().join("dev");
        std::fs::create_dir_all(&dev).expect("folders");
        let file = File::create(dev.join(name)).expect("a disk");
        file.set_len(SIZE).expect("its size");
    }
    folder
}

fn disk(name: &str, matches: DiskMatch) -> DataDisk {
    DataDisk {
        name: name.into(),
        matches,
        fs: DiskFileSystem::Ext4,
        uuid: own_uuid("acme", name),
        usage: DiskUse::Format,
    }
}

fn write(folder: &Folder, name: &str, at: u64, bytes: &[u8]) {
    let path = folder.path().join("dev").join(name);
    let file = File::options().write(true).open(path).expect("a disk");
    file.write_all_at(bytes, at).expect("written");
}

#[test]
fn a_blank_disk_is_formatted_once_and_found_anywhere() {
    let folder = machine(&[("vdb", "pci/5"), ("vdc", "pci/4")]);
    let data = disk("data", DiskMatch::Position(1));
    assert_eq!(
        settle(&folder.root, &data).expect("formatted"),
        Change::Written
    );
    // The order is that of the controllers.
    let disks = look(&folder.root).expect("looked").expect("disks");
    assert_eq!(disks[0].fact.name, "vdc");
    let ours = Holds::Files(DiskFileSystem::Ext4, data.uuid.clone());
    assert_eq!((&disks[0].holds, &disks[1].holds), (&ours, &Holds::Blank));
    let path = folder.path().join("dev/vdc");
    let before = std::fs::read(&path).expect("the disk");
    assert_eq!(settle(&folder.root, &data).expect("there"), Change::Same);
    // Made anew, with the disk in another place: the same system finds it.
    folder.root.remove_tree(JOURNAL).expect("gone");
    let moved = disk("data", DiskMatch::Position(2));
    settle(&folder.root, &moved).expect("found");
    assert_eq!(settle(&folder.root, &moved).expect("there"), Change::Same);
    assert!(std::fs::read(&path).expect("the disk") == before);
    let checked = std::fs::read(folder.path().join("dev/vdb")).expect("the other");
    assert!(checked.iter().all(|byte| *byte == 0));
}

#[test]
fn every_kind_of_disk_says_its_serial_number_somewhere() {
    let folder = machine(&[("vdb", "pci/4"), ("nvme1n1", "pci/5"), ("sdb", "pci/6")]);
    let put = |disk: &str, place: &str, bytes: &[u8]| {
        let real = folder.path().join("sys/class/block").join(disk).join(place);
        std::fs::write(real, bytes).expect("written");
    };
    for disk in ["nvme1n1", "sdb"] {
        let own = folder.path().join("sys/class/block").join(disk);
        std::fs::remove_file(own.join("serial")).expect("removed");
    }
    put("nvme1n1", "device/serial", b"S5H9NX0N              \n");
    put("sdb", "device/vpd_pg80", b"\0\x80\0\x08WD-WX12 ");
    let serials = ["vdb", "nvme1n1", "sdb"].map(|disk| serial(&folder.root, disk));
    assert_eq!(serials, ["S-vdb", "S5H9NX0N", "WD-WX12"]);
    let data = disk("data", DiskMatch::Serial("S5H9NX0N".into()));
    assert_eq!(settle(&folder.root, &data).expect("found"), Change::Written);
}

#[test]
fn what_is_not_blank_is_not_touched() {
    let marks: [(u64, &[u8]); 6] = [
        (510, &[0x55, 0xaa]),
        (0, b"LUKS\xba\xbe"),
        (40 << 10, b"x"),
        (SIZE - 1, b"x"),
        (SIZE / 2, b"x"),
        (0x438, &[0x53, 0xef]),
    ];
    for (at, bytes) in marks {
        let folder = machine(&[("vdb", "pci/4")]);
        write(&folder, "vdb", at, bytes);
        let before = std::fs::read(folder.path().join("dev/vdb")).expect("the disk");
        for matches in [DiskMatch::Position(1), DiskMatch::Serial("S-vdb".into())] {
            let error = settle(&folder.root, &disk("data", matches)).expect_err("not blank");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{at}");
        }
        let after = std::fs::read(folder.path().join("dev/vdb")).expect("the disk");
        assert!(before == after, "{at}");
    }
}

#[test]
fn a_format_that_was_cut_is_done_again_and_only_then() {
    let folder = machine(&[("vdb", "pci/4")]);
    let data = disk("data", DiskMatch::Position(1));
    write(&folder, "vdb", 8 << 20, b"half a file system");
    settle(&folder.root, &data).expect_err("nobody says that it is ours");
    let mut record = Record {
        uuid: data.uuid.clone(),
        serial: "S-other".into(),
        size: SIZE,
        is_done: false,
    };
    record.save(&folder.root, "data").expect("noted");
    settle(&folder.root, &data).expect_err("it was another disk");
    record.serial = "S-vdb".into();
    record.save(&folder.root, "data").expect("noted");
    // Another disk of that size and serial came there, and it is somebody's.
    write(&folder, "vdb", 0, b"LUKS\xba\xbe");
    settle(&folder.root, &data).expect_err("an encrypted volume");
    // mkfs.xfs writes its head with the identifier first, and says last that it is whole.
    let mut head = [0; 128];
    head[..4].copy_from_slice(b"XFSB");
    let uuid = data.uuid.replace('-', "");
    for (place, digits) in uuid.as_bytes().chunks(2).enumerate() {
        let digits = std::str::from_utf8(digits).expect("digits");
        head[32 + place] = u8::from_str_radix(digits, 16).expect("hex");
    }
    head[126] = 1;
    assert_eq!(known(&head), Some(Holds::Other(UNKNOWN)));
    write(&folder, "vdb", 0, &head);
    assert_eq!(settle(&folder.root, &data).expect("again"), Change::Written);
    assert_eq!(settle(&folder.root, &data).expect("there"), Change::Same);
    // Later it is missing: that is not the time to stop everything.
    std::fs::remove_file(folder.path().join("sys/class/block/vdb")).expect("unplugged");
    assert_eq!(settle(&folder.root, &data).expect("missing"), Change::Same);
}

#[test]
fn config_media_and_the_systems_disk_are_not_counted() {
    let folder = machine(&[("vda", "pci/1"), ("vdb", "pci/2"), ("vdc", "pci/3")]);
    write(&folder, "vdb", 43, b"VACONFIG   ");
    let names = || -> Vec<String> {
        let disks = look(&folder.root).expect("looked").expect("disks");
        disks.into_iter().map(|disk| disk.fact.name).collect()
    };
    assert_eq!(names(), ["vda", "vdc"]);
    let noted = "/run/consign/config-disks";
    let put = |text: &str| folder.root.put(noted, text.as_bytes(), Access::own(0o644));
    put("vdc\n").expect("noted");
    assert_eq!(names(), ["vda"]);
    folder.root.remove(noted).expect("gone");
    std::fs::create_dir_all(folder.path().join("var")).expect("folders");
    let stat = folder.root.stat("/var").expect("looked").expect("there");
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let dev = folder.path().join("sys/dev/block");
    std::fs::create_dir_all(&dev).expect("folders");
    symlink(
        "../../devices/pci/1/block/vda/vda5",
        dev.join(format!("{major}:{minor}")),
    )
    .expect("a link");
    assert_eq!(names(), ["vdc"]);
}

/// A medium with a partition sorts before the blank disk, and is not counted
/// by who formats either, whether it is still noted as read or not.
#[test]
fn a_config_medium_in_a_partition_moves_no_data_disk() {
    let folder = machine(&[("vdb", "pci/2"), ("vdc", "pci/3")]);
    write(&folder, "vdb", 510, &[0x55, 0xaa]);
    let part = folder.path().join("sys/devices/pci/2/block/vdb/vdb1");
    std::fs::create_dir_all(&part).expect("folders");
    std::fs::write(part.join("partition"), "1\n").expect("a number");
    std::fs::write(part.join("size"), "2048\n").expect("a size");
    let device = File::create(folder.path().join("dev/vdb1")).expect("a partition");
    device.set_len(1 << 20).expect("its size");
    let first = || {
        look(&folder.root)
            .expect("looked")
            .expect("disks")
            .remove(0)
    };
    assert_eq!(first().fact.name, "vdb", "a disk with somebody's partition");
    write(&folder, "vdb1", 43, b"vaconfig   ");
    assert_eq!(first().fact.name, "vdc");
    let data = disk("data", DiskMatch::Position(1));
    settle(&folder.root, &data).expect("formatted");
    assert!(matches!(first().holds, Holds::Files(..)));
    let medium = std::fs::read(folder.path().join("dev/vdb")).expect("the medium");
    assert!(medium[512..].iter().all(|byte| *byte == 0));
}
