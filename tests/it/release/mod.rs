//! Releases, judged by the tools that a customer has.

mod bills;
mod copy;
mod odd_names;
mod openpgp;
mod signatures;
mod tamper;
mod token;
mod vex;

use std::fs;
use std::path::{Path, PathBuf};

use consign::digest::{ContentRoot, DiffId, Digest, derive_guid};
use consign::layer::source::deb::Certificate;
use consign::layer::spec::PackagePin;
use consign::release::assemble::{Facts, assemble};
use consign::release::manifest::{Container, DiskLine, PartitionLine, SignerLine};
use consign::release::sbom::{FileFacts, Inventory, LayerFacts, Owner};
use consign::report::Silent;
use consign::sign::PublicKey;
use consign::units::{ByteSize, Timestamp};

use crate::support::{consign, must_run, run, text_of};

/// What is in the sample's image.
pub(crate) fn inventory() -> Inventory {
    let pin = |name: &str, version: &str| PackagePin {
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
        suite: "bookworm".into(),
        path: format!("pool/main/{name}_{version}_amd64.deb"),
        size: 1234,
        sha256: Digest::of(name.as_bytes()),
        source: name.into(),
        reason: "requested".into(),
    };
    let file = |path: &str, owner: Owner| FileFacts {
        path: path.into(),
        sha1: "da39a3ee5e6b4b0d3255bfef95601890afd80709".into(),
        sha256: Digest::of(path.as_bytes()),
        owner,
    };
    Inventory {
        name: "wiki".into(),
        version: "1.0".into(),
        date: Timestamp::from_seconds(1_764_115_200),
        suite: "bookworm".into(),
        builder: "0.1.0".into(),
        agent: Digest::of(b"agent"),
        serial: derive_guid(&Digest::of(b"wiki"), "sbom"),
        layers: vec![
            LayerFacts {
                name: "base".into(),
                diff_id: DiffId(Digest::of(b"base")),
                packages: vec![
                    pin("libstdc++6", "12.2.0-14+deb12u1"),
                    pin("nginx", "1:1.22.1-9+deb12u3"),
                ],
            },
            LayerFacts {
                name: "app".into(),
                diff_id: DiffId(Digest::of(b"app")),
                packages: Vec::new(),
            },
        ],
        files: vec![
            file("/usr/bin/consign-firstboot", Owner::Builder),
            file("/usr/sbin/nginx", Owner::Package("nginx".into())),
            file("/usr/share/wiki/ö.css", Owner::Layer("app".into())),
        ],
    }
}

/// A signed release and its key.
#[derive(Debug)]
pub(super) struct Sample {
    _root: crate::support::TestFolder,
    pub(super) folder: PathBuf,
    pub(super) key: PathBuf,
    pub(super) public: PathBuf,
}

/// Makes a key with `consign keygen`.
pub(crate) fn keygen(path: &Path) -> PathBuf {
    must_run(consign().args(["keygen", "-o"]).arg(path));
    path.with_added_extension("pub")
}

/// The signer's line for the key whose public half is `path`.
pub(crate) fn signer(path: &Path) -> SignerLine {
    SignerLine {
        fingerprint: PublicKey::open(path).expect("a public key").fingerprint(),
        containers: Container::ALL.to_vec(),
    }
}

/// A release of a few small files with the manifest of version `version`, not
/// signed yet.
pub(super) fn write_release(folder: &Path, version: &str, signers: Vec<SignerLine>) {
    write_release_for(folder, version, signers, None, None);
}

/// The same, for an OpenPGP key too, and not to be believed from `expires` on.
pub(super) fn write_release_for(
    folder: &Path,
    version: &str,
    signers: Vec<SignerLine>,
    openpgp: Option<&Certificate>,
    expires: Option<i64>,
) {
    fs::create_dir_all(folder).expect("a folder");
    if let Some(certificate) = openpgp {
        consign::release::openpgp::write(certificate, folder).expect("written");
    }
    let disk: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(folder.join("wiki.qcow2"), &disk).expect("written");
    fs::write(folder.join("appliance.xml"), "<image/>\n").expect("written");
    let facts = Facts {
        lock: Digest::of(b"lock"),
        expires,
        openpgp: openpgp.map(Certificate::fingerprint),
        signers,
        disk: DiskLine {
            size: ByteSize::from_mib(64),
            root: ContentRoot(Digest::of(&disk)),
        },
        partitions: vec![PartitionLine {
            number: 1,
            name: "root-a".into(),
            offset: ByteSize::from_mib(1),
            size: ByteSize::from_mib(62),
            root: ContentRoot(Digest::of(b"root")),
        }],
    };
    let mut inventory = inventory();
    inventory.version = version.into();
    assemble(folder, &inventory, &facts, &Silent).expect("assembled");
}

pub(super) fn sample() -> Sample {
    let root = crate::support::temp_folder();
    let (folder, key) = (root.path().join("release"), root.path().join("vendor"));
    let public = keygen(&key);
    write_release(&folder, "1.0", vec![signer(&public)]);
    must_run(consign().arg("sign").arg(&folder).arg("--key").arg(&key));
    Sample {
        _root: root,
        folder,
        key,
        public,
    }
}

/// `consign verify`, refused: what it said.
pub(super) fn refusal(args: &[&std::ffi::OsStr]) -> String {
    let output = run(consign().arg("verify").args(args));
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    text
}
