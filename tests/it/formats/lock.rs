//! The lock: one text for each value, strict reading, named drift.

use consign::appliance::{Appliance, Source, Style};
use consign::boot::TOOLS_PACKAGES;
use consign::digest::Digest;
use consign::layer::spec::PackageRequest;
use consign::plan::{Lock, PlanError, request};
use proptest::prelude::*;

use crate::support::sample::{LAYERS, MINIMAL, lock, pin, shelf};
use crate::support::{golden, temp_folder};

fn appliance() -> Appliance {
    let text = MINIMAL.replace("\"app\"]", "\"web\", \"app\"]");
    Appliance::parse(&Source::new("appliance.toml", &text), &shelf(&LAYERS)).expect("sound")
}

fn parse(text: &str) -> Result<Lock, PlanError> {
    Lock::parse(&Source::new("appliance.lock", text))
}

/// What is said about a lock with `from` replaced by `to`.
fn said_about(from: &str, to: &str) -> String {
    let text = lock(&appliance()).to_string();
    assert!(text.contains(from), "the sample has no {from:?}");
    let error = parse(&text.replacen(from, to, 1)).expect_err("the lock is wrong");
    assert_eq!(error.slug(), "lock-invalid");
    error.draw(Style::Plain)
}

#[test]
fn the_text_is_the_golden_one_and_reads_back_equal() {
    let lock = lock(&appliance());
    let text = lock.to_string();
    golden("plan/appliance.lock", &text);
    assert_eq!(parse(&text).expect("our own text"), lock);
    assert_eq!(parse(&text.replace('\n', "\r\n")).expect("CRLF"), lock);
}

#[test]
fn no_address_is_in_a_lock() {
    let text = lock(&appliance()).to_string();
    assert!(!text.contains("://"));
}

#[test]
fn a_wrong_lock_is_told_what_is_wrong() {
    let cases = [
        ("another format", "format = 1", "format = 7"),
        ("not TOML", "format = 1", "format = "),
        (
            "an unknown key",
            "size = 1048576",
            "size = 1048576\nurl = \"http://x\"",
        ),
        ("a missing key", "reason = \"requested\"\n", ""),
        ("a way out", "pool/main/u/udev/udev", "pool/../../etc/udev"),
        ("an absolute path", "pool/main/u/udev", "/pool/main/u/udev"),
        ("an address", "pool/main/u/udev", "http://example.com/udev"),
        ("no package", "_amd64.deb", "_amd64.tar"),
        (
            "a suite without a release",
            "suite = \"bookworm\"\npath",
            "suite = \"sid\"\npath",
        ),
        (
            "another architecture",
            "architecture = \"amd64\"\nsuite",
            "architecture = \"arm64\"\nsuite",
        ),
        (
            "a digest that is none",
            "sha256 = \"sha256:",
            "sha256 = \"sha512:",
        ),
        ("no bytes", "size = 1048576", "size = 0"),
        (
            "more bytes than there are",
            "size = 1048576",
            "size = 99999999999999",
        ),
        (
            "control characters",
            "reason = \"requested\"",
            "reason = \"\\u001b[2J\"",
        ),
        ("a package twice", "name = \"udev\"", "name = \"systemd\""),
        ("a layer twice", "name = \"web\"", "name = \"base\""),
        ("a date that is none", "2025-09-10T", "2025-09-31T"),
        (
            "an unfinished merge",
            "[[layer]]",
            "<<<<<<< ours\n[[layer]]",
        ),
    ];
    let sections: Vec<String> = cases
        .iter()
        .map(|(title, from, to)| format!("=== {title}\n\n{}", said_about(from, to)))
        .collect();
    golden("plan/wrong-locks.txt", &sections.join("\n"));
}

#[test]
fn a_missing_lock_is_not_an_error_and_a_folder_is_one() {
    let folder = temp_folder();
    let path = folder.path().join("appliance.lock");
    assert_eq!(Lock::open(&path).expect("missing"), None);
    std::fs::create_dir(&path).expect("mkdir");
    let error = Lock::open(&path).expect_err("a folder");
    assert_eq!(error.slug(), "lock-unreadable");
}

type Change = fn(&mut PackageRequest);

#[test]
fn each_kind_of_drift_is_named() {
    let appliance = appliance();
    let asked = request(&appliance, TOOLS_PACKAGES);
    let lock = lock(&appliance);
    assert_eq!(lock.drift(&asked), []);

    let changes: [(Change, &str); 9] = [
        (
            |asked| asked.suite = "trixie".into(),
            "the suite is `trixie`, it was `bookworm`",
        ),
        (
            |asked| asked.architecture = "arm64".into(),
            "the architecture is `arm64`, it was `amd64`",
        ),
        (
            |asked| asked.groups[1].packages.push("php-fpm".into()),
            "layer `web` now asks for `php-fpm`",
        ),
        (
            |asked| asked.groups[1].packages.clear(),
            "layer `web` no longer asks for `nginx`",
        ),
        (
            |asked| asked.groups[0].recommends = true,
            "layer `base` is now with recommended packages",
        ),
        (
            |asked| asked.groups[0].exclude.push("perl".into()),
            "layer `base` excludes other packages",
        ),
        (
            |asked| asked.groups.reverse(),
            "the layers stand in another order",
        ),
        (
            |asked| asked.groups[1].layer = "site".into(),
            "layer `site` is new; layer `web` is gone",
        ),
        (
            |asked| asked.tools.retain(|name| name != "shim-signed"),
            "the boot loader no longer asks for `shim-signed`",
        ),
    ];
    for (change, expected) in changes {
        let mut asked = asked.clone();
        change(&mut asked);
        let said: Vec<_> = lock.drift(&asked).iter().map(ToString::to_string).collect();
        assert_eq!(said.join("; "), expected);
    }
}

#[test]
fn what_a_new_lock_brings_is_said_package_by_package() {
    let old = lock(&appliance());
    let mut new = old.clone();
    assert_eq!(old.changes(&new), []);
    assert_eq!(
        old.news(&new, "wiki 1.0"),
        "Packages since wiki 1.0:\n  the same\n"
    );
    new.layers[0].packages[0].version = "2".into();
    new.layers[0].packages[1].sha256 = Digest::of(b"other");
    let nginx = new.layers[1].packages.pop().expect("nginx");
    new.layers[0].packages.push(nginx);
    new.layers[1].packages.push(pin("lighttpd", "bookworm"));
    new.tools.retain(|pin| pin.name != "shim-signed");
    let said: Vec<_> = old.changes(&new).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "+ lighttpd 1:2.3-4+deb12u1 (web)",
            "  linux-image-amd64 1:2.3-4+deb12u1 -> 2",
            "  nginx moves from web to base",
            "- shim-signed 1:2.3-4+deb12u1 (boot tools)",
            "! systemd 1:2.3-4+deb12u1 has other bytes than before",
        ]
    );
    let news = old.news(&new, "wiki 1.0");
    assert_eq!(
        news.lines().nth(2),
        Some("    linux-image-amd64 1:2.3-4+deb12u1 -> 2")
    );
}

#[test]
fn a_pipe_in_place_of_a_lock_does_not_hang() {
    let folder = temp_folder();
    let path = folder.path().join("appliance.lock");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("a pipe");
    let error = Lock::open(&path).expect_err("a pipe");
    assert_eq!(error.slug(), "lock-unreadable");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_lock_is_read_right_or_refused(
        edits in prop::collection::vec((0usize..4000, any::<u8>(), 0usize..3), 1..6),
    ) {
        let mut bytes = lock(&appliance()).to_string().into_bytes();
        for (at, byte, kind) in edits {
            let at = at % bytes.len();
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        if let Ok(source) = Source::from_bytes("appliance.lock", &bytes)
            && let Ok(lock) = Lock::parse(&source)
        {
            // What was accepted has one text, and that text means the same.
            let text = lock.to_string();
            prop_assert_eq!(parse(&text).expect("its own text"), lock);
        }
    }
}
