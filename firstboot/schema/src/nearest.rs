//! The name that was probably meant.

/// The candidate closest to `word`, when it is close enough to be a slip.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    closest(word, &mut candidates.into_iter())
}

/// One for iterators of every kind, as the agent is to be small.
fn closest<'a>(word: &str, candidates: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    let slips = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .map(|name| {
            let distance = strsim::osa_distance(&word, &name.to_lowercase());
            let related = name.len() > 3
                && word.len() > 3
                && (word.contains(name) || name.contains(word.as_str()));
            let slip = if related {
                distance.min(slips)
            } else {
                distance
            };
            // Of two that stand in the word, the longer one is meant.
            ((slip, distance), name)
        })
        .filter(|((slip, _), _)| *slip <= slips)
        .min_by_key(|(order, _)| *order)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let keys = ["hostname", "timezone", "locale"];
        assert_eq!(nearest("hostnmae", keys), Some("hostname"));
        assert_eq!(nearest("HostName", keys), Some("hostname"));
        assert_eq!(nearest("host", keys), Some("hostname"));
        assert_eq!(nearest("zone", keys), Some("timezone"));
        assert_eq!(nearest("https_proxy", ["http", "https"]), Some("https"));
        assert_eq!(nearest("http_proxy", ["http", "https"]), Some("http"));
        assert_eq!(nearest("packages", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
