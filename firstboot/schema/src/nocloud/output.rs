//! The `site.toml` that a conversion writes, and where each part of it was
//! said, so that what is wrong with it can be told there.

use crate::text::quoted;

/// Items of a list that are looked through for a double at most; no list of a
/// site configuration may be longer.
const MAX_LOOK: usize = 64;

/// A text, and the byte at which it stands in its file.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) at: usize,
}

/// What has been said so far.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// The file that is being read, by its place in the medium's order.
    pub(super) file: usize,
    /// Sorted by name; a map of its own would be more code than this.
    pub(super) tables: Vec<(String, Table)>,
    pub(super) lists: Vec<(&'static str, Table)>,
}

/// A table and its settings, in the order in which they came.
#[derive(Debug)]
pub(super) struct Table {
    file: usize,
    /// Where its first setting, or its name, was said.
    pub(super) at: usize,
    settings: Vec<Setting>,
}

/// A key with its value, or with the items of its list.
#[derive(Debug)]
struct Setting {
    key: &'static str,
    file: usize,
    is_list: bool,
    items: Vec<Said>,
}

/// A part of the result, by its first byte, and the place that it came from.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) start: usize,
    pub(super) file: usize,
    pub(super) at: usize,
}

impl Site {
    /// The table of this name; a new one was said at `at`.
    pub(super) fn table(&mut self, name: &str, at: usize) -> &mut Table {
        let file = self.file;
        let place = match self.place(name) {
            Ok(place) => place,
            Err(place) => {
                let new = (name.to_owned(), Table::new(file, at));
                self.tables.insert(place, new);
                place
            }
        };
        let (_, table) = &mut self.tables[place];
        table.file = file;
        table
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.tables
            .binary_search_by(|(other, _)| other.as_str().cmp(name))
    }

    /// Adds to a list; nothing makes no table.
    pub(super) fn join(&mut self, table: &str, key: &'static str, items: Vec<Said>) {
        if let Some(first) = items.first() {
            self.table(table, first.at).join(key, items);
        }
    }

    /// The text, and where its parts were said, in the order of the text.
    pub(super) fn write(&self) -> (String, Vec<Mark>) {
        let mut text = "# Converted from a CIDATA medium.\nschema = 1\n".to_owned();
        let mut marks = Vec::new();
        for (name, table) in &self.tables {
            table.write(&format!("[{name}]\n"), &mut text, &mut marks);
        }
        for (name, table) in &self.lists {
            table.write(&format!("[[{name}]]\n"), &mut text, &mut marks);
        }
        (text, marks)
    }
}

impl Table {
    pub(super) fn new(file: usize, at: usize) -> Self {
        Self {
            file,
            at,
            settings: Vec::new(),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.settings.iter().any(|setting| setting.key == key)
    }

    /// Sets a value as TOML has it; a later one takes its place.
    pub(super) fn set(&mut self, key: &'static str, text: String, at: usize) {
        let file = self.file;
        let setting = self.setting(key);
        setting.file = file;
        setting.items = vec![Said { text, at }];
    }

    /// Adds to a list what it has not yet.
    pub(super) fn join(&mut self, key: &'static str, items: Vec<Said>) {
        if items.is_empty() {
            return;
        }
        let setting = self.setting(key);
        setting.is_list = true;
        for item in items {
            let known = setting.items.iter().take(MAX_LOOK);
            let mut known = known.map(|other| without_comment(&other.text));
            if !known.any(|other| other == without_comment(&item.text)) {
                setting.items.push(item);
            }
        }
    }

    fn setting(&mut self, key: &'static str) -> &mut Setting {
        let found = self.settings.iter().position(|it| it.key == key);
        let at = found.unwrap_or(self.settings.len());
        if found.is_none() {
            self.settings.push(Setting {
                key,
                file: self.file,
                is_list: false,
                items: Vec::new(),
            });
        }
        &mut self.settings[at]
    }

    fn write(&self, head: &str, text: &mut String, marks: &mut Vec<Mark>) {
        let mut mark = |start, file, at| marks.push(Mark { start, file, at });
        mark(text.len(), self.file, self.at);
        text.push_str(head);
        for setting in &self.settings {
            let first = setting.items.first().map_or(self.at, |item| item.at);
            mark(text.len(), setting.file, first);
            text.push_str(setting.key);
            text.push_str(if setting.is_list { " = [" } else { " = " });
            for (nth, item) in setting.items.iter().enumerate() {
                text.push_str(if nth == 0 { "" } else { ", " });
                mark(text.len(), setting.file, item.at);
                if setting.is_list {
                    text.push_str(&quoted(&item.text));
                } else {
                    text.push_str(&item.text);
                }
            }
            text.push_str(if setting.is_list { "]\n" } else { "\n" });
        }
    }
}

/// An SSH key without the comment behind its second word, which does not make
/// another key. Other items are one word.
fn without_comment(text: &str) -> &str {
    let mut spaces = text.bytes().enumerate().filter(|(_, byte)| *byte == b' ');
    let end = spaces.nth(1).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text)
}
