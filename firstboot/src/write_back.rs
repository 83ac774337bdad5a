//! What goes back onto the customer's medium: a request that says what secrets
//! are to be encrypted to, a report, a bundle for support; and secrets that
//! have been taken are wiped from it.
//!
//! Only onto a medium that this machine waits for or was configured from. A
//! stranger's gets nothing, since a report says a lot about a machine.

use std::io;

use crate::command::support_bundle;
use crate::configure::judge;
use crate::digest::Digest;
use crate::generation::Generation;
use crate::image::Image;
use crate::inventory;
use crate::media::{self, Candidate, Found, Put, Roots, SITE_FILE, put_slot};
use crate::root::{Access, Root};
use crate::secrets;
use crate::state::{Phase, State};
use crate::status::{Standing, Status};
use crate::step::host_key;
use crate::text::quoted;

/// Disks that are looked at again in the end, one a line.
const DISKS: &str = "/run/consign/media";
/// Every disk that a configuration was read from, one a line.
const CONFIG_DISKS: &str = "/run/consign/config-disks";
/// What stands where something was that the machine has taken.
pub const TAKEN: &str = "# Taken by the appliance, and erased from this medium.\n";
/// What is wiped.
const SPENT: [&str; 2] = [SECRETS, "claim.txt"];
const SECRETS: &str = "secrets.age";

/// The disks that the confined reader found a configuration on: no data disks,
/// whatever their tables and labels look like.
///
/// # Errors
///
/// What the system reports.
pub fn config_disks(root: &Root) -> io::Result<Vec<String>> {
    let text = root.read_text(CONFIG_DISKS, 4096)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Takes note of config media, and of those that something may be written to.
pub fn note(root: &Root, found: &Found) {
    put_list(root, CONFIG_DISKS, found.candidates.iter());
    // One that cannot be written counts too, where secrets stay on it.
    let concerns = |candidate: &&Candidate| {
        let mut spent = SPENT.iter();
        !candidate.slots.is_empty() || spent.any(|name| candidate.files.contains_key(*name))
    };
    let disks = found.candidates.iter().filter(concerns);
    put_list(root, DISKS, disks);
}

fn put_list<'c>(root: &Root, path: &str, media: impl Iterator<Item = &'c Candidate>) {
    // What came by another way than a disk has none.
    let disks = media.map(|candidate| candidate.disk.as_str());
    let text: String = disks
        .filter(|disk| !disk.is_empty())
        .flat_map(|disk| [disk, "\n"])
        .collect();
    let noted = if text.is_empty() {
        root.remove(path)
    } else {
        root.put(path, text.as_bytes(), Access::own(0o644))
    };
    if let Err(error) = noted {
        complain!("cannot write {path}: {error}");
    }
}

/// Writes onto the media that were noted; what people should know of it.
pub fn write_back(root: &Root, roots: &Roots, status: &Status) -> Vec<String> {
    let text = root.read_text(DISKS, 4096).unwrap_or_default();
    let mut notes = Vec::new();
    for disk in text.lines() {
        for candidate in media::look_at(roots, disk) {
            if let Some(plan) = Plan::of(root, &candidate) {
                plan.carry_out(root, roots, &candidate, status, &mut notes);
            }
        }
    }
    notes
}

/// What a medium gets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    /// The machine waits for its configuration.
    is_waiting: bool,
    /// The report is wanted.
    has_report: bool,
    /// The configuration on it is in use and stays.
    is_taken: bool,
    /// The `secrets.age` that is in use.
    secrets: Option<Vec<u8>>,
}

impl Plan {
    /// Nothing for media that are not this machine's.
    fn of(root: &Root, candidate: &Candidate) -> Option<Self> {
        let Some(state) = State::load(root).ok()? else {
            return Some(Self {
                is_waiting: true,
                has_report: true,
                is_taken: false,
                secrets: None,
            });
        };
        let generation = Generation::load(root, &state).ok()?;
        let site = candidate.files.get(SITE_FILE)?;
        if Digest::of(site) != generation.digest() {
            return None;
        }
        let has_report = judge(root, site, SITE_FILE).map_or(true, |(site, _)| site.report.write);
        Some(Self {
            is_waiting: false,
            has_report,
            is_taken: state.phase == Phase::Active,
            secrets: generation.secrets,
        })
    }

    fn carry_out(
        self,
        root: &Root,
        roots: &Roots,
        candidate: &Candidate,
        status: &Status,
        notes: &mut Vec<String>,
    ) {
        let device = &candidate.device;
        let put = |name: &str, bytes: &[u8], fill, notes: &mut Vec<String>| {
            let put = put_slot(roots, candidate, name, bytes, fill);
            if let Err(error) = &put {
                let reason = match error.kind() {
                    io::ErrorKind::FileTooLarge => "it is longer than the file there".to_owned(),
                    _ => error.to_string(),
                };
                notes.push(format!("{device}: {name} is not written: {reason}"));
            }
            put.ok()
        };
        // A configured machine asks as well: its next configuration may have
        // secrets that the first one did without.
        if let Some(request) = request(root) {
            put("request.toml", request.as_bytes(), b'\n', notes);
        }
        if self.has_report {
            let report = inventory::report(root, status);
            put("report.json", report.as_bytes(), b'\n', notes);
        }
        // A machine that works has nothing to ask support for.
        let is_well =
            status.standing == Standing::Ready || (status.files.is_empty() && self.is_waiting);
        if !is_well && candidate.slots.contains_key("support.tar") {
            put("support.tar", &support_bundle(root), 0, notes);
        }
        if !self.is_taken {
            return;
        }
        for name in SPENT {
            let Some(found) = candidate.files.get(name) else {
                continue;
            };
            // A claim code is shorter than the words.
            let taken = TAKEN.as_bytes();
            let taken = taken.get(..found.len()).unwrap_or(taken);
            if found.starts_with(taken) {
                continue;
            }
            if name == SECRETS && self.secrets.as_ref() != Some(found) {
                notes.push(format!(
                    "{device}: {name} is not the one in use; raise the serial of {SITE_FILE}"
                ));
                continue;
            }
            match put(name, taken, b'\n', notes) {
                Some(Put::Written) => {
                    notes.push(format!("{device}: {name} is taken, and erased there"));
                }
                Some(Put::NoRoom) => notes.push(format!(
                    "{device}: {name} cannot be erased; detach the medium, and destroy it"
                )),
                Some(Put::Same) | None => {}
            }
        }
    }
}

/// `request.toml`: who is asking for secrets, and what to encrypt them to.
fn request(root: &Root) -> Option<String> {
    let recipient = secrets::recipient(root)?;
    let image = Image::load(root);
    let host_key = host_key::fingerprint(root).unwrap_or_default();
    Some(format!(
        "# What this appliance asks for. Secrets for it: `consign config disk SITE\n\
         # --secrets FILE --encrypt request.toml`, or `age -r RECIPIENT`. Compare\n\
         # the host key with the one on the console.\n\
         schema = 1\nkind = \"consign-request\"\nrecipient = {}\nhost_key = {}\n\
         image = {}\nversion = {}\nbuild = {}\n",
        quoted(&recipient),
        quoted(&host_key),
        quoted(&image.name),
        quoted(&image.version),
        quoted(&image.build),
    ))
}

#[cfg(test)]
#[path = "write_back_tests.rs"]
mod tests;
