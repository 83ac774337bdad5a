//! What is asked of this room: formats, how they are packed, which files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use std::num::NonZeroUsize;

use super::{Ahead, Envelope, ImageError, ova, qcow2, vhd, vhdx, vmdk};
use crate::units::ByteSize;

/// Bytes of a sector, which every container of machines counts in.
const SECTOR: u64 = 512;

/// A kind of image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ImageFormat {
    /// The disk's bytes, with holes for zeros.
    Raw,
    /// The disk's bytes as a zstd stream that can be read from any place.
    RawZst,
    /// QEMU's format, compressed.
    Qcow2,
    /// The format of `VMware` for transport: `streamOptimized`.
    Vmdk,
    /// Hyper-V's format, growing.
    Vhdx,
    /// The format of Azure and older Hyper-V, fixed.
    Vhd,
    /// A package of a machine's description and its disk, for `VMware`,
    /// `VirtualBox` and Proxmox.
    Ova,
}

impl ImageFormat {
    /// All formats, in the order in which they are listed to people.
    pub const ALL: &[Self] = &[
        Self::Raw,
        Self::RawZst,
        Self::Qcow2,
        Self::Vmdk,
        Self::Vhdx,
        Self::Vhd,
        Self::Ova,
    ];

    /// Its name, which is the extension of its files too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawZst => "raw.zst",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Ova => "ova",
        }
    }

    /// Whether a file of it is as long as the disk, zeros included.
    #[must_use]
    pub const fn is_as_long_as_the_disk(self) -> bool {
        matches!(self, Self::Raw | Self::Vhd)
    }

    /// The largest disk that it holds; `None` when there is no limit.
    #[must_use]
    pub const fn limit(self) -> Option<ByteSize> {
        match self {
            Self::Raw | Self::RawZst => None,
            Self::Qcow2 => Some(qcow2::LIMIT),
            Self::Vmdk | Self::Ova => Some(vmdk::LIMIT),
            Self::Vhdx => Some(vhdx::LIMIT),
            Self::Vhd => Some(vhd::LIMIT),
        }
    }

    /// Whether it counts in sectors.
    const fn is_in_sectors(self) -> bool {
        !matches!(self, Self::Raw | Self::RawZst)
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ImageFormat {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let known = Self::ALL.iter().find(|format| format.name() == text);
        known.copied().ok_or_else(|| ImageError::UnknownFormat {
            name: text.to_owned(),
        })
    }
}

/// How the clusters of qcow2 are packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Readable everywhere.
    #[default]
    Deflate,
    /// Smaller and faster, but not for readers before QEMU 5.1 and several
    /// products of today. Also how `raw.zst` is packed, whose level it is.
    Zstd(ZstdLevel),
}

/// A level of zstd, 1 (fast) to 19 (small).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZstdLevel(u8);

impl ZstdLevel {
    /// A level from 1 to 19.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        match level {
            1..=19 => Some(Self(level)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0.into()
    }
}

impl Default for ZstdLevel {
    /// Level 3, as zstd has it.
    fn default() -> Self {
        Self(3)
    }
}

impl FromStr for ZstdLevel {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let level = text.parse().ok().and_then(Self::new);
        level.ok_or_else(|| ImageError::UnknownLevel {
            level: text.to_owned(),
        })
    }
}

impl fmt::Display for ZstdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the digest of a whole file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSum {
    /// Read the file once more for it. Of a raw image that reads every zero.
    Compute,
    /// The content root is enough.
    Skip,
}

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// Its name, without a folder.
    pub file_name: String,
    /// What it is.
    pub format: ImageFormat,
    /// How it is packed; of no effect on formats that leave no choice.
    pub compression: Compression,
    /// Whether its digest is wanted.
    pub sum: FileSum,
}

impl ImageSpec {
    /// `NAME.FORMAT`, packed so that every reader of the format reads it,
    /// with a digest unless it is as long as the disk.
    #[must_use]
    pub fn new(name: &str, format: ImageFormat) -> Self {
        Self {
            file_name: format!("{name}.{format}"),
            format,
            compression: match format {
                ImageFormat::RawZst => Compression::Zstd(ZstdLevel::default()),
                _ => Compression::Deflate,
            },
            sum: if format.is_as_long_as_the_disk() {
                FileSum::Skip
            } else {
                FileSum::Compute
            },
        }
    }

    /// Refuses what the format cannot hold, before anything is written.
    pub(super) fn check(
        &self,
        size: ByteSize,
        envelope: Option<&dyn Envelope>,
    ) -> Result<(), ImageError> {
        let name = Path::new(&self.file_name);
        let is_plain = name.file_name() == Some(name.as_os_str())
            && !self.file_name.chars().any(char::is_control);
        if !is_plain {
            return Err(ImageError::FileName {
                name: self.file_name.clone(),
            });
        }
        if self.format == ImageFormat::Vmdk {
            vmdk::check_name(&self.file_name)?;
        }
        if self.format == ImageFormat::Ova {
            ova::check(envelope.ok_or(ImageError::NoMachine)?)?;
        }
        self.check_size(size)?;
        if self.format.is_in_sectors() && !size.bytes().is_multiple_of(SECTOR) {
            return Err(ImageError::PartialSector { size });
        }
        Ok(())
    }

    /// Refuses a disk that is too large for the format, however little is on it.
    ///
    /// # Errors
    ///
    /// [`ImageError::TooLarge`].
    pub fn check_size(&self, size: ByteSize) -> Result<(), ImageError> {
        match self.format.limit() {
            Some(most) if size > most => Err(ImageError::TooLarge {
                format: self.format,
                size,
                most,
            }),
            _ => Ok(()),
        }
    }
}

/// What is not of one image.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions<'a> {
    /// Worker threads; as many as the machine has cores when left out.
    pub threads: Option<NonZeroUsize>,
    /// Folder for packed clusters of earlier builds; none when left out.
    pub cluster_cache: Option<PathBuf>,
    /// What an OVA says of its machine; needed for that format only.
    pub envelope: Option<&'a dyn Envelope>,
    /// Asked once when all files are complete, before any gets its name.
    pub voucher: Option<&'a dyn Voucher>,
    /// Clusters that were packed before there was a disk.
    pub ahead: Option<&'a Ahead>,
}

/// Knows whether what a disk is made of is what it should be, which may take
/// as long as writing it.
pub trait Voucher: fmt::Debug + Sync {
    /// Whether the files may have their names.
    fn vouches(&self) -> bool;
}
