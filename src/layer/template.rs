//! Values in the files of a `files` layer, put there when it is made.
//!
//! `@appliance.version@` becomes the appliance's version. Every name has a
//! dot and one of three heads, so that mail addresses and `@{…}` of other
//! tools stay what they are. What only the site knows is rendered at first
//! boot, by roles, and looks different: `{{ app.title }}`.

use std::collections::BTreeMap;

/// Heads of names.
const HEADS: [&str; 3] = ["appliance", "system", "values"];

/// `text` with every value put in; the line and the name of one that is missing.
pub(super) fn render(
    text: &str,
    values: &BTreeMap<String, String>,
) -> Result<String, (usize, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut line = 1;
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        line += before.matches('\n').count();
        let after = after.get(1..).unwrap_or_default();
        let name = after.split_once('@').filter(|(name, _)| is_name(name));
        if let Some((name, behind)) = name {
            let value = values.get(name).ok_or_else(|| (line, name.to_owned()))?;
            out.push_str(value);
            rest = behind;
        } else {
            out.push('@');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split_once('.').is_some_and(|(head, key)| {
        HEADS.contains(&head) && !key.is_empty() && key.chars().all(in_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_replaced() {
        let values = BTreeMap::from([
            ("appliance.name".to_owned(), "wiki".to_owned()),
            ("values.a".to_owned(), "@values.a@".to_owned()),
        ]);
        let render = |text: &str| render(text, &values);
        for (text, expected) in [
            ("", ""),
            ("@appliance.name@", "wiki"),
            ("a@b.c @@appliance.name@ @", "a@b.c @wiki @"),
            ("@values.a@", "@values.a@"),
            (
                "@VERSION@ @appliance.@ @a.b@",
                "@VERSION@ @appliance.@ @a.b@",
            ),
            ("x@appliance.name", "x@appliance.name"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(render("a\n\n@values.b@"), Err((3, "values.b".into())));
    }
}
