//! An early step that is killed: the machine says so, and is not lost.

use consign::machine::{Firmware, GuestSpec, GuestState, HotPlug};

use crate::support::appliance::{
    Address, PORT, appliance, commands_for, config_disk, debugfs_in, partition_start, site,
};
use crate::support::guests::{PATIENCE, TestGuest, network, ssh_key};
use crate::support::temp_folder;

/// Kills the early step the first two times.
const DROP_IN: &str = "[Service]\nExecStartPre=/etc/killer\n";
const KILLER: &str = "#!/bin/sh\necho >>/run/begun\n\
    test \"$(wc -l </run/begun)\" -gt 2 || kill -SEGV $$\n";

/// It is done again at once, then when a disk comes.
#[test]
fn an_early_step_that_was_killed_is_done_again() {
    let folder = temp_folder();
    let Some((_, public)) = ssh_key(folder.path()) else {
        return;
    };
    let disk = appliance().copy(folder.path());
    let Some(root) = partition_start(&disk, "root-a") else {
        return;
    };
    let unit = "etc/systemd/system/appliance-config.service.d";
    let files = [
        (format!("{unit}/killed.conf"), DROP_IN.to_owned(), 0o644),
        ("etc/killer".to_owned(), KILLER.to_owned(), 0o755),
    ];
    let commands = format!("mkdir /{unit}\n") + &commands_for(folder.path(), &files);
    if debugfs_in(&disk, root, folder.path(), &commands).is_none() {
        return;
    }
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.disks = vec![disk];
    spec.network = Some(network(&[PORT]));
    spec.hot_plug = HotPlug::OneDisk;
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    guest.says("state: fenced - the configuration of this machine was interrupted");
    guest.says("attach the config disk again, or restart the machine");
    let config = config_disk(folder.path(), &site("late", &public, Address::Dhcp));
    guest.guest.attach(&config).expect("attached");
    // What it was comes first. Another drive may have come before.
    let line = loop {
        match guest.guest.next_state(PATIENCE) {
            Ok(line) if matches!(line.state, GuestState::Fenced | GuestState::Waiting) => {}
            Ok(line) => break line,
            Err(error) => panic!("{error}\n{}", guest.console()),
        }
    };
    assert_eq!(line.state, GuestState::Ready, "{}", guest.console());
    assert_eq!(line.field("system"), Some("running"), "{}", line.text);
    assert!(guest.http_get(PORT, "/").contains("late"));
}
