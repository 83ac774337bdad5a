//! What each part of a configuration makes of the system.
//!
//! In: a checked [`SiteConfig`] and the facts of this [`Machine`]. Out:
//! [`Item`]s, in the order in which they are put in place, or every problem
//! that only the machine could see. The modules of settings decide and write
//! nothing; [`host_key`], [`machine_id`] and [`grow`] act on the machine and
//! need no configuration.

pub mod authorities;
pub mod clock;
pub mod credentials;
pub mod disks;
pub mod grow;
pub mod host_key;
pub mod identity;
pub mod language;
pub mod license;
pub mod machine_id;
pub mod name;
pub mod network;
pub mod people;
pub mod proxy;
pub mod role;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use consign_schema::{MAX_SIZE, Problem, Role, SiteConfig};

use crate::data_disk::{self, Found};
use crate::generation::Generation;
use crate::image::{self, Image, Vendor};
use crate::item::Item;
use crate::root::Root;
use crate::systemd::Program;
use network::Interfaces;

/// Facts of the machine that the decisions need, looked up before.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The image.
    pub image: Image,
    /// The role that was chosen, and its templates by file name.
    pub role: Option<(Role, BTreeMap<String, String>)>,
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
    /// Numbers that accounts have, or had before, by name.
    pub known_ids: BTreeMap<String, u32>,
    /// The disks that are not the system's; nothing where that is not known.
    pub disks: Option<Vec<Found>>,
    /// Identifiers of file systems that data disks had before, by their names.
    pub known_disks: BTreeMap<String, String>,
    /// Folders of the root that are links, and where they lead.
    pub links: BTreeMap<String, String>,
    /// The licence that came with the configuration.
    pub license: Option<Vec<u8>>,
    /// Where the vendor wants it.
    pub license_place: Option<String>,
    /// The shell of people.
    pub shell: String,
    /// The network interfaces.
    pub interfaces: Interfaces,
    /// What the image has of what was asked for.
    pub has: BTreeSet<Feature>,
}

/// What a configuration may need of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// The time zone that is asked for.
    Zone,
    /// The locale that is asked for.
    Locale,
    /// sudo.
    Sudo,
    /// systemd-timesyncd.
    Timesyncd,
    /// systemd-resolved.
    Resolved,
    /// chrony.
    Chrony,
    /// Keyboard tables.
    Keymaps,
    /// Where authorities are kept.
    Authorities,
    /// mkfs.ext4.
    MakeExt4,
    /// mkfs.xfs.
    MakeXfs,
}

/// What comes with a customer's file, or came with it once.
#[derive(Debug, Clone, Default)]
pub struct Along {
    /// Numbers that accounts had before, by name.
    pub known_ids: BTreeMap<String, u32>,
    /// Identifiers of the file systems that data disks had before, by name.
    pub known_disks: BTreeMap<String, String>,
    /// The licence.
    pub license: Option<Vec<u8>>,
}

impl Along {
    /// What came along with the configuration that counts.
    pub fn of(before: &Generation) -> Self {
        Self {
            known_ids: before.account_ids(),
            known_disks: before.disk_ids(),
            license: before.license.clone(),
        }
    }
}

impl Machine {
    /// Looks up what `site` needs to know.
    ///
    /// # Errors
    ///
    /// When a file of the image cannot be read.
    pub fn look(root: &Root, site: &SiteConfig, vendor: &Vendor, along: Along) -> io::Result<Self> {
        let role = vendor
            .roles
            .iter()
            .find(|role| Some(&role.name) == site.role.as_ref());
        let role = match role {
            Some(role) => Some((role.clone(), image::templates(root, role)?)),
            None => None,
        };
        let features = [
            (
                Feature::Zone,
                clock::has_zone(root, site.system.timezone.as_ref()),
            ),
            (
                Feature::Locale,
                language::has_locale(root, site.system.locale.as_ref()),
            ),
            (Feature::Sudo, root.exists("/usr/bin/sudo")),
            (Feature::Chrony, root.exists(clock::CHRONYD)),
            (Feature::Keymaps, root.exists("/usr/bin/loadkeys")),
            (
                Feature::Authorities,
                root.exists("/etc/ssl/certs/ca-certificates.crt"),
            ),
            (Feature::MakeExt4, root.exists(Program::MakeExt4.path())),
            (Feature::MakeXfs, root.exists(Program::MakeXfs.path())),
            (Feature::Timesyncd, root.exists(clock::TIMESYNCD_PROGRAM)),
            (
                Feature::Resolved,
                root.exists("/usr/lib/systemd/systemd-resolved"),
            ),
        ];
        let features = features.into_iter().filter(|(_, is_there)| *is_there);
        let (mut disks, mut links) = (None, BTreeMap::new());
        if !site.disks.is_empty() {
            data_disk::wait_for_all(root);
            disks = data_disk::look(root)?;
            for place in ["/data", "/mnt", "/opt", "/srv"] {
                if let Some(target) = root.read_link(place)? {
                    let target = format!("/{}", target.trim_start_matches('/'));
                    links.insert(place.to_owned(), target);
                }
            }
        }
        let mut known_ids = along.known_ids;
        if !site.users.is_empty() {
            known_ids = people::with_homes(root, known_ids)?;
        }
        let shells = ["/bin/bash", "/bin/sh"];
        let shell = shells.iter().find(|shell| root.exists(shell));
        Ok(Self {
            image: Image::load(root),
            role,
            passwd: root.read_text("/etc/passwd", 4 * MAX_SIZE)?,
            group: root.read_text("/etc/group", 4 * MAX_SIZE)?,
            known_ids,
            known_disks: along.known_disks,
            disks,
            links,
            license: along.license,
            license_place: vendor.policy.license.clone(),
            shell: (*shell.unwrap_or(&"/bin/sh")).to_owned(),
            interfaces: Interfaces::look(root),
            has: features.map(|(feature, _)| feature).collect(),
        })
    }
}

impl Machine {
    /// A place below the root without links on the way.
    pub fn canonical(&self, place: &str) -> String {
        let link = self.links.iter().find_map(|(link, target)| {
            let rest = place.strip_prefix(link.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{target}{rest}"))
        });
        link.unwrap_or_else(|| place.to_owned())
    }

    /// Units of the role.
    pub fn services(&self) -> impl Iterator<Item = &String> {
        self.role.iter().flat_map(|(role, _)| &role.services)
    }
}

/// Something for a unit that is made at every start; the service manager
/// reads its units again afterwards.
fn drop_in(unit: &str, what: &str, text: &str) -> Item {
    Item::text(
        format!("{UNITS}/{unit}.d/50-consign-{what}.conf"),
        0o644,
        text,
    )
}

/// Where drop-ins are made.
pub const UNITS: &str = "/run/systemd/system";

/// Decides everything, or says everything that is in the way.
///
/// # Errors
///
/// The problems, in the order of the file.
pub fn render(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let mut items = identity::decide(site);
    items.extend(name::decide(site));
    items.extend(proxy::decide(site, machine));
    let mut problems = Vec::new();
    for decide in [
        credentials::decide,
        network::decide,
        clock::decide,
        language::decide,
        authorities::decide,
        people::decide,
        disks::decide,
        license::decide,
        role::decide,
    ] {
        match decide(site, machine) {
            Ok(more) => items.extend(more),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        Problem::sort(&mut problems);
        return Err(problems);
    }
    Ok(items)
}

#[cfg(test)]
pub mod testing {
    //! Site configurations for the tests of the steps.

    use consign_schema::{Policy, Role, SiteConfig, check};

    use super::network::Interfaces;
    use super::{Feature, Machine};
    use crate::item::Item;

    pub const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    /// The head that every file needs, and then `text`.
    pub fn site(text: &str) -> SiteConfig {
        site_with(text, &[])
    }

    pub fn site_with(text: &str, roles: &[Role]) -> SiteConfig {
        let text = format!("schema = 1\n[config]\nid = \"t\"\nserial = 1\n{text}");
        check(&text, roles, &Policy::default()).expect("a good configuration")
    }

    /// A machine that has everything.
    pub fn machine() -> Machine {
        Machine {
            shell: "/bin/bash".into(),
            interfaces: Interfaces {
                pci: vec!["0000:00:03.0".into(), "0000:01:00.0".into()],
                others: 0,
            },
            has: [
                Feature::Zone,
                Feature::Locale,
                Feature::Sudo,
                Feature::Timesyncd,
            ]
            .into(),
            ..Machine::default()
        }
    }

    /// One with a role that has a service.
    pub fn machine_with_role() -> Machine {
        let text =
            "schema = 1\nname = \"web\"\ndescription = \"x\"\nservices = [\"nginx.service\"]\n";
        Machine {
            role: Some((Role::parse(text).expect("a role"), [].into())),
            ..machine()
        }
    }

    /// The text of the file at `path` among `items`.
    pub fn text_of<'i>(items: &'i [Item], path: &str) -> Option<&'i str> {
        items.iter().find_map(|item| match item {
            Item::File {
                path: found, bytes, ..
            } if found == path => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    pub fn paths(items: &[Item]) -> Vec<&str> {
        items.iter().map(Item::place).collect()
    }
}
