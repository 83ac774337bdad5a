//! `consign boot`: what it prints, its exit codes, and that it leaves no
//! guest behind.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::sector::{Then, boot_sector};
use crate::support::{TestFolder, consign, program, run, temp_folder};

fn image(folder: &TestFolder, text: &str) -> PathBuf {
    let path = folder.path().join("wiki.raw");
    std::fs::write(&path, boot_sector(text, Then::Stops)).expect("write");
    path
}

/// `None`, said loudly, without QEMU.
fn boot(image: &Path, more: &[&str]) -> Option<Output> {
    program("qemu-system-x86_64", "qemu-system-x86")?;
    let mut boot = consign();
    boot.args(["boot", "--headless", "--memory", "32MiB"]);
    Some(run(boot.args(more).arg(image)))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_ready_guest_ends_it_with_code_0_and_its_ports_are_printed() {
    let folder = temp_folder();
    let image = image(&folder, "VA state=ready fw=bios\r\n");
    let log = folder.path().join("console.log");
    let log_name = log.to_str().expect("UTF-8");
    let more = [
        "--wait-ready",
        "60",
        "--console-log",
        log_name,
        "--port-forward",
        "22",
    ];
    let Some(output) = boot(&image, &more) else {
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("127.0.0.1:"), "{said}");
    assert!(lines[0].ends_with(" -> port 22 of the guest"), "{said}");
    assert_eq!(lines[1], "VA state=ready fw=bios");
    assert!(lines[2].starts_with("ready after "), "{said}");
    let log = std::fs::read_to_string(&log).expect("the console log");
    assert!(log.contains("VA state=ready"), "{log}");
}

#[test]
fn a_folder_with_one_image_will_do() {
    let folder = temp_folder();
    image(&folder, "VA state=ready\r\n");
    let Some(output) = boot(folder.path(), &["--wait-ready", "60"]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_waiting_guest_ends_it_with_code_5_at_once() {
    let folder = temp_folder();
    let image = image(&folder, "site.toml:3:1: no\r\nVA state=waiting\r\n");
    let Some(output) = boot(&image, &["--wait-ready", "600"]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(5));
    let said = stderr(&output);
    assert!(said.contains("error[guest-not-in-service]"), "{said}");
    assert!(
        said.contains("site.toml:3:1: no"),
        "the console's end:\n{said}"
    );
}

#[test]
fn a_late_guest_ends_it_with_code_5() {
    let folder = temp_folder();
    let image = image(&folder, "hello\r\n");
    let Some(output) = boot(&image, &["--wait-ready", "2"]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(5));
    let said = stderr(&output);
    assert!(said.contains("error[guest-not-ready]"), "{said}");
    assert!(said.contains("its last line: hello"), "{said}");
}

#[test]
fn a_folder_without_an_image_is_named() {
    let folder = temp_folder();
    let Some(output) = boot(folder.path(), &[]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("error[machine-no-image]"), "{said}");
    assert!(said.contains("consign build"), "{said}");
}

/// Processes whose command line names `path`.
fn processes_of(path: &Path) -> usize {
    let path = path.to_str().expect("UTF-8").as_bytes().to_vec();
    consign::tree::list_folder(Path::new("/proc"))
        .expect("/proc")
        .into_iter()
        .filter_map(|entry| std::fs::read(entry.path.join("cmdline")).ok())
        .filter(|line| line.windows(path.len()).any(|part| part == path))
        .count()
}

#[test]
fn a_killed_consign_leaves_no_guest_behind() {
    if program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let folder = temp_folder();
    let image = image(&folder, "VA state=ready\r\n");
    let mut boot = consign();
    boot.args(["boot", "--headless", "--memory", "32MiB"])
        .arg(&image);
    boot.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = boot.spawn().expect("it starts");
    let stdout = child.stdout.take().expect("piped above");
    let ready = BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .any(|line| line.starts_with("VA state=ready"));
    assert!(ready, "the guest's line is printed");
    assert_eq!(processes_of(&image), 2, "consign and QEMU");
    child.kill().expect("killed");
    child.wait().expect("waited for");
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes_of(&image) > 0 {
        assert!(Instant::now() < deadline, "QEMU is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}
