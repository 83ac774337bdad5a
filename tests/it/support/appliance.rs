//! The reference appliance, built once for all tests, and its config disks.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests call foreign programs and take a folder from the environment"
)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use consign::machine::{Disk, Format, Writes};

use super::{consign, must_run, program, repo_root};

/// Where the ESP starts in the disk, as mtools writes it after the file name.
const ESP_OFFSET: &str = "2M";

/// The files of the built appliance.
#[derive(Debug)]
pub(crate) struct Appliance {
    folder: PathBuf,
}

/// Builds the reference appliance into `target/test-image`, once. A build
/// with nothing to do is over at once, so nothing is decided here.
/// `CONSIGN_TEST_IMAGE` names the output folder of a build to test instead.
pub(crate) fn appliance() -> &'static Appliance {
    static BUILT: OnceLock<Appliance> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(folder) = std::env::var_os("CONSIGN_TEST_IMAGE") {
            return Appliance {
                folder: folder.into(),
            };
        }
        let folder = repo_root().join("target/test-image");
        let mut build = consign();
        build
            .args(["build", "-o"])
            .arg(&folder)
            .current_dir(repo_root());
        must_run(&mut build);
        Appliance { folder }
    })
}

impl Appliance {
    /// A file of the output folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        assert!(path.is_file(), "the build left no {name}");
        path
    }

    /// The qcow2 image as a disk that stays as it is.
    pub(crate) fn disk(&self) -> Disk {
        Disk {
            path: self.file("reference.qcow2"),
            format: Format::Qcow2,
            writes: Writes::Discarded,
        }
    }

    /// A private copy of the raw disk, whose writes are kept.
    pub(crate) fn copy(&self, folder: &Path) -> Disk {
        let path = folder.join("disk.raw");
        let mut copy = program("cp", "coreutils").expect("coreutils are everywhere");
        must_run(
            copy.args(["--sparse=always", "--reflink=auto"])
                .arg(self.file("reference.raw"))
                .arg(&path),
        );
        Disk {
            path,
            format: Format::Raw,
            writes: Writes::Kept,
        }
    }
}

/// Where the partition `name` of a raw disk begins, in bytes. `None`, said
/// loudly, without sfdisk.
pub(crate) fn partition_start(disk: &Disk, name: &str) -> Option<u64> {
    let output = must_run(program("sfdisk", "fdisk")?.arg("-J").arg(&disk.path));
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let partitions = table["partitiontable"]["partitions"].as_array();
    let mut partitions = partitions.expect("a list").iter();
    let found = partitions.find(|part| part["name"] == name);
    let start = found.and_then(|part| part["start"].as_u64());
    Some(start.expect("such a partition") * 512)
}

/// Lets debugfs do `commands`, which write, in a partition of a raw disk.
/// `None`, said loudly, without it.
pub(crate) fn debugfs_in(disk: &Disk, start: u64, folder: &Path, commands: &str) -> Option<()> {
    let mut debugfs = program("debugfs", "e2fsprogs")?;
    let script = folder.join("commands");
    std::fs::write(&script, commands).expect("written");
    debugfs.arg("-w").arg("-f").arg(&script);
    must_run(debugfs.arg(format!("{}?offset={start}", disk.path.display())));
    Some(())
}

/// debugfs's commands for files of the root: path, text, mode; in folders that
/// are there, in places where nothing is.
pub(crate) fn commands_for(folder: &Path, files: &[(String, String, u32)]) -> String {
    let mut commands = String::new();
    for (at, (name, text, mode)) in files.iter().enumerate() {
        let path = folder.join(format!("file-{at}"));
        std::fs::write(&path, text).expect("written");
        let (parent, name) = name.rsplit_once('/').expect("a path");
        // `write` puts a file into debugfs's own folder only.
        writeln!(
            commands,
            "cd /{parent}\nwrite {} {name}\nset_inode_field {name} mode 0100{mode:o}",
            path.display()
        )
        .expect("a string takes all");
    }
    commands
}

/// The ESP of a raw disk, changed through mtools: another implementation of
/// FAT than ours.
#[derive(Debug)]
pub(crate) struct Esp {
    image: String,
}

impl Esp {
    /// The ESP of `disk`.
    pub(crate) fn of(disk: &Disk) -> Self {
        assert_eq!(disk.format, Format::Raw, "mtools read raw disks only");
        Self {
            image: format!("{}@@{ESP_OFFSET}", disk.path.display()),
        }
    }

    /// Reads a file. `None`, said loudly, without mtools.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let output = must_run(self.mtool("mcopy")?.arg(format!("::{name}")).arg("-"));
        Some(output.stdout)
    }

    /// Writes a file over what is there. `None`, said loudly, without mtools.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Option<()> {
        let folder = super::temp_folder();
        let source = folder.path().join("content");
        std::fs::write(&source, content).expect("a temporary file");
        let mut mcopy = self.mtool("mcopy")?;
        must_run(
            mcopy
                .args(["-n", "-o"])
                .arg(&source)
                .arg(format!("::{name}")),
        );
        Some(())
    }

    /// Makes a folder. `None`, said loudly, without mtools.
    pub(crate) fn make_folder(&self, name: &str) -> Option<()> {
        must_run(self.mtool("mmd")?.arg(format!("::{name}")));
        Some(())
    }

    fn mtool(&self, name: &str) -> Option<std::process::Command> {
        let mut mtool = program(name, "mtools")?;
        // Our geometry is of no interest to it.
        mtool.env("MTOOLS_SKIP_CHECK", "1");
        mtool.arg("-i").arg(OsStr::new(&self.image));
        Some(mtool)
    }
}

/// The title in [`site`]; it has to survive HTML and nginx.
pub(crate) const TITLE: &str = "Tools & <More>";

/// The port in [`site`].
pub(crate) const PORT: u16 = 80;

/// How the guest gets its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// From QEMU's DHCP server.
    Dhcp,
    /// The one that QEMU forwards ports to.
    Fixed,
}

/// A site configuration that lets `public_key` in as root.
pub(crate) fn site(hostname: &str, public_key: &str, address: Address) -> String {
    let address = match address {
        Address::Dhcp => "dhcp4 = true",
        Address::Fixed => "address = [\"10.0.2.15/24\"]\ngateway = [\"10.0.2.2\"]",
    };
    format!(
        r#"schema = 1

[config]
id = "test"
serial = 1

[system]
hostname = "{hostname}"
timezone = "Europe/Zurich"

[[nic]]
match = {{ name = "e*" }}
{address}

[user.root]
ssh_keys = ["{public_key}"]

[role]
name = "web"

[app]
title = "{TITLE}"
listen_port = {PORT}
"#
    )
}

/// A config disk with `site` on it, made by consign in `folder`.
pub(crate) fn config_disk(folder: &Path, site: &str) -> Disk {
    let file = folder.join("site.toml");
    std::fs::write(&file, site).expect("a temporary file");
    let path = folder.join("site.img");
    must_run(
        consign()
            .args(["config", "disk"])
            .arg(&file)
            .arg("-o")
            .arg(&path),
    );
    Disk {
        path,
        format: Format::Raw,
        writes: Writes::Discarded,
    }
}

/// A disk with `site` on it that consign refuses to make: mkfs and mtools do.
/// `None`, said loudly, without them.
pub(crate) fn foreign_config_disk(folder: &Path, site: &str) -> Option<Disk> {
    let file = folder.join("site.toml");
    std::fs::write(&file, site).expect("a temporary file");
    let path = folder.join("foreign.img");
    std::fs::File::create(&path)
        .and_then(|image| image.set_len(8 << 20))
        .expect("a temporary image");
    must_run(
        program("mkfs.vfat", "dosfstools")?
            .args(["-n", "VACONFIG"])
            .arg(&path),
    );
    must_run(
        program("mcopy", "mtools")?
            .arg("-i")
            .arg(&path)
            .arg(&file)
            .arg("::site.toml"),
    );
    Some(Disk {
        path,
        format: Format::Raw,
        writes: Writes::Discarded,
    })
}
