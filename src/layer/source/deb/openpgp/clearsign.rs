//! The cleartext signature framework, taken apart strictly.
//!
//! Source: RFC 9580, section 7. Narrower than the RFC: nothing may stand
//! before, between or after the three parts, and `Hash` is the only header.

use super::SignatureProblem;

const BEGIN_TEXT: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &[u8] = b"-----END PGP SIGNATURE-----";

/// A cleartext-signed message.
#[derive(Debug)]
pub(super) struct Clearsigned {
    /// The text as it was hashed: lines joined by CR LF, without the white
    /// space at their ends, and without a line end after the last one.
    pub(super) hashed: Vec<u8>,
    /// The armored signatures.
    pub(super) armor: Vec<u8>,
}

impl Clearsigned {
    /// Takes a message apart; proves nothing.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SignatureProblem> {
        let mut lines = bytes.split(|&byte| byte == b'\n').map(trim_end).peekable();
        match lines.next() {
            Some(BEGIN_TEXT) => {}
            _ if bytes
                .windows(BEGIN_TEXT.len())
                .any(|window| window == BEGIN_TEXT) =>
            {
                return Err(SignatureProblem::TextOutside);
            }
            _ => return Err(SignatureProblem::NotSigned),
        }
        loop {
            match lines.next().ok_or(SignatureProblem::Truncated)? {
                b"" => break,
                line if line.starts_with(b"Hash: ") => {}
                _ => return Err(SignatureProblem::TextOutside),
            }
        }
        let mut hashed = Vec::with_capacity(bytes.len());
        let mut is_first = true;
        loop {
            let line = lines.next().ok_or(SignatureProblem::Truncated)?;
            if line == BEGIN_SIGNATURE {
                break;
            }
            if !std::mem::take(&mut is_first) {
                hashed.extend_from_slice(b"\r\n");
            }
            match line.strip_prefix(b"- ") {
                Some(escaped) => hashed.extend_from_slice(escaped),
                None if line.starts_with(b"-") => return Err(SignatureProblem::TextOutside),
                None => hashed.extend_from_slice(line),
            }
        }
        let mut armor = BEGIN_SIGNATURE.to_vec();
        loop {
            let line = lines.next().ok_or(SignatureProblem::Truncated)?;
            armor.push(b'\n');
            armor.extend_from_slice(line);
            if line == END_SIGNATURE {
                break;
            }
        }
        armor.push(b'\n');
        match lines.find(|line| !line.is_empty()) {
            None => Ok(Self { hashed, armor }),
            Some(_) => Err(SignatureProblem::TextOutside),
        }
    }

    /// The text for reading: exactly what was hashed, with plain line ends.
    pub(super) fn text(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.hashed).ok()?;
        Some(text.replace("\r\n", "\n") + "\n")
    }
}

/// Armor and text.
type Detached<'a> = (&'a [u8], &'a [u8]);

/// The parts of a message that begins with its signature; `None` when it
/// does not.
pub(super) fn detached(message: &[u8]) -> Result<Option<Detached<'_>>, SignatureProblem> {
    if !message.starts_with(BEGIN_SIGNATURE) {
        return Ok(None);
    }
    let end = message
        .windows(END_SIGNATURE.len())
        .position(|window| window == END_SIGNATURE)
        .ok_or(SignatureProblem::Truncated)?;
    let (armor, rest) = message.split_at(end + END_SIGNATURE.len());
    match rest.strip_prefix(b"\n") {
        Some(text) => Ok(Some((armor, text))),
        None => Err(SignatureProblem::TextOutside),
    }
}

/// Without spaces, tabs and carriage returns at the end.
fn trim_end(line: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let end = line
        .iter()
        .rposition(|byte| !is_space(byte))
        .map_or(0, |at| at + 1);
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nA: 1 \t\n- -B\r\n\
        \n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n";

    fn problem(text: &str) -> SignatureProblem {
        Clearsigned::parse(text.as_bytes()).expect_err("it is wrong")
    }

    #[test]
    fn the_hashed_text_has_no_white_space_at_line_ends() {
        let message = Clearsigned::parse(GOOD.as_bytes()).expect("it parses");
        assert_eq!(message.hashed, b"A: 1\r\n-B\r\n");
        assert_eq!(message.text().as_deref(), Some("A: 1\n-B\n\n"));
        assert!(
            message
                .armor
                .ends_with(b"abc\n-----END PGP SIGNATURE-----\n")
        );
    }

    #[test]
    fn nothing_may_stand_outside() {
        assert_eq!(
            problem(&format!("A: 0\n{GOOD}")),
            SignatureProblem::TextOutside
        );
        assert_eq!(
            problem(&format!("{GOOD}A: 2\n")),
            SignatureProblem::TextOutside
        );
        let header = GOOD.replace("Hash: SHA256", "Comment: x");
        assert_eq!(problem(&header), SignatureProblem::TextOutside);
        let dashes = GOOD.replace("- -B", "-B");
        assert_eq!(problem(&dashes), SignatureProblem::TextOutside);
        assert_eq!(problem("Suite: x\n"), SignatureProblem::NotSigned);
    }

    #[test]
    fn every_cut_is_refused() {
        let end = GOOD.find("-----END").expect("it has an end") + END_SIGNATURE.len();
        for cut in 0..end {
            assert!(
                Clearsigned::parse(&GOOD.as_bytes()[..cut]).is_err(),
                "cut at {cut}"
            );
        }
    }
}
