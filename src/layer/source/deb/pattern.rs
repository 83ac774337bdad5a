//! Patterns of names and versions, in which `*` stands for anything.

/// Whether `text` is what `pattern` means.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    // The earliest place for each part leaves the most room for the others.
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text) in [
            ("nginx", "nginx"),
            ("nginx*", "nginx"),
            ("nginx*", "nginx-core"),
            ("*", ""),
            ("1.22.*", "1.22.1-9+deb12u2"),
            ("lib*-dev", "libssl-dev"),
            ("a*b*c", "aXbYbZc"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("nginx", "nginx-core"),
            ("1.22.*", "1.24.0"),
            ("lib*-dev", "libssl3"),
            ("a*a", "a"),
            ("", "a"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
