//! Data disks: their file systems, where they are mounted, and who waits for
//! that.

use std::fmt::Write as _;

use consign_schema::{
    Disk, DiskFact, DiskFileSystem, DiskMatch, DiskUse, Facts, Problem, SiteConfig,
};

use super::{Feature, Machine, UNITS, drop_in};
use crate::data_disk::{DataDisk, Found, Holds, find, own_uuid};
use crate::item::Item;
use crate::systemd::READY_TARGET;
use crate::text::quoted;

/// The disks, their mount units, and drop-ins for the role's services.
///
/// # Errors
///
/// Disks that are missing, too small or hold something else.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let mut items = Vec::new();
    let facts = machine.disks.as_ref().map(|disks| {
        let disks = disks.iter().map(|found| found.fact.clone());
        disks.collect()
    });
    let mut problems = site.check_against(&Facts {
        disks: facts,
        ..Facts::default()
    });
    // What a place says counts for nothing where an identifier is known.
    let known = site.disks.iter();
    let known = known.filter(|disk| ours(site, disk, machine).is_some());
    let known: Vec<String> = known.map(|disk| format!("disk.{}.", disk.name)).collect();
    problems.retain(|problem| !known.iter().any(|key| problem.key.starts_with(key)));
    let mut places = Vec::new();
    for disk in &site.disks {
        match uuid(site, disk, machine) {
            Ok(None) => {}
            Ok(Some(uuid)) => {
                items.push(Item::DataDisk(DataDisk {
                    name: disk.name.clone(),
                    matches: disk.matches.clone(),
                    fs: disk.fs,
                    uuid: uuid.clone(),
                    usage: disk.usage,
                }));
                let place = machine.canonical(&disk.mount);
                items.extend(mount_unit(disk, &uuid, &place));
                places.push(place);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if !places.is_empty() {
        let text = format!("[Unit]\nRequiresMountsFor={}\n", places.join(" "));
        let services = machine.services();
        items.extend(services.map(|unit| drop_in(unit, "disks", &text)));
        // Whoever is not a service of the role waits for the target.
        items.push(drop_in(READY_TARGET, "disks", &text));
    }
    Ok(items)
}

/// The disk with the file system that this system once made, wherever it is, or
/// that it once adopted, unless another one is named; and its identifier.
fn ours<'m>(site: &SiteConfig, disk: &Disk, machine: &'m Machine) -> Option<(&'m Found, String)> {
    let with = |wanted: &str| {
        let mut disks = machine.disks.iter().flatten();
        disks.find(|found| matches!(&found.holds, Holds::Files(_, uuid) if uuid == wanted))
    };
    let own = own_uuid(site.id.as_str(), &disk.name);
    if let Some(found) = with(&own) {
        return Some((found, own));
    }
    let adopted = machine.known_disks.get(&disk.name)?;
    let found = with(adopted).filter(|_| disk.usage == DiskUse::Adopt)?;
    let is_named = match &disk.matches {
        DiskMatch::Serial(serial) => *serial == found.fact.serial,
        _ => true,
    };
    is_named.then(|| (found, adopted.clone()))
}

/// Whether `found`, which has this system's data, is what the file says of it.
fn agrees(site: &SiteConfig, disk: &Disk, found: &Found) -> Result<(), Problem> {
    let key = |part: &str| format!("disk.{}.{part}", disk.name);
    let DiskFact { name, serial, size } = &found.fact;
    if let Holds::Files(fs, _) = &found.holds
        && *fs != disk.fs
    {
        let fs = fs.name();
        return Err(site.problem(
            &key("fs"),
            &format!(
                "{name} has this system's data in a file system of {fs}, which is not made anew"
            ),
            &format!("write fs = \"{fs}\"; to begin without the data, attach a blank disk instead"),
        ));
    }
    match &disk.matches {
        DiskMatch::Serial(wanted) if wanted != serial => {
            let (whose, remedy) = match serial.as_str() {
                "" => (String::new(), "delete `match`".to_owned()),
                serial => (
                    format!(", serial number {serial}"),
                    format!("write match = {{ serial = {} }}", quoted(serial)),
                ),
            };
            return Err(site.problem(
                &key("match"),
                &format!("this system's data is on {name}{whose}, and another disk is named"),
                &format!("{remedy}; to begin without the data, detach {name}"),
            ));
        }
        _ if *size < disk.min_size => {
            return Err(site.problem(
                &key("min_size"),
                &format!(
                    "the disk {name} with this system's data has {} MiB, and {} are needed",
                    size >> 20,
                    disk.min_size >> 20
                ),
                "make the disk larger, or lower min_size",
            ));
        }
        _ => {}
    }
    Ok(())
}

/// The identifier of the disk's file system, now or soon; nothing for a disk
/// that is missing.
fn uuid(site: &SiteConfig, disk: &Disk, machine: &Machine) -> Result<Option<String>, Problem> {
    let key = format!("disk.{}", disk.name);
    let own = own_uuid(site.id.as_str(), &disk.name);
    let program = match disk.fs {
        DiskFileSystem::Ext4 => Feature::MakeExt4,
        _ => Feature::MakeXfs,
    };
    let Some(disks) = &machine.disks else {
        return Ok(Some(own));
    };
    if let Some((found, uuid)) = ours(site, disk, machine) {
        return agrees(site, disk, found).map(|()| Some(uuid));
    }
    let Some(found) = find(disks, &disk.matches) else {
        return Ok(None);
    };
    let name = &found.fact.name;
    match (&found.holds, disk.usage) {
        (Holds::Files(fs, uuid), DiskUse::Adopt) if *fs == disk.fs => Ok(Some(uuid.clone())),
        (Holds::Files(fs, _), DiskUse::Adopt) => Err(site.problem(
            &format!("{key}.fs"),
            &format!("{name} has a file system of {}", fs.name()),
            &format!("write fs = \"{}\"", fs.name()),
        )),
        (Holds::Blank, DiskUse::Format) if machine.has.contains(&program) => Ok(Some(own)),
        (Holds::Blank, DiskUse::Format) => Err(site.problem(
            &format!("{key}.fs"),
            &format!(
                "this appliance cannot make file systems of {}",
                disk.fs.name()
            ),
            "choose another `fs`, or attach a disk that has one, and write use = \"adopt\"",
        )),
        (Holds::Blank, _) => Err(site.problem(
            &key,
            &format!("{name} is blank, and is not to be formatted"),
            "attach the disk that has the data, or write use = \"format\"",
        )),
        (holds, _) => {
            let what = match holds {
                Holds::Files(fs, _) => format!("a file system of {}", fs.name()),
                Holds::Other(what) => (*what).to_owned(),
                Holds::Blank | Holds::Medium => "a configuration".to_owned(),
            };
            Err(site.problem(
                &key,
                &format!("{name} holds {what} that is not this appliance's"),
                "attach a blank disk; to go on with a whole disk of data, write use = \"adopt\"",
            ))
        }
    }
}

fn mount_unit(disk: &Disk, uuid: &str, place: &str) -> [Item; 1] {
    let text = format!(
        "[Unit]\nDescription=Data disk {}\n\n\
         [Mount]\nWhat=/dev/disk/by-uuid/{uuid}\nWhere={place}\nType={}\nOptions=nodev,nosuid\n",
        disk.name,
        disk.fs.name(),
    );
    let name = unit_name(place);
    [Item::text(format!("{UNITS}/{name}"), 0o644, text)]
}

/// What systemd calls the unit of a mount point (`systemd-escape --path`).
pub fn unit_name(place: &str) -> String {
    let mut name = String::new();
    for (at, byte) in place.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' => name.push(char::from(byte)),
            b'.' if at > 0 => name.push('.'),
            other => {
                let _ = write!(name, "\\x{other:02x}");
            }
        }
    }
    name + ".mount"
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine_with_role, site, text_of};
    use super::*;

    fn with(holds: Holds) -> Machine {
        let fact = DiskFact {
            name: "vdb".into(),
            serial: "S".into(),
            size: 1 << 30,
        };
        let mut machine = machine_with_role();
        machine.has.insert(Feature::MakeExt4);
        machine.links = [("/srv".to_owned(), "/var/srv".to_owned())].into();
        machine.disks = Some(vec![Found { fact, holds }]);
        machine
    }

    #[test]
    fn a_blank_disk_is_formatted_mounted_and_waited_for() {
        let site = site("[disk.data]\nmount = \"/srv/my-data\"\n");
        let items = decide(&site, &with(Holds::Blank)).expect("decided");
        let unit = text_of(&items, "/run/systemd/system/var-srv-my\\x2ddata.mount");
        let uuid = own_uuid("t", "data");
        assert!(unit.expect("a unit").contains(&format!(
            "What=/dev/disk/by-uuid/{uuid}\nWhere=/var/srv/my-data\n"
        )));
        for unit in ["nginx.service", "appliance-ready.target"] {
            let path = format!("/run/systemd/system/{unit}.d/50-consign-disks.conf");
            assert_eq!(
                text_of(&items, &path),
                Some("[Unit]\nRequiresMountsFor=/var/srv/my-data\n")
            );
        }
    }

    #[test]
    fn only_blank_disks_and_ours_are_taken() {
        let ours = Holds::Files(DiskFileSystem::Ext4, own_uuid("t", "data"));
        let other = Holds::Files(DiskFileSystem::Ext4, own_uuid("x", "data"));
        let format = site("[disk.data]\n");
        let adopt = site("[disk.data]\nuse = \"adopt\"\n");
        assert!(decide(&format, &with(ours.clone())).is_ok());
        assert!(decide(&adopt, &with(ours)).is_ok());
        assert!(decide(&adopt, &with(other.clone())).is_ok());
        for (site, holds, part) in [
            (&format, other, "holds a file system of ext4"),
            (&format, Holds::Other("a swap area"), "holds a swap area"),
            (&adopt, Holds::Other("a swap area"), "holds a swap area"),
            (&adopt, Holds::Blank, "is blank"),
        ] {
            let problems = decide(site, &with(holds)).expect_err("refused");
            assert!(problems[0].message.contains(part), "{problems:?}");
            assert_eq!(
                (problems[0].line, problems[0].key.as_str()),
                (5, "disk.data")
            );
        }
    }

    #[test]
    fn xfs_is_refused_where_the_image_cannot_make_it() {
        let site = site("[disk.data]\nfs = \"xfs\"\n");
        let problems = decide(&site, &with(Holds::Blank)).expect_err("no mkfs.xfs");
        assert_eq!(
            (
                problems[0].key.as_str(),
                problems[0].line,
                problems[0].message.as_str()
            ),
            (
                "disk.data.fs",
                6,
                "this appliance cannot make file systems of xfs"
            )
        );
        assert!(problems[0].remedy.contains("choose another `fs`"));
        let mut machine = with(Holds::Blank);
        machine.has.insert(Feature::MakeXfs);
        assert!(decide(&site, &machine).is_ok());
    }

    #[test]
    fn a_disk_that_moved_is_known_by_its_data() {
        let ours = || Holds::Files(DiskFileSystem::Ext4, own_uuid("t", "data"));
        let refused = |text: &str| -> Vec<(String, u32, String, String)> {
            let problems = decide(&site(text), &with(ours())).err().unwrap_or_default();
            let of = |it: Problem| (it.key, it.line, it.message, it.remedy);
            problems.into_iter().map(of).collect()
        };
        // It was the second one, and the first is gone.
        assert_eq!(refused("[disk.data]\nmatch = { slot = 2 }\n"), []);
        assert_eq!(refused("[disk.data]\nmatch = { serial = \"S\" }\n"), []);
        // There is nothing to go by for one that never was here.
        let other = refused("[disk.other]\nmatch = { slot = 2 }\n");
        assert_eq!(other[0].2, "the machine has no such disk");
        for (text, key, message, remedy) in [
            (
                "match = { serial = \"T\" }",
                "disk.data.match",
                "this system's data is on vdb, serial number S, and another disk is named",
                "write match = { serial = \"S\" }; to begin without the data, detach vdb",
            ),
            (
                "fs = \"xfs\"",
                "disk.data.fs",
                "vdb has this system's data in a file system of ext4, which is not made anew",
                "write fs = \"ext4\"; to begin without the data, attach a blank disk instead",
            ),
            (
                "match = { slot = 2 }\nmin_size = \"2 GiB\"",
                "disk.data.min_size",
                "the disk vdb with this system's data has 1024 MiB, and 2048 are needed",
                "make the disk larger, or lower min_size",
            ),
        ] {
            let text = format!("[disk.data]\n{text}\n");
            let line = 5 + u32::try_from(text.trim_end().lines().count() - 1).expect("short");
            let wanted = (key.to_owned(), line, message.to_owned(), remedy.to_owned());
            assert_eq!(refused(&text), [wanted]);
        }
        // One that was adopted is known, too, unless another one is named.
        let stranger = |name: &str, id: &str| Found {
            fact: DiskFact {
                name: name.into(),
                serial: name.to_uppercase(),
                size: 1 << 30,
            },
            holds: Holds::Files(DiskFileSystem::Ext4, own_uuid(id, "data")),
        };
        let mut two = with(Holds::Blank);
        two.disks = Some(vec![stranger("vdb", "new"), stranger("vdc", "known")]);
        two.known_disks = [("data".to_owned(), own_uuid("known", "data"))].into();
        for (matches, id) in [
            ("", "known"),
            ("match = { slot = 1 }\n", "known"),
            ("match = { serial = \"VDC\" }\n", "known"),
            ("match = { serial = \"VDB\" }\n", "new"),
        ] {
            let text = format!("[disk.data]\nuse = \"adopt\"\n{matches}");
            let items = decide(&site(&text), &two).expect("decided");
            let found = items.iter().find_map(|item| match item {
                Item::DataDisk(disk) => Some(disk.uuid.clone()),
                _ => None,
            });
            assert_eq!(found, Some(own_uuid(id, "data")), "{matches}");
        }
        // A stranger's file system is adopted as what it is, or not at all.
        let xfs = with(Holds::Files(DiskFileSystem::Xfs, own_uuid("x", "data")));
        let site = site("[disk.data]\nuse = \"adopt\"\n");
        let problems = decide(&site, &xfs).expect_err("another file system");
        assert_eq!(problems[0].message, "vdb has a file system of xfs");
        assert_eq!(problems[0].remedy, "write fs = \"xfs\"");
    }
}
