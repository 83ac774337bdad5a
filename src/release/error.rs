//! What can go wrong with a release.

use std::io;
use std::path::PathBuf;

use super::verify::Doubt;
use crate::exec::ExecError;
use crate::layer::source::deb::SignatureProblem;
use crate::sign::SignError;
use crate::units::ExitClass;

/// Why a release could not be made, or is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// A file name that a list of sums cannot hold.
    #[error("the file name `{}` cannot stand in a list of sums", name.escape_debug())]
    FileName {
        /// The name.
        name: String,
    },
    /// A file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not the text of a manifest.
    #[error("`{}` is no release manifest: line {line} should be {expected}", path.display())]
    NotAManifest {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// Not the text of a state file.
    #[error("`{}` is no list of verified releases", path.display())]
    State {
        /// The file.
        path: PathBuf,
    },
    /// A signature could not be made.
    #[error("cannot sign the release")]
    Sign {
        /// Why.
        source: SignError,
    },
    /// The manifest does not name this key.
    #[error("the manifest does not name {fingerprint} among its signers")]
    NotASigner {
        /// The key.
        fingerprint: String,
    },
    /// A signature does not hold.
    #[error("the signature `{}` does not hold", name.escape_debug())]
    Signature {
        /// Its file.
        name: String,
        /// Why not.
        source: SignError,
    },
    /// A signature is missing that the manifest names.
    #[error("the {container} signature of {fingerprint} is missing")]
    Unsigned {
        /// The key.
        fingerprint: String,
        /// The form of the signature.
        container: &'static str,
    },
    /// gpg knows no secret key by a name, or several.
    #[error("gpg has {} secret keys called `{}`{}", fingerprints.len(), name.escape_debug(), listed(fingerprints))]
    SeveralGpgKeys {
        /// What was asked for.
        name: String,
        /// The fingerprints of those that it has.
        fingerprints: Vec<String>,
    },
    /// `SOURCE_DATE_EPOCH` is no number.
    #[error("`SOURCE_DATE_EPOCH` is `{}`, which is no number of seconds since 1970", value.escape_debug())]
    SourceDate {
        /// What it is.
        value: String,
    },
    /// Not one OpenPGP certificate.
    #[error("`{}` is no OpenPGP certificate that is meant here: {}", path.display(), crate::exec::escape(problem))]
    Certificate {
        /// The file, or gpg's name of the key.
        path: PathBuf,
        /// One clause.
        problem: String,
    },
    /// An OpenPGP signature does not hold.
    #[error("the signature `{}` does not hold: {problem}", name.escape_debug())]
    OpenPgp {
        /// Its file.
        name: String,
        /// Why not.
        problem: SignatureProblem,
    },
    /// An OpenPGP signature that is sound in itself does not hold by the copy
    /// of the certificate that is trusted.
    #[error("the signature `{}` does not hold by the trusted certificate: {problem}", name.escape_debug())]
    OpenPgpTrusted {
        /// Its file.
        name: String,
        /// Why not.
        problem: SignatureProblem,
    },
    /// Statements about vulnerabilities that say nothing sound.
    #[error("`{}`: {}", path.display(), crate::exec::escape(problem.trim_end()))]
    Vex {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// A statement about a package that the bill does not have.
    #[error("`{}`: no package `{}` is in the appliance", path.display(), package.escape_debug())]
    VexPackage {
        /// The file.
        path: PathBuf,
        /// What it names.
        package: String,
        /// What it may have meant.
        near: Option<String>,
    },
    /// A certificate of another key.
    #[error("the certificate `{}` is not about the key `{}`", certificate.display(), key.display())]
    OtherCertificate {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A program that signs is missing, or does not.
    #[error("cannot sign with the key of another program")]
    Exec {
        /// Why not.
        #[from]
        source: ExecError,
    },
    /// The image could not be read back.
    #[error("cannot read back the image `{}`", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: Box<crate::inspect::InspectError>,
    },
    /// What should be a copy of the disk is no disk that can be read.
    #[error("`{}` is no disk that can be verified", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<crate::inspect::InspectError>,
    },
    /// Something speaks against it.
    #[error("`{}` is refused: {}", path.display(), joined(doubts))]
    Refused {
        /// The folder or file.
        path: PathBuf,
        /// Everything that was found.
        doubts: Vec<Doubt>,
    },
}

/// Behind a number of keys, which ones.
fn listed(fingerprints: &[String]) -> String {
    match fingerprints {
        [] => String::new(),
        several => format!(": {}", several.join(", ")),
    }
}

/// The first few in words, the rest as a number.
fn joined(doubts: &[Doubt]) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<String> = doubts.iter().take(SHOWN).map(ToString::to_string).collect();
    if doubts.len() > SHOWN {
        text.push(format!("and {} more", doubts.len() - SHOWN));
    }
    text.join("; ")
}

impl ReleaseError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::FileName { .. } => "release-file-name",
            Self::Write { .. } => "release-write",
            Self::Read { .. } => "release-read",
            Self::NotAManifest { .. } => "release-not-a-manifest",
            Self::State { .. } => "release-state",
            Self::Sign { source } => source.slug(),
            Self::NotASigner { .. } => "release-not-a-signer",
            Self::Signature { .. } => "release-signature",
            Self::Unsigned { .. } => "release-unsigned",
            Self::SeveralGpgKeys { .. } => "release-gpg-key",
            Self::SourceDate { .. } => "release-source-date",
            Self::Certificate { .. } => "release-openpgp-certificate",
            Self::OpenPgp { .. } => "release-openpgp-signature",
            Self::OpenPgpTrusted { .. } => "release-openpgp-trusted",
            Self::OtherCertificate { .. } => "release-other-certificate",
            Self::Vex { .. } => "release-vex",
            Self::VexPackage { .. } => "release-vex-package",
            Self::Exec { source } => source.slug(),
            Self::Image { .. } => "release-image",
            Self::Copy { .. } => "release-copy",
            Self::Refused { .. } => "release-refused",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::FileName { .. } => {
                Some("name the appliance with letters, digits, `_`, `.` and `-`".into())
            }
            Self::Write { .. } | Self::Read { .. } | Self::Image { .. } => None,
            Self::Sign { source } => source.hint(),
            Self::OtherCertificate { .. } => {
                Some("give the certificate that was issued for this key, as PEM".into())
            }
            Self::Exec { source } => source.hint(),
            Self::Vex { .. } => Some(
                "write `[[statement]]` with `vulnerability`, `status` and, unless it is about the \
                 whole appliance, `package`"
                    .into(),
            ),
            Self::VexPackage {
                near: Some(near), ..
            } => Some(format!("did you mean `{near}`?")),
            Self::VexPackage { .. } => {
                Some("leave the statement out: `consign plan` lists the packages".into())
            }
            Self::SeveralGpgKeys { .. } => {
                Some("name one by its fingerprint, as `gpg --list-secret-keys` shows it".into())
            }
            Self::SourceDate { .. } => Some(
                "set it as `date +%s` prints it, or unset it to sign with the time of now".into(),
            ),
            Self::OpenPgpTrusted { .. } => Some(
                "take the vendor's current certificate from where this one was first taken, and \
                 verify again; do not use the files before"
                    .into(),
            ),
            Self::Certificate { .. } => {
                Some("export it with `gpg --export FINGERPRINT`, one key a file".into())
            }
            Self::NotASigner { .. } => {
                Some("make the release with `--signer KEY.pub` (with `--gpg-key` or an OpenPGP certificate \
                 for gpg), or sign with a named key".into())
            }
            Self::State { .. } => Some(
                "restore it from a backup; without it an older release cannot be told".into(),
            ),
            Self::NotAManifest { .. }
            | Self::Signature { .. }
            | Self::OpenPgp { .. }
            | Self::Unsigned { .. }
            | Self::Copy { .. }
            | Self::Refused { .. } => Some(
                "do not use these files; fetch the whole release again, and ask its vendor if it stays so"
                    .into(),
            ),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::FileName { .. } | Self::Write { .. } | Self::Image { .. } => ExitClass::Build,
            Self::Sign { source } => source.class(),
            Self::NotASigner { .. }
            | Self::State { .. }
            | Self::SeveralGpgKeys { .. }
            | Self::SourceDate { .. }
            | Self::Vex { .. }
            | Self::VexPackage { .. }
            | Self::OtherCertificate { .. } => ExitClass::Usage,
            Self::Exec { source } => source.class(),
            // What cannot be read is not verified.
            _ => ExitClass::Verification,
        }
    }
}
