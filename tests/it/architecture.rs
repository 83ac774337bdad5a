//! Who may use whom: the table of ARCHITECTURE.md section 5 against `src/`.
//!
//! The document is the only copy of the table, so that it cannot be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use consign::tree::list_folder;

use crate::support::repo_root;

/// Rooms by name, and the rooms that each may name.
type Table = BTreeMap<String, BTreeSet<String>>;

/// The door for listings stands open to every room (section 6).
const OPEN_DOOR: &str = "crate::tree::list_folder";

/// Files above this are said, not refused: format tables need the room.
const LONG_FILE: usize = 600;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Parses the rows between the headings of sections 5 and 6.
fn table(document: &str) -> Table {
    let section = document
        .split("\n## ")
        .find(|section| section.starts_with("5. Who may use whom"))
        .expect("section 5 of ARCHITECTURE.md");
    let rows: Vec<(Vec<String>, &str)> = section
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| ")?
                .strip_suffix(" |")?
                .split_once(" | ")
        })
        .filter(|(rooms, _)| *rooms != "room")
        .map(|(rooms, cell)| (rooms.split(", ").map(str::to_owned).collect(), cell))
        .collect();
    let all: BTreeSet<String> = rows.iter().flat_map(|(rooms, _)| rooms.clone()).collect();
    let mut table = Table::new();
    let mut above = BTreeSet::new();
    for (rooms, cell) in rows {
        let named: BTreeSet<String> = words(&plain(cell))
            .filter(|word| all.contains(*word))
            .map(str::to_owned)
            .collect();
        let allowed = if cell.starts_with("everything above but ") {
            above.difference(&named).cloned().collect()
        } else if cell.starts_with("every") {
            all.clone()
        } else {
            named
        };
        for room in rooms {
            above.insert(room.clone());
            let mut allowed = allowed.clone();
            allowed.insert(room.clone());
            // Quantities with their unit are everybody's language.
            allowed.insert("units".into());
            table.insert(room, allowed);
        }
    }
    table
}

/// `text` without what stands in parentheses: that explains, and does not count.
fn plain(text: &str) -> String {
    let mut depth = 0_u32;
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    plain
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// Rust code without comments, strings and characters.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if c == '"' {
            string(rest)
        } else {
            character(rest)
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

/// Length of the raw string that `rest` begins with.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let body = 1 + count + 1;
    rest[body..].find(&end).map(|at| body + at + end.len())
}

/// Length of the string that `rest` begins with.
fn string(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of the character literal that `rest` begins with, 0 for a lifetime.
fn character(rest: &str) -> usize {
    let Some(inner) = rest.strip_prefix('\'') else {
        return 0;
    };
    if let Some(escape) = inner.strip_prefix('\\') {
        return escape[1..].find('\'').map_or(0, |at| at + 4);
    }
    let Some(c) = inner.chars().next() else {
        return 0;
    };
    let after = 1 + c.len_utf8();
    if rest[after..].starts_with('\'') {
        after + 1
    } else {
        0
    }
}

/// Rooms that a file names: `crate::ROOM`, and each of `crate::{ROOM, ...}`.
/// Reaching the crate by `super::` counts as naming a room that no row allows.
fn named_rooms(source: &str, depth: usize) -> BTreeSet<String> {
    let code = code(source).replace(OPEN_DOOR, "");
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` of a macro is the same crate; `my_crate::` is not.
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let after = code[at + "crate::".len()..].trim_start();
        match after.strip_prefix('{') {
            Some(group) => rooms.extend(heads_of_group(group)),
            None => rooms.extend(words(after).next().map(str::to_owned)),
        }
    }
    // From a module that is `depth` deep so many `super::` reach the crate;
    // modules inside the file are one deeper.
    let chain = |depth| "super::".repeat(depth);
    if outside_of_inner_modules(&code).contains(&chain(depth)) || code.contains(&chain(depth + 1)) {
        rooms.insert("super::super::".to_owned());
    }
    rooms
}

/// `code` without the bodies of `mod NAME { ... }`.
fn outside_of_inner_modules(code: &str) -> String {
    let mut outside = String::new();
    let mut depth = 0;
    let mut inner = None;
    let mut words = ["", ""];
    let mut start = 0;
    for (at, c) in code.char_indices() {
        if c.is_whitespace() || c == '{' {
            let word = code[start..at].trim();
            if !word.is_empty() {
                words = [words[1], word];
            }
            start = at + c.len_utf8();
        }
        if c == '{' {
            if inner.is_none() && words[0] == "mod" {
                inner = Some(depth);
            }
            depth += 1;
        } else if c == '}' {
            depth -= 1;
            if inner == Some(depth) {
                inner = None;
            }
        }
        if inner.is_none() {
            outside.push(c);
        }
    }
    outside
}

/// First names of `a::b, c::{d, e}, f}`.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut head = String::new();
    let mut is_head = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(std::mem::take(&mut head));
                is_head = true;
            }
            ':' => is_head = false,
            c if is_head && depth == 0 && (c.is_alphanumeric() || c == '_') => head.push(c),
            _ => {}
        }
    }
    heads.push(head);
    heads.retain(|head| !head.is_empty());
    heads
}

/// Everything that `source`, a file of `room`, names against the table.
fn violations(table: &Table, room: &str, depth: usize, source: &str) -> Vec<String> {
    let Some(allowed) = table.get(room) else {
        return vec![format!("the room `{room}` is not in the table")];
    };
    named_rooms(source, depth)
        .into_iter()
        .filter(|named| !allowed.contains(named))
        .map(|named| format!("`{room}` names `{named}`"))
        .collect()
}

/// Every Rust file below `src/` but `lib.rs` and `main.rs`, with its room and
/// how many modules deep it is.
fn files() -> Vec<(PathBuf, String, usize)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in list_folder(folder).expect("a folder of src") {
            if entry.metadata.is_dir() {
                walk(&entry.path, files);
            } else if entry.path.extension().is_some_and(|end| end == "rs") {
                files.push(entry.path);
            }
        }
    }
    let src = repo_root().join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    let placed = paths.into_iter().filter_map(|path| {
        let inner = path
            .strip_prefix(&src)
            .expect("below src")
            .with_extension("");
        let mut parts: Vec<String> = inner
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if parts.last().is_some_and(|last| last == "mod") {
            parts.pop();
        }
        let room = parts.first()?.clone();
        // Programs, which name nothing but the library.
        let is_program = matches!(room.as_str(), "lib" | "main" | "bin");
        (!is_program).then_some((path, room, parts.len()))
    });
    placed.collect()
}

#[test]
fn every_room_uses_only_the_rooms_of_its_row() {
    let table = table(&read(&repo_root().join("ARCHITECTURE.md")));
    let mut wrong = Vec::new();
    for (path, room, depth) in files() {
        for violation in violations(&table, &room, depth, &read(&path)) {
            wrong.push(format!("{}: {violation}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "against the table of ARCHITECTURE.md section 5:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_room_that_looks_up_is_caught() {
    let table = table(&read(&repo_root().join("ARCHITECTURE.md")));
    let caught = |source: &str| violations(&table, "disk", 2, source);
    assert_eq!(caught("use crate::units::ByteSize;"), Vec::<String>::new());
    for source in [
        "use crate::plan::BuildPlan;",
        "use crate::{units::ByteSize, plan::{self, Lock}};",
        "fn f() { crate::plan::clock::now(); }",
        "use $crate::plan;",
        "let c = '\"'; use crate::plan::X; // \"",
    ] {
        assert_eq!(caught(source), ["`disk` names `plan`"], "{source}");
    }
    for source in [
        "use super::super::plan::Lock;",
        "mod tests { use super::super::super::plan::Lock; }",
        "mod tests { fn f() {} } use super::super::plan::Lock;",
    ] {
        assert_eq!(
            caught(source),
            ["`disk` names `super::super::`"],
            "{source}"
        );
    }
    for source in [
        "// crate::plan",
        "/* crate::plan */",
        "let s = \"crate::plan \\\" crate::plan\";",
        "let s = r#\"crate::plan\"#;",
        "use my_crate::plan;",
        "use crate::tree::list_folder;",
        "use super::spec; mod tests { use super::super::spec; }",
    ] {
        assert_eq!(caught(source), Vec::<String>::new(), "{source}");
    }
    assert_eq!(
        violations(&table, "utils", 1, ""),
        ["the room `utils` is not in the table"]
    );
}

#[test]
fn the_table_reads_as_it_is_meant() {
    let table = table(&read(&repo_root().join("ARCHITECTURE.md")));
    let may = |room: &str, other: &str| table[room].contains(other);
    assert!(may("plan", "descriptor") && !may("plan", "exec"));
    assert!(may("pipeline", "image") && !may("pipeline", "cli") && !may("pipeline", "machine"));
    assert!(may("cli", "machine") && may("error", "release"));
    assert_eq!(plain("disk (its plan too), units"), "disk , units");
    assert!(!may("units", "digest") && may("sparse", "units"));
    for room in table.keys() {
        assert!(
            room == "cli" || room == "error" || !may(room, "cli"),
            "{room}"
        );
    }
}

#[test]
#[expect(
    clippy::print_stderr,
    reason = "said, not refused: format tables may be long"
)]
fn long_files_are_said() {
    for (path, _, _) in files() {
        let lines = read(&path).lines().count();
        if lines > LONG_FILE {
            eprintln!("LONG: {} has {lines} lines", path.display());
        }
    }
}

/// The four answers that a room's head begins with, one run of text.
fn head(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_room_says_what_comes_in_what_goes_out_and_what_never_happens() {
    // `error` only gathers; what it says of itself has another shape.
    let is_head = |path: &Path, depth: usize| {
        let is_room = depth == 1;
        let is_format = depth == 2 && path.ends_with("mod.rs") && path.starts_with(src("fs"));
        (is_room || is_format) && !path.ends_with("error.rs")
    };
    let mut wrong = Vec::new();
    for (path, _, depth) in files() {
        if !is_head(&path, depth) {
            continue;
        }
        let head = head(&read(&path));
        for answer in ["In: ", "Out: ", "Never here: "] {
            if !head.contains(answer) {
                wrong.push(format!("{} has no `{answer}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn src(room: &str) -> PathBuf {
    repo_root().join("src").join(room)
}

#[test]
fn a_head_is_read_across_its_lines() {
    let source =
        "//! Disks.\n//!\n//! In: a tree. Out: a disk. Never\n//! here: mounts.\nuse x;\n//! not\n";
    assert_eq!(
        head(source),
        "Disks.  In: a tree. Out: a disk. Never here: mounts."
    );
}
