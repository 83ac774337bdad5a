//! Extended attributes: from full names to entries in the inode and in a block.
//!
//! As many as fit go into the inode, in the order in which a block sorts
//! them; the rest goes into one block.
//!
//! Source: kernel documentation, "Extended Attributes"; `fs/ext4/xattr.c` for
//! the two hashes and the order, `fs/ext4/acl.h` for access control lists.

use std::collections::BTreeMap;

use super::checksum::Checksum;
use super::error::EntryProblem;
use super::format::{
    BLOCK_SIZE, Block, INLINE_XATTRS, XATTR_MAGIC, XattrBlockHead, XattrEntryHead, XattrIndex, put,
};

/// Inodes that may share one block.
pub(super) const MAX_SHARED: u32 = 1024;

/// Bytes of the magic number before the entries in an inode.
const INLINE_HEAD: usize = 4;
/// Bytes of zeros that end the list of entries.
const LIST_END: usize = 4;

/// The attributes of one inode, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredXattrs {
    /// What follows the inode's fields; all zeros when there is nothing.
    pub(super) inline: Option<Box<[u8; INLINE_XATTRS]>>,
    /// The block, but for the number of its users and its checksum.
    pub(super) block: Option<Box<Block>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    index: XattrIndex,
    /// Sorts before the name itself.
    name_length: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    /// Bytes of the entry, padded.
    fn entry_bytes(&self) -> usize {
        (size_of::<XattrEntryHead>() + self.name.len()).next_multiple_of(4)
    }

    /// Bytes of the value, padded.
    fn value_bytes(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }

    /// Shifts name and padded value into 32 bits: `ext4_xattr_hash_entry`.
    fn hash(&self) -> u32 {
        let named = self
            .name
            .iter()
            .fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value.chunks(4).fold(named, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// Decides where each attribute goes.
pub(super) fn store(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<StoredXattrs, EntryProblem> {
    let mut attributes = Vec::with_capacity(xattrs.len());
    for (name, value) in xattrs {
        attributes.push(attribute(name, value)?);
    }
    attributes.sort();
    let mut room = INLINE_XATTRS - INLINE_HEAD - LIST_END;
    let (inline, block): (Vec<_>, Vec<_>) = attributes.into_iter().partition(|attribute| {
        let needs = attribute.entry_bytes() + attribute.value_bytes();
        let fits = needs <= room;
        if fits {
            room -= needs;
        }
        fits
    });
    Ok(StoredXattrs {
        inline: (!inline.is_empty()).then(|| Box::new(inline_area(&inline))),
        block: if block.is_empty() {
            None
        } else {
            Some(block_of(&block)?)
        },
    })
}

/// Writes the number of users and the checksum into a block that will lie at `at`.
pub(super) fn seal(block: &mut Block, users: u32, at: u64, volume: Checksum) {
    put(block, 4, &zerocopy::little_endian::U32::from(users));
    let sum = volume.feed(&at.to_le_bytes()).feed(block.as_slice());
    put(block, 16, &zerocopy::little_endian::U32::from(sum.value()));
}

const _: () = {
    assert!(std::mem::offset_of!(XattrBlockHead, h_refcount) == 4);
    assert!(std::mem::offset_of!(XattrBlockHead, h_checksum) == 16);
};

fn attribute(full_name: &[u8], value: &[u8]) -> Result<Attribute, EntryProblem> {
    let printable = || {
        String::from_utf8_lossy(full_name)
            .escape_debug()
            .to_string()
    };
    let (index, name) =
        split_name(full_name).ok_or_else(|| EntryProblem::XattrName { name: printable() })?;
    let value = match index {
        XattrIndex::AclAccess | XattrIndex::AclDefault => {
            acl_on_disk(value).ok_or_else(|| EntryProblem::Acl { name: printable() })?
        }
        XattrIndex::User | XattrIndex::Trusted | XattrIndex::Security => value.to_vec(),
    };
    Ok(Attribute {
        index,
        name_length: name.len(),
        name: name.to_vec(),
        value,
    })
}

/// The prefix as a number, and the rest of the name.
fn split_name(full_name: &[u8]) -> Option<(XattrIndex, &[u8])> {
    match full_name {
        b"system.posix_acl_access" => return Some((XattrIndex::AclAccess, b"")),
        b"system.posix_acl_default" => return Some((XattrIndex::AclDefault, b"")),
        _ => {}
    }
    [
        (b"user.".as_slice(), XattrIndex::User),
        (b"trusted.", XattrIndex::Trusted),
        (b"security.", XattrIndex::Security),
    ]
    .into_iter()
    .find_map(|(prefix, index)| Some((index, full_name.strip_prefix(prefix)?)))
    .filter(|(_, name)| (1..=255).contains(&name.len()) && !name.contains(&0))
}

/// An access control list as ext4 keeps it: version 1, and no id for entries
/// that need none. `value` is in the kernel's form: version 2, eight bytes an
/// entry. `None` when it is damaged.
fn acl_on_disk(value: &[u8]) -> Option<Vec<u8>> {
    const KERNEL_VERSION: [u8; 4] = 2_u32.to_le_bytes();
    const DISK_VERSION: [u8; 4] = 1_u32.to_le_bytes();
    let entries = value.strip_prefix(&KERNEL_VERSION)?;
    if entries.is_empty() || !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut stored = DISK_VERSION.to_vec();
    for entry in entries.chunks_exact(8) {
        match entry {
            // ACL_USER and ACL_GROUP name someone.
            [0x02 | 0x08, 0, ..] => stored.extend_from_slice(entry),
            // ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER.
            [0x01 | 0x04 | 0x10 | 0x20, 0, ..] => stored.extend_from_slice(&entry[..4]),
            _ => return None,
        }
    }
    Some(stored)
}

/// The bytes behind an inode's fields. The entries fit: [`store`] counted.
fn inline_area(attributes: &[Attribute]) -> [u8; INLINE_XATTRS] {
    let mut area = [0; INLINE_XATTRS];
    put(
        &mut area,
        0,
        &zerocopy::little_endian::U32::from(XATTR_MAGIC),
    );
    // In an inode the hash is 0 and offsets count from the first entry.
    fill(&mut area[INLINE_HEAD..], 0, attributes, |_| 0);
    area
}

fn block_of(attributes: &[Attribute]) -> Result<Box<Block>, EntryProblem> {
    let needs = attributes
        .iter()
        .map(|attribute| attribute.entry_bytes() + attribute.value_bytes())
        .sum();
    let limit = BLOCK_SIZE - size_of::<XattrBlockHead>() - LIST_END;
    if needs > limit {
        return Err(EntryProblem::XattrsTooLarge { needs, limit });
    }
    let mut block = Box::new([0; BLOCK_SIZE]);
    let head = XattrBlockHead {
        h_magic: XATTR_MAGIC.into(),
        h_refcount: 0.into(),
        h_blocks: 1.into(),
        h_hash: block_hash(attributes).into(),
        h_checksum: 0.into(),
        h_reserved: [0.into(); 3],
    };
    put(block.as_mut_slice(), 0, &head);
    fill(
        block.as_mut_slice(),
        size_of::<XattrBlockHead>(),
        attributes,
        Attribute::hash,
    );
    Ok(block)
}

/// `ext4_xattr_rehash`: 0, which keeps the block from being shared, as soon as
/// one entry hashes to 0.
fn block_hash(attributes: &[Attribute]) -> u32 {
    attributes
        .iter()
        .map(Attribute::hash)
        .try_fold(0_u32, |hash, entry| {
            (entry != 0).then_some(hash.rotate_left(16) ^ entry)
        })
        .unwrap_or(0)
}

/// Entries from `first` upwards, values from the end downwards. Offsets of
/// values count from the start of `area`.
fn fill(area: &mut [u8], first: usize, attributes: &[Attribute], hash: impl Fn(&Attribute) -> u32) {
    let mut entry_at = first;
    let mut value_at = area.len();
    for attribute in attributes {
        value_at -= attribute.value_bytes();
        let offset = if attribute.value.is_empty() {
            0
        } else {
            value_at
        };
        let head = XattrEntryHead {
            e_name_len: u8::try_from(attribute.name.len()).expect("at most 255: split_name"),
            e_name_index: attribute.index as u8,
            e_value_offs: u16::try_from(offset)
                .expect("below the size of a block")
                .into(),
            e_value_inum: 0.into(),
            e_value_size: u32::try_from(attribute.value.len())
                .expect("below the size of a block")
                .into(),
            e_hash: hash(attribute).into(),
        };
        put(area, entry_at, &head);
        put(
            area,
            entry_at + size_of::<XattrEntryHead>(),
            attribute.name.as_slice(),
        );
        put(area, value_at, attribute.value.as_slice());
        entry_at += attribute.entry_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(pairs: &[(&str, &[u8])]) -> Result<StoredXattrs, EntryProblem> {
        store(
            &pairs
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
                .collect(),
        )
    }

    #[test]
    fn small_attributes_stay_in_the_inode() {
        let both = stored(&[("user.a", b"1"), ("security.capability", &[7; 20])]).expect("fits");
        assert!(both.block.is_none());
        let area = both.inline.expect("in the inode");
        assert_eq!(area[..4], XATTR_MAGIC.to_le_bytes());
        // user.a: name length 1, index 1, value at the end, 1 byte.
        assert_eq!(area[4..14], [1, 1, 88, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(area[92], b'1');
    }

    #[test]
    fn what_does_not_fit_goes_into_the_block() {
        let both = stored(&[("user.a", b"1"), ("user.big", &[9; 1000])]).expect("fits");
        assert!(both.inline.is_some() && both.block.is_some());
        assert_eq!(
            stored(&[("user.big", &[9; 5000])]),
            Err(EntryProblem::XattrsTooLarge {
                needs: 5020,
                limit: 4060
            })
        );
    }

    #[test]
    fn unknown_prefixes_are_refused() {
        for name in ["system.nfs4_acl", "user.", "btrfs.compression", "user"] {
            assert!(
                matches!(stored(&[(name, b"")]), Err(EntryProblem::XattrName { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn an_acl_loses_the_ids_that_nobody_needs() {
        let kernel: Vec<u8> = [
            &[2, 0, 0, 0][..],
            &[1, 0, 7, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 232, 3, 0, 0],
            &[4, 0, 5, 0, 255, 255, 255, 255],
        ]
        .concat();
        assert_eq!(
            acl_on_disk(&kernel),
            Some(vec![
                1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 6, 0, 232, 3, 0, 0, 4, 0, 5, 0
            ])
        );
        assert_eq!(acl_on_disk(&kernel[..kernel.len() - 1]), None);
        assert_eq!(acl_on_disk(&[1, 0, 0, 0]), None);
    }
}
