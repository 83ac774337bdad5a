//! ext2, ext3 and ext4 as a stranger wrote them: read only, bounded, and never
//! believed.
//!
//! Source: Linux `Documentation/filesystems/ext4/`. Narrower than that: no
//! journal is replayed (a medium that was not unmounted is refused), nothing
//! inline, encrypted or compressed; folders of at most 128 KiB, read block by
//! block, so that their hash trees do not matter; checksums are not asked.

use super::damage::Damage;
use super::iso::other_kind;
use super::volume::{
    Entry, FileSystem, Kind, Sink, is_label, pass, pass_zeros, to_usize, u16_at, u32_at,
};
use crate::init::gpt::ReadAt;

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const ROOT_INODE: u64 = 2;
/// The longest folder that is read.
const FOLDER_LIMIT: u64 = 128 << 10;
/// `EXT4_MAX_EXTENT_DEPTH`.
const EXTENT_DEPTH: u16 = 5;
const EXTENT_MAGIC: u16 = 0xf30a;
/// Blocks that the tree of one file may have besides its data: enough for
/// what is read here, and an end for trees that grow without one.
const TREE_BLOCKS: u64 = 65_536;

/// `s_feature_incompat`.
const FILETYPE: u32 = 0x2;
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const EXTENTS: u32 = 0x40;
const BIT64: u32 = 0x80;
const MMP: u32 = 0x100;
const FLEX_BG: u32 = 0x200;
const CSUM_SEED: u32 = 0x2000;
const LARGEDIR: u32 = 0x4000;
const CASEFOLD: u32 = 0x20000;
/// Those that do not change how a folder and its files are read here.
const KNOWN: u32 = FILETYPE | EXTENTS | BIT64 | MMP | FLEX_BG | CSUM_SEED | LARGEDIR | CASEFOLD;
/// `s_feature_compat`: there is a journal.
const HAS_JOURNAL: u32 = 0x4;

/// `i_flags`.
const FLAG_COMPRESSED: u32 = 0x4;
const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_EXTENTS: u32 = 0x80000;
const FLAG_INLINE: u32 = 0x1000_0000;

/// A volume whose superblock made sense.
pub struct Volume<'d> {
    disk: &'d dyn ReadAt,
    block_size: u64,
    blocks: u64,
    first_block: u64,
    inodes: u64,
    inodes_per_group: u64,
    inode_size: u64,
    descriptor_size: u64,
    kind: &'static str,
    label: Vec<u8>,
}

impl std::fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("kind", &self.kind)
            .field("blocks", &self.blocks)
            .finish_non_exhaustive()
    }
}

/// One file's inode, as far as it is read.
struct Inode {
    mode: u32,
    size: u64,
    flags: u32,
    /// `i_block`.
    block: Vec<u8>,
}

impl<'d> Volume<'d> {
    /// Reads the superblock of a device of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`Damage::NotThis`], [`Damage::Unreadable`]; for a volume that says it
    /// is one, [`Damage::Truncated`] and [`Damage::Nonsense`].
    pub fn open(disk: &'d dyn ReadAt, size: u64) -> Result<Self, Damage> {
        if size < 4096 {
            return Err(Damage::NotThis);
        }
        let mut block = vec![0; 1024];
        disk.read_exact_at(&mut block, SUPERBLOCK)
            .map_err(Damage::Unreadable)?;
        if u16_at(&block, 56) != Some(MAGIC) {
            return Err(Damage::NotThis);
        }
        let volume = Self::parse(disk, &block).ok_or(Damage::NotThis)?;
        let says = volume.blocks.saturating_mul(volume.block_size);
        if says > size && is_label(&volume.label, super::LABEL) {
            return Err(Damage::Truncated { says, has: size });
        }
        if says > size {
            return Err(Damage::NotThis);
        }
        if is_label(&volume.label, super::LABEL) {
            refuse_features(&block)?;
        }
        Ok(volume)
    }

    /// `None` when a field is outside of what the format allows.
    fn parse(disk: &'d dyn ReadAt, block: &[u8]) -> Option<Self> {
        let long = |at| u32_at(block, at).map(u64::from);
        let shift = u32_at(block, 24)?;
        let (compat, incompat) = (u32_at(block, 92)?, u32_at(block, 96)?);
        let revision = u32_at(block, 76)?;
        let is_64bit = incompat & BIT64 != 0;
        let high = if is_64bit { long(336)? } else { 0 };
        let inode_size = if revision == 0 {
            128
        } else {
            u64::from(u16_at(block, 88)?)
        };
        let descriptor_size = if is_64bit {
            u64::from(u16_at(block, 254)?)
        } else {
            32
        };
        let block_size = 1024_u64.checked_shl(shift).filter(|_| shift <= 6)?;
        let volume = Self {
            disk,
            block_size,
            blocks: high << 32 | long(4)?,
            first_block: long(20)?,
            inodes: long(0)?,
            inodes_per_group: long(40)?,
            inode_size,
            descriptor_size,
            kind: match (incompat & EXTENTS != 0, compat & HAS_JOURNAL != 0) {
                (true, _) => "ext4",
                (false, true) => "ext3",
                (false, false) => "ext2",
            },
            label: block.get(120..136)?.to_vec(),
        };
        let is_sound = volume.inodes_per_group > 0
            && volume.inodes >= ROOT_INODE
            && (128..=block_size).contains(&inode_size)
            && inode_size.is_power_of_two()
            && (32..=1024).contains(&descriptor_size)
            && descriptor_size.is_power_of_two()
            && volume.first_block == u64::from(block_size == 1024);
        is_sound.then_some(volume)
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, Damage> {
        let mut bytes = vec![0; to_usize(length)?];
        self.disk
            .read_exact_at(&mut bytes, at)
            .map_err(Damage::Unreadable)?;
        Ok(bytes)
    }

    /// One block; `whose` is for the message.
    fn block(&self, number: u64, whose: &str) -> Result<Vec<u8>, Damage> {
        let at = self.place(number, whose)?;
        self.bytes(at, self.block_size)
    }

    /// Where a block that a file names begins.
    fn place(&self, number: u64, whose: &str) -> Result<u64, Damage> {
        if number <= self.first_block || number >= self.blocks {
            return Err(Damage::BrokenChain {
                name: whose.to_owned(),
            });
        }
        Ok(number * self.block_size)
    }

    fn inode(&self, number: u64, whose: &str) -> Result<Inode, Damage> {
        let lost = || Damage::BrokenChain {
            name: whose.to_owned(),
        };
        if number == 0 || number > self.inodes {
            return Err(lost());
        }
        let group = (number - 1) / self.inodes_per_group;
        let table = (self.first_block + 1) * self.block_size;
        let descriptor = self.bytes(table + group * self.descriptor_size, self.descriptor_size)?;
        let low = u32_at(&descriptor, 8).map(u64::from).ok_or_else(lost)?;
        let high = u32_at(&descriptor, 40).map_or(0, u64::from);
        let table = self.place(high << 32 | low, whose)?;
        let index = (number - 1) % self.inodes_per_group;
        let at = table
            .checked_add(index * self.inode_size)
            .ok_or_else(lost)?;
        let bytes = self.bytes(at, 128)?;
        let long = |at| u32_at(&bytes, at);
        let size = long(4).zip(long(108));
        let (low, high) = size.ok_or_else(lost)?;
        Ok(Inode {
            mode: u16_at(&bytes, 0).map(u32::from).ok_or_else(lost)?,
            size: u64::from(high) << 32 | u64::from(low),
            flags: long(32).ok_or_else(lost)?,
            block: bytes.get(40..100).unwrap_or_default().to_vec(),
        })
    }

    /// Passes the first `size` bytes of a file on.
    fn content(&self, inode: &Inode, name: &str, sink: Sink<'_>) -> Result<(), Damage> {
        let refuse = |what: &str| Damage::Feature { what: what.into() };
        if inode.flags & FLAG_INLINE != 0 {
            return Err(refuse("a file inside of its inode"));
        }
        if inode.flags & FLAG_ENCRYPTED != 0 {
            return Err(refuse("an encrypted file"));
        }
        if inode.flags & FLAG_COMPRESSED != 0 {
            return Err(refuse("a compressed file"));
        }
        let mut reader = Content {
            volume: self,
            name,
            left: inode.size,
            next: 0,
            tree_blocks: TREE_BLOCKS,
            sink,
        };
        if inode.flags & FLAG_EXTENTS != 0 {
            reader.extents(&inode.block, EXTENT_DEPTH, true)?;
        } else {
            reader.block_map(&inode.block)?;
        }
        let left = reader.left;
        pass_zeros(left, reader.sink)
    }

    fn list(&self, folder: u64, name: &str) -> Result<Vec<Entry>, Damage> {
        let inode = self.inode(folder, name)?;
        if inode.mode & 0o170_000 != 0o040_000 {
            return Err(Damage::Nonsense { what: "folder" });
        }
        if inode.size > FOLDER_LIMIT {
            return Err(Damage::FolderTooLong { name: name.into() });
        }
        let mut bytes = Vec::new();
        self.content(&inode, name, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        let mut entries = Vec::new();
        for block in bytes.chunks(to_usize(self.block_size)?) {
            slots(block, &mut entries)?;
        }
        Ok(entries)
    }
}

fn refuse_features(block: &[u8]) -> Result<(), Damage> {
    let incompat = u32_at(block, 96).unwrap_or_default();
    let what = if incompat & RECOVER != 0 {
        "a file system that was not unmounted"
    } else if incompat & META_BG != 0 {
        "a file system with scattered group descriptors"
    } else if incompat & !KNOWN != 0 {
        "a file system with unknown features"
    } else {
        return Ok(());
    };
    Err(Damage::Feature { what: what.into() })
}

impl FileSystem for Volume<'_> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn is_labelled(&self, label: &str) -> Result<bool, Damage> {
        Ok(self.claims(label))
    }

    fn claims(&self, label: &str) -> bool {
        is_label(&self.label, label)
    }

    fn root(&self) -> Result<Vec<Entry>, Damage> {
        let entries = self.list(ROOT_INODE, "/")?;
        // mke2fs makes this folder for e2fsck.
        let is_own = |entry: &Entry| entry.name == "lost+found" && entry.kind == Kind::Folder;
        Ok(entries.into_iter().filter(|entry| !is_own(entry)).collect())
    }

    fn folder(&self, folder: &Entry) -> Result<Vec<Entry>, Damage> {
        self.list(folder.place, &folder.escaped())
    }

    fn size(&self, file: &Entry) -> Result<u64, Damage> {
        Ok(self.inode(file.place, &file.escaped())?.size)
    }

    fn read(&self, file: &Entry, limit: u64, sink: Sink<'_>) -> Result<(), Damage> {
        let name = file.escaped();
        let inode = self.inode(file.place, &name)?;
        if let Some(what) = other_kind(inode.mode) {
            return Err(Damage::NotAFile { name, what });
        }
        if inode.mode & 0o170_000 != 0o100_000 {
            return Err(Damage::NotAFile {
                name,
                what: "a folder",
            });
        }
        if inode.size > limit {
            return Err(Damage::TooLong {
                name,
                says: inode.size,
                limit,
            });
        }
        self.content(&inode, &name, sink)
    }
}

/// `ext4_dir_entry_2`, whose `name_len` is one byte.
fn slots(mut rest: &[u8], entries: &mut Vec<Entry>) -> Result<(), Damage> {
    let nonsense = || Damage::Nonsense { what: "folder" };
    while !rest.is_empty() {
        let number = u32_at(rest, 0).ok_or_else(nonsense)?;
        let length = usize::from(u16_at(rest, 4).ok_or_else(nonsense)?);
        let (slot, more) = rest
            .split_at_checked(length)
            .filter(|_| length >= 8 && length.is_multiple_of(4))
            .ok_or_else(nonsense)?;
        rest = more;
        let name_length = usize::from(slot.get(6).copied().unwrap_or_default());
        let name = slot.get(8..8 + name_length).ok_or_else(nonsense)?;
        if number == 0 || matches!(name, b"." | b"..") {
            continue;
        }
        let text = std::str::from_utf8(name).ok();
        let is_bad = |text: &&str| {
            text.is_empty() || text.contains(['/', '\0']) || text.chars().any(char::is_control)
        };
        let Some(text) = text.filter(|text| !is_bad(text)) else {
            let name = name.escape_ascii().to_string();
            return Err(Damage::BadName { name });
        };
        // The inode says it for certain; this is only the slot's opinion,
        // and names that are not ours need no inode.
        let kind = match slot.get(7) {
            Some(2) => Kind::Folder,
            Some(3 | 4) => Kind::Other("a device"),
            Some(5) => Kind::Other("a pipe"),
            Some(6) => Kind::Other("a socket"),
            Some(7) => Kind::Other("a symbolic link"),
            _ => Kind::File,
        };
        entries.push(Entry {
            name: text.to_owned(),
            kind,
            place: u64::from(number),
            size: 0,
        });
    }
    Ok(())
}

/// A file being passed on, block by block in order.
struct Content<'v, 's> {
    volume: &'v Volume<'v>,
    name: &'v str,
    /// Bytes that are still to come.
    left: u64,
    /// The file's next block.
    next: u64,
    /// Blocks of the tree that may still be read.
    tree_blocks: u64,
    sink: Sink<'s>,
}

impl Content<'_, '_> {
    fn lost(&self) -> Damage {
        Damage::BrokenChain {
            name: self.name.to_owned(),
        }
    }

    /// Passes on zeros up to the file's block `to`.
    fn hole(&mut self, to: u64) -> Result<(), Damage> {
        let blocks = to.checked_sub(self.next).ok_or_else(|| Damage::Loop {
            name: self.name.to_owned(),
        })?;
        let length = blocks.saturating_mul(self.volume.block_size).min(self.left);
        self.left -= length;
        self.next = to;
        pass_zeros(length, self.sink)
    }

    /// Passes on `count` blocks that begin at `start`.
    fn data(&mut self, start: u64, count: u64) -> Result<(), Damage> {
        let volume = self.volume;
        let at = volume.place(start, self.name)?;
        if start.saturating_add(count) > volume.blocks {
            return Err(self.lost());
        }
        let length = (count * volume.block_size).min(self.left);
        self.left -= length;
        self.next += count;
        pass(volume.disk, at, length, self.sink)
    }

    fn tree_block(&mut self, number: u64) -> Result<Vec<u8>, Damage> {
        self.tree_blocks = self
            .tree_blocks
            .checked_sub(1)
            .ok_or_else(|| Damage::Loop {
                name: self.name.to_owned(),
            })?;
        self.volume.block(number, self.name)
    }

    /// A node of the extent tree: a header, then extents or further nodes,
    /// which must come in the order of the file.
    fn extents(&mut self, node: &[u8], depth_limit: u16, is_root: bool) -> Result<(), Damage> {
        let half = |at| u16_at(node, at);
        let (Some(EXTENT_MAGIC), Some(count), Some(depth)) = (half(0), half(2), half(6)) else {
            return Err(self.lost());
        };
        let fits = 12 * (usize::from(count) + 1) <= node.len();
        let is_deeper = if is_root {
            depth <= depth_limit
        } else {
            depth == depth_limit
        };
        if !fits || !is_deeper {
            return Err(self.lost());
        }
        for at in 1..=usize::from(count) {
            if self.left == 0 {
                break;
            }
            let entry = node.get(12 * at..12 * at + 12).unwrap_or_default();
            let logical = u32_at(entry, 0).map_or(0, u64::from);
            if depth > 0 {
                let high = u16_at(entry, 8).map_or(0, u64::from);
                let low = u32_at(entry, 4).map_or(0, u64::from);
                let child = self.tree_block(high << 32 | low)?;
                self.extents(&child, depth - 1, false)?;
                continue;
            }
            let length = u16_at(entry, 4).map_or(0, u64::from);
            let high = u16_at(entry, 6).map_or(0, u64::from);
            let low = u32_at(entry, 8).map_or(0, u64::from);
            self.hole(logical)?;
            // Longer ones are allocated and not written: they read as zeros.
            match length {
                0 => return Err(self.lost()),
                1..=32_768 => self.data(high << 32 | low, length)?,
                _ => self.hole(logical + length - 32_768)?,
            }
        }
        Ok(())
    }

    /// Twelve blocks, then trees of one, two and three levels.
    fn block_map(&mut self, map: &[u8]) -> Result<(), Damage> {
        for (at, level) in (0..15).map(|at| (at, u32::saturating_sub(at, 11))) {
            let number = u32_at(map, 4 * usize::try_from(at).unwrap_or(0)).map_or(0, u64::from);
            self.pointer(number, level)?;
        }
        Ok(())
    }

    fn pointer(&mut self, number: u64, level: u32) -> Result<(), Damage> {
        if self.left == 0 {
            return Ok(());
        }
        let per_block = self.volume.block_size / 4;
        if number == 0 {
            let covered = per_block.saturating_pow(level);
            return self.hole(self.next.saturating_add(covered));
        }
        if level == 0 {
            return self.data(number, 1);
        }
        let block = self.tree_block(number)?;
        for entry in block.chunks_exact(4) {
            let number = u32_at(entry, 0).map_or(0, u64::from);
            self.pointer(number, level - 1)?;
        }
        Ok(())
    }
}
