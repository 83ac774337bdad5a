//! What happens to a volume at the customer's: it grows, and it is written to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Output;

use consign::tree::FileTree;
use consign::units::{GIB, MIB};

use crate::support::{
    Checker, TestFolder, is_root, must_run, note, program, run, temp_folder, text_of,
};

use super::readers::{assert_same, by_kernel, expected};
use super::trees::torture;
use super::{options, said_by, volume, write};

fn grow_file(image: &Path, size: u64) {
    let file = File::options().write(true).open(image).expect("open");
    file.set_len(size).expect("grow");
}

#[test]
fn resize2fs_grows_a_volume_offline() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(500), &options(600)),
        folder.path(),
        "offline.img",
    );
    // Past the first flexible group of 2 GiB, then far past the group table.
    for size in [5 * GIB, 40 * GIB] {
        grow_file(&image, size);
        if said_by("resize2fs", &[], &image).is_none() {
            return;
        }
        Checker::E2fsck.accepts(&image);
    }
}

/// Whether this process may resize a mounted file system: many containers
/// lack the capability even as root.
pub(super) fn may_resize() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let may = effective
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .is_some_and(|set| set & CAP_SYS_RESOURCE != 0);
    if !may {
        note("no growth while mounted: needs root with CAP_SYS_RESOURCE");
    }
    may
}

/// A volume mounted for writing through a loop device; root only.
pub(super) struct Mounted {
    image: PathBuf,
    folder: TestFolder,
    device: String,
}

impl Mounted {
    pub(super) fn new(image: &Path) -> Option<Self> {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !is_root() || !known.split_whitespace().any(|name| name == "ext4") {
            note("no kernel mount of ext4: needs root and kernel support");
            return None;
        }
        let mut losetup = program("losetup", "mount")?;
        losetup.args(["--find", "--show"]).arg(image);
        let output = must_run(&mut losetup);
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let mounted = Self {
            image: image.to_owned(),
            folder: temp_folder(),
            device,
        };
        let mut mount = program("mount", "mount")?;
        must_run(
            mount
                .args(["-t", "ext4", &mounted.device])
                .arg(mounted.folder.path()),
        );
        Some(mounted)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the device as large as `size` bytes, and the file system too.
    fn grow(&self, size: u64) {
        let output = self.try_to_grow(size);
        assert!(output.status.success(), "{}", text_of(&output));
    }

    /// The same; whether the kernel does it is in the output.
    pub(super) fn try_to_grow(&self, size: u64) -> Output {
        grow_file(&self.image, size);
        let mut losetup = program("losetup", "mount").expect("was there");
        must_run(losetup.args(["--set-capacity", &self.device]));
        let mut resize = program("resize2fs", "e2fsprogs").expect("e2fsprogs is there");
        let output = run(resize.arg(&self.device));
        let said = text_of(&output);
        assert!(said.contains("on-line resizing"), "{said}");
        output
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for (name, last) in [
            ("umount", self.folder.path().as_os_str()),
            ("losetup", self.device.as_ref()),
        ] {
            if let Some(mut command) = program(name, "mount") {
                if name == "losetup" {
                    command.arg("--detach");
                }
                // One may fail when the test did; nothing is left to tell.
                let _ended = command.arg(last).output();
            }
        }
    }
}

#[test]
fn the_kernel_grows_a_mounted_volume_and_loses_nothing() {
    if !may_resize() {
        return;
    }
    let folder = temp_folder();
    let tree = torture(500);
    let image = write(&volume(&tree, &options(600)), folder.path(), "online.img");
    let Some(mounted) = Mounted::new(&image) else {
        return;
    };
    // To four times the size, then to where the reserved blocks are needed.
    for size in [2400 * MIB, 200 * GIB] {
        mounted.grow(size);
    }
    assert_same(&by_kernel(mounted.path()), &expected(&tree), "the kernel");
    drop(mounted);
    Checker::E2fsck.accepts(&image);
}

#[test]
fn the_kernel_grows_an_empty_volume_to_many_times_its_size() {
    if !may_resize() {
        return;
    }
    let folder = temp_folder();
    let empty = volume(&FileTree::new(), &options(1024));
    let image = write(&empty, folder.path(), "far.img");
    let Some(mounted) = Mounted::new(&image) else {
        return;
    };
    mounted.grow(900 * GIB);
    drop(mounted);
    Checker::E2fsck.accepts(&image);
}

#[test]
fn the_kernel_writes_into_a_volume_of_ours() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(2000), &options(600)),
        folder.path(),
        "written.img",
    );
    let Some(mounted) = Mounted::new(&image) else {
        return;
    };
    let at = |name: &str| mounted.path().join(name);
    // The leaves of the index are full: each of these may split one.
    for number in 0..3000 {
        let name = at(&format!("large/a new entry, number {number}"));
        fs::write(name, format!("{number}")).expect("write");
    }
    for number in (0..2000).step_by(2) {
        fs::remove_file(at(&format!("large/entry number {number}"))).expect("remove");
    }
    for number in 0..100 {
        fs::create_dir(at(&format!("dev/sub-{number}"))).expect("create");
    }
    fs::write(at("files/over"), vec![7; 3 << 20]).expect("overwrite");
    fs::remove_file(at("holes/1000")).expect("remove");
    fs::remove_file(at("xattr/block")).expect("remove");
    fs::hard_link(at("files/one"), at("files/uno")).expect("link");
    drop(mounted);
    Checker::E2fsck.accepts(&image);
}
