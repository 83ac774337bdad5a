//! What the machine tells others: facts, the report, the support bundle.

use std::process::ExitCode;

use super::no_input;
use crate::bundle_tar::Tar;
use crate::configure::wanted_claim;
use crate::inventory;
use crate::root::Root;
use crate::secrets::STORE;
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

const CMDLINE: &str = "/proc/cmdline";
/// A word of the kernel's command line that has one of these has a value that
/// is nobody's business.
const PRIVATE: [&str; 5] = ["credential", "pass", "secret", "token", "key"];
/// What stands instead of a secret.
const LEFT: &str = "[secret]";
/// Shorter ones stand in too much that is none.
const SHORTEST: usize = 6;
/// Files of the system that support may see, as they are.
const ALLOWED: [&str; 8] = [
    "/etc/os-release",
    CMDLINE,
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
    let secrets = known_secrets(root);
    let mut put = |name: &str, bytes: &[u8]| {
        contents.extend(["  ", name, "\n"]);
        tar.file(name, scrubbed(bytes, &secrets).as_bytes());
    };
    if let Some(status) = Status::load(root) {
        put("report.json", inventory::report(root, &status).as_bytes());
    }
    for path in ALLOWED {
        if let Ok(Some(mut bytes)) = root.read(path, MAX_FILE) {
            if path == CMDLINE {
                bytes = without_values(&String::from_utf8_lossy(&bytes)).into_bytes();
            }
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

/// What services were handed, and the claim code: none of them belongs into any
/// file, and whoever writes one there by mistake tells nobody.
fn known_secrets(root: &Root) -> Vec<String> {
    let mut secrets: Vec<String> = wanted_claim(root).into_iter().collect();
    for name in root.list(STORE).unwrap_or_default() {
        let text = root.read_text(&format!("{STORE}/{name}"), MAX_FILE);
        for line in text.unwrap_or_default().lines() {
            // One may be in another: the longest comes first.
            let is_shorter = |other: &String| other.len() < line.len();
            let at = secrets.iter().position(is_shorter);
            secrets.insert(at.unwrap_or(secrets.len()), line.to_owned());
        }
    }
    secrets.retain(|secret| secret.len() >= SHORTEST);
    secrets
}

fn scrubbed(bytes: &[u8], secrets: &[String]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    secrets
        .iter()
        .fold(text, |text, secret| text.replace(secret, LEFT))
}

/// A command line whose private words have no values. White space belongs to a
/// word where the kernel or systemd says so: in quotes of either kind, and
/// after a backslash. So a word may be longer than who reads it thinks, and
/// never shorter.
fn without_values(cmdline: &str) -> String {
    let (mut quote, mut is_escaped) = (None, false);
    let words = cmdline.trim().split(|c: char| {
        let is_plain = !is_escaped;
        is_escaped = is_plain && c == '\\';
        if is_plain && quote == Some(c) {
            quote = None;
        } else if is_plain && quote.is_none() && matches!(c, '"' | '\'') {
            quote = Some(c);
        }
        is_plain && quote.is_none() && c.is_ascii_whitespace()
    });
    let word = |word: &str| {
        let small = word.to_ascii_lowercase();
        match word.split_once('=') {
            Some((name, _)) if PRIVATE.iter().any(|it| small.contains(it)) => {
                format!("{name}={LEFT}")
            }
            _ => word.to_owned(),
        }
    };
    words.map(word).collect::<Vec<_>>().join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;
    use crate::status::Standing;

    #[test]
    fn private_words_have_no_values() {
        let line = "quiet PASSWORD=a passphrase=\"two words\" x=\"b c\" \"key=d e\" f= pass\n";
        assert_eq!(
            without_values(line),
            "quiet PASSWORD=[secret] passphrase=[secret] x=\"b c\" \"key=[secret] f= pass\n"
        );
        for line in [
            "systemd.run=\"mount -o password=a b\" f",
            "systemd.run='x token a' f",
            "systemd.run=x\\ token=a f",
            "systemd.run=\"it's a 'key\" f",
        ] {
            assert_eq!(without_values(line), "systemd.run=[secret] f\n");
        }
        // A quote without its end: all that follows belongs to it.
        assert_eq!(without_values("token=\"a b c"), "token=[secret]\n");
        assert_eq!(without_values("\n"), "\n");
    }

    #[test]
    fn a_bundle_has_no_secret_and_tar_reads_it() {
        let manifest =
            "id = \"acme\"\n[[item]]\naccount = \"ann\"\npassword_hash = \"$6$CANARY\"\n";
        let folder = Folder::with(&[
            ("/var/lib/consign/gen/0001/manifest.toml", manifest),
            ("/var/lib/consign/gen/0001/site.toml", "CANARY"),
            ("/var/lib/consign/identity.age", "CANARY"),
            // What is collected, and has what it should not have.
            (
                "/proc/cmdline",
                "quiet systemd.set_credential=pin:CANARY x=S3CRET-CANARY\n",
            ),
            ("/run/credstore/pin", "S3CRET-CANARY\nsecond CANARY\n"),
            ("/var/lib/consign/claim", "CANARYCANARY\n"),
            ("/run/consign/site-facts.toml", "a = \"S3CRET-CANARY\"\n"),
            ("/run/systemd/netif/state", "DNS=second CANARY\n"),
            ("/usr/lib/consign/image.toml", "name = \"CANARYCANARY\"\n"),
        ]);
        let mut status = Status::new(Standing::Ready, code::READY, "is S3CRET-CANARY");
        status.notes.push("CANARYCANARY".to_owned());
        status.save(&folder.root).expect("saved");
        let bytes = bundle(&folder.root);
        assert!(!String::from_utf8_lossy(&bytes).contains("CANARY"));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for part in [
            "report.json",
            "proc/cmdline",
            "quiet systemd.set_credential=[secret] x=[secret]\n",
            "is [secret]",
            "DNS=[secret]",
            "account = \"ann\"",
            "left out",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
