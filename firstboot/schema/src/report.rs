//! Collects problems with their places in the text.

use std::ops::Range;

use crate::problem::{Code, MAX_PROBLEMS, Problem};

/// Characters of a key shown at most.
const MAX_KEY: usize = 60;

/// The problems of one text.
pub(crate) struct Report<'t> {
    text: &'t str,
    /// Byte offset of each line's first byte.
    lines: Vec<usize>,
    problems: Vec<Problem>,
}

/// What to say about one place; `allowed` and `remedy` are added by chaining.
pub(crate) struct Finding {
    code: Code,
    message: String,
    allowed: Option<String>,
    remedy: String,
}

impl Finding {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            allowed: None,
            remedy: String::new(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidValue, message)
    }

    /// A private key stands where a public one is meant; only text says so,
    /// and nothing of it is shown.
    pub(crate) fn private_key() -> Self {
        Self::invalid("this is a private key; whoever has seen this file can use it")
            .allowed("one line of a public key file")
            .remedy("put the line of the .pub file here, and replace the key pair")
    }

    pub(crate) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl<'t> Report<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0)
            .chain(starts.map(|(at, _)| at + 1))
            .collect();
        Self {
            text,
            lines,
            problems: Vec::new(),
        }
    }

    /// Line and column of a byte offset, both from 1, columns in characters.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self
            .text
            .get(start..offset)
            .map_or(0, |before| before.chars().count());
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (small(line), small(column + 1))
    }

    /// The byte at a line and a column, as [`position`](Self::position) has them.
    pub(crate) fn offset(&self, line: u32, column: u32) -> usize {
        let nth = |count: u32| {
            usize::try_from(count)
                .unwrap_or(usize::MAX)
                .saturating_sub(1)
        };
        let start = self.lines.get(nth(line)).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        let within = rest.char_indices().nth(nth(column));
        start + within.map_or(rest.len(), |(at, _)| at)
    }

    /// Notes a finding about the text at `span`, which belongs to `key`.
    pub(crate) fn note(&mut self, span: &Range<usize>, key: &str, finding: Finding) {
        let (line, column) = self.position(span.start);
        self.problems.push(Problem {
            code: finding.code,
            line,
            column,
            key: shown(key),
            message: finding.message,
            allowed: finding.allowed,
            remedy: finding.remedy,
        });
    }

    /// Notes a problem of another text at the place in this one that it came
    /// from.
    pub(crate) fn retell(&mut self, offset: usize, problem: Problem) {
        let (line, column) = self.position(offset);
        self.problems.push(Problem {
            line,
            column,
            ..problem
        });
    }

    /// Problems so far; rules between values are skipped where reading the
    /// values raised it.
    pub(crate) fn count(&self) -> usize {
        self.problems.len()
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in the order of the text, at most [`MAX_PROBLEMS`].
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        Problem::sort(&mut self.problems);
        self.problems.dedup();
        self.problems.truncate(MAX_PROBLEMS);
        self.problems
    }
}

/// A key as messages show it: short, nothing that a terminal would obey.
pub(crate) fn shown(key: &str) -> String {
    let mut short: String = key
        .chars()
        .take(MAX_KEY)
        .flat_map(|c| {
            let plain = !c.is_control() && !is_deceptive(c);
            let escaped = (!plain).then(|| c.escape_unicode());
            plain
                .then_some(c)
                .into_iter()
                .chain(escaped.into_iter().flatten())
        })
        .collect();
    if key.chars().count() > MAX_KEY {
        short.push('…');
    }
    short
}

/// Characters that reorder or hide text on a terminal: bidirectional
/// controls, zero-width characters, byte-order marks inside the text.
pub(crate) fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_not_bytes() {
        let report = Report::new("ä = 1\r\nbé = 2\n");
        assert_eq!(report.position(0), (1, 1));
        assert_eq!(report.position("ä ".len()), (1, 3));
        assert_eq!(report.position("ä = 1\r\nbé".len()), (2, 3));
        assert_eq!(report.position("ä = 1\r\nbé = 2\n".len()), (3, 1));
        for offset in [0, "ä".len(), "ä = 1\r\nbé".len()] {
            let (line, column) = report.position(offset);
            assert_eq!(report.offset(line, column), offset);
        }
    }

    #[test]
    fn keys_cannot_drive_a_terminal() {
        assert_eq!(shown("a\u{1b}[31m"), "a\\u{1b}[31m");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), MAX_KEY + 1);
    }
}
