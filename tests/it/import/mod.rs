//! Imports: what is decided, what is refused, and what becomes of a guest in
//! a real libvirt and in QEMU alone.
#![expect(
    clippy::disallowed_types,
    reason = "the tests start virt-image and judges"
)]

mod ends;
mod errors;
mod full;
mod guests;
mod plan;
mod trust;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use consign::digest::Digest;

use crate::support::sector::{Then, boot_sector};
use crate::support::{TestFolder, digest_of, run, temp_folder, text_of};

/// The `virt-image` program that was built for these tests.
pub(super) fn virt_image() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virt-image"));
    command.stdin(Stdio::null());
    command.env_remove("LIBVIRT_DEFAULT_URI");
    command
}

/// What a guest of [`Small`] says.
pub(super) const READY: &str = "VA state=ready fw=bios\r\n";

/// An appliance of a boot sector that says that it is ready.
#[derive(Debug)]
pub(super) struct Small {
    folder: TestFolder,
}

impl Small {
    pub(super) fn new() -> Self {
        Self::saying(READY, "1.0")
    }

    /// One of another version that says something else.
    pub(super) fn saying(text: &str, version: &str) -> Self {
        let folder = temp_folder();
        let small = Self { folder };
        fs::write(small.file("disk.raw"), boot_sector(text, Then::Stops)).expect("a disk");
        let sum = digest_of(&small.file("disk.raw")).hex();
        small.describe(&descriptor(version, &sum));
        small
    }

    pub(super) fn describe(&self, text: &str) {
        fs::write(self.descriptor(), text).expect("a descriptor");
    }

    pub(super) fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.descriptor()).expect("a descriptor");
        assert!(text.contains(from), "no `{from}` in {text}");
        self.describe(&text.replace(from, to));
    }

    pub(super) fn descriptor(&self) -> PathBuf {
        self.file("appliance.xml")
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `virt-image` with its descriptor.
    pub(super) fn import(&self, args: &[&str]) -> Command {
        let mut command = virt_image();
        command.arg(self.descriptor()).args(args);
        command
    }
}

/// The descriptor of [`Small`]: a system disk, and a user disk that is made.
fn descriptor(version: &str, sum: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<image xmlns:va="urn:consign:appliance:1">
  <name version="{version}">small</name>
  <domain>
    <boot type="hvm">
      <guest><arch>x86_64</arch></guest>
      <os><loader dev="hd"/></os>
      <drive disk="system"/>
      <drive disk="data"/>
    </boot>
    <devices>
      <vcpu>1</vcpu>
      <memory>65536</memory>
    </devices>
  </domain>
  <storage>
    <disk id="system" file="disk.raw" format="raw" size="1" use="system">
      <checksum type="sha256">{sum}</checksum>
    </disk>
    <disk id="data" file="data.raw" format="raw" size="4" use="user"/>
  </storage>
  <va:machine>
    <va:chipset type="q35"/>
    <va:bus type="virtio"/>
    <va:firmware type="bios"/>
  </va:machine>
</image>
"#
    )
}

/// Digest over the names, kinds and contents of everything below a folder.
pub(super) fn tree_digest(folder: &Path) -> Digest {
    fn walk(folder: &Path, text: &mut String) {
        for entry in consign::tree::list_folder(folder).expect("a folder") {
            text.push_str(&entry.path.display().to_string());
            if entry.metadata.is_dir() {
                walk(&entry.path, text);
            } else if entry.metadata.is_file() {
                text.push_str(&digest_of(&entry.path).hex());
            }
            text.push('\n');
        }
    }
    let mut text = String::new();
    walk(folder, &mut text);
    Digest::of(text.as_bytes())
}

pub(super) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs it, and panics with all it said unless it ends well.
#[track_caller]
pub(super) fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}\n{}", text_of(&output));
    stdout(&output)
}

/// Runs it, and panics unless it fails with one error of this slug, this
/// code, these words and a hint with these words.
#[track_caller]
pub(super) fn fails(command: &mut Command, slug: &str, code: i32, words: &str, hint: &str) {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{said}");
    let start = format!("error[{slug}]: ");
    let error = said.lines().position(|line| line.starts_with(&start));
    let error = error.unwrap_or_else(|| panic!("no {slug} in\n{said}"));
    let rest: Vec<&str> = said.lines().skip(error).collect();
    assert!(rest.join("\n").contains(words), "no `{words}` in\n{said}");
    let remedy = rest.iter().find_map(|line| line.strip_prefix("hint: "));
    let remedy = remedy.unwrap_or_else(|| panic!("no hint in\n{said}"));
    assert!(remedy.contains(hint), "no `{hint}` in `{remedy}`");
}
