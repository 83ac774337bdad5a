//! From bytes to a TOML tree that remembers where everything stood.
//!
//! A [`Section`] is a table being read: every key that is asked for becomes
//! known, and [`Section::finish`] reports the others. So the code that reads
//! the file is the schema, and no list of keys can disagree with it.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::nearest::nearest;
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report, shown};

/// Size of a text file in bytes at most.
pub const MAX_SIZE: usize = 256 * 1024;

/// Characters of one string at most.
const MAX_TEXT: usize = 16 * 1024;

/// In the first and in the last line of private keys.
pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a configuration file: UTF-8, a byte-order mark dropped, not
/// too large, without control characters other than tabs and line ends.
///
/// # Errors
///
/// The problems that make it unreadable.
pub fn decode(bytes: &[u8]) -> Result<&str, Vec<Problem>> {
    let refuse = |text: &str, offset: usize, finding: Finding| {
        let mut report = Report::new(text);
        report.note(&(offset..offset), "", finding);
        Err(report.into_problems())
    };
    if bytes.len() > MAX_SIZE {
        let message = format!("the file is larger than {} KiB", MAX_SIZE / 1024);
        let remedy = "check that this is the right file; a site configuration is a few KiB";
        return refuse("", 0, Finding::new(Code::TooLarge, message).remedy(remedy));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let finding = Finding::new(Code::NotText, "the file is UTF-16 text")
            .allowed("UTF-8 text")
            .remedy("save it again with the encoding UTF-8");
        return refuse("", 0, finding);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let before = std::str::from_utf8(valid).unwrap_or_default();
            let finding = Finding::new(Code::NotText, "this byte is not UTF-8 text")
                .allowed("UTF-8 text")
                .remedy("save the file again with the encoding UTF-8");
            return refuse(before, before.len(), finding);
        }
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let unwanted = |(_, c): &(usize, char)| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if let Some((offset, c)) = text.char_indices().find(unwanted) {
        let message = format!(
            "the file contains the control character {}",
            c.escape_unicode()
        );
        let finding = Finding::new(Code::ControlCharacter, message)
            .remedy("delete the character, or save the file as plain text");
        return refuse(text, offset, finding);
    }
    Ok(text)
}

/// Parses `text`. Syntax errors are noted; `None` when the tree cannot be
/// trusted. A doubled key leaves the tree readable.
pub(crate) fn parse<'t>(text: &'t str, report: &mut Report<'_>) -> Option<Spanned<DeTable<'t>>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let spans = errors.iter().filter_map(toml::de::Error::span);
    let mut of_key = spans.filter(|span| line_of(text, span.start).contains(PRIVATE_KEY));
    if let Some(span) = of_key.next() {
        // The other errors are in the lines of the key.
        report.note(&span, "", Finding::private_key());
        return None;
    }
    let mut is_readable = true;
    let mut last_line = 0;
    let mut doubled_table: Option<usize> = None;
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        if error.message() == "duplicate key" {
            // The keys of a doubled table are doubled too; once is enough.
            let between = doubled_table.and_then(|end| text.get(end..span.start));
            if between.is_some_and(|between| !between.contains("\n[")) {
                continue;
            }
            let before = text.get(..span.start).unwrap_or_default();
            let is_header = before.trim_end().ends_with('[');
            doubled_table = is_header.then_some(span.end);
            let key = text.get(span.clone()).unwrap_or_default().to_owned();
            let message = format!("`{}` stands here a second time", shown(&key));
            let finding = Finding::new(Code::DuplicateKey, message)
                .remedy("delete one of the two, or merge the tables");
            report.note(&span, &key, finding);
            continue;
        }
        is_readable = false;
        // One slip makes a parser stumble several times in its line.
        let (line, _) = report.position(span.start);
        if line != last_line {
            report.note(
                &span,
                "",
                syntax_finding(error.message(), bare_word(text, span.start)),
            );
        }
        last_line = line;
    }
    is_readable.then_some(table)
}

/// The line that a byte of the text is in.
fn line_of(text: &str, at: usize) -> &str {
    between(text, at, |byte| byte == b'\n')
}

/// What stands around a byte of the text and is not in quotes; may be empty.
fn bare_word(text: &str, at: usize) -> &str {
    between(text, at, |byte| b" \t\r\n=,[]{}\"'#".contains(&byte))
}

/// The text around `at`, up to an end on either side; ends are ASCII.
fn between(text: &str, at: usize, is_end: fn(u8) -> bool) -> &str {
    let (before, after) = text.as_bytes().split_at_checked(at).unwrap_or_default();
    let ahead = before.iter().rev().take_while(|byte| !is_end(**byte));
    let behind = after.iter().take_while(|byte| !is_end(**byte));
    let range = at.saturating_sub(ahead.count())..at + behind.count();
    text.get(range).unwrap_or_default()
}

fn syntax_finding(message: &str, word: &str) -> Finding {
    let is_boolean = ["yes", "no", "on", "off", "true", "false"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name));
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    // Addresses begin as numbers do, and some as `false`.
    let is_quoted = message.contains("must be quoted");
    let is_text = !is_number
        && ["quoted", "float", "boolean", "time", "integer"]
            .iter()
            .any(|kind| message.contains(kind));
    let remedy = if is_boolean {
        "write true or false in small letters; a text stands in double quotes"
    } else if is_text && word.starts_with(|c: char| c.is_ascii_digit()) && is_quoted {
        "put the value in double quotes if it is a text; a number has no unit"
    } else if is_text {
        "put the value in double quotes"
    } else if message.contains("unclosed table") {
        "close the bracket of the table's name"
    } else {
        "write `key = value` on one line, texts in double quotes, tables as `[name]`"
    };
    Finding::new(Code::Syntax, format!("not TOML: {message}")).remedy(remedy)
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Found<T> {
    /// The whole key, such as `nic[1].gateway`.
    pub(crate) key: String,
    /// Where the value stands.
    pub(crate) span: Range<usize>,
    pub(crate) value: T,
}

impl<T> Found<T> {
    pub(crate) fn note(&self, report: &mut Report<'_>, finding: Finding) {
        report.note(&self.span, &self.key, finding);
    }

    pub(crate) fn replace<U>(self, value: U) -> Found<U> {
        Found {
            key: self.key,
            span: self.span,
            value,
        }
    }
}

impl<'d> Found<&'d DeValue<'d>> {
    fn expected(&self, report: &mut Report<'_>, expected: &str) {
        let message = format!(
            "`{}` is {}, not {expected}",
            shown(&self.key),
            type_name(self.value)
        );
        let remedy = match (self.value, expected) {
            (DeValue::String(text), "a whole number") if text.parse::<i64>().is_ok() => {
                "leave the quotes out"
            }
            (_, "a whole number") => "write a number without quotes and without a unit",
            (_, "true or false") => "write true or false",
            (DeValue::Array(_), "a text") if self.key.ends_with(']') => {
                "this is a list in a list: leave the inner brackets out"
            }
            (DeValue::Array(_), "a text") => "write one text, without brackets around it",
            (DeValue::Table(_), "a text") => "write a text in double quotes",
            (_, "a text") => "put the value in double quotes",
            (_, "a table") => "write it as `[name]` with its keys below",
            _ => "write the value in the form that is allowed",
        };
        let finding = Finding::new(Code::WrongType, message)
            .allowed(expected)
            .remedy(remedy);
        self.note(report, finding);
    }

    /// The value as one line of text.
    pub(crate) fn text(self, report: &mut Report<'_>) -> Option<Found<&'d str>> {
        let DeValue::String(text) = self.value else {
            self.expected(report, "a text");
            return None;
        };
        let text: &'d str = text;
        if text.chars().count() > MAX_TEXT {
            let message = format!(
                "`{}` is longer than {MAX_TEXT} characters",
                shown(&self.key)
            );
            let finding = Finding::new(Code::OutOfRange, message).remedy("shorten the text");
            self.note(report, finding);
            return None;
        }
        let unwanted = |c: char| {
            c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        if text.contains(unwanted) && text.contains(PRIVATE_KEY) && self.key.contains("keys") {
            self.note(report, Finding::private_key());
            return None;
        }
        if text.contains(unwanted) {
            let message = format!(
                "`{}` contains a line end or another control character",
                shown(&self.key)
            );
            let finding = Finding::new(Code::ControlCharacter, message)
                .allowed("one line of printable text")
                .remedy("write the text on one line, without escapes such as \\n or \\u0000");
            self.note(report, finding);
            return None;
        }
        Some(self.replace(text))
    }

    /// The value as text of several lines, without other control characters.
    pub(crate) fn lines(self, report: &mut Report<'_>) -> Option<Found<&'d str>> {
        let DeValue::String(text) = self.value else {
            self.expected(report, "a text");
            return None;
        };
        let text: &'d str = text;
        let unwanted = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        if text.contains(unwanted) {
            let message = format!("`{}` contains a control character", shown(&self.key));
            let finding = Finding::new(Code::ControlCharacter, message)
                .allowed("lines of printable text")
                .remedy("put the text between ''' and '''");
            self.note(report, finding);
            return None;
        }
        Some(self.replace(text))
    }

    /// The value as a whole number within `range`.
    pub(crate) fn integer(
        self,
        range: &RangeInclusive<i64>,
        report: &mut Report<'_>,
    ) -> Option<Found<i64>> {
        let DeValue::Integer(number) = self.value else {
            self.expected(report, "a whole number");
            return None;
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return Some(self.replace(number));
        }
        let message = format!("`{}` is out of range", shown(&self.key));
        let allowed = match *range.end() {
            i64::MAX => format!("{} or more", range.start()),
            end => format!("{} to {end}", range.start()),
        };
        let finding = Finding::new(Code::OutOfRange, message)
            .allowed(allowed)
            .remedy("write a number within the range");
        self.note(report, finding);
        None
    }

    /// The value as true or false.
    pub(crate) fn boolean(self, report: &mut Report<'_>) -> Option<Found<bool>> {
        let DeValue::Boolean(value) = *self.value else {
            self.expected(report, "true or false");
            return None;
        };
        Some(self.replace(value))
    }

    /// The value as texts: an array of at most `max`, or a single text, which
    /// stands for an array of one.
    pub(crate) fn texts(self, max: usize, report: &mut Report<'_>) -> Vec<Found<&'d str>> {
        let DeValue::Array(array) = self.value else {
            if matches!(self.value, DeValue::String(_)) {
                return self.text(report).into_iter().collect();
            }
            self.expected(report, "a list of texts");
            return Vec::new();
        };
        if array.len() > max {
            let message = format!("`{}` has more than {max} entries", shown(&self.key));
            let finding = Finding::new(Code::OutOfRange, message)
                .allowed(format!("at most {max}"))
                .remedy("delete the entries that are not needed");
            self.note(report, finding);
        }
        let items = array.iter().take(max).enumerate();
        items
            .filter_map(|(at, item)| {
                let item = Found {
                    key: format!("{}[{}]", self.key, at + 1),
                    span: item.span(),
                    value: item.get_ref(),
                };
                item.text(report)
            })
            .collect()
    }

    /// The value as a table.
    pub(crate) fn table(self, report: &mut Report<'_>) -> Option<Section<'d>> {
        let DeValue::Table(table) = self.value else {
            self.expected(report, "a table");
            return None;
        };
        Some(Section::new(self.key, self.span, table))
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The heading of a table as it stands in the file: the number of a table in
/// a list is left out, its line says which one it is.
fn heading(key: &str) -> String {
    let parts = key.split('.').map(|part| match part.rsplit_once('[') {
        Some((name, _)) if part.ends_with(']') => name,
        _ => part,
    });
    let name = shown(&parts.collect::<Vec<_>>().join("."));
    if key.ends_with(']') {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }
}

/// A table being read.
#[derive(Debug)]
pub(crate) struct Section<'d> {
    key: String,
    span: Range<usize>,
    table: &'d DeTable<'d>,
    asked: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(crate) fn new(key: String, span: Range<usize>, table: &'d DeTable<'d>) -> Self {
        Self {
            key,
            span,
            table,
            asked: Vec::new(),
        }
    }

    /// The whole file.
    pub(crate) fn root(table: &'d Spanned<DeTable<'d>>) -> Self {
        Self::new(String::new(), 0..0, table.get_ref())
    }

    /// The whole key of `name` in this table.
    pub(crate) fn key_of(&self, name: &str) -> String {
        if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        }
    }

    /// Where the table stands.
    pub(crate) fn place(&self) -> Found<()> {
        Found {
            key: self.key.clone(),
            span: self.span.clone(),
            value: (),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Notes something about the table itself.
    pub(crate) fn note(&self, report: &mut Report<'_>, finding: Finding) {
        report.note(&self.span, &self.key, finding);
    }

    /// The value of `name`, which is a known key from now on.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<Found<&'d DeValue<'d>>> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        let value = self.table.get(name)?;
        Some(Found {
            key: self.key_of(name),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// As [`get`](Self::get), and a problem when there is none.
    pub(crate) fn require(
        &mut self,
        name: &'static str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Found<&'d DeValue<'d>>> {
        let found = self.get(name);
        if found.is_none() {
            let key = self.key_of(name);
            let finding = Finding::new(Code::MissingKey, format!("`{key}` is missing"))
                .remedy(format!("add it, for example {example}"));
            report.note(&self.span, &key, finding);
        }
        found
    }

    /// The table `name`, empty when it is not there.
    pub(crate) fn table(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<Self> {
        self.get(name)?.table(report)
    }

    /// The tables of `[[name]]`, at most `max`.
    pub(crate) fn tables(
        &mut self,
        name: &'static str,
        max: usize,
        report: &mut Report<'_>,
    ) -> Vec<Self> {
        let Some(found) = self.get(name) else {
            return Vec::new();
        };
        let DeValue::Array(array) = found.value else {
            let message = format!(
                "`{}` is {}, not a list of tables",
                found.key,
                type_name(found.value)
            );
            let finding = Finding::new(Code::WrongType, message)
                .allowed(format!("[[{}]]", found.key))
                .remedy("write the table's name in double brackets");
            found.note(report, finding);
            return Vec::new();
        };
        if array.len() > max {
            let message = format!("there are more than {max} `[[{}]]` tables", found.key);
            let finding = Finding::new(Code::OutOfRange, message)
                .allowed(format!("at most {max}"))
                .remedy("delete the tables that are not needed");
            found.note(report, finding);
        }
        let items = array.iter().take(max).enumerate();
        items
            .filter_map(|(at, item)| {
                let item = Found {
                    key: format!("{}[{}]", found.key, at + 1),
                    span: item.span(),
                    value: item.get_ref(),
                };
                item.table(report)
            })
            .collect()
    }

    /// Every entry under a name that the file chooses, sorted by name, with
    /// the place of that name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Found<&'d str>, Found<&'d DeValue<'d>>)> {
        self.table.iter().map(|(name, value)| {
            let text: &'d str = name.get_ref();
            let key = self.key_of(text);
            let named = Found {
                key: key.clone(),
                span: name.span(),
                value: text,
            };
            let value = Found {
                key,
                span: value.span(),
                value: value.get_ref(),
            };
            (named, value)
        })
    }

    /// Reports every key that nobody asked for; `more` are known besides.
    pub(crate) fn finish(self, report: &mut Report<'_>) {
        self.finish_with(&[], report);
    }

    /// As [`finish`](Self::finish); `more` are known besides.
    pub(crate) fn finish_with(self, more: &[&str], report: &mut Report<'_>) {
        let known = || self.asked.iter().copied().chain(more.iter().copied());
        for name in self.table.keys() {
            let text: &str = name.get_ref();
            if known().any(|asked| asked == text) {
                continue;
            }
            let place = if self.key.is_empty() {
                "the file".to_owned()
            } else {
                format!("`{}`", heading(&self.key))
            };
            let message = format!("`{}` is not a key of {place}", shown(text));
            let remedy = match nearest(text, known()) {
                Some(near) => format!("write `{near}`, if that is meant"),
                None => "delete it".to_owned(),
            };
            let names: Vec<&str> = known().collect();
            let finding = Finding::new(Code::UnknownKey, message)
                .allowed(names.join(", "))
                .remedy(remedy);
            report.note(&name.span(), &self.key_of(text), finding);
        }
    }
}
