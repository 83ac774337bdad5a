//! What can go wrong with keys and signatures.

use std::io;
use std::path::PathBuf;

use crate::units::ExitClass;

/// Why a key cannot be used, or a signature not be made or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The file of a key or a signature could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A new key could not be written.
    #[error("cannot write the key `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A new key would replace another one.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner can read a secret key.
    #[error("the secret key `{}` can be read by others: its mode is {mode:04o}", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key in any form that is known here.
    #[error("`{}` is no Ed25519 {kind} key", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// `public` or `secret`.
        kind: &'static str,
    },
    /// A secret key behind a passphrase.
    #[error("the secret key `{}` is behind a passphrase", path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// A public key was given to sign with, and there is no agent.
    #[error("`{}` is a public key, and no SSH agent runs that could sign with it", path.display())]
    NoAgent {
        /// The file.
        path: PathBuf,
    },
    /// The agent could not be talked to.
    #[error("cannot talk to the SSH agent at `{}`", path.display())]
    Agent {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent does not have the key, or its owner said no.
    #[error("the SSH agent does not sign with {fingerprint}")]
    AgentRefuses {
        /// The key.
        fingerprint: String,
    },
    /// The 64 bytes of a signature do not say whose they are.
    #[error("64 bytes do not say whose signature they are")]
    WhoseRaw,
    /// Not a signature of the kind.
    #[error("this is no {kind} signature: {problem}")]
    Malformed {
        /// `SSHSIG`, `minisign` or `raw`.
        kind: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A signature for something else.
    #[error("the signature is for `{}`, not for `{expected}`", found.escape_debug())]
    Namespace {
        /// What it should be for.
        expected: &'static str,
        /// What it says.
        found: String,
    },
    /// Signed by another key.
    #[error("the signature is by {found}, not by a key that is trusted here")]
    OtherKey {
        /// Fingerprint of the key in the signature.
        found: String,
    },
    /// The signature does not fit the message.
    #[error("the {kind} signature by {key} does not fit what it signs")]
    Wrong {
        /// `SSHSIG`, `minisign` or `raw`.
        kind: &'static str,
        /// Fingerprint of the key.
        key: String,
    },
}

impl SignError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Read { .. } => "key-read",
            Self::Write { .. } => "key-write",
            Self::Exists { .. } => "key-exists",
            Self::OpenToOthers { .. } => "key-open-to-others",
            Self::NotAKey { .. } => "key-unknown-form",
            Self::Passphrase { .. } => "key-passphrase",
            Self::NoAgent { .. } => "agent-missing",
            Self::Agent { .. } => "agent-unreachable",
            Self::AgentRefuses { .. } => "agent-refuses",
            Self::WhoseRaw => "signature-whose",
            Self::Malformed { .. } => "signature-malformed",
            Self::Namespace { .. } => "signature-other-purpose",
            Self::OtherKey { .. } => "signature-other-key",
            Self::Wrong { .. } => "signature-wrong",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { .. } | Self::Write { .. } => return None,
            Self::Exists { .. } => {
                "choose another name: a key that is lost cannot be made again".into()
            }
            Self::OpenToOthers { path, .. } => format!("run `chmod 600 {}`", path.display()),
            Self::NotAKey { kind: "public", .. } => {
                "give a line `ssh-ed25519 …`, a minisign public key or a PEM public key".into()
            }
            Self::NotAKey { .. } => {
                "make one with `consign keygen -o KEY`, or `ssh-keygen -t ed25519 -f KEY`".into()
            }
            Self::Passphrase { path } => format!(
                "run `ssh-add {0}`, then give `{0}.pub`: the SSH agent signs",
                path.display()
            ),
            Self::NoAgent { .. } => {
                "give the secret key, or start `ssh-agent` and add the key with `ssh-add`".into()
            }
            Self::Agent { .. } => "start `ssh-agent`, and set SSH_AUTH_SOCK as it says".into(),
            Self::AgentRefuses { .. } => "look whether `ssh-add -l` lists the key".into(),
            Self::WhoseRaw => "give the public key of the token too: `--key KEY.pub`".into(),
            Self::Malformed { .. } | Self::Namespace { .. } | Self::Wrong { .. } => {
                "do not use these files; fetch them again from where they came".into()
            }
            Self::OtherKey { .. } => {
                "compare the fingerprint with the one that reached you by another way".into()
            }
        })
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Malformed { .. }
            | Self::Namespace { .. }
            | Self::OtherKey { .. }
            | Self::Wrong { .. } => ExitClass::Verification,
            Self::Write { .. } | Self::Agent { .. } | Self::AgentRefuses { .. } => ExitClass::Build,
            _ => ExitClass::Usage,
        }
    }
}
