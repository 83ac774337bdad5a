//! Debian versions and their order.
//!
//! Source: Debian Policy 5.6.12. Checked by: `dpkg --compare-versions`.

use std::cmp::Ordering;
use std::fmt;

/// A version as written: `[epoch:]upstream[-revision]`. Compared as dpkg
/// does, so `1.0` and `1.00` are equal although their text differs.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a>(&'a str);

impl<'a> Version<'a> {
    /// Takes a text as a version; `None` for what dpkg would refuse: nothing,
    /// white space, an epoch that is no number, an empty part, a character outside of
    /// letters, digits and `.+-~:`.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let is_number = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~:".contains(&byte);
        let fits = is_number && epoch.parse::<i32>().is_ok();
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        let is_whole = !upstream.is_empty() && !revision.is_empty();
        (fits && is_whole && rest.bytes().all(is_plain)).then_some(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    fn parts(self) -> (u32, &'a str, &'a str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream, revision)
    }
}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.parts(), other.parts());
        one.0
            .cmp(&two.0)
            .then_with(|| compare(one.1, two.1))
            .then_with(|| compare(one.2, two.2))
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

/// Compares one part: in turns a run of other characters and a number.
fn compare(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one.as_bytes(), two.as_bytes());
    while !one.is_empty() || !two.is_empty() {
        let (text_one, rest_one) = split(one, |byte| !byte.is_ascii_digit());
        let (text_two, rest_two) = split(two, |byte| !byte.is_ascii_digit());
        let (number_one, tail_one) = split(rest_one, u8::is_ascii_digit);
        let (number_two, tail_two) = split(rest_two, u8::is_ascii_digit);
        let order =
            compare_text(text_one, text_two).then_with(|| compare_number(number_one, number_two));
        if order != Ordering::Equal {
            return order;
        }
        (one, two) = (tail_one, tail_two);
    }
    Ordering::Equal
}

fn split(bytes: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(
        bytes
            .iter()
            .position(|byte| !belongs(byte))
            .unwrap_or(bytes.len()),
    )
}

/// `~` sorts before the end, the end before letters, letters before the rest.
fn compare_text(one: &[u8], two: &[u8]) -> Ordering {
    let rank = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    (0..one.len().max(two.len()))
        .map(|at| rank(one.get(at)).cmp(&rank(two.get(at))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// Numbers of any length: without leading zeros, the longer one is greater.
fn compare_number(one: &[u8], two: &[u8]) -> Ordering {
    let (_, one) = split(one, |byte| *byte == b'0');
    let (_, two) = split(two, |byte| *byte == b'0');
    one.len().cmp(&two.len()).then_with(|| one.cmp(two))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version<'_> {
        Version::parse(text).expect("a version")
    }

    #[test]
    fn order_is_that_of_policy() {
        // Each one is less than the next.
        let sorted = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "0a1",
            "0+",
            "0.1",
            "1.0~rc1",
            "1.0",
            "1.0-0.1",
            "1.0-1~bpo12+1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u1",
            "1.0-10",
            "1.0a",
            "1.0+dfsg",
            "1.2",
            "1.10",
            "1:0.1",
            "1:0.2-1-1",
            "10:0",
        ];
        for pair in sorted.windows(2) {
            let [one, two] = pair else {
                unreachable!("windows of two")
            };
            assert_eq!(
                version(one).cmp(&version(two)),
                Ordering::Less,
                "{one} < {two}"
            );
            assert_eq!(
                version(two).cmp(&version(one)),
                Ordering::Greater,
                "{two} > {one}"
            );
        }
    }

    #[test]
    fn different_texts_can_be_equal() {
        for (one, two) in [("1.0", "1.00"), ("0:1", "1"), ("1-0", "1"), ("a1", "a01")] {
            assert_eq!(version(one), version(two), "{one} = {two}");
        }
    }

    #[test]
    fn what_dpkg_refuses_is_refused() {
        for text in [
            "",
            ":1",
            "1-",
            "-1",
            "a:1",
            "1:",
            "1 2",
            "1_2",
            "99999999999:1",
            "ä",
        ] {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }
}
