//! Disks by other people's tools, and names that no image may take: what a
//! user tries with `consign convert`, `inspect` and `config disk`.
#![expect(
    clippy::disallowed_types,
    reason = "tests call foreign programs themselves"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use consign::image::content_root;
use consign::inspect;
use consign::units::MIB;

use super::image::disk;
use super::inspect::write_every;
use crate::support::{
    consign, consign_path, must_run, program, repo_root, run, temp_folder, text_of,
};

/// A raw disk that consign wrote.
fn raw(folder: &Path) -> std::path::PathBuf {
    write_every(&disk(24 * MIB), folder).swap_remove(0)
}

/// `consign convert FROM -O FORMAT -o TO` fails and says these words.
fn refuses(from: &Path, format: &str, to: &Path, words: &str) {
    let output = run(consign()
        .arg("convert")
        .arg(from)
        .args(["-O", format, "-o"])
        .arg(to));
    let said = text_of(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(words), "no `{words}` in {said}");
    assert!(said.contains("hint:"), "{said}");
}

#[test]
fn what_is_no_disk_as_it_is_is_named() {
    let folder = temp_folder();
    let raw = raw(folder.path());
    let at = |name: &str| folder.path().join(name);
    for (name, format, words) in [
        ("a.vdi", "vdi", "a VDI image"),
        ("a.qed", "qed", "a QED image"),
        ("a.hds", "parallels", "a Parallels image"),
    ] {
        let Some(mut qemu_img) = program("qemu-img", "qemu-utils") else {
            break;
        };
        must_run(
            qemu_img
                .args(["convert", "-f", "raw", "-O", format])
                .arg(&raw)
                .arg(at(name)),
        );
        refuses(&at(name), "qcow2", &at("out.qcow2"), words);
        // Who says so gets the bytes as they are.
        must_run(
            consign()
                .args(["convert", "--input-format", "raw", "-O", "raw"])
                .arg(at(name))
                .arg("-o")
                .arg(at("out.raw")),
        );
        let same = fs::read(at(name)).expect("read") == fs::read(at("out.raw")).expect("read");
        assert!(same, "{name}");
    }
    for (tool, package, words) in [
        ("gzip", "gzip", "packed with gzip"),
        ("xz", "xz-utils", "packed with xz"),
    ] {
        if let Some(mut pack) = program(tool, package) {
            let packed = must_run(pack.args(["-1", "-c"]).arg(&raw));
            fs::write(at(tool), packed.stdout).expect("write");
            refuses(&at(tool), "raw", &at("no.raw"), words);
        }
    }
    fs::write(at("empty.raw"), "").expect("write");
    refuses(&at("empty.raw"), "vhdx", &at("no.vhdx"), "has no bytes");
    assert!(!at("no.raw").exists() && !at("no.vhdx").exists());
}

#[test]
fn a_vhdx_that_was_cut_is_refused() {
    let folder = temp_folder();
    let raw = raw(folder.path());
    let at = |name: &str| folder.path().join(name);
    let mut made = vec![(at("disk.vhdx"), MIB / 2)];
    if let Some(mut qemu_img) = program("qemu-img", "qemu-utils") {
        must_run(
            qemu_img
                .args(["convert", "-f", "raw", "-O", "vhdx"])
                .args(["-o", "block_size=16M"])
                .arg(&raw)
                .arg(at("qemu.vhdx")),
        );
        // What the disk needs of the last block is the first half.
        made.push((at("qemu.vhdx"), 9 * MIB));
    }
    for (image, cut) in made {
        let file = fs::File::options().write(true).open(&image).expect("open");
        let size = file.metadata().expect("there").len();
        file.set_len(size - cut).expect("cut");
        let words = "a block is behind the end of the file";
        refuses(&image, "raw", &at("out.raw"), words);
    }
}

#[test]
fn tars_of_other_kinds_are_packages_too() {
    let folder = temp_folder();
    let raw = raw(folder.path());
    let at = |name: &str| folder.path().join(name);
    let root = content_root(inspect::open(&raw, None).expect("sound").disk.as_ref());
    let root = root.expect("readable");
    must_run(
        consign()
            .args(["convert", "-O", "ova", "--appliance"])
            .arg(repo_root().join("appliance.toml"))
            .arg(&raw)
            .arg("-o")
            .arg(at("own.ova")),
    );
    fs::create_dir(at("parts")).expect("make");
    let tar = || program("tar", "tar").expect("tar is everywhere");
    must_run(
        tar()
            .arg("-C")
            .arg(at("parts"))
            .arg("-xf")
            .arg(at("own.ova")),
    );
    let listed = must_run(tar().arg("-tf").arg(at("own.ova")));
    let listed = text_of(&listed);
    let names: Vec<&str> = listed.lines().collect();
    let pack = |name: &str, how: &[&str], names: &[String]| {
        must_run(
            tar()
                .arg("-C")
                .arg(at("parts"))
                .args(how)
                .arg("-cf")
                .arg(at(name))
                .args(names),
        );
        at(name)
    };
    let plain: Vec<String> = names.iter().map(ToString::to_string).collect();
    let dotted: Vec<String> = names.iter().map(|name| format!("./{name}")).collect();
    let backwards: Vec<String> = plain.iter().rev().cloned().collect();
    for (name, how, names) in [
        ("gnu.ova", ["--format=gnu"], &plain),
        // Its times have parts of seconds, which only an extension says.
        ("pax.ova", ["--format=pax"], &plain),
        ("dotted.ova", ["--format=ustar"], &dotted),
    ] {
        let image = inspect::open(&pack(name, &how, names), None);
        let image = image.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            content_root(image.disk.as_ref()).expect("read"),
            root,
            "{name}"
        );
    }
    let late = pack("late.ova", &["--format=ustar"], &backwards);
    refuses(&late, "raw", &at("no.raw"), "a tar archive");
}

#[test]
fn nothing_but_a_file_is_replaced() {
    let folder = temp_folder();
    let raw = raw(folder.path());
    let pipe = folder.path().join("pipe");
    must_run(
        program("mkfifo", "coreutils")
            .expect("everywhere")
            .arg(&pipe),
    );
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&pipe, &link).expect("a link");
    for target in [&pipe, &link] {
        let output = run(consign()
            .args(["convert", "-O", "raw", "-o"])
            .arg(target)
            .arg(&raw));
        let said = text_of(&output);
        assert!(
            !output.status.success() && said.contains("a pipe"),
            "{said}"
        );
    }
    let kind = pipe.symlink_metadata().expect("there").file_type();
    assert!(kind.is_fifo());
    assert!(link.symlink_metadata().expect("there").is_symlink());
}

#[test]
fn a_config_disk_never_replaces_what_it_is_made_from() {
    let folder = temp_folder();
    let site = folder.path().join("site.toml");
    let text = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n[system]\nhostname = \"a\"\n";
    fs::write(&site, text).expect("write");
    fs::create_dir(folder.path().join("roles")).expect("a folder");
    let output = run(consign()
        .current_dir(folder.path())
        .args(["config", "disk", "site.toml", "-o", "./site.toml"])
        .args(["--roles", "roles"]));
    let said = text_of(&output);
    assert!(
        !output.status.success() && said.contains("made from"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&site).expect("read"), text);
}

#[test]
fn names_that_are_no_utf_8_are_read_and_not_written() {
    let folder = temp_folder();
    let raw = raw(folder.path());
    let strange = folder.path().join(OsStr::from_bytes(b"n\xff.raw"));
    refuses(&raw, "raw", &strange, "is no UTF-8");
    fs::rename(&raw, &strange).expect("renamed");
    let mut place = strange.into_os_string();
    place.push(":9");
    let said = text_of(&run(consign().args(["inspect", "ls"]).arg(place)));
    assert!(!said.contains("cannot open"), "{said}");
}

#[test]
fn the_umask_says_who_reads_an_image() {
    let folder = temp_folder();
    let raw = raw(folder.path());
    for (umask, mode) in [("077", 0o600), ("027", 0o640), ("000", 0o644)] {
        let target = folder.path().join(umask);
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        must_run(
            Command::new("/bin/sh")
                .args(["-c", &script])
                .arg(consign_path())
                .args(["convert", "-O", "qcow2", "-o"])
                .arg(&target)
                .arg(&raw),
        );
        let found = target.metadata().expect("there").permissions().mode();
        assert_eq!(found & 0o7777, mode, "{umask}");
    }
}

#[test]
fn the_backup_table_is_read_where_the_primary_is_damaged() {
    let folder = temp_folder();
    let image = folder.path().join("disk.raw");
    let file = fs::File::create_new(&image).expect("create");
    file.set_len(32 * MIB).expect("grow");
    let Some(mut sgdisk) = program("sgdisk", "gdisk") else {
        return;
    };
    must_run(
        sgdisk
            .args([
                "-n",
                "1:2048:+4M",
                "-c",
                "1:one",
                "-n",
                "2:0:0",
                "-c",
                "2:two",
            ])
            .arg(&image),
    );
    let inspected = || text_of(&run(consign().arg("inspect").arg(&image)));
    let sound = inspected();
    assert!(
        sound.contains("one") && !sound.contains("GPT primary"),
        "{sound}"
    );
    for (at, length, words) in [
        // An entry, the header, and its first bytes.
        (1024, 128, "the table's sum is wrong"),
        (512 + 16, 4, "the header's sum is wrong"),
        (512, 512, "it is missing"),
    ] {
        let zeros = vec![0; length];
        file.write_all_at(&zeros, at).expect("damage");
        let said = inspected();
        for expected in ["GPT primary", words, "one", "two"] {
            assert!(said.contains(expected), "no `{expected}` in {said}");
        }
    }
    // Somebody took the whole disk for something else.
    file.write_all_at(&[0; 512], 0).expect("damage");
    let said = inspected();
    assert!(!said.contains("two"), "{said}");
}
