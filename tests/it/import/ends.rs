//! Ends that are not the usual one: a signal, a start on another file, an
//! upgrade that fails halfway, a guest whose memory is saved.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::guests::{at, line, names, remove};
use super::{Small, fails, succeeds, virt_image};
use crate::support::libvirt::Libvirt;
use crate::support::{TestFolder, digest_of, program, run, search_path, temp_folder, text_of};

const PATIENCE: &str = "120";

/// `virt-image` with QEMU alone and this storage.
fn plain(words: &[&str], what: Option<&Path>, storage: &TestFolder) -> Command {
    let mut command = virt_image();
    command.args(words);
    if let Some(what) = what {
        command.arg(what);
    }
    command.args(["--connect", "none", "--storage"]);
    command.arg(storage.path());
    command
}

fn import(small: &Small, storage: &TestFolder, args: &[&str]) -> Command {
    let mut command = plain(&[], Some(&small.descriptor()), storage);
    command.args(["--virt-type", "qemu"]).args(args);
    command
}

/// Sends `signal` as soon as `path` is there; the exit code and what was said.
#[track_caller]
fn signalled(command: Command, path: &Path, signal: Signal) -> (Option<i32>, String) {
    held(command, path, |pid| {
        kill_process(pid, signal).expect("it is there");
    })
}

/// So much that its copy is not done before a signal comes.
fn large(small: Small) -> Small {
    let mut disk = fs::read(small.file("disk.raw")).expect("a disk");
    disk.resize(384 << 20, 0x55);
    fs::write(small.file("disk.raw"), &disk).expect("written");
    let sum = digest_of(&small.file("disk.raw")).hex();
    let text = fs::read_to_string(small.descriptor()).expect("read");
    let start = text.find("sha256\">").expect("a checksum") + 8;
    let old = text.get(start..start + 64).expect("its digits");
    small.edit(old, &sum);
    small
}

/// Stops the command as soon as `path` is there, has something done, and lets
/// it go on; the exit code and what was said.
#[track_caller]
fn held(mut command: Command, path: &Path, meanwhile: impl FnOnce(Pid)) -> (Option<i32>, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("it starts");
    let number = i32::try_from(child.id()).expect("a process's number");
    let pid = Pid::from_raw(number).expect("not 0");
    let deadline = Instant::now() + Duration::from_mins(1);
    while !path.exists() {
        assert!(Instant::now() < deadline, "no {}", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(pid, Signal::STOP).expect("it runs");
    meanwhile(pid);
    kill_process(pid, Signal::CONT).expect("it is there");
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), text_of(&output))
}

/// The same command, whose writes strace looks at: on a busy machine a copy
/// would be done before the test sees that it has begun. Held, it writes nothing.
fn slowly(command: &Command) -> Option<Command> {
    let mut strace = program("strace", "strace")?;
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]);
    strace.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    Some(strace)
}

#[test]
fn two_signals_take_an_import_into_libvirt_back() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (large(Small::new()), temp_folder());
    let before = libvirt.inventory();
    let command = at(&small, &libvirt, &storage, &["-n", "stopped"]);
    let record = storage.path().join("stopped/import.json");
    let (ended, said) = held(command, &record, |pid| {
        for signal in [Signal::TERM, Signal::INT] {
            kill_process(pid, signal).expect("it is there");
        }
    });
    assert!(matches!(ended, Some(130 | 143)), "{ended:?} {said}");
    assert!(said.contains("was taken back"), "{said}");
    assert_eq!(names(storage.path()), Vec::<String>::new());
    assert_eq!(libvirt.inventory(), before);
}

#[test]
fn an_upgrade_leaves_a_guest_that_was_started_meanwhile() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let newer = large(Small::saying("VA state=ready v=2\r\n", "2.0"));
    let quiet = ["-n", "meanwhile", "--noreboot"];
    succeeds(&mut at(&small, &libvirt, &storage, &quiet));
    let folder = storage.path().join("meanwhile");
    let before = libvirt.ask(&["dumpxml", "--inactive", "meanwhile"]);
    let mut upgrade = virt_image();
    upgrade.arg("upgrade").arg(newer.descriptor());
    upgrade.args(["-n", "meanwhile", "--connect", &libvirt.uri, "--storage"]);
    upgrade.arg(storage.path());
    let Some(upgrade) = slowly(&upgrade) else {
        return;
    };
    let (ended, said) = held(upgrade, &folder.join("system-2.raw"), |_| {
        libvirt.ask(&["start", "meanwhile"]);
    });
    assert_eq!(ended, Some(2), "{said}");
    assert!(said.contains("error[import-guest-running]"), "{said}");
    assert_eq!(libvirt.ask(&["domstate", "meanwhile"]), "running");
    let after = libvirt.ask(&["dumpxml", "--inactive", "meanwhile"]);
    assert_eq!(after, before);
    assert!(folder.join("system.raw").exists() && !folder.join("system-2.raw").exists());
    succeeds(&mut remove(&libvirt, "meanwhile", &storage, &["--force"]));
}

#[test]
fn a_signal_takes_an_import_back_at_once() {
    let (small, storage) = (large(Small::new()), temp_folder());
    for (signal, code, words) in [
        (Signal::INT, 130, "stopped by Ctrl-C"),
        (Signal::TERM, 143, "stopped by SIGTERM"),
    ] {
        let record = storage.path().join("small/import.json");
        let command = import(&small, &storage, &["--noreboot"]);
        let (ended, said) = signalled(command, &record, signal);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(said.contains("was taken back"), "{said}");
        assert_eq!(names(storage.path()), Vec::<String>::new());
    }
}

#[test]
fn a_second_signal_ends_what_has_nothing_to_take_back() {
    let (small, storage) = (large(Small::new()), temp_folder());
    let mut command = import(&small, &storage, &["--print-xml"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    let number = i32::try_from(child.id()).expect("a process's number");
    let pid = Pid::from_raw(number).expect("not 0");
    let disk = small.file("disk.raw");
    let files = PathBuf::from(format!("/proc/{number}/fd"));
    let reads_the_disk = || {
        let mut files = names(&files).into_iter().map(|file| files.join(file));
        files.any(|file| fs::read_link(file).is_ok_and(|file| file == disk))
    };
    let deadline = Instant::now() + Duration::from_mins(1);
    while !reads_the_disk() {
        assert!(Instant::now() < deadline, "it never reads its disk");
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(pid, Signal::STOP).expect("it runs");
    for signal in [Signal::TERM, Signal::INT] {
        kill_process(pid, signal).expect("it is there");
    }
    kill_process(pid, Signal::CONT).expect("it is there");
    let output = child.wait_with_output().expect("it ends");
    let said = text_of(&output);
    let code = output.status.code();
    assert!(matches!(code, Some(130 | 143)), "{code:?} {said}");
    // The first would have been answered by words.
    assert!(!said.contains("stopped by"), "{said}");
    assert_eq!(names(storage.path()), Vec::<String>::new());
}

#[test]
fn nobody_else_works_on_a_guest_that_is_imported() {
    let (small, storage) = (large(Small::new()), temp_folder());
    let record = storage.path().join("small/import.json");
    let command = import(&small, &storage, &["--noreboot"]);
    let (ended, said) = held(command, &record, |_| {
        let (slug, words) = ("import-busy", "`small`");
        let mut remove = plain(&["remove", "small"], None, &storage);
        fails(&mut remove, slug, 2, words, "wait for it");
        let mut upgrade = plain(&["upgrade"], Some(&small.descriptor()), &storage);
        fails(&mut upgrade, slug, 2, words, "wait for it");
        let mut again = import(&small, &storage, &["--noreboot", "--replace"]);
        fails(&mut again, slug, 2, words, "wait for it");
    });
    assert_eq!(ended, Some(0), "{said}");
    assert_eq!(names(storage.path()), ["small"]);
    succeeds(&mut plain(&["remove", "small"], None, &storage));
    assert_eq!(names(storage.path()), Vec::<String>::new());
}

#[test]
fn a_guest_that_runs_on_half_a_replacement_is_not_removed_from_under_it() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let before = libvirt.inventory();
    let quiet = ["-n", "half", "--noreboot"];
    succeeds(&mut at(&small, &libvirt, &storage, &quiet));
    // As a replacement leaves it that is killed when its disks are made.
    let folder = storage.path().join("half");
    let aside = storage.path().join(".half.consign-old");
    fs::rename(&folder, &aside).expect("renamed");
    fs::create_dir(&folder).expect("a folder");
    let record = fs::read_to_string(aside.join("import.json")).expect("a record");
    let partial = record.replace("\"is_whole\": true", "\"is_whole\": false");
    assert_ne!(record, partial);
    fs::write(folder.join("import.json"), partial).expect("written");
    for disk in ["system.raw", "data.raw"] {
        fs::copy(aside.join(disk), folder.join(disk)).expect("copied");
    }
    libvirt.ask(&["start", "half"]);
    let there = || (names(storage.path()), names(&folder), names(&aside));
    let as_it_was = there();
    let mut refused = remove(&libvirt, "half", &storage, &[]);
    fails(&mut refused, "import-guest-running", 2, "half", "--force");
    let mut refused = at(&small, &libvirt, &storage, &quiet);
    fails(&mut refused, "import-name-taken", 2, "half", "--replace");
    assert_eq!(there(), as_it_was);
    assert_eq!(libvirt.ask(&["domstate", "half"]), "running");
    succeeds(&mut remove(&libvirt, "half", &storage, &["--force"]));
    assert_eq!(names(storage.path()), Vec::<String>::new());
    assert_eq!(libvirt.inventory(), before);
}

#[test]
fn a_signal_while_waiting_leaves_the_guest_and_says_so() {
    if program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let (small, storage) = (Small::saying("nothing yet\r\n", "1.0"), temp_folder());
    let command = import(&small, &storage, &["--wait-ready", PATIENCE]);
    let log = storage.path().join("small/qemu.pid");
    let (ended, said) = signalled(command, &log, Signal::TERM);
    // It may come while the guest is started still; then nothing is left.
    match names(storage.path()).as_slice() {
        [] => assert!(said.contains("was taken back"), "{said}"),
        _ => assert!(said.contains("the guest `small` runs"), "{said}"),
    }
    assert_eq!(ended, Some(143), "{said}");
    let mut remove = plain(&["remove", "small", "--force"], None, &storage);
    run(&mut remove);
    assert_eq!(names(storage.path()), Vec::<String>::new());
}

#[test]
fn an_overlay_starts_only_on_the_file_that_was_imported() {
    if program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let (small, storage) = (Small::new(), temp_folder());
    let said = run(&mut import(
        &small,
        &storage,
        &["--noreboot", "--clone", "overlay"],
    ));
    let said = text_of(&said);
    assert!(
        said.contains("`virsh start` and autostart cannot"),
        "{said}"
    );
    let again = || plain(&["start", "small"], None, &storage);
    let said = succeeds(again().args(["--wait-ready", PATIENCE]));
    assert!(said.contains("VA state=ready"), "{said}");
    fails(&mut again(), "import-guest-running", 2, "small", "--force");
    succeeds(&mut plain(&["remove", "small", "--force"], None, &storage));

    succeeds(&mut import(
        &small,
        &storage,
        &["--noreboot", "--clone", "overlay"],
    ));
    let script = storage.path().join("small/start.sh");
    let mut disk = fs::read(small.file("disk.raw")).expect("a disk");
    disk[700] ^= 1;
    fs::write(small.file("disk.raw"), &disk).expect("written");
    let output = run(&mut Command::new(&script));
    assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
    assert!(
        text_of(&output).contains("disk.raw"),
        "{}",
        text_of(&output)
    );
    fails(&mut again(), "import-checksum", 3, "system", "fetch");
    fs::remove_file(small.file("disk.raw")).expect("removed");
    fails(&mut again(), "import-no-file", 2, "system", "whole folder");
    assert_eq!(run(&mut Command::new(&script)).status.code(), Some(3));
    succeeds(&mut plain(&["remove", "small"], None, &storage));
}

#[test]
fn a_guest_that_could_not_be_upgraded_runs_again() {
    if program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let (small, storage) = (Small::new(), temp_folder());
    let newer = Small::saying("VA state=ready v=2\r\n", "2.0");
    succeeds(&mut import(&small, &storage, &["--wait-ready", PATIENCE]));
    let folder = storage.path().join("small");
    let before = digest_of(&folder.join("system.raw"));
    // In the way of the script that an upgrade writes.
    fs::remove_file(folder.join("start.sh")).expect("removed");
    fs::create_dir(folder.join("start.sh")).expect("a folder");
    let upgrade = || {
        let mut command = plain(&["upgrade"], Some(&newer.descriptor()), &storage);
        command.arg("--force");
        command
    };
    let output = run(&mut upgrade());
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error[import-write]"), "{said}");
    let running = &mut plain(&["remove", "small"], None, &storage);
    fails(running, "import-guest-running", 2, "small", "--force");
    assert_eq!(digest_of(&folder.join("system.raw")), before);
    assert!(!folder.join("system-2.raw").exists());
    fs::remove_dir(folder.join("start.sh")).expect("removed");
    succeeds(&mut plain(&["remove", "small", "--force"], None, &storage));

    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    succeeds(&mut at(&small, &libvirt, &storage, &["-n", "kept"]));
    // Somebody took the disk away: there is nothing to put the new one in place of.
    libvirt.ask(&["detach-disk", "kept", "vda", "--config"]);
    let mut upgrade = virt_image();
    upgrade.arg("upgrade").arg(newer.descriptor());
    upgrade.args(["-n", "kept", "--force", "--connect", &libvirt.uri]);
    upgrade.arg("--storage").arg(storage.path());
    fails(&mut upgrade, "import-other-appliance", 2, "system", "name");
    assert_eq!(libvirt.ask(&["domstate", "kept"]), "running");
    succeeds(&mut remove(&libvirt, "kept", &storage, &["--force"]));
}

#[test]
fn what_was_saved_of_a_guest_does_not_meet_other_disks() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let (small, storage) = (Small::new(), temp_folder());
    let newer = Small::saying("VA state=ready v=2\r\n", "2.0");
    let before = libvirt.inventory();
    let waits = ["-n", "saved", "--wait-ready", PATIENCE];
    succeeds(&mut at(&small, &libvirt, &storage, &waits));
    libvirt.ask(&["managedsave", "saved"]);
    let upgrade = |args: &[&str]| {
        let mut command = virt_image();
        command.arg("upgrade").arg(newer.descriptor());
        command.args(["-n", "saved", "--connect", &libvirt.uri, "--storage"]);
        command.arg(storage.path()).args(args);
        command
    };
    let (slug, hint) = ("import-guest-saved", "start it and shut it down");
    fails(&mut upgrade(&[]), slug, 2, "saved", hint);
    let mut refused = remove(&libvirt, "saved", &storage, &[]);
    fails(&mut refused, slug, 2, "saved", hint);
    let is_saved = || line(&libvirt.ask(&["dominfo", "saved"]), "Managed save").contains("yes");
    assert!(is_saved());
    let force = ["--force", "--start", "--wait-ready", PATIENCE];
    let output = run(&mut upgrade(&force));
    let said = text_of(&output);
    assert!(output.status.success() && said.contains("v=2"), "{said}");
    assert!(
        said.contains("what was saved of `saved` was dropped"),
        "{said}"
    );
    assert!(!is_saved());

    // Historic: `--replace` ends the guest, however it is.
    libvirt.ask(&["managedsave", "saved"]);
    let again = ["-n", "saved", "--replace", "--wait-ready", PATIENCE];
    let output = run(&mut at(&small, &libvirt, &storage, &again));
    let said = text_of(&output);
    assert!(
        output.status.success() && said.contains("fw=bios"),
        "{said}"
    );
    assert!(said.contains("was dropped"), "{said}");
    libvirt.ask(&["managedsave", "saved"]);
    succeeds(&mut remove(&libvirt, "saved", &storage, &["--force"]));
    assert_eq!(libvirt.inventory(), before);
    assert_eq!(names(storage.path()), Vec::<String>::new());
}

/// A second boot descriptor, of a kernel beside the disk.
fn with_a_kernel(small: &Small, cmdline: &str, kernel: &str) {
    fs::write(small.file("kernel.bin"), kernel).expect("written");
    let entry = format!(
        "</boot>\n<boot type=\"hvm\">\n<guest><arch>x86_64</arch></guest>\n\
         <os><kernel>kernel.bin</kernel><cmdline>{cmdline}</cmdline></os>\n\
         <drive disk=\"system\"/>\n<drive disk=\"data\"/>\n</boot>"
    );
    small.edit("</boot>", &entry);
}

#[test]
fn an_upgrade_follows_the_boot_descriptor_that_was_chosen() {
    let (small, storage) = (Small::new(), temp_folder());
    let newer = Small::saying("VA state=ready v=2\r\n", "2.0");
    with_a_kernel(&small, "which=one", "kernel one");
    with_a_kernel(&newer, "which=two", "kernel two");
    succeeds(&mut import(
        &small,
        &storage,
        &["--noreboot", "--boot", "1"],
    ));
    let file = |name: &str| {
        let path: PathBuf = storage.path().join("small").join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    assert!(
        file("start.sh").contains("which=one"),
        "{}",
        file("start.sh")
    );
    let upgrade = |small: &Small| plain(&["upgrade"], Some(&small.descriptor()), &storage);
    succeeds(&mut upgrade(&newer));
    assert!(
        file("start.sh").contains("which=two"),
        "{}",
        file("start.sh")
    );
    assert_eq!(file("kernel"), "kernel two");

    // Its place in the list is nothing to go by when another kind has it.
    newer.edit(
        "<boot type=\"hvm\">\n      <guest>",
        "<boot type=\"xen\">\n      <guest>",
    );
    newer.edit("which=two", "which=three");
    succeeds(&mut upgrade(&newer));
    assert!(file("start.sh").contains("which=three"));

    let other = Small::saying("VA state=ready v=4\r\n", "4.0");
    other.edit("<boot type=\"hvm\">", "<boot type=\"xen\">");
    let (slug, words) = ("import-other-boot", "starts as hvm on x86_64");
    fails(&mut upgrade(&other), slug, 2, words, "another name");
    let plain_one = Small::saying("VA state=ready v=5\r\n", "5.0");
    let (slug, words) = ("import-other-appliance", "kernel");
    fails(&mut upgrade(&plain_one), slug, 2, words, "another name");
    succeeds(&mut plain(&["remove", "small"], None, &storage));
    assert_eq!(names(storage.path()), Vec::<String>::new());
}

/// A script of `--emit qemu`, but for the machine itself.
fn disks_of(mut emit: Command, storage: &TestFolder) -> String {
    let script = succeeds(&mut emit);
    let (disks, _) = script.split_once("exec qemu-system").expect("a machine");
    let path = storage.path().join("emitted.sh");
    fs::write(&path, disks).expect("written");
    let bin = crate::support::consign_path().parent().expect("its folder");
    let bin = std::iter::once(bin.to_owned());
    let paths = search_path();
    let paths = std::env::join_paths(bin.chain(std::env::split_paths(&paths)));
    let mut sh = Command::new("sh");
    sh.arg(&path);
    sh.env("PATH", paths.expect("a path"));
    succeeds(&mut sh);
    script
}

#[test]
fn an_emitted_script_makes_disks_of_the_size_that_was_asked_for() {
    let (small, storage) = (Small::new(), temp_folder());
    let info = |name: &str| {
        let mut info = program("qemu-img", "qemu-utils")?;
        info.args(["info", "--output=json"]);
        let path = storage.path().join("small").join(name);
        Some(succeeds(info.arg(path)))
    };
    let sized = ["--emit", "qemu", "--disk", "system:size=8MiB"];
    let overlay = [&sized[..], &["--clone", "overlay"]].concat();
    let script = disks_of(import(&small, &storage, &overlay), &storage);
    assert!(script.contains("sha256sum"), "{script}");
    let Some(told) = info("system.qcow2") else {
        return;
    };
    assert!(told.contains("\"virtual-size\": 8388608"), "{told}");

    let mut convert = program("qemu-img", "qemu-utils").expect("it was there");
    convert.args(["convert", "-O", "vmdk", "-o", "subformat=streamOptimized"]);
    succeeds(
        convert
            .arg(small.file("disk.raw"))
            .arg(small.file("disk.vmdk")),
    );
    small.edit(
        "file=\"disk.raw\" format=\"raw\"",
        "file=\"disk.vmdk\" format=\"vmdk\"",
    );
    let sum = digest_of(&small.file("disk.raw")).hex();
    small.edit(&sum, &digest_of(&small.file("disk.vmdk")).hex());
    disks_of(import(&small, &storage, &sized), &storage);
    let told = info("system.raw").expect("it was there");
    assert!(told.contains("\"virtual-size\": 8388608"), "{told}");
}

#[test]
fn an_emitted_script_makes_the_config_disk_itself() {
    let (small, storage) = (Small::new(), temp_folder());
    let site = small.file("site 1.toml");
    let text = crate::support::appliance::site(
        "emitted",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann",
        crate::support::appliance::Address::Dhcp,
    );
    fs::write(&site, text).expect("written");
    let emit = |tool: &str| {
        let mut command = import(&small, &storage, &["--emit", tool, "--config"]);
        command.arg(&site);
        command
    };
    disks_of(emit("qemu"), &storage);
    let disk = storage.path().join("small/config.raw");
    let mut mdir = program("mdir", "mtools").expect("mtools");
    mdir.env("MTOOLS_SKIP_CHECK", "1")
        .args(["-b", "-i"])
        .arg(&disk);
    let listed = succeeds(mdir.arg("::"));
    assert!(listed.contains("site.toml"), "{listed}");
    for tool in ["virt-install", "qm"] {
        let script = succeeds(&mut emit(tool));
        assert!(script.contains("consign config disk"), "{script}");
        assert!(script.contains("site 1.toml'"), "{script}");
        assert!(!script.contains("site.img"), "{script}");
    }
    let shown = succeeds(import(&small, &storage, &["--dry-run", "--config"]).arg(&site));
    assert!(
        shown.contains("made of") && !shown.contains("site.img"),
        "{shown}"
    );
}
