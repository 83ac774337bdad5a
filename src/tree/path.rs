//! Paths inside a tree: bytes, relative to its root, never leaving it.

use std::cmp::Ordering;
use std::fmt;

use super::{FileTree, TreeError};

/// A path inside a tree: components joined by `/`, without a leading or
/// trailing slash, without `.`, `..` or NUL. The empty path is the root.
/// Components are bytes, not text.
///
/// Ordered by component, so that a directory's subtree is contiguous.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Box<[u8]>);

/// Why bytes are not a path inside a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Begins with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// Has a `..` component.
    #[error("the path contains `..`")]
    Dots,
    /// Has a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
}

impl TreePath {
    /// The root of a tree.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses `etc/fstab`, also as `./etc//fstab/`: empty and `.` components
    /// are dropped.
    ///
    /// # Errors
    ///
    /// [`PathError`] for absolute paths, `..` and NUL.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.starts_with(b"/") {
            return Err(PathError::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut clean = Vec::with_capacity(bytes.len());
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(PathError::Dots),
                name => {
                    if !clean.is_empty() {
                        clean.push(b'/');
                    }
                    clean.extend_from_slice(name);
                }
            }
        }
        Ok(Self(clean.into()))
    }

    /// `bytes` as a path from the root of `tree`, `.` and `..` taken as a
    /// chroot takes them, links among the parents followed.
    pub(super) fn normalize_lossy(bytes: &[u8], tree: &FileTree) -> Result<Self, TreeError> {
        let mut at = Self::root();
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => at = at.parent().unwrap_or_default(),
                name => {
                    let next = at
                        .join(name)
                        .expect("a component without slash, dot and NUL");
                    at = tree.resolve(&next)?;
                }
            }
        }
        Ok(at)
    }

    /// This path with one more component; `None` when `name` is empty, `.`,
    /// `..` or contains a slash or NUL.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Option<Self> {
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return None;
        }
        let mut bytes = self.0.to_vec();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Some(Self(bytes.into()))
    }

    /// The bytes, components joined by `/`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the root down; none for the root.
    #[must_use = "iterators do nothing unless walked"]
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The directory that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// Whether this is `prefix` or lies below it.
    #[must_use]
    pub fn starts_with(&self, prefix: &Self) -> bool {
        prefix.is_root()
            || self.0 == prefix.0
            || (self.0.starts_with(&prefix.0) && self.0.get(prefix.0.len()) == Some(&b'/'))
    }

    /// The rest below `prefix`; the root when they are equal.
    #[must_use]
    pub fn strip_prefix(&self, prefix: &Self) -> Option<Self> {
        if !self.starts_with(prefix) {
            return None;
        }
        let rest = &self.0[prefix.0.len()..];
        Some(Self(rest.strip_prefix(b"/").unwrap_or(rest).into()))
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts below every byte that a name may hold.
        let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        let (one, two) = (&*self.0, &*other.0);
        let same = whole_words_in_common(one, two);
        one[same..].iter().map(key).cmp(two[same..].iter().map(key))
    }
}

/// Bytes at the start that are the same, as far as whole words go: most paths
/// that are compared lie in one directory.
fn whole_words_in_common(one: &[u8], two: &[u8]) -> usize {
    const WORD: usize = 8;
    let (one, _) = one.as_chunks::<WORD>();
    let (two, _) = two.as_chunks::<WORD>();
    let pairs = one.iter().zip(two);
    WORD * pairs.take_while(|(one, two)| one == two).count()
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    /// As [`Escaped`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

/// A name or path as text: bytes that are not printable text are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_root_are_paths() {
        let parse = |text: &str| TreePath::parse(text.as_bytes()).map(|path| path.to_string());
        assert_eq!(parse("./etc//fstab/"), Ok("etc/fstab".into()));
        assert_eq!(parse(""), Ok(String::new()));
        assert_eq!(parse("/etc"), Err(PathError::Absolute));
        assert_eq!(parse("a/../b"), Err(PathError::Dots));
        assert_eq!(parse("a\0"), Err(PathError::Nul));
    }

    #[test]
    fn prefixes_are_whole_components() {
        let path = |text: &str| TreePath::parse(text.as_bytes()).expect("a good path");
        assert!(path("a/b").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
        assert_eq!(path("a/b/c").strip_prefix(&path("a")), Some(path("b/c")));
        assert_eq!(path("a").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
    }

    #[test]
    fn a_subtree_comes_before_what_begins_with_its_name_however_long() {
        let path = |text: &str| TreePath::parse(text.as_bytes()).expect("a good path");
        for length in 0..40 {
            let front = "x".repeat(length);
            let name = |rest: &str| path(&format!("{front}{rest}"));
            let in_order = ["a", "a/\u{1}", "a/a", "a/b/c", "a\u{1}", "a-b", "ab", "b"];
            let in_order = in_order.map(name);
            let mut sorted = in_order.clone();
            sorted.reverse();
            sorted.sort();
            assert_eq!(sorted, in_order);
        }
    }

    #[test]
    fn names_from_outside_are_escaped() {
        let path = TreePath::parse(b"a\x1b[31m\xff").expect("bytes are fine");
        assert_eq!(path.to_string(), "a\\u{1b}[31m\\xff");
    }
}
