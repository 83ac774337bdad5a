//! Who may use whom: the table of `ARCHITECTURE.md`, section 5, against what
//! the rooms mention.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use consign::tree::list_folder;

use crate::support::repo_root;

/// Rooms by name, with those that each may mention; `None` for all.
type Table = BTreeMap<String, Option<BTreeSet<String>>>;

/// Rooms and folders under `src`, files without their extension.
fn rooms() -> BTreeSet<String> {
    list_folder(&repo_root().join("src"))
        .expect("the sources")
        .into_iter()
        .filter_map(|entry| {
            let name = entry.path.file_stem()?.to_str()?.to_owned();
            (!matches!(name.as_str(), "main" | "lib")).then_some(name)
        })
        .collect()
}

/// Words of `text` that are names of rooms. What stands in parentheses
/// explains, and does not count.
fn named(text: &str, rooms: &BTreeSet<String>) -> BTreeSet<String> {
    let mut depth = 0_u32;
    let plain: String = text
        .chars()
        .map(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ if depth == 0 => return c,
                _ => {}
            }
            ' '
        })
        .collect();
    plain
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| rooms.contains(*word))
        .map(str::to_owned)
        .collect()
}

/// The table, read from the page that people read.
fn table(rooms: &BTreeSet<String>) -> Table {
    let page = std::fs::read_to_string(repo_root().join("ARCHITECTURE.md")).expect("the page");
    let section = page
        .split("\n## ")
        .find(|section| section.contains("Who may use whom"))
        .expect("the section");
    let mut table = Table::new();
    for line in section.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [who, whom] = cells[..] else { continue };
        let allowed = if whom.starts_with("everything above but") {
            Some(rooms.difference(&named(whom, rooms)).cloned().collect())
        } else if whom.starts_with("every") {
            None
        } else {
            Some(named(whom, rooms))
        };
        for room in named(who, rooms) {
            table.insert(room, allowed.clone());
        }
    }
    table
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in list_folder(folder).expect("a folder") {
        if entry.metadata.is_dir() {
            found.extend(sources(&entry.path));
        } else if entry
            .path
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            found.push(entry.path);
        }
    }
    found
}

/// The door for listings, which every room has to use.
const OPEN_DOOR: &str = "crate::tree::list_folder";

/// Rooms that a source mentions, other than in comments, as `crate::room`.
fn mentioned(source: &str, rooms: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        let line = line.replace(OPEN_DOOR, "");
        for rest in line.split("crate::").skip(1) {
            let inner = rest.strip_prefix('{').unwrap_or(rest);
            let end = if inner.len() == rest.len() {
                inner.find(|c: char| !(c.is_alphanumeric() || c == '_'))
            } else {
                None
            };
            found.extend(named(&inner[..end.unwrap_or(inner.len())], rooms));
        }
    }
    found
}

#[test]
fn rooms_mention_only_those_that_the_table_allows() {
    let rooms = rooms();
    let table = table(&rooms);
    let mut problems = Vec::new();
    for path in sources(&repo_root().join("src")) {
        let inner = path
            .strip_prefix(repo_root().join("src"))
            .expect("below src");
        let first = inner.components().next().expect("a component");
        let room = Path::new(first.as_os_str()).file_stem().expect("a name");
        let room = room.to_string_lossy().into_owned();
        if matches!(room.as_str(), "main" | "lib") {
            continue;
        }
        let Some(allowed) = table.get(&room) else {
            problems.push(format!("{room} is not in the table"));
            continue;
        };
        let Some(allowed) = allowed else { continue };
        let source = std::fs::read_to_string(&path).expect("a source");
        for other in mentioned(&source, &rooms) {
            if other != room && other != "units" && !allowed.contains(&other) {
                problems.push(format!("{} mentions {other}", inner.display()));
            }
        }
    }
    problems.sort();
    problems.dedup();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_room_below_that_mentions_one_above_is_found() {
    let rooms: BTreeSet<String> = ["disk", "plan", "units"].map(String::from).into();
    let source = "use crate::plan::BuildPlan;\n// crate::units\nuse crate::{disk, units::X};\n";
    let found = mentioned(source, &rooms);
    assert_eq!(found, ["disk", "plan", "units"].map(String::from).into());
    assert_eq!(
        named("disk (its plan too), units", &rooms),
        ["disk", "units"].map(String::from).into()
    );
}
