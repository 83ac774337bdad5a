//! The config disk: none, a wrong one, a corrected one attached later; and
//! a disk that grew.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use consign::machine::{Disk, Firmware, Format, GuestSpec, GuestState, HotPlug, StateLine, Writes};

use super::loader::{ENVIRONMENT, environment, try_slot_b};
use crate::support::appliance::{
    Address, Esp, PORT, appliance, config_disk, debugfs_in, foreign_config_disk, partition_start,
    site,
};
use crate::support::guests::{PATIENCE, TestGuest, network, ssh_key};
use crate::support::{Checker, must_run, program, temp_folder};

fn next_state(guest: &mut TestGuest) -> StateLine {
    next_state_within(guest, PATIENCE)
}

fn next_state_within(guest: &mut TestGuest, patience: Duration) -> StateLine {
    match guest.guest.next_state(patience) {
        Ok(line) => line,
        Err(error) => panic!("{error}\n{}", guest.console()),
    }
}

/// Waits for the ready line. A waiting machine may repeat that it waits.
fn gets_ready(guest: &mut TestGuest) {
    gets_ready_within(guest, PATIENCE);
}

fn gets_ready_within(guest: &mut TestGuest, patience: Duration) {
    loop {
        let line = next_state_within(guest, patience);
        match line.state {
            GuestState::Ready => return,
            GuestState::Waiting => {}
            _ => panic!("{}\n{}", line.text, guest.console()),
        }
    }
}

fn kept(disk: Disk) -> Disk {
    Disk {
        writes: Writes::Kept,
        ..disk
    }
}

#[test]
fn without_a_config_disk_it_waits_and_takes_one_that_is_attached() {
    let folder = temp_folder();
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.disks = vec![appliance().disk()];
    spec.network = Some(network(&[PORT]));
    spec.hot_plug = HotPlug::OneDisk;
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    let line = next_state(&mut guest);
    assert_eq!(line.state, GuestState::Waiting, "{}", line.text);
    let Some((_, public)) = ssh_key(folder.path()) else {
        return;
    };
    let late = config_disk(folder.path(), &site("late", &public, Address::Dhcp));
    guest.guest.attach(&kept(late)).expect("attached");
    gets_ready(&mut guest);
    assert!(guest.http_get(PORT, "/").contains("late"));
}

#[test]
fn a_wrong_config_is_explained_and_a_corrected_disk_is_taken() {
    let folder = temp_folder();
    let Some((_, public)) = ssh_key(folder.path()) else {
        return;
    };
    let right = site("corrected", &public, Address::Dhcp);
    let wrong = right.replace("hostname =", "hostnam =");
    let Some(disk) = foreign_config_disk(folder.path(), &wrong) else {
        return;
    };
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.disks = vec![appliance().disk()];
    spec.network = Some(network(&[PORT]));
    spec.hot_plug = HotPlug::OneDisk;
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    let line = next_state(&mut guest);
    assert_eq!(line.state, GuestState::Waiting, "{}", guest.console());
    guest.guest.attach(&kept(disk)).expect("attached");
    let line = 1 + wrong
        .lines()
        .take_while(|line| !line.starts_with("hostnam"))
        .count();
    guest.says(&format!("{line}:1"));
    guest.says("hostnam");
    guest.says("`hostname`");

    // With both attached it would ask which one counts.
    guest.guest.detach().expect("detached");
    let corrected = config_disk(folder.path(), &right);
    guest.guest.attach(&kept(corrected)).expect("attached");
    gets_ready(&mut guest);
    assert!(guest.http_get(PORT, "/").contains("corrected"));
    guest.report("a wrong config, corrected");
}

/// Everything outside of partitions: table and backup table.
fn tables(disk: &Path) -> Vec<u8> {
    let file = File::open(disk).expect("open");
    let size = file.metadata().expect("metadata").len();
    let mut bytes = vec![0; 34 * 512 + 33 * 512];
    let (head, tail) = bytes.split_at_mut(34 * 512);
    file.read_exact_at(head, 0).expect("read");
    file.read_exact_at(tail, size - 33 * 512).expect("read");
    bytes
}

/// Boots the enlarged disk, has it say the size of `/var`, and switches it off.
fn size_of_var(
    disk: &Disk,
    folder: &Path,
    key: &Path,
    public: &str,
    patience: Duration,
) -> Option<u64> {
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.disks = vec![
        disk.clone(),
        config_disk(folder, &site("grown", public, Address::Dhcp)),
    ];
    spec.network = Some(network(&[22]));
    let mut guest = TestGuest::start(&spec)?;
    gets_ready_within(&mut guest, patience);
    let (size, _) = ask_and_switch_off(&mut guest, key, "stat -f -c '%b %S' /var")?;
    let (blocks, block) = size.trim().split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    Some(number(blocks) * number(block))
}

#[test]
fn var_grows_with_the_disk_and_only_once() {
    var_grows_by(4 << 30, PATIENCE);
}

/// As a power cut may leave it while it grows: part of the group table is in
/// the journal only, and the kernel looks at the table before it replays that.
#[test]
fn a_var_whose_group_table_is_in_the_journal_is_mounted() {
    let folder = temp_folder();
    let disk = appliance().copy(folder.path());
    let Some(start) = partition_start(&disk, "var") else {
        return;
    };
    let mut options = File::options();
    let file = options.read(true).write(true).open(&disk.path);
    let file = file.expect("open");
    let mut table = vec![0; 4096];
    file.read_exact_at(&mut table, start + 4096).expect("read");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("table"), &table).expect("written");
    let commands = format!("jo\njw -b 1 {}\njc\n", at("table").display());
    if debugfs_in(&disk, start, folder.path(), &commands).is_none() {
        return;
    }
    file.write_all_at(&[0; 4096], start + 4096)
        .expect("written");
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.disks = vec![disk];
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    // Linux alone would not have mounted it.
    let line = next_state(&mut guest);
    assert_eq!(line.state, GuestState::Waiting, "{}", guest.console());
}

/// Beyond what the reserved blocks of the group table reach.
#[test]
#[ignore = "minutes in the guest: ci/nightly.d/fs"]
fn var_grows_nearly_to_16_tib() {
    // The kernel adds 120,000 groups, each with its copies of the group table.
    var_grows_by(15 << 40, 12 * PATIENCE);
}

/// The customer's disk is `more` bytes larger: the first boot takes them.
fn var_grows_by(more: u64, patience: Duration) {
    let folder = temp_folder();
    let disk = appliance().copy(folder.path());
    assert_eq!(disk.format, Format::Raw);
    let file = File::options().write(true).open(&disk.path).expect("open");
    let size = file.metadata().expect("metadata").len();
    let before = tables(&disk.path);
    file.set_len(size + more).expect("enlarge");
    let Some((key, public)) = ssh_key(folder.path()) else {
        return;
    };
    let Some(var) = size_of_var(&disk, folder.path(), &key, &public, patience) else {
        return;
    };
    // Inode tables take one part in 64.
    assert!(var > more - more / 40, "/var has {var} bytes");
    Checker::Sgdisk.accepts(&disk.path);
    Checker::Sfdisk.accepts(&disk.path);
    let grown = tables(&disk.path);
    assert_ne!(grown, before, "the table names the new end");
    let again = size_of_var(&disk, folder.path(), &key, &public, PATIENCE);
    assert_eq!(again, Some(var));
    assert_eq!(tables(&disk.path), grown, "the second boot leaves it alone");
}

/// Runs `command` and switches the machine off; what the command said, and
/// the whole console.
fn ask_and_switch_off(
    guest: &mut TestGuest,
    key: &Path,
    command: &str,
) -> Option<(String, String)> {
    let command = format!("{command}; systemctl --no-block poweroff");
    let said = guest.ssh(key, "root", &command)?;
    let off = guest.guest.wait_off(PATIENCE).expect("QEMU tells");
    let console = guest.console();
    assert!(off.is_some_and(|status| status.success()), "{console}");
    Some((said, console))
}

/// What a person leaves on a machine, and a disk for data.
const LEAVES: &str = "\
    for place in /home/ann /root /srv /srv/data; do echo $place > $place/kept; done; \
    chown ann: /home/ann/kept; ";

/// What has to outlive a change of the slot.
const KEPT: &str = "\
    echo machine-id=$(cat /etc/machine-id); \
    echo host-key=$(cat /var/lib/consign/ssh/ssh_host_ed25519_key.pub); \
    echo recipient=$(cat /var/lib/consign/recipient); \
    echo generation=$(sha256sum < /var/lib/consign/gen/0001/manifest.toml); \
    echo ann=$(getent passwd ann); \
    echo files=$(cat /home/ann/kept /root/kept /srv/kept /srv/data/kept); \
    echo owner=$(stat -c %U /home/ann/kept); \
    echo data=$(findmnt -n -o FSTYPE,TARGET -T /srv/data/.); ";

/// Sectors that the early step writes to the system's disk when everything is
/// in place; the journal is out of the way.
const SECOND_APPLY: &str = "\
    disk=$(lsblk -n -o PKNAME $(findmnt -n -o SOURCE /var)); \
    written() { set -- $(cat /sys/block/$disk/stat); echo $7; }; \
    journalctl --relinquish-var; \
    appliance config >/dev/null 2>&1; sync; before=$(written); \
    appliance config >/dev/null 2>&1; sync; \
    echo second-apply=$(($(written) - before)); ";

/// The bytes of slot a's root, in slot b.
fn copy_root(disk: &Path) -> Option<()> {
    let output = must_run(program("sfdisk", "fdisk")?.arg("-J").arg(disk));
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let place = |number: usize, key: &str| {
        let value = &table["partitiontable"]["partitions"][number - 1][key];
        value.as_u64().expect("a number") * 512
    };
    let (from, to, size) = (place(3, "start"), place(4, "start"), place(3, "size"));
    assert!(place(4, "size") >= size);
    let file = File::options()
        .read(true)
        .write(true)
        .open(disk)
        .expect("open");
    let mut piece = vec![0; 1 << 20];
    for at in (0..size).step_by(piece.len()) {
        let length = piece.len().min(usize::try_from(size - at).expect("small"));
        file.read_exact_at(&mut piece[..length], from + at)
            .expect("read");
        if piece[..length].iter().any(|byte| *byte != 0) {
            file.write_all_at(&piece[..length], to + at)
                .expect("written");
        }
    }
    Some(())
}

/// Bytes of the data disk at first, of its file system when the power is cut
/// while that grows, and of the disk then.
const DATA: u64 = 64 << 20;
const HALF_GROWN: u64 = 512 << 20;
const GROWN: u64 = 1 << 30;

/// The file system as a power cut leaves it while it grows: its larger size is
/// in the journal only. Linux would die of growing it further.
fn cut_while_it_grows(data: &Disk, folder: &Path) -> Option<()> {
    let mut options = File::options();
    let file = options.read(true).write(true).open(&data.path);
    let file = file.expect("open");
    file.set_len(HALF_GROWN).expect("enlarge");
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).expect("read");
        bytes
    };
    let before = read(1024, 1024);
    must_run(program("resize2fs", "e2fsprogs")?.arg("-f").arg(&data.path));
    let after = read(1024, 1024);
    assert_ne!(before[4..8], after[4..8], "it has not grown");
    file.write_all_at(&before, 1024).expect("written");
    file.set_len(GROWN).expect("enlarge");
    // In blocks of 1 KiB it has one of its own.
    let length = 1024_usize << before[0x18];
    let (number, inside) = (1024 / length, 1024 % length);
    let mut block = read((number * length) as u64, length);
    block[inside..inside + 1024].copy_from_slice(&after);
    let path = folder.join("superblock");
    std::fs::write(&path, block).expect("written");
    let commands = format!("jo\njw -b {number} {}\njc\n", path.display());
    debugfs_in(data, 0, folder, &commands)
}

/// The life of a machine: a first boot with a disk for data, a change of the
/// slot, and what the loader decides when no slot has tries left. On the way:
/// nothing on the consoles that worries anybody.
#[test]
fn a_machine_keeps_what_is_its_own_in_another_slot_and_as_a_last_resort() {
    let folder = temp_folder();
    let disk = appliance().copy(folder.path());
    let Some((key, public)) = ssh_key(folder.path()) else {
        return;
    };
    let mut spec = GuestSpec::new(Firmware::Bios);
    let site = site("fenced", &public, Address::Fixed)
        + &format!(
            "\n[user.ann]\nssh_keys = [\"{public}\"]\n\n[disk.data]\nmin_size = \"32 MiB\"\n"
        );
    let config = kept(config_disk(folder.path(), &site));
    let data = folder.path().join("data.raw");
    File::create(&data)
        .and_then(|file| file.set_len(DATA))
        .expect("a blank disk");
    let data = Disk {
        path: data,
        ..disk.clone()
    };
    spec.disks = vec![disk.clone(), config.clone(), data.clone()];
    spec.network = Some(network(&[22]));
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    gets_ready(&mut guest);
    let states = "systemctl is-active nginx.service appliance-ready.target";
    let command = format!("{LEAVES}{KEPT}{SECOND_APPLY}{states}");
    let Some((said, console)) = ask_and_switch_off(&mut guest, &key, &command) else {
        return;
    };
    let (first, rest) = said.split_once("second-apply=").expect("all of it");
    assert_eq!(rest, "0\nactive\nactive\n", "{first}");
    assert!(
        first.contains("files=/home/ann /root /srv /srv/data\n"),
        "{first}"
    );
    assert!(
        first.contains("owner=ann\ndata=ext4 /var/srv/data\n"),
        "{first}"
    );
    for words in ["regulatory", "is ignored", "Failed unmounting"] {
        assert!(!console.contains(words), "`{words}` in {console}");
    }
    Checker::E2fsck.accepts(&data.path);
    reports_back(&config.path);
    // Its turn is the next one's.
    drop(guest);

    if cut_while_it_grows(&data, folder.path()).is_none() {
        return;
    }
    if copy_root(&disk.path).is_none() || try_slot_b(&Esp::of(&disk)).is_none() {
        return;
    }
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    let line = match guest.guest.wait_ready(PATIENCE) {
        Ok(line) => line,
        Err(error) => panic!("{error}\n{}", guest.console()),
    };
    assert_eq!(line.field("slot"), Some("b"), "{}", line.text);
    let command = format!("{KEPT}echo room=$(stat -f -c '%b %S' /srv/data)");
    let Some((said, console)) = ask_and_switch_off(&mut guest, &key, &command) else {
        return;
    };
    let (other, room) = said.split_once("room=").expect("all of it");
    assert_eq!(other, first, "the other slot is another machine");
    let numbers = room.split_whitespace();
    let room: u64 = numbers
        .map(|it| it.parse::<u64>().expect("a number"))
        .product();
    assert!(room > GROWN - GROWN / 10, "{room} bytes of data: {console}");
    Checker::E2fsck.accepts(&data.path);
    drop(guest);

    let block = environment(&["order=b a", "good=a", "a_tries=0", "b_tries=0"]);
    if Esp::of(&disk).write(ENVIRONMENT, &block).is_none() {
        return;
    }
    spec.disks = vec![disk];
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    let line = next_state(&mut guest);
    assert_eq!(line.state, GuestState::Fenced, "{}", line.text);
    guest.report("fenced");
    let Some((said, console)) = ask_and_switch_off(&mut guest, &key, states) else {
        return;
    };
    assert_eq!(said, "inactive\ninactive\n");
    for words in [
        "No slot has tries left. slot=a fenced",
        "slot a was started as a last resort",
        "services stay down",
    ] {
        assert!(console.contains(words), "no `{words}` in {console}");
    }
}

/// The report is in the config disk's own file, and the volume is whole.
fn reports_back(config: &Path) {
    if let Some(mut fsck) = program("fsck.vfat", "dosfstools") {
        must_run(fsck.arg("-n").arg(config));
    }
    let Some(mut mtype) = program("mtype", "mtools") else {
        return;
    };
    mtype.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(config);
    let output = must_run(mtype.arg("::report.json"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["kind"], "consign-report");
    assert_eq!(report["status"]["state"], "ready", "{report}");
    assert_eq!(report["machine"]["host"], "fenced", "{report}");
}
