//! A new key signed by the old one.
//!
//! ```text
//! consign key rotation v1
//! old SHA256:…
//! new ssh-ed25519 AAAA…
//! -----BEGIN SSH SIGNATURE-----        by the old key, over the lines above,
//! …                                    for the purpose `consign-key-rotation`
//! ```

use std::path::Path;

use super::ReleaseError;
use super::signing::read_small;
use crate::sign::{PublicKey, SignError, Signer, sshsig};

const HEAD: &str = "consign key rotation v1";
const NAMESPACE: &str = "consign-key-rotation";
const MAX_ROTATION: u64 = 64 << 10;

/// From one key to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Who was trusted.
    pub old: PublicKey,
    /// Who is trusted from now on, by the old key's word.
    pub new: PublicKey,
}

impl Rotation {
    /// The statement that `old` passes its trust to `new`.
    ///
    /// # Errors
    ///
    /// Those of the signer.
    pub fn write(old: &Signer, new: &PublicKey) -> Result<String, SignError> {
        let statement = statement(old.public(), new);
        let signature = sshsig::sign(old, NAMESPACE, statement.as_bytes())?;
        Ok(statement + &signature)
    }

    /// Reads a statement and judges its signature.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Read`], [`ReleaseError::Signature`].
    pub fn open(path: &Path) -> Result<Self, ReleaseError> {
        let bytes = read_small(path, MAX_ROTATION)?;
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).map_err(|source| ReleaseError::Signature {
            name: path.display().to_string(),
            source,
        })
    }

    fn parse(text: &str) -> Result<Self, SignError> {
        let malformed = SignError::Malformed {
            kind: "key rotation",
            problem: "it is not the three lines and a signature",
        };
        let Some(at) = text.find("-----BEGIN") else {
            return Err(malformed);
        };
        let (head, signature) = text.split_at(at);
        let new = head
            .lines()
            .nth(2)
            .and_then(|line| line.strip_prefix("new "));
        let Some(new) = new.and_then(PublicKey::parse) else {
            return Err(malformed);
        };
        let old = sshsig::verify(signature, NAMESPACE, head.as_bytes())?;
        if head != statement(&old, &new) {
            return Err(malformed);
        }
        Ok(Self { old, new })
    }
}

fn statement(old: &PublicKey, new: &PublicKey) -> String {
    let line = new.to_openssh("");
    format!(
        "{HEAD}\nold {}\nnew {}\n",
        old.fingerprint(),
        line.trim_end()
    )
}

/// All that are trusted when the keys of `keys` are: each rotation by one of
/// them, in any order, adds one.
#[must_use]
pub fn trusted(keys: &[PublicKey], rotations: &[Rotation]) -> Vec<PublicKey> {
    let mut all = keys.to_vec();
    // Each pass adds a key or is the last.
    loop {
        let next = rotations
            .iter()
            .find(|rotation| all.contains(&rotation.old) && !all.contains(&rotation.new));
        match next {
            Some(rotation) => all.push(rotation.new.clone()),
            None => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SecretKey;

    fn key(seed: u8) -> Signer {
        Signer::File(SecretKey::from_seed(&[seed; 32]))
    }

    fn rotation(old: u8, new: u8) -> Rotation {
        let text = Rotation::write(&key(old), key(new).public()).expect("signed");
        Rotation::parse(&text).expect("accepted")
    }

    #[test]
    fn trust_passes_from_key_to_key_in_any_order() {
        let first = key(1).public().clone();
        let chain = [rotation(2, 3), rotation(1, 2), rotation(8, 9)];
        let keys = trusted(&[first], &chain);
        let expected: Vec<PublicKey> = [1, 2, 3].map(|seed| key(seed).public().clone()).to_vec();
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_changed_statement_is_refused() {
        let text = Rotation::write(&key(1), key(2).public()).expect("signed");
        let other = key(3).public().to_openssh("");
        let mut lines: Vec<&str> = text.lines().collect();
        let line = format!("new {}", other.trim_end());
        lines[2] = &line;
        let changed = lines.join("\n") + "\n";
        assert_eq!(
            Rotation::parse(&changed).expect_err("refused").slug(),
            "signature-wrong"
        );
        for changed in [
            format!("{text} "),
            text.replacen("v1", "v2", 1),
            String::new(),
        ] {
            Rotation::parse(&changed).expect_err("refused");
        }
    }
}
