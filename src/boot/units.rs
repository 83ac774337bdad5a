//! Which of systemd's units an appliance does without, by name and with the reason.
//!
//! A masked unit is a link to `/dev/null` in `/etc/systemd/system`, and is
//! only made for units that the tree has. A unit that waits for its first
//! user keeps its socket or bus name and only loses its place in the boot.

use super::error::BootError;
use super::files::{path, text_file};
use crate::tree::{FileTree, Node, NodeKind};
use crate::units::Timestamp;

/// `/init` mounts /var and the last step of a shutdown unmounts it, when
/// nobody is left to use it: systemd does not try in between.
const VAR_MOUNT: &str = "[Unit]\nDefaultDependencies=no\n";

/// A unit or generator, and why it is not needed.
type Reasoned = (&'static str, &'static str);

/// Units that never start.
const MASKED: &[Reasoned] = &[
    (
        "e2scrub_all.timer",
        "checks LVM snapshots, and there is no LVM",
    ),
    (
        "e2scrub_reap.service",
        "removes LVM snapshots, and there is no LVM",
    ),
    ("fstrim.timer", "thin disks are the host's business"),
    ("apt-daily.timer", "an appliance is updated as a whole"),
    (
        "apt-daily-upgrade.timer",
        "an appliance is updated as a whole",
    ),
    ("dpkg-db-backup.timer", "the dpkg database never changes"),
    ("man-db.timer", "no manual pages change"),
    (
        "systemd-pstore.service",
        "no guest firmware keeps crash records",
    ),
    (
        "systemd-firstboot.service",
        "it would ask questions on the console",
    ),
    (
        "systemd-machine-id-commit.service",
        "/init writes the machine id",
    ),
    (
        "systemd-remount-fs.service",
        "/init mounts the root as it stays",
    ),
    (
        "systemd-repart.service",
        "the agent grows the last partition",
    ),
    (
        "systemd-hwdb-update.service",
        "the hardware database is left out",
    ),
    (
        "systemd-journal-catalog-update.service",
        "the catalog comes with the image",
    ),
    ("systemd-update-done.service", "nothing looks at its stamp"),
    ("systemd-sysusers.service", "users were made at build time"),
    (
        "ldconfig.service",
        "the linker's cache comes with the image",
    ),
    ("systemd-update-utmp.service", "the journal knows the boots"),
    (
        "systemd-update-utmp-runlevel.service",
        "the journal knows the boots",
    ),
    ("systemd-binfmt.service", "no foreign binaries"),
    ("proc-sys-fs-binfmt_misc.automount", "no foreign binaries"),
    ("systemd-pcrphase.service", "no TPM measurements"),
    ("systemd-pcrphase-sysinit.service", "no TPM measurements"),
    ("sys-kernel-debug.mount", "for kernel developers"),
    ("sys-kernel-tracing.mount", "for kernel developers"),
    (
        "sys-fs-fuse-connections.mount",
        "mounted when somebody uses FUSE",
    ),
    ("sys-kernel-config.mount", "for storage targets and gadgets"),
    ("dev-hugepages.mount", "for databases that ask for it"),
    (
        "dev-mqueue.mount",
        "POSIX queues work without it being visible",
    ),
    ("systemd-initctl.socket", "for tools of sysvinit"),
    ("systemd-journald-audit.socket", "no audit rules are loaded"),
    (
        "systemd-ask-password-console.path",
        "no disk asks for a password",
    ),
    (
        "systemd-ask-password-wall.path",
        "no disk asks for a password",
    ),
    (
        "systemd-network-generator.service",
        "the network is not on the command line",
    ),
    ("getty-static.service", "logind starts terminals"),
    ("remote-fs.target", "no network file systems"),
    ("rsync.service", "the agent decides what listens"),
    ("cryptsetup.target", "no encrypted disks"),
    ("integritysetup.target", "no dm-integrity"),
    ("veritysetup.target", "no dm-verity"),
];

/// Programs that look for units to make at every start and reload.
const MASKED_GENERATORS: &[Reasoned] = &[
    ("systemd-cryptsetup-generator", "no encrypted disks"),
    (
        "systemd-gpt-auto-generator",
        "/init mounts by identifier, never by type",
    ),
    (
        "systemd-hibernate-resume-generator",
        "guests do not hibernate",
    ),
    ("systemd-integritysetup-generator", "no dm-integrity"),
    ("systemd-rc-local-generator", "no rc.local"),
    ("systemd-run-generator", "no commands on the command line"),
    (
        "systemd-system-update-generator",
        "an appliance is updated as a whole",
    ),
    ("systemd-veritysetup-generator", "no dm-verity"),
];

/// Links that start at boot what could start when first used. Not logind:
/// it is what hears the power button, a hypervisor's way to shut a guest down.
const LAZY: &[Reasoned] = &[(
    "usr/lib/systemd/system/multi-user.target.wants/dbus.service",
    "started by its socket",
)];

/// Parts of packages that only cost room and time.
const DROPPED: &[Reasoned] = &[
    (
        "usr/lib/udev/hwdb.bin",
        "names of hardware that guests do not have",
    ),
    ("usr/lib/udev/hwdb.d", "source of hwdb.bin"),
];

/// Rules of systemd-tmpfiles that do not fit.
const MASKED_TMPFILES: &[Reasoned] = &[
    ("home.conf", "/home and /srv are links into /var, or there"),
    (
        "provision.conf",
        "the agent alone gives keys to root, and the host none",
    ),
];

const UNIT_FOLDERS: [&str; 2] = ["usr/lib/systemd/system", "etc/systemd/system"];
const GENERATOR_FOLDER: &str = "usr/lib/systemd/system-generators";
const MASK: &str = "/dev/null";

/// Keeps the journal on `/var`, and small: it is what support asks for.
const JOURNAL: &str = "\
# The journal outlives a reboot, in at most 48 MiB.
[Journal]
Storage=persistent
SystemMaxUse=48M
RuntimeMaxUse=16M
";

/// Applies the tables above.
///
/// # Errors
///
/// [`BootError::Tree`].
pub(super) fn make_lean(tree: &mut FileTree, time: Timestamp) -> Result<(), BootError> {
    for (name, _) in DROPPED.iter().chain(LAZY) {
        tree.remove(&path(name));
    }
    for (unit, _) in MASKED {
        let there = |folder: &&str| tree.at(&format!("{folder}/{unit}")).is_some();
        if UNIT_FOLDERS.iter().any(there) {
            mask(tree, &format!("etc/systemd/system/{unit}"), time)?;
        }
    }
    for (generator, _) in MASKED_GENERATORS {
        mask_generator(tree, generator, time)?;
    }
    for (rules, _) in MASKED_TMPFILES {
        if tree.at(&format!("usr/lib/tmpfiles.d/{rules}")).is_some() {
            mask(tree, &format!("etc/tmpfiles.d/{rules}"), time)?;
        }
    }
    if every_service_has_a_unit(tree) {
        mask_generator(tree, "systemd-sysv-generator", time)?;
    }
    tree.insert(
        path("usr/lib/systemd/journald.conf.d/50-consign.conf"),
        text_file(JOURNAL, time),
    )?;
    tree.insert(
        path("usr/lib/systemd/system/var.mount.d/10-consign.conf"),
        text_file(VAR_MOUNT, time),
    )?;
    Ok(())
}

fn mask_generator(tree: &mut FileTree, name: &str, time: Timestamp) -> Result<(), BootError> {
    if tree.at(&format!("{GENERATOR_FOLDER}/{name}")).is_some() {
        mask(tree, &format!("etc/systemd/system-generators/{name}"), time)?;
    }
    Ok(())
}

fn mask(tree: &mut FileTree, name: &str, time: Timestamp) -> Result<(), BootError> {
    let mut link = Node::symlink(MASK);
    link.meta.mtime = time;
    tree.insert(path(name), link)?;
    Ok(())
}

/// Whether each script in `/etc/init.d` has a unit of the same name, so that
/// nothing is lost without the generator that turns scripts into units.
fn every_service_has_a_unit(tree: &FileTree) -> bool {
    let scripts = path("etc/init.d");
    tree.subtree(&scripts)
        .filter(|(_, _, node)| {
            matches!(node.kind, NodeKind::File(_)) && node.meta.mode & 0o111 != 0
        })
        .filter_map(|(script, _, _)| std::str::from_utf8(script.name()?).ok())
        .all(|name| {
            let name = name.strip_suffix(".sh").unwrap_or(name);
            UNIT_FOLDERS
                .iter()
                .any(|folder| tree.at(&format!("{folder}/{name}.service")).is_some())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    fn tree_with(names: &[&str]) -> FileTree {
        let mut tree = FileTree::new();
        for name in names {
            let node = Node::file(0o755, Content::from_bytes(*b"x"));
            tree.insert(path(name), node).expect("insert");
        }
        tree
    }

    #[test]
    fn only_units_that_exist_are_masked() {
        let mut tree = tree_with(&["usr/lib/systemd/system/systemd-pstore.service"]);
        make_lean(&mut tree, Timestamp::default()).expect("lean");
        let masked = tree
            .at("etc/systemd/system/systemd-pstore.service")
            .expect("masked");
        assert_eq!(masked.kind, NodeKind::Symlink(MASK.into()));
        assert!(tree.at("etc/systemd/system/fstrim.timer").is_none());
    }

    #[test]
    fn scripts_without_a_unit_keep_their_generator() {
        let generator = "usr/lib/systemd/system-generators/systemd-sysv-generator";
        let mask = "etc/systemd/system-generators/systemd-sysv-generator";
        let mut all_native = tree_with(&[
            generator,
            "etc/init.d/nginx",
            "usr/lib/systemd/system/nginx.service",
        ]);
        make_lean(&mut all_native, Timestamp::default()).expect("lean");
        assert!(all_native.at(mask).is_some());
        let mut old = tree_with(&[generator, "etc/init.d/old"]);
        make_lean(&mut old, Timestamp::default()).expect("lean");
        assert!(old.at(mask).is_none());
    }

    #[test]
    fn no_name_is_in_a_table_twice() {
        let mut names: Vec<&str> = [MASKED, MASKED_GENERATORS, MASKED_TMPFILES, LAZY, DROPPED]
            .iter()
            .flat_map(|table| table.iter().map(|(name, _)| *name))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
