//! The confined reader of media, watched from outside: what it asks the
//! kernel for, and what becomes of it when it asks for more.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the tests run the agent and other people's programs"
)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const AGENT: &str = env!("CARGO_BIN_EXE_consign-firstboot");

/// Runs a program of others; `None` where it is missing outside of CI.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {args:?}: {said}");
            Some(output)
        }
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: no {program} ({error})");
            None
        }
        Err(error) => panic!("{program} is needed in CI: {error}"),
    }
}

/// A FAT with a configuration, whose file is `size` bytes as its folder says.
fn medium(folder: &Path, says: Option<u32>) -> Option<PathBuf> {
    let image = folder.join("medium.img");
    let site = folder.join("site.toml");
    let _ = std::fs::remove_file(&image);
    std::fs::write(&site, "schema = 1\n").expect("write");
    let (path, site) = (image.to_str()?, site.to_str()?);
    run("mkfs.vfat", &["-C", "-n", "VACONFIG", path, "1440"])?;
    run("mcopy", &["-i", path, site, "::"])?;
    if let Some(says) = says {
        let mut bytes = std::fs::read(&image).expect("read");
        let slot = bytes
            .windows(11)
            .rposition(|name| name.starts_with(b"SITE") && name.ends_with(b"TOM"))
            .expect("the slot");
        bytes[slot + 28..slot + 32].copy_from_slice(&says.to_le_bytes());
        std::fs::write(&image, bytes).expect("write");
    }
    Some(image)
}

fn size_of(image: &Path) -> String {
    let size = std::fs::metadata(image).expect("metadata").len();
    size.to_string()
}

/// What the reader says of a medium.
fn told(image: &Path) -> Output {
    Command::new(AGENT)
        .args(["read-medium", &size_of(image), "512"])
        .stdin(File::open(image).expect("open"))
        .output()
        .expect("the agent runs")
}

fn has(bytes: &[u8], what: &str) -> bool {
    bytes
        .windows(what.len())
        .any(|part| part == what.as_bytes())
}

#[test]
fn the_reader_tells_what_is_on_a_medium() {
    let folder = tempfile::tempdir().expect("folder");
    let Some(image) = medium(folder.path(), None) else {
        return;
    };
    let output = told(&image);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"V"), "{output:?}");
    assert!(has(&output.stdout, "site.toml\0schema = 1\n"));
    assert!(output.stdout.ends_with(b".\0\0\0\0"));
}

/// The calls behind the one that takes all others away.
fn calls_behind_the_filter(trace: &str) -> Vec<String> {
    let mut lines = trace.lines().skip_while(|line| !line.contains("seccomp("));
    assert!(
        lines.next().is_some_and(|line| line.ends_with("= 0")),
        "{trace}"
    );
    lines.map(str::to_owned).collect()
}

#[test]
fn nothing_is_opened_for_any_medium() {
    let folder = tempfile::tempdir().expect("folder");
    for size in [None, Some(u32::MAX), Some(200_000)] {
        let Some(image) = medium(folder.path(), size) else {
            return;
        };
        let trace = folder.path().join("trace");
        let traced = Command::new("strace")
            .args(["-f", "-o"])
            .arg(&trace)
            .args([AGENT, "read-medium", &size_of(&image), "512"])
            .stdin(File::open(&image).expect("open"))
            .stdout(Stdio::piped())
            .output();
        let Ok(output) = traced else {
            assert!(std::env::var_os("CI").is_none(), "strace is needed in CI");
            eprintln!("SKIPPED: no strace");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let trace = std::fs::read_to_string(&trace).expect("read");
        let calls = calls_behind_the_filter(&trace);
        let allowed = [
            "pread64(0,",
            "read(0,",
            "write(1,",
            "brk(",
            "mmap(",
            "munmap(",
            "mremap(",
            "exit_group(",
            "+++ exited",
        ];
        for call in &calls {
            let text = call.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
            assert!(
                allowed.iter().any(|start| text.starts_with(start)),
                "{call}"
            );
            assert!(
                !text.starts_with("mmap(") || text.contains("MAP_ANONYMOUS"),
                "{call}"
            );
        }
        assert!(calls.iter().any(|call| call.contains("pread64(0,")));
        // Where the kernel has Landlock, it is used.
        if trace.contains("landlock_create_ruleset(NULL, 0, 0x1") && !trace.contains("ENOSYS") {
            assert!(trace.contains("landlock_restrict_self("), "{trace}");
        }
        if rustix::process::geteuid().is_root() {
            assert!(trace.contains("setuid(65534)"), "{trace}");
        }
    }
}

#[test]
fn a_reader_without_a_disk_ends() {
    let output = Command::new(AGENT)
        .args(["read-medium", "1000000", "512"])
        .stdin(Stdio::null())
        .output()
        .expect("the agent runs");
    assert!(output.status.success());
    assert_eq!(output.stdout, b".\0\0\0\0");
    let output = Command::new(AGENT)
        .args(["read-medium", "x"])
        .output()
        .expect("the agent runs");
    assert_eq!(output.status.code(), Some(64));
}
