//! What a payload bundle may be: the same limits for who makes one and for
//! who takes it.

/// Files at most.
pub const MAX_FILES: usize = 4096;
/// A manifest's bytes at most.
pub const MAX_MANIFEST: u64 = 1 << 20;
/// Bytes of all files of a bundle together, and of the bundle, at most.
pub const MAX_SIZE: u64 = 4 << 30;
/// Folders on the way to a file, and the file, at most.
const MAX_DEPTH: usize = 16;
/// Bytes of a path at most.
const MAX_PATH: usize = 200;
/// Fields of a tar's header (POSIX.1-1988, `ustar`): the path is divided at a
/// slash, what comes before it is the prefix.
const NAME_FIELD: usize = 100;
const PREFIX_FIELD: usize = 155;
/// Where files are in a bundle.
const FILES: &str = "files/";

/// Whether this is what a bundle, or a role, can be called.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Whether this is a version.
#[must_use]
pub fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether this is a name on the way of a path: of letters that need no escape.
#[must_use]
pub fn is_plain(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

/// Whether this is a path that stays inside, of letters that need no escape,
/// and that a tar's header can say.
#[must_use]
pub fn is_path(text: &str) -> bool {
    text.len() <= MAX_PATH
        && text.split('/').count() <= MAX_DEPTH
        && text.split('/').all(is_plain)
        && fits_header(&format!("{FILES}{text}"))
}

fn fits_header(path: &str) -> bool {
    path.len() <= NAME_FIELD
        || path
            .match_indices('/')
            .any(|(at, _)| at <= PREFIX_FIELD && (1..=NAME_FIELD).contains(&(path.len() - at - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_and_fit_a_tar() {
        let long = |count: usize| "a".repeat(count);
        for good in [
            "a",
            "a/b.txt",
            "a/..b",
            &long(94),
            &format!("{}/{}", long(99), long(99)),
        ] {
            assert!(is_path(good), "{good}");
        }
        let deep = vec!["a"; 17].join("/");
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/./b",
            "a b",
            "a\\b",
            "\u{e4}",
            &deep,
            &long(101),
            &format!("{}/{}", long(160), long(30)),
            &format!("a/{}", long(101)),
        ] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[test]
    fn names_and_versions_are_plain() {
        assert!(is_name("app-2") && is_version("1.0~rc1+x"));
        for bad in ["", "App", "2app", "a_b", &"a".repeat(33)] {
            assert!(!is_name(bad), "{bad}");
        }
        for bad in ["", "1 0", &"1".repeat(65)] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
