//! `[trust]`: who may decide about this machine from now on.

use crate::account::SshKey;
use crate::address::all;
use crate::document::Section;
use crate::report::{Finding, Report};

/// Keys at most.
const MAX_KEYS: usize = 16;

/// Reads `[trust]`: the keys, each in one line, none doubled.
pub(crate) fn read_trust(root: &mut Section<'_>, report: &mut Report<'_>) -> Vec<String> {
    let Some(mut section) = root.table("trust", report) else {
        return Vec::new();
    };
    let keys = all(&mut section, "keys", MAX_KEYS, parse_key, report);
    section.finish(report);
    keys.into_iter().map(|found| found.value).collect()
}

/// An Ed25519 key of OpenSSH or of minisign.
fn parse_key(text: &str) -> Result<String, Finding> {
    if text.starts_with("ssh-ed25519 ") {
        return SshKey::parse(text).map(|key| key.to_string());
    }
    // 42 bytes, of which the first two are `Ed`.
    let is_minisign = text.len() == 56
        && text.starts_with("RW")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    if is_minisign {
        return Ok(text.to_owned());
    }
    Err(
        Finding::invalid("this is not a key that signs configurations")
            .allowed("an Ed25519 key of OpenSSH, or the second line of a minisign .pub file")
            .remedy("write for example \"ssh-ed25519 AAAA... owner\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_both_tools_are_taken() {
        let ssh =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let minisign = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        for good in [ssh, minisign] {
            assert_eq!(parse_key(good).ok().as_deref(), Some(good));
        }
        for bad in [
            "",
            "ssh-rsa AAAA",
            "ssh-ed25519 AAAA",
            "RWQf6LRC",
            &minisign.to_lowercase(),
        ] {
            assert!(parse_key(bad).is_err(), "{bad}");
        }
    }
}
