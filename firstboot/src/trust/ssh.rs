//! Keys and signatures of OpenSSH.
//!
//! Source: OpenSSH `PROTOCOL.sshsig`, RFC 8709 section 4, RFC 4251 section 5.

use sha2::{Digest as _, Sha256, Sha512};

use super::{Key, SignatureError};
use crate::base64;

const KIND: &[u8] = b"ssh-ed25519";
const MAGIC: &[u8; 6] = b"SSHSIG";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// The strings of the wire format, each with its length before it.
struct Wire<'b>(&'b [u8]);

impl<'b> Wire<'b> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    fn string(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// A string of the wire format: its length, then its bytes.
fn put_string(bytes: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).expect("a few bytes");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(string);
}

fn blob(key: &[u8; 32]) -> Vec<u8> {
    let mut blob = Vec::new();
    put_string(&mut blob, KIND);
    put_string(&mut blob, key);
    blob
}

fn read_blob(blob: &[u8]) -> Option<Key> {
    let mut wire = Wire(blob);
    if wire.string()? != KIND {
        return None;
    }
    let bytes = *wire.string()?.as_array()?;
    wire.end()?;
    Some(Key { bytes, id: None })
}

pub(super) fn parse_key(text: &str) -> Option<Key> {
    let mut words = text.split_ascii_whitespace();
    if words.next()?.as_bytes() != KIND {
        return None;
    }
    read_blob(&base64::decode(words.next()?)?)
}

pub(super) fn key_line(key: &[u8; 32]) -> String {
    format!("ssh-ed25519 {}", base64::encode(&blob(key)))
}

pub(super) fn fingerprint(key: &[u8; 32]) -> String {
    format!("SHA256:{}", base64::encode_bare(&Sha256::digest(blob(key))))
}

pub(super) fn is_signature(text: &str) -> bool {
    text.trim_start().starts_with(BEGIN)
}

struct Parsed {
    key: Key,
    purpose: Vec<u8>,
    reserved: Vec<u8>,
    hash: Vec<u8>,
    signature: [u8; 64],
}

fn parse(text: &str) -> Option<Parsed> {
    let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    let bytes = base64::decode(&body)?;
    let mut wire = Wire(bytes.strip_prefix(MAGIC)?);
    if wire.u32()? != 1 {
        return None;
    }
    let key = read_blob(wire.string()?)?;
    let purpose = wire.string()?.to_vec();
    let reserved = wire.string()?.to_vec();
    let hash = wire.string()?.to_vec();
    let mut signature = Wire(wire.string()?);
    wire.end()?;
    if signature.string()? != KIND {
        return None;
    }
    let bytes = *signature.string()?.as_array()?;
    signature.end()?;
    Some(Parsed {
        key,
        purpose,
        reserved,
        hash,
        signature: bytes,
    })
}

pub(super) fn carried_key(text: &str) -> Result<Key, SignatureError> {
    parse(text)
        .map(|parsed| parsed.key)
        .ok_or(SignatureError::Form)
}

pub(super) fn verify(
    message: &[u8],
    text: &str,
    purpose: &str,
    keys: &[Key],
) -> Result<Key, SignatureError> {
    let parsed = parse(text).ok_or(SignatureError::Form)?;
    if parsed.purpose != purpose.as_bytes() {
        return Err(SignatureError::Purpose);
    }
    // A key counts by its bytes, in whichever form it was enrolled.
    let known = keys.iter().find(|key| key.bytes == parsed.key.bytes);
    let known = known.ok_or(SignatureError::UnknownKey)?;
    let hash = match parsed.hash.as_slice() {
        b"sha512" => Sha512::digest(message).to_vec(),
        b"sha256" => Sha256::digest(message).to_vec(),
        _ => return Err(SignatureError::Form),
    };
    let mut signed = MAGIC.to_vec();
    for string in [&parsed.purpose, &parsed.reserved, &parsed.hash, &hash] {
        put_string(&mut signed, string);
    }
    if known.checks(&signed, &parsed.signature) {
        Ok(*known)
    } else {
        Err(SignatureError::Wrong)
    }
}
