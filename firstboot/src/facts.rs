//! What the clock and the medium say of a configuration that is about to be
//! taken. A machine that has one goes on, whatever they say later.

use std::time::{SystemTime, UNIX_EPOCH};

use consign_schema::{Facts, Moment};

use crate::configure::{Refused, judge};
use crate::media::Candidate;
use crate::root::Root;

/// 2026-01-01: a clock before that was never set.
const FLOOR: Moment = Moment::from_seconds(1_767_225_600);

/// Judges the file of `candidate`, and whether clock and medium agree with it.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn agree(root: &Root, candidate: &Candidate, bytes: &[u8], file: &str) -> Result<(), Refused> {
    let (site, _) = judge(root, bytes, file)?;
    let facts = Facts {
        now: now(),
        files: Some(candidate.files.keys().cloned().collect()),
        ..Facts::default()
    };
    let problems = site.check_against(&facts);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refused::site(file, &problems))
    }
}

/// The present moment; `None` of a clock that was never set.
#[expect(
    clippy::disallowed_methods,
    reason = "dates in a configuration are judged by the machine's clock"
)]
fn now() -> Option<Moment> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let now = Moment::from_seconds(i64::try_from(since.as_secs()).ok()?);
    (now >= FLOOR).then_some(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    fn refused(more: &str) -> Vec<String> {
        let folder = Folder::new();
        let text = format!("schema = 1\n[config]\nid = \"a\"\nserial = 1\n{more}");
        let candidate = Candidate {
            files: [("site.toml".to_owned(), Vec::new())].into(),
            ..Candidate::default()
        };
        let result = agree(&folder.root, &candidate, text.as_bytes(), "site.toml");
        let refused = result.err().map(|refused| refused.files);
        let files = refused.into_iter().flatten();
        files.flat_map(|file| file.lines()).collect()
    }

    #[test]
    fn clock_and_medium_are_asked() {
        assert!(refused("not_before = 2026-01-01\nnot_after = 2999-01-01\n").is_empty());
        let lines = refused("not_after = 2026-01-02\n").join("\n");
        assert!(lines.contains("site.toml:5:13: [expired]"), "{lines}");
        let lines = refused("[license]\nfile = \"a.key\"\n").join("\n");
        assert!(lines.contains("license/a.key"), "{lines}");
    }
}
