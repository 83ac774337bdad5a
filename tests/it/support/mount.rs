//! The kernel as a reader: a read-only loop mount, for root only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{is_root, must_run, program, skip, temp_folder};

/// A volume of an image, mounted read-only by the kernel until it is dropped.
#[derive(Debug)]
pub(crate) struct LoopMount {
    folder: tempfile::TempDir,
}

impl LoopMount {
    /// Mounts the volume of type `kind` that starts `offset` bytes into
    /// `image`. `None`, said loudly, without root or when this kernel has no
    /// such file system: neither can be installed.
    pub(crate) fn read_only(image: &Path, offset: u64, kind: &str) -> Option<Self> {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !is_root() || !known.split_whitespace().any(|name| name == kind) {
            super::note(&format!(
                "no kernel mount of {kind}: needs root and kernel support"
            ));
            return None;
        }
        let folder = temp_folder();
        // Without `noload` even a read-only ext4 mount replays a journal.
        let extra = if kind == "ext4" { ",noload" } else { "" };
        let mut mount = program("mount", "mount")?;
        mount.args(["-t", kind, "-o", &format!("ro,loop,offset={offset}{extra}")]);
        let output = super::run(mount.arg(image).arg(folder.path()));
        if !output.status.success() {
            let text = super::text_of(&output);
            // A container that forbids mounts is a property of the machine, a
            // refused volume is ours.
            assert!(
                text.contains("permission denied") || text.contains("failed to setup loop"),
                "the kernel refuses {}:\n{text}",
                image.display()
            );
            skip(&format!(
                "this machine forbids loop mounts: {}",
                text.trim()
            ));
            return None;
        }
        Some(Self { folder })
    }

    fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let place = self.folder.path().to_string_lossy().into_owned();
        let mut places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        places.any(|found| found == place)
    }

    /// Where the volume's root is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        let Some(mut umount) = program("umount", "mount") else {
            return;
        };
        umount.arg(self.folder.path());
        // A child that another test starts meanwhile holds this one's files
        // until it is the other program.
        for _ in 0..100 {
            let output = super::run(&mut umount);
            if output.status.success() || !super::text_of(&output).contains("busy") {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if self.is_mounted() {
            must_run(&mut umount);
        }
    }
}
