//! The readers of disks, against images of our own and of other people.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use consign::digest::ContentRoot;
use consign::image::{ImageFormat, ImageSpec, content_root, write_all};
use consign::inspect::{self, Entry, Kind};
use consign::report::Silent;
use consign::sparse::SparseSource;
use consign::units::{GIB, MIB};

use super::image::{Noise, disk, disk_formats, with_threads};
use crate::support::{
    consign, consign_path, is_root, must_run, note, program, run, temp_folder, text_of,
};

/// Every format, written by us.
pub(super) fn write_every(disk: &dyn SparseSource, folder: &Path) -> Vec<PathBuf> {
    let specs: Vec<ImageSpec> = disk_formats()
        .iter()
        .map(|format| ImageSpec::new("disk", *format))
        .collect();
    let made = write_all(&specs, disk, folder, &with_threads(2), &Silent).expect("written");
    made.into_iter().map(|made| made.path).collect()
}

fn root_in(path: &Path) -> ContentRoot {
    let image = inspect::open(path, None).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    content_root(image.disk.as_ref()).expect("readable")
}

#[test]
fn every_container_that_we_write_is_read_back() {
    let folder = temp_folder();
    let disk = disk(40 * MIB + 512);
    let root = content_root(&disk).expect("readable");
    for (path, format) in write_every(&disk, folder.path()).iter().zip(disk_formats()) {
        let image = inspect::open(path, None).expect("sound");
        assert_eq!(image.format, *format);
        assert_eq!(image.disk.size(), disk.size(), "{format}");
        assert_eq!(
            content_root(image.disk.as_ref()).expect("readable"),
            root,
            "{format}"
        );
        let mut piece = vec![0; 300_000];
        let mut wanted = vec![0; 300_000];
        image
            .disk
            .read_exact_at(&mut piece, 3 * MIB - 77)
            .expect("inside");
        disk.read_exact_at(&mut wanted, 3 * MIB - 77)
            .expect("inside");
        assert!(piece == wanted, "{format}");
        assert!(image.disk.read_exact_at(&mut piece, 40 * MIB).is_err());
    }
}

#[test]
fn containers_of_qemu_are_read() {
    let folder = temp_folder();
    let disk = disk(24 * MIB);
    let raw = &write_every(&disk, folder.path())[0];
    let root = content_root(&disk).expect("readable");
    let kinds: [(&str, &[&str]); 13] = [
        ("a.qcow2", &["-O", "qcow2"]),
        ("b.qcow2", &["-O", "qcow2", "-c"]),
        (
            "c.qcow2",
            &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        ),
        ("d.qcow2", &["-O", "qcow2", "-o", "cluster_size=512"]),
        ("e.qcow2", &["-O", "qcow2", "-c", "-o", "cluster_size=2M"]),
        ("f.qcow2", &["-O", "qcow2", "-o", "compat=0.10"]),
        (
            "g.qcow2",
            &[
                "-O",
                "qcow2",
                "-o",
                "preallocation=metadata,refcount_bits=1",
            ],
        ),
        ("h.vmdk", &["-O", "vmdk"]),
        ("i.vmdk", &["-O", "vmdk", "-o", "subformat=streamOptimized"]),
        ("j.vmdk", &["-O", "vmdk", "-o", "zeroed_grain=on"]),
        ("k.vhdx", &["-O", "vhdx"]),
        ("l.vhdx", &["-O", "vhdx", "-o", "subformat=fixed"]),
        (
            "m.vhd",
            &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
        ),
    ];
    for (name, args) in kinds {
        let Some(mut convert) = program("qemu-img", "qemu-utils") else {
            return;
        };
        let path = folder.path().join(name);
        convert.args(["convert", "-f", "raw"]).args(args);
        must_run(convert.arg(raw).arg(&path));
        assert_eq!(root_in(&path), root, "{name}");
    }
}

#[test]
fn convert_changes_the_container_and_nothing_else() {
    let folder = temp_folder();
    let disk = disk(24 * MIB);
    let paths = write_every(&disk, folder.path());
    let root = content_root(&disk).expect("readable");
    for from in &paths {
        for format in disk_formats() {
            let to = folder.path().join(format!("to.{format}"));
            let mut command = consign();
            command
                .arg("convert")
                .arg(from)
                .args(["-O", format.name(), "-o"]);
            let output = must_run(command.arg(&to));
            assert!(
                text_of(&output).contains(&root.to_string()),
                "{}",
                text_of(&output)
            );
            let ours = folder.path().join(format!("disk.{format}"));
            if *format != ImageFormat::Vmdk {
                assert!(fs::read(&to).expect("read") == fs::read(&ours).expect("read"));
            }
            assert_eq!(root_in(&to), root);
        }
    }
}

/// What a test put into a folder, by path.
type Wanted = BTreeMap<String, Vec<u8>>;

fn make_folder(folder: &Path) -> Wanted {
    let mut wanted = Wanted::new();
    let mut put = |path: String, bytes: Vec<u8>| {
        let target = folder.join(&path);
        fs::create_dir_all(target.parent().expect("a parent")).expect("folders");
        fs::write(&target, &bytes).expect("write");
        wanted.insert(path, bytes);
    };
    put("etc/hostname".into(), b"wiki\n".to_vec());
    put("empty".into(), Vec::new());
    put("A long name with spaces.txt".into(), vec![7; 100_000]);
    for number in 0..700 {
        put(format!("many/file-{number:04}"), vec![b'a'; number]);
    }
    wanted
}

fn read_all(volume: &inspect::Volume, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    volume
        .read(path, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    bytes
}

/// An ext4 volume of a folder, by mke2fs.
pub(super) fn mke2fs(folder: &Path, volume: &Path, options: &[&str]) -> Option<()> {
    let mut command = program("mke2fs", "e2fsprogs")?;
    command
        .args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"])
        .arg(folder);
    command.args(options).arg(volume).arg("24M");
    must_run(&mut command);
    Some(())
}

/// A FAT volume with the same files, by mkfs.vfat and mcopy.
pub(super) fn mkfs_vfat(folder: &Path, volume: &Path, kind: &str, mib: u64) -> Option<()> {
    let file = fs::File::create(volume).expect("create");
    file.set_len(mib << 20).expect("grow");
    let mut mkfs = program("mkfs.vfat", "dosfstools")?;
    mkfs.args(["-F", kind, "-n", "VACONFIG", "-i", "12ab34cd"]);
    must_run(mkfs.arg(volume));
    let mut names = Vec::new();
    for entry in consign::tree::list_folder(folder).expect("a folder") {
        names.push(folder.join(&entry.name));
    }
    let mut mcopy = program("mcopy", "mtools")?;
    must_run(
        mcopy
            .args(["-s", "-Q", "-i"])
            .arg(volume)
            .args(names)
            .arg("::/"),
    );
    Some(())
}

#[test]
fn volumes_of_mke2fs_are_read() {
    let folder = temp_folder();
    let source = folder.path().join("tree");
    let wanted = make_folder(&source);
    std::os::unix::fs::symlink("etc/hostname", source.join("short")).expect("link");
    std::os::unix::fs::symlink(format!("/{}etc", "./".repeat(60)), source.join("long"))
        .expect("link");
    fs::hard_link(source.join("etc/hostname"), source.join("etc/second")).expect("link");
    for options in [
        &["-O", "metadata_csum"][..],
        &["-O", "^metadata_csum,^64bit", "-b", "1024"],
        &["-O", "metadata_csum,metadata_csum_seed", "-I", "128"],
        &["-O", "^has_journal,^flex_bg,^dir_index", "-b", "4096"],
    ] {
        let path = folder.path().join("volume.ext4");
        let _old = fs::remove_file(&path);
        if mke2fs(&source, &path, options).is_none() {
            return;
        }
        let image = inspect::open(&path, None).expect("raw");
        let volume = image.volume(None).expect("ext4");
        for (path, bytes) in &wanted {
            assert!(read_all(&volume, path) == *bytes, "{path} with {options:?}");
        }
        assert_eq!(read_all(&volume, "long/hostname"), b"wiki\n");
        assert_eq!(volume.list("/many").expect("a folder").len(), 700);
        let etc = volume.list("etc").expect("a folder");
        assert!(etc.iter().all(|entry| entry.links == 2 && entry.size == 5));
        let root = volume.list("/").expect("a folder");
        let link = root
            .iter()
            .find(|entry| entry.name == b"short")
            .expect("there");
        assert_eq!(link.kind, Kind::Symlink(b"etc/hostname".to_vec()));
        assert_eq!(
            volume.list("/nothing").expect_err("absent").slug(),
            "inspect-no-path"
        );
        let error = volume.read("/etc", &mut |_| Ok(())).expect_err("a folder");
        assert_eq!(error.to_string(), "`/etc` is not a file");
    }
}

#[test]
fn devices_owners_and_attributes_are_read() {
    if !is_root() {
        return note("devices need root");
    }
    let folder = temp_folder();
    let source = folder.path().join("tree");
    fs::create_dir(&source).expect("make");
    let script = "mknod null c 1 3; mknod big b 259 70000; mkfifo pipe; mkdir -m 1777 tmp; \
                  printf x > suid; chown 70000:80000 suid; chmod 6755 suid; \
                  setfattr -n user.one -v 1 suid && setfattr -n user.two -v $(printf %0900d 2) suid \
                  && setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 suid";
    let Some(mut sh) = program("sh", "dash") else {
        return;
    };
    if !run(sh.args(["-ec", script]).current_dir(&source))
        .status
        .success()
    {
        return note("no setfattr, or this file system keeps no attributes");
    }
    let path = folder.path().join("volume.ext4");
    if mke2fs(&source, &path, &[]).is_none() {
        return;
    }
    let volume = inspect::open(&path, None)
        .expect("raw")
        .volume(None)
        .expect("ext4");
    let by_name: BTreeMap<Vec<u8>, Entry> = volume
        .list("/")
        .expect("a folder")
        .into_iter()
        .map(|entry| (entry.name.clone(), entry))
        .collect();
    assert_eq!(by_name[&b"null"[..]].kind, Kind::CharDevice(1, 3));
    assert_eq!(by_name[&b"big"[..]].kind, Kind::BlockDevice(259, 70_000));
    assert_eq!(by_name[&b"pipe"[..]].kind, Kind::Fifo);
    assert_eq!(by_name[&b"tmp"[..]].mode, 0o1777);
    let suid = &by_name[&b"suid"[..]];
    assert_eq!((suid.mode, suid.uid, suid.gid), (0o6755, 70_000, 80_000));
    let xattrs: BTreeMap<_, _> = suid.xattrs.iter().cloned().collect();
    assert_eq!(xattrs[&b"user.one"[..]], b"1");
    assert_eq!(xattrs[&b"user.two"[..]].len(), 900);
    assert_eq!(xattrs[&b"security.capability"[..]].len(), 20);
}

#[test]
fn volumes_of_mkfs_vfat_are_read() {
    let folder = temp_folder();
    let source = folder.path().join("tree");
    let wanted = make_folder(&source);
    for (kind, mib) in [("12", 6), ("16", 24), ("32", 40)] {
        let path = folder.path().join("volume.fat");
        if mkfs_vfat(&source, &path, kind, mib).is_none() {
            return;
        }
        let image = inspect::open(&path, None).expect("raw");
        let volume = image.volume(None).expect("FAT");
        for (path, bytes) in &wanted {
            assert!(read_all(&volume, path) == *bytes, "{path} on FAT{kind}");
        }
        assert_eq!(volume.list("/many").expect("a folder").len(), 700);
        let mut command = consign();
        command.args(["inspect", "--no-root"]);
        let said = text_of(&must_run(command.arg(&path)));
        assert!(
            said.contains(&format!("FAT{kind} `VACONFIG` 12AB-34CD, ")),
            "{said}"
        );
    }
}

fn inspect_json(path: &Path) -> serde_json::Value {
    let mut command = consign();
    command.args(["inspect", "--format", "json"]);
    let output: Output = must_run(command.arg(path));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A raw disk with an empty partition and one of ext4, by sgdisk and mke2fs.
pub(crate) fn a_whole_disk(folder: &Path) -> Option<PathBuf> {
    let source = folder.join("tree");
    make_folder(&source);
    let (ext4, raw) = (folder.join("volume.ext4"), folder.join("disk.raw"));
    mke2fs(
        &source,
        &ext4,
        &["-U", "01234567-89ab-4cde-8f01-23456789abcd"],
    )?;
    fs::File::create(&raw)
        .and_then(|file| file.set_len(40 << 20))
        .expect("a disk");
    let mut sgdisk = program("sgdisk", "gdisk")?;
    sgdisk.args([
        "-n1:2048:4095",
        "-c1:bios",
        "-t1:ef02",
        "-n2:4096:+24M",
        "-c2:root-a",
    ]);
    must_run(sgdisk.arg(&raw));
    let mut dd = program("dd", "coreutils")?;
    dd.args(["bs=1M", "seek=2", "conv=notrunc", "status=none"]);
    dd.arg(format!("if={}", ext4.display()))
        .arg(format!("of={}", raw.display()));
    must_run(&mut dd);
    Some(raw)
}

#[test]
fn a_whole_disk_is_shown_and_listed() {
    let folder = temp_folder();
    let Some(raw) = a_whole_disk(folder.path()) else {
        return;
    };
    let qcow2 = folder.path().join("disk.qcow2");
    let mut convert = consign();
    convert.arg("convert").arg(&raw).args(["-O", "qcow2", "-o"]);
    must_run(convert.arg(&qcow2));
    let (one, other) = (inspect_json(&raw), inspect_json(&qcow2));
    assert_eq!(one["content_root"], other["content_root"]);
    assert_eq!(one["partitions"], other["partitions"]);
    let partitions = &other["partitions"];
    assert_eq!(partitions[0]["name"], "bios");
    assert_eq!(partitions[0]["file_system"]["kind"], "empty");
    assert_eq!(partitions[1]["file_system"]["kind"], "ext4");
    assert_eq!(partitions[1]["file_system"]["label"], "root");
    assert_eq!(
        partitions[1]["file_system"]["id"],
        "01234567-89ab-4cde-8f01-23456789abcd"
    );
    let mut ls = consign();
    ls.args(["inspect", "ls"]);
    let said = text_of(&must_run(
        ls.arg(format!("{}:root-a", qcow2.display())).arg("/etc"),
    ));
    assert!(
        said.ends_with(" hostname\n") && said.starts_with("-rw-"),
        "{said}"
    );
    let mut cat = consign();
    cat.args(["inspect", "cat"]);
    let said = must_run(
        cat.arg(format!("{}:2", qcow2.display()))
            .arg("etc/hostname"),
    );
    assert_eq!(said.stdout, b"wiki\n");
    let mut which = consign();
    let output = run(which.args(["inspect", "ls"]).arg(&qcow2));
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("error[inspect-which-partition]"));
}

/// The table of what a disk of 4 GiB of content takes is made by `ci/bench large`.
#[test]
fn the_memory_of_no_container_follows_the_size_of_the_disk() {
    const PLACES: u64 = 200;
    let folder = temp_folder();
    let raw = folder.path().join("large.raw");
    let file = fs::File::create(&raw).expect("create");
    file.set_len(64 * GIB).expect("grow");
    let mut noise = Noise(7);
    for place in 0..PLACES {
        let text = noise.text(50_000);
        file.write_all_at(&text, place * 64 * GIB / PLACES)
            .expect("write");
    }
    let bounded = |args: &[&str]| {
        let mut command = program("prlimit", "util-linux")?;
        command.arg("--data=268435456").arg(consign_path());
        command.env_remove("CI").args(args);
        Some(must_run(&mut command))
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut roots = BTreeMap::new();
    for format in disk_formats() {
        let to = folder.path().join(format!("to.{format}"));
        let (from, to) = (text(&raw), text(&to));
        let args = ["convert", &from, "-O", format.name(), "-o", &to];
        if bounded(&args).is_none() {
            return;
        }
        let shown = bounded(&["inspect", "--format", "json", &to]).expect("it ran before");
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        let root = shown["content_root"].as_str().expect("a root").to_owned();
        roots.entry(root).or_insert_with(Vec::new).push(format);
        fs::remove_file(&to).expect("remove");
    }
    assert_eq!(roots.len(), 1, "{roots:?}");
}

/// Frames as long as the reader takes, by many threads: each is unpacked once,
/// and only as many at a time as there is room for.
#[test]
fn the_memory_of_long_frames_does_not_follow_the_threads() {
    const FRAME: usize = 16 << 20;
    const FRAMES: u32 = 12;
    let folder = temp_folder();
    let (from, to) = (
        folder.path().join("disk.raw.zst"),
        folder.path().join("to.raw"),
    );
    let mut frame = vec![0; FRAME];
    for place in frame.chunks_mut(1 << 19) {
        place[..1000].fill(7);
    }
    let packed = zstd::encode_all(&frame[..], 1).expect("memory");
    let mut file = packed.repeat(FRAMES as usize);
    let numbers = [u32::try_from(packed.len()).expect("short"), 16 << 20].repeat(FRAMES as usize);
    let table = numbers.iter().flat_map(|n| n.to_le_bytes());
    file.extend(
        [0x184d_2a5e_u32, FRAMES * 8 + 9]
            .map(u32::to_le_bytes)
            .concat(),
    );
    file.extend(table.chain(FRAMES.to_le_bytes()).chain([0]));
    file.extend(0x8f92_eab1_u32.to_le_bytes());
    fs::write(&from, file).expect("write");
    let Some(mut command) = program("prlimit", "util-linux") else {
        return;
    };
    command.args(["--data=268435456"]).arg(consign_path());
    command.env_remove("CI").arg("convert").arg(&from);
    must_run(command.args(["--jobs", "32", "-O", "raw", "-o"]).arg(&to));
    let made = fs::read(&to).expect("read");
    assert_eq!(made.len(), FRAME * FRAMES as usize);
    assert!(made.chunks(FRAME).all(|made| made == frame));
}

#[test]
fn a_full_disk_leaves_no_converted_file() {
    if !is_root() {
        return note("a small tmpfs needs root");
    }
    let folder = temp_folder();
    let paths = write_every(&disk(24 * MIB), folder.path());
    let small = folder.path().join("small");
    fs::create_dir(&small).expect("make");
    let Some(mut mount) = program("mount", "mount") else {
        return;
    };
    mount
        .args(["-t", "tmpfs", "-o", "size=200k", "tmpfs"])
        .arg(&small);
    if !mount.status().is_ok_and(|status| status.success()) {
        return note("this root may not mount a tmpfs");
    }
    let outputs: Vec<Output> = disk_formats()
        .iter()
        .map(|format| {
            let mut command = consign();
            command
                .arg("convert")
                .arg(&paths[2])
                .args(["-O", format.name(), "-o"]);
            run(command.arg(small.join("disk")))
        })
        .collect();
    let left = consign::tree::list_folder(&small).expect("a folder").len();
    must_run(
        program("umount", "mount")
            .expect("beside mount")
            .arg(&small),
    );
    for output in outputs {
        assert_eq!(output.status.code(), Some(1));
        let said = text_of(&output);
        assert!(
            said.contains("hint: free space on the file system of"),
            "{said}"
        );
    }
    assert_eq!(left, 0);
}
