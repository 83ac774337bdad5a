//! Devices that ask for a driver: those that are there, and those that come.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
};

use super::problem::Problem;

/// The multicast group to which the kernel itself speaks.
const KERNEL_GROUP: u32 = 1;
/// An event is at most 4 KiB.
const EVENT_SIZE: usize = 8192;
/// How the names of subsystems begin that are disks or that lead to them.
const DISKS: [&str; 11] = [
    "block", "scsi", "ata", "usb", "pci", "virtio", "nvme", "mmc", "vmbus", "xen", "firewire",
];

/// The names in `folder`, sorted; none when it cannot be read.
#[expect(
    clippy::disallowed_methods,
    reason = "sysfs has no other way to list, and the names are sorted here"
)]
pub fn list(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// One value of sysfs, without its newline.
pub fn value(path: &str) -> Option<String> {
    // One page at most, so that one call reads it.
    let mut page = [0; 4096];
    let count = fs::File::open(path).ok()?.read(&mut page).ok()?;
    let text = std::str::from_utf8(page.get(..count)?).ok()?;
    Some(text.trim_end().to_owned())
}

/// The modaliases of all devices on all buses.
pub fn coldplug() -> Vec<String> {
    let mut found = Vec::new();
    for bus in list("/sys/bus") {
        let devices = format!("/sys/bus/{bus}/devices");
        for device in list(&devices) {
            found.extend(value(&format!("{devices}/{device}/modalias")));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The kernel's messages about devices that come and go.
#[derive(Debug)]
pub struct Events(OwnedFd);

impl Events {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// [`Problem`] when the kernel has no such socket.
    pub fn listen() -> Result<Self, Problem> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )
        .map_err(Problem::system("listen for devices"))?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, KERNEL_GROUP))
            .map_err(Problem::system("listen for devices"))?;
        Ok(Self(socket))
    }

    /// Waits until a device comes or `patience` ends. Returns the modaliases
    /// of what came.
    ///
    /// # Errors
    ///
    /// [`Problem`] when the socket breaks.
    pub fn wait(&self, patience: Duration) -> Result<Vec<String>, Problem> {
        self.rest(patience)?;
        self.pending()
    }

    /// Waits until the kernel says something or `patience` ends. Whether a
    /// device came that is a disk or that disks may be behind.
    ///
    /// # Errors
    ///
    /// [`Problem`] when the socket breaks.
    pub fn came(&self, patience: Duration) -> Result<bool, Problem> {
        self.rest(patience)?;
        let mut came = false;
        let is_whole = self.hear(&mut |message| came |= is_arrival(message))?;
        Ok(came || !is_whole)
    }

    fn rest(&self, patience: Duration) -> Result<(), Problem> {
        let timeout = Timespec::try_from(patience).map_err(|_| {
            Problem::io("wait for devices")(io::Error::from(io::ErrorKind::InvalidInput))
        })?;
        let mut poll = [PollFd::new(&self.0, PollFlags::IN)];
        match rustix::event::poll(&mut poll, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Problem::system("wait for devices")(errno)),
        }
    }

    /// The modaliases of what has come already.
    ///
    /// # Errors
    ///
    /// [`Problem`] when the socket breaks.
    pub fn pending(&self) -> Result<Vec<String>, Problem> {
        let mut found = Vec::new();
        let is_whole = self.hear(&mut |message| found.extend(modalias(message)))?;
        // Messages were lost: look at everything again.
        Ok(if is_whole { found } else { coldplug() })
    }

    /// Passes every message on; whether none was lost.
    fn hear(&self, each: &mut dyn FnMut(&[u8])) -> Result<bool, Problem> {
        let mut buffer = vec![0; EVENT_SIZE];
        let mut is_whole = true;
        loop {
            match recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((size, _)) => each(buffer.get(..size).unwrap_or_default()),
                Err(Errno::AGAIN) => return Ok(is_whole),
                Err(Errno::NOBUFS) => is_whole = false,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Problem::system("wait for devices")(errno)),
            }
        }
    }
}

/// The modalias in a message `add@/devices/x\0ACTION=add\0MODALIAS=y\0...`.
fn modalias(message: &[u8]) -> Option<String> {
    message
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"MODALIAS="))
        .and_then(|value| String::from_utf8(value.to_vec()).ok())
}

/// Whether a message tells of a new device that is a disk or that disks may
/// be behind; not that one changed, nor of a disk that the kernel makes up.
fn is_arrival(message: &[u8]) -> bool {
    let mut fields = message.split(|byte| *byte == 0);
    let path = fields
        .next()
        .and_then(|head| head.strip_prefix(b"add@/devices/"));
    let subsystem = fields.find_map(|field| field.strip_prefix(b"SUBSYSTEM="));
    let leads_to_disks = |name: &[u8]| DISKS.iter().any(|disks| name.starts_with(disks.as_bytes()));
    path.is_some_and(|path| !path.starts_with(b"virtual/")) && subsystem.is_some_and(leads_to_disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_told_from_what_changes_and_from_what_has_no_disks() {
        let is = |head: &str, subsystem: &str| {
            is_arrival(format!("{head}\0ACTION=x\0SUBSYSTEM={subsystem}\0SEQNUM=1\0").as_bytes())
        };
        for subsystem in [
            "block",
            "scsi",
            "scsi_host",
            "ata_port",
            "usb",
            "pci",
            "virtio",
        ] {
            assert!(is("add@/devices/pci0000:00/x", subsystem), "{subsystem}");
            assert!(
                !is("change@/devices/pci0000:00/x", subsystem),
                "{subsystem}"
            );
            assert!(!is("bind@/devices/pci0000:00/x", subsystem), "{subsystem}");
        }
        assert!(!is("add@/devices/pci0000:00/x", "net"));
        assert!(!is("add@/devices/virtual/block/loop0", "block"));
        assert!(!is("add@/module/x", "module"));
        assert!(!is_arrival(b"add@/devices/x\0ACTION=add\0"));
        assert!(!is_arrival(b""));
    }

    #[test]
    fn a_message_may_carry_a_modalias() {
        let message =
            b"add@/devices/x\0ACTION=add\0SUBSYSTEM=scsi\0MODALIAS=scsi:t-0x00\0SEQNUM=1\0";
        assert_eq!(modalias(message).as_deref(), Some("scsi:t-0x00"));
        assert_eq!(modalias(b"add@/devices/x\0ACTION=add\0"), None);
        assert_eq!(modalias(b""), None);
    }
}
