//! The files, read and nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::LAYER_FILE_NAME;
use super::error::ApplianceError;
use crate::tree::list_folder;

/// Longer files are refused; the reference appliance has one KiB.
const LIMIT: u64 = 1 << 20;

/// A text file and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// A text that is in memory already. A byte order mark is dropped.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        }
    }

    /// The same from bytes.
    ///
    /// # Errors
    ///
    /// [`ApplianceError::TooLarge`] above 1 MiB, [`ApplianceError::NotText`]
    /// when they are not UTF-8.
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self, ApplianceError> {
        Self::from_bytes_within(path, bytes, LIMIT)
    }

    /// The same with another limit, in bytes.
    ///
    /// # Errors
    ///
    /// As [`from_bytes`](Self::from_bytes).
    pub fn from_bytes_within(
        path: impl Into<PathBuf>,
        bytes: &[u8],
        limit: u64,
    ) -> Result<Self, ApplianceError> {
        let path = path.into();
        if bytes.len() as u64 > limit {
            return Err(ApplianceError::TooLarge { path, limit });
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(path, text)),
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let line = before.split(|byte| *byte == b'\n').count();
                Err(ApplianceError::NotText { path, line })
            }
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ApplianceError::Missing`], [`ApplianceError::Read`] and those of
    /// [`from_bytes`](Self::from_bytes).
    pub fn open(path: &Path) -> Result<Self, ApplianceError> {
        Self::open_within(path, LIMIT)
    }

    /// The same with another limit, in bytes; no more is read.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_within(path: &Path, limit: u64) -> Result<Self, ApplianceError> {
        let read = || {
            // Opening a pipe would wait for its other end.
            if !std::fs::metadata(path)?.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            let mut bytes = Vec::new();
            File::open(path)?
                .take(limit.saturating_add(1))
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error: io::Error| {
            let path = path.to_owned();
            if error.kind() == io::ErrorKind::NotFound {
                ApplianceError::Missing { path }
            } else {
                ApplianceError::Read {
                    path,
                    source: error,
                }
            }
        })?;
        Self::from_bytes_within(path, &bytes, limit)
    }

    /// What the file is called.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text, without a byte order mark.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte of the text, both from 1; columns count characters.
    #[must_use]
    pub fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = 1 + before.matches('\n').count();
        let last = before.rsplit('\n').next().unwrap_or_default();
        (line, 1 + last.chars().count())
    }
}

impl Source {
    /// The byte at line and column, both from 1, columns in characters; the
    /// end of the line or of the text where they pass it.
    pub(super) fn offset(&self, line: u32, column: u32) -> usize {
        let back = |number: u32| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut at = 0;
        for text in self.text.split_inclusive('\n').take(back(line)) {
            at += text.len();
        }
        let rest = self.text.get(at..).unwrap_or_default();
        let end = rest.find('\n').unwrap_or(rest.len());
        let inside = rest
            .char_indices()
            .nth(back(column))
            .map_or(end, |(at, _)| at);
        at + inside.min(end)
    }
}

/// The folders of `layers/`, whether the appliance names them or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelf {
    /// By name of the folder.
    pub layers: BTreeMap<String, ShelfLayer>,
}

/// One folder of `layers/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShelfLayer {
    /// The folder itself.
    pub folder: PathBuf,
    /// Its `layer.toml`.
    pub recipe: Option<Source>,
    /// The names of the folders in it.
    pub folders: BTreeSet<String>,
    /// The package files in it and in the folders that a recipe may name for
    /// them, as paths below it.
    pub debs: BTreeSet<String>,
    /// The names of the files in it.
    pub files: BTreeSet<String>,
}

impl Shelf {
    /// Looks through `folder`; a missing one is an empty shelf.
    ///
    /// # Errors
    ///
    /// [`ApplianceError::Read`] when a folder cannot be listed or a recipe
    /// not be read.
    pub fn open(folder: &Path) -> Result<Self, ApplianceError> {
        let mut layers = BTreeMap::new();
        for name in entries_of(folder)?.folders {
            let folder = folder.join(&name);
            let recipe = match Source::open(&folder.join(LAYER_FILE_NAME)) {
                Err(ApplianceError::Missing { .. }) => None,
                other => Some(other?),
            };
            let Entries { folders, files } = entries_of(&folder)?;
            let debs = debs_in(&folder, &folders, recipe.as_ref())?;
            layers.insert(
                name,
                ShelfLayer {
                    folder,
                    recipe,
                    folders,
                    debs,
                    files,
                },
            );
        }
        Ok(Self { layers })
    }
}

/// The package files in `folder` and one folder deep, where the recipe has
/// any use for them.
fn debs_in(
    folder: &Path,
    folders: &BTreeSet<String>,
    recipe: Option<&Source>,
) -> Result<BTreeSet<String>, ApplianceError> {
    let mut debs = BTreeSet::new();
    if !recipe.is_some_and(|recipe| recipe.text().contains("debs")) {
        return Ok(debs);
    }
    let places = folders
        .iter()
        .map(|name| (folder.join(name), format!("{name}/")));
    for (place, prefix) in places.chain([(folder.to_owned(), String::new())]) {
        let entries = list_folder(&place).map_err(|source| ApplianceError::Read {
            path: place.clone(),
            source,
        })?;
        let names = entries
            .into_iter()
            .filter(|entry| entry.path.extension().is_some_and(|end| end == "deb"))
            .filter(|entry| entry.path.is_file())
            .filter_map(|entry| entry.name.into_string().ok());
        debs.extend(names.map(|name| format!("{prefix}{name}")));
    }
    Ok(debs)
}

/// Names in a folder that are text, links followed.
#[derive(Default)]
struct Entries {
    folders: BTreeSet<String>,
    files: BTreeSet<String>,
}

fn entries_of(folder: &Path) -> Result<Entries, ApplianceError> {
    let mut found = Entries::default();
    let entries = match list_folder(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(source) => {
            return Err(ApplianceError::Read {
                path: folder.to_owned(),
                source,
            });
        }
    };
    for entry in entries {
        let is_folder = entry.path.is_dir();
        let is_file = !is_folder && entry.path.is_file();
        match entry.name.into_string() {
            Ok(name) if is_folder => found.folders.insert(name),
            Ok(name) if is_file => found.files.insert(name),
            _ => false,
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_begin_at_one_and_count_characters() {
        let source = Source::new("x", "ab\r\näö = 1\n");
        assert_eq!(source.line_and_column(0), (1, 1));
        assert_eq!(source.line_and_column(4), (2, 1));
        assert_eq!(source.line_and_column(8), (2, 3));
        assert_eq!(source.line_and_column(9999), (3, 1));
        for at in [0, 4, 8, 11] {
            let (line, column) = source.line_and_column(at);
            let number = |number| u32::try_from(number).expect("small");
            assert_eq!(source.offset(number(line), number(column)), at);
        }
        assert_eq!(source.offset(1, 99), 3, "the end of the line");
        assert_eq!(source.offset(99, 1), source.text().len());
    }

    #[test]
    fn the_line_that_is_not_text_is_named() {
        let error = Source::from_bytes("x", b"a = 1\nb = \"\xff\"\n").expect_err("not UTF-8");
        assert!(matches!(error, ApplianceError::NotText { line: 2, .. }));
    }
}
