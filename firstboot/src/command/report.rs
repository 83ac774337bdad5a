//! What the machine tells others: facts, the report, the support bundle.

use std::process::ExitCode;

use super::no_input;
use crate::bundle_tar::Tar;
use crate::inventory;
use crate::root::Root;
use crate::status::{Status, code};
use crate::systemd;

/// `facts`.
pub fn run_facts(root: &Root) -> ExitCode {
    tell!("{}", inventory::machine(root));
    ExitCode::SUCCESS
}

/// `report`.
pub fn run_report(root: &Root) -> ExitCode {
    let Some(status) = Status::load(root) else {
        complain!("appliance: the first-boot agent has not run yet");
        return ExitCode::from(code::NOT_YET);
    };
    tell!("{}", inventory::report(root, &status));
    ExitCode::SUCCESS
}

/// `support-bundle [FILE]`: to the file, or else to standard output.
pub fn run_bundle(root: &Root, file: Option<&str>) -> ExitCode {
    use std::io::Write as _;
    let bytes = bundle(root);
    let written = match file {
        Some(file) => std::fs::write(file, &bytes),
        None => std::io::stdout().write_all(&bytes),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => no_input(file.unwrap_or("standard output"), &error),
    }
}

/// Files of the system that support may see, as they are.
const ALLOWED: [&str; 8] = [
    "/etc/os-release",
    "/proc/cmdline",
    "/proc/meminfo",
    "/proc/mounts",
    "/run/consign/status.toml",
    "/run/consign/site-facts.toml",
    "/run/systemd/netif/state",
    "/usr/lib/consign/image.toml",
];
/// Lines of a manifest that say what was configured without its values.
const MANIFEST_KEYS: [&str; 12] = [
    "[[",
    "id ",
    "serial ",
    "role ",
    "image ",
    "file ",
    "mode ",
    "content ",
    "link ",
    "absent ",
    "account ",
    "releases ",
];
const LEFT_OUT: &str = "\
left out, as secrets may be in it:
  site.toml, secrets.age, rendered files, password hashes, host keys, the
  identity that secrets are encrypted to, files of people
";
/// A file is cut at this length.
const MAX_FILE: usize = 1 << 20;

/// A tar of what is allowed, with a list of what is in it and what is not.
pub fn bundle(root: &Root) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut contents = "in this bundle:\n".to_owned();
    let mut put = |name: &str, bytes: &[u8]| {
        contents.extend(["  ", name, "\n"]);
        tar.file(name, bytes);
    };
    if let Some(status) = Status::load(root) {
        put("report.json", inventory::report(root, &status).as_bytes());
    }
    for path in ALLOWED {
        if let Ok(Some(bytes)) = root.read(path, MAX_FILE) {
            put(path.trim_start_matches('/'), &bytes);
        }
    }
    for number in root.list("/var/lib/consign/gen").unwrap_or_default() {
        let path = format!("/var/lib/consign/gen/{number}/manifest.toml");
        let text = root.read_text(&path, 4 * MAX_FILE).unwrap_or_default();
        let is_shown = |line: &&str| MANIFEST_KEYS.iter().any(|key| line.starts_with(key));
        let lines: String = text
            .lines()
            .filter(is_shown)
            .flat_map(|line| [line, "\n"])
            .collect();
        put(&format!("generations/{number}.toml"), lines.as_bytes());
    }
    if root.exists("/run/systemd/system") {
        put("journal.txt", systemd::own_journal().as_bytes());
    }
    contents.push_str(LEFT_OUT);
    tar.file("CONTENTS", contents.as_bytes());
    tar.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;
    use crate::status::Standing;

    #[test]
    fn a_bundle_has_no_secret_and_tar_reads_it() {
        let manifest =
            "id = \"acme\"\n[[item]]\naccount = \"ann\"\npassword_hash = \"$6$CANARY\"\n";
        let folder = Folder::with(&[
            ("/var/lib/consign/gen/0001/manifest.toml", manifest),
            ("/var/lib/consign/gen/0001/site.toml", "CANARY"),
            ("/var/lib/consign/identity.age", "CANARY"),
            ("/proc/cmdline", "quiet"),
        ]);
        let status = Status::new(Standing::Ready, code::READY, "fine");
        status.save(&folder.root).expect("saved");
        let bytes = bundle(&folder.root);
        assert!(!String::from_utf8_lossy(&bytes).contains("CANARY"));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for part in [
            "report.json",
            "proc/cmdline",
            "account = \"ann\"",
            "left out",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
