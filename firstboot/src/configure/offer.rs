//! A configuration that is offered to this machine, and whether it may be taken.
//!
//! The first one may be unsigned, unless the image pins the customer's keys:
//! whose signature it carries, or which keys it names, must sign the next. A
//! machine without keys takes another one only with the claim code, which
//! stands on its consoles.

use std::io;

use consign_schema::{Code, SignatureNeed, SiteConfig};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{Refused, judge_by, prepare};
use crate::digest::Digest;
use crate::facts;
use crate::generation::Generation;
use crate::image::{Vendor, VendorFault};
use crate::media::{Candidate, SITE_FILE};
use crate::root::{Access, Root};
use crate::secrets;
use crate::state::State;
use crate::status::{FileProblems, code};
use crate::step::Along;
use crate::trust::{self, Key, SignatureError};

/// The customer's keys that a factory built in, one a line.
const PINNED: &str = "/usr/lib/consign/customer.pub";
/// What somebody who sees the consoles can write onto a medium.
pub const CLAIM_FILE: &str = "claim.txt";
/// The code, from when it was first needed until it is used.
const CLAIM: &str = "/var/lib/consign/claim";
/// Letters and digits that cannot be mistaken for others.
const CLAIM_LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const CLAIM_LENGTH: usize = 12;
const SIGNATURES: [&str; 2] = ["site.toml.sig", "site.toml.minisig"];
const SECRETS: &str = "secrets.age";

/// Whether somebody vouches for an offer at the machine itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody does.
    None,
    /// With this code.
    Code(String),
}

/// Whose word an offer is, by its bytes alone.
enum Proof<'m> {
    /// It may be taken; these keys count, unless it names others.
    Given(Vec<Key>),
    /// minisign's signatures carry no key: the file has to name it.
    ByNamed(&'m [u8]),
}

/// A configuration with what came with it.
#[derive(Debug, Clone)]
pub struct Offer<'m> {
    /// How messages name the customer's file.
    pub file: String,
    /// Where it came from.
    pub device: &'m str,
    /// `site.toml`.
    pub site: &'m [u8],
    /// Its signature, in either form.
    pub signature: Option<&'m [u8]>,
    /// `secrets.age`.
    pub secrets: Option<&'m [u8]>,
    /// The licence, where it did not come on a medium.
    pub license: Option<&'m [u8]>,
    /// The claim code.
    pub claim: Claim,
    /// The medium, where it came on one.
    pub medium: Option<&'m Candidate>,
}

impl<'m> Offer<'m> {
    /// What a medium offers; nothing without a `site.toml`.
    pub fn of(candidate: &'m Candidate) -> Option<Self> {
        let file = |name: &str| candidate.files.get(name).map(Vec::as_slice);
        let claim = file(CLAIM_FILE).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        // What was used is written over: nobody claims with it.
        let claim = claim.filter(|text| !text.trim().is_empty() && !text.starts_with('#'));
        Some(Self {
            file: format!("{}: {SITE_FILE}", candidate.device),
            device: &candidate.device,
            site: file(SITE_FILE)?,
            signature: SIGNATURES.iter().find_map(|name| file(name)),
            secrets: file(SECRETS),
            license: None,
            claim: claim.map_or(Claim::None, Claim::Code),
            medium: Some(candidate),
        })
    }

    /// What it is known by.
    pub fn digest(&self) -> Digest {
        Digest::of(self.site)
    }

    /// Authenticates, checks and renders it as what follows `before`; nothing
    /// but a claim code is written.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn accept(
        &self,
        root: &Root,
        before: Option<(&State, &Generation)>,
    ) -> Result<Generation, Refused> {
        let vendor = Vendor::load(root).map_err(|fault| Refused::vendor(&fault))?;
        let known = before.map(|(_, before)| before);
        let proof = self.authenticate(root, vendor.policy.signature, known)?;
        let site = judge_by(&vendor, self.site, &self.file)?;
        facts::agree(&site, self.medium, &self.file)?;
        if let Some((state, before)) = before {
            self.follows(&site, state, before)?;
        }
        let keys = self.keys(&site, proof)?;
        let along = Along {
            license: self.license_of(&site).map(<[u8]>::to_vec),
            ..known.map_or_else(Along::default, Along::of)
        };
        let mut generation = prepare(root, self.site, &self.file, along)?;
        secrets::check(root, &generation.credentials, self.secrets).map_err(|missing| {
            let problem = |missing: &secrets::Missing| {
                site.problem(&missing.key, &missing.message, &missing.remedy)
            };
            let problems: Vec<_> = missing.iter().map(problem).collect();
            Refused::site(&self.file, &problems)
        })?;
        generation.keys = keys.iter().map(Key::line).collect();
        generation.secrets = self.secrets.map(<[u8]>::to_vec);
        Ok(generation)
    }

    /// The licence that the file names: on the medium, or given.
    fn license_of(&self, site: &SiteConfig) -> Option<&'m [u8]> {
        let file = &site.license.as_ref()?.file;
        let medium = self.medium.and_then(|medium| medium.files.get(file));
        medium.map(Vec::as_slice).or(self.license)
    }

    /// Whether it is for this system, and newer than all that it had.
    fn follows(
        &self,
        site: &SiteConfig,
        state: &State,
        before: &Generation,
    ) -> Result<(), Refused> {
        // One that is damaged may not say whose it was: then only a claim led here.
        if site.id.as_str() != before.id && !before.id.is_empty() {
            let message = format!(
                "the configuration is for another system than `{}`",
                before.id
            );
            let remedy = "attach the disk that was made for this system";
            let problem = site.problem_of(Code::Conflict, "config.id", &message, remedy);
            return Err(Refused::site(&self.file, &[problem]));
        }
        let floor = state.serial_floor.max(before.serial);
        if site.serial <= floor {
            let message = format!(
                "serial {} is not newer than {floor}, which this machine had",
                site.serial
            );
            let remedy = format!("write `serial = {}` or more", floor.saturating_add(1));
            let problem = site.problem_of(Code::OutOfRange, "config.serial", &message, &remedy);
            return Err(Refused::one(
                code::OLDER,
                "the configuration is older than the one in use",
                FileProblems::of(&self.file, &[problem]),
            ));
        }
        Ok(())
    }

    /// Whether somebody who may decide here vouches for it. Nothing of it is
    /// parsed before that is known, where it can be known.
    fn authenticate(
        &self,
        root: &Root,
        need: SignatureNeed,
        before: Option<&Generation>,
    ) -> Result<Proof<'m>, Refused> {
        let pinned = pinned(root)?;
        let enrolled = match before {
            Some(before) if !before.keys.is_empty() => {
                let keys = before.keys.iter();
                keys.filter_map(|line| Key::parse(line)).collect()
            }
            _ => pinned,
        };
        if is_claimed(root, &self.claim) {
            return Ok(Proof::Given(enrolled));
        }
        // Of one that is damaged nobody may know whose keys counted.
        let is_lost = before.is_some_and(|before| before.id.is_empty());
        let is_free = enrolled.is_empty() || is_lost;
        let Some(signature) = self.signature else {
            if before.is_none() && is_free && need == SignatureNeed::Later {
                return Ok(Proof::Given(Vec::new()));
            }
            return Err(self.unsigned(root, is_free, before.is_none()));
        };
        if !is_free {
            trust::verify(self.site, signature, trust::SITE, &enrolled)
                .map_err(|error| self.not_signed(error))?;
            return Ok(Proof::Given(enrolled));
        }
        if before.is_some() {
            // Anybody can sign with a key of their own.
            return Err(self.unsigned(root, true, false));
        }
        match trust::verify_carried(self.site, signature, trust::SITE) {
            Ok(signer) => Ok(Proof::Given(vec![signer])),
            Err(SignatureError::UnknownKey) => Ok(Proof::ByNamed(signature)),
            Err(error) => Err(self.not_signed(error)),
        }
    }

    /// The keys that count from then on.
    fn keys(&self, site: &SiteConfig, proof: Proof<'_>) -> Result<Vec<Key>, Refused> {
        let named = site.keys.iter().filter_map(|line| Key::parse(line));
        let named: Vec<Key> = named.collect();
        let keys = match proof {
            Proof::Given(keys) => keys,
            Proof::ByNamed(signature) => {
                let signer = trust::verify(self.site, signature, trust::SITE, &named)
                    .map_err(|error| self.not_signed(error))?;
                vec![signer]
            }
        };
        Ok(if named.is_empty() { keys } else { named })
    }

    fn unsigned(&self, root: &Root, is_free: bool, is_first: bool) -> Refused {
        // Whoever reads the code sees the consoles; it is never in a message.
        let has_code = claim_code(root).is_ok();
        let (summary, message, remedy) = if self.claim != Claim::None {
            (
                "the claim code is wrong",
                "the claim code is not the one that the console shows",
                "read it from the console again; every code is good for one configuration",
            )
        } else if is_free && !is_first {
            let summary = "the configuration needs the claim code";
            let message = "the machine is configured already and knows no key of its owner, so no signature counts";
            let remedy = "put the claim code that the console shows into claim.txt on the disk, or say `appliance apply FILE --claim`";
            (summary, message, remedy)
        } else {
            let message = if is_free {
                "the vendor of the image asks for a signature"
            } else {
                "the configuration is not signed by a key of this appliance's owner"
            };
            let remedy = if has_code {
                "sign it with `consign config disk --sign`, or put the claim code that the console shows into claim.txt on the disk"
            } else {
                "sign it with `consign config disk --sign`"
            };
            ("the configuration is not signed", message, remedy)
        };
        Refused::one(
            code::SIGNATURE,
            summary,
            FileProblems::whole(&self.file, "signature", message, remedy),
        )
    }

    fn not_signed(&self, error: SignatureError) -> Refused {
        let remedy = match error {
            // As `trust::SITE` says.
            SignatureError::Purpose => {
                "sign it with `ssh-keygen -Y sign -n consign-config -f KEY site.toml`"
            }
            _ => "sign this very file again with the owner's key",
        };
        Refused::one(
            code::SIGNATURE,
            "the signature of the configuration does not count",
            FileProblems::whole(&self.file, "signature", &error.to_string(), remedy),
        )
    }
}

fn pinned(root: &Root) -> Result<Vec<Key>, Refused> {
    let bad = || {
        Refused::vendor(&VendorFault {
            file: PINNED.to_owned(),
            problems: Vec::new(),
        })
    };
    let text = root.read_text(PINNED, trust::MAX_SIGNATURE);
    Key::parse_all(&text.map_err(|_| bad())?).ok_or_else(bad)
}

/// The claim code, made when it is first needed.
///
/// # Errors
///
/// What the system reports.
pub fn claim_code(root: &Root) -> io::Result<String> {
    let kept = root.read_text(CLAIM, 64)?;
    if kept.trim().len() == CLAIM_LENGTH {
        return Ok(kept.trim().to_owned());
    }
    let mut chance = [0; CLAIM_LENGTH];
    let filled = getrandom(&mut chance, GetRandomFlags::empty())?;
    if filled != CLAIM_LENGTH {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let letter = |byte: &u8| char::from(CLAIM_LETTERS[usize::from(byte % 32)]);
    let code: String = chance.iter().map(letter).collect();
    root.put(CLAIM, format!("{code}\n").as_bytes(), Access::own(0o600))?;
    Ok(code)
}

/// Whether a code is wanted, for the consoles.
pub fn wanted_claim(root: &Root) -> Option<String> {
    let text = root.read_text(CLAIM, 64).ok()?;
    let text = text.trim();
    (text.len() == CLAIM_LENGTH).then(|| text.to_owned())
}

/// The code has been used, or is not needed any more.
pub fn spend_claim(root: &Root) {
    if let Err(error) = root.remove(CLAIM) {
        complain!("cannot remove the claim code: {error}");
    }
}

fn is_claimed(root: &Root, claim: &Claim) -> bool {
    let Claim::Code(code) = claim else {
        return false;
    };
    let given: String = code
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect();
    wanted_claim(root).is_some_and(|wanted| {
        // Every letter is compared, so that time says nothing.
        let differ = given
            .bytes()
            .zip(wanted.bytes())
            .fold(0, |differ, (one, two)| differ | (one ^ two));
        given.len() == wanted.len() && differ == 0
    })
}
