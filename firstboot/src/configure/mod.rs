//! From what is attached and what is kept to a configured machine, or to the
//! reason why it waits.
//!
//! ```text
//! find -> authenticate -> check -> render -> stage -> commit -> activate
//!      -> (the system starts) -> confirm, or back
//! ```
//!
//! Any failure before the commit changes nothing; after it, the generation is
//! put in place again until that is done. A machine that was configured once
//! goes on with what it has, whatever is attached: what is attached is taken
//! only when it is signed, newer and right, and stays only when it works.

mod bundles;
#[cfg(test)]
mod fence_tests;
mod first;
mod later;
mod listen;
mod offer;
mod reach;
mod reset;
#[cfg(test)]
mod tests;
mod trial;
pub mod tried;
#[cfg(test)]
mod trust_tests;

use std::io::ErrorKind;

use consign_schema::{Code, Problem, SiteConfig, check, decode};

pub use first::{take, take_offer};
pub use later::{Failed, Outcome, apply, go_on, roll_back};
pub use listen::{may_be_kept_later, offered, present};
pub use offer::{Claim, Offer, spend_claim, wanted_claim};
pub use reset::{begin_reset, finish_reset};
pub use trial::{Verdict, confirm, growing_disks, take_back, verdict};

use crate::digest::Digest;
use crate::facts;
use crate::generation::Generation;
use crate::image::{Vendor, VendorFault};
use crate::root::Root;
use crate::secrets;
use crate::state::State;
use crate::status::{FileProblems, Standing, Status, code};
use crate::step::{self, Along, Machine, host_key, machine_id};
use crate::trust::Key;

/// What does not depend on a configuration: identity. What fails is noted and
/// stops nothing, so that somebody can still look.
pub fn settle(root: &Root) -> Vec<String> {
    let mut notes = Vec::new();
    if let Err(error) = host_key::settle(root) {
        notes.push(format!("the SSH host key cannot be made: {error}"));
    }
    if let Err(error) = secrets::settle(root) {
        notes.push(format!("the identity for secrets cannot be made: {error}"));
    }
    if let Some(fault) = machine_id::fault(root) {
        notes.push(fault.to_owned());
    }
    notes
}

/// Why a configuration is not taken.
#[derive(Debug)]
pub struct Refused {
    code: u8,
    summary: &'static str,
    /// What is wrong, by file.
    pub files: Vec<FileProblems>,
}

impl Refused {
    fn status(self) -> Status {
        let standing = if self.code == code::INTERNAL {
            Standing::Fenced
        } else {
            Standing::Waiting
        };
        Status {
            files: self.files,
            ..Status::new(standing, self.code, self.summary)
        }
    }

    /// With the digest of the customer's file, so that people can tell which
    /// one it is.
    pub fn about(mut self, digest: Digest) -> Self {
        if let Some(file) = self.files.first_mut() {
            file.digest = digest.short();
        }
        self
    }

    /// On a machine that has another configuration, which stays in use.
    pub fn kept(mut self) -> Self {
        if self.code == code::APPLY_FAILED {
            self.code = code::APPLY_KEPT;
        }
        self
    }

    /// The exit code that says what kind of refusal it is.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// One line for people.
    pub fn summary(&self) -> &str {
        self.summary
    }

    /// A customer's file with these problems.
    pub fn site(file: &str, problems: &[Problem]) -> Self {
        let only_policy = problems
            .iter()
            .all(|problem| problem.code == Code::NotAllowed);
        Self {
            code: if only_policy {
                code::POLICY
            } else {
                code::INVALID
            },
            summary: if only_policy {
                "the configuration sets what this appliance does not allow"
            } else {
                "the configuration is wrong"
            },
            files: vec![FileProblems::of(file, problems)],
        }
    }

    fn one(code: u8, summary: &'static str, problem: FileProblems) -> Self {
        Self {
            code,
            summary,
            files: vec![problem],
        }
    }

    fn vendor(fault: &VendorFault) -> Self {
        let mut files = vec![FileProblems::of(&fault.file, &fault.problems)];
        if fault.problems.is_empty() {
            let remedy = "ask the vendor of the appliance";
            files = vec![FileProblems::whole(
                &fault.file,
                "unavailable",
                "it cannot be read",
                remedy,
            )];
        }
        Self {
            code: code::INTERNAL,
            summary: "the appliance itself is faulty",
            files,
        }
    }
}

/// Judges a customer's file against this image: nothing is rendered, nothing
/// looked up on the machine.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn judge(root: &Root, bytes: &[u8], file: &str) -> Result<(SiteConfig, Vendor), Refused> {
    let vendor = Vendor::load(root).map_err(|fault| Refused::vendor(&fault))?;
    let site = judge_by(&vendor, bytes, file)?;
    Ok((site, vendor))
}

/// As [`judge`], with what the image says of itself looked up before.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn judge_by(vendor: &Vendor, bytes: &[u8], file: &str) -> Result<SiteConfig, Refused> {
    decode(bytes)
        .and_then(|text| check(text, &vendor.roles, &vendor.policy))
        .map_err(|problems| Refused::site(file, &problems))
}

/// Judges a customer's file for this machine as far as anybody can without its
/// medium: who signed it and what came before it are not asked.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn examine(root: &Root, bytes: &[u8], file: &str) -> Result<SiteConfig, Refused> {
    let (site, _) = judge(root, bytes, file)?;
    facts::agree(&site, None, file)?;
    let state = State::load(root).ok().flatten();
    let before = state.and_then(|state| Generation::load(root, &state).ok());
    let mut along = before.map_or_else(Along::default, |before| Along::of(&before));
    if site.license.is_some() {
        // What is in it nobody judges.
        along.license.get_or_insert_default();
    }
    prepare(root, bytes, file, along)?;
    Ok(site)
}

/// A customer's file, checked and rendered for this machine; nothing is
/// written, and who signed it has not been asked.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn prepare(root: &Root, bytes: &[u8], file: &str, along: Along) -> Result<Generation, Refused> {
    let (site, vendor) = judge(root, bytes, file)?;
    let machine = Machine::look(root, &site, &vendor, along).map_err(|error| {
        // A file of the image that is missing, or no text, stays so. What cannot
        // be read now may be read later.
        if matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::InvalidData | ErrorKind::FileTooLarge
        ) {
            return Refused::vendor(&VendorFault {
                file: error.to_string(),
                problems: Vec::new(),
            });
        }
        let message = format!("the machine cannot be looked at: {error}");
        Refused::one(
            code::APPLY_FAILED,
            "it cannot be judged now",
            FileProblems::whole(file, "unavailable", &message, "it is tried again"),
        )
    })?;
    let rendered =
        step::render(&site, &machine).map_err(|problems| Refused::site(file, &problems))?;
    Ok(Generation {
        license: site.license.as_ref().and_then(|_| machine.license.clone()),
        site: bytes.to_vec(),
        id: site.id.to_string(),
        serial: site.serial,
        role: site.role.clone(),
        image: machine.image.build,
        items: rendered,
        credentials: secrets::wanted(&site),
        ..Generation::default()
    })
}

fn configured(root: &Root, generation: &Generation, state: &State) -> Status {
    let keys = generation.keys.iter().filter_map(|key| Key::parse(key));
    let owners: Vec<String> = keys.map(|key| key.fingerprint()).collect();
    let mut notes = Vec::new();
    if !owners.is_empty() {
        notes.push(format!(
            "configurations must be signed by {}",
            owners.join(" or ")
        ));
    }
    for name in secrets::to_enter(root, &generation.credentials) {
        notes.push(format!(
            "services wait for the secret `{name}`: log in and run `appliance secret {name}`"
        ));
    }
    Status {
        notes,
        id: generation.id.clone(),
        serial: generation.serial,
        config: generation.digest().short(),
        role: generation.role.clone().unwrap_or_default(),
        generation: state.generation.number,
        ..Status::new(
            Standing::Starting,
            code::NOT_YET,
            "configured; services are starting",
        )
    }
}

fn fenced(reason: String) -> Status {
    Status::new(Standing::Fenced, code::APPLY_FAILED, reason)
}

/// As [`fenced`], where another configuration is taken at once.
fn correctable(reason: String) -> Status {
    let note = "a corrected configuration with a higher serial is taken at once, without a restart";
    Status {
        notes: vec![note.to_owned()],
        ..fenced(reason)
    }
}
