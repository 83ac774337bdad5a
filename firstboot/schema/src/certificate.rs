//! `[[ca]]`: certificates of authorities that the machine is to trust.
//!
//! Source: RFC 5280 (X.509), RFC 7468 (PEM), X.690 (DER). Narrower than they
//! are: definite lengths of at most four bytes, and nothing is verified that
//! only a TLS library can; what is read is what a wrong file gets wrong.

use crate::account::base64;
use crate::date::Moment;
use crate::document::Section;
use crate::problem::Code;
use crate::report::{Finding, Report};

/// `[[ca]]` tables at most.
const MAX_TABLES: usize = 32;
/// Certificates in one text at most.
const MAX_CERTIFICATES: usize = 16;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// As DER, which has been looked through.
    pub der: Vec<u8>,
    /// When it begins to count.
    pub not_before: Moment,
    /// When it ends.
    pub not_after: Moment,
    /// The key of the table that it stands in, such as `ca[1].pem`.
    pub key: String,
}

impl Certificate {
    /// The PEM form with lines of 64 characters.
    #[must_use]
    pub fn pem(&self) -> String {
        let encoded = encode(&self.der);
        let mut text = format!("{BEGIN}\n");
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str(END);
        text.push('\n');
        text
    }

    fn from_der(der: Vec<u8>, key: &str) -> Result<Self, &'static str> {
        let damaged = "the certificate is damaged";
        let (not_before, not_after, is_ca) = fields(&der).ok_or(damaged)?;
        if !is_ca {
            return Err("the certificate is not one of an authority");
        }
        Ok(Self {
            der,
            not_before,
            not_after,
            key: key.to_owned(),
        })
    }
}

/// Reads the `[[ca]]` tables.
pub(crate) fn read_authorities(
    root: &mut Section<'_>,
    report: &mut Report<'_>,
) -> Vec<Certificate> {
    let mut read: Vec<Certificate> = Vec::new();
    for mut section in root.tables("ca", MAX_TABLES, report) {
        let pem = section
            .require("pem", "pem = '''-----BEGIN CERTIFICATE-----...'''", report)
            .and_then(|found| found.lines(report));
        section.finish(report);
        let Some(found) = pem else { continue };
        match certificates(found.value, &found.key) {
            Ok(new) => {
                if new
                    .iter()
                    .any(|new| read.iter().any(|old| old.der == new.der))
                {
                    let finding = Finding::new(
                        Code::Conflict,
                        "this certificate stands in the file already",
                    )
                    .remedy("delete one of the two");
                    found.note(report, finding);
                }
                read.extend(new);
            }
            Err(finding) => found.note(report, finding),
        }
    }
    read
}

fn certificates(text: &str, key: &str) -> Result<Vec<Certificate>, Finding> {
    let refuse = |message: &str, remedy: &str| {
        Err(Finding::invalid(message)
            .allowed("certificates of authorities in PEM form")
            .remedy(remedy))
    };
    let whole =
        "copy the whole file, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----";
    if text.contains("PRIVATE KEY") {
        return refuse(
            "this is a private key; whoever has seen this file can use it",
            "put the certificate here, and replace the key pair",
        );
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let Some((body, after)) = after.split_once(END) else {
            return refuse("the certificate has no end", whole);
        };
        let body: String = body.split_ascii_whitespace().collect();
        let Some(der) = base64(&body) else {
            return refuse("the certificate is damaged: not base64", whole);
        };
        match Certificate::from_der(der, key) {
            Ok(certificate) => found.push(certificate),
            Err(message) => {
                return refuse(message, "export the authority's certificate again, as PEM");
            }
        }
        if found.len() > MAX_CERTIFICATES {
            return refuse(
                "there are more than 16 certificates in one text",
                "keep the authorities that are needed",
            );
        }
        rest = after;
    }
    if found.is_empty() {
        return refuse("this is not a certificate", whole);
    }
    Ok(found)
}

/// One element: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(*first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (length, rest) = rest.split_at_checked(count)?;
        let length = length
            .iter()
            .fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// The content of an element with this tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `id-ce-basicConstraints`, 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// From when, until when, and whether it is an authority's.
fn fields(der: &[u8]) -> Option<(Moment, Moment, bool)> {
    let (certificate, after) = expect(SEQUENCE, der)?;
    if !after.is_empty() {
        return None;
    }
    let (tbs, signature) = expect(SEQUENCE, certificate)?;
    // Without a signature it has been cut short.
    expect(SEQUENCE, signature)?;
    let (version, rest) = match element(tbs)? {
        (0xa0, version, rest) => (version, rest),
        _ => (&[][..], tbs),
    };
    let (_, rest) = expect(INTEGER, rest)?;
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (validity, rest) = expect(SEQUENCE, rest)?;
    let (not_before, after) = time(validity)?;
    let (not_after, _) = time(after)?;
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (_, mut rest) = expect(SEQUENCE, rest)?;
    // Version 1 knows no extensions; such authorities are no longer accepted.
    let mut is_ca = false;
    while let Some((tag, content, more)) = element(rest) {
        if tag == 0xa3 && !version.is_empty() {
            is_ca = has_authority(expect(SEQUENCE, content)?.0)?;
        }
        rest = more;
    }
    Some((not_before, not_after, is_ca))
}

fn has_authority(mut extensions: &[u8]) -> Option<bool> {
    while !extensions.is_empty() {
        let (extension, more) = expect(SEQUENCE, extensions)?;
        extensions = more;
        let (id, rest) = expect(OBJECT_ID, extension)?;
        if id != BASIC_CONSTRAINTS {
            continue;
        }
        let rest = expect(BOOLEAN, rest).map_or(rest, |(_, rest)| rest);
        let (value, _) = expect(OCTETS, rest)?;
        let (constraints, _) = expect(SEQUENCE, value)?;
        return Some(matches!(expect(BOOLEAN, constraints), Some((&[0xff], _))));
    }
    Some(false)
}

/// RFC 5280 section 4.1.2.5: seconds are there, and the zone is `Z`.
fn time(bytes: &[u8]) -> Option<(Moment, &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, text) = match tag {
        UTC_TIME => {
            let (year, text) = text.split_at_checked(2)?;
            let year: i64 = digits(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text)
        }
        GENERALIZED_TIME => {
            let (year, text) = text.split_at_checked(4)?;
            (digits(year)?, text)
        }
        _ => return None,
    };
    let part = |at: usize| digits(text.get(at..at + 2)?);
    if text.len() != 10 {
        return None;
    }
    let small = |value: i64| u8::try_from(value).ok();
    let day = Moment::of_day(year, small(part(0)?)?, small(part(2)?)?)?;
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((day.plus(hour * 3600 + minute * 60 + second), rest))
}

fn digits(text: &str) -> Option<i64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let value = usize::try_from(bits >> (18 - 6 * at) & 0x3f).unwrap_or(0);
            let c = ALPHABET.get(value).copied().map_or('=', char::from);
            text.push(if at <= chunk.len() { c } else { '=' });
        }
    }
    text
}
