//! Configurations that were tried and did not last, so that none is tried for
//! ever: one that failed counts twice, one that the machine stopped under once,
//! and what counts twice is left alone until it changes.

use std::io;

use crate::digest::Digest;
use crate::root::{Access, Root};

const FILE: &str = "/var/lib/consign/tried";
/// Lines that are kept.
const MAX_LINES: usize = 16;
const MAX_SIZE: usize = 4096;

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The machine stopped before it was confirmed.
    Stopped,
    /// It did not work.
    Failed,
}

/// Whether it is not to be tried again.
pub fn is_spent(root: &Root, digest: Digest) -> bool {
    let text = root.read_text(FILE, MAX_SIZE).unwrap_or_default();
    let line = digest.to_string();
    text.lines().filter(|found| *found == line).count() >= 2
}

/// Takes note of a try.
///
/// # Errors
///
/// What the system reports.
pub fn note(root: &Root, digest: Digest, end: End) -> io::Result<()> {
    let text = root.read_text(FILE, MAX_SIZE)?;
    let line = digest.to_string();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.push(&line);
    if end == End::Failed {
        lines.push(&line);
    }
    let from = lines.len().saturating_sub(MAX_LINES);
    let kept = lines.get(from..).unwrap_or_default().join("\n") + "\n";
    root.put(FILE, kept.as_bytes(), Access::own(0o600))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    #[test]
    fn one_failure_or_two_stops_are_enough() {
        let folder = Folder::new();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert!(!is_spent(&folder.root, one));
        note(&folder.root, one, End::Stopped).expect("noted");
        assert!(!is_spent(&folder.root, one));
        note(&folder.root, one, End::Stopped).expect("noted");
        assert!(is_spent(&folder.root, one) && !is_spent(&folder.root, two));
        note(&folder.root, two, End::Failed).expect("noted");
        assert!(is_spent(&folder.root, two));
        for _ in 0..9 {
            note(&folder.root, two, End::Failed).expect("noted");
        }
        assert!(!is_spent(&folder.root, one));
    }
}
