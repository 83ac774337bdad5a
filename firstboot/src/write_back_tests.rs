//! A FAT volume of other people's tools in a file that stands for a disk.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "other people's programs make the medium and judge it"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::configure;
use crate::root::testing::Folder;
use crate::status::code;

const SITE: &str =
    "schema = 1\n[config]\nid = \"acme\"\nserial = 3\n[secret.db]\nfrom = \"secrets.age\"\n";

/// What a program says; nothing where it is missing outside of CI.
fn run(program: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new(program)
        .args(args)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{program}: {error}");
            eprintln!("SKIPPED: {program} is missing");
            return None;
        }
    };
    child.stdin.take()?.write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} {args:?}");
    Some(output.stdout)
}

struct Machine {
    folder: Folder,
    roots: Roots,
    image: PathBuf,
}

impl Machine {
    /// One with `files` on the disk vdb.
    fn with(files: &[(&str, &[u8])]) -> Option<Self> {
        let folder = Folder::with(&[
            ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("/etc/group", "root:x:0:\n"),
            ("/etc/shadow", "root:*:1::::::\n"),
            (
                "/usr/lib/consign/image.toml",
                "name = \"sample\"\nbuild = \"one\"\n",
            ),
            ("/media/sys/vdb/size", "32768\n"),
            ("/media/dev/none", ""),
        ]);
        let place = folder.path().join("media");
        let image = place.join("dev/vdb");
        let path = image.to_str()?;
        run("mkfs.vfat", &["-C", "-n", "VACONFIG", path, "16384"], b"")?;
        for (name, bytes) in files {
            run("mcopy", &["-i", path, "-", &format!("::{name}")], bytes)?;
        }
        let roots = Roots {
            sys: place.join("sys"),
            dev: place.join("dev"),
            firmware: place.join("none"),
            ..Roots::default()
        };
        Some(Self {
            folder,
            roots,
            image,
        })
    }

    fn write_back(&self, status: &Status) -> Vec<String> {
        note(&self.folder.root, &media::look(&self.roots));
        let notes = write_back(&self.folder.root, &self.roots, status);
        // Nothing but the files' own bytes has changed.
        let path = self.image.to_str().expect("UTF-8");
        run("fsck.vfat", &["-n", path], b"").expect("no fault");
        notes
    }

    fn text(&self, name: &str) -> String {
        let path = self.image.to_str().expect("UTF-8");
        let bytes = run("mtype", &["-i", path, &format!("::{name}")], b"");
        String::from_utf8_lossy(&bytes.expect("it is there")).into_owned()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.image).expect("the medium")
    }
}

#[test]
fn a_waiting_machine_asks_and_a_configured_one_reports_and_wipes() {
    let blank = vec![b'\n'; 16 << 10];
    let archive = vec![0; 64 << 10];
    let empty = Folder::new();
    secrets::settle(&empty.root).expect("an identity");
    let recipient = secrets::recipient(&empty.root).expect("a recipient");
    let Some(age) = run("age", &["-r", &recipient], b"db = \"CANARY\"\n") else {
        return;
    };
    let Some(machine) = Machine::with(&[
        ("site.toml", SITE.as_bytes()),
        ("secrets.age", &age),
        ("report.json", &blank),
        ("request.toml", &blank),
        ("support.tar", &archive),
    ]) else {
        return;
    };
    let root = &machine.folder.root;
    // The machine that this is has the identity that the secrets are for.
    for file in ["identity.age", "recipient"] {
        let path = format!("/var/lib/consign/{file}");
        let bytes = empty.root.read(&path, 4096).expect("read").expect("there");
        root.put(&path, &bytes, Access::own(0o600)).expect("put");
    }
    let status = Status::new(
        Standing::Waiting,
        code::INVALID,
        "the configuration is wrong",
    );
    assert_eq!(machine.write_back(&status), [""; 0]);
    let request = machine.text("request.toml");
    assert!(
        request.contains(&format!("recipient = \"{recipient}\"\n")),
        "{request}"
    );
    assert_eq!(request.len(), blank.len());
    let report = machine.text("report.json");
    assert!(
        report.starts_with("{\"kind\":\"consign-report\""),
        "{report}"
    );
    let before = machine.bytes();
    assert_eq!(machine.write_back(&status), [""; 0]);
    assert!(machine.bytes() == before, "the same is not written again");
    assert!(machine.text("secrets.age").starts_with("age-encryption"));

    let taken = configure::take(root, &media::look(&machine.roots), &mut BTreeSet::new());
    assert_eq!(taken.standing, Standing::Starting, "{taken:?}");
    let ready = Status {
        config: taken.config,
        ..Status::new(Standing::Ready, code::READY, "all services run")
    };
    let medium = &media::look(&machine.roots).candidates[0];
    put_slot(&machine.roots, medium, "request.toml", b"", b'\n').expect("blank again");
    assert!(!machine.text("request.toml").contains("recipient"));
    let notes = machine.write_back(&ready);
    assert_eq!(
        machine.text("request.toml"),
        request,
        "its next secrets are asked for"
    );
    assert_eq!(notes, ["vdb: secrets.age is taken, and erased there"]);
    assert!(machine.text("secrets.age").starts_with(TAKEN));
    let all = machine.bytes();
    let is_there = |part: &[u8]| all.windows(part.len()).any(|window| window == part);
    assert!(
        !is_there(&age[age.len() - 32..]),
        "the encrypted bytes are gone"
    );
    assert!(machine.text("report.json").contains("all services run"));
    assert_eq!(machine.write_back(&ready), [""; 0]);

    // New ones that nobody has taken stay, and it is said why they were not.
    let path = machine.image.to_str().expect("UTF-8");
    let newer = run("age", &["-r", &recipient], b"db = \"NEWER\"\n").expect("age");
    run("mcopy", &["-o", "-i", path, "-", "::secrets.age"], &newer).expect("copied");
    let notes = machine.write_back(&ready);
    assert_eq!(
        notes,
        ["vdb: secrets.age is not the one in use; raise the serial of site.toml"]
    );
    assert!(machine.text("secrets.age").starts_with("age-encryption"));
    // A claim code is shorter than what is written over it.
    run("mdel", &["-i", path, "::secrets.age"], b"").expect("gone");
    run(
        "mcopy",
        &["-i", path, "-", "::claim.txt"],
        b"ABCDEFGHJKLM\n",
    )
    .expect("copied");
    let notes = machine.write_back(&ready);
    assert_eq!(notes, ["vdb: claim.txt is taken, and erased there"]);
    assert_eq!(machine.text("claim.txt"), TAKEN[..13]);
    assert_eq!(machine.write_back(&ready), [""; 0]);
}

#[test]
fn a_strangers_medium_gets_nothing() {
    let blank = vec![b'\n'; 16 << 10];
    let Some(machine) = Machine::with(&[("site.toml", b"schema = 1\n"), ("report.json", &blank)])
    else {
        return;
    };
    let root = &machine.folder.root;
    let own = "schema = 1\n[config]\nid = \"acme\"\nserial = 3\n";
    let mut found = media::look(&machine.roots);
    for candidate in &mut found.candidates {
        candidate.files.insert(SITE_FILE.into(), own.into());
    }
    let taken = configure::take(root, &found, &mut BTreeSet::new());
    assert_eq!(taken.standing, Standing::Starting, "{taken:?}");
    let before = machine.bytes();
    let degraded = Status::new(Standing::Degraded, code::DEGRADED, "x");
    assert_eq!(machine.write_back(&degraded), [""; 0]);
    assert!(machine.bytes() == before);
}

#[test]
fn a_report_that_is_too_long_is_not_cut() {
    let Some(machine) = Machine::with(&[("report.json", b"\n")]) else {
        return;
    };
    let status = Status::new(Standing::Waiting, code::WAITING, "x");
    let notes = machine.write_back(&status);
    assert_eq!(
        notes,
        ["vdb: report.json is not written: it is longer than the file there"]
    );
    assert_eq!(machine.text("report.json"), "\n");
}
