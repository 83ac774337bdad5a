//! The machine's SSH host key: made once, kept on `/var`, never in an image.
//!
//! Source: OpenSSH `PROTOCOL.key` (the private key's file), RFC 8709 section
//! 4 (Ed25519 keys), RFC 4251 section 5 (strings). No passphrase: sshd reads
//! it without anybody there.

use std::io;

use ed25519_dalek::SigningKey;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};

use crate::base64;
use crate::root::{Access, Change, Root};

/// The private key; `HostKey` of our sshd drop-in names it.
pub const PRIVATE: &str = "/var/lib/consign/ssh/ssh_host_ed25519_key";
/// The public key.
pub const PUBLIC: &str = "/var/lib/consign/ssh/ssh_host_ed25519_key.pub";
const FOLDER: &str = "/var/lib/consign/ssh";
const KIND: &[u8] = b"ssh-ed25519";
const COMMENT: &[u8] = b"appliance";
/// A key file is never larger.
const MAX_KEY: usize = 16 * 1024;

/// Makes the key where there is none.
///
/// # Errors
///
/// What the system reports.
pub fn settle(root: &Root) -> io::Result<Change> {
    let is_there = |path| {
        root.read(path, MAX_KEY)
            .map(|bytes| bytes.is_some_and(|bytes| !bytes.is_empty()))
    };
    if is_there(PRIVATE)? && is_there(PUBLIC)? {
        return Ok(Change::Same);
    }
    // The public key is written last: with it, the pair is whole.
    let mut chance = [0; 36];
    fill(&mut chance)?;
    let (seed, check) = chance.split_first_chunk::<32>().expect("36 bytes");
    let key = SigningKey::from_bytes(seed);
    let check = check.first_chunk::<4>().expect("4 bytes after 32");
    root.put_directory(FOLDER, Access::own(0o755))?;
    root.put(
        PRIVATE,
        private_file(&key, *check).as_bytes(),
        Access::own(0o600),
    )?;
    root.put(PUBLIC, public_file(&key).as_bytes(), Access::own(0o644))?;
    Ok(Change::Written)
}

/// The fingerprint as ssh shows it at the first connection; `None` where
/// there is no key yet.
pub fn fingerprint(root: &Root) -> Option<String> {
    let text = root.read_text(PUBLIC, MAX_KEY).ok()?;
    let blob = base64::decode(text.split(' ').nth(1)?)?;
    let digest = base64::encode(&Sha256::digest(blob));
    Some(format!("SHA256:{}", digest.trim_end_matches('=')))
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(())
}

/// A string of the wire format: its length, then its bytes.
fn put_string(bytes: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).expect("a few bytes");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(string);
}

fn public_blob(key: &SigningKey) -> Vec<u8> {
    let mut blob = Vec::new();
    put_string(&mut blob, KIND);
    put_string(&mut blob, key.verifying_key().as_bytes());
    blob
}

fn public_file(key: &SigningKey) -> String {
    let kind = String::from_utf8_lossy(KIND);
    let comment = String::from_utf8_lossy(COMMENT);
    format!("{kind} {} {comment}\n", base64::encode(&public_blob(key)))
}

fn private_file(key: &SigningKey, check: [u8; 4]) -> String {
    let mut inner = [check, check].concat();
    put_string(&mut inner, KIND);
    put_string(&mut inner, key.verifying_key().as_bytes());
    put_string(&mut inner, &key.to_keypair_bytes());
    put_string(&mut inner, COMMENT);
    // Padded to the cipher's block, which is 8 without one, by 1, 2, 3...
    for byte in 1_u8.. {
        if inner.len().is_multiple_of(8) {
            break;
        }
        inner.push(byte);
    }
    let mut blob = b"openssh-key-v1\0".to_vec();
    put_string(&mut blob, b"none");
    put_string(&mut blob, b"none");
    put_string(&mut blob, b"");
    blob.extend_from_slice(&1_u32.to_be_bytes());
    put_string(&mut blob, &public_blob(key));
    put_string(&mut blob, &inner);
    let body = base64::encode(&blob);
    let lines = body.as_bytes().chunks(70).map(String::from_utf8_lossy);
    let mut text = "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text + "-----END OPENSSH PRIVATE KEY-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    #[test]
    fn each_machine_makes_its_key_once() {
        let (one, two) = (Folder::new(), Folder::new());
        assert_eq!(settle(&one.root).expect("made"), Change::Written);
        assert_eq!(settle(&two.root).expect("made"), Change::Written);
        let key = one.text(PRIVATE);
        assert_ne!(key, two.text(PRIVATE));
        assert_eq!(settle(&one.root).expect("kept"), Change::Same);
        assert_eq!(one.text(PRIVATE), key);
    }

    #[test]
    fn a_key_of_which_only_one_half_was_written_is_made_again() {
        let folder = Folder::new();
        settle(&folder.root).expect("made");
        std::fs::remove_file(folder.path().join(&PUBLIC[1..])).expect("removed");
        assert_eq!(settle(&folder.root).expect("made"), Change::Written);
        assert!(fingerprint(&folder.root).is_some());
    }

    #[test]
    #[expect(
        clippy::disallowed_types,
        clippy::disallowed_methods,
        reason = "tests run other people's programs, and CI must have them"
    )]
    fn ssh_keygen_reads_the_key_and_agrees_on_the_fingerprint() {
        let folder = Folder::new();
        settle(&folder.root).expect("made");
        let private = folder.path().join(&PRIVATE[1..]);
        let keygen = |args: &[&str]| {
            std::process::Command::new("ssh-keygen")
                .args(args)
                .arg("-f")
                .arg(&private)
                .output()
        };
        let Ok(public) = keygen(&["-y", "-P", ""]) else {
            assert!(std::env::var_os("CI").is_none(), "ssh-keygen is missing");
            eprintln!("SKIPPED: ssh-keygen is missing");
            return;
        };
        assert!(public.status.success(), "{public:?}");
        assert_eq!(String::from_utf8_lossy(&public.stdout), folder.text(PUBLIC));
        let shown = keygen(&["-l", "-E", "sha256"]).expect("it ran before");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let expected = fingerprint(&folder.root).expect("a fingerprint");
        assert!(shown.contains(&expected), "{shown} {expected}");
        let mut damaged = folder.text(PRIVATE);
        damaged.replace_range(60..64, "AAAA");
        std::fs::write(&private, damaged).expect("written");
        let refused = keygen(&["-y", "-P", ""]).expect("it ran before");
        assert!(!refused.status.success(), "ssh-keygen takes anything");
    }
}
