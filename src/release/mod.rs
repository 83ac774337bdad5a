//! Releases: a folder that can be handed over, and how anyone verifies it.
//!
//! In: the files of a build, keys. Out: [`manifest`], signatures beside it,
//! verdicts. Never here: building, secrets in arguments or events, the clock.
//! Checked by: `sha256sum`, `ssh-keygen`, `minisign`, `openssl`, `gpgv`
//! (`tests/it/release`), and by a matrix of every file and every damage.
//!
//! | file | does |
//! |---|---|
//! | `manifest` | the one text that is signed |
//! | `image` | what a finished image says of itself |
//! | `signing` | signatures beside it, made and judged |
//! | `dsse` | the envelope around the provenance |
//! | `openpgp` | the signature by the vendor's OpenPGP key |
//! | `certificate` | the signature of an OVA's manifest by an X.509 key |
//! | `rotation` | a new key signed by the old one |
//! | `verify` | is a folder exactly a release? |
//! | `copy` | is a disk in another container the release's? |
//! | `state` | what was verified before |
//! | `sums` | `SHA256SUMS` |
//! | `sbom` | what is in the image, and what made it |
//! | `vex` | what is known about vulnerabilities |
//! | `provenance` | how it was made |
//! | `assemble` | the manifest of a folder |

pub mod assemble;
pub mod certificate;
pub mod copy;
mod dsse;
mod error;
pub mod image;
pub mod manifest;
pub mod openpgp;
mod provenance;
pub mod rotation;
pub mod sbom;
pub mod signing;
pub mod state;
pub mod sums;
pub mod verify;
pub mod vex;

pub use error::ReleaseError;
