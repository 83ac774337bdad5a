//! Signatures as other people's tools make them.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run other people's programs, and CI must have them"
)]

use std::path::Path;
use std::process::Command;

use super::*;

const MESSAGE: &[u8] = b"schema = 1\n";

/// Runs a program; nothing, said loudly, where it is missing.
fn run(command: &mut Command) -> Option<()> {
    let Ok(output) = command.output() else {
        assert!(std::env::var_os("CI").is_none(), "{command:?} is missing");
        eprintln!("SKIPPED: {command:?} is missing");
        return None;
    };
    assert!(output.status.success(), "{command:?}: {output:?}");
    Some(())
}

/// A key of ssh-keygen and its signature over the message.
pub fn by_ssh(folder: &Path, message: &[u8], purpose: &str) -> Option<(Key, Vec<u8>)> {
    let (key, file) = (folder.join("key"), folder.join("message"));
    std::fs::write(&file, message).expect("written");
    if !key.exists() {
        let make = ["-q", "-t", "ed25519", "-N", "", "-C", "owner", "-f"];
        run(Command::new("ssh-keygen").args(make).arg(&key))?;
    }
    let signature = folder.join("message.sig");
    // It asks before it overwrites.
    let _ = std::fs::remove_file(&signature);
    let sign = ["-q", "-Y", "sign", "-n", purpose, "-f"];
    run(Command::new("ssh-keygen").args(sign).arg(&key).arg(&file))?;
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("a key");
    let signature = std::fs::read(signature).expect("a signature");
    Some((Key::parse(&public).expect("a key"), signature))
}

/// A key of minisign and its signature over the message.
fn by_minisign(folder: &Path, flags: &[&str]) -> Option<(Key, Vec<u8>)> {
    let file = folder.join("message");
    std::fs::write(&file, MESSAGE).expect("written");
    let (public, private) = (folder.join("m.pub"), folder.join("m.key"));
    run(Command::new("minisign")
        .args(["-G", "-f", "-W", "-p"])
        .arg(&public)
        .arg("-s")
        .arg(&private))?;
    let signature = folder.join("message.minisig");
    run(Command::new("minisign")
        .args(["-S", "-q", "-t", "of the owner"])
        .args(flags)
        .arg("-s")
        .arg(&private)
        .arg("-m")
        .arg(&file)
        .arg("-x")
        .arg(&signature))?;
    let public = std::fs::read_to_string(public).expect("a key");
    Some((
        Key::parse(&public).expect("a key"),
        std::fs::read(signature).expect("a signature"),
    ))
}

/// Every letter of the signature changed, every cut: none counts.
fn nothing_else_counts(key: Key, signature: &[u8]) {
    let verify = |message: &[u8], signature: &[u8]| verify(message, signature, SITE, &[key]);
    assert_eq!(verify(MESSAGE, signature), Ok(key));
    assert_eq!(
        verify(b"schema = 2\n", signature),
        Err(SignatureError::Wrong)
    );
    let text = String::from_utf8(signature.to_vec()).expect("text");
    let mut accepted = 0;
    for at in 0..text.len() {
        let mut bytes = signature.to_vec();
        bytes[at] ^= 1;
        let is_comment = text[..at].lines().count() <= 1 && text.starts_with("untrusted");
        if verify(MESSAGE, &bytes).is_ok() && !is_comment {
            accepted += 1;
            // Blanks between the letters mean nothing.
            assert!(text.as_bytes()[at].is_ascii_whitespace(), "byte {at}");
        }
        let is_whole = text[..at].trim_end() == text.trim_end();
        assert!(
            is_whole || verify(MESSAGE, &bytes[..at]).is_err(),
            "cut at {at}"
        );
    }
    assert!(accepted < 10, "{accepted}");
}

#[test]
fn signatures_of_ssh_keygen_count_for_their_purpose() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((key, signature)) = by_ssh(folder.path(), MESSAGE, SITE) else {
        return;
    };
    nothing_else_counts(key, &signature);
    assert_eq!(verify_carried(MESSAGE, &signature, SITE), Ok(key));
    assert_eq!(Key::parse(&key.line()), Some(key));
    let verify = |purpose, keys: &[Key]| verify(MESSAGE, &signature, purpose, keys);
    assert_eq!(verify(BUNDLE, &[key]), Err(SignatureError::Purpose));
    assert_eq!(verify(SITE, &[]), Err(SignatureError::UnknownKey));
    let other = tempfile::tempdir().expect("a folder");
    let Some((other, _)) = by_ssh(other.path(), MESSAGE, SITE) else {
        return;
    };
    assert_eq!(verify(SITE, &[other]), Err(SignatureError::UnknownKey));
    let shown = Command::new("ssh-keygen")
        .args(["-l", "-f"])
        .arg(folder.path().join("key.pub"))
        .output()
        .expect("it ran before");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&key.fingerprint()), "{shown}");
}

#[test]
fn signatures_of_minisign_count() {
    for flags in [[].as_slice(), &["-l"]] {
        let folder = tempfile::tempdir().expect("a folder");
        let Some((key, signature)) = by_minisign(folder.path(), flags) else {
            return;
        };
        nothing_else_counts(key, &signature);
        assert_eq!(Key::parse(&key.line()), Some(key));
        assert_eq!(
            verify_carried(MESSAGE, &signature, SITE),
            Err(SignatureError::UnknownKey)
        );
        let text = String::from_utf8_lossy(&signature).into_owned();
        let other = text.replace("of the owner", "of somebody");
        assert_eq!(
            verify(MESSAGE, other.as_bytes(), SITE, &[key]),
            Err(SignatureError::Wrong)
        );
    }
}

#[test]
fn keys_of_other_kinds_are_none() {
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==",
        "RWQ=",
        "untrusted comment: x\n",
    ] {
        assert_eq!(Key::parse(bad), None, "{bad}");
    }
    assert_eq!(Key::parse_all("# none\n\n").map(|keys| keys.len()), Some(0));
    assert_eq!(Key::parse_all("rubbish\n"), None);
}
