//! The signed list of lists: what a suite is, of when, and the digests of its
//! package lists.
//!
//! In: the text that a signature vouches for. Out: [`Release`], after the
//! checks of suite and time. Only `SHA256` entries count.
//!
//! Source: Debian wiki DebianRepository/Format, "Release" files.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::units::{Civil, Timestamp};

use super::address::Address;
use super::error::SourceError;
use super::fetch::stays_below;
use super::stanza::{fields, stanzas};
use super::{Expiry, Repository};

/// `Date` may be this much ahead of the clock, in seconds: apt's own slack
/// for clocks that are not exact.
const DATE_SLACK: i64 = 24 * 60 * 60;

/// A Release file.
#[derive(Debug, Clone)]
pub(super) struct Release {
    suite: String,
    codename: String,
    /// Whose archive it is: `Debian`.
    pub(super) origin: String,
    label: String,
    /// The priority that it asks for: 1 or 100 where it is not for everybody.
    pub(super) priority: i32,
    /// When it was made.
    pub(super) date: Timestamp,
    valid_until: Option<Timestamp>,
    /// Whether files can be had by their digest, which never changes.
    pub(super) by_hash: bool,
    /// Whether `binary-all` lists hold packages that the others do not.
    pub(super) has_separate_all: bool,
    files: BTreeMap<String, ListedFile>,
}

/// What the Release file says of one of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedFile {
    /// Digest of its bytes.
    pub(super) sha256: Digest,
    /// Its length in bytes.
    pub(super) size: u64,
}

impl Release {
    /// Parses the signed text; the error is one clause.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let stanza = stanzas(text).next().unwrap_or_default();
        let mut values = BTreeMap::new();
        for field in fields(stanza) {
            let (name, value) = field.map_err(|line| format!("line {line} is no field"))?;
            if values.insert(name.to_ascii_lowercase(), value).is_some() {
                return Err(format!("`{name}` is there twice"));
            }
        }
        let get = |name: &str| values.get(name).copied().unwrap_or_default();
        let moment = |name: &str| match get(name) {
            "" => Ok(None),
            text => parse_date(text)
                .map(Some)
                .ok_or_else(|| format!("`{text}` is not a date")),
        };
        let separate = get("architectures")
            .split_whitespace()
            .any(|it| it == "all")
            && get("no-support-for-architecture-all") != "Packages";
        Ok(Self {
            suite: get("suite").to_owned(),
            codename: get("codename").to_owned(),
            origin: get("origin").to_owned(),
            label: get("label").to_owned(),
            // apt_preferences(5), "apt's default priority assignments".
            priority: match (get("notautomatic"), get("butautomaticupgrades")) {
                ("yes", "yes") => 100,
                ("yes", _) => 1,
                _ => 500,
            },
            date: moment("date")?.ok_or("it has no date")?,
            valid_until: moment("valid-until")?,
            by_hash: get("acquire-by-hash") == "yes",
            has_separate_all: separate,
            files: parse_files(get("sha256"))?,
        })
    }

    /// What it says of a file.
    pub(super) fn file(&self, path: &str) -> Option<ListedFile> {
        self.files.get(path).copied()
    }

    /// Checks that it is what was asked for, and of now.
    pub(super) fn check(
        &self,
        repository: &Repository,
        address: &Address,
        now: Timestamp,
    ) -> Result<(), SourceError> {
        let (suite, address) = (repository.suite.clone(), address.to_string());
        let says_none = self.suite.is_empty() && self.codename.is_empty();
        let is_it = self.suite == suite || self.codename == suite;
        if !(is_it || says_none || repository.is_flat()) {
            let found = format!("{} ({})", self.codename, self.suite);
            return Err(SourceError::WrongSuite {
                asked: suite,
                found,
                address,
            });
        }
        if repository.expiry == Expiry::Ignored {
            return Ok(());
        }
        if self.date.seconds > now.seconds.saturating_add(DATE_SLACK) {
            return Err(SourceError::FromTheFuture {
                suite,
                address,
                date: self.date,
                now,
            });
        }
        match self.valid_until(repository) {
            Some(valid_until) if valid_until < now => Err(SourceError::Expired {
                suite,
                address,
                valid_until,
                now,
            }),
            _ => Ok(()),
        }
    }
}

impl Release {
    /// What it says of itself, within what the host allows; apt's arithmetic.
    fn valid_until(&self, repository: &Repository) -> Option<Timestamp> {
        let after = |seconds| self.date.seconds.saturating_add(seconds);
        let (least, most) = repository.valid_time.of(&self.label);
        let own = self.valid_until.map(|until| {
            let until = until.seconds;
            least.map_or(until, |least| until.max(after(least)))
        });
        let until = match (own, most) {
            (Some(until), Some(most)) => Some(until.min(after(most))),
            (until, most) => until.or(most.map(after)),
        };
        until.map(Timestamp::from_seconds)
    }

    /// One clause when the host's settings change how long it counts.
    pub(super) fn changed_validity(&self, repository: &Repository) -> Option<String> {
        let until = self.valid_until(repository);
        if until == self.valid_until || repository.expiry == Expiry::Ignored {
            return None;
        }
        Some(format!(
            "apt's settings on this host let the package list of suite `{}` count until {}",
            repository.label, until?
        ))
    }
}

/// Lines of ` DIGEST SIZE PATH`.
fn parse_files(field: &str) -> Result<BTreeMap<String, ListedFile>, String> {
    let mut files = BTreeMap::new();
    for line in field.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (digest, size, path) = (words.next(), words.next(), words.next());
        let listed = digest
            .and_then(Digest::parse)
            .zip(size.and_then(|it| it.parse().ok()));
        let (Some((sha256, size)), Some(path), None) = (listed, path, words.next()) else {
            return Err(format!("`{line}` is not a digest, a size and a path"));
        };
        if !stays_below(path) {
            return Err(format!("`{path}` leads out of the suite"));
        }
        files.insert(path.to_owned(), ListedFile { sha256, size });
    }
    if files.is_empty() {
        return Err("it lists no SHA256 digests".into());
    }
    Ok(files)
}

/// `Sat, 11 Jul 2026 10:16:37 UTC`; other zones than UTC are not used here.
fn parse_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let rest = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = rest.split_whitespace();
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let year = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u8>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let is_utc = matches!(words.next(), Some("UTC" | "GMT" | "Z" | "+0000"));
    if !is_utc || time.next().is_some() || words.next().is_some() {
        return None;
    }
    let month = u8::try_from(month + 1).ok()?;
    Timestamp::from_civil(Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Keys, Preference, Presence, Trust, ValidTime};
    use super::*;

    const TEXT: &str = "Suite: oldstable\nCodename: bookworm\n\
        Date: Sat, 21 Nov 2026 00:53:02 UTC\nValid-Until: Sat, 28 Nov 2026 00:53:02 UTC\n\
        Acquire-By-Hash: yes\nArchitectures: all amd64\n\
        No-Support-for-Architecture-all: Packages\nMD5Sum:\n x 1 main/x\nSHA256:\n \
        ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad   12 \
        main/binary-amd64/Packages.xz\n";

    fn repository(suite: &str, expiry: Expiry) -> Repository {
        Repository {
            label: suite.into(),
            suite: suite.into(),
            addresses: Vec::new(),
            components: vec!["main".into()],
            keys: Keys::default(),
            trust: Trust::Signed,
            expiry,
            valid_time: ValidTime::default(),
            presence: Presence::Required,
            preference: Preference::default(),
        }
    }

    fn check(text: &str, suite: &str, expiry: Expiry, now: &str) -> Result<(), SourceError> {
        let address = Address::parse("http://u:p@m.example/debian").expect("an address");
        let now = parse_date(now).expect("a date");
        let release = Release::parse(text).expect("it parses");
        release.check(&repository(suite, expiry), &address, now)
    }

    #[test]
    fn a_release_file_gives_dates_and_digests() {
        let release = Release::parse(TEXT).expect("it parses");
        assert_eq!(release.date.to_string(), "2026-11-21T00:53:02Z");
        assert!(release.by_hash && !release.has_separate_all);
        let listed = release
            .file("main/binary-amd64/Packages.xz")
            .expect("listed");
        assert_eq!((listed.size, listed.sha256), (12, Digest::of(b"abc")));
        assert_eq!(release.file("main/x"), None);
    }

    #[test]
    fn codename_and_suite_both_answer() {
        let now = "Mon, 23 Nov 2026 06:00:00 UTC";
        assert!(check(TEXT, "bookworm", Expiry::Checked, now).is_ok());
        assert!(check(TEXT, "oldstable", Expiry::Checked, now).is_ok());
        let error = check(TEXT, "trixie", Expiry::Checked, now).expect_err("another suite");
        assert_eq!(
            error.to_string(),
            "http://m.example/debian answers suite `trixie` with the package list of `bookworm \
             (oldstable)`"
        );
    }

    #[test]
    fn an_expired_release_is_refused_unless_the_host_says_so() {
        let late = "Sat, 28 Nov 2026 00:53:03 UTC";
        let error = check(TEXT, "bookworm", Expiry::Checked, late).expect_err("expired");
        assert_eq!(
            error.to_string(),
            "the package list of suite `bookworm` from http://m.example/debian expired on \
             2026-11-28T00:53:02Z"
        );
        assert_eq!(error.slug(), "source-expired");
        assert_eq!(error.class().code(), 3);
        assert!(check(TEXT, "bookworm", Expiry::Ignored, late).is_ok());
    }

    #[test]
    fn the_hosts_valid_times_shorten_and_lengthen_as_apts_do() {
        let until = |text: &str, least: i64, most: i64| {
            let times = |seconds| [(String::new(), seconds)].into();
            let mut repository = repository("bookworm", Expiry::Checked);
            repository.valid_time.least = times(least);
            repository.valid_time.most = times(most);
            let release = Release::parse(text).expect("it parses");
            release.valid_until(&repository).map(|it| it.to_string())
        };
        let day = 24 * 60 * 60;
        assert_eq!(until(TEXT, 0, 0).as_deref(), Some("2026-11-28T00:53:02Z"));
        assert_eq!(until(TEXT, 0, day).as_deref(), Some("2026-11-22T00:53:02Z"));
        assert_eq!(
            until(TEXT, 30 * day, 0).as_deref(),
            Some("2026-12-21T00:53:02Z")
        );
        assert_eq!(until(TEXT, day, 0).as_deref(), Some("2026-11-28T00:53:02Z"));
        let without = TEXT.replace("Valid-Until", "X");
        assert_eq!(until(&without, day, 0), None);
        assert_eq!(
            until(&without, 0, day).as_deref(),
            Some("2026-11-22T00:53:02Z")
        );
    }

    #[test]
    fn a_release_from_the_future_is_refused() {
        let error = check(
            TEXT,
            "bookworm",
            Expiry::Checked,
            "Thu, 19 Nov 2026 00:00:00 UTC",
        )
        .expect_err("from the future");
        assert_eq!(error.slug(), "source-from-the-future");
        let early = "Fri, 20 Nov 2026 01:00:00 UTC";
        assert!(check(TEXT, "bookworm", Expiry::Checked, early).is_ok());
    }

    #[test]
    fn malformed_release_files_say_why() {
        let problem = |text: &str| Release::parse(text).expect_err("malformed");
        assert_eq!(problem(&TEXT.replace("Date:", "X:")), "it has no date");
        assert_eq!(
            problem(&TEXT.replace("SHA256:", "SHA1:")),
            "it lists no SHA256 digests"
        );
        assert_eq!(
            problem(&format!("{TEXT}Suite: x\n")),
            "`Suite` is there twice"
        );
        assert_eq!(
            problem(&TEXT.replace("main/binary", "../binary")),
            "`../binary-amd64/Packages.xz` leads out of the suite"
        );
        assert!(problem(&TEXT.replace("   12", " x")).ends_with("not a digest, a size and a path"));
        assert!(problem(&TEXT.replace("21 Nov", "31 Nov")).ends_with("is not a date"));
    }
}
