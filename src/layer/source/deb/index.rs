//! The packages of a suite, and of several suites together.
//!
//! In: the bytes of `Packages` files, as a stream. Out: [`Archive`], which
//! finds packages by name and by what they provide. Kept are the fields that
//! resolving and pinning need, as they were written; they are read when they
//! are asked for.
//!
//! Source: Debian wiki DebianRepository/Format, "Packages" indices.

use std::io::{self, BufRead};
use std::ops::Range;

use super::pattern::fits;
use super::relation::{Relation, clauses, is_package_name};
use super::stanza;
use super::version::Version;

/// The fields that are kept; everything else is dropped while reading.
const KEPT: [&str; 18] = [
    "Package",
    "Version",
    "Architecture",
    "Essential",
    "Protected",
    "Important",
    "Priority",
    "Multi-Arch",
    "Source",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Filename",
    "Size",
    "SHA256",
];
/// apt's priority of everything that nobody says anything about.
const USUAL_PRIORITY: i32 = 500;
/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 4 << 20;

/// One `Packages` file.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// What pins call its repository.
    suite: String,
    /// As apt's.
    priority: i32,
    /// If not empty: only these names count.
    packages: Vec<String>,
    /// The kept fields of all stanzas, one after the other.
    text: String,
    entries: Vec<Entry>,
}

/// Where a package stands in the text.
#[derive(Debug, Clone, Copy)]
struct Entry {
    stanza: Span,
    name: Span,
    version: Span,
}

/// A range of an index' text, which is below 4 GiB.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Why a list could not be read.
#[derive(Debug)]
pub(super) enum IndexError {
    /// The stream broke.
    Read(io::Error),
    /// A clause about what is wrong.
    Malformed(String),
}

impl Index {
    /// Reads a list to its end; packages of other architectures are left out.
    pub(super) fn read(
        suite: &str,
        architecture: &str,
        mut from: impl BufRead,
    ) -> Result<Self, IndexError> {
        let mut text = Vec::new();
        let mut stanzas: Vec<Span> = Vec::new();
        let mut line = Vec::new();
        let (mut start, mut is_kept) = (0, false);
        loop {
            line.clear();
            let mut limited = io::Read::take(&mut from, MAX_LINE);
            let count = limited
                .read_until(b'\n', &mut line)
                .map_err(IndexError::Read)?;
            if count as u64 == MAX_LINE {
                return Err(IndexError::Malformed("a line is too long".into()));
            }
            if count == 0 || matches!(line.as_slice(), b"\n" | b"\r\n") {
                if text.len() > start {
                    stanzas.push(span(start, text.len())?);
                    start = text.len();
                }
                if count == 0 {
                    break;
                }
                continue;
            }
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
                is_kept = KEPT.iter().any(|kept| kept.as_bytes() == name);
            }
            if is_kept {
                text.extend_from_slice(&line);
                if !line.ends_with(b"\n") {
                    text.push(b'\n');
                }
            }
        }
        let text =
            String::from_utf8(text).map_err(|_| IndexError::Malformed("it is not UTF-8".into()))?;
        let mut index = Self {
            suite: suite.to_owned(),
            priority: USUAL_PRIORITY,
            packages: Vec::new(),
            text,
            entries: Vec::new(),
        };
        for stanza in stanzas {
            index.add(stanza, architecture)?;
        }
        Ok(index)
    }

    /// How much its packages count, and which.
    pub(super) fn with_preference(mut self, priority: i32, packages: &[String]) -> Self {
        self.priority = priority;
        self.packages = packages.to_vec();
        self
    }

    fn counts(&self, entry: Entry) -> bool {
        let name = self.text(entry.name);
        self.packages.is_empty() || self.packages.iter().any(|pattern| fits(pattern, name))
    }

    fn add(&mut self, stanza: Span, architecture: &str) -> Result<(), IndexError> {
        let fields = self.text.get(stanza.range()).unwrap_or_default();
        let (mut name, mut version, mut its_architecture) = (None, None, "");
        for field in stanza::fields(fields) {
            match field {
                Ok(("Package", value)) => name = Some(value),
                Ok(("Version", value)) => version = Some(value),
                Ok(("Architecture", value)) => its_architecture = value,
                Ok(_) => {}
                Err(_) => return Err(IndexError::Malformed("a stanza has a broken line".into())),
            }
        }
        if its_architecture != architecture && its_architecture != "all" {
            return Ok(());
        }
        let name = name.filter(|name| is_package_name(name));
        let version = version.filter(|version| Version::parse(version).is_some());
        let (Some(name), Some(version)) = (name, version) else {
            let shown = name.unwrap_or("a stanza");
            return Err(IndexError::Malformed(format!(
                "{shown} has no good name and version"
            )));
        };
        let (name, version) = (self.span_of(name)?, self.span_of(version)?);
        self.entries.push(Entry {
            stanza,
            name,
            version,
        });
        Ok(())
    }

    /// Where a part of the text is.
    fn span_of(&self, part: &str) -> Result<Span, IndexError> {
        let start = part.as_ptr() as usize - self.text.as_ptr() as usize;
        span(start, start + part.len())
    }

    fn text(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }
}

fn span(start: usize, end: usize) -> Result<Span, IndexError> {
    match (u32::try_from(start), u32::try_from(end)) {
        (Ok(start), Ok(end)) => Ok(Span { start, end }),
        _ => Err(IndexError::Malformed("it is longer than 4 GiB".into())),
    }
}

/// A package of an [`Archive`]: in the order of names, newest version first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PackageId(u32);

impl PackageId {
    /// Its number, for tables.
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }
}

/// Where a package is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    index: u16,
    entry: u32,
}

/// A virtual package and who provides it.
#[derive(Debug, Clone, Copy)]
struct Provided {
    index: u16,
    name: Span,
    /// Empty when it has none.
    version: Span,
    /// `any` or an architecture; mostly empty.
    architecture: Span,
    by: PackageId,
}

/// A package that provides a virtual one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Provision<'a> {
    /// The package.
    pub(super) by: PackageId,
    /// In which version.
    pub(super) version: Option<Version<'a>>,
    /// `any` or an architecture, where one is written.
    pub(super) architecture: Option<&'a str>,
}

/// All packages of all suites.
#[derive(Debug)]
pub(super) struct Archive {
    indices: Vec<Index>,
    /// By name, then newest version first, then in the order of the indices.
    slots: Vec<Slot>,
    /// By name, then by package.
    provided: Vec<Provided>,
}

impl Archive {
    /// Puts lists together; where two have the same version of a package,
    /// the earlier list counts.
    pub(super) fn new(indices: Vec<Index>) -> Result<Self, IndexError> {
        let mut slots = Vec::new();
        for (at, index) in indices.iter().enumerate() {
            let too_many = |_| IndexError::Malformed("there are too many".into());
            let at = u16::try_from(at).map_err(too_many)?;
            for (number, entry) in index.entries.iter().enumerate() {
                let number = u32::try_from(number).map_err(too_many)?;
                if index.counts(*entry) {
                    slots.push(Slot {
                        index: at,
                        entry: number,
                    });
                }
            }
        }
        let mut archive = Self {
            indices,
            slots: Vec::new(),
            provided: Vec::new(),
        };
        slots.sort_by(|&one, &two| {
            let names = archive.slot_name(one).cmp(archive.slot_name(two));
            names
                .then_with(|| archive.slot_version(two).cmp(&archive.slot_version(one)))
                .then_with(|| one.index.cmp(&two.index))
        });
        archive.slots = slots;
        archive.provided = archive.list_provided()?;
        Ok(archive)
    }

    fn list_provided(&self) -> Result<Vec<Provided>, IndexError> {
        let mut provided = Vec::new();
        for by in self.ids() {
            let Some(slot) = self.slots.get(by.number()) else {
                continue;
            };
            let Some(field) = self.field(by, "Provides") else {
                continue;
            };
            let Some(index) = self.indices.get(usize::from(slot.index)) else {
                continue;
            };
            for clause in clauses(field) {
                let Some(relation) = Relation::parse(clause) else {
                    let name = self.name(by);
                    return Err(IndexError::Malformed(format!("{name} provides `{clause}`")));
                };
                let version = match relation.version {
                    Some((_, version)) => index.span_of(version.as_str())?,
                    None => Span::default(),
                };
                let architecture = match relation.architecture {
                    Some(architecture) => index.span_of(architecture)?,
                    None => Span::default(),
                };
                let name = index.span_of(relation.name)?;
                provided.push(Provided {
                    architecture,
                    index: slot.index,
                    name,
                    version,
                    by,
                });
            }
        }
        provided.sort_by(|one, two| {
            let names = self.provided_name(one).cmp(self.provided_name(two));
            names.then_with(|| one.by.cmp(&two.by))
        });
        Ok(provided)
    }

    fn provided_name(&self, provided: &Provided) -> &str {
        self.indices
            .get(usize::from(provided.index))
            .map_or("", |it| it.text(provided.name))
    }

    /// Every package.
    pub(super) fn ids(&self) -> impl Iterator<Item = PackageId> + use<> {
        // Checked to fit in `new`: each slot's number did, over all indices
        // the list would not fit memory first.
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).map(PackageId)
    }

    /// The versions of a package, newest first.
    pub(super) fn versions(&self, name: &str) -> impl Iterator<Item = PackageId> + use<> {
        let start = self
            .slots
            .partition_point(|&slot| self.slot_name(slot) < name);
        let end = self
            .slots
            .partition_point(|&slot| self.slot_name(slot) <= name);
        let number = |at| u32::try_from(at).unwrap_or(u32::MAX);
        (number(start)..number(end)).map(PackageId)
    }

    /// Who provides a virtual package, by name.
    pub(super) fn providers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Provision<'a>> {
        let start = self
            .provided
            .partition_point(|it| self.provided_name(it) < name);
        let found = self.provided.get(start..).unwrap_or_default();
        found
            .iter()
            .take_while(move |it| self.provided_name(it) == name)
            .map(|it| {
                let index = self.indices.get(usize::from(it.index));
                let text = |span| index.map_or("", |index| index.text(span));
                Provision {
                    by: it.by,
                    version: Version::parse(text(it.version)),
                    architecture: Some(text(it.architecture)).filter(|it| !it.is_empty()),
                }
            })
    }

    /// All names, virtual ones too, each once or more, in no good order.
    pub(super) fn all_names(&self) -> impl Iterator<Item = &str> {
        let real = self.slots.iter().map(|&slot| self.slot_name(slot));
        real.chain(self.provided.iter().map(|it| self.provided_name(it)))
    }

    fn entry(&self, slot: Slot) -> Option<(&Index, Entry)> {
        let index = self.indices.get(usize::from(slot.index))?;
        Some((index, *index.entries.get(slot.entry as usize)?))
    }

    fn slot_name(&self, slot: Slot) -> &str {
        self.entry(slot)
            .map_or("", |(index, entry)| index.text(entry.name))
    }

    fn slot_version(&self, slot: Slot) -> Option<Version<'_>> {
        let (index, entry) = self.entry(slot)?;
        Version::parse(index.text(entry.version))
    }

    fn slot(&self, id: PackageId) -> Slot {
        *self
            .slots
            .get(id.number())
            .expect("an id is made by its own archive")
    }

    /// Its name.
    pub(super) fn name(&self, id: PackageId) -> &str {
        self.slot_name(self.slot(id))
    }

    /// Its version.
    pub(super) fn version(&self, id: PackageId) -> Version<'_> {
        self.slot_version(self.slot(id))
            .expect("checked when the list was read")
    }

    /// The suite whose list it is from.
    pub(super) fn suite(&self, id: PackageId) -> &str {
        self.entry(self.slot(id))
            .map_or("", |(index, _)| &index.suite)
    }

    /// How much its repository counts.
    pub(super) fn priority(&self, id: PackageId) -> i32 {
        self.entry(self.slot(id))
            .map_or(USUAL_PRIORITY, |(index, _)| index.priority)
    }

    /// One of the kept fields.
    pub(super) fn field(&self, id: PackageId, name: &str) -> Option<&str> {
        let (index, entry) = self.entry(self.slot(id))?;
        stanza::value(index.text(entry.stanza), name)
    }

    /// How many packages there are, each version counted.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(suite: &str, text: &str) -> Index {
        Index::read(suite, "amd64", text.as_bytes()).expect("it parses")
    }

    fn archive() -> Archive {
        let main = "Package: b\nVersion: 1\nArchitecture: amd64\nDescription: x\n y\nTag: a,\n b\n\
            Provides: v (= 2), w\n\n\nPackage: a\nVersion: 1.10\nArchitecture: all\n\n\
            Package: c\nVersion: 1\nArchitecture: i386\n";
        let security = "Package: a\nVersion: 1.9\nArchitecture: amd64\n\
            Depends: b (>= 1),\n v\n\nPackage: b\nVersion: 1\nArchitecture: amd64";
        let indices = vec![index("s", main), index("s-security", security)];
        Archive::new(indices).expect("it fits together")
    }

    #[test]
    fn versions_come_newest_first_and_by_suite() {
        let archive = archive();
        let versions = |name: &str| -> Vec<String> {
            let shown = |id| format!("{} {}", archive.version(id), archive.suite(id));
            archive.versions(name).map(shown).collect()
        };
        assert_eq!(versions("a"), ["1.10 s", "1.9 s-security"]);
        assert_eq!(versions("b"), ["1 s", "1 s-security"]);
        assert_eq!(versions("c"), [] as [&str; 0]);
        assert_eq!(archive.len(), 4);
    }

    #[test]
    fn provides_have_versions_or_none() {
        let archive = archive();
        let found: Vec<_> = archive
            .providers("v")
            .map(|it| (archive.name(it.by), it.version.map(Version::as_str)))
            .collect();
        assert_eq!(found, [("b", Some("2"))]);
        assert_eq!(archive.providers("w").count(), 1);
        assert_eq!(archive.providers("x").count(), 0);
    }

    #[test]
    fn fields_are_kept_with_their_continuations() {
        let archive = archive();
        let old = archive.versions("a").nth(1).expect("two versions");
        assert_eq!(archive.field(old, "Depends"), Some("b (>= 1),\n v"));
        let b = archive.versions("b").next().expect("it is there");
        assert_eq!(archive.field(b, "Description"), None);
        assert_eq!(archive.field(b, "Provides"), Some("v (= 2), w"));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let problem = |text: &str| match Index::read("s", "amd64", text.as_bytes()) {
            Err(IndexError::Malformed(problem)) => problem,
            other => panic!("{other:?}"),
        };
        let no_version = problem("Package: a\nArchitecture: all\n");
        assert_eq!(no_version, "a has no good name and version");
        let bad_name = problem("Package: ../a\nVersion: 1\nArchitecture: all\n");
        assert_eq!(bad_name, "a stanza has no good name and version");
        let bytes = b"Package: \xff\nVersion: 1\nArchitecture: all\n";
        assert!(Index::read("s", "amd64", bytes.as_slice()).is_err());
    }
}
