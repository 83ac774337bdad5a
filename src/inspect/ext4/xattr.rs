//! Extended attributes: in the inode, then in a block of their own.

use zerocopy::FromBytes as _;

use super::{Ext4, InspectError, Node, Sum, damaged, unsupported};
use crate::fs::ext4::format::{XATTR_MAGIC, XattrBlockHead, XattrEntryHead};

const HEAD: usize = size_of::<XattrEntryHead>();
/// Bytes of the head of an attribute block.
const BLOCK_HEAD: usize = size_of::<XattrBlockHead>();

type Xattr = (Vec<u8>, Vec<u8>);

impl Ext4 {
    pub(super) fn xattrs(&self, node: &Node) -> Result<Vec<Xattr>, InspectError> {
        let mut xattrs = Vec::new();
        if node.bytes.len() > 128 {
            let start = 128 + usize::from(node.inode.i_extra_isize.get());
            let Some(room) = node.bytes.get(start..) else {
                return damaged("an inode's second half is too long");
            };
            if room.starts_with(&XATTR_MAGIC.to_le_bytes()) {
                // Values are counted from the first entry on.
                read(&room[4..], 0, &mut xattrs)?;
            }
        }
        let acl = u64::from(node.inode.l_i_file_acl_high.get()) << 32
            | u64::from(node.inode.i_file_acl_lo.get());
        if acl != 0 {
            let block = self.read_block(acl)?;
            self.check_block(acl, &block)?;
            read(&block, BLOCK_HEAD, &mut xattrs)?;
        }
        Ok(xattrs)
    }

    fn check_block(&self, number: u64, block: &[u8]) -> Result<(), InspectError> {
        if !block.starts_with(&XATTR_MAGIC.to_le_bytes()) {
            return damaged("an attribute block has another signature");
        }
        if self.has_sums {
            let mut unsummed = block.to_vec();
            unsummed[16..20].fill(0);
            let sum: Sum = self.seed.with(&number.to_le_bytes()).with(&unsummed);
            if sum.0.to_le_bytes() != block[16..20] {
                return damaged("an attribute block's sum is wrong");
            }
        }
        Ok(())
    }
}

/// Reads the entries of `room` from byte `at` on; values are counted from its
/// beginning.
fn read(room: &[u8], mut at: usize, xattrs: &mut Vec<Xattr>) -> Result<(), InspectError> {
    const BAD: &str = "an attribute is impossible";
    // Values lie side by side: else a block could hold its own length many times.
    let mut left = room.len();
    loop {
        let Some(rest) = room.get(at..) else {
            return damaged(BAD);
        };
        if rest.len() < 4 || rest[..4] == [0; 4] {
            return Ok(());
        }
        let Ok((entry, behind)) = XattrEntryHead::read_from_prefix(rest) else {
            return damaged(BAD);
        };
        if entry.e_value_inum.get() != 0 {
            return unsupported("an attribute in an inode of its own");
        }
        let Some(name) = behind.get(..usize::from(entry.e_name_len)) else {
            return damaged(BAD);
        };
        let start = usize::from(entry.e_value_offs.get());
        let length = entry.e_value_size.get() as usize;
        let value = if length == 0 {
            Some(&[][..])
        } else {
            room.get(start..start.saturating_add(length))
        };
        let (Some(value), Some(prefix)) = (value, prefix(entry.e_name_index)) else {
            return damaged(BAD);
        };
        let Some(less) = left.checked_sub(value.len()) else {
            return damaged("attributes share their bytes");
        };
        left = less;
        xattrs.push(([prefix.as_bytes(), name].concat(), value.to_vec()));
        at += (HEAD + name.len()).next_multiple_of(4);
    }
}

/// What a name begins with.
fn prefix(index: u8) -> Option<&'static str> {
    Some(match index {
        0 => "",
        1 => "user.",
        2 => "system.posix_acl_access",
        3 => "system.posix_acl_default",
        4 => "trusted.",
        6 => "security.",
        7 => "system.",
        8 => "system.richacl",
        _ => return None,
    })
}
