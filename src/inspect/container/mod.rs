//! Containers: from the bytes of an image file to the disk inside.

mod ova;
mod qcow2;
mod raw_zst;
mod vhd;
mod vhdx;
mod vmdk;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::blocks::read_vec;
use super::error::InspectError;
use crate::image::ImageFormat;
use crate::sparse::{FileSource, SparseSource};
use crate::units::ByteSize;

/// A disk, whatever contains it.
#[derive(Debug, Clone)]
pub struct DiskImage {
    /// The container.
    pub format: ImageFormat,
    /// The kind of container, and how it is packed, in a few words.
    pub detail: &'static str,
    /// The disk.
    pub disk: Arc<dyn SparseSource>,
    /// Length of the file.
    pub file_size: ByteSize,
}

/// Opens the image at `path`; `format` says what it is, else the file does.
///
/// # Errors
///
/// [`InspectError`] for a file that cannot be opened, or is no sound image.
pub fn open(path: &Path, format: Option<ImageFormat>) -> Result<DiskImage, InspectError> {
    let failed = |source| InspectError::Open {
        path: path.to_owned(),
        source,
    };
    // A pipe would wait for a writer, were it not for NONBLOCK.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(InspectError::NotAFile {
            path: path.to_owned(),
        });
    }
    let source = FileSource::new(file).map_err(failed)?;
    open_source(Arc::new(source), format)
}

/// The same for a file that is open, or in memory.
///
/// # Errors
///
/// As [`open`].
pub fn open_source(
    file: Arc<dyn SparseSource>,
    format: Option<ImageFormat>,
) -> Result<DiskImage, InspectError> {
    let format = match format {
        Some(format) => format,
        None => recognize(file.as_ref())?,
    };
    let file_size = file.size();
    let (disk, detail) = match format {
        ImageFormat::Qcow2 => qcow2::open(file)?,
        ImageFormat::Vmdk => vmdk::open(file)?,
        ImageFormat::Vhdx => vhdx::open(file)?,
        ImageFormat::Vhd => vhd::open(file)?,
        ImageFormat::RawZst => raw_zst::open(file)?,
        ImageFormat::Ova => ova::open(&file)?,
        _ => (file, "raw"),
    };
    Ok(DiskImage {
        format,
        detail,
        disk,
        file_size,
    })
}

/// What the file says it is. A raw disk may hold anything, so what begins or
/// ends like a container is one.
fn recognize(file: &dyn SparseSource) -> Result<ImageFormat, InspectError> {
    let failed = |source| InspectError::Read { offset: 0, source };
    let size = file.size().bytes();
    let mut head = [0; 512];
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(head.len());
    file.read_exact_at(&mut head[..length], 0).map_err(failed)?;
    let beginnings: [(&[u8], ImageFormat); 7] = [
        (b"QFI\xfb", ImageFormat::Qcow2),
        (b"KDMV", ImageFormat::Vmdk),
        (b"COWD", ImageFormat::Vmdk),
        (b"# Disk DescriptorFile", ImageFormat::Vmdk),
        (b"vhdxfile", ImageFormat::Vhdx),
        (b"conectix", ImageFormat::Vhd),
        (b"\x28\xb5\x2f\xfd", ImageFormat::RawZst),
    ];
    let by_head = beginnings.iter().find(|(magic, _)| head.starts_with(magic));
    let by_head = by_head.map(|(_, format)| *format);
    let by_head = by_head.or_else(|| ova::is_package(&head).then_some(ImageFormat::Ova));
    let tail = size.checked_sub(512).map(|at| read_vec(file, at, 512));
    let tail = tail.transpose().map_err(failed)?.flatten();
    let is_vhd = tail.is_some_and(|tail| tail.starts_with(b"conectix"));
    if by_head.is_none() && !is_vhd {
        let is_it = |(at, magic, _): &&(usize, &[u8], &str)| head[*at..].starts_with(magic);
        if let Some((_, _, what)) = FOREIGN.iter().find(is_it) {
            return Err(InspectError::Foreign { what });
        }
    }
    match (by_head, is_vhd) {
        (Some(one), true) if one != ImageFormat::Vhd => Err(InspectError::TwoFormats {
            one,
            other: ImageFormat::Vhd,
        }),
        (Some(format), _) => Ok(format),
        (None, true) => Ok(ImageFormat::Vhd),
        (None, false) => Ok(ImageFormat::Raw),
    }
}

/// Files that are no disks as they are: where they say so, and how.
const FOREIGN: [(usize, &[u8], &str); 10] = [
    (64, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"QED\0", "a QED image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"\x1f\x8b\x08", "packed with gzip"),
    (0, b"\xfd7zXZ\0", "packed with xz"),
    (4, b"1AY&SY", "packed with bzip2"),
    (0, b"7z\xbc\xaf\x27\x1c", "packed with 7-Zip"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (257, b"ustar", "a tar archive"),
];

/// The errors of one container.
#[derive(Debug, Clone, Copy)]
struct Complain(ImageFormat);

impl Complain {
    fn damaged<T>(self, what: &'static str) -> Result<T, InspectError> {
        Err(InspectError::Damaged {
            format: self.0,
            what,
        })
    }

    fn unsupported<T>(self, what: &'static str) -> Result<T, InspectError> {
        Err(InspectError::Unsupported {
            format: self.0,
            what,
        })
    }

    fn other_file<T>(self, what: &'static str) -> Result<T, InspectError> {
        Err(InspectError::OtherFile {
            format: self.0,
            what,
        })
    }

    /// Fails unless `holds`.
    fn must(self, holds: bool, what: &'static str) -> Result<(), InspectError> {
        if holds { Ok(()) } else { self.damaged(what) }
    }

    /// `length` bytes of the file, bounded by the caller.
    fn read(
        self,
        file: &dyn SparseSource,
        offset: u64,
        length: usize,
        what: &'static str,
    ) -> Result<Vec<u8>, InspectError> {
        let read = read_vec(file, offset, length);
        let read = read.map_err(|source| InspectError::Read { offset, source })?;
        match read {
            Some(bytes) => Ok(bytes),
            None => self.damaged(what),
        }
    }
}

/// `length` as a size in memory, at most `most`.
fn bounded(length: u64, most: usize) -> Option<usize> {
    usize::try_from(length).ok().filter(|n| *n <= most)
}

/// A zlib stream, or raw deflate, that must fill `length` bytes at most.
fn inflate(packed: &[u8], is_zlib: bool, length: usize) -> io::Result<Vec<u8>> {
    use flate2::{Decompress, FlushDecompress, Status};
    let mut bytes = vec![0; length];
    let mut inflate = Decompress::new(is_zlib);
    let status = inflate.decompress(packed, &mut bytes, FlushDecompress::Finish);
    let status = status.map_err(io::Error::other)?;
    let filled = usize::try_from(inflate.total_out()).unwrap_or_default();
    if status != Status::StreamEnd && filled < length {
        return Err(super::blocks::broken("a packed block ends too early"));
    }
    Ok(bytes)
}
