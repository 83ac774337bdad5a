//! Paths that a layer leaves out, by dpkg's `path-exclude` rules.

use crate::tree::TreePath;

/// Patterns of paths that are not unpacked, and exceptions.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathFilter {
    exclude: Vec<Vec<u8>>,
    include: Vec<Vec<u8>>,
}

impl PathFilter {
    pub(crate) fn new(exclude: &[String], include: &[String]) -> Self {
        let bytes = |patterns: &[String]| {
            patterns
                .iter()
                .map(|pattern| pattern.clone().into_bytes())
                .collect()
        };
        Self {
            exclude: bytes(exclude),
            include: bytes(include),
        }
    }

    /// Whether `path` is left out.
    pub(crate) fn excludes(&self, path: &TreePath) -> bool {
        if self.exclude.is_empty() {
            return false;
        }
        let absolute = [b"/", path.as_bytes()].concat();
        let any = |patterns: &[Vec<u8>]| patterns.iter().any(|pattern| matches(pattern, &absolute));
        any(&self.exclude) && !any(&self.include)
    }

    /// Whether a symbolic link at `path` may be the way to something that an
    /// exception brings back: it begins as the exception does up to its first
    /// wildcard, as dpkg has it (`/usr/share/doc/a` leading to `b`, with `b`'s
    /// copyright).
    pub(crate) fn may_lead_to_included(&self, path: &TreePath) -> bool {
        let absolute = [b"/", path.as_bytes()].concat();
        self.include.iter().any(|pattern| {
            let plain = pattern.split(|byte| b"*?[\\".contains(byte)).next();
            let plain = plain.unwrap_or_default();
            let end = plain.iter().rposition(|byte| *byte != b'/');
            absolute.starts_with(plain.get(..=end.unwrap_or(0)).unwrap_or_default())
        })
    }
}

/// Shell pattern with `*` and `?`; both match slashes too, as in dpkg(1).
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // The last star, and the text where it began: enough to go back to.
    let mut star: Option<(usize, usize)> = None;
    let (mut at, mut in_pattern) = (0, 0);
    while at < text.len() {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                star = Some((in_pattern, at));
                in_pattern += 1;
                continue;
            }
            Some(c) if *c == b'?' || Some(c) == text.get(at) => {
                at += 1;
                in_pattern += 1;
                continue;
            }
            _ => {}
        }
        let Some((star_at, began)) = star else {
            return false;
        };
        star = Some((star_at, began + 1));
        at = began + 1;
        in_pattern = star_at + 1;
    }
    pattern.iter().skip(in_pattern).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_dpkg_says() {
        for (pattern, text, expected) in [
            ("/usr/share/doc/*", "/usr/share/doc/a/b", true),
            ("/usr/share/doc/*", "/usr/share/doc", false),
            ("*/fs/*.ko", "/lib/fs/x/y.ko", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("*a*b*", "xxaxxbx", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn links_stay_where_an_exception_may_be_behind_them() {
        let filter = PathFilter::new(
            &["/usr/share/*".into()],
            &["/usr/share/doc/*/copyright".into()],
        );
        let leads = |text: &str| {
            let path = TreePath::parse(text.as_bytes()).expect("a path");
            filter.may_lead_to_included(&path)
        };
        assert!(leads("usr/share/doc/libgcc-s1"));
        assert!(!leads("usr/share/man/man1/x.1.gz"));
    }

    #[test]
    fn an_exception_wins() {
        let filter = PathFilter::new(
            &["/usr/share/doc/*".into()],
            &["/usr/share/doc/*/copyright".into()],
        );
        let path = |text: &str| TreePath::parse(text.as_bytes()).expect("a path");
        assert!(filter.excludes(&path("usr/share/doc/a/changelog.gz")));
        assert!(!filter.excludes(&path("usr/share/doc/a/copyright")));
        assert!(!filter.excludes(&path("usr/bin/a")));
    }
}
