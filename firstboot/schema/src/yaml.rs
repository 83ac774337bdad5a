//! As much of YAML 1.2 as cloud-init's files are made of: block mappings and
//! sequences, scalars in every quoting, literal and folded blocks, flow
//! sequences and mappings on one line.
//!
//! Refused, with their line: anchors, aliases, tags, complex keys, doubled
//! keys, tabs that indent, more documents than one, deep nesting. Nothing is
//! expanded, so a small file stays small.

use crate::problem::{Code, Problem};
use crate::report::{Finding, Report};

/// Levels of nesting.
const MAX_DEPTH: usize = 16;

/// A value and the byte at which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Byte at which it begins.
    pub(crate) at: usize,
    pub(crate) value: Value,
}

/// A key of a mapping and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Byte at which the key begins.
    pub(crate) at: usize,
    pub(crate) value: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar; whether it was quoted, and so is a text whatever it says.
    Text(String, bool),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<Entry>),
}

/// One line that says something.
#[derive(Debug, Clone, Copy)]
struct Line<'t> {
    at: usize,
    indent: usize,
    /// Without indentation, comment and trailing space.
    text: &'t str,
}

impl Line<'_> {
    /// Whether the line is empty or a comment.
    fn is_blank(&self) -> bool {
        self.text.is_empty() || self.text.starts_with('#')
    }
}

struct Reader<'t> {
    text: &'t str,
    lines: Vec<Line<'t>>,
    next: usize,
}

type Wrong = (usize, &'static str);

const DOUBLED: &str = "this key stands here a second time";

/// Reads a text.
///
/// # Errors
///
/// The first thing that is not understood, at its place.
pub(crate) fn read(text: &str) -> Result<Node, Vec<Problem>> {
    read_nodes(text).map_err(|(at, message)| {
        let mut report = Report::new(text);
        let finding = Finding::new(Code::Syntax, message)
            .remedy("write it in plain YAML, or write a site.toml");
        report.note(&(at..at), "", finding);
        report.into_problems()
    })
}

fn read_nodes(text: &str) -> Result<Node, Wrong> {
    let mut reader = Reader {
        text,
        lines: lines(text)?,
        next: 0,
    };
    let Some(first) = reader.peek() else {
        return Ok(Node {
            at: 0,
            value: Value::Null,
        });
    };
    let node = reader.block(first.indent, 0)?;
    match reader.peek() {
        None => Ok(node),
        Some(line) => Err((line.at, "this line belongs to nothing above it")),
    }
}

fn lines(text: &str) -> Result<Vec<Line<'_>>, Wrong> {
    let mut found: Vec<Line<'_>> = Vec::new();
    let mut at = 0;
    let (mut has_start, mut has_content) = (false, false);
    for line in text.split_inclusive('\n') {
        let plain = line.trim_end_matches(['\n', '\r']);
        let body = plain.trim_start_matches(' ');
        let indent = plain.len() - body.len();
        let start = at + indent;
        at += line.len();
        if body.starts_with('\t') {
            return Err((start, "a tab indents here, and YAML wants spaces"));
        }
        let is_marker = plain.trim_end() == "---";
        if is_marker && !has_start && !has_content {
            has_start = true;
            continue;
        }
        if is_marker || plain.trim_end() == "..." || plain.starts_with("--- ") {
            return Err((start, "the file has more than one document"));
        }
        if plain.starts_with('%') && !has_content {
            return Err((start, "directives are not understood"));
        }
        let line = Line {
            at: start,
            indent,
            text: body.trim_end(),
        };
        has_content |= !line.is_blank();
        found.push(line);
    }
    Ok(found)
}

impl<'t> Reader<'t> {
    /// The next line that is not empty or a comment.
    fn peek(&mut self) -> Option<Line<'t>> {
        while let Some(line) = self.lines.get(self.next) {
            if !line.is_blank() {
                return Some(*line);
            }
            self.next += 1;
        }
        None
    }

    /// The mapping or sequence whose lines have this indentation.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Node, Wrong> {
        let Some(first) = self.peek() else {
            return Err((self.text.len(), "a value is missing"));
        };
        if depth > MAX_DEPTH {
            return Err((first.at, "the file nests too deeply"));
        }
        let at = first.at;
        if is_item(first.text) {
            let mut items = Vec::new();
            while let Some(line) = self.peek().filter(|line| line.indent == indent) {
                if !is_item(line.text) {
                    break;
                }
                items.push(self.item(line, depth)?);
            }
            return Ok(Node {
                at,
                value: Value::List(items),
            });
        }
        if key_of(first.text, at)?.is_none() {
            self.next += 1;
            return scalar(first.text, at);
        }
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(line) = self.peek().filter(|line| line.indent == indent) {
            let Some((key, rest, offset)) = key_of(line.text, line.at)? else {
                return Err((line.at, "this is not `key: value`"));
            };
            if is_taken(&entries, &key) {
                return Err((line.at, DOUBLED));
            }
            self.next += 1;
            let value = self.value(rest, line.at + offset, indent, depth)?;
            let at = line.at;
            entries.push(Entry { key, at, value });
        }
        Ok(Node {
            at,
            value: Value::Map(entries),
        })
    }

    /// `- value`, `- key: value` with more keys below, or `-` and a block.
    fn item(&mut self, line: Line<'t>, depth: usize) -> Result<Node, Wrong> {
        let after = line.text.get(1..).unwrap_or_default();
        let inside = after.trim_start_matches(' ');
        let offset = 1 + after.len() - inside.len();
        if inside.is_empty() || inside.starts_with('#') {
            self.next += 1;
            let below = self.peek().filter(|below| below.indent > line.indent);
            return match below {
                Some(below) => self.block(below.indent, depth + 1),
                None => Ok(Node {
                    at: line.at,
                    value: Value::Null,
                }),
            };
        }
        let is_flow = inside.starts_with(['[', '{', '|', '>']);
        if !is_flow && (is_item(inside) || key_of(inside, line.at + offset)?.is_some()) {
            // What stands behind the dash is the first line of a block.
            if let Some(own) = self.lines.get_mut(self.next) {
                own.at += offset;
                own.indent += offset;
                own.text = inside;
            }
            return self.block(line.indent + offset, depth + 1);
        }
        self.next += 1;
        self.value(inside, line.at + offset, line.indent, depth)
    }

    /// What stands behind a key: here, or below it.
    fn value(
        &mut self,
        rest: &'t str,
        at: usize,
        indent: usize,
        depth: usize,
    ) -> Result<Node, Wrong> {
        if let Some(style @ ('|' | '>')) = rest.chars().next() {
            return self.literal(rest, style, at, indent);
        }
        if !rest.is_empty() && !rest.starts_with('#') {
            return scalar(rest, at);
        }
        // A sequence may stand below its key without indentation.
        let below = self
            .peek()
            .filter(|line| line.indent > indent || (line.indent == indent && is_item(line.text)));
        match below {
            Some(line) => self.block(line.indent, depth + 1),
            None => Ok(Node {
                at,
                value: Value::Null,
            }),
        }
    }

    /// `|` and `>`: the lines that are indented below.
    fn literal(
        &mut self,
        head: &str,
        style: char,
        at: usize,
        indent: usize,
    ) -> Result<Node, Wrong> {
        let marks = head.get(1..).unwrap_or_default();
        if !matches!(marks, "" | "-" | "+") {
            return Err((at, "this kind of block text is not understood"));
        }
        let mut text: Vec<&str> = Vec::new();
        let mut own: Option<usize> = None;
        while let Some(line) = self.lines.get(self.next) {
            let start = line.at - line.indent;
            let whole = self.text.get(start..).unwrap_or_default();
            let whole = whole.lines().next().unwrap_or_default();
            if whole.trim().is_empty() {
                text.push("");
            } else if line.indent > indent {
                let width = *own.get_or_insert(line.indent);
                text.push(whole.get(width.min(line.indent)..).unwrap_or_default());
            } else {
                break;
            }
            self.next += 1;
        }
        while text.last().is_some_and(|line| line.is_empty()) {
            text.pop();
        }
        let separator = if style == '|' { "\n" } else { " " };
        let mut joined = text.join(separator);
        if marks != "-" {
            joined.push('\n');
        }
        Ok(Node {
            at,
            value: Value::Text(joined, true),
        })
    }
}

fn is_taken(entries: &[Entry], key: &str) -> bool {
    entries.iter().any(|other| other.key == key)
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Key, value and the value's offset of `key: value`; `None` for other lines.
fn key_of(text: &str, at: usize) -> Result<Option<(String, &str, usize)>, Wrong> {
    if text.starts_with("? ") {
        return Err((at, "complex keys are not understood"));
    }
    let (key, end) = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let Some((key, length)) = quoted(text, quote) else {
                return Ok(None);
            };
            (key, length)
        }
        Some('[' | '{') => return Ok(None),
        _ => {
            let mut places = text.match_indices(':').map(|(at, _)| at);
            let is_end = |at: &usize| matches!(text.as_bytes().get(at + 1), None | Some(b' '));
            let Some(end) = places.find(is_end) else {
                return Ok(None);
            };
            let key = text.get(..end).unwrap_or_default();
            if key.contains(" #") {
                return Ok(None);
            }
            (key.to_owned(), end)
        }
    };
    let rest = text.get(end..).unwrap_or_default();
    let Some(rest) = rest
        .strip_prefix(':')
        .filter(|rest| rest.is_empty() || rest.starts_with(' '))
    else {
        return Ok(None);
    };
    if key == "<<" || key.starts_with(['&', '*', '!']) {
        return Err((at, "anchors, aliases and tags are not understood"));
    }
    let value = rest.trim_start();
    Ok(Some((key, value, text.len() - value.len())))
}

/// A quoted scalar and its length with the quotes.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut plain = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            if quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == '\'') {
                chars.next();
                plain.push('\'');
                continue;
            }
            return Some((plain, at + 1));
        }
        if c != '\\' || quote == '\'' {
            plain.push(c);
            continue;
        }
        plain.push(match chars.next()?.1 {
            'n' => '\n',
            't' => '\t',
            '0' => '\0',
            'u' => {
                let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
            }
            c @ ('"' | '\\' | '/' | ' ') => c,
            _ => return None,
        });
    }
    None
}

/// A scalar or a flow collection that fills the rest of a line.
fn scalar(text: &str, at: usize) -> Result<Node, Wrong> {
    let mut flow = Flow { text, at, next: 0 };
    let node = if text.starts_with(['[', '{']) {
        flow.node(0)?
    } else {
        flow.plain(&[])?
    };
    let rest = text.get(flow.next..).unwrap_or_default();
    if rest.trim().is_empty() || rest.trim_start().starts_with('#') {
        return Ok(node);
    }
    Err((at + flow.next, "more than one value stands on this line"))
}

/// Reads within one line.
struct Flow<'t> {
    text: &'t str,
    at: usize,
    next: usize,
}

impl Flow<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.next..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        self.next += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, c: char) -> bool {
        self.skip_spaces();
        let is_it = self.rest().starts_with(c);
        self.next += usize::from(is_it);
        is_it
    }

    fn node(&mut self, depth: usize) -> Result<Node, Wrong> {
        self.skip_spaces();
        let at = self.at + self.next;
        if depth > MAX_DEPTH {
            return Err((at, "the file nests too deeply"));
        }
        if self.take('[') {
            let mut items = Vec::new();
            while !self.take(']') {
                items.push(self.node(depth + 1)?);
                if !self.take(',') && !self.rest().trim_start().starts_with(']') {
                    return Err((at, "the list has no end on this line"));
                }
            }
            return Ok(Node {
                at,
                value: Value::List(items),
            });
        }
        if self.take('{') {
            let mut entries: Vec<Entry> = Vec::new();
            while !self.take('}') {
                let entry = self.entry(depth)?;
                if is_taken(&entries, &entry.key) {
                    return Err((entry.at, DOUBLED));
                }
                entries.push(entry);
                if !self.take(',') && !self.rest().trim_start().starts_with('}') {
                    return Err((at, "the mapping has no end on this line"));
                }
            }
            return Ok(Node {
                at,
                value: Value::Map(entries),
            });
        }
        self.plain(&[',', ']', '}'])
    }

    /// `key: value`. Without a space behind the colon, it belongs to a key
    /// that is not quoted.
    fn entry(&mut self, depth: usize) -> Result<Entry, Wrong> {
        let Node { at, value } = self.plain(&[':', ',', '}'])?;
        let Value::Text(key, is_quoted) = value else {
            return Err((at, "a key is missing"));
        };
        let is_key = self.take(':') && (is_quoted || self.rest().starts_with([' ', ',', '}']));
        if !is_key {
            return Err((at, "this is not `key: value`"));
        }
        let value = self.node(depth + 1)?;
        Ok(Entry { key, at, value })
    }

    /// A scalar up to one of `ends`, or to the end or a comment.
    fn plain(&mut self, ends: &[char]) -> Result<Node, Wrong> {
        self.skip_spaces();
        let at = self.at + self.next;
        let rest = self.rest();
        if let Some(quote @ ('"' | '\'')) = rest.chars().next() {
            let (text, length) = quoted(rest, quote).ok_or((at, "the quote has no end"))?;
            self.next += length;
            return Ok(Node {
                at,
                value: Value::Text(text, true),
            });
        }
        if rest.starts_with(['&', '*', '!', '@', '`', '%']) {
            return Err((at, "anchors, aliases and tags are not understood"));
        }
        let end = rest.find(ends).unwrap_or(rest.len());
        let text = rest.get(..end).unwrap_or_default();
        // Looked for up to `end` only: lines may be long, and have many values.
        let end = text.find(" #").unwrap_or(end);
        let text = text.get(..end).unwrap_or_default().trim_end().to_owned();
        if text.contains(": ") || text.ends_with(':') {
            return Err((at, "a value with a colon needs quotes"));
        }
        self.next += end;
        let value = match text.as_str() {
            "" | "~" | "null" => Value::Null,
            _ => Value::Text(text, false),
        };
        Ok(Node { at, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".into(),
            Value::Text(text, true) => format!("{text:?}"),
            Value::Text(text, false) => text.clone(),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(shown).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Map(entries) => {
                let entries = entries.iter();
                let entries: Vec<String> = entries
                    .map(|entry| format!("{}={}", entry.key, shown(&entry.value)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[test]
    fn what_cloud_init_writes_is_read() {
        for (text, expected) in [
            ("a: 1\nb: 'x: y' # c\n", "{a=1 b=\"x: y\"}"),
            (
                "---\na:\n  - 1\n  - b: 2\n    c: 3\n  - - 4\n",
                "{a=[1 {b=2 c=3} [4]]}",
            ),
            ("a:\n- 1\n- 2\nb: ~\n", "{a=[1 2] b=~}"),
            ("a: [1, 'b', {c: d, e: [f]}]\n", "{a=[1 \"b\" {c=d e=[f]}]}"),
            (
                "a: |\n  x\n    y\n\n  z\nb: >-\n  p\n  q\n",
                "{a=\"x\\n  y\\n\\nz\\n\" b=\"p q\"}",
            ),
            (
                "k: ssh-rsa AAA= a@b:c\nu: http://x:1/y\n",
                "{k=ssh-rsa AAA= a@b:c u=http://x:1/y}",
            ),
            ("\"a b\": \"\\u00fc\\n\"\n", "{a b=\"ü\\n\"}"),
            ("# nothing\n", "~"),
            ("#cloud-config\n\n---\na: 1\n", "{a=1}"),
            ("{\"a\":1, b: 2}\n", "{a=1 b=2}"),
            ("- \n  a: 1\n-\n", "[{a=1} ~]"),
        ] {
            let node = read(text).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
            assert_eq!(shown(&node), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_at_its_line() {
        for (text, line) in [
            ("a: &x 1\nb: 2\n", 1),
            ("a: 1\nb: *x\n", 2),
            ("a: 1\nb: !!binary x\n", 2),
            ("a: 1\n<<: b\n", 2),
            ("a: 1\na: 2\n", 2),
            ("a:\n\t- b\n", 2),
            ("a: 1\n---\nb: 2\n", 2),
            ("a: 1\n  b: 2\n", 2),
            ("a: 1\nb\n", 2),
            ("? a\n: b\n", 1),
            ("a: [1, 2\n", 1),
            ("a: 'x\n", 1),
            ("a: {b: 1, b: 2}\n", 1),
            ("a: {b:1}\n", 1),
            ("a: b: c\n", 1),
            ("a: b:\n", 1),
            ("a: [b: c]\n", 1),
            ("a: {b: c: d}\n", 1),
            ("#cloud-config\n---\n---\na: 1\n", 3),
            ("#cloud-config\n---\na: 1\n---\nb: 1\n", 4),
            ("a: 1\n... \nb: 1\n", 2),
            ("# c\n%YAML 1.2\n---\na: 1\n", 2),
        ] {
            let problems = read(text).expect_err(text);
            assert_eq!(problems[0].line, line, "{text}: {problems:?}");
        }
        let deep = "[".repeat(10_000);
        assert!(read(&format!("a: {deep}")).is_err());
        let lines: Vec<String> = (0..1000).map(|n| " ".repeat(n) + "a:\n").collect();
        let deep = lines.concat();
        assert!(read(&deep).is_err());
    }
}
