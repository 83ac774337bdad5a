//! OVA packages, judged by virt-v2v, tar, sha256sum, qemu-img and openssl.
#![expect(
    clippy::disallowed_types,
    reason = "tests call foreign programs themselves"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use consign::descriptor::ovf::{ManifestSum, Package, Seal};
use consign::descriptor::{Firmware, Machine};
use consign::image::{Envelope, ImageFormat, ImageSpec, WriteOptions, content_root, write_all};
use consign::inspect;
use consign::release::certificate::PackageSigner;
use consign::report::Silent;
use consign::sparse::SparseSource;
use consign::units::{ByteSize, MIB};

use super::descriptor::machine;
use super::image::{digest, disk, with_threads};
use crate::support::{
    Checker, consign, must_run, program, repo_root, run, search_path, temp_folder, text_of,
};

/// `wiki.ova` and `wiki.raw` of the disk.
fn write(
    disk: &dyn SparseSource,
    machine: &Machine,
    sum: ManifestSum,
    seal: Option<&dyn Seal>,
    options: &WriteOptions<'_>,
    folder: &Path,
) -> PathBuf {
    let package = Package::new(machine, sum, seal).expect("a package");
    let options = WriteOptions {
        envelope: Some(&package as &dyn Envelope),
        ..options.clone()
    };
    let specs = [ImageFormat::Raw, ImageFormat::Ova].map(|it| ImageSpec::new("wiki", it));
    let made = write_all(&specs, disk, folder, &options, &Silent).expect("written");
    assert_eq!(made[0].content_root, made[1].content_root);
    made[1].path.clone()
}

fn small(folder: &Path) -> PathBuf {
    of_machine(&machine(), folder)
}

/// The package of a small disk and this machine.
pub(super) fn of_machine(machine: &Machine, folder: &Path) -> PathBuf {
    let disk = disk(24 * MIB);
    write(
        &disk,
        machine,
        ManifestSum::Sha256,
        None,
        &with_threads(2),
        folder,
    )
}

fn tar(args: &[&str], package: &Path) -> Command {
    let mut tar = program("tar", "tar").expect("tar is everywhere");
    tar.args(args).arg(package);
    tar
}

fn unpack(package: &Path) -> PathBuf {
    let folder = package.with_extension("unpacked");
    fs::create_dir(&folder).expect("make");
    must_run(tar(&["-C"], &folder).arg("-xf").arg(package));
    folder
}

#[test]
fn the_description_comes_first_and_nothing_varies() {
    let folder = temp_folder();
    let ova = small(folder.path());
    let listed = text_of(&must_run(&mut tar(&["--numeric-owner", "-tvf"], &ova)));
    let rows: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[5]).collect();
    assert_eq!(
        names,
        ["wiki.ovf", "wiki.mf", "wiki.vmdk", "wiki-data.vmdk"]
    );
    for row in &rows {
        assert_eq!((row[0], row[1]), ("-rw-r--r--", "0/0"), "{listed}");
        assert_eq!((row[3], row[4]), ("1970-01-01", "00:00"), "{listed}");
    }
    for threads in [1, 7] {
        let other = temp_folder();
        let (disk, machine) = (disk(24 * MIB), machine());
        let options = with_threads(threads);
        let again = write(
            &disk,
            &machine,
            ManifestSum::Sha256,
            None,
            &options,
            other.path(),
        );
        assert_eq!(digest(&again), digest(&ova));
    }
}

#[test]
fn the_description_says_how_long_its_files_are() {
    let folder = temp_folder();
    let unpacked = unpack(&small(folder.path()));
    Checker::Xmllint.accepts(&unpacked.join("wiki.ovf"));
    let text = fs::read_to_string(unpacked.join("wiki.ovf")).expect("read");
    let mut seen = 0;
    for line in text.lines().filter(|line| line.contains("<File ")) {
        let value = |name: &str| {
            let start = line.find(name).expect("an attribute") + name.len() + 2;
            let rest = &line[start..];
            &rest[..rest.find('"').expect("its end")]
        };
        let length = fs::metadata(unpacked.join(value("ovf:href")))
            .expect("there")
            .len();
        assert_eq!(value("ovf:size"), length.to_string());
        seen += 1;
    }
    assert_eq!(seen, 2);
    // Lengths and sums change with every change of the packing.
    let stable: String = text
        .lines()
        .filter(|line| !line.contains("<File "))
        .fold(String::new(), |all, line| all + line + "\n");
    crate::support::golden("descriptor/wiki.ovf", &stable);
}

/// The manifest in the form of `sha256sum` and `sha1sum`, and their opinion.
fn sums_hold(folder: &Path, sum: ManifestSum) -> bool {
    let manifest = fs::read_to_string(folder.join("wiki.mf")).expect("read");
    let lines: Vec<String> = manifest
        .lines()
        .map(|line| {
            let line = line.strip_prefix(sum.name()).expect("the algorithm");
            let (name, hex) = line[1..].split_once(")= ").expect("a name and a sum");
            format!("{hex}  {name}\n")
        })
        .collect();
    assert_eq!(lines.len(), 3, "{manifest}");
    fs::write(folder.join("SUMS"), lines.concat()).expect("write");
    let tool = match sum {
        ManifestSum::Sha256 => "sha256sum",
        ManifestSum::Sha1 => "sha1sum",
    };
    let mut command = program(tool, "coreutils").expect("everywhere");
    run(command
        .current_dir(folder)
        .args(["--check", "--strict", "SUMS"]))
    .status
    .success()
}

#[test]
fn the_manifest_holds_by_either_algorithm() {
    for sum in [ManifestSum::Sha256, ManifestSum::Sha1] {
        let folder = temp_folder();
        let (disk, machine) = (disk(12 * MIB), machine());
        let ova = write(&disk, &machine, sum, None, &with_threads(2), folder.path());
        let unpacked = unpack(&ova);
        assert!(sums_hold(&unpacked, sum));
        fs::write(unpacked.join("wiki-data.vmdk"), "other").expect("write");
        assert!(!sums_hold(&unpacked, sum));
    }
}

#[test]
fn the_disks_are_those_of_the_machine() {
    let folder = temp_folder();
    let unpacked = unpack(&small(folder.path()));
    let raw = folder.path().join("wiki.raw");
    Checker::QemuImgCompare.accepts_all(&[&raw, &unpacked.join("wiki.vmdk")]);
    let empty = folder.path().join("empty.raw");
    let file = fs::File::create(&empty).expect("create");
    file.set_len(8 << 30).expect("sparse");
    for name in ["wiki.vmdk", "wiki-data.vmdk"] {
        Checker::QemuImgCheckOther.accepts(&unpacked.join(name));
        Checker::VmdkInfo.accepts(&unpacked.join(name));
    }
    Checker::QemuImgCompare.accepts_all(&[&empty, &unpacked.join("wiki-data.vmdk")]);
    Checker::QemuImgCompare.rejects_all(&[&raw, &unpacked.join("wiki-data.vmdk")]);
}

fn virt_v2v(ova: &Path) -> Option<(bool, String)> {
    let mut command = program("virt-v2v", "virt-v2v")?;
    let output = run(command.args(["-i", "ova"]).arg(ova).arg("--print-source"));
    Some((output.status.success(), text_of(&output)))
}

#[test]
fn virt_v2v_reads_the_machine_and_refuses_a_changed_disk() {
    let folder = temp_folder();
    for (firmware, word) in [
        (Firmware::Bios, "bios"),
        (Firmware::Uefi, "uefi"),
        (Firmware::UefiSecure, "uefi"),
    ] {
        let machine = Machine {
            firmware: vec![firmware],
            ..machine()
        };
        let disk = disk(12 * MIB);
        let sum = ManifestSum::Sha256;
        let ova = write(&disk, &machine, sum, None, &with_threads(2), folder.path());
        let Some((is_read, text)) = virt_v2v(&ova) else {
            return;
        };
        assert!(is_read, "{text}");
        let facts: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for wanted in [
            "source name: wiki",
            "memory: 1073741824 (bytes)",
            "nr vCPUs: 2",
            &format!("firmware: {word}"),
        ] {
            assert!(
                facts.iter().any(|fact| fact == wanted),
                "no {wanted} in\n{text}"
            );
        }
        let count = |word: &str| facts.iter().filter(|fact| fact.contains(word)).count();
        assert_eq!(count("\"VM Network\" [e1000]"), 2, "{text}");
        assert_eq!(count("[scsi]"), 2, "{text}");
        assert!(!text.contains("warning"), "{text}");
    }
    let ova = folder.path().join("wiki.ova");
    let mut bytes = fs::read(&ova).expect("read");
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    fs::write(&ova, bytes).expect("write");
    let (is_read, text) = virt_v2v(&ova).expect("it is there");
    assert!(!is_read && text.contains("manifest"), "{text}");
}

#[test]
fn our_own_reader_finds_the_disk_and_refuses_damage() {
    let folder = temp_folder();
    let ova = small(folder.path());
    let image = inspect::open(&ova, None).expect("a package");
    assert_eq!(image.format, ImageFormat::Ova);
    let root = content_root(&disk(24 * MIB)).expect("readable");
    assert_eq!(content_root(image.disk.as_ref()).expect("readable"), root);
    let sound = fs::read(&ova).expect("read");
    let vmdk = sound
        .windows(9)
        .position(|it| it == b"wiki.vmdk")
        .expect("a place");
    let second = |bytes: &[u8]| {
        let length = std::str::from_utf8(&bytes[124..135]).expect("digits");
        let length = usize::from_str_radix(length, 8).expect("octal");
        512 + length.next_multiple_of(512)
    };
    let manifest = second(&sound);
    let disk_at = sound
        .windows(10)
        .rposition(|it| it == b"wiki.vmdk\0")
        .expect("its header");
    assert!(vmdk < disk_at);
    let path = folder.path().join("hostile.ova");
    let refused = |name: &str, bytes: &[u8], wanted: &str| {
        fs::write(&path, bytes).expect("write");
        let error = inspect::open(&path, Some(ImageFormat::Ova)).expect_err(name);
        assert!(error.to_string().contains(wanted), "{name}: {error}");
    };
    let with = |at: usize, new: &[u8]| {
        let mut bytes = sound.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    refused("a name that changed", &with(manifest, b"x"), "another sum");
    refused("no tar", &with(257, b"other"), "another sum");
    refused("a cut package", &sound[..disk_at + 2048], "cut off");
    refused("nothing", b"", "cut off");
    refused("half a header", &sound[..300], "cut off");
    refused("another order", &sound[manifest..], "first");
    refused("no disk", &sound[..disk_at], "cut off");
    let mut without = sound[..disk_at].to_vec();
    without.resize(disk_at + 1024, 0);
    refused("no disk, but an end", &without, "without a VMDK");
    refused("another disk", &with(disk_at + 512, b"KDMW"), "signature");
    // An honest header whose file is longer than the package.
    let mut long = sound.clone();
    long[disk_at + 124..disk_at + 135].copy_from_slice(b"77777777777");
    let sum: u32 = long[disk_at..disk_at + 512]
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    long[disk_at + 148..disk_at + 154].copy_from_slice(format!("{sum:06o}").as_bytes());
    refused("a file without end", &long, "cut off");
}

/// A key and its certificate, made by openssl.
fn authority(folder: &Path, name: &str, kind: &[&str]) -> Option<(PathBuf, PathBuf)> {
    let (key, certificate) = (
        folder.join(format!("{name}.key")),
        folder.join(format!("{name}.pem")),
    );
    let mut openssl = program("openssl", "openssl")?;
    openssl.args([
        "req",
        "-x509",
        "-nodes",
        "-subj",
        "/O=Example Ltd/CN=Releases",
    ]);
    openssl
        .args(kind)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    must_run(&mut openssl);
    Some((key, certificate))
}

/// Whether openssl believes the signature in `wiki.cert`.
fn certificate_holds(folder: &Path, sum: ManifestSum) -> bool {
    let text = fs::read_to_string(folder.join("wiki.cert")).expect("read");
    let (line, certificate) = text.split_once('\n').expect("lines");
    let head = format!("{}(wiki.mf)= ", sum.name());
    let hex = line.strip_prefix(&head).expect("the manifest's name");
    let signature: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect();
    fs::write(folder.join("sig"), signature).expect("write");
    fs::write(folder.join("cert.pem"), certificate).expect("write");
    let openssl = || {
        let mut openssl = program("openssl", "openssl").expect("it made the key");
        openssl.current_dir(folder);
        openssl
    };
    let public = must_run(openssl().args(["x509", "-in", "cert.pem", "-noout", "-pubkey"]));
    fs::write(folder.join("pub.pem"), public.stdout).expect("write");
    let algorithm = format!("-{}", sum.name().to_lowercase());
    run(openssl()
        .args([
            "dgst",
            &algorithm,
            "-verify",
            "pub.pem",
            "-signature",
            "sig",
        ])
        .arg("wiki.mf"))
    .status
    .success()
}

#[test]
fn openssl_believes_the_certificate_of_the_manifest() {
    let folder = temp_folder();
    let Some((key, certificate)) = authority(folder.path(), "ours", &["-newkey", "rsa:2048"])
    else {
        return;
    };
    let signer = PackageSigner::open(&certificate, &key, &search_path()).expect("they fit");
    for sum in [ManifestSum::Sha256, ManifestSum::Sha1] {
        let folder = temp_folder();
        let (disk, machine) = (disk(12 * MIB), machine());
        let options = with_threads(2);
        let ova = write(&disk, &machine, sum, Some(&signer), &options, folder.path());
        let unpacked = unpack(&ova);
        assert!(certificate_holds(&unpacked, sum));
        let manifest = unpacked.join("wiki.mf");
        let text = fs::read_to_string(&manifest).expect("read");
        fs::write(&manifest, text.replace("wiki.ovf", "wiki.ovg")).expect("write");
        assert!(!certificate_holds(&unpacked, sum));
    }
}

#[test]
fn a_key_that_does_not_fit_is_refused_before_anything_is_written() {
    let folder = temp_folder();
    let Some((key, _)) = authority(folder.path(), "ours", &["-newkey", "rsa:2048"]) else {
        return;
    };
    let (_, theirs) = authority(folder.path(), "theirs", &["-newkey", "rsa:2048"]).expect("made");
    let error = PackageSigner::open(&theirs, &key, &search_path()).expect_err("another key");
    assert_eq!(error.slug(), "release-other-certificate");
    assert_eq!(error.class().code(), 2);
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let (key, certificate) = authority(folder.path(), "curve", &curve).expect("made");
    let error = PackageSigner::open(&certificate, &key, &search_path()).expect_err("not RSA");
    assert_eq!(error.class().code(), 4);
}

#[test]
fn convert_makes_a_package_of_an_appliance_and_asks_for_it() {
    let folder = temp_folder();
    let source = folder.path().join("some.raw");
    let disk = disk(12 * MIB);
    let spec = ImageSpec {
        file_name: "some.raw".into(),
        ..ImageSpec::new("", ImageFormat::Raw)
    };
    write_all(&[spec], &disk, folder.path(), &with_threads(1), &Silent).expect("written");
    let target = folder.path().join("reference.ova");
    let convert = || {
        let mut command = consign();
        command.arg("convert").arg(&source);
        command.args(["-O", "ova", "-o"]).arg(&target);
        command
    };
    let output = run(&mut convert());
    assert_eq!(output.status.code(), Some(2));
    let said = text_of(&output);
    assert!(
        said.contains("hint: name its appliance.toml: `--appliance FILE`"),
        "{said}"
    );
    assert!(!target.exists());
    let appliance = repo_root().join("appliance.toml");
    let output = must_run(convert().arg("--appliance").arg(appliance));
    let root = content_root(&disk).expect("readable");
    assert!(text_of(&output).contains(&root.to_string()));
    let listed = text_of(&must_run(&mut tar(&["-tf"], &target)));
    assert_eq!(listed, "reference.ovf\nreference.mf\nreference.vmdk\n");
    if let Some((is_read, text)) = virt_v2v(&target) {
        assert!(is_read && text.contains("source name: reference"), "{text}");
    }
}

#[test]
fn a_disk_that_no_vmdk_holds_is_refused_by_name() {
    let mut machine = machine();
    machine.user_disks[0].size = ByteSize::from_mib(3 << 20);
    let package = Package::new(&machine, ManifestSum::Sha256, None).expect("a package");
    let options = WriteOptions {
        envelope: Some(&package),
        ..WriteOptions::default()
    };
    let folder = temp_folder();
    let spec = ImageSpec::new("wiki", ImageFormat::Ova);
    let error = write_all(&[spec], &disk(12 * MIB), folder.path(), &options, &Silent);
    assert_eq!(error.expect_err("3 TiB").slug(), "image-too-large");
    assert_eq!(
        consign::tree::list_folder(folder.path())
            .expect("list")
            .len(),
        0
    );
}
