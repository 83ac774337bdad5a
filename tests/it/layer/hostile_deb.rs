//! Packages that want something they should not get: each is refused by the
//! names of its layer, itself and the member, or harmless, and nothing of the
//! host is touched.
#![expect(clippy::disallowed_methods, reason = "tests call foreign programs")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use consign::digest::Digest;
use consign::layer::build_all;
use consign::layer::spec::{LayerSpec, PackagePin, Recipe, ToolsRecipe};
use consign::report::Silent;

use super::hostile::{Archive, Header};
use super::packages::{Files, must_skip, shop};
use crate::support::{consign_path, program, temp_folder};

/// Longest that one package may keep a build busy.
const LONGEST: Duration = Duration::from_mins(1);
/// Most memory that a process of the sandbox may take: beyond it, it is ended.
const MOST_MEMORY: u64 = 512 << 20;

const CONTROL: &str =
    "Package: odd\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: odd\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).expect("memory")
}

fn xz(bytes: &[u8], option: &str) -> Vec<u8> {
    let mut xz = program("xz", "xz-utils").expect("xz is everywhere in Debian");
    xz.args(["-c", "-T1", option]);
    let mut child = xz
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("xz starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("xz runs");
    writer.join().expect("joins").expect("written");
    output.stdout
}

/// A tar of one file of `size` zero bytes, without holding them: gzipped.
fn bomb(size: usize, compress: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let size_field = format!("{size:011o}\0");
    let header = Header {
        name: b"./usr/bomb",
        size: size_field.as_bytes(),
        ..Header::default()
    };
    let mut tar = Archive::default().header(&header).end();
    tar.truncate(512);
    tar.resize(512 + size + 1024, 0);
    compress(&tar)
}

/// An ar archive.
struct Deb(Vec<u8>);

impl Deb {
    fn new() -> Self {
        Self(b"!<arch>\n".to_vec())
    }

    fn member(mut self, name: &str, bytes: &[u8]) -> Self {
        let header = format!(
            "{name:16}{:12}{:6}{:6}{:8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            bytes.len()
        );
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            self.0.push(b'\n');
        }
        self
    }

    fn begun() -> Self {
        Self::new().member("debian-binary", b"2.0\n")
    }

    fn control(self, files: &[(&str, &[u8])]) -> Self {
        let mut tar = Archive::default();
        for (name, bytes) in files {
            tar = tar.body(format!("./{name}").as_bytes(), b'0', bytes);
        }
        self.member("control.tar.gz", &gzip(&tar.end()))
    }

    fn sound() -> Self {
        Self::begun().control(&[("control", CONTROL.as_bytes())])
    }

    fn data(self, tar: Archive) -> Vec<u8> {
        self.member("data.tar.gz", &gzip(&tar.end())).0
    }
}

fn with_data(tar: Archive) -> Vec<u8> {
    Deb::sound().data(tar)
}

/// Installs the package into an empty root, where no program can be started:
/// what is harmless fails for that reason, at the end.
fn verdict(bytes: &[u8], folder: &Path, program: &Path) -> String {
    let deb = folder.join("odd.deb");
    std::fs::write(&deb, bytes).expect("write");
    let pin = PackagePin {
        name: "odd".into(),
        version: "1".into(),
        architecture: "all".into(),
        suite: "local".into(),
        path: "odd.deb".into(),
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
        source: "odd".into(),
        reason: "requested".into(),
    };
    let spec = LayerSpec {
        name: "hostile".into(),
        recipe: Recipe::Tools(ToolsRecipe {
            pins: vec![pin.clone()],
            input: [].into(),
            command: vec!["/usr/bin/nothing".into()],
            keep: vec![],
        }),
        allow_secrets: vec![],
    };
    let files = Files(vec![(pin, deb)]);
    let store = folder.join("store");
    std::fs::create_dir_all(&store).expect("folder");
    let error = build_all(&[spec], &shop(&store, &files, program), &Silent)
        .expect_err("nothing can be started");
    let left = std::fs::read_dir(store.join("blobs/sha256")).expect("a folder");
    assert_eq!(left.count(), 0, "something was filed");
    error.to_string()
}

/// consign, with a limit on its memory.
fn limited_consign(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("consign");
    let consign = consign_path().display();
    let script =
        format!("#!/bin/sh\nexec /usr/bin/prlimit --data={MOST_MEMORY} -- {consign} \"$@\"\n");
    std::fs::write(&path, script).expect("write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    path
}

/// What a package that does no harm comes to.
const HARMLESS: &str = "cannot start `/usr/bin/nothing`";

#[expect(clippy::too_many_lines, reason = "a table")]
fn corpus(canary: &Path) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let new = Archive::default;
    let canary = canary.to_str().expect("a path of ours").as_bytes();
    let below = [b"./a/", &canary[1..]].concat();
    let data = |tar: &[u8]| Deb::sound().member("data.tar", tar).0;
    let whole = new().file(b"./usr/file").end();
    let long = vec![b'n'; 5000];
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 20].to_vec();
    let xz_of = |tar: &[u8]| Deb::sound().member("data.tar.xz", &xz(tar, "-1")).0;
    let filler: Vec<u8> = (0..40_000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    let full = new().body(b"./usr/full", b'0', &filler).end();
    vec![
        // The ar archive.
        ("empty", Vec::new(), "fill whole buffer"),
        (
            "not an archive",
            b"#!/bin/sh\nrm -rf /\n".to_vec(),
            "not an ar archive",
        ),
        (
            "ends in a header",
            [&Deb::begun().0[..], b"control.tar.gz  "].concat(),
            "unexpected end of file",
        ),
        (
            "size that is no number",
            Deb::begun()
                .0
                .iter()
                .copied()
                .chain(*b"control.tar.gz  0           0     0     100644  12x4      `\n")
                .collect(),
            "size of an ar member is not a number",
        ),
        (
            "header without its end",
            Deb::begun()
                .0
                .iter()
                .copied()
                .chain(*b"control.tar.gz  0           0     0     100644  1         xx")
                .collect(),
            "does not end as it should",
        ),
        (
            "size beyond the file",
            Deb::sound()
                .0
                .iter()
                .copied()
                .chain(*b"data.tar        0           0     0     100644  9999999999`\n")
                .collect(),
            "member",
        ),
        (
            "no version",
            Deb::new()
                .control(&[("control", CONTROL.as_bytes())])
                .data(new()),
            "where none belongs",
        ),
        (
            "version of tomorrow",
            Deb::new().member("debian-binary", b"3.0\n").0,
            "its format is `3.0`",
        ),
        (
            "version that is no text",
            Deb::new().member("debian-binary", b"\xff\xfe").0,
            "UTF-8",
        ),
        ("no data", Deb::sound().0, "it has no data"),
        (
            "data first",
            Deb::begun().data(new()),
            "data comes before its control",
        ),
        (
            "control twice",
            Deb::sound()
                .control(&[("control", CONTROL.as_bytes())])
                .data(new()),
            "where none belongs",
        ),
        (
            "data twice",
            Deb(with_data(new().file(b"./a"))).data(new().file(b"./b")),
            "where none belongs",
        ),
        (
            "a stranger",
            Deb::sound().member("\u{1b}[31mred", b"x").0,
            "`\\u{1b}[31mred` where none belongs",
        ),
        (
            "compression nobody knows",
            Deb::sound().member("data.tar.lz", b"LZIP").0,
            "compression `.lz` is not supported",
        ),
        (
            "control in a compression nobody knows",
            Deb::begun().member("control.tar.lz4", b"x").0,
            "compression `.lz4` is not supported",
        ),
        // Its control files.
        (
            "no control file",
            Deb::begun().control(&[("md5sums", b"")]).data(new()),
            "no field `Package`",
        ),
        (
            "another's name",
            Deb::begun()
                .control(&[("control", b"Package: dpkg\nVersion: 1\nArchitecture: all\n")])
                .data(new()),
            "it calls itself `dpkg`",
        ),
        (
            "a name that is a path",
            Deb::begun()
                .control(&[(
                    "control",
                    b"Package: ../../odd\nVersion: 1\nArchitecture: all\n",
                )])
                .data(new()),
            "its name is `../../odd`",
        ),
        (
            "an architecture that is a path",
            Deb::begun()
                .control(&[(
                    "control",
                    b"Package: odd\nVersion: 1\nArchitecture: ../x\nMulti-Arch: same\n",
                )])
                .data(new()),
            "its architecture is `../x`",
        ),
        (
            "a trigger that is a path",
            Deb::begun()
                .control(&[
                    ("control", CONTROL.as_bytes()),
                    ("triggers", b"interest ../../../../etc/passwd\n"),
                ])
                .data(new()),
            "it has a trigger `../../../../etc/passwd`",
        ),
        (
            "control file in a folder",
            Deb::begun()
                .control(&[("control", CONTROL.as_bytes()), ("a/b", b"")])
                .data(new()),
            "control file `a/b`",
        ),
        (
            "control file up",
            Deb::begun()
                .control(&[("../control", CONTROL.as_bytes())])
                .data(new()),
            "contains `..`",
        ),
        (
            "control file twice",
            Deb::begun()
                .control(&[
                    ("control", CONTROL.as_bytes()),
                    ("prerm", b"a"),
                    ("prerm", b"b"),
                ])
                .data(new()),
            "a control file twice",
        ),
        (
            "control that is no stanza",
            Deb::begun()
                .control(&[("control", b"no field at all\n")])
                .data(new()),
            "control file is malformed",
        ),
        (
            "control that is bytes",
            Deb::begun()
                .control(&[("control", b"\xff\0\xfe\n")])
                .data(new()),
            "control file is malformed",
        ),
        (
            "control cut off",
            Deb::begun().member("control.tar.gz", &cut(&gzip(&whole))).0,
            "is malformed",
        ),
        (
            "control without an end",
            Deb::begun()
                .member(
                    "control.tar",
                    &new().body(b"control", b'0', CONTROL.as_bytes()).end()[..1024],
                )
                .0,
            "without its two empty blocks",
        ),
        (
            "control that explodes",
            Deb::begun()
                .member("control.tar.gz", &bomb(80 << 20, &gzip))
                .0,
            "unexpected end of file",
        ),
        (
            "conffile out of the image",
            Deb::begun()
                .control(&[
                    ("control", CONTROL.as_bytes()),
                    ("conffiles", b"/../../etc/passwd\n/etc/../../x\n"),
                ])
                .data(new()),
            HARMLESS,
        ),
        // Its data.
        (
            "absolute name",
            with_data(new().file(b"/etc/passwd")),
            "`/etc/passwd`: the path is absolute",
        ),
        (
            "way up",
            with_data(new().file(b"../../etc/passwd")),
            "contains `..`",
        ),
        (
            "way up in the middle",
            with_data(new().file(b"./a/../../../etc/passwd")),
            "contains `..`",
        ),
        (
            "way up by pax",
            with_data(new().pax(&[("path", b"./../x")]).file(b"x")),
            "contains `..`",
        ),
        (
            "way up by GNU name",
            with_data(new().body(b"L", b'L', b"./../x\0").file(b"x")),
            "contains `..`",
        ),
        (
            "NUL by pax",
            with_data(new().pax(&[("path", b"a\0b")]).file(b"x")),
            "pax header is malformed",
        ),
        (
            "line break",
            with_data(new().file(b"./usr/a\n/etc/passwd")),
            "a line break",
        ),
        (
            "colours",
            with_data(new().file(b"./usr/\x1b[31m").file(b"./usr/\x1b[31m")),
            "`./usr/\\u{1b}[31m`: it is there twice",
        ),
        (
            "longest name",
            with_data(new().pax(&[("path", &long)]).file(b"x")),
            "longer than",
        ),
        (
            "name without bounds",
            with_data(new().body(b"L", b'L', &long).file(b"x")),
            "longer than",
        ),
        (
            "twice",
            with_data(new().file(b"./a").file(b"./a")),
            "it is there twice",
        ),
        (
            "folder over file",
            with_data(new().file(b"./a").entry(b"./a/", b'5', b"")),
            "a file is in its place",
        ),
        (
            "file over folder",
            with_data(new().entry(b"./a/", b'5', b"").file(b"./a")),
            "a folder is in its place",
        ),
        (
            "file over the links of /usr",
            with_data(new().file(b"./bin")),
            HARMLESS,
        ),
        (
            "hard link to the host",
            with_data(new().entry(b"./x", b'1', b"/etc/shadow")),
            "the path is absolute",
        ),
        (
            "hard link up",
            with_data(new().entry(b"./x", b'1', b"../../etc/shadow")),
            "contains `..`",
        ),
        (
            "hard link to nothing",
            with_data(new().entry(b"./x", b'1', b"./missing")),
            "cannot place `x`",
        ),
        (
            "hard link to itself",
            with_data(new().entry(b"./x", b'1', b"./x")),
            "cannot place `x`",
        ),
        (
            "hard link through a link",
            with_data(
                new()
                    .entry(b"./a", b'2', b"/etc")
                    .entry(b"./x", b'1', b"./a/shadow"),
            ),
            "cannot",
        ),
        (
            "hard link to a folder",
            with_data(new().entry(b"./d/", b'5', b"").entry(b"./x", b'1', b"./d")),
            "cannot place `x`",
        ),
        (
            "below a link to the host",
            with_data(new().entry(b"./a", b'2', canary).file(b"./a/canary")),
            "cannot",
        ),
        (
            "below a link to the root",
            with_data(new().entry(b"./a", b'2', b"/").file(&below)),
            HARMLESS,
        ),
        (
            "below a link up",
            with_data(new().entry(b"./a", b'2', b"../../../../../..").file(&below)),
            HARMLESS,
        ),
        (
            "below a link to itself",
            with_data(new().entry(b"./a", b'2', b"a").file(b"./a/b")),
            "symbolic links",
        ),
        (
            "over a link to the host",
            with_data(new().entry(b"./a", b'2', canary).entry(b"./a/", b'5', b"")),
            "is in its place",
        ),
        (
            "through /proc",
            with_data(new().entry(b"./a", b'2', b"/proc/self/root").file(&below)),
            "cannot",
        ),
        (
            "memory as a device",
            with_data(new().entry(b"./dev/mem", b'3', b"")),
            HARMLESS,
        ),
        (
            "disk as a device",
            with_data(new().entry(b"./dev/sda", b'4', b"")),
            HARMLESS,
        ),
        ("pipe", with_data(new().entry(b"./p", b'6', b"")), HARMLESS),
        (
            "pipe with content",
            with_data(new().body(b"./p", b'6', b"x")),
            "has content",
        ),
        (
            "bytes as a name",
            with_data(new().file(b"./usr/\xff\xfe")),
            HARMLESS,
        ),
        (
            "type nobody knows",
            with_data(new().entry(b"./x", b'Z', b"")),
            "type `Z`",
        ),
        (
            "whiteout",
            with_data(new().file(b"./usr/.wh.bin")),
            HARMLESS,
        ),
        (
            "sparse",
            with_data(new().entry(b"./x", b'S', b"")),
            "sparse",
        ),
        (
            "sparse by pax",
            with_data(
                new()
                    .pax(&[("GNU.sparse.realsize", b"99999999999999")])
                    .file(b"./x"),
            ),
            "sparse",
        ),
        (
            "global path",
            with_data(new().body(b"g", b'g', b"12 path=abc\n").file(b"./x")),
            "pax header",
        ),
        (
            "size by pax beyond the data",
            with_data(new().pax(&[("size", b"99999999")]).file(b"./x")),
            "member `./x`",
        ),
        (
            "size beyond numbers",
            with_data(new().header(&Header {
                name: b"./x",
                size: &[
                    0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ],
                ..Header::default()
            })),
            "`size`",
        ),
        (
            "size below nothing",
            with_data(new().header(&Header {
                name: b"./x",
                size: &[0xff; 12],
                ..Header::default()
            })),
            "`size`",
        ),
        (
            "huge",
            with_data(new().header(&Header {
                name: b"./x",
                size: b"77777777777\0",
                ..Header::default()
            })),
            "member `./x`",
        ),
        (
            "checksum",
            data(&{
                let mut tar = whole.clone();
                tar[0] ^= 1;
                tar
            }),
            "checksum",
        ),
        (
            "no end",
            data(&whole[..512]),
            "without its two empty blocks",
        ),
        (
            "something after the end",
            data(&[&whole[..], &[1; 512]].concat()),
            "after the end",
        ),
        ("not a tar", data(&[b'x'; 4096]), "checksum"),
        // Its compression.
        (
            "gzip cut off",
            Deb::sound().member("data.tar.gz", &cut(&gzip(&full))).0,
            "member",
        ),
        (
            "xz cut off",
            Deb::sound().member("data.tar.xz", &cut(&xz(&full, "-1"))).0,
            "member",
        ),
        (
            "zstd cut off",
            Deb::sound().member("data.tar.zst", &cut(&zstd(&full))).0,
            "member",
        ),
        (
            "gzip in gzip",
            Deb::sound().member("data.tar.gz", &gzip(&gzip(&whole))).0,
            "is malformed",
        ),
        (
            "gzip that is none",
            Deb::sound().member("data.tar.gz", &whole).0,
            "is malformed",
        ),
        (
            "xz that is none",
            Deb::sound().member("data.tar.xz", &whole).0,
            "is malformed",
        ),
        (
            "zstd that is none",
            Deb::sound().member("data.tar.zst", &whole).0,
            "is malformed",
        ),
        (
            "xz without its check",
            {
                let mut deb = xz_of(&full);
                let at = deb.len() - 40;
                deb[at] ^= 0xff;
                deb
            },
            "is malformed",
        ),
        (
            "gzip bomb",
            Deb::sound()
                .member("data.tar.gz", &bomb(300 << 20, &gzip))
                .0,
            "more than 256 times",
        ),
        (
            "xz bomb",
            Deb::sound()
                .member("data.tar.xz", &bomb(100 << 20, &|bytes| xz(bytes, "-0")))
                .0,
            "more than 256 times",
        ),
        (
            "zstd bomb",
            Deb::sound()
                .member("data.tar.zst", &bomb(300 << 20, &zstd))
                .0,
            "more than 256 times",
        ),
        (
            "xz that wants much memory",
            Deb::sound()
                .member("data.tar.xz", &xz(&whole, "--lzma2=preset=0,dict=1536MiB"))
                .0,
            "is malformed",
        ),
        (
            "zstd that wants much memory",
            Deb::sound()
                .member(
                    "data.tar.zst",
                    &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00],
                )
                .0,
            "is malformed",
        ),
    ]
}

#[test]
fn every_hostile_package_is_refused_or_harmless() {
    if must_skip() {
        return;
    }
    let folder = temp_folder();
    let canary = folder.path().join("host");
    std::fs::create_dir(&canary).expect("folder");
    std::fs::write(canary.join("canary"), b"alive").expect("write");
    let limited = limited_consign(folder.path());
    let cases = corpus(&canary);
    let mut wrong = Vec::new();
    for (name, bytes, expected) in &cases {
        let place = folder.path().join("case");
        std::fs::create_dir(&place).expect("folder");
        let began = Instant::now();
        let said = verdict(bytes, &place, &limited);
        let names_them = said.starts_with("layer `hostile`: ")
            && (said.contains("package `odd`") || said.contains("cannot "));
        if !said.contains(expected) || !names_them || said.contains('\x1b') {
            wrong.push(format!("{name}: {said}"));
        }
        assert!(began.elapsed() < LONGEST, "{name} takes long");
        std::fs::remove_dir_all(&place).expect("all of it");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 80, "{}", cases.len());
    let list: Vec<_> = std::fs::read_dir(&canary).expect("a folder").collect();
    assert_eq!(list.len(), 1);
    assert_eq!(
        std::fs::read(canary.join("canary")).expect("read"),
        b"alive"
    );
    for folder in ["/dev", "/etc"] {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names = entries.map(|entry| entry.expect("an entry").file_name());
        assert!(!names.any(|name| name.as_encoded_bytes().starts_with(b".consign-new")));
    }
}
