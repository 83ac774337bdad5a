//! Copies of a released disk in other containers, ours and qemu-img's, whole
//! and damaged: verified by the disk inside, and the damage has a name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use consign::digest::Digest;
use consign::release::assemble::{Facts, assemble};
use consign::release::image;
use consign::report::Silent;

use super::{inventory, keygen, refusal, signer};
use crate::formats::inspect::a_whole_disk;
use crate::support::{TestFolder, consign, must_run, program, temp_folder, text_of};

struct Released {
    root: TestFolder,
    raw: PathBuf,
    release: PathBuf,
    public: PathBuf,
}

impl Released {
    /// A signed release of a small disk, as qcow2.
    fn new() -> Option<Self> {
        let root = temp_folder();
        let raw = a_whole_disk(root.path())?;
        let release = root.path().join("release");
        fs::create_dir(&release).expect("a folder");
        let image = release.join("wiki.qcow2");
        convert(&raw, "qcow2", &image);
        let key = root.path().join("vendor");
        let public = keygen(&key);
        let nothing = BTreeMap::new();
        let found = image::facts(&image, &nothing, &nothing).expect("facts");
        let facts = Facts {
            lock: Digest::of(b"lock"),
            expires: None,
            openpgp: None,
            signers: vec![signer(&public)],
            disk: found.disk,
            partitions: found.partitions,
        };
        assemble(&release, &inventory(), &facts, &Silent).expect("assembled");
        must_run(consign().arg("sign").arg(&release).arg("--key").arg(&key));
        Some(Self {
            root,
            raw,
            release,
            public,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn accepted(&self, copy: &Path) -> String {
        let mut verify = consign();
        verify
            .arg("verify")
            .arg(copy)
            .arg("--key")
            .arg(&self.public);
        text_of(&must_run(verify.arg("--release").arg(&self.release)))
    }

    fn refused(&self, copy: &Path) -> String {
        let (key, release) = ("--key".as_ref(), "--release".as_ref());
        refusal(&[
            copy.as_os_str(),
            key,
            self.public.as_os_str(),
            release,
            self.release.as_os_str(),
        ])
    }

    /// The raw disk with other bytes at `offset`, as a vmdk.
    fn damaged(&self, name: &str, offset: u64, bytes: &[u8]) -> PathBuf {
        let raw = self.path(name);
        fs::copy(&self.raw, &raw).expect("copied");
        let file = fs::File::options().write(true).open(&raw);
        file.and_then(|file| file.write_all_at(bytes, offset))
            .expect("written");
        let vmdk = raw.with_extension("vmdk");
        convert(&raw, "vmdk", &vmdk);
        vmdk
    }
}

fn convert(from: &Path, format: &str, to: &Path) {
    let mut convert = consign();
    convert.arg("convert").arg(from).args(["-O", format]);
    must_run(convert.arg("-o").arg(to));
}

#[test]
fn the_disk_is_known_in_every_container() {
    let Some(released) = Released::new() else {
        return;
    };
    for format in ["raw", "raw.zst", "qcow2", "vmdk", "vhdx", "vhd"] {
        let copy = released.path(&format!("copy.{format}"));
        convert(&released.raw, format, &copy);
        let said = released.accepted(&copy);
        assert!(
            said.contains("the disk inside is that of wiki 1.0"),
            "{said}"
        );
    }
    for (format, options) in [
        ("vmdk", "subformat=streamOptimized"),
        ("vhdx", "subformat=dynamic"),
    ] {
        let Some(mut qemu) = program("qemu-img", "qemu-utils") else {
            return;
        };
        let copy = released.path(&format!("theirs.{format}"));
        qemu.args(["convert", "-f", "raw", "-O", format, "-o", options]);
        must_run(qemu.arg(&released.raw).arg(&copy));
        released.accepted(&copy);
    }
    // Zeros behind the end, as containers with a coarser unit add them.
    let longer = released.path("longer.raw");
    fs::copy(&released.raw, &longer).expect("copied");
    let file = fs::File::options().write(true).open(&longer).expect("open");
    file.set_len(41 << 20).expect("longer");
    released.accepted(&longer);
    file.write_all_at(b"x", (41 << 20) - 1).expect("written");
    let said = released.refused(&longer);
    assert!(
        said.contains("has 42991616 bytes instead of 41943040"),
        "{said}"
    );
}

#[test]
fn what_differs_has_a_partition_and_a_name() {
    let Some(released) = Released::new() else {
        return;
    };
    let disk = fs::read(&released.raw).expect("read");
    let find = |wanted: &[u8]| {
        let place = disk
            .windows(wanted.len())
            .position(|window| window == wanted);
        place.expect("in the disk") as u64
    };
    let content = find(&[7; 4096]) + 5000;
    let said = released.refused(&released.damaged("content.raw", content, &[8]));
    for word in [
        "partition root-a",
        "`/A long name with spaces.txt` (inode ",
        "): content",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("partition bios"), "{said}");

    let free = find(b"EFI PART") + (1 << 20);
    let said = released.refused(&released.damaged("bios.raw", free, b"x"));
    assert!(said.contains("partition bios: byte "), "{said}");
    assert!(said.contains("which belongs to no file"), "{said}");

    let gap = (30 << 20) + 17;
    let said = released.refused(&released.damaged("gap.raw", gap, b"x"));
    assert!(said.contains("something between the partitions"), "{said}");

    let raw = released.path("mode.raw");
    let volume = released.path("mode.ext4");
    fs::copy(released.path("volume.ext4"), &volume).expect("copied");
    let Some(mut debugfs) = program("debugfs", "e2fsprogs") else {
        return;
    };
    debugfs.args(["-w", "-R", "sif /etc/hostname mode 0100600"]);
    must_run(debugfs.arg(&volume));
    let mut other = disk.clone();
    let volume = fs::read(&volume).expect("read");
    other[2 << 20..][..volume.len()].copy_from_slice(&volume);
    fs::write(&raw, other).expect("written");
    let said = released.refused(&raw);
    assert!(said.contains("`/etc/hostname` (inode "), "{said}");
    assert!(said.contains("): mode"), "{said}");

    // Without a sound image there is no name, and the verdict is the same.
    fs::write(released.release.join("wiki.qcow2"), "gone").expect("written");
    let said = released.refused(&raw);
    assert!(
        said.contains("cannot be told without a sound image"),
        "{said}"
    );
    assert!(said.contains("partition root-a"), "{said}");
}

#[test]
fn what_is_no_copy_is_refused() {
    let Some(released) = Released::new() else {
        return;
    };
    let short = released.path("short.raw");
    fs::write(&short, &fs::read(&released.raw).expect("read")[..1 << 20]).expect("written");
    let said = released.refused(&short);
    assert!(said.contains("has 1048576 bytes instead of"), "{said}");
    let torn = released.path("torn.qcow2");
    let whole = fs::read(released.release.join("wiki.qcow2")).expect("read");
    fs::write(&torn, &whole[..whole.len() / 2]).expect("written");
    assert!(!released.refused(&torn).contains("panicked"));
    let other = keygen(&released.path("other"));
    let said = refusal(&[
        released.raw.as_os_str(),
        "--key".as_ref(),
        other.as_os_str(),
        "--release".as_ref(),
        released.release.as_os_str(),
    ]);
    assert!(said.contains("0 of 1 trusted signatures"), "{said}");
}
