//! Finds out whether KVM works, by using it.
//!
//! A `/dev/kvm` can be there and still not run a guest: no permission, a host
//! that imitates it, a processor that lacks what QEMU sets up. So a guest of
//! five instructions has to run and to say so.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::exec::{Call, ExecError, read_tail};

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through KVM.
    Kvm,
    /// QEMU's translator: works everywhere, 5 to 20 times slower.
    Tcg,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// KVM ran a guest.
    Works,
    /// It did not, and why: one clause, control characters and all.
    Broken(String),
}

/// `mov al, 42; out 0xf4, al; hlt; jmp $-1`.
const PROGRAM: [u8; 7] = [0xb0, 42, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];

/// What QEMU's `isa-debug-exit` makes of 42: `(n << 1) | 1`.
const PROGRAM_RAN: i32 = 85;

/// A working KVM needs a tenth of a second; an imitated one takes seconds.
const LIMIT: Duration = Duration::from_secs(5);

/// Runs a boot sector under KVM with the processor that guests get.
///
/// # Errors
///
/// [`ExecError`] when QEMU itself cannot be run.
pub fn probe(qemu: &Call) -> Result<Probe, ExecError> {
    let sector = boot_sector().map_err(|source| qemu.broken_pipe(source))?;
    let call = qemu.clone().args([
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-machine",
        "pc",
        "-m",
        "16",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=1",
        "-drive",
        "if=ide,format=raw,readonly=on,snapshot=on,file=/dev/stdin",
    ]);
    let mut child = call.spawn(sector.into(), Stdio::null(), Stdio::piped())?;
    let mut stderr = child.stderr.take().expect("piped above");
    let words = std::thread::spawn(move || read_tail(&mut stderr));
    let started = Instant::now();
    let status = loop {
        match child
            .try_wait()
            .map_err(|source| qemu.broken_pipe(source))?
        {
            Some(status) => break Some(status),
            None if started.elapsed() > LIMIT => {
                // It is ours and it is stuck; that it may have ended meanwhile is fine.
                let _killed = child.kill();
                child.wait().map_err(|source| qemu.broken_pipe(source))?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let words = words
        .join()
        .expect("the reader does not panic")
        .unwrap_or_default();
    Ok(match status {
        Some(status) if status.code() == Some(PROGRAM_RAN) => Probe::Works,
        Some(status) => Probe::Broken(reason(&words).unwrap_or_else(|| status.to_string())),
        None => Probe::Broken(format!("no guest ran within {} s", LIMIT.as_secs())),
    })
}

/// The first line of complaint that is more than a warning, less the program's name.
fn reason(words: &str) -> Option<String> {
    let line = words
        .lines()
        .find(|line| !line.contains("warning:") && !line.trim().is_empty())?;
    let line = line.trim();
    let text = line
        .split_once("qemu-system-x86_64: ")
        .map_or(line, |(_, text)| text);
    Some(text.trim_start_matches("error: ").to_owned())
}

/// An unnamed file with the program as a boot sector.
fn boot_sector() -> std::io::Result<std::fs::File> {
    let mut sector = [0; 512];
    sector[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut file = tempfile::tempfile()?;
    file.write_all(&sector)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::exec::Tool;
    use std::os::unix::fs::PermissionsExt as _;

    /// What a probe finds when QEMU does what `script` says.
    fn probe_of(script: &str) -> Probe {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("qemu");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        probe(&Call::at(Tool::QemuX86, path)).expect("the script runs")
    }

    #[test]
    fn only_a_guest_that_ran_counts() {
        // The sector arrives on standard input, where QEMU reads its disk.
        let whole = "test \"$(wc -c)\" -eq 512 && exit 85";
        assert_eq!(probe_of(whole), Probe::Works);
        assert_eq!(
            probe_of("echo 'qemu-system-x86_64: failed to set MSR' >&2; exit 1"),
            Probe::Broken("failed to set MSR".into())
        );
        assert_eq!(probe_of("exit 0"), Probe::Broken("exit status: 0".into()));
    }

    #[test]
    fn warnings_are_not_the_reason() {
        let words =
            "qemu-system-x86_64: warning: no pni\nqemu-system-x86_64: error: failed to set MSR\n";
        assert_eq!(reason(words).as_deref(), Some("failed to set MSR"));
        assert_eq!(reason("qemu-system-x86_64: warning: x\n"), None);
    }
}
