//! One header block, and the fields of a pax header.

use std::collections::BTreeMap;
use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{TarFault, XATTR_KEY, escape_bytes};
use crate::units::Timestamp;

/// POSIX.1-2017 `pax`, "ustar Interchange Format".
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) name: [u8; 100],
    pub(super) mode: [u8; 8],
    pub(super) uid: [u8; 8],
    pub(super) gid: [u8; 8],
    pub(super) size: [u8; 12],
    pub(super) mtime: [u8; 12],
    pub(super) chksum: [u8; 8],
    pub(super) typeflag: u8,
    pub(super) linkname: [u8; 100],
    /// `ustar\0` and `00`, or GNU's `ustar  \0`.
    pub(super) magic: [u8; 8],
    pub(super) uname: [u8; 32],
    pub(super) gname: [u8; 32],
    pub(super) devmajor: [u8; 8],
    pub(super) devminor: [u8; 8],
    pub(super) prefix: [u8; 155],
    pub(super) pad: [u8; 12],
}

const _: () = {
    assert!(size_of::<Header>() == 512);
    assert!(offset_of!(Header, chksum) == 148);
    assert!(offset_of!(Header, magic) == 257);
    assert!(offset_of!(Header, prefix) == 345);
};

/// `magic` and `version` of POSIX.
pub(super) const MAGIC_USTAR: &[u8; 8] = b"ustar\x0000";
/// The same of GNU tar, which has no `prefix`.
pub(super) const MAGIC_GNU: &[u8; 8] = b"ustar  \0";

impl Header {
    /// The sum that belongs into `chksum`: all bytes, `chksum` as spaces.
    pub(super) fn sum(&self) -> u64 {
        let at = offset_of!(Self, chksum);
        let bytes = self.as_bytes();
        let all: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = bytes
            .iter()
            .skip(at)
            .take(8)
            .map(|byte| u64::from(*byte))
            .sum();
        all - own + 8 * u64::from(b' ')
    }

    /// The name, prefix included.
    pub(super) fn full_name(&self) -> Vec<u8> {
        let name = text(&self.name);
        let prefix = text(&self.prefix);
        if &self.magic == MAGIC_USTAR && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }
}

/// The bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    field.split_at(end).0
}

/// A number: octal with leading spaces and a NUL or space after it, or
/// base-256 with the top bit set (GNU). An empty field is 0.
pub(super) fn number(field: &[u8], what: &'static str) -> Result<i64, TarFault> {
    let wrong = || TarFault::Number(what);
    let first = *field.first().ok_or_else(wrong)?;
    if first & 0x80 != 0 {
        // Two's complement over the bits after the mark.
        let mut value: i128 = if first & 0x40 == 0 { 0 } else { -1 };
        value = (value << 6) | i128::from(first & 0x3f);
        for byte in field.iter().skip(1) {
            value = (value << 8) | i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| wrong());
    }
    let digits = text(field).trim_ascii();
    let mut value: i64 = 0;
    for byte in digits {
        let digit = char::from(*byte).to_digit(8).ok_or_else(wrong)?;
        value = value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit)))
            .ok_or_else(wrong)?;
    }
    Ok(value)
}

/// What pax headers say about the next member.
#[derive(Debug, Default)]
pub(super) struct PaxFields {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl PaxFields {
    /// Reads the records `LENGTH KEY=VALUE\n`.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, TarFault> {
        let mut fields = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or(TarFault::Pax)?;
            fields.set(key, value)?;
            bytes = rest;
        }
        Ok(fields)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarFault> {
        let once = |seen: bool| if seen { Err(TarFault::Pax) } else { Ok(()) };
        match key {
            b"path" => {
                once(self.path.is_some())?;
                self.path = Some(clean(value)?);
            }
            b"linkpath" => {
                once(self.linkpath.is_some())?;
                self.linkpath = Some(clean(value)?);
            }
            b"size" => {
                once(self.size.is_some())?;
                self.size = Some(decimal(value).ok_or(TarFault::Number("size"))?);
            }
            b"uid" => self.uid = Some(id(value).ok_or(TarFault::Number("uid"))?),
            b"gid" => self.gid = Some(id(value).ok_or(TarFault::Number("gid"))?),
            b"mtime" => self.mtime = Some(time(value).ok_or(TarFault::Number("mtime"))?),
            // Not kept: numeric ids count, and only one time is stored.
            b"uname" | b"gname" | b"atime" | b"ctime" | b"comment" | b"charset" | b"hdrcharset" => {
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_KEY) {
                    once(self.xattrs.insert(clean(name)?, value.to_vec()).is_some())?;
                } else if key.starts_with(b"GNU.sparse.") {
                    return Err(TarFault::Sparse);
                } else if !key.contains(&b'.') {
                    // Keys without a vendor's prefix are the standard's own.
                    return Err(TarFault::PaxKey(escape_bytes(key)));
                }
            }
        }
        Ok(())
    }
}

/// The first record, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let (digits, _) = bytes.split_at(space);
    let length = usize::try_from(decimal(digits)?).ok()?;
    let (whole, rest) = bytes.split_at_checked(length)?;
    let body = whole.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = body.split_at(equals);
    (!key.is_empty()).then_some((key, value.strip_prefix(b"=")?, rest))
}

fn clean(value: &[u8]) -> Result<Vec<u8>, TarFault> {
    if value.is_empty() || value.contains(&0) {
        Err(TarFault::Pax)
    } else {
        Ok(value.to_vec())
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn id(digits: &[u8]) -> Option<u32> {
    u32::try_from(decimal(digits)?).ok()
}

/// `[-]SECONDS[.FRACTION]`; digits after the ninth are dropped.
fn time(value: &[u8]) -> Option<Timestamp> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0;
    if let Some(fraction) = parts.next() {
        decimal(fraction)?;
        for at in 0..9 {
            let digit = fraction.get(at).copied().unwrap_or(b'0');
            nanos = nanos * 10 + u32::from(digit - b'0');
        }
    }
    Some(match (negative, nanos) {
        (false, _) => Timestamp { seconds, nanos },
        (true, 0) => Timestamp::from_seconds(-seconds),
        (true, _) => Timestamp {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// One pax record with its own length in front.
pub(super) fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // The length counts its own digits, so it is found by trying.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} ").into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000755\0", "mode").ok(), Some(0o755));
        assert_eq!(number(b"   755 \0", "mode").ok(), Some(0o755));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0", "mode").ok(), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0", "size").ok(), Some(256));
        assert_eq!(number(&[0xff; 12], "mtime").ok(), Some(-1));
        assert!(number(b"0000798\0", "mode").is_err());
        assert!(number(b"-000001\0", "mode").is_err());
        assert!(number(&[0xbf; 12], "size").is_err());
    }

    #[test]
    fn a_pax_record_counts_its_own_length() {
        for length in [0, 1, 4, 5, 6, 90, 91, 92, 93, 986, 987, 988, 989, 990] {
            let value = vec![b'v'; length];
            let bytes = pax_record(b"path", &value);
            let (key, found, rest) = record(&bytes).expect("a record");
            assert_eq!((key, found, rest), (&b"path"[..], &value[..], &b""[..]));
        }
    }

    #[test]
    fn pax_times_reach_before_the_epoch() {
        let at = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanos));
        assert_eq!(at("12.5"), Some((12, 500_000_000)));
        assert_eq!(at("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at("1.2345678912345"), Some((1, 234_567_891)));
        assert_eq!(at("1."), None);
        assert_eq!(at(""), None);
    }

    #[test]
    fn malformed_records_are_errors() {
        for bytes in [
            &b"6 a=b"[..],
            b"99 path=x\n",
            b"x path=x\n",
            b"10 path=x\n\n",
            b"8 path=x\n",
            b"5 =x\n",
            b"4 a\n",
        ] {
            assert!(PaxFields::parse(bytes).is_err(), "{}", escape_bytes(bytes));
        }
    }
}
