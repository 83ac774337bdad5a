//! Mapping ids into a new user namespace, from outside of it.

use std::path::Path;

use super::SandboxSettings;
use super::refusal::{NEEDED, SandboxRefusal};
use crate::exec::{Call, Tool};

/// A range of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u64,
    count: u64,
}

/// Maps the ids of process `pid`: as root each to itself, else 0 to the user
/// and 1 to 65535 to the user's subordinate ids.
pub(super) fn map_ids(pid: u32, settings: &SandboxSettings) -> Result<(), SandboxRefusal> {
    if rustix::process::geteuid().is_root() {
        for file in ["uid_map", "gid_map"] {
            map_to_itself(pid, file)?;
        }
        return Ok(());
    }
    let user = rustix::process::geteuid().as_raw();
    let name = user_name(user);
    let owners = [
        (Tool::NewUidMap, "/etc/subuid", user),
        (
            Tool::NewGidMap,
            "/etc/subgid",
            rustix::process::getegid().as_raw(),
        ),
    ];
    for (tool, file, own) in owners {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let range = longest_range(&text, &name, user).unwrap_or(Range { start: 0, count: 0 });
        if range.count < NEEDED {
            return Err(SandboxRefusal::NoIds {
                file,
                user: name,
                found: range.count,
            });
        }
        let args = [
            pid.to_string(),
            "0".into(),
            own.to_string(),
            "1".into(),
            "1".into(),
            range.start.to_string(),
            NEEDED.to_string(),
        ];
        Call::find(tool, &settings.search_path)
            .and_then(|call| call.args(args).run(b""))
            .map_err(SandboxRefusal::Mapping)?;
    }
    Ok(())
}

/// Every id that exists here, mapped to itself.
fn map_to_itself(pid: u32, file: &str) -> Result<(), SandboxRefusal> {
    let refused = |source: std::io::Error| SandboxRefusal::Map {
        reason: source.to_string(),
    };
    let own = std::fs::read_to_string(Path::new("/proc/self").join(file)).map_err(refused)?;
    let mut map = String::new();
    for line in own.lines() {
        let mut numbers = line.split_ascii_whitespace();
        if let (Some(inside), Some(_), Some(count)) =
            (numbers.next(), numbers.next(), numbers.next())
        {
            map.extend([inside, " ", inside, " ", count, "\n"]);
        }
    }
    std::fs::write(format!("/proc/{pid}/{file}"), map).map_err(refused)
}

/// The longest range of `name` or `id` in the text of /etc/subuid.
fn longest_range(text: &str, name: &str, id: u32) -> Option<Range> {
    let id = id.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let start = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok()?;
            (owner == name || owner == id).then_some(Range { start, count })
        })
        .max_by_key(|range| range.count)
}

/// The name of user `id`, or the number when /etc/passwd has none.
fn user_name(id: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = id.to_string();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == wanted).then(|| name.to_owned())
        })
        .unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_range_of_the_user_counts() {
        let text = "bob:100000:65536\nalice:165536:1000\n1000:200000:65536\nbroken\nalice:x:y\n";
        let range = longest_range(text, "alice", 1000);
        assert_eq!(
            range,
            Some(Range {
                start: 200_000,
                count: 65_536
            })
        );
        assert_eq!(longest_range(text, "carol", 1001), None);
    }
}
