//! An error with its place in a file, drawn below the line it is about.

pub(super) use crate::units::nearest;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::Source;

/// At most so many errors of one file are drawn; the rest is counted.
const DRAWN: usize = 50;
/// At most so many are kept: each costs a walk through the file.
const KEPT: usize = 1000;
/// Foreign text in a message is cut after so many characters.
const QUOTED: usize = 60;

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong: one lowercase clause.
    pub message: String,
    /// Where: a range of bytes of the text; `None` when it is about what is not there.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error about the bytes of `span`.
    #[must_use]
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: Some(span),
            help: None,
        }
    }

    /// An error about the file as a whole.
    #[must_use]
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: None,
            help: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Whether a drawing has terminal colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    #[default]
    Plain,
    /// With ANSI escape sequences.
    Colored,
}

/// All that is wrong in one file, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblems {
    source: Source,
    diagnostics: Vec<Diagnostic>,
    count: usize,
}

impl FileProblems {
    /// `None` when nothing is wrong.
    #[must_use]
    pub fn new(source: &Source, mut diagnostics: Vec<Diagnostic>) -> Option<Self> {
        if diagnostics.is_empty() {
            return None;
        }
        // Stable: what was found first stays first at one place.
        diagnostics.sort_by_key(|one| one.span.as_ref().map_or(0, |span| span.start));
        diagnostics.dedup();
        let count = diagnostics.len();
        diagnostics.truncate(KEPT);
        Some(Self {
            source: source.clone(),
            diagnostics,
            count,
        })
    }

    /// The file.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How many errors there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What is wrong, in the order of the text; the first 1000 errors.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// For people: each error below its line, a blank line between two.
    #[must_use]
    pub fn draw(&self, style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Colored => Renderer::styled(),
        };
        let mut drawn = String::new();
        for diagnostic in self.diagnostics.iter().take(DRAWN) {
            let group = self.group(diagnostic);
            writeln!(drawn, "{}\n", renderer.render(&[group]))
                .expect("writing to a string cannot fail");
        }
        let hidden = self.count.saturating_sub(DRAWN);
        if hidden > 0 {
            writeln!(drawn, "... and {hidden} more in {}\n", self.path())
                .expect("writing to a string cannot fail");
        }
        drawn
    }

    /// For programs: one object for each error.
    #[must_use]
    pub fn json(&self) -> Vec<serde_json::Value> {
        let one = |diagnostic: &Diagnostic| {
            let place = diagnostic
                .span
                .as_ref()
                .map(|span| self.source.line_and_column(span.start));
            serde_json::json!({
                "file": self.path(),
                "line": place.map(|(line, _)| line),
                "column": place.map(|(_, column)| column),
                "message": diagnostic.message,
                "help": diagnostic.help,
            })
        };
        self.diagnostics.iter().map(one).collect()
    }

    fn path(&self) -> String {
        escape(&self.source.path().to_string_lossy())
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let title = Level::ERROR.primary_title(&diagnostic.message);
        let group = match &diagnostic.span {
            None => title.element(Origin::path(self.path())),
            Some(span) => {
                let text = self.source.text();
                let annotation = AnnotationKind::Primary.span(inside(span, text));
                title.element(
                    Snippet::source(text)
                        .path(self.path())
                        .annotation(annotation),
                )
            }
        };
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        }
    }
}

/// `span` moved to character borders of `text`, on one line, and inside of it.
fn inside(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = floor(text, span.start.min(text.len()));
    let line_end = text[start..]
        .find(['\n', '\r'])
        .map_or(text.len(), |at| start + at);
    let end = floor(text, span.end.clamp(start, line_end));
    start..end
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Text from a file, fit for a message: control and other invisible
/// characters escaped, cut when long.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = escape(&text.chars().take(QUOTED).collect::<String>());
    if text.chars().nth(QUOTED).is_some() {
        short.push_str("...");
    }
    short
}

/// Quotes and backslashes stay; what does not print is escaped.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\'' | '\\') {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_debug());
        }
    }
    escaped
}

/// "`a`, `b` and `c`", or another word before the last one.
pub(super) fn list<S: AsRef<str>>(words: &[S], last_word: &str) -> String {
    let quote = |word: &S| format!("`{}`", word.as_ref());
    match words {
        [] => String::new(),
        [one] => quote(one),
        [most @ .., last] => {
            let most: Vec<_> = most.iter().map(quote).collect();
            format!("{} {last_word} {}", most.join(", "), quote(last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = ["size", "profile", "root"];
        assert_eq!(nearest("sise", known), Some("size"));
        assert_eq!(nearest("rot", known), Some("root"));
        assert_eq!(nearest("porfile", known), Some("profile"));
        assert_eq!(nearest("memory", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn invisible_characters_are_shown() {
        assert_eq!(quoted("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(quoted("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(quoted(&"x".repeat(61)), format!("{}...", "x".repeat(60)));
    }

    #[test]
    fn a_span_never_leaves_its_line_or_the_text() {
        assert_eq!(inside(&(0..100), "ab\ncd"), 0..2);
        assert_eq!(inside(&(90..100), "ab"), 2..2);
        assert_eq!(inside(&(1..1), "ä"), 0..0);
    }

    #[test]
    fn an_error_about_what_is_missing_names_the_file() {
        let source = Source::new("x.toml", "a = 1\n");
        let problems = FileProblems::new(&source, vec![Diagnostic::whole("no `b`").help("add it")])
            .expect("one problem");
        assert_eq!(
            problems.draw(Style::Plain),
            "error: no `b`\n--> x.toml\n = help: add it\n\n"
        );
        assert!(problems.draw(Style::Colored).contains("\u{1b}["));
    }
}
