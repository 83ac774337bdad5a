//! "Nothing has changed": a record in the output folder of what made the
//! files there, so that a second build is done at once.
//!
//! It is a shortcut, never a proof: it compares the plan's digest and the
//! outputs' lengths, times and inodes, and reads no byte of them. `consign`'s
//! sums are what proves content.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::digest::Digest;

/// What the record is called.
pub const STAMP_FILE_NAME: &str = ".consign-stamp";

const FORMAT: u32 = 1;
/// A record of more than this is not ours.
const LIMIT: u64 = 1 << 20;

/// What an output folder holds, and which plan made it: `plan` is a plan's
/// [`outputs_digest`](super::BuildPlan::outputs_digest).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    format: u32,
    plan: Digest,
    consign: FileStamp,
    outputs: BTreeMap<String, FileStamp>,
}

/// How a file looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStamp {
    size: u64,
    inode: u64,
    mtime: i64,
    mtime_nanos: i64,
}

/// Whether an output folder is up to date, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// The same plan made it, and nobody touched it since.
    Fresh,
    /// There is no record of an earlier build.
    NoRecord,
    /// Another plan made it.
    OtherPlan,
    /// Another build of consign made it; its version may be the same.
    OtherConsign,
    /// A file is gone.
    Missing(String),
    /// A file was replaced or changed.
    Touched(String),
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => write!(f, "nothing has changed"),
            Self::NoRecord => write!(f, "there is no finished build yet"),
            Self::OtherPlan => write!(f, "the plan has changed"),
            Self::OtherConsign => write!(f, "consign itself has changed"),
            Self::Missing(name) => write!(f, "`{name}` is missing"),
            Self::Touched(name) => write!(f, "`{name}` was changed since it was built"),
        }
    }
}

impl Stamp {
    /// Looks at the finished `outputs` (file names) in `folder`. `executable`
    /// is the file of consign itself.
    ///
    /// # Errors
    ///
    /// What `lstat` reports, `NotFound` for example.
    pub fn take(
        plan: Digest,
        executable: &Path,
        folder: &Path,
        outputs: &[String],
    ) -> io::Result<Self> {
        let outputs = outputs
            .iter()
            .map(|name| Ok((name.clone(), FileStamp::of(&folder.join(name))?)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            format: FORMAT,
            plan,
            consign: FileStamp::of(executable)?,
            outputs,
        })
    }

    /// Its text, for [`STAMP_FILE_NAME`].
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers and names only");
        text.push('\n');
        text
    }

    /// Whether `folder` still holds what `plan` makes, as it was left. A
    /// record that cannot be read counts as none.
    #[must_use]
    pub fn check(plan: Digest, executable: &Path, folder: &Path) -> Freshness {
        let Some(stamp) = Self::open(&folder.join(STAMP_FILE_NAME)) else {
            return Freshness::NoRecord;
        };
        if stamp.plan != plan {
            return Freshness::OtherPlan;
        }
        if FileStamp::of(executable).ok() != Some(stamp.consign) {
            return Freshness::OtherConsign;
        }
        for (name, recorded) in &stamp.outputs {
            match FileStamp::of(&folder.join(name)) {
                Ok(found) if found == *recorded => {}
                Ok(_) => return Freshness::Touched(name.clone()),
                Err(_) => return Freshness::Missing(name.clone()),
            }
        }
        Freshness::Fresh
    }

    fn open(path: &Path) -> Option<Self> {
        use std::io::Read as _;
        let mut text = String::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(LIMIT).read_to_string(&mut text).ok()?;
        let stamp: Self = serde_json::from_str(&text).ok()?;
        (stamp.format == FORMAT).then_some(stamp)
    }
}

impl FileStamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self {
            size: metadata.size(),
            inode: metadata.ino(),
            mtime: metadata.mtime(),
            mtime_nanos: metadata.mtime_nsec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_second_look_says_why_not() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let plan = Digest::of(b"plan");
        let outputs = ["a.raw".to_owned(), "b.xml".to_owned()];
        let check = |plan| Stamp::check(plan, &at("consign"), folder.path());
        assert_eq!(check(plan), Freshness::NoRecord);

        for name in ["a.raw", "b.xml", "consign"] {
            fs::write(at(name), name).expect("write");
        }
        let stamp = Stamp::take(plan, &at("consign"), folder.path(), &outputs).expect("stamp");
        fs::write(at(STAMP_FILE_NAME), stamp.to_json()).expect("write");
        assert_eq!(check(plan), Freshness::Fresh);
        assert_eq!(check(Digest::of(b"other")), Freshness::OtherPlan);

        // Same length, same name, another file.
        let replace = |name: &str| {
            fs::write(at("new"), name).expect("write");
            fs::rename(at("new"), at(name)).expect("rename");
        };
        replace("a.raw");
        assert_eq!(check(plan), Freshness::Touched("a.raw".into()));
        fs::remove_file(at("a.raw")).expect("remove");
        assert_eq!(check(plan), Freshness::Missing("a.raw".into()));
        replace("consign");
        assert_eq!(check(plan), Freshness::OtherConsign);
        fs::write(at(STAMP_FILE_NAME), "{").expect("write");
        assert_eq!(check(plan), Freshness::NoRecord);
    }
}
