//! Media made by mkfs.vfat and mtools, and what damage does to the reader.
#![expect(
    clippy::disallowed_types,
    reason = "the tests run other people's formatters"
)]
#![expect(clippy::indexing_slicing, reason = "a test may fail")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::*;

/// Runs a formatter; `false` when it is not installed and we are not in CI.
pub(super) fn run(program: &str, args: &[&str]) -> bool {
    run_with(program, args, b"")
}

/// As [`run`], with something to read.
pub(super) fn run_with(program: &str, args: &[&str], input: &[u8]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = command.spawn().and_then(|mut child| {
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input)?;
        }
        child.wait_with_output()
    });
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {args:?}: {said}");
            true
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a missing tool is a failure in CI"
        )]
        Err(error) if std::env::var_os("CI").is_none() => {
            complain!("SKIPPED: no {program} ({error})");
            false
        }
        Err(error) => panic!("{program} is needed in CI: {error}"),
    }
}

/// What a disk with these bytes tells.
pub(super) fn collect(disk: &Vec<u8>) -> Told {
    let mut told = Told::of("vdb");
    content::read_disk(disk, 512, disk.len() as u64, &mut told);
    told
}

const SITE: &[u8] = b"schema = 1\n[system]\nhostname = \"a\"\n";

/// A medium of `kib` KiB as a customer makes it; `None` without the tools.
fn medium(kib: u32, bits: &str, label: &str) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("site.img");
    let image = path.to_str().expect("text");
    let site = folder.path().join("site.toml");
    std::fs::write(&site, SITE).expect("write");
    let big = folder.path().join("holiday pictures.bin");
    std::fs::write(&big, vec![7; 100_000]).expect("write");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let kib = kib.to_string();
    let made = run(
        "mkfs.vfat",
        &["-C", "-F", bits, "-n", label, "-i", "1234abcd", image, &kib],
    ) && run("mcopy", &["-i", image, &text(&big), "::"])
        && run("mmd", &["-i", image, "::License"])
        && run("mcopy", &["-i", image, &text(&site), "::License/Key.TXT"])
        && run("mcopy", &["-i", image, &text(&site), "::"]);
    made.then(|| std::fs::read(&path).expect("read"))
}

fn read(image: &Vec<u8>) -> Result<Option<Candidate>, String> {
    let told = collect(image);
    match told.unreadable.first() {
        Some(unreadable) => Err(unreadable.reason.clone()),
        None => Ok(told.candidates.into_iter().next()),
    }
}

#[test]
fn media_of_every_width_are_read() {
    for (kib, bits, kind) in [
        (1440, "12", "FAT12"),
        (16_384, "16", "FAT16"),
        (66_000, "32", "FAT32"),
    ] {
        let Some(image) = medium(kib, bits, "VACONFIG") else {
            return;
        };
        let found = read(&image).expect("sound").expect("ours");
        assert_eq!(found.filesystem, kind);
        assert_eq!(found.files["site.toml"], SITE);
        assert_eq!(found.files["license/key.txt"], SITE);
        assert_eq!(found.ignored, ["holiday pictures.bin"]);
    }
}

#[test]
fn a_medium_has_64_files_and_no_more() {
    for (licences, is_read) in [(NAME_LIMIT - 1, true), (NAME_LIMIT, false)] {
        let folder = tempfile::tempdir().expect("folder");
        let content = folder.path().join("content");
        for name in ["license", "other"] {
            std::fs::create_dir_all(content.join(name)).expect("folders");
        }
        std::fs::write(content.join("site.toml"), SITE).expect("write");
        // What is ignored does not count, however much there is of it.
        for number in 0..2 * NAME_LIMIT {
            std::fs::write(content.join(format!("picture-{number}")), "").expect("write");
        }
        for number in 0..licences {
            let name = format!("license/key-{number}");
            std::fs::write(content.join(name), number.to_string()).expect("write");
        }
        let path = |name: &str| {
            let path = folder.path().join(name);
            path.to_str().expect("text").to_owned()
        };
        let (fat, ext, iso, content) = (path("fat"), path("ext"), path("iso"), path("content"));
        let made = run("mkfs.vfat", &["-C", "-n", LABEL, &fat, "1440"])
            && run(
                "mcopy",
                &["-s", "-i", &fat, &format!("{content}/license"), "::"],
            )
            && run(
                "mcopy",
                &["-i", &fat, &format!("{content}/site.toml"), "::"],
            )
            && run("mke2fs", &["-q", "-L", LABEL, "-d", &content, &ext, "8M"])
            && run(
                "genisoimage",
                &["-quiet", "-R", "-V", LABEL, "-o", &iso, &content],
            );
        if !made {
            return;
        }
        for image in [fat, ext, iso] {
            let result = read(&std::fs::read(&image).expect("read"));
            if is_read {
                let found = result.expect("sound").expect("ours");
                assert_eq!(found.files.len(), NAME_LIMIT, "{image}");
                assert_eq!(found.files["license/key-62"], b"62", "{image}");
                assert!(found.ignored.len() <= NAME_LIMIT, "{image}");
            } else {
                let error = result.expect_err("one more");
                assert_eq!(
                    error, "has too many files; use a medium of its own",
                    "{image}"
                );
            }
        }
    }
}

#[test]
fn either_label_counts_in_any_case() {
    let Some(mut image) = medium(1440, "12", "VACONFIG") else {
        return;
    };
    image[43..54].copy_from_slice(b"NO NAME    ");
    assert!(
        read(&image).expect("sound").is_some(),
        "the root folder's label counts"
    );
    let at = image
        .windows(11)
        .position(|name| name == b"VACONFIG   ")
        .expect("the label's slot");
    image[at..at + 8].copy_from_slice(b"vaConFig");
    assert!(read(&image).expect("sound").is_some(), "in any case");
    image[at..at + 8].copy_from_slice(b"HOLIDAYS");
    assert_eq!(read(&image), Ok(None), "somebody else's medium");
    image[43..54].copy_from_slice(b"vaconfig   ");
    assert!(
        read(&image).expect("sound").is_some(),
        "the boot sector's label counts"
    );
}

#[test]
fn foreign_file_systems_are_named() {
    let mut image = vec![0; 65_536];
    image[3..11].copy_from_slice(b"EXFAT   ");
    assert!(read(&image).expect_err("not read").contains("exFAT"));
    image[3..11].copy_from_slice(b"NTFS    ");
    assert!(read(&image).expect_err("not read").contains("NTFS"));
    let mut image = vec![0; 65_536];
    image[32_769..32_774].copy_from_slice(b"BEA01");
    assert_eq!(read(&image), Ok(None));
    image[34_817..34_822].copy_from_slice(b"NSR03");
    assert!(read(&image).expect_err("not read").contains("UDF"));
}

/// Byte at which the slot of `site.toml` has its short name.
fn slot_of_site(image: &[u8]) -> usize {
    let found = image.windows(11).rposition(|name| name == b"SITE~1  TOM");
    found
        .or_else(|| image.windows(11).position(|name| name.starts_with(b"SITE")))
        .expect("a slot")
}

#[test]
fn lies_about_lengths_and_chains_are_refused() {
    let Some(image) = medium(16_384, "16", "VACONFIG") else {
        return;
    };
    let slot = slot_of_site(&image);
    let table = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
    let cluster = usize::from(u16::from_le_bytes([image[slot + 26], image[slot + 27]]));
    let entry = table + 2 * cluster;
    let cluster = u16::try_from(cluster).expect("FAT16").to_le_bytes();
    let say = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = image.clone();
        change(&mut image);
        read(&image).expect_err("damaged")
    };
    let size = |bytes: u32| {
        move |image: &mut Vec<u8>| image[slot + 28..slot + 32].copy_from_slice(&bytes.to_le_bytes())
    };
    assert!(say(&size(u32::MAX)).contains("too long: `site.toml` has 4294967295 bytes"));
    assert!(say(&size(200_000)).contains("less than its 200000 bytes"));
    assert!(
        say(&|image| {
            size(200_000)(image);
            image[entry..entry + 2].copy_from_slice(&cluster);
        })
        .contains("circle")
    );
    for bad in [0_u16, 1, 0xfff7, 0xffef] {
        let say = say(&|image| {
            size(200_000)(image);
            image[entry..entry + 2].copy_from_slice(&bad.to_le_bytes());
        });
        assert!(say.contains("lead nowhere"), "{bad:#x}: {say}");
    }
    assert!(say(&|image| image.truncate(1 << 20)).contains("cut off"));
}

#[test]
fn impossible_boot_sectors_are_not_fat() {
    let Some(image) = medium(1440, "12", "VACONFIG") else {
        return;
    };
    for (at, byte) in [
        (13, 0),
        (13, 3),
        (11, 1),
        (12, 0),
        (14, 0),
        (16, 0),
        (16, 9),
        (510, 0),
        (0, 0),
    ] {
        let mut image = image.clone();
        image[at] = byte;
        assert_eq!(read(&image), Ok(None), "{at} {byte}");
    }
}

#[test]
fn damaged_media_never_panic_or_hang() {
    const ROUNDS: u32 = 4_000;
    let start = Instant::now();
    for (kib, bits) in [(1440, "12"), (16_384, "16"), (66_000, "32")] {
        let Some(mut image) = medium(kib, bits, "VACONFIG") else {
            return;
        };
        let reserved = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
        let slot = slot_of_site(&image);
        // A xorshift generator: the same damage in every run.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 16).expect("64 bits")
        };
        for _ in 0..ROUNDS {
            let mut undo = Vec::new();
            for _ in 0..=next() % 4 {
                let at = match next() % 3 {
                    0 => next() % 96,
                    1 => reserved + next() % 512,
                    _ => slot.saturating_sub(256) + next() % 512,
                };
                undo.push((at, image[at]));
                image[at] = u8::try_from(next() % 256).expect("a byte");
            }
            if let Ok(Some(found)) = read(&image) {
                let is_short = |file: &Vec<u8>| file.len() as u64 <= FILE_LIMIT;
                assert!(found.files.values().all(is_short));
            }
            for (at, byte) in undo.into_iter().rev() {
                image[at] = byte;
            }
        }
    }
    assert!(
        start.elapsed().as_secs() < 120,
        "12,000 media took {:?}",
        start.elapsed()
    );
}
