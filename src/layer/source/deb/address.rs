//! Base addresses of repositories, which may carry a password.

use std::fmt;
use std::path::PathBuf;

/// Where a repository is: an `http`, `https` or `file` address without a
/// trailing slash. Printed without its credentials, in `Debug` too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    text: String,
    /// Length of `http://` and the like.
    scheme: usize,
    /// End of the authority, which starts at `scheme`.
    authority: usize,
}

impl Address {
    /// Parses a base address; `None` when the scheme is none of `http`,
    /// `https` and `file`, when there is no host where one is needed, or when
    /// there are spaces or control characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches('/');
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return None;
        }
        // apt takes `file:/srv/debian` as well as `file:///srv/debian`.
        let text = match text.strip_prefix("file:") {
            Some(path) => format!("file:///{}", path.trim_start_matches('/')),
            None => text.to_owned(),
        };
        let scheme = text.find("://")? + 3;
        let authority = text
            .get(scheme..)?
            .find('/')
            .map_or(text.len(), |at| scheme + at);
        let is_known = match text.get(..scheme)? {
            "http://" | "https://" => true,
            "file://" => {
                return Some(Self {
                    text,
                    scheme,
                    authority,
                });
            }
            _ => false,
        };
        let address = Self {
            text,
            scheme,
            authority,
        };
        (is_known && !address.host().is_empty()).then_some(address)
    }

    /// The file that a `file` address and a relative path lead to.
    #[must_use]
    pub(crate) fn local_path(&self, relative: &str) -> Option<PathBuf> {
        let folder = self.text.strip_prefix("file://")?;
        Some(PathBuf::from(folder).join(relative))
    }

    /// Host and port as written; empty for `file`.
    #[must_use]
    pub fn host(&self) -> &str {
        let authority = self
            .text
            .get(self.scheme..self.authority)
            .unwrap_or_default();
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    }

    /// `http`, `https` or `file`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
    }

    /// The address of a file below this one, credentials included: for the
    /// wire only, never for messages. Bytes that a URL cannot hold are escaped.
    #[must_use]
    pub(crate) fn url(&self, relative: &str) -> String {
        use std::fmt::Write as _;
        let mut url = format!("{}/", self.text);
        for byte in relative.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => url.push(char::from(byte)),
                b'/' | b'-' | b'.' | b'_' | b'~' | b'+' | b':' | b'=' | b',' | b'@' => {
                    url.push(char::from(byte));
                }
                _ => write!(url, "%{byte:02X}").expect("writing to a string cannot fail"),
            }
        }
        url
    }

    /// This address with `suffix` at the end of its last component.
    #[must_use]
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        Self {
            text: format!("{}{suffix}", self.text),
            ..self.clone()
        }
    }

    /// The value of an `Authorization` header for the credentials in here.
    #[must_use]
    pub(crate) fn basic_authorization(&self) -> Option<String> {
        use base64::Engine as _;
        let authority = self.text.get(self.scheme..self.authority)?;
        let (credentials, _) = authority.rsplit_once('@')?;
        let plain = percent_decoded(credentials);
        let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
        Some(format!("Basic {encoded}"))
    }
}

/// Bytes of a text in which `%3a` and the like stand for a byte (RFC 3986, 2.1).
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            tail.get(2..).unwrap_or_default()
        } else {
            tail
        };
    }
    bytes
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |range: std::ops::Range<usize>| self.text.get(range).unwrap_or_default();
        f.write_str(part(0..self.scheme))?;
        f.write_str(self.host())?;
        f.write_str(part(self.authority..self.text.len()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_printed() {
        let address =
            Address::parse("https://bob:s3cr3t@mirror.example:8080/debian/").expect("it parses");
        assert_eq!(address.to_string(), "https://mirror.example:8080/debian");
        assert_eq!(
            format!("{address:?}"),
            "Address(https://mirror.example:8080/debian)"
        );
        assert_eq!(address.host(), "mirror.example:8080");
        assert_eq!(
            address.url("pool/a b"),
            "https://bob:s3cr3t@mirror.example:8080/debian/pool/a%20b"
        );
    }

    #[test]
    fn credentials_become_a_header() {
        let address = Address::parse("http://Aladdin:open%20sesame@proxy:1").expect("it parses");
        // RFC 7617, section 2.
        let expected = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(address.basic_authorization().as_deref(), Some(expected));
    }

    #[test]
    fn both_spellings_of_file_are_one() {
        for text in ["file:/srv/debian", "file:///srv/debian/"] {
            let address = Address::parse(text).expect("it parses");
            assert_eq!(address.to_string(), "file:///srv/debian");
            assert_eq!(
                address.local_path("dists/x"),
                Some("/srv/debian/dists/x".into())
            );
        }
    }

    #[test]
    fn other_schemes_and_broken_text_are_refused() {
        for text in [
            "ftp://x/y",
            "cdrom:[Debian]/",
            "debian",
            "http://",
            "http:///debian",
            "http://a b/",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
