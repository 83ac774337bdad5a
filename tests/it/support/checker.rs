//! Foreign judges of formats, each with the flag that forbids repair.
//!
//! A checker that repairs hides the bug. How each verdict is read differs:
//! `sgdisk` ends with 0 and tells its findings in text only.

use std::ffi::OsStr;
use std::path::Path;

use super::{program, run, text_of};

/// Somebody else's program that says whether a file is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checker {
    /// An ext4 volume: `e2fsck -fn`.
    E2fsck,
    /// A FAT volume: `fsck.vfat -n`. Blind to odd cluster sizes and to a missing 55AA.
    FsckVfat,
    /// A GPT disk: `sgdisk -v`, by its text. Blind to duplicate identifiers.
    Sgdisk,
    /// A partitioned disk: `sfdisk --verify`.
    Sfdisk,
    /// A qcow2 image: `qemu-img check`. Only for images that we wrote.
    QemuImgCheck,
    /// A VMDK or VHDX image: `qemu-img check`, the format told by the
    /// extension. Only for images that we wrote.
    QemuImgCheckOther,
    /// A VHD or VHDX image, by its text: `vhdiinfo` of libvhdi. Looks at
    /// headers and tables, not at blocks.
    VhdiInfo,
    /// A VMDK image: `vmdkinfo` of libvmdk. Looks at headers and directories.
    VmdkInfo,
    /// A zstd stream: `zstd -t`.
    ZstdTest,
    /// Two images with the same content; the formats are told by the extension.
    QemuImgCompare,
    /// A well-formed XML document without a document type.
    Xmllint,
    /// A guest's XML, by libvirt's own schema.
    LibvirtDomain,
    /// A `SHA256SUMS` file beside the files that it names.
    Sha256sum,
}

/// What a [`Checker`] said.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// Whether it found nothing wrong.
    pub(crate) sound: bool,
    /// All that it printed.
    pub(crate) text: String,
}

impl Checker {
    /// The checker's opinion of `files`: one file, or two for
    /// [`QemuImgCompare`](Self::QemuImgCompare). `None` when the program is
    /// missing, which only happens outside of CI and has been said.
    pub(crate) fn judge(self, files: &[&Path]) -> Option<Verdict> {
        let (name, package) = self.program();
        let mut command = program(name, package)?;
        match self {
            Self::QemuImgCheck => {
                command.args(["check", "-f", "qcow2"]).args(files);
            }
            Self::QemuImgCheckOther => {
                let [image] = files else {
                    panic!("one image, not {}", files.len());
                };
                command.args(["check", "-f", format_of(image)]).arg(image);
            }
            Self::LibvirtDomain => {
                command.args(files).arg("domain");
            }
            Self::QemuImgCompare => {
                let [one, other] = files else {
                    panic!("qemu-img compares two files, not {}", files.len());
                };
                command.args(["compare", "-f", format_of(one), "-F", format_of(other)]);
                command.args(files);
            }
            Self::Sha256sum => {
                let [sums] = files else {
                    panic!("sha256sum takes one list, not {}", files.len());
                };
                command.current_dir(sums.parent().expect("a file is in a folder"));
                command
                    .args(self.flags())
                    .arg(sums.file_name().expect("a file has a name"));
            }
            _ => {
                command.args(self.flags()).args(files);
            }
        }
        let output = run(&mut command);
        let text = text_of(&output);
        let sound = output.status.success() && self.text_is_sound(&text);
        Some(Verdict { sound, text })
    }

    /// Panics, with all that the checker said, unless it finds `file` sound.
    #[track_caller]
    pub(crate) fn accepts(self, file: &Path) {
        self.accepts_all(&[file]);
    }

    /// As [`accepts`](Self::accepts), for checkers of two files.
    #[track_caller]
    pub(crate) fn accepts_all(self, files: &[&Path]) {
        if let Some(verdict) = self.judge(files) {
            assert!(
                verdict.sound,
                "{self:?} rejects {files:?}:\n{}",
                verdict.text
            );
        }
    }

    /// Panics unless the checker finds something wrong with `file`.
    #[track_caller]
    pub(crate) fn rejects(self, file: &Path) {
        self.rejects_all(&[file]);
    }

    /// As [`rejects`](Self::rejects), for checkers of two files.
    #[track_caller]
    pub(crate) fn rejects_all(self, files: &[&Path]) {
        if let Some(verdict) = self.judge(files) {
            assert!(
                !verdict.sound,
                "{self:?} accepts damaged {files:?}:\n{}",
                verdict.text
            );
        }
    }

    /// The program and its Debian package.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::E2fsck => ("e2fsck", "e2fsprogs"),
            Self::FsckVfat => ("fsck.vfat", "dosfstools"),
            Self::Sgdisk => ("sgdisk", "gdisk"),
            Self::Sfdisk => ("sfdisk", "fdisk"),
            Self::QemuImgCheck | Self::QemuImgCheckOther | Self::QemuImgCompare => {
                ("qemu-img", "qemu-utils")
            }
            Self::VhdiInfo => ("vhdiinfo", "libvhdi-utils"),
            Self::VmdkInfo => ("vmdkinfo", "libvmdk-utils"),
            Self::ZstdTest => ("zstd", "zstd"),
            Self::Xmllint => ("xmllint", "libxml2-utils"),
            Self::LibvirtDomain => ("virt-xml-validate", "libvirt-clients"),
            Self::Sha256sum => ("sha256sum", "coreutils"),
        }
    }

    /// Flags before the file names. None of them allows a repair.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::E2fsck => &["-f", "-n"],
            Self::FsckVfat => &["-n", "-v"],
            Self::Sgdisk => &["-v"],
            Self::Sfdisk => &["--verify"],
            Self::ZstdTest => &["-t", "-q"],
            Self::Xmllint => &["--noout", "--nonet"],
            Self::Sha256sum => &["--check", "--strict"],
            _ => &[],
        }
    }

    /// What the exit code does not tell.
    fn text_is_sound(self, text: &str) -> bool {
        let says = |word: &str| text.contains(word);
        match self {
            Self::Sgdisk => {
                says("No problems found")
                    && !["Problem:", "Warning", "Invalid", "Creating new GPT"]
                        .into_iter()
                        .any(says)
            }
            Self::Sfdisk => says("No errors detected") && !says("corrupt") && !says("CRC"),
            Self::FsckVfat => !["Dirty bit", "differences", "Free cluster summary wrong"]
                .into_iter()
                .any(says),
            // libyal's tools end with 0 whatever they say.
            Self::VhdiInfo | Self::VmdkInfo => says("Media size") && !says("Unable to"),
            // A resize inode that is not valid leaves its exit code 0.
            Self::E2fsck => !says("? no") && !says("errors"),
            _ => true,
        }
    }
}

/// The image format that a file's extension promises. Never probed: a raw
/// disk may hold anything.
fn format_of(path: &Path) -> &'static str {
    match path.extension().and_then(OsStr::to_str) {
        Some("qcow2") => "qcow2",
        Some("vmdk") => "vmdk",
        Some("vhdx") => "vhdx",
        Some("vhd") => "vpc",
        _ => "raw",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;

    use super::super::{must_run, temp_folder};
    use super::*;

    fn sparse(folder: &Path, name: &str, mib: u64) -> PathBuf {
        let path = folder.join(name);
        File::create(&path)
            .and_then(|file| file.set_len(mib << 20))
            .expect("a sparse file");
        path
    }

    fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(path).expect("open");
        file.write_all_at(bytes, offset).expect("write");
    }

    fn make(name: &str, package: &str, args: &[&OsStr]) -> bool {
        let Some(mut command) = program(name, package) else {
            return false;
        };
        must_run(command.args(args));
        true
    }

    #[test]
    fn e2fsck_rejects_a_damaged_volume_and_leaves_it_alone() {
        let folder = temp_folder();
        let volume = sparse(folder.path(), "volume.ext4", 8);
        if !make(
            "mke2fs",
            "e2fsprogs",
            &["-qFtext4".as_ref(), volume.as_ref()],
        ) {
            return;
        }
        Checker::E2fsck.accepts(&volume);
        // Block count of free blocks in the superblock (s_free_blocks_count_lo).
        overwrite(&volume, 1024 + 0x0c, &[0xff, 0xff, 0, 0]);
        let before = fs::read(&volume).expect("read");
        Checker::E2fsck.rejects(&volume);
        assert_eq!(fs::read(&volume).expect("read"), before);
    }

    #[test]
    fn fsck_vfat_rejects_a_damaged_volume_and_leaves_it_alone() {
        let folder = temp_folder();
        let volume = sparse(folder.path(), "volume.fat", 8);
        if !make("mkfs.vfat", "dosfstools", &[volume.as_ref()]) {
            return;
        }
        Checker::FsckVfat.accepts(&volume);
        // A chain of one cluster that nothing refers to, in the first FAT only.
        let head = fs::read(&volume).expect("read");
        let reserved = u64::from(u16::from_le_bytes([head[14], head[15]])) * 512;
        overwrite(&volume, reserved + 8, &[0xff, 0xff]);
        let before = fs::read(&volume).expect("read");
        Checker::FsckVfat.rejects(&volume);
        assert_eq!(fs::read(&volume).expect("read"), before);
    }

    fn gpt_disk(folder: &Path) -> Option<PathBuf> {
        let disk = sparse(folder, "disk.raw", 16);
        make(
            "sgdisk",
            "gdisk",
            &[
                "-n1:2048:4095".as_ref(),
                "-n2:4096:0".as_ref(),
                disk.as_ref(),
            ],
        )
        .then_some(disk)
    }

    #[test]
    fn partition_checkers_reject_a_table_with_a_wrong_sum() {
        let folder = temp_folder();
        let Some(disk) = gpt_disk(folder.path()) else {
            return;
        };
        Checker::Sgdisk.accepts(&disk);
        Checker::Sfdisk.accepts(&disk);
        // Last LBA of the first entry, in the primary table only.
        overwrite(&disk, 2 * 512 + 40, &[0x00]);
        Checker::Sgdisk.rejects(&disk);
        Checker::Sfdisk.rejects(&disk);
    }

    #[test]
    fn partition_checkers_reject_a_disk_without_its_backup_table() {
        let folder = temp_folder();
        let Some(disk) = gpt_disk(folder.path()) else {
            return;
        };
        overwrite(&disk, (16 << 20) - 512, &[0; 512]);
        Checker::Sgdisk.rejects(&disk);
        Checker::Sfdisk.rejects(&disk);
    }

    #[test]
    fn qemu_img_rejects_a_damaged_image_and_other_content() {
        let folder = temp_folder();
        let raw = sparse(folder.path(), "disk.raw", 4);
        overwrite(&raw, 1 << 20, &[7; 4096]);
        let image = folder.path().join("disk.qcow2");
        let convert = ["convert", "-fraw", "-Oqcow2"].map(OsStr::new);
        let args = [&convert[..], &[raw.as_ref(), image.as_ref()]].concat();
        if !make("qemu-img", "qemu-utils", &args) {
            return;
        }
        Checker::QemuImgCheck.accepts(&image);
        Checker::QemuImgCompare.accepts_all(&[&raw, &image]);
        overwrite(&raw, (1 << 20) + 5, &[8]);
        Checker::QemuImgCompare.rejects_all(&[&raw, &image]);
        // The offset of the refcount table's first block.
        let head = fs::read(&image).expect("read");
        let table = u64::from_be_bytes(head[48..56].try_into().expect("8 bytes"));
        overwrite(&image, table, &[0; 8]);
        Checker::QemuImgCheck.rejects(&image);
    }

    #[test]
    fn xmllint_rejects_an_open_element() {
        let folder = temp_folder();
        let file = folder.path().join("a.xml");
        fs::write(&file, "<image><name>a</name></image>\n").expect("write");
        Checker::Xmllint.accepts(&file);
        fs::write(&file, "<image><name>a</image>\n").expect("write");
        Checker::Xmllint.rejects(&file);
    }

    #[test]
    fn sha256sum_rejects_another_content() {
        let folder = temp_folder();
        let sums = folder.path().join("SHA256SUMS");
        fs::write(folder.path().join("a"), "a").expect("write");
        fs::write(
            &sums,
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4f8b2b8a2dd7c5a1b8a6  a\n",
        )
        .expect("write");
        // One digit of the digest of `a` is wrong on purpose.
        Checker::Sha256sum.rejects(&sums);
        fs::write(
            &sums,
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a\n",
        )
        .expect("write");
        Checker::Sha256sum.accepts(&sums);
    }
}
