//! Files beside the descriptor: opened once, looked at through that handle,
//! copied from it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;

use super::descriptor::{Checksum, DiskFormat, Paths};
use super::error::ImportError;
use super::finding::Refusal;
use crate::digest::{Digest, Hasher};
use crate::image::ImageFormat;
use crate::inspect::container;
use crate::report::Reporter;
use crate::sparse::{FileSource, SparseSource};
use crate::units::ByteSize;

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

/// The folder that a descriptor is in.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
    paths: Paths,
}

impl Folder {
    /// Opens the folder of `descriptor`.
    pub(super) fn of(descriptor: &Path, paths: Paths) -> Result<Self, ImportError> {
        let parent = match descriptor.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let read = |source| ImportError::Read {
            path: parent.to_owned(),
            source,
        };
        let path = parent.canonicalize().map_err(read)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(&path, flags, Mode::empty()).map_err(|error| read(error.into()))?;
        Ok(Self { path, fd, paths })
    }

    /// The folder's absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file `name` for the disk `id`; `None` when it is not there.
    pub(super) fn file(&self, id: &str, name: &str) -> Result<Option<Master>, ImportError> {
        let path = self.path.join(name);
        let refuse = |refusal| ImportError::Path {
            id: id.to_owned(),
            path: path.clone(),
            refusal,
        };
        // A pipe would wait for a writer, were it not for NONBLOCK.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = match self.paths {
            Paths::Trusted => openat(CWD, &path, flags, Mode::empty()),
            Paths::Contained => {
                let resolve =
                    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                openat2(self.fd.as_fd(), name, flags, Mode::empty(), resolve)
            }
        };
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(refuse(Refusal::Link)),
            Err(Errno::XDEV) => return Err(refuse(Refusal::Outside)),
            Err(Errno::NOTDIR | Errno::NXIO) => return Err(refuse(Refusal::NotAFile)),
            Err(error) => {
                return Err(ImportError::Read {
                    path,
                    source: error.into(),
                });
            }
        };
        let metadata = file.metadata().map_err(|source| ImportError::Read {
            path: path.clone(),
            source,
        })?;
        if !metadata.is_file() {
            return Err(refuse(Refusal::NotAFile));
        }
        Ok(Some(Master {
            id: id.to_owned(),
            path,
            size: ByteSize::from_bytes(metadata.len()),
            file,
        }))
    }
}

/// The bytes of a regular file of at most `most` bytes.
pub(super) fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let most = ByteSize::from_bytes(most);
        let words = format!("it is longer than {most}, which no such file is");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }
    Ok(bytes)
}

/// A file that the vendor or the customer made.
#[derive(Debug)]
pub struct Master {
    pub(super) id: String,
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Its length.
    pub size: ByteSize,
    pub(super) file: File,
}

impl Master {
    /// Opens a file that the user named.
    pub(super) fn open(id: &str, path: &Path) -> Result<Self, ImportError> {
        let read = |source| ImportError::Read {
            path: path.to_owned(),
            source,
        };
        let path = path.canonicalize().map_err(read)?;
        let file = File::open(&path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(ImportError::Path {
                id: id.to_owned(),
                path,
                refusal: Refusal::NotAFile,
            });
        }
        Ok(Self {
            id: id.to_owned(),
            path,
            size: ByteSize::from_bytes(metadata.len()),
            file,
        })
    }

    fn read_error(&self, source: io::Error) -> ImportError {
        ImportError::Read {
            path: self.path.clone(),
            source,
        }
    }

    /// The file as bytes with holes.
    pub(super) fn source(&self) -> Result<FileSource, ImportError> {
        let again = self.file.try_clone();
        again
            .and_then(FileSource::new)
            .map_err(|source| self.read_error(source))
    }

    /// The disk inside, after a look at all that could lead to another file.
    pub(super) fn disk(&self, format: DiskFormat) -> Result<Inside, ImportError> {
        let known = match format {
            DiskFormat::Raw | DiskFormat::Iso => {
                return Ok(Inside {
                    size: self.size,
                    disk: None,
                });
            }
            DiskFormat::Qcow => return self.old_disk("qcow", &qcow_size),
            DiskFormat::Vdi => return self.old_disk("vdi", &vdi_size),
            DiskFormat::Qcow2 => ImageFormat::Qcow2,
            DiskFormat::Vmdk => ImageFormat::Vmdk,
        };
        let opened = container::open_source(Arc::new(self.source()?), Some(known));
        let image = opened.map_err(|source| ImportError::Image {
            id: self.id.clone(),
            path: self.path.clone(),
            source,
        })?;
        Ok(Inside {
            size: image.disk.size(),
            disk: Some(image.disk),
        })
    }

    fn old_disk(
        &self,
        format: &'static str,
        size: &dyn Fn(&[u8]) -> Option<u64>,
    ) -> Result<Inside, ImportError> {
        let mut head = vec![0; 512];
        let length = usize::try_from(self.size.bytes())
            .unwrap_or(usize::MAX)
            .min(head.len());
        self.file
            .read_exact_at(&mut head[..length], 0)
            .map_err(|source| self.read_error(source))?;
        match size(&head) {
            Some(size) => Ok(Inside {
                size: ByteSize::from_bytes(size),
                disk: None,
            }),
            None => Err(ImportError::OldImage {
                id: self.id.clone(),
                path: self.path.clone(),
                format,
            }),
        }
    }

    /// Whether it begins as a qcow2 image does.
    pub(super) fn begins_like_qcow2(&self) -> bool {
        let mut head = [0; 4];
        self.file.read_exact_at(&mut head, 0).is_ok() && head == *b"QFI\xfb"
    }

    /// Compares the file with its checksum.
    pub(super) fn verify(
        &self,
        checksum: &Checksum,
        reporter: &dyn Reporter,
    ) -> Result<(), ImportError> {
        let (kind, expected, found) = match checksum {
            Checksum::Sha256(digest) => ("sha256", digest.hex(), self.sha256(reporter)?.hex()),
            Checksum::Sha1(bytes) => {
                use sha1::Digest as _;
                let mut hasher = sha1::Sha1::new();
                self.each_piece(reporter, &mut |piece| hasher.update(piece))?;
                ("sha1", hex(bytes), hex(&hasher.finalize()))
            }
        };
        if expected == found {
            return Ok(());
        }
        Err(ImportError::Checksum {
            id: self.id.clone(),
            path: self.path.clone(),
            kind,
            expected,
            found,
        })
    }

    /// Digest of the file.
    pub(super) fn sha256(&self, reporter: &dyn Reporter) -> Result<Digest, ImportError> {
        let mut hasher = Hasher::new();
        self.each_piece(reporter, &mut |piece| hasher.update(piece))?;
        Ok(hasher.finish())
    }

    fn each_piece(
        &self,
        reporter: &dyn Reporter,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ImportError> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            match self.file.read_at(&mut piece, at) {
                Ok(0) => return Ok(()),
                Ok(_) if reporter.stop().is_some() => {
                    return Err(self.read_error(io::ErrorKind::Interrupted.into()));
                }
                Ok(count) => {
                    take(piece.get(..count).unwrap_or_default());
                    at += count as u64;
                    reporter.bytes("verify", ByteSize::from_bytes(at), Some(self.size));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        }
    }

    /// Whether a guest in QEMU has it open for writing.
    pub(super) fn is_in_use(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| is_locked_for_writing(metadata.dev(), metadata.ino()))
    }
}

/// What is inside of an image.
#[derive(Debug)]
pub(super) struct Inside {
    /// What the guest sees.
    pub(super) size: ByteSize,
    /// The disk, where this program can read it.
    pub(super) disk: Option<Arc<dyn SparseSource>>,
}

/// QEMU's lock byte for "somebody writes here" (`RAW_LOCK_PERM_BASE` +
/// `BLK_PERM_WRITE` in block/file-posix.c), as the kernel lists it.
const WRITE_LOCK: u64 = 101;

/// Whether the kernel lists QEMU's write lock on a file.
pub(super) fn is_locked_for_writing(device: u64, inode: u64) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let wanted = format!(
        "{:02x}:{:02x}:{inode}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    locks.lines().any(|line| names_write_lock(line, &wanted))
}

/// `1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101`, see proc(5).
fn names_write_lock(line: &str, file: &str) -> bool {
    let mut words = line
        .split_ascii_whitespace()
        .skip_while(|word| *word != file)
        .skip(1);
    let (Some(first), Some(last)) = (words.next(), words.next()) else {
        return false;
    };
    let number = |word: &str| word.parse::<u64>().unwrap_or(u64::MAX);
    // A program that locks a whole file is not QEMU.
    number(first) >= 100 && number(first) <= WRITE_LOCK && number(last) >= WRITE_LOCK
}

/// qcow, version 1: big-endian magic, version, backing offset and length,
/// mtime, size. Source: QEMU, block/qcow.c, `QCowHeader`.
fn qcow_size(head: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u64::from(u32::from_be_bytes(array(head, at)?)));
    let long = |at: usize| Some(u64::from_be_bytes(array(head, at)?));
    let is_alone = word(0)? == 0x5146_49fb && word(4)? == 1 && long(8)? == 0 && word(16)? == 0;
    let encryption = word(36)?;
    (is_alone && encryption == 0).then_some(long(24)?)
}

/// VDI: little-endian signature at 0x40, type at 0x4c (1 dynamic, 2 fixed),
/// size at 0x170. Source: QEMU, block/vdi.c, `VdiHeader`.
fn vdi_size(head: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u32::from_le_bytes(array(head, at)?));
    let is_alone = word(0x40)? == 0xbeda_107f && matches!(word(0x4c)?, 1 | 2);
    let size = u64::from_le_bytes(array(head, 0x170)?);
    is_alone.then_some(size)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lock_of_a_writing_guest_counts() {
        let file = "fe:00:77";
        for (line, is_lock) in [
            ("1: OFDLCK ADVISORY  READ -1 fe:00:77 100 101", true),
            ("1: OFDLCK ADVISORY  READ -1 fe:00:77 101 101", true),
            ("1: OFDLCK ADVISORY  READ -1 fe:00:77 100 100", false),
            ("1: OFDLCK ADVISORY  READ -1 fe:00:78 101 101", false),
            ("1: POSIX  ADVISORY  WRITE 9 fe:00:77 0 EOF", false),
            ("1: -> POSIX ADVISORY WRITE 9 fe:00:77 0", false),
        ] {
            assert_eq!(names_write_lock(line, file), is_lock, "{line}");
        }
    }

    #[test]
    fn old_images_that_name_a_backing_file_are_refused() {
        let mut head = [0; 64];
        head[..8].copy_from_slice(&[0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 1]);
        head[24..32].copy_from_slice(&(5_u64 << 20).to_be_bytes());
        assert_eq!(qcow_size(&head), Some(5 << 20));
        head[15] = 48;
        assert_eq!(qcow_size(&head), None);
        assert_eq!(qcow_size(&[]), None);
    }

    #[test]
    fn a_link_and_a_pipe_are_no_disks() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "x").expect("write");
        std::os::unix::fs::symlink("a", path("link")).expect("link");
        std::os::unix::fs::symlink(".", path("here")).expect("link");
        std::fs::create_dir(path("folder")).expect("mkdir");
        let contained = Folder::of(&path("x.xml"), Paths::Contained).expect("folder");
        let refused = |name| contained.file("d", name).expect_err("refused").slug();
        for name in ["link", "here/a", "folder", "../a"] {
            assert_eq!(refused(name), "import-path", "{name}");
        }
        assert!(contained.file("d", "a").expect("sound").is_some());
        assert!(contained.file("d", "none").expect("sound").is_none());
        let trusted = Folder::of(&path("x.xml"), Paths::Trusted).expect("folder");
        assert!(trusted.file("d", "here/link").expect("sound").is_some());
    }
}
