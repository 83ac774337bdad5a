//! `[disk.NAME]`: further disks of the machine, for what it keeps.

use toml::de::DeValue;

use crate::address::{boolean, parsed};
use crate::document::{Found, Section};
use crate::problem::Code;
use crate::report::{Finding, Report};

/// Disks at most.
const MAX_DISKS: usize = 16;
/// Below these folders a disk may be mounted.
const PLACES: &[&str] = &["/data", "/mnt/", "/opt/", "/srv", "/var/lib/"];
/// Below these never: the agent's own, and what the system cannot miss.
const OWN: &[&str] = &["/var/lib/consign", "/var/lib/dpkg", "/var/lib/systemd"];

/// Which disk is meant. The disk that the system is on, and config media,
/// are never counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DiskMatch {
    /// The one in this place, from 1, in the order of the controllers.
    Position(u8),
    /// The one with this serial number.
    Serial(String),
}

/// The file system of a data disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskFileSystem {
    /// ext4.
    Ext4,
    /// XFS, where the image has its programs.
    Xfs,
}

/// What may be done to a disk without a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskUse {
    /// Format it when it is provably blank; take it when it is ours.
    Format,
    /// Take what is on it; never format.
    Adopt,
}

/// A `[disk.NAME]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name: small letters, digits and `-`, 16 at most.
    pub name: String,
    /// The disk.
    pub matches: DiskMatch,
    /// The folder where it is mounted, absolute.
    pub mount: String,
    /// Its file system.
    pub fs: DiskFileSystem,
    /// Whether it may be formatted.
    pub usage: DiskUse,
    /// Whether its file system grows with the disk.
    pub grow: bool,
    /// Bytes that it must have.
    pub min_size: u64,
}

impl DiskFileSystem {
    pub(crate) const NAMES: &[(&str, Self)] = &[("ext4", Self::Ext4), ("xfs", Self::Xfs)];

    /// The name, as `mount` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl DiskUse {
    pub(crate) const NAMES: &[(&str, Self)] = &[("format", Self::Format), ("adopt", Self::Adopt)];
}

/// Reads the tables below `[disk]`.
pub(crate) fn read_disks(root: &mut Section<'_>, report: &mut Report<'_>) -> Vec<Disk> {
    let Some(disks) = root.table("disk", report) else {
        return Vec::new();
    };
    let mut read: Vec<Disk> = Vec::new();
    for (at, (name, value)) in disks.entries().enumerate() {
        if at == MAX_DISKS {
            let finding = Finding::new(Code::OutOfRange, "there are more than 16 disks")
                .remedy("delete those that are not needed");
            name.note(report, finding);
            break;
        }
        let place = name.clone();
        let name = parsed(name, parse_name, report);
        let Some(section) = value.table(report) else {
            continue;
        };
        let Some(disk) = name.and_then(|name| read_disk(name.value, section, report)) else {
            continue;
        };
        let doubled = read.iter().find_map(|other| {
            if other.matches == disk.matches {
                Some("another table means the same disk")
            } else if other.mount == disk.mount {
                Some("another disk is mounted in the same folder")
            } else {
                None
            }
        });
        if let Some(message) = doubled {
            let finding = Finding::new(Code::Conflict, message)
                .remedy("give each disk a `match` and a `mount`");
            place.note(report, finding);
        }
        read.push(disk);
    }
    read
}

fn read_disk(name: String, mut section: Section<'_>, report: &mut Report<'_>) -> Option<Disk> {
    let matches = match section.get("match") {
        Some(found) => found
            .table(report)
            .and_then(|section| read_match(section, report)),
        None => Some(DiskMatch::Position(1)),
    };
    let mut text = |key, parse: fn(&str) -> Result<String, Finding>| {
        let found = section.get(key).map(|found| found.text(report));
        found.map(|found| parsed(found?, parse, report).map(|found| found.value))
    };
    let mount = text("mount", parse_mount).unwrap_or_else(|| Some(format!("/srv/{name}")));
    let fs = section.get("fs").map(|found| {
        let found = found.text(report)?;
        choice(&found, DiskFileSystem::NAMES, "file system", report)
    });
    let usage = section.get("use").map(|found| {
        let found = found.text(report)?;
        choice(&found, DiskUse::NAMES, "way to use a disk", report)
    });
    let min_size = section.get("min_size").map(|found| {
        let found = found.text(report)?;
        parsed(found, parse_size, report).map(|found| found.value)
    });
    let grow = !section.has("grow") | boolean(&mut section, "grow", report);
    section.get("grow");
    section.finish(report);
    Some(Disk {
        name,
        matches: matches?,
        mount: mount?,
        fs: fs.unwrap_or(Some(DiskFileSystem::Ext4))?,
        usage: usage.unwrap_or(Some(DiskUse::Format))?,
        grow,
        min_size: min_size.unwrap_or(Some(0))?,
    })
}

fn read_match(mut section: Section<'_>, report: &mut Report<'_>) -> Option<DiskMatch> {
    let slot = section.get("slot").map(|found| {
        // Names of devices change from start to start.
        if let DeValue::String(_) = found.value {
            let finding = Finding::new(Code::WrongType, "a disk's slot is a number")
                .allowed("1 to 64")
                .remedy("write its place as a number from 1 without quotes, or name the disk by its `serial`");
            found.note(report, finding);
            return None;
        }
        let place = found.integer(&(1..=64), report)?;
        u8::try_from(place.value).ok().map(DiskMatch::Position)
    });
    let serial = section.get("serial").map(|found| {
        let found = found.text(report)?;
        parsed(found, parse_serial, report).map(|found| DiskMatch::Serial(found.value))
    });
    let given: Vec<Option<DiskMatch>> = [slot, serial].into_iter().flatten().collect();
    if given.len() != 1 {
        let message = if given.is_empty() {
            "the disk is not named"
        } else {
            "the disk is named in two ways"
        };
        let finding = Finding::new(Code::Conflict, message)
            .allowed("one of slot, serial")
            .remedy("write for example match = { slot = 1 }");
        section.note(report, finding);
    }
    section.finish(report);
    given.into_iter().next().flatten()
}

/// The value that `found` names.
pub(crate) fn choice<T: Copy>(
    found: &Found<&str>,
    names: &[(&str, T)],
    what: &str,
    report: &mut Report<'_>,
) -> Option<T> {
    let value = names
        .iter()
        .find_map(|(name, value)| (*name == found.value).then_some(*value));
    if value.is_none() {
        let list: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let remedy = match crate::nearest::nearest(found.value, list.iter().copied()) {
            Some(near) => format!("write \"{near}\", if that is meant"),
            None => "write one of them".to_owned(),
        };
        let finding = Finding::invalid(format!("this is not a {what}"))
            .allowed(list.join(", "))
            .remedy(remedy);
        found.note(report, finding);
    }
    value
}

fn parse_name(text: &str) -> Result<String, Finding> {
    let is_name = (1..=16).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if is_name {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not a disk's name")
        .allowed("a small letter, then small letters, digits and `-`, 16 at most")
        .remedy("write for example [disk.data]"))
}

fn parse_serial(text: &str) -> Result<String, Finding> {
    let is_serial = (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && text.trim() == text;
    if is_serial {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not the serial number of a disk")
        .remedy("write it as `lsblk -o NAME,SERIAL` shows it"))
}

fn parse_mount(text: &str) -> Result<String, Finding> {
    let is_clean = text
        .split('/')
        .skip(1)
        .all(|part| !part.is_empty() && part != "." && part != ".." && is_plain(part));
    let below = |folder: &str| {
        let folder = folder.trim_end_matches('/');
        text.strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_place = PLACES
        .iter()
        .any(|place| below(place) && (!place.ends_with('/') || text.len() > place.len()));
    if text.len() <= 128 && is_clean && is_place && !OWN.iter().any(|own| below(own)) {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("a disk cannot be mounted here")
        .allowed("/srv, /data, and folders below /srv, /data, /mnt, /opt and /var/lib")
        .remedy("write a folder such as \"/srv/data\""))
}

fn is_plain(part: &str) -> bool {
    part.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn parse_size(text: &str) -> Result<u64, Finding> {
    let units = [("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let size = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?.trim_end();
        let is_number =
            (1..=6).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        number
            .parse::<u64>()
            .ok()
            .filter(|size| is_number && *size > 0)
            .map(|size| size << shift)
    });
    size.ok_or_else(|| {
        Finding::invalid("this is not a size")
            .allowed("a whole number and MiB, GiB or TiB")
            .remedy("write for example \"10 GiB\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_mounted_where_data_belongs() {
        for good in [
            "/srv",
            "/srv/data",
            "/data",
            "/var/lib/postgresql",
            "/mnt/x",
        ] {
            assert!(parse_mount(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "srv",
            "/etc",
            "/var/lib",
            "/mnt",
            "/srv/../etc",
            "/srv/",
            "/srvx",
            "/var/lib/consign/x",
            "/srv/a b",
            "/opt",
        ] {
            assert!(parse_mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("10 GiB").ok(), Some(10 << 30));
        assert_eq!(parse_size("1TiB").ok(), Some(1 << 40));
        for bad in ["", "10", "10GB", "0GiB", "-1GiB", "1.5GiB", "99999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
