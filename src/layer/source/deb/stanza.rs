//! The syntax of Debian's control files, without any copying.
//!
//! Source: deb822(5), Debian Policy 5.1. A stanza is a run of lines; a field
//! is `Name: value`, and lines that begin with a space or a tab continue it.

/// The stanzas of a text: runs of lines without an empty one.
pub(super) fn stanzas(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
        let (stanza, tail) = rest.split_at(end);
        rest = tail;
        Some(stanza)
    })
}

/// The fields of a stanza: name as written, and the value from the colon to
/// the end of its last line, spaces around it removed. A line that is no
/// field comes as `Err` with its number, from 1.
pub(super) fn fields(stanza: &str) -> impl Iterator<Item = Result<(&str, &str), usize>> {
    let mut at = 0;
    let mut line_number = 1;
    std::iter::from_fn(move || {
        let rest = stanza.get(at..).filter(|rest| !rest.is_empty())?;
        let this_line = line_number;
        let mut end = 0;
        for (count, line) in rest.split_inclusive('\n').enumerate() {
            if count > 0 && !line.starts_with([' ', '\t']) {
                break;
            }
            end += line.len();
            line_number += 1;
        }
        at += end;
        let field = rest.get(..end)?;
        let parts = field.split_once(':').filter(|(name, _)| is_name(name));
        Some(
            parts
                .map(|(name, value)| (name, value.trim()))
                .ok_or(this_line),
        )
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The value of a field whose name is written exactly so, in a stanza that
/// was checked before.
pub(super) fn value<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    fields(stanza)
        .filter_map(Result::ok)
        .find_map(|(found, value)| (found == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuation_lines_belong_to_their_field() {
        let text = "A: 1\nB:\n two\n three\nC:4\n\n\nA: 5\n";
        let all: Vec<_> = stanzas(text).collect();
        assert_eq!(all.len(), 2);
        let first: Vec<_> = fields(all[0]).collect();
        assert_eq!(
            first,
            [Ok(("A", "1")), Ok(("B", "two\n three")), Ok(("C", "4"))]
        );
        assert_eq!(value(all[1], "A"), Some("5"));
        assert_eq!(value(all[1], "B"), None);
    }

    #[test]
    fn lines_that_are_no_field_are_counted() {
        let found: Vec<_> = fields("A: 1\n x\nno field\n: x\n").collect();
        assert_eq!(found, [Ok(("A", "1\n x")), Err(3), Err(4)]);
        assert_eq!(fields(" leading\n").collect::<Vec<_>>(), [Err(1)]);
        assert_eq!(fields("").count(), 0);
    }
}
