//! Archives that want something they should not get: each is refused with an
//! error that names the member, escaped.

use std::path::Path;

use consign::layer::tar::read_delta;
use consign::tree::Blob;

/// A tar written by hand, so that anything can be in it.
#[derive(Default)]
pub(super) struct Archive(Vec<u8>);

/// Fields of a header as they will stand there.
pub(super) struct Header<'a> {
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) kind: u8,
    pub(super) size: &'a [u8],
    pub(super) magic: &'a [u8; 8],
}

impl Default for Header<'_> {
    fn default() -> Self {
        Self {
            name: b"name",
            link: b"",
            kind: b'0',
            size: b"00000000000\0",
            magic: b"ustar\x0000",
        }
    }
}

impl Archive {
    pub(super) fn header(mut self, header: &Header<'_>) -> Self {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| {
            block[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &header.name[..header.name.len().min(100)]);
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, header.size);
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[header.kind]);
        put(157, header.link);
        put(257, header.magic);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    pub(super) fn entry(self, name: &[u8], kind: u8, link: &[u8]) -> Self {
        self.header(&Header {
            name,
            link,
            kind,
            ..Header::default()
        })
    }

    pub(super) fn file(self, name: &[u8]) -> Self {
        self.entry(name, b'0', b"")
    }

    /// A header with content, as long as it says.
    pub(super) fn body(self, name: &[u8], kind: u8, content: &[u8]) -> Self {
        let size = format!("{:011o}\0", content.len());
        let mut archive = self.header(&Header {
            name,
            kind,
            size: size.as_bytes(),
            ..Header::default()
        });
        archive.0.extend_from_slice(content);
        archive.0.resize(archive.0.len().next_multiple_of(512), 0);
        archive
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.body(b"pax", b'x', &content)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn verdict(bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path().join("layer.tar");
    std::fs::write(&place, bytes).expect("write");
    let blob = Blob::open(Path::new(&place)).expect("open");
    match read_delta(&blob) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The corpus: a name, the archive, and words of the error.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn corpus() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let new = Archive::default;
    let long = vec![b'n'; 5000];
    let huge: Vec<u8> = vec![0xff; 12];
    let mut huge = huge;
    huge[0] = 0x80;
    let header = |header: &Header<'_>| new().header(header).end();
    vec![
        (
            "absolute name",
            new().file(b"/etc/passwd").end(),
            "the path is absolute",
        ),
        (
            "way up",
            new().file(b"a/../../etc/passwd").end(),
            "contains `..`",
        ),
        (
            "way up at the end",
            new().entry(b"a/..", b'5', b"").end(),
            "contains `..`",
        ),
        (
            "way up by pax",
            new().pax(&[("path", b"../x")]).file(b"x").end(),
            "contains `..`",
        ),
        (
            "way up by GNU name",
            new()
                .body(b"././@LongLink", b'L', b"../x\0")
                .file(b"x")
                .end(),
            "contains `..`",
        ),
        (
            "absolute hard link",
            new().entry(b"x", b'1', b"/etc/shadow").end(),
            "hard link is not a path",
        ),
        (
            "hard link up",
            new().entry(b"x", b'1', b"../../etc/shadow").end(),
            "hard link is not a path",
        ),
        (
            "hard link to itself",
            new().entry(b"x", b'1', b"x").end(),
            "points at itself",
        ),
        (
            "hard link to a folder",
            new().entry(b"d/", b'5', b"").entry(b"x", b'1', b"d").end(),
            "not a file",
        ),
        (
            "hard link to nothing",
            new().entry(b"x", b'1', b"").end(),
            "name is empty",
        ),
        (
            "link to nothing",
            new().entry(b"x", b'2', b"").end(),
            "name is empty",
        ),
        ("twice", new().file(b"x").file(b"x").end(), "twice"),
        (
            "twice in disguise",
            new().file(b"x").file(b"./x").end(),
            "twice",
        ),
        (
            "folder and file",
            new().entry(b"x/", b'5', b"").file(b"x").end(),
            "twice",
        ),
        (
            "file over a parent",
            new().file(b"a/b").file(b"a").end(),
            "twice",
        ),
        (
            "below a link",
            new().entry(b"a", b'2', b"/etc").file(b"a/passwd").end(),
            "not a directory",
        ),
        (
            "below a file",
            new().file(b"a").file(b"a/b").end(),
            "not a directory",
        ),
        ("root as a file", new().file(b"./").end(), "type `0`"),
        (
            "root as a link",
            new().entry(b".", b'2', b"/").end(),
            "twice",
        ),
        ("whiteout of nothing", new().file(b".wh.").end(), "whiteout"),
        (
            "whiteout of the folder",
            new().file(b"a/.wh..").end(),
            "whiteout",
        ),
        (
            "whiteout of the parent",
            new().file(b"a/.wh...").end(),
            "whiteout",
        ),
        (
            "whiteout with content",
            new().body(b".wh.x", b'0', b"x").end(),
            "whiteout",
        ),
        (
            "whiteout as a link",
            new().entry(b".wh.x", b'2', b"y").end(),
            "whiteout",
        ),
        (
            "whiteout twice",
            new().file(b".wh.x").file(b".wh.x").end(),
            "twice",
        ),
        (
            "books of AUFS",
            new().file(b".wh..wh.plnk").end(),
            "whiteout",
        ),
        ("no name", new().file(b"").end(), "name is empty"),
        (
            "no name by pax",
            new().pax(&[("path", b"")]).file(b"x").end(),
            "pax header is malformed",
        ),
        (
            "NUL by pax",
            new().pax(&[("path", b"a\0b")]).file(b"x").end(),
            "pax header is malformed",
        ),
        (
            "long name by pax",
            new().pax(&[("path", &long)]).file(b"x").end(),
            "longer than",
        ),
        (
            "long GNU name",
            new().body(b"L", b'L', &long).file(b"x").end(),
            "longer than",
        ),
        (
            "long link by pax",
            new()
                .pax(&[("linkpath", &long)])
                .entry(b"x", b'2', b"y")
                .end(),
            "longer than",
        ),
        (
            "pax twice",
            new()
                .pax(&[("uid", b"1")])
                .pax(&[("uid", b"1")])
                .file(b"x")
                .end(),
            "pax header",
        ),
        (
            "a pax key twice",
            new()
                .pax(&[("path", b"a"), ("path", b"b")])
                .file(b"x")
                .end(),
            "pax header",
        ),
        (
            "pax without a member",
            new().pax(&[("uid", b"1")]).end(),
            "describes no member",
        ),
        (
            "unknown pax key",
            new().pax(&[("flavour", b"1")]).file(b"x").end(),
            "`flavour` is not known",
        ),
        (
            "size by pax beyond the file",
            new().pax(&[("size", b"99999")]).file(b"x").end(),
            "ends in the middle",
        ),
        (
            "size by pax beyond numbers",
            new()
                .pax(&[("size", b"99999999999999999999999")])
                .file(b"x")
                .end(),
            "`size`",
        ),
        (
            "negative owner",
            new().pax(&[("uid", b"-1")]).file(b"x").end(),
            "`uid`",
        ),
        (
            "owner beyond numbers",
            new().pax(&[("uid", b"4294967296")]).file(b"x").end(),
            "`uid`",
        ),
        (
            "sparse by pax",
            new().pax(&[("GNU.sparse.map", b"0,1")]).file(b"x").end(),
            "sparse",
        ),
        ("sparse", new().entry(b"x", b'S', b"").end(), "sparse"),
        (
            "pax without its newline",
            new().body(b"pax", b'x', b"12 path=abc ").file(b"x").end(),
            "pax header",
        ),
        (
            "pax longer than itself",
            new().body(b"pax", b'x', b"99 path=abc\n").file(b"x").end(),
            "pax header",
        ),
        (
            "pax without a number",
            new().body(b"pax", b'x', b"xx path=abc\n").file(b"x").end(),
            "pax header",
        ),
        (
            "global path",
            new().body(b"g", b'g', b"12 path=abc\n").file(b"x").end(),
            "pax header",
        ),
        (
            "huge size",
            header(&Header {
                size: &huge.try_into().unwrap_or([0; 12]),
                ..Header::default()
            }),
            "`size`",
        ),
        (
            "negative size",
            header(&Header {
                size: &[0xff; 12],
                ..Header::default()
            }),
            "`size`",
        ),
        (
            "size that is no number",
            header(&Header {
                size: b"0000000009x\0",
                ..Header::default()
            }),
            "`size`",
        ),
        (
            "size beyond the file",
            header(&Header {
                size: b"77777777777\0",
                ..Header::default()
            }),
            "ends in the middle",
        ),
        (
            "no mark",
            header(&Header {
                magic: b"\0\0\0\0\0\0\0\0",
                ..Header::default()
            }),
            "no `ustar` mark",
        ),
        (
            "unknown type",
            new().entry(b"x", b'Z', b"").end(),
            "type `Z`",
        ),
        (
            "type that is no letter",
            new().entry(b"x", 0x1b, b"").end(),
            "type `\\u{1b}`",
        ),
        (
            "folder with content",
            new().body(b"d/", b'5', b"x").end(),
            "has content",
        ),
        (
            "hard link with content",
            new().file(b"a").body(b"b", b'1', b"x").end(),
            "name is empty",
        ),
        ("no end", new().file(b"x").0, "without its two empty blocks"),
        (
            "half an end",
            {
                let mut a = new().file(b"x").0;
                a.extend_from_slice(&[0; 512]);
                a
            },
            "without its two empty blocks",
        ),
        ("nothing", Vec::new(), "without its two empty blocks"),
        ("less than a block", vec![0; 100], "ends in the middle"),
        (
            "something after the end",
            {
                let mut a = new().end();
                a.extend_from_slice(&[1; 512]);
                a
            },
            "after the end",
        ),
        (
            "one empty block, then more",
            {
                let mut a = vec![0; 512];
                a.extend(new().file(b"x").end());
                a
            },
            "after the end",
        ),
        (
            "checksum",
            {
                let mut a = new().file(b"x").end();
                a[0] ^= 1;
                a
            },
            "checksum",
        ),
        ("text", b"#!/bin/sh\n".repeat(200), "checksum"),
    ]
}

#[test]
fn every_archive_of_the_corpus_is_refused_for_its_own_reason() {
    let cases = corpus();
    let mut wrong = Vec::new();
    for (name, bytes, expected) in &cases {
        match verdict(bytes) {
            Ok(()) => wrong.push(format!("{name}: taken")),
            Err(text) if !text.contains(expected) => wrong.push(format!("{name}: {text}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 60, "{}", cases.len());
}

#[test]
fn what_is_odd_but_right_is_taken() {
    let new = Archive::default;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", new().end()),
        ("more padding", {
            let mut a = new().end();
            a.extend_from_slice(&[0; 9216]);
            a
        }),
        ("bytes as a name", new().file(b"\xff\xfe\x1b[31m").end()),
        (
            "link out of the image",
            new().entry(b"x", b'2', b"../../../etc").end(),
        ),
        (
            "hard link to a lower layer",
            new().entry(b"x", b'1', b"usr/bin/below").end(),
        ),
        (
            "vendor's pax key",
            new()
                .pax(&[("LIBARCHIVE.creationtime", b"1")])
                .file(b"x")
                .end(),
        ),
        (
            "comment for all",
            new().body(b"g", b'g', b"15 comment=abc\n").file(b"x").end(),
        ),
        (
            "opaque folder",
            new().entry(b"d/", b'5', b"").file(b"d/.wh..wh..opq").end(),
        ),
        (
            "whiteout and entry",
            new().file(b".wh.x").entry(b"x/", b'5', b"").end(),
        ),
    ];
    for (name, bytes) in cases {
        assert_eq!(verdict(&bytes), Ok(()), "{name}");
    }
}

#[test]
fn names_are_escaped_in_messages() {
    let bytes = Archive::default().file(b"/\x1b[31mred\n\xff").end();
    let text = verdict(&bytes).expect_err("absolute");
    assert_eq!(
        text,
        "member `/\\u{1b}[31mred\\n\\xff`: the path is absolute"
    );
}
