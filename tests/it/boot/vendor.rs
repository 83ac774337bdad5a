//! What a vendor brings along: an image with their key, a signed policy, a
//! role with hooks, and a bundle for it on the customer's disk.

use std::path::Path;

use consign::factory::{BundleName, write_bundle};
use consign::machine::{Disk, Firmware, GuestSpec, Writes};
use consign::sign::{SecretKey, Signer, sshsig};

use crate::support::appliance::{
    Address, appliance, commands_for, debugfs_in, partition_start, site,
};
use crate::support::guests::{PATIENCE, TestGuest, network, ssh_key};
use crate::support::{consign, must_run, repo_root, temp_folder};

const PLACE: &str = "usr/lib/consign";
const WEB: &str = "layers/app/files/usr/lib/consign/roles/web/role.toml";
const POLICY: &str = "layers/app/files/usr/lib/consign/policy.toml";
/// The first two leave their word where the third finds it, so that one line
/// on the console tells that each has run, in its order and with what it needs.
const HOOKS: &str = "
[[hook]]
when = \"pre-apply\"
run = \"ask\"

[[hook]]
when = \"post-activate\"
run = \"bin/prepare\"
bundle = \"pages\"

[[hook]]
when = \"verify\"
run = \"check\"
timeout = 30
";
const ASK: &str = "#!/bin/sh\ncat >/run/hook-asked\n";
/// Not by `/sys`, which shows the network of who mounted it.
const PREPARE: &str = "#!/bin/sh\nset -e\ngrep -q pre-apply /run/hook-asked\n\
    cat >/run/hook-prepared\nsed -n 's/^ *\\([^:]*\\):.*/\\1/p' /proc/net/dev >/run/hook-network\n";
/// Says when it begins and ends, for whoever starts it twice.
const CHECK: &str = "#!/bin/sh\nset -e\ngrep -q post-activate /run/hook-prepared\n\
    echo begins >>/run/hook-log\nsleep 2\necho ends >>/run/hook-log\n\
    text=$(cat /var/lib/consign/current/pages/text)\n\
    echo \"HOOKS network=$(echo $(cat /run/hook-network)) bundle=$text $(cat)\" >/dev/ttyS0\n";

fn signer() -> Signer {
    Signer::File(SecretKey::from_seed(&[5; 32]))
}

/// A copy of the appliance's disk with the vendor's key, a signed policy and
/// hooks of the role `web`, each signed; `None`, said loudly, without debugfs.
fn disk_with_hooks(folder: &Path) -> Option<Disk> {
    let disk = appliance().copy(folder);
    let root = partition_start(&disk, "root-a")?;
    let read = |path: &str| std::fs::read_to_string(repo_root().join(path)).expect("a file");
    let policy = read(POLICY);
    let sign =
        |purpose, text: &str| sshsig::sign(&signer(), purpose, text.as_bytes()).expect("signed");
    let files = [
        ("vendor.pub", signer().public().to_openssh("vendor"), 0o644),
        ("policy.toml.sig", sign("consign-policy", &policy), 0o644),
        ("roles/web/role.toml", read(WEB) + HOOKS, 0o644),
        ("roles/web/ask", ASK.to_owned(), 0o755),
        ("roles/web/ask.sig", sign("consign-hook", ASK), 0o644),
        ("roles/web/check", CHECK.to_owned(), 0o755),
        ("roles/web/check.sig", sign("consign-hook", CHECK), 0o644),
    ];
    let files = files.map(|(name, text, mode)| (format!("{PLACE}/{name}"), text, mode));
    let commands = format!("rm {PLACE}/roles/web/role.toml\n") + &commands_for(folder, &files);
    debugfs_in(&disk, root, folder, &commands)?;
    Some(disk)
}

/// A config disk with `site` and a bundle for the role.
fn disk_with_bundle(folder: &Path, site: &str) -> Disk {
    let files = folder.join("bundle");
    std::fs::create_dir_all(files.join("bin")).expect("folders");
    std::fs::write(files.join("text"), "pages-2").expect("written");
    let prepare = files.join("bin/prepare");
    std::fs::write(&prepare, PREPARE).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&prepare, mode).expect("its mode");
    let name = BundleName {
        name: "pages".into(),
        version: "2".into(),
        role: Some("web".into()),
    };
    let bundle = folder.join("pages.vab");
    write_bundle(&files, &name, &signer(), &bundle).expect("a bundle");
    let file = folder.join("site.toml");
    std::fs::write(&file, site).expect("written");
    let path = folder.join("late.img");
    let mut disk = consign();
    disk.args(["config", "disk"]).arg(&file);
    disk.arg("--payload").arg(&bundle).arg("-o").arg(&path);
    must_run(&mut disk);
    Disk {
        path,
        format: consign::machine::Format::Raw,
        writes: Writes::Kept,
    }
}

/// The bundle comes with the disk, and the role's signed hooks run, each at
/// its moment and without a network.
#[test]
#[ignore = "one more boot than a change can pay for; ci/nightly.d/firstboot-vendor runs it"]
fn a_vendors_bundle_and_hooks_come_into_use() {
    let folder = temp_folder();
    let mut spec = GuestSpec::new(Firmware::Bios);
    let Some(disk) = disk_with_hooks(folder.path()) else {
        return;
    };
    spec.disks = vec![disk];
    spec.network = Some(network(&[22]));
    let Some((key, public)) = ssh_key(folder.path()) else {
        return;
    };
    let config = disk_with_bundle(folder.path(), &site("late", &public, Address::Dhcp));
    spec.disks.push(config);
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    if let Err(error) = guest.guest.wait_ready(PATIENCE) {
        panic!("{error}\n{}", guest.console());
    }
    let console = guest.console();
    let line = console.lines().find(|line| line.contains("HOOKS "));
    let line = line.unwrap_or_else(|| panic!("no hook has spoken: {console}"));
    for part in [
        "HOOKS network=lo bundle=pages-2 {",
        "\"moment\":\"verify\"",
        "\"role\":\"web\"",
        "\"hostname\":\"late\"",
        "\"listen_port\":",
    ] {
        assert!(line.contains(part), "no `{part}` in {line}");
    }
    // Two agents at once: their hooks share a unit, and come one after another.
    let agent = "/usr/lib/consign/consign-firstboot";
    let both = format!(
        "while systemctl -q is-active appliance-verify; do sleep 1; done; \
         {agent} config; rm /run/hook-log; {agent} verify & {agent} verify; wait; \
         cat /run/hook-log; ls /run/consign/hook.json /run/systemd/system/consign-hook.service"
    );
    let Some(log) = guest.ssh(&key, "root", &format!("{both} || true")) else {
        return;
    };
    assert_eq!(log, "begins\nends\nbegins\nends\n");
    assert_eq!(guest.console().matches("HOOKS ").count(), 3);
}
