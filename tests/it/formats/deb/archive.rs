//! A small Debian archive in a folder, signed by a test key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use consign::digest::Digest;
use consign::layer::source::deb::{
    Access, Address, AptSettings, Base, Client, Expiry, Keys, LayerRequest, Network, Preference,
    Presence, Repository, Request, Resolution, SourceError, Trust, ValidTime, resolve,
};
use consign::report::{Event, Recorder};

use super::signer::{NOW, Signer, Style};
use crate::support::{TestFolder, temp_folder};

/// `Date` of the signed list: 2023-11-14.
pub(crate) const DATE: &str = "Tue, 14 Nov 2023 22:13:20 UTC";

/// An archive, its key and a cache to go with it.
pub(crate) struct TestArchive {
    folder: TestFolder,
    pub(crate) signer: Signer,
    packages: String,
    /// The list of sources, if there is one.
    pub(crate) sources: String,
    /// Fields of the signed list besides the files.
    pub(crate) head: BTreeMap<&'static str, String>,
    /// How the package list is packed: `.gz` or `.zst`.
    pub(crate) packing: &'static str,
}

impl TestArchive {
    /// An archive of one package, `hello`, that is signed and complete.
    pub(crate) fn new() -> Self {
        let head = [
            ("Suite", "oldstable".to_owned()),
            ("Codename", "bookworm".to_owned()),
            ("Date", DATE.to_owned()),
            ("Acquire-By-Hash", "yes".to_owned()),
        ];
        let mut archive = Self {
            folder: temp_folder(),
            signer: Signer::new(1),
            packages: String::new(),
            sources: String::new(),
            head: head.into(),
            packing: ".gz",
        };
        archive.add("hello", "1.0", b"hello, package");
        archive.publish();
        archive
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("archive").join(relative)
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn keyring_path(&self) -> PathBuf {
        self.folder.path().join("keyring.gpg")
    }

    /// Adds a package whose file has these bytes.
    pub(crate) fn add(&mut self, name: &str, version: &str, bytes: &[u8]) {
        let path = format!("pool/main/{name}_{version}_all.deb");
        self.write(&path, bytes);
        let (size, digest) = (bytes.len(), Digest::of(bytes).hex());
        write!(
            self.packages,
            "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: {path}\n\
             Size: {size}\nSHA256: {digest}\n\n"
        )
        .expect("memory");
    }

    /// Adds a package by a stanza written short: `NAME VERSION; Field: value; …`.
    pub(crate) fn add_short(&mut self, line: &str) {
        let (head, fields) = line.split_once(';').unwrap_or((line, ""));
        let (name, version) = head.split_once(' ').expect("a version");
        let digest = Digest::of(line.as_bytes()).hex();
        write!(
            self.packages,
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: none\n\
             Filename: pool/{name}_{version}.deb\nSize: 1\nSHA256: {digest}\n"
        )
        .expect("memory");
        for field in fields.split(';').map(str::trim).filter(|it| !it.is_empty()) {
            writeln!(self.packages, "{field}").expect("memory");
        }
        self.packages.push('\n');
    }

    fn write(&self, relative: &str, bytes: &[u8]) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("folders");
        std::fs::write(path, bytes).expect("a file");
    }

    pub(crate) fn read(&self, relative: &str) -> Vec<u8> {
        std::fs::read(self.path(relative)).expect("a file")
    }

    /// Writes the package lists and gives the text of the signed list.
    pub(crate) fn write_lists(&self) -> String {
        let plain = self.packages.as_bytes();
        let packed = if self.packing == ".zst" {
            zstd::encode_all(plain, 3).expect("memory")
        } else {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(plain).expect("memory");
            gzip.finish().expect("memory")
        };
        let folder = "main/binary-amd64";
        let packed_name = format!("Packages{}", self.packing);
        self.write(&format!("dists/bookworm/{folder}/{packed_name}"), &packed);
        let mut text = String::new();
        for (name, value) in &self.head {
            writeln!(text, "{name}: {value}").expect("memory");
        }
        text.push_str("SHA256:\n");
        for (name, bytes) in [("Packages", plain), (&packed_name, &packed)] {
            let digest = Digest::of(bytes).hex();
            writeln!(text, " {digest} {} {folder}/{name}", bytes.len()).expect("memory");
        }
        if !self.sources.is_empty() {
            let (path, bytes) = ("main/source/Sources", self.sources.as_bytes());
            self.write(&format!("dists/bookworm/{path}"), bytes);
            let digest = Digest::of(bytes).hex();
            writeln!(text, " {digest} {} {path}", bytes.len()).expect("memory");
        }
        text
    }

    /// Writes everything, signed.
    pub(crate) fn publish(&self) {
        let text = self.write_lists();
        self.publish_message(&self.signer.sign(&text, Style::default()));
    }

    /// Writes a signed list as it is, and the keyring.
    pub(crate) fn publish_message(&self, message: &str) {
        self.write("dists/bookworm/InRelease", message.as_bytes());
        std::fs::write(self.keyring_path(), self.signer.keyring()).expect("a keyring");
    }

    pub(crate) fn message(&self) -> String {
        String::from_utf8(self.read("dists/bookworm/InRelease")).expect("it is text")
    }

    pub(crate) fn repository(&self) -> Repository {
        self.repository_at(&format!("file:{}", self.path("").display()))
    }

    pub(crate) fn repository_at(&self, address: &str) -> Repository {
        Repository {
            label: "bookworm".into(),
            suite: "bookworm".into(),
            addresses: vec![Address::parse(address).expect("an address")],
            components: vec!["main".into()],
            keys: Keys {
                files: vec![self.keyring_path()],
                ..Keys::default()
            },
            trust: Trust::Signed,
            expiry: Expiry::Checked,
            valid_time: ValidTime::default(),
            presence: Presence::Required,
            preference: Preference::default(),
        }
    }

    /// Resolves `hello` from it.
    pub(crate) fn resolve(&self) -> Result<Resolution, SourceError> {
        resolve_from(&[self.repository()], &self.cache()).0
    }
}

pub(crate) fn hello() -> Request {
    Request {
        architecture: "amd64".into(),
        base: Base::Nothing,
        layers: vec![LayerRequest {
            name: "base".into(),
            packages: vec!["hello".into()],
            recommends: false,
        }],
        exclude: Vec::new(),
        provided: Vec::new(),
        limits: Vec::new(),
        held: Vec::new(),
    }
}

/// Resolves `hello`; gives the warnings too.
pub(crate) fn resolve_from(
    repositories: &[Repository],
    cache: &Path,
) -> (Result<Resolution, SourceError>, Vec<String>) {
    let client = Client::new(AptSettings::default(), Network::Online);
    let recorder = Recorder::default();
    let access = Access {
        client: &client,
        cache,
        now: NOW,
        reporter: &recorder,
    };
    let outcome = resolve(&hello(), repositories, &access);
    (outcome, warnings(&recorder))
}

pub(crate) fn warnings(recorder: &Recorder) -> Vec<String> {
    let message = |event| match event {
        Event::Warning { message, .. } => Some(message),
        _ => None,
    };
    recorder.events().into_iter().filter_map(message).collect()
}
