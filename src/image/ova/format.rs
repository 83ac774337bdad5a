//! The header of a ustar member, as far as packages need it.
//!
//! Source: POSIX.1-1988, section 10.1.1, as repeated in pax(1p). Narrower:
//! regular files in no folder, owners and times always the same.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Headers and contents are in blocks of this many bytes.
pub(crate) const BLOCK: u64 = 512;
/// `magic`, with its NUL, and `version`.
pub(crate) const MAGIC: [u8; 8] = *b"ustar\x0000";
/// Lengths of eleven octal digits.
const LONGEST: u64 = 0o777_7777_7777;
/// `typeflag` of a regular file.
pub(crate) const REGULAR: u8 = b'0';

/// One header block. Numbers are octal digits with a NUL behind them.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct UstarHeader {
    pub name: [u8; 100],
    pub mode: [u8; 8],
    pub uid: [u8; 8],
    pub gid: [u8; 8],
    pub size: [u8; 12],
    pub mtime: [u8; 12],
    pub chksum: [u8; 8],
    pub typeflag: u8,
    pub linkname: [u8; 100],
    pub magic: [u8; 8],
    pub uname: [u8; 32],
    pub gname: [u8; 32],
    pub devmajor: [u8; 8],
    pub devminor: [u8; 8],
    pub prefix: [u8; 155],
    pub pad: [u8; 12],
}

const _: () = {
    assert!(size_of::<UstarHeader>() == 512);
    assert!(std::mem::offset_of!(UstarHeader, size) == 124);
    assert!(std::mem::offset_of!(UstarHeader, chksum) == 148);
    assert!(std::mem::offset_of!(UstarHeader, magic) == 257);
    assert!(std::mem::offset_of!(UstarHeader, prefix) == 345);
};

impl UstarHeader {
    /// The header of a file of `length` bytes that everybody may read: of
    /// nobody in particular, of the beginning of time. `None` for what it
    /// cannot hold: a name with a folder or of more than 99 bytes, a file of
    /// 8 GiB or more.
    pub(crate) fn new(name: &str, length: u64) -> Option<Self> {
        let is_plain = !name.is_empty() && name.len() < 100 && !name.contains(['/', '\0']);
        if !is_plain || length > LONGEST {
            return None;
        }
        let mut header = Self {
            name: [0; 100],
            mode: *b"0000644\0",
            uid: *b"0000000\0",
            gid: *b"0000000\0",
            size: [0; 12],
            mtime: *b"00000000000\0",
            chksum: [b' '; 8],
            typeflag: REGULAR,
            linkname: [0; 100],
            magic: MAGIC,
            uname: [0; 32],
            gname: [0; 32],
            devmajor: *b"0000000\0",
            devminor: *b"0000000\0",
            prefix: [0; 155],
            pad: [0; 12],
        };
        header.name[..name.len()].copy_from_slice(name.as_bytes());
        header.size[..11].copy_from_slice(format!("{length:011o}").as_bytes());
        let sum = format!("{:06o}\0 ", header.sum());
        header.chksum.copy_from_slice(sum.as_bytes());
        Some(header)
    }

    /// The sum of all bytes, those of the sum itself taken as spaces.
    pub(crate) fn sum(&self) -> u32 {
        let blank = Self {
            chksum: [b' '; 8],
            ..*self
        };
        blank.as_bytes().iter().map(|byte| u32::from(*byte)).sum()
    }
}

/// The number in a field of octal digits, with spaces or NULs around them.
pub(crate) fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(['\0', ' ']);
    let is_octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    u64::from_str_radix(digits, 8).ok().filter(|_| is_octal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_was_put_in() {
        let header = UstarHeader::new("wiki.ovf", 0o1234).expect("a header");
        assert!(header.name.starts_with(b"wiki.ovf\0"));
        assert_eq!(octal(&header.size), Some(0o1234));
        assert_eq!(octal(&header.chksum), Some(header.sum().into()));
    }

    #[test]
    fn what_a_header_cannot_hold_is_refused() {
        let long = "x".repeat(100);
        for name in ["", "a/b", long.as_str()] {
            assert!(UstarHeader::new(name, 0).is_none(), "{name}");
        }
        assert!(UstarHeader::new("a", 8 << 30).is_none());
        assert!(UstarHeader::new("a", (8 << 30) - 1).is_some());
    }

    #[test]
    fn numbers_are_octal_digits_only() {
        assert_eq!(octal(b"0000017\0"), Some(15));
        assert_eq!(octal(b" 17 \0\0"), Some(15));
        for bad in [&b"\0\0"[..], b"18", b"1 7", b"-1", b"+1", b"\x80\0\0\x01"] {
            assert_eq!(octal(bad), None, "{bad:?}");
        }
    }
}
