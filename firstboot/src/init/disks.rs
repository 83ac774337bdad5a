//! Disks, and which of their partitions are the ones we want.
//!
//! A disk is looked at when it appears, driver by driver, and the first one
//! that has the root wins. Two copies of one image in one machine have the
//! same identifiers, so `/var` is only taken from the root's own disk.

use std::collections::BTreeMap;
use std::fs::File;

use super::cmdline::Wanted;
use super::devices::{list, value};
use super::gpt::{self, GptError, Partition};

/// Where the kernel lists whole disks.
const DISKS: &str = "/sys/block";
/// Disks that never hold a root.
const NO_DISK: [&str; 4] = ["loop", "ram", "zram", "fd"];

/// What is known about the machine's disks.
#[derive(Debug, Default)]
pub struct Disks {
    disks: BTreeMap<String, Disk>,
}

/// One disk.
#[derive(Debug)]
pub struct Disk {
    /// Bytes.
    pub size: u64,
    /// Vendor and model as the disk says, may be empty.
    pub model: String,
    /// Its partitions, or why there are none.
    pub table: Result<Vec<Partition>, GptError>,
}

/// The devices to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `/dev/vda3`.
    pub root: String,
    /// `/dev/vda5`.
    pub var: Option<String>,
    /// Other disks that have the same partitions: copies of the image.
    pub copies: Vec<String>,
}

impl Disks {
    /// Looks at disks that are new, and says whether one has what is wanted.
    pub fn find(&mut self, wanted: &Wanted) -> Option<Found> {
        let names = list(DISKS);
        self.disks.retain(|name, _| names.contains(name));
        let mut found: Option<Found> = None;
        for name in names {
            if NO_DISK.iter().any(|prefix| is_numbered(&name, prefix)) {
                continue;
            }
            let disk = self
                .disks
                .entry(name.clone())
                .or_insert_with(|| look(&name));
            let Some(numbers) = choose(disk, wanted) else {
                continue;
            };
            match &mut found {
                // Firmware starts the first disk, unless somebody told it
                // otherwise; it leaves no word that says which.
                Some(found) => found.copies.push(name),
                None => found = devices(&name, &numbers),
            }
        }
        found
    }

    /// Forgets disks without partitions, so that they are read again: a card
    /// may have been put into its reader.
    pub fn look_again(&mut self) {
        self.disks.retain(|_, disk| disk.table.is_ok());
    }

    /// Every disk by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Disk)> {
        self.disks.iter().map(|(name, disk)| (name.as_str(), disk))
    }
}

/// Partition numbers of what is wanted, when the disk has all of it.
struct Numbers {
    root: u32,
    var: Option<u32>,
}

fn choose(disk: &Disk, wanted: &Wanted) -> Option<Numbers> {
    let partitions = disk.table.as_ref().ok()?;
    let number = |id| {
        Some(
            partitions
                .iter()
                .find(|partition| partition.id == id)?
                .number,
        )
    };
    Some(Numbers {
        root: number(wanted.root)?,
        var: match wanted.var {
            Some(id) => Some(number(id)?),
            None => None,
        },
    })
}

/// The kernel's names; it may not have found the partitions yet.
fn devices(disk: &str, numbers: &Numbers) -> Option<Found> {
    let device = |number: u32| {
        let folder = format!("{DISKS}/{disk}");
        let is_it = |name: &String| {
            value(&format!("{folder}/{name}/partition")).as_deref() == Some(&number.to_string())
        };
        let names = list(&folder);
        let name = names
            .iter()
            .filter(|name| name.starts_with(disk))
            .find(|name| is_it(name))?;
        Some(format!("/dev/{name}"))
    };
    Some(Found {
        root: device(numbers.root)?,
        var: match numbers.var {
            Some(number) => Some(device(number)?),
            None => None,
        },
        copies: Vec::new(),
    })
}

fn look(name: &str) -> Disk {
    let fact = |file: &str| value(&format!("{DISKS}/{name}/{file}"));
    let number = |file: &str| fact(file).and_then(|text| text.parse().ok());
    // The kernel counts sectors of 512 bytes here, whatever the disk has.
    let size = number("size").unwrap_or(0_u64).saturating_mul(512);
    let sector = number("queue/logical_block_size").unwrap_or(512);
    let words: Vec<String> = ["device/vendor", "device/model"]
        .into_iter()
        .filter_map(fact)
        .map(|word| word.trim().to_owned())
        .collect();
    let table = match File::open(format!("/dev/{name}")) {
        Ok(file) => gpt::read(&file, sector, size),
        Err(error) => Err(GptError::Unreadable(error)),
    };
    Disk {
        size,
        model: words.join(" ").trim().to_owned(),
        table,
    }
}

/// `loop0` is `loop` and a number; `loopy` is not.
fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::gpt::Guid;
    use super::*;

    pub fn id(digit: char) -> Guid {
        let digits = |count| digit.to_string().repeat(count);
        let text = [8, 4, 4, 4, 12].map(digits).join("-");
        Guid::parse(&text).expect("an id")
    }

    pub fn wanted() -> Wanted {
        Wanted {
            root: id('a'),
            var: Some(id('f')),
            slot: "a".into(),
            is_try: false,
            init: "/sbin/init".into(),
        }
    }

    pub fn disk(ids: &[(u32, char, &str)]) -> Disk {
        Disk {
            size: 8 << 30,
            model: "QEMU HARDDISK".into(),
            table: Ok(ids
                .iter()
                .map(|(number, digit, name)| Partition {
                    number: *number,
                    id: id(*digit),
                    name: (*name).into(),
                    ..Partition::default()
                })
                .collect()),
        }
    }

    pub fn disks(entries: Vec<(&str, Disk)>) -> Disks {
        Disks {
            disks: entries
                .into_iter()
                .map(|(name, disk)| (name.to_owned(), disk))
                .collect(),
        }
    }

    #[test]
    fn root_and_var_come_from_one_disk() {
        let both = disk(&[(3, 'a', "root-a"), (5, 'f', "var")]);
        let numbers = choose(&both, &wanted()).expect("both are there");
        assert_eq!((numbers.root, numbers.var), (3, Some(5)));
        assert!(choose(&disk(&[(3, 'a', "root-a")]), &wanted()).is_none());
        assert!(choose(&disk(&[(5, 'f', "var")]), &wanted()).is_none());
    }

    #[test]
    fn pseudo_disks_are_told_by_their_names() {
        assert!(is_numbered("loop0", "loop") && is_numbered("fd0", "fd"));
        assert!(!is_numbered("loopy", "loop") && !is_numbered("vda", "fd"));
    }
}
