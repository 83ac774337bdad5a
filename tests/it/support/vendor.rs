//! A vendor's package repository, made and signed by Debian's own tools.

use std::path::{Path, PathBuf};

use super::{TestFolder, must_run, program, temp_folder};

/// A repository in a folder that a web server may serve.
pub(crate) struct VendorRepository {
    folder: TestFolder,
}

impl VendorRepository {
    /// An empty one with a fresh key. `None`, said loudly, without the tools.
    pub(crate) fn new() -> Option<Self> {
        program("apt-ftparchive", "apt-utils")?;
        program("dpkg-scanpackages", "dpkg-dev")?;
        program("dpkg-deb", "dpkg")?;
        let repository = Self {
            folder: temp_folder(),
        };
        let home = repository.folder.path().join("gnupg");
        let mode = rustix::fs::Mode::from_raw_mode(0o700);
        rustix::fs::mkdir(&home, mode).expect("a folder");
        must_run(repository.gpg()?.args([
            "--quick-generate-key",
            "Vendor <vendor@example.com>",
            "ed25519",
            "sign",
            "never",
        ]));
        std::fs::create_dir_all(repository.root().join("pool")).expect("a folder");
        Some(repository)
    }

    /// What a web server serves.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("www")
    }

    fn gpg(&self) -> Option<std::process::Command> {
        let mut gpg = program("gpg", "gnupg")?;
        gpg.args([
            "--batch",
            "--yes",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ]);
        gpg.env("GNUPGHOME", self.folder.path().join("gnupg"));
        Some(gpg)
    }

    /// Writes the public key, as a vendor would hand it out.
    pub(crate) fn write_key(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let mut gpg = self.gpg().expect("it was there before");
        must_run(gpg.args(["--armor", "--output"]).arg(path).arg("--export"));
    }

    /// Adds a package to the pool.
    pub(crate) fn add(&self, name: &str, version: &str, depends: &str) -> PathBuf {
        build_package(&self.root().join("pool"), name, version, depends)
    }

    /// Signs the list beside it instead of within.
    pub(crate) fn sign_detached(&self) {
        let suite = self.root().join("dists/stable");
        std::fs::remove_file(suite.join("InRelease")).expect("it was published");
        let mut gpg = self.gpg().expect("it was there before");
        must_run(
            gpg.args(["--armor", "--detach-sign", "--output"])
                .arg(suite.join("Release.gpg"))
                .arg(suite.join("Release")),
        );
    }

    /// Writes and signs the list of a folder without suites and components.
    pub(crate) fn publish_flat(&self) {
        let folder = self.root().join("pool");
        let mut scan = program("dpkg-scanpackages", "dpkg-dev").expect("it was there before");
        let packages = must_run(scan.args(["--multiversion", "."]).current_dir(&folder));
        std::fs::write(folder.join("Packages"), packages.stdout).expect("a file");
        let mut release = program("apt-ftparchive", "apt-utils").expect("it was there before");
        let text = must_run(release.args(["release", "."]).current_dir(&folder)).stdout;
        std::fs::write(folder.join("Release"), text).expect("a file");
        let mut gpg = self.gpg().expect("it was there before");
        must_run(
            gpg.args(["--clearsign", "--output"])
                .arg(folder.join("InRelease"))
                .arg(folder.join("Release")),
        );
    }

    /// Writes and signs the lists. Their date is old, so that an appliance's
    /// source date is not theirs.
    pub(crate) fn publish(&self) {
        let lists = self.root().join("dists/stable/main/binary-amd64");
        std::fs::create_dir_all(&lists).expect("folders");
        let mut scan = program("dpkg-scanpackages", "dpkg-dev").expect("it was there before");
        let packages = must_run(
            scan.args(["--multiversion", "pool"])
                .current_dir(self.root()),
        );
        std::fs::write(lists.join("Packages"), packages.stdout).expect("a file");
        let suite = self.root().join("dists/stable");
        let mut release = program("apt-ftparchive", "apt-utils").expect("it was there before");
        for (name, value) in [
            ("Origin", "Vendor"),
            ("Suite", "stable"),
            ("Codename", "stable"),
            ("Components", "main"),
            ("Architectures", "amd64"),
        ] {
            release.arg("-o");
            release.arg(format!("APT::FTPArchive::Release::{name}={value}"));
        }
        let text = must_run(release.args(["release", "."]).current_dir(&suite)).stdout;
        let text = String::from_utf8(text).expect("it is text");
        let date = text
            .lines()
            .find(|line| line.starts_with("Date: "))
            .expect("a date");
        let text = text.replace(date, "Date: Sat, 01 Jan 2022 00:00:00 UTC");
        std::fs::write(suite.join("Release"), text).expect("a file");
        let mut gpg = self.gpg().expect("it was there before");
        must_run(
            gpg.args(["--clearsign", "--output"])
                .arg(suite.join("InRelease"))
                .arg(suite.join("Release")),
        );
    }
}

/// Builds a package that brings one file, with Debian's own dpkg-deb.
pub(crate) fn build_package(folder: &Path, name: &str, version: &str, depends: &str) -> PathBuf {
    let tree = temp_folder();
    let write = |path: &str, text: &str| {
        let path = tree.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, text).expect("a file");
    };
    let depends = match depends {
        "" => String::new(),
        some => format!("Depends: {some}\n"),
    };
    write(
        "DEBIAN/control",
        &format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Vendor \
             <vendor@example.com>\n{depends}Description: a test package\n"
        ),
    );
    write(&format!("opt/{name}/version"), &format!("{version}\n"));
    std::fs::create_dir_all(folder).expect("a folder");
    let path = folder.join(format!("{name}_{version}_amd64.deb"));
    let mut build = program("dpkg-deb", "dpkg").expect("it was there before");
    must_run(
        build
            .args(["--root-owner-group", "-Zgzip", "--build"])
            .arg(tree.path())
            .arg(&path),
    );
    path
}
