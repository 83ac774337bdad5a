//! Whether a vendor's file carries the vendor's signature, as the appliance
//! will ask.

use super::{PublicKey, SignError, sshsig};

/// Why the appliance would refuse a file of its vendor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VendorFault {
    /// A line among the vendor's keys is none.
    #[error("line {line} of the vendor's keys is no Ed25519 public key")]
    NotAKey {
        /// Counted from 1.
        line: usize,
    },
    /// There are keys, and no signature.
    #[error("it is not signed, and the image has a key of its vendor")]
    Unsigned,
    /// The image has no key to judge by.
    #[error("it has to be signed by the vendor, and the image has no key of its vendor")]
    NoKey,
    /// The signature is none, or of something else.
    #[error("its signature does not count")]
    Signature(#[source] SignError),
    /// It is somebody else's.
    #[error("it is signed by {fingerprint}, which is no key of the vendor")]
    Stranger {
        /// Whose key it is.
        fingerprint: String,
    },
}

/// Judges `signature`, the text of an SSHSIG, over `message` by the keys in
/// `keys`, one a line.
///
/// # Errors
///
/// [`VendorFault`].
pub fn check(
    keys: &str,
    purpose: &'static str,
    message: &[u8],
    signature: Option<&str>,
) -> Result<(), VendorFault> {
    let lines = (1..).zip(keys.lines().map(str::trim));
    let is_key = |(_, line): &(usize, &str)| {
        !line.is_empty() && !line.starts_with('#') && !line.starts_with("untrusted comment:")
    };
    let keys: Vec<PublicKey> = lines
        .filter(is_key)
        .map(|(line, text)| PublicKey::parse(text).ok_or(VendorFault::NotAKey { line }))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(VendorFault::NoKey);
    }
    let text = signature.ok_or(VendorFault::Unsigned)?;
    let signer = sshsig::verify(text, purpose, message).map_err(VendorFault::Signature)?;
    if keys.contains(&signer) {
        return Ok(());
    }
    Err(VendorFault::Stranger {
        fingerprint: signer.fingerprint(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::{SecretKey, Signer};

    #[test]
    fn only_the_vendors_own_signature_over_this_file_counts() {
        let signer = |seed| Signer::File(SecretKey::from_seed(&[seed; 32]));
        let keys = format!("# ours\n{}", signer(1).public().to_openssh("vendor"));
        let sign = |seed, purpose, text: &[u8]| {
            sshsig::sign(&signer(seed), purpose, text).expect("signed")
        };
        let judge = |keys: &str, signature: Option<&str>| match check(keys, "p", b"x", signature) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        let good = sign(1, "p", b"x");
        assert_eq!(judge(&keys, Some(&good)), "");
        for (keys, signature, part) in [
            (keys.as_str(), None, "it is not signed"),
            (
                &keys,
                Some(sign(2, "p", b"x")),
                "which is no key of the vendor",
            ),
            (&keys, Some(sign(1, "q", b"x")), "does not count"),
            (&keys, Some(sign(1, "p", b"y")), "does not count"),
            (&keys, Some("text".to_owned()), "does not count"),
            ("# none\n", Some(good.clone()), "no key of its vendor"),
            ("ssh-rsa AAAA\n", Some(good), "line 1 of the vendor's keys"),
        ] {
            let said = judge(keys, signature.as_deref());
            assert!(said.contains(part), "{said}");
        }
    }
}
