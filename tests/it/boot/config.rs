//! The config disk: none, a wrong one, a corrected one attached later; and
//! a disk that grew.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use consign::machine::{Disk, Firmware, Format, GuestSpec, GuestState, HotPlug, StateLine, Writes};

use super::loader::{ENVIRONMENT, environment};
use crate::support::appliance::{
    Address, Esp, PORT, appliance, config_disk, foreign_config_disk, site,
};
use crate::support::guests::{PATIENCE, TestGuest, network, ssh_key};
use crate::support::{Checker, temp_folder};

fn next_state(guest: &mut TestGuest) -> StateLine {
    match guest.guest.next_state(PATIENCE) {
        Ok(line) => line,
        Err(error) => panic!("{error}\n{}", guest.console()),
    }
}

/// Waits for the ready line. A waiting machine may repeat that it waits.
fn gets_ready(guest: &mut TestGuest) {
    loop {
        let line = next_state(guest);
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
fn size_of_var(disk: &Disk, folder: &Path, key: &Path, public: &str) -> Option<u64> {
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.disks = vec![
        disk.clone(),
        config_disk(folder, &site("grown", public, Address::Dhcp)),
    ];
    spec.network = Some(network(&[22]));
    let mut guest = TestGuest::start(&spec)?;
    gets_ready(&mut guest);
    let (size, _) = ask_and_switch_off(&mut guest, key, "stat -f -c '%b %S' /var")?;
    let (blocks, block) = size.trim().split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    Some(number(blocks) * number(block))
}

#[test]
fn var_grows_with_the_disk_and_only_once() {
    var_grows_by(4 << 30);
}

/// Beyond what the reserved blocks of the group table reach.
#[test]
#[ignore = "minutes in the guest: ci/nightly.d/fs"]
fn var_grows_nearly_to_16_tib() {
    var_grows_by(15 << 40);
}

/// The customer's disk is `more` bytes larger: the first boot takes them.
fn var_grows_by(more: u64) {
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
    let Some(var) = size_of_var(&disk, folder.path(), &key, &public) else {
        return;
    };
    // Inode tables take one part in 64.
    assert!(var > more - more / 40, "/var has {var} bytes");
    Checker::Sgdisk.accepts(&disk.path);
    Checker::Sfdisk.accepts(&disk.path);
    let grown = tables(&disk.path);
    assert_ne!(grown, before, "the table names the new end");
    let again = size_of_var(&disk, folder.path(), &key, &public);
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

/// What the loader decides when no slot has tries left, and what the agent
/// makes of it. On the way: nothing on the consoles that worries anybody.
#[test]
fn as_a_last_resort_a_configured_machine_comes_up_with_its_services_down() {
    let folder = temp_folder();
    let disk = appliance().copy(folder.path());
    let Some((key, public)) = ssh_key(folder.path()) else {
        return;
    };
    let mut spec = GuestSpec::new(Firmware::Bios);
    let config = config_disk(folder.path(), &site("fenced", &public, Address::Fixed));
    spec.disks = vec![disk.clone(), config];
    spec.network = Some(network(&[22]));
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    gets_ready(&mut guest);
    let states = "systemctl is-active nginx.service appliance-ready.target";
    let Some((said, console)) = ask_and_switch_off(&mut guest, &key, states) else {
        return;
    };
    assert_eq!(said, "active\nactive\n");
    for words in ["regulatory", "is ignored", "Failed unmounting"] {
        assert!(!console.contains(words), "`{words}` in {console}");
    }

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
