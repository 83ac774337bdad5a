//! OVA packages: a tar of a machine's description, its manifest and its disks.
//!
//! The disk is a `streamOptimized` VMDK, made beside the package in a file
//! without a name, since the description comes first and says how long the
//! disk is. What is described is not known here: an [`Envelope`] writes it.
//!
//! Source: POSIX.1-1988 ustar as in pax(1), and DMTF DSP0243 1.1, section 5.1,
//! for the order of the members.

pub(crate) mod format;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha1::{Digest as _, Sha1};
use zerocopy::IntoBytes as _;

use super::pass::{Cluster, Container};
use super::vmdk::VmdkWriter;
use super::{ImageError, content_root, vmdk};
use crate::digest::{ContentRoot, Digest, Hasher};
use crate::sparse::Zeros;
use crate::units::ByteSize;
use format::{BLOCK, UstarHeader};

/// Bytes that are copied at a time.
const PIECE: usize = 256 << 10;

/// A disk in a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedDisk {
    /// The member's name.
    pub file_name: String,
    /// Length of the member.
    pub length: ByteSize,
    /// The size that the guest sees.
    pub size: ByteSize,
    /// Digest of the member.
    pub sha256: Digest,
    /// The same by the older algorithm.
    pub sha1: Sha1Hex,
}

/// A SHA-1 in hexadecimal digits: for readers that know nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha1Hex(String);

/// A file of a package that is not a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What a package says of its disks.
pub trait Envelope: fmt::Debug + Send + Sync {
    /// The name of the system disk's member; ends with `.vmdk`.
    fn disk_name(&self) -> String;

    /// Disks without content that come along: names of members, which end
    /// with `.vmdk`, and sizes.
    fn empty_disks(&self) -> Vec<(String, ByteSize)>;

    /// The members that come before the disks, the description first.
    /// `disks` has the system disk first.
    ///
    /// # Errors
    ///
    /// Whatever keeps the description from being made.
    fn members(&self, disks: &[PackedDisk]) -> io::Result<Vec<Member>>;
}

impl Sha1Hex {
    /// The sum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sum(&Sha1::digest(bytes))
    }

    fn from_sum(sum: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = String::new();
        for byte in sum {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        Self(text)
    }
}

impl fmt::Display for Sha1Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Refuses what a member cannot be called, and disks that no VMDK holds.
pub(super) fn check(envelope: &dyn Envelope) -> Result<(), ImageError> {
    let name = envelope.disk_name();
    for (name, _) in [(name, ByteSize::ZERO)]
        .iter()
        .chain(&envelope.empty_disks())
    {
        vmdk::check_name(name)?;
        if UstarHeader::new(name, 0).is_none() {
            return Err(ImageError::FileName { name: name.clone() });
        }
    }
    for (_, size) in envelope.empty_disks() {
        if size > vmdk::LIMIT {
            return Err(ImageError::TooLarge {
                format: super::ImageFormat::Ova,
                size,
                most: vmdk::LIMIT,
            });
        }
    }
    Ok(())
}

/// A package in the making.
#[derive(Debug)]
pub(super) struct OvaWriter<'a> {
    envelope: &'a dyn Envelope,
    disk: VmdkWriter,
    size: ByteSize,
    /// Where the disk is until its length is known. It has no name.
    store: File,
}

impl<'a> OvaWriter<'a> {
    /// A package of a disk of `size` bytes; `store` is an empty file.
    pub(super) fn new(
        size: ByteSize,
        envelope: &'a dyn Envelope,
        store: File,
        packer: usize,
    ) -> Self {
        Self {
            envelope,
            disk: VmdkWriter::new(size, &envelope.disk_name(), packer),
            size,
            store,
        }
    }

    /// Makes the empty disks behind the system disk, and tells where each is.
    fn finish_disks(&mut self, root: &ContentRoot) -> io::Result<Vec<(PackedDisk, u64)>> {
        self.disk.finish(&self.store, root)?;
        let length = self.store.metadata()?.len();
        let system = self.packed(&self.envelope.disk_name(), self.size, 0, length)?;
        let mut disks = vec![(system, 0)];
        for (name, size) in self.envelope.empty_disks() {
            let file = tempfile::tempfile()?;
            let root = content_root(&Zeros(size)).map_err(io::Error::other)?;
            VmdkWriter::new(size, &name, 0).finish(&file, &root)?;
            let at = self.store.metadata()?.len();
            let length = copy(&file, 0, file.metadata()?.len(), &self.store, at)?;
            disks.push((self.packed(&name, size, at, length)?, at));
        }
        Ok(disks)
    }

    fn packed(&self, name: &str, size: ByteSize, at: u64, length: u64) -> io::Result<PackedDisk> {
        let (mut sha256, mut sha1) = (Hasher::new(), Sha1::new());
        read_pieces(&self.store, at, length, |piece, _| {
            sha256.update(piece);
            sha1.update(piece);
            Ok(())
        })?;
        Ok(PackedDisk {
            file_name: name.to_owned(),
            length: ByteSize::from_bytes(length),
            size,
            sha256: sha256.finish(),
            sha1: Sha1Hex::from_sum(&sha1.finalize()),
        })
    }
}

impl Container for OvaWriter<'_> {
    fn append(&mut self, _file: &File, cluster: &Cluster) -> io::Result<()> {
        self.disk.append(&self.store, cluster)
    }

    fn finish(&mut self, file: &File, root: &ContentRoot) -> io::Result<()> {
        let disks = self.finish_disks(root)?;
        let facts: Vec<PackedDisk> = disks.iter().map(|(disk, _)| disk.clone()).collect();
        let mut at = 0;
        for member in self.envelope.members(&facts)? {
            let header = header(&member.name, member.bytes.len() as u64)?;
            file.write_all_at(header.as_bytes(), at)?;
            file.write_all_at(&member.bytes, at + BLOCK)?;
            at += BLOCK + padded(member.bytes.len() as u64);
        }
        for (disk, from) in disks {
            let length = disk.length.bytes();
            let header = header(&disk.file_name, length)?;
            file.write_all_at(header.as_bytes(), at)?;
            copy(&self.store, from, length, file, at + BLOCK)?;
            at += BLOCK + padded(length);
        }
        // Two blocks of zeros end it.
        file.set_len(at + 2 * BLOCK)
    }
}

fn header(name: &str, length: u64) -> io::Result<UstarHeader> {
    let header = UstarHeader::new(name, length);
    header.ok_or_else(|| io::Error::other(format!("`{name}` does not fit a tar's header")))
}

const fn padded(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

/// Copies `length` bytes, and returns that.
fn copy(from: &File, start: u64, length: u64, to: &File, at: u64) -> io::Result<u64> {
    read_pieces(from, start, length, |piece, offset| {
        to.write_all_at(piece, at + offset)
    })?;
    Ok(length)
}

/// Calls `take` with each piece and its offset from `start`.
fn read_pieces(
    file: &File,
    start: u64,
    length: u64,
    mut take: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < length {
        let left = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
        let piece = &mut piece[..left];
        file.read_exact_at(piece, start + done)?;
        take(piece, done)?;
        done += left as u64;
    }
    Ok(())
}
