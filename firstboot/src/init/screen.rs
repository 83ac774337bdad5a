//! What the consoles and the kernel's log say before there is a system.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::cmdline::Wanted;
use super::devices::value;
use super::disks::{Disk, Disks};

/// Which consoles are in use.
const ACTIVE: &str = "/sys/class/tty/console/active";
/// `O_NOCTTY | O_NONBLOCK`: a console that does not take bytes must not stop us.
const FLAGS: i32 = libc::O_NOCTTY | libc::O_NONBLOCK;

/// One line in the kernel's log, not on the consoles of a quiet boot.
pub fn log(line: &str) {
    // KERN_INFO; the log is only an extra, so its failure changes nothing.
    write("/dev/kmsg", &format!("<6>consign: {line}\n"));
}

/// One line in the kernel's log and on `/dev/console`.
pub fn mark(line: &str) {
    log(line);
    write("/dev/console", &format!("consign: {line}\r\n"));
}

/// A text on every console.
pub fn show(text: &str) {
    for line in text.lines() {
        log(line);
    }
    let text = format!("\r\n{}\r\n\r\n", text.replace('\n', "\r\n"));
    let active = value(ACTIVE).unwrap_or_else(|| "console".into());
    for console in active.split(' ') {
        write(&format!("/dev/{console}"), &text);
    }
}

fn write(path: &str, text: &str) {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(FLAGS)
        .open(path);
    if let Ok(mut file) = file {
        // There is nobody else to tell.
        let _ = file.write_all(text.as_bytes());
    }
}

/// What was looked for and what is there instead.
pub fn missing_root(wanted: &Wanted, disks: &Disks) -> String {
    let mut text = format!(
        "The system disk of this appliance is missing (slot {}).\n\
         Looking for the partition  {}  (root)\n",
        wanted.slot.escape_default(),
        wanted.root
    );
    if let Some(var) = wanted.var {
        let _ = writeln!(text, "and, on the same disk,     {var}  (/var)");
    }
    let mut is_empty = true;
    for (name, disk) in disks.iter() {
        is_empty = false;
        describe(&mut text, name, disk);
    }
    if is_empty {
        text.push_str(
            "This machine shows no disk at all: attach the appliance's disk, or choose\n\
             another disk controller (virtio, SCSI, SATA, NVMe and IDE are known).\n",
        );
    } else {
        text.push_str("Attach the appliance's disk to this machine.\n");
    }
    text.push_str("The start goes on by itself as soon as the disk is there.");
    text
}

fn describe(text: &mut String, name: &str, disk: &Disk) {
    let mib = disk.size >> 20;
    let _ = write!(text, "Disk {name} ({mib} MiB)");
    if !disk.model.is_empty() {
        let _ = write!(text, " {}", disk.model.escape_default());
    }
    match &disk.table {
        Err(error) => {
            let _ = writeln!(text, ": {error}");
        }
        Ok(partitions) => {
            text.push_str(":\n");
            for partition in partitions {
                let _ = writeln!(
                    text,
                    "  {:2} {} {}",
                    partition.number,
                    partition.id,
                    partition.name.escape_default()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disks::tests::{disk, disks, wanted};
    use super::super::gpt::GptError;
    use super::*;

    #[test]
    fn a_missing_root_is_explained_by_what_is_there() {
        let empty = Disk {
            size: 1 << 30,
            model: String::new(),
            table: Err(GptError::None),
        };
        let all = disks(vec![("sda", disk(&[(1, 'b', "data")])), ("sr0", empty)]);
        assert_eq!(
            missing_root(&wanted(), &all),
            "The system disk of this appliance is missing (slot a).\n\
             Looking for the partition  aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa  (root)\n\
             and, on the same disk,     ffffffff-ffff-ffff-ffff-ffffffffffff  (/var)\n\
             Disk sda (8192 MiB) QEMU HARDDISK:\n   \
             1 bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb data\n\
             Disk sr0 (1024 MiB): has no GPT\n\
             Attach the appliance's disk to this machine.\n\
             The start goes on by itself as soon as the disk is there."
        );
    }

    #[test]
    fn a_machine_without_disks_gets_advice() {
        let text = missing_root(&wanted(), &Disks::default());
        assert!(text.contains("no disk at all") && text.contains("NVMe"));
    }
}
