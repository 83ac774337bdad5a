//! What people and machines see on the consoles: the page, and the line.
//!
//! Consoles are opened anew for every message, since a getty that starts
//! hangs up whoever has its terminal open. The page is also left as an issue
//! file, so that it stands above the login prompt.

use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::configure::wanted_claim;
use crate::image::Image;
use crate::root::{Access, Root};
use crate::status::{Standing, Status};
use crate::step::host_key;

/// Where people look.
const PAGE_CONSOLES: [&str; 3] = ["/dev/tty1", "/dev/ttyS0", "/dev/hvc0"];
/// Where machines listen.
const LINE_CONSOLES: [&str; 2] = ["/dev/ttyS0", "/dev/hvc0"];
/// What agetty shows above the prompt: `/etc/issue.d/50-consign.issue` leads
/// here (agetty looks into `/run/issue.d` only where there is no `/etc/issue`).
const ISSUE: &str = "/run/consign/issue";
/// Digits of a digest that people see.
const SHORT: usize = 8;
/// A console that takes nothing for this long is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is around the status: facts of the machine.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The kernel's name of the machine.
    pub host: String,
    /// The kernel's version.
    pub kernel: String,
    /// `a` or `b`; empty without slots.
    pub slot: String,
    /// Whether UEFI started it.
    pub is_uefi: bool,
    /// Whether Secure Boot was on.
    pub is_secure_boot: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The host key's fingerprint.
    pub fingerprint: Option<String>,
    /// The image.
    pub image: Image,
    /// The claim code, when something waits for it.
    pub claim: Option<String>,
}

impl Surroundings {
    /// Looks around.
    pub fn look(root: &Root, addresses: Vec<IpAddr>) -> Self {
        let uname = rustix::system::uname();
        let cmdline = root.read_text("/proc/cmdline", 4096).unwrap_or_default();
        let slot = cmdline
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("consign.slot="));
        // Four bytes of attributes, then the value.
        let secure_boot =
            "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        let secure_boot = root.read(secure_boot, 64).ok().flatten();
        Self {
            host: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            slot: slot.unwrap_or_default().to_owned(),
            is_uefi: root.exists("/sys/firmware/efi"),
            is_secure_boot: secure_boot.is_some_and(|bytes| bytes.get(4) == Some(&1)),
            addresses,
            fingerprint: host_key::fingerprint(root),
            image: Image::load(root),
            claim: wanted_claim(root),
        }
    }
}

/// The line for machines. Absent values are `-`; the order never changes.
pub fn line(status: &Status, around: &Surroundings) -> String {
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let serial = if status.generation == 0 {
        "-".to_owned()
    } else {
        status.serial.to_string()
    };
    let address = around.addresses.first().map(ToString::to_string);
    format!(
        "VA state={} system={} fw={} sb={} slot={} kernel={} serial={serial} cfg={} ip={}",
        status.standing.name(),
        or_dash(&status.system),
        if around.is_uefi { "uefi" } else { "bios" },
        u8::from(around.is_secure_boot),
        or_dash(&around.slot),
        or_dash(&around.kernel),
        or_dash(&status.config),
        or_dash(&address.unwrap_or_default()),
    )
}

/// The page for people.
pub fn page(status: &Status, around: &Surroundings) -> Vec<String> {
    let mut lines = Vec::new();
    let Image {
        name,
        version,
        build,
    } = &around.image;
    let image = [name.as_str(), version].join(" ");
    let build = match build.get(..SHORT).unwrap_or(build) {
        "" => String::new(),
        build => format!(" ({build})"),
    };
    lines.push(format!("{} - {}{build}", around.host, image.trim()));
    lines.extend(status.lines());
    if status.standing == Standing::Waiting {
        lines.push(
            "Attach a config disk: FAT, labelled VACONFIG, with site.toml in its root.".into(),
        );
        lines.push("It is taken at once; no restart is needed.".into());
    }
    if let Some(claim) = &around.claim {
        lines.push(format!(
            "claim code, for claim.txt on the config disk: {claim}"
        ));
    }
    if !around.addresses.is_empty() {
        let addresses: Vec<String> = around.addresses.iter().map(ToString::to_string).collect();
        lines.push(format!("addresses: {}", addresses.join(", ")));
    }
    if let Some(fingerprint) = &around.fingerprint {
        lines.push(format!("ssh host key (ED25519): {fingerprint}"));
    }
    lines
}

/// Shows page and line everywhere, and leaves the page above the prompts.
/// A console that is not there is nothing to complain about.
pub fn show(root: &Root, status: &Status, around: &Surroundings) {
    let page = page(status, around);
    leave_issue(root, &page);
    let text = format!("\n{}\n\n", page.join("\n"));
    for console in PAGE_CONSOLES {
        write_to(console, &text);
    }
    let line = format!("\n{}\n", line(status, around));
    for console in LINE_CONSOLES {
        write_to(console, &line);
    }
}

/// The issue file is only for looks: that it cannot be written stops nothing.
fn leave_issue(root: &Root, page: &[String]) {
    let text = page.join("\n").replace('\\', "\\\\") + "\n\n";
    if let Err(error) = root.put(ISSUE, text.as_bytes(), Access::own(0o644)) {
        complain!("cannot write {ISSUE}: {error}");
    }
}

/// Writes what the console takes; gives up rather than wait for ever.
fn write_to(console: &str, text: &str) {
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = File::options()
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(console);
    let Ok(mut file) = opened else {
        return;
    };
    let end = Instant::now() + PATIENCE;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return,
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let timeout = Timespec::try_from(left).ok();
                if poll(&mut [PollFd::new(&file, PollFlags::OUT)], timeout.as_ref()).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{FileProblems, code};

    fn around() -> Surroundings {
        Surroundings {
            host: "web-1".into(),
            kernel: "6.1.0-40-amd64".into(),
            slot: "a".into(),
            addresses: vec![IpAddr::from([10, 1, 2, 10])],
            fingerprint: Some("SHA256:abc".into()),
            image: Image {
                name: "sample".into(),
                version: "1.0".into(),
                build: "0123456789abcdef".into(),
            },
            ..Surroundings::default()
        }
    }

    #[test]
    fn the_line_has_every_field_in_its_place() {
        let status = Status {
            serial: 3,
            generation: 1,
            config: "1a2b3c4d".into(),
            system: "running".into(),
            ..Status::new(Standing::Ready, code::READY, "")
        };
        assert_eq!(
            line(&status, &around()),
            "VA state=ready system=running fw=bios sb=0 slot=a kernel=6.1.0-40-amd64 serial=3 cfg=1a2b3c4d ip=10.1.2.10"
        );
        let status = Status::new(Standing::Waiting, code::WAITING, "");
        let around = Surroundings {
            is_uefi: true,
            is_secure_boot: true,
            ..Surroundings::default()
        };
        assert_eq!(
            line(&status, &around),
            "VA state=waiting system=- fw=uefi sb=1 slot=- kernel=- serial=- cfg=- ip=-"
        );
    }

    #[test]
    fn the_page_says_what_is_wrong_and_what_to_do() {
        let status = Status {
            files: vec![FileProblems {
                digest: "1a2b3c4d".into(),
                ..FileProblems::whole("vdb: site.toml", "syntax", "not TOML", "mend it")
            }],
            ..Status::new(
                Standing::Waiting,
                code::INVALID,
                "the configuration is wrong",
            )
        };
        assert_eq!(
            page(&status, &around()),
            [
                "web-1 - sample 1.0 (01234567)",
                "state: waiting - the configuration is wrong",
                "vdb: site.toml:1:1: [syntax] not TOML",
                "    remedy: mend it",
                "vdb: site.toml has the digest 1a2b3c4d",
                "Attach a config disk: FAT, labelled VACONFIG, with site.toml in its root.",
                "It is taken at once; no restart is needed.",
                "addresses: 10.1.2.10",
                "ssh host key (ED25519): SHA256:abc",
            ]
        );
    }
}
