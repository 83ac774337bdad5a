//! Keys and signatures of minisign.
//!
//! Source: minisign(1), sections "Notes" and "Signature format". Both kinds
//! are taken: `Ed` over the file, `ED` over its BLAKE2b-512.

use super::{Key, SignatureError, blake2b};
use crate::base64;

const COMMENT: &str = "untrusted comment:";
const TRUSTED: &str = "trusted comment: ";

pub(super) fn parse_key(text: &str) -> Option<Key> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.find(|line| !line.starts_with(COMMENT))?;
    let bytes = base64::decode(line)?;
    let (head, key) = bytes.split_at_checked(10)?;
    let id = head.strip_prefix(b"Ed")?;
    Some(Key {
        bytes: *key.as_array()?,
        id: Some(*id.as_array()?),
    })
}

pub(super) fn key_line(id: [u8; 8], key: &[u8; 32]) -> String {
    base64::encode(&[b"Ed".as_slice(), &id, key].concat())
}

struct Parsed<'t> {
    is_hashed: bool,
    id: [u8; 8],
    signature: [u8; 64],
    comment: &'t str,
    comment_signature: [u8; 64],
}

fn parse(text: &str) -> Option<Parsed<'_>> {
    let mut lines = text.lines();
    lines.next()?.strip_prefix(COMMENT)?;
    let bytes = base64::decode(lines.next()?.trim_end())?;
    let (head, signature) = bytes.split_at_checked(10)?;
    let (kind, id) = head.split_at(2);
    let comment = lines.next()?.strip_prefix(TRUSTED)?;
    let comment_signature = base64::decode(lines.next()?.trim_end())?;
    if lines.any(|line| !line.trim().is_empty()) {
        return None;
    }
    Some(Parsed {
        is_hashed: match kind {
            b"ED" => true,
            b"Ed" => false,
            _ => return None,
        },
        id: *id.as_array()?,
        signature: *signature.as_array()?,
        comment: comment.trim_end_matches('\r'),
        comment_signature: *comment_signature.as_array()?,
    })
}

pub(super) fn verify(message: &[u8], text: &str, keys: &[Key]) -> Result<Key, SignatureError> {
    let parsed = parse(text).ok_or(SignatureError::Form)?;
    let known = keys.iter().find(|key| key.id == Some(parsed.id));
    let known = known.ok_or(SignatureError::UnknownKey)?;
    let is_signed = if parsed.is_hashed {
        known.checks(&blake2b::digest(message), &parsed.signature)
    } else {
        known.checks(message, &parsed.signature)
    };
    let with_comment = [parsed.signature.as_slice(), parsed.comment.as_bytes()].concat();
    if is_signed && known.checks(&with_comment, &parsed.comment_signature) {
        Ok(*known)
    } else {
        Err(SignatureError::Wrong)
    }
}
