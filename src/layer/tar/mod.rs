//! Tar streams: layers as OCI knows them, and the archives in Debian packages.
//!
//! In: bytes from outside, or entries in order. Out: members one by one, a
//! [`TreeDelta`](crate::tree::TreeDelta) whose contents point into the
//! uncompressed file, or a stream whose bytes depend on the entries only.
//! Never here: compression, extraction.
//!
//! Malformed means error, never skip: two readers that disagree about one
//! byte see two different archives (CVE-2025-62518). Nothing is allocated
//! from a number in the input beyond the caps below.
//!
//! Sources: POSIX.1-2017 `pax` (ustar and pax headers), GNU tar manual
//! (`L` and `K` members, base-256 numbers), OCI image specification, `layer.md`
//! (whiteouts), star(5) (`SCHILY.xattr`).

mod delta;
mod header;
mod holes;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::io;

use crate::units::Timestamp;

pub use delta::{Form, Selection, read_delta, read_selected};
pub(crate) use holes::SparseFile;
pub use reader::{End, MemberReader};
pub use writer::{TarSum, TarWriter, write_delta};

/// Length of a header, and the unit of everything else.
const BLOCK: u64 = 512;
/// The same as a length in memory.
const BLOCK_LEN: usize = 512;
/// Longest path or link target: what Linux accepts (`PATH_MAX`).
const MAX_NAME: u64 = 4096;
/// Longest pax header: room for 64 KiB of xattrs in their longest form.
const MAX_PAX: u64 = 1 << 20;
/// Prefix of a whiteout's last component.
const WHITEOUT: &[u8] = b".wh.";
/// Last component of the marker that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of the pax keys that hold extended attributes.
const XATTR_KEY: &[u8] = b"SCHILY.xattr.";

/// One member: everything that its headers say. Its content follows in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name as it stands there, any bytes but NUL.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Low 12 bits of the mode.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of last change.
    pub mtime: Timestamp,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of content.
    pub size: u64,
    /// Where the content begins in the stream.
    pub offset: u64,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in tree::NodeKind")]
pub enum MemberKind {
    File,
    Directory,
    /// With its target.
    Symlink(Vec<u8>),
    /// With the name of the member that it is another name of.
    HardLink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// What is wrong with a tar stream, and with which member.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", place(member, *offset))]
pub struct TarError {
    /// Name of the member, escaped; empty before it is known.
    pub member: String,
    /// Where in the stream the member's header is.
    pub offset: u64,
    /// What is wrong.
    #[source]
    pub fault: TarFault,
}

fn place(member: &str, offset: u64) -> String {
    if member.is_empty() {
        format!("the member at byte {offset}")
    } else {
        format!("member `{member}`")
    }
}

/// Kinds of damage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TarFault {
    #[error("the stream breaks")]
    Read(#[source] io::Error),
    #[error("the archive ends in the middle")]
    Truncated,
    #[error("the archive ends without its two empty blocks")]
    NoEnd,
    #[error("there are bytes after the end of the archive")]
    AfterEnd,
    #[error("the header's checksum does not fit")]
    Checksum,
    #[error("this is not a tar header (no `ustar` mark)")]
    NotTar,
    #[error("the header field `{0}` is not a number in range")]
    Number(&'static str),
    #[error("type `{}` is not supported", char::from(*.0).escape_default())]
    Kind(u8),
    #[error(
        "sparse members are not supported; pack it without `--sparse`, since long runs of zeros \
         become holes in any case"
    )]
    Sparse,
    #[error("the pax header is malformed")]
    Pax,
    #[error("the pax key `{0}` is not known")]
    PaxKey(String),
    #[error("an extended header is longer than {0} bytes")]
    TooLong(u64),
    #[error("an extended header describes no member")]
    Orphan,
    #[error("the name is empty")]
    NoName,
    #[error("a link or a special file has content")]
    ContentOnLink,
    #[error("{0}")]
    Path(crate::tree::PathError),
    #[error("the target of the hard link is not a path in the image: {0}")]
    LinkPath(crate::tree::PathError),
    #[error("it is in the archive twice")]
    Duplicate,
    #[error("the whiteout names nothing that can be removed")]
    Whiteout,
    #[error("the hard link points at a member that is left out")]
    LinkToNothing,
    #[error("the hard link points at itself")]
    SelfLink,
    #[error("{0}")]
    Tree(crate::tree::TreeError),
    #[error("the content has {found} bytes, and {expected} were announced")]
    Length { expected: u64, found: u64 },
    #[error("a socket cannot be stored in a tar stream")]
    Socket,
}

/// Bytes from outside, fit for a message: what is not printable text is escaped.
#[must_use]
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    text
}
