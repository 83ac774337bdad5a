//! What the clock and the medium say of a configuration that is about to be
//! taken. A machine that has one goes on, whatever they say later.

use std::time::{SystemTime, UNIX_EPOCH};

use consign_schema::{Facts, Moment, SiteConfig};

use crate::configure::Refused;
use crate::media::Candidate;

/// 2026-01-01: a clock before that was never set.
const FLOOR: Moment = Moment::from_seconds(1_767_225_600);

/// Whether the clock, and the medium that it came on, agree with a configuration.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn agree(site: &SiteConfig, medium: Option<&Candidate>, file: &str) -> Result<(), Refused> {
    let facts = Facts {
        now: now(),
        files: medium.map(|medium| medium.files.keys().cloned().collect()),
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
    use crate::step::testing::site;

    fn refused(more: &str, is_on_medium: bool) -> Vec<String> {
        let candidate = Candidate {
            files: [("site.toml".to_owned(), Vec::new())].into(),
            ..Candidate::default()
        };
        let medium = is_on_medium.then_some(&candidate);
        let result = agree(&site(more), medium, "site.toml");
        let refused = result.err().map(|refused| refused.files);
        let files = refused.into_iter().flatten();
        files.flat_map(|file| file.lines()).collect()
    }

    #[test]
    fn clock_and_medium_are_asked() {
        let license = "[license]\nfile = \"a.key\"\n";
        for is_on_medium in [false, true] {
            let refused = |more| refused(more, is_on_medium).join("\n");
            let dates = "not_before = 2026-01-01\nnot_after = 2999-01-01\n";
            assert_eq!(refused(dates), "");
            let lines = refused("not_after = 2026-01-02\n");
            assert!(lines.contains("site.toml:5:13: [expired]"), "{lines}");
            assert_eq!(refused(license).contains("license/a.key"), is_on_medium);
        }
    }
}
