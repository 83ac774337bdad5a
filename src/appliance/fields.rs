//! A cursor over one TOML table that asks for each key by name and type,
//! goes on after an error, and in the end names the keys nobody asked for.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

use super::diagnostic::{Diagnostic, list, nearest, quoted};
use super::source::Source;

/// At most so many elements of an array are read.
const ELEMENTS: usize = 4096;

/// What the file's own table is called in messages.
const TOP: &str = "the top level";

/// The errors found so far.
pub(super) type Problems = Vec<Diagnostic>;

/// Parses `source`; without a syntax error gives its top table.
pub(super) fn parse<'a>(source: &'a Source, problems: &mut Problems) -> Option<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(source.text());
    for error in &errors {
        let message = quoted_message(error.message());
        problems.push(match error.span() {
            Some(span) => Diagnostic::at(span, message),
            None => Diagnostic::whole(message),
        });
    }
    errors.is_empty().then(|| table.into_inner())
}

/// The parser's sentences begin with a lower-case letter like ours, but may
/// quote the file.
fn quoted_message(message: &str) -> String {
    super::diagnostic::escape(message)
}

/// One table, and the keys of it that were asked for.
pub(super) struct Fields<'t> {
    name: String,
    span: Option<Range<usize>>,
    table: Option<&'t DeTable<'t>>,
    asked: Vec<&'static str>,
    required: Vec<(&'static str, &'static str)>,
}

/// What a value is, for messages.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(number) if number.as_str().starts_with('-') => "a number below 0",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn like(key: &str, example: &str) -> String {
    format!("write it like this: `{key} = {example}`")
}

impl<'t> Fields<'t> {
    /// The table of the file itself.
    pub(super) fn top(table: &'t DeTable<'t>) -> Self {
        Self::of(TOP.into(), None, Some(table))
    }

    fn of(name: String, span: Option<Range<usize>>, table: Option<&'t DeTable<'t>>) -> Self {
        Self {
            name,
            span,
            table,
            asked: Vec::new(),
            required: Vec::new(),
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.table?.get(key)
    }

    /// What `read` makes of the value; `wanted` says what it should have been.
    fn typed<T>(
        &mut self,
        key: &'static str,
        (wanted, help): (&str, String),
        problems: &mut Problems,
        read: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let value = self.value(key)?;
        if let Some(read) = read(value.get_ref()) {
            return Some(Spanned::new(value.span(), read));
        }
        let found = kind(value.get_ref());
        problems.push(
            Diagnostic::at(
                value.span(),
                format!("`{key}` takes {wanted}, this is {found}"),
            )
            .help(help),
        );
        None
    }

    /// A string.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems,
    ) -> Option<Spanned<String>> {
        self.typed(key, ("text", like(key, example)), problems, |value| {
            value.as_str().map(str::to_owned)
        })
    }

    /// A boolean.
    pub(super) fn truth(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Spanned<bool>> {
        self.typed(
            key,
            ("true or false", like(key, "true")),
            problems,
            DeValue::as_bool,
        )
    }

    /// A whole number from 0 on.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems,
    ) -> Option<Spanned<u64>> {
        self.typed(
            key,
            ("a whole number from 0 on", like(key, example)),
            problems,
            number,
        )
    }

    /// A list of strings. Elements of another type are reported one by one.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems,
    ) -> Option<Spanned<Vec<Spanned<String>>>> {
        let wanted = ("a list of texts", like(key, example));
        let list = self.typed(key, wanted, problems, DeValue::as_array)?;
        let (span, list) = (list.span(), list.into_inner());
        if list.len() > ELEMENTS {
            problems.push(Diagnostic::at(
                span,
                format!("`{key}` has more than {ELEMENTS} elements"),
            ));
            return None;
        }
        let mut texts = Vec::new();
        for element in list {
            match element.get_ref().as_str() {
                Some(text) => texts.push(Spanned::new(element.span(), text.to_owned())),
                None => problems.push(Diagnostic::at(
                    element.span(),
                    format!(
                        "`{key}` is a list of texts, this is {}",
                        kind(element.get_ref())
                    ),
                )),
            }
        }
        Some(Spanned::new(span, texts))
    }

    /// A date and time, a text or a number: which one, the caller judges.
    pub(super) fn moment(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems,
    ) -> Option<Spanned<WrittenMoment>> {
        let wanted = "a date and time with its zone, or seconds since 1970";
        self.typed(
            key,
            (wanted, like(key, example)),
            problems,
            |value| match value {
                DeValue::Datetime(date) => Some(WrittenMoment::Date(*date)),
                DeValue::String(text) => Some(match text.parse() {
                    Ok(date) => WrittenMoment::Date(date),
                    Err(_) => WrittenMoment::Nonsense,
                }),
                other => number(other).map(WrittenMoment::Seconds),
            },
        )
    }

    /// The table below `key`; when it is missing or no table, an empty one.
    pub(super) fn table(&mut self, key: &'static str, problems: &mut Problems) -> Self {
        let name = format!("[{key}]");
        let help = format!("write `{name}` and its keys below it");
        let table = self.typed(key, ("a table", help), problems, DeValue::as_table);
        match table {
            Some(table) => Self::of(name, Some(table.span()), Some(table.into_inner())),
            None => Self::of(name, None, None),
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str, problems: &mut Problems) -> Vec<Self> {
        let name = match self.span {
            Some(_) => format!("[{}.{key}]", self.name.trim_matches(['[', ']'])),
            None => format!("[{key}]"),
        };
        let wanted = (
            "a list of tables",
            format!("write `[{name}]` once for each of them"),
        );
        let Some(list) = self.typed(key, wanted, problems, DeValue::as_array) else {
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in list.into_inner().iter().take(ELEMENTS) {
            match element.get_ref().as_table() {
                Some(table) => {
                    tables.push(Self::of(
                        format!("[{name}]"),
                        Some(element.span()),
                        Some(table),
                    ));
                }
                None => problems.push(Diagnostic::at(
                    element.span(),
                    format!(
                        "`{key}` is a list of tables, this is {}",
                        kind(element.get_ref())
                    ),
                )),
            }
        }
        tables
    }

    /// A table of texts under free keys, in the order of the keys.
    pub(super) fn pairs(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems,
    ) -> Vec<(Spanned<String>, Spanned<String>)> {
        let wanted = ("a table of texts", like(key, example));
        let Some(table) = self.typed(key, wanted, problems, DeValue::as_table) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table.into_inner() {
            let name = Spanned::new(name.span(), name.get_ref().clone().into_owned());
            match value.get_ref().as_str() {
                Some(text) => pairs.push((name, Spanned::new(value.span(), text.to_owned()))),
                None => problems.push(Diagnostic::at(
                    value.span(),
                    format!(
                        "`{key}` is a table of texts, this is {}",
                        kind(value.get_ref())
                    ),
                )),
            }
        }
        pairs
    }

    /// Whether `key` is there, of whatever type.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// What the table is called in messages: `[disk]`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the table's header stands.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// Remembers that `key` must be there; [`finish`](Self::finish) says so.
    pub(super) fn require(&mut self, key: &'static str, example: &'static str) {
        self.required.push((key, example));
    }

    /// Names every key that nobody asked for, and every one that is missing.
    pub(super) fn finish(self, problems: &mut Problems) {
        let mut meant = Vec::new();
        let place = match &self.span {
            None => format!("at {}", self.name),
            Some(_) => format!("in {}", self.name),
        };
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let text = key.get_ref().as_ref();
            if self.asked.contains(&text) {
                continue;
            }
            let unknown = Diagnostic::at(
                key.span(),
                format!("unknown key `{}` {place}", quoted(text)),
            );
            let known = self.asked.iter().copied();
            problems.push(match nearest(text, known) {
                Some(name) => {
                    meant.push(name);
                    unknown.help(format!("did you mean `{name}`?"))
                }
                None => unknown.help(format!("{} takes {}", self.name, list(&self.asked, "and"))),
            });
        }
        self.missing(&meant, problems);
    }

    /// Says which keys are missing, but for those that were `meant` by others.
    pub(super) fn missing(&self, meant: &[&str], problems: &mut Problems) {
        let missing = |(key, _): &&(&str, &str)| !self.has(key) && !meant.contains(key);
        let missing: Vec<_> = self.required.iter().filter(missing).collect();
        if self.table.is_none() && !missing.is_empty() {
            let lines: Vec<_> = missing
                .iter()
                .map(|(key, example)| format!("{key} = {example}"))
                .collect();
            problems.push(
                Diagnostic::whole(format!("there is no {}", self.name)).help(format!(
                    "add `{}` and below it {}",
                    self.name,
                    list(&lines, "and")
                )),
            );
            return;
        }
        for (key, example) in missing {
            let help = format!("add `{key} = {example}`");
            problems.push(match self.span() {
                Some(span) => {
                    Diagnostic::at(span, format!("{} has no `{key}`", self.name)).help(help)
                }
                None => Diagnostic::whole(format!("`{key}` is missing")).help(help),
            });
        }
    }
}

/// A moment as it may be written.
#[derive(Debug, Clone, Copy)]
pub(super) enum WrittenMoment {
    /// `2024-05-01T00:00:00Z`, with or without quotes; parts may be missing.
    Date(Datetime),
    /// Seconds since 1970.
    Seconds(u64),
    /// Text that is not a date.
    Nonsense,
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    // TOML allows digits to be grouped and a sign; the parser left out `_`.
    let digits = number.as_str().trim_start_matches('+');
    u64::from_str_radix(digits, number.radix()).ok()
}
