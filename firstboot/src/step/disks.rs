//! Data disks: their file systems, where they are mounted, and who waits for
//! that.

use std::fmt::Write as _;

use consign_schema::{Disk, DiskFileSystem, DiskUse, Facts, Problem, SiteConfig};

use super::{Feature, Machine, UNITS, drop_in};
use crate::data_disk::{DataDisk, Found, Holds, find, own_uuid};
use crate::item::Item;
use crate::systemd::READY_TARGET;

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
    let is_ours = |found: &&Found| matches!(&found.holds, Holds::Files(_, uuid) if *uuid == own);
    if disks.iter().any(|found| is_ours(&found)) {
        return Ok(Some(own));
    }
    let Some(found) = find(disks, &disk.matches) else {
        return Ok(None);
    };
    let name = &found.fact.name;
    match (&found.holds, disk.usage) {
        (Holds::Files(fs, uuid), DiskUse::Adopt) if *fs == disk.fs => Ok(Some(uuid.clone())),
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
    use consign_schema::DiskFact;

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
}
