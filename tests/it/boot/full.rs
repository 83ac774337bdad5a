//! The reference appliance from power-on to its ready line, and what it does
//! then: the page with the site's title, a login with the site's key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use consign::machine::{Bus, Chipset, DirectKernel, Firmware, GuestSpec};

use crate::support::appliance::{Address, PORT, appliance, config_disk, site};
use crate::support::guests::{PATIENCE, TestGuest, network, ssh_key};
use crate::support::{digest_of, temp_folder};

/// What a guest must not share with any other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    machine: String,
    host_key: String,
    recipient: String,
    seed: String,
}

/// Identities of all guests of this run.
static SEEN: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// Facts from inside, one `key=value` a line.
const FACTS: &str = "\
    echo hostname=$(cat /proc/sys/kernel/hostname); \
    echo machine-id=$(cat /etc/machine-id); \
    echo host-key=$(cut -d' ' -f2 /var/lib/consign/ssh/ssh_host_ed25519_key.pub); \
    echo recipient=$(cat /var/lib/consign/recipient); \
    echo seed=$(sha256sum < /var/lib/systemd/random-seed); \
    echo system=$(systemctl is-system-running); \
    echo failed=$(systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\\n' ' '); \
    echo agent-done=$(systemctl show -P ActiveEnterTimestampMonotonic appliance-config.service); \
    echo network-start=$(systemctl show -P ExecMainStartTimestampMonotonic systemd-networkd.service); \
    echo ssh-start=$(systemctl show -P ExecMainStartTimestampMonotonic ssh.service); \
    echo cycles=$(journalctl -b -o cat | grep -c 'ordering cycle'); \
    echo zone=$(readlink /etc/localtime); \
    echo lockdown=$(cat /sys/kernel/security/lockdown); \
    echo \"screen=$(tr -s ' ' < /dev/vcs1)\"; \
    echo root=$(findmnt -n -o FSTYPE /)";

/// Starts the machine with a config disk, waits until it is ready, and looks
/// at it from outside and from inside. Gives back its console.
fn serves_its_site(name: &str, mut spec: GuestSpec) -> Option<String> {
    let folder = temp_folder();
    let (key, public) = ssh_key(folder.path())?;
    let image = appliance().disk();
    let before = digest_of(&image.path);
    if spec.disks.is_empty() {
        spec.disks = vec![image.clone()];
    }
    spec.disks.push(config_disk(
        folder.path(),
        &site(name, &public, Address::Fixed),
    ));
    spec.network = Some(network(&[22, PORT]));
    let second_console = folder.path().join("hvc0.log");
    spec.virtio_console = Some(second_console.clone());

    let mut guest = TestGuest::start(&spec)?;
    let line = match guest.guest.wait_ready(PATIENCE) {
        Ok(line) => line,
        Err(error) => panic!("{error}\n{}", guest.console()),
    };
    guest.report(name);
    let (firmware, secure) = match spec.firmware {
        Firmware::Bios => ("bios", "0"),
        Firmware::Uefi => ("uefi", "0"),
        Firmware::UefiSecure => ("uefi", "1"),
    };
    let expected = [
        ("system", "running"),
        ("fw", firmware),
        ("sb", secure),
        ("slot", "a"),
    ];
    for (key, value) in expected {
        assert_eq!(line.field(key), Some(value), "{key} in {}", line.text);
    }
    says_so_on(&second_console);

    let page = guest.http_get(PORT, "/");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(
        page.contains("<title>Tools &amp; &lt;More&gt;</title>"),
        "{page}"
    );
    assert!(page.contains(name), "{page}");
    let facts = guest.ssh(&key, "root", FACTS)?;
    is_sound(name, &spec, &facts);
    Some(drop_and_compare(guest, &image.path, before))
}

/// The second console is written after the first.
fn says_so_on(second_console: &Path) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let text = std::fs::read_to_string(second_console).expect("the second console");
        if text.contains("VA state=ready") {
            for part in [
                "state: ready - all services run",
                "ssh host key (ED25519): SHA256:",
            ] {
                assert!(text.contains(part), "no `{part}` on hvc0:\n{text}");
            }
            return;
        }
        assert!(Instant::now() < deadline, "on hvc0:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_sound(name: &str, spec: &GuestSpec, facts: &str) {
    let facts: BTreeMap<&str, &str> = facts
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let fact = |key: &str| {
        *facts
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {facts:?}"))
    };
    assert_eq!(fact("hostname"), name);
    assert_eq!(fact("system"), "running", "{facts:?}");
    assert_eq!(fact("failed"), "", "{facts:?}");
    assert_eq!(fact("cycles"), "0", "{facts:?}");
    let moment = |key: &str| fact(key).parse::<u64>().expect("microseconds");
    assert!(moment("agent-done") < moment("network-start"), "{facts:?}");
    assert!(moment("agent-done") < moment("ssh-start"), "{facts:?}");
    assert!(fact("zone").ends_with("Europe/Zurich"), "{facts:?}");
    assert_eq!(fact("root"), "ext4");
    for part in [
        "state: ready - all services run",
        "ssh host key (ED25519): SHA256:",
    ] {
        assert!(
            fact("screen").contains(part),
            "no `{part}` on tty1: {facts:?}"
        );
    }
    if spec.firmware == Firmware::UefiSecure {
        assert!(fact("lockdown").contains("[integrity]"), "{facts:?}");
    }
    let identity = Identity {
        machine: fact("machine-id").to_owned(),
        host_key: fact("host-key").to_owned(),
        recipient: fact("recipient").to_owned(),
        seed: fact("seed").to_owned(),
    };
    assert!(identity.recipient.starts_with("age1"), "{identity:?}");
    assert_eq!(identity.machine.len(), 32, "{identity:?}");
    assert!(identity.host_key.len() > 60, "{identity:?}");
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    for other in seen.iter() {
        assert_ne!(
            other.machine, identity.machine,
            "two guests, one machine-id"
        );
        assert_ne!(
            other.host_key, identity.host_key,
            "two guests, one host key"
        );
        assert_ne!(other.recipient, identity.recipient, "one age identity");
        assert_ne!(other.seed, identity.seed, "one random seed");
    }
    seen.push(identity);
}

fn drop_and_compare(guest: TestGuest, image: &Path, before: consign::digest::Digest) -> String {
    let console = guest.console();
    drop(guest);
    assert_eq!(digest_of(image), before, "the image must stay as it is");
    console
}

#[test]
fn bios_starts_it_and_it_serves_its_site() {
    let Some(console) = serves_its_site("bios", GuestSpec::new(Firmware::Bios)) else {
        return;
    };
    assert!(console.contains("GRUB platform=pc"), "{console}");
}

#[test]
fn the_oldest_board_starts_it_from_ide() {
    let mut spec = GuestSpec::new(Firmware::Bios);
    (spec.chipset, spec.bus) = (Chipset::Pc, Bus::Ide);
    let Some(console) = serves_its_site("ide", spec) else {
        return;
    };
    assert!(console.contains("GRUB platform=pc"), "{console}");
}

#[test]
fn uefi_starts_it_and_it_serves_its_site() {
    let Some(console) = serves_its_site("uefi", GuestSpec::new(Firmware::Uefi)) else {
        return;
    };
    assert!(console.contains("GRUB platform=efi"), "{console}");
}

#[test]
fn secure_boot_starts_it_with_a_locked_kernel() {
    let Some(console) = serves_its_site("secure", GuestSpec::new(Firmware::UefiSecure)) else {
        return;
    };
    assert!(console.contains("GRUB platform=efi"), "{console}");
}

#[test]
fn a_host_that_loads_the_kernel_itself_starts_it() {
    let appliance = appliance();
    let command_line = std::fs::read_to_string(appliance.file("cmdline")).expect("the line");
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.kernel = Some(DirectKernel {
        kernel: appliance.file("vmlinuz"),
        initrd: Some(appliance.file("initrd")),
        command_line: command_line.trim().to_owned(),
    });
    let Some(console) = serves_its_site("direct", spec) else {
        return;
    };
    assert!(!console.contains("GRUB"), "{console}");
}
