//! Image files, judged by `qemu-img check` and `compare`.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use consign::artifact::Artifact;
use consign::digest::Digest;
use consign::image::{
    Ahead, Compression, FileSum, ImageError, ImageFormat, ImageSpec, WriteOptions, content_root,
    write_all,
};
use consign::report::{Event, Recorder, Silent};
use consign::sparse::{FileSource, PageMap, SparseSource, Zeros};
use consign::units::{ByteSize, GIB, MIB, TIB};
use proptest::prelude::*;

use crate::support::{Checker, cases, is_root, must_run, note, program, temp_folder};

const CLUSTER: u64 = 65_536;

/// Numbers that look random and are the same everywhere.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[3]).collect()
    }

    /// Words from a small vocabulary.
    pub(super) fn text(&mut self, count: usize) -> Vec<u8> {
        let words = [
            "usr", "share", "lib", "python3", "kernel", "the ", "= 0\n", "/",
        ];
        let mut text = Vec::with_capacity(count + 8);
        while text.len() < count {
            let pick = usize::try_from(self.next() % 8).expect("small");
            text.extend_from_slice(words[pick].as_bytes());
        }
        text.truncate(count);
        text
    }
}

/// A disk with text, noise, runs of one byte, holes and odd edges.
pub(super) fn disk(size: u64) -> PageMap {
    let mut disk = PageMap::new(ByteSize::from_bytes(size));
    let mut noise = Noise(0x1234_5678_9abc_def1);
    let mut put = |bytes: Vec<u8>, at: u64| disk.write_at(&bytes, at).expect("inside");
    put(noise.text(700_000), 0);
    put(noise.bytes(300_000), 3 * MIB + 4096);
    put(vec![0xff; 200_000], 4 * MIB + 17);
    put(noise.text(40_000), 5 * MIB);
    put(noise.bytes(65_536), 6 * MIB);
    put(noise.text(65_536), 6 * MIB + CLUSTER);
    put(vec![1], 9 * MIB);
    put(noise.text(5_000), size - 5_000);
    disk
}

/// All formats that need nothing but a disk.
pub(super) fn disk_formats() -> &'static [ImageFormat] {
    let (ova, others) = ImageFormat::ALL.split_last().expect("many");
    assert_eq!(*ova, ImageFormat::Ova);
    others
}

fn specs(name: &str) -> Vec<ImageSpec> {
    vec![
        ImageSpec::new(name, ImageFormat::Raw),
        ImageSpec::new(name, ImageFormat::Qcow2),
        ImageSpec {
            file_name: format!("{name}-zstd.qcow2"),
            compression: Compression::Zstd("3".parse().expect("a level")),
            ..ImageSpec::new(name, ImageFormat::Qcow2)
        },
    ]
}

fn write(disk: &dyn SparseSource, folder: &Path, options: &WriteOptions) -> Vec<Artifact> {
    write_all(&specs("disk"), disk, folder, options, &Silent).expect("written")
}

pub(super) fn with_threads(count: usize) -> WriteOptions<'static> {
    WriteOptions {
        threads: NonZeroUsize::new(count),
        ..WriteOptions::default()
    }
}

pub(super) fn names_in(folder: &Path) -> Vec<PathBuf> {
    let listed = consign::tree::list_folder(folder).expect("a folder");
    listed
        .iter()
        .map(|entry| folder.join(&entry.name))
        .collect()
}

pub(super) fn digest(path: &Path) -> Digest {
    Digest::of(&fs::read(path).expect("read"))
}

#[test]
fn every_image_is_sound_and_holds_the_disk() {
    let folder = temp_folder();
    let disk = disk(40 * MIB + 512);
    let artifacts = write(&disk, folder.path(), &WriteOptions::default());
    let [raw, deflate, zstd] = &artifacts[..] else {
        panic!("three images");
    };
    let mut bytes = vec![0; 40 * 1024 * 1024 + 512];
    disk.read_exact_at(&mut bytes, 0).expect("read");
    assert!(fs::read(&raw.path).expect("read") == bytes);
    for image in [deflate, zstd] {
        Checker::QemuImgCheck.accepts(&image.path);
        Checker::QemuImgCompare.accepts_all(&[&raw.path, &image.path]);
        assert_eq!(image.digest, Some(digest(&image.path)));
        assert_eq!(
            image.size.bytes(),
            fs::metadata(&image.path).expect("stat").len()
        );
        assert_eq!(image.content_root, raw.content_root);
    }
    assert_eq!(raw.digest, None, "a raw image's sum is extra work");
    assert_eq!(names_in(folder.path()).len(), 3, "and nothing else");
}

#[test]
fn checkers_reject_damaged_images() {
    let folder = temp_folder();
    let artifacts = write(&disk(40 * MIB), folder.path(), &WriteOptions::default());
    let (raw, image) = (&artifacts[0].path, &artifacts[1].path);
    let sound = fs::read(image).expect("read");
    let damage = |at: usize, bytes: &[u8]| {
        let mut damaged = sound.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(image, damaged).expect("write");
    };
    // The L2 table that the first L1 entry names, and its first entry.
    let l2 = u64::from_be_bytes(sound[65_536..65_544].try_into().expect("8")) & !(1 << 63);
    let l2 = usize::try_from(l2).expect("small");
    damage(l2, &[0; 8]);
    Checker::QemuImgCheck.rejects(image);
    // The bytes of the first cluster.
    damage(2 * 65_536 + 100, &[0x55; 40]);
    Checker::QemuImgCompare.rejects_all(&[raw, image]);
}

#[test]
fn the_number_of_threads_does_not_show() {
    let disk = disk(40 * MIB);
    let digests = [1, 2, 7].map(|threads| {
        let folder = temp_folder();
        let artifacts = write(&disk, folder.path(), &with_threads(threads));
        let roots = artifacts[0].content_root;
        (
            roots,
            artifacts
                .iter()
                .map(|made| digest(&made.path))
                .collect::<Vec<_>>(),
        )
    });
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
}

#[test]
fn zeros_are_holes_in_a_raw_image_and_absent_from_qcow2() {
    let folder = temp_folder();
    let mut disk = PageMap::new(ByteSize::from_bytes(3 * TIB));
    disk.write_at(&[1], 2 * TIB).expect("inside");
    disk.write_at(&[2; 4096], 2 * TIB + 2 * GIB)
        .expect("inside");
    // Data by its ranges, zeros by its bytes.
    disk.write_at(&[1; 8192], 4096).expect("inside");
    disk.write_at(&[0; 8192], 4096).expect("inside");
    let artifacts = write(&disk, folder.path(), &WriteOptions::default());
    let raw = fs::metadata(&artifacts[0].path).expect("stat");
    assert_eq!((raw.len(), raw.blocks()), (3 * TIB, 16));
    for image in &artifacts[1..] {
        Checker::QemuImgCheck.accepts(&image.path);
        Checker::QemuImgCompare.accepts_all(&[&artifacts[0].path, &image.path]);
        // Header, L1, two L2, one with both packed clusters, refcount table and block.
        assert_eq!(image.size.bytes(), 7 * CLUSTER, "{}", image.path.display());
    }
}

#[test]
fn an_empty_disk_has_an_image() {
    let folder = temp_folder();
    for size in [
        ByteSize::ZERO,
        ByteSize::from_bytes(512),
        ByteSize::from_mib(3),
    ] {
        let artifacts = write(&Zeros(size), folder.path(), &WriteOptions::default());
        assert_eq!(artifacts[0].size, size);
        for image in &artifacts[1..] {
            Checker::QemuImgCheck.accepts(&image.path);
            Checker::QemuImgCompare.accepts_all(&[&artifacts[0].path, &image.path]);
        }
    }
}

#[test]
fn all_containers_have_the_content_root_of_the_disk() {
    let folder = temp_folder();
    let disk = disk(40 * MIB);
    let root = content_root(&disk).expect("readable");
    let artifacts = write(&disk, folder.path(), &WriteOptions::default());
    assert!(artifacts.iter().all(|made| made.content_root == Some(root)));
    let raw = FileSource::new(File::open(&artifacts[0].path).expect("open")).expect("stat");
    assert_eq!(content_root(&raw).expect("readable"), root);
    for image in &artifacts[1..] {
        let Some(mut convert) = program("qemu-img", "qemu-utils") else {
            return;
        };
        let unpacked = folder.path().join("unpacked.raw");
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]);
        must_run(convert.arg(&image.path).arg(&unpacked));
        let unpacked = FileSource::new(File::open(&unpacked).expect("open")).expect("stat");
        assert_eq!(content_root(&unpacked).expect("readable"), root);
    }
    let mut changed = disk.clone();
    changed.write_at(&[7], 20 * MIB).expect("inside");
    assert_ne!(content_root(&changed).expect("readable"), root);
}

#[test]
fn a_whole_file_sum_of_a_raw_image_is_made_when_asked_for() {
    let folder = temp_folder();
    let spec = ImageSpec {
        sum: FileSum::Compute,
        ..ImageSpec::new("disk", ImageFormat::Raw)
    };
    let options = WriteOptions::default();
    let made = write_all(&[spec], &disk(40 * MIB), folder.path(), &options, &Silent);
    let made = made.expect("written");
    assert_eq!(made[0].digest, Some(digest(&made[0].path)));
}

#[test]
fn a_cache_changes_the_time_but_not_the_bytes() {
    let folder = temp_folder();
    let cached = WriteOptions {
        cluster_cache: Some(folder.path().join("cache")),
        ..with_threads(2)
    };
    let mut disk = disk(40 * MIB);
    let build = |disk: &PageMap, options: &WriteOptions| {
        let out = temp_folder();
        let recorder = Recorder::default();
        let made = write_all(&specs("disk"), disk, out.path(), options, &recorder);
        let made = made.expect("written");
        let digests: Vec<Digest> = made.iter().map(|made| digest(&made.path)).collect();
        (digests, detail(&recorder))
    };
    let (first, said) = build(&disk, &cached);
    assert_eq!(said, "25 clusters of 64 KiB, 0 of them packed before");
    let (second, said) = build(&disk, &cached);
    assert_eq!(said, "25 clusters of 64 KiB, 25 of them packed before");
    assert_eq!(first, second);
    for round in 0..12_u8 {
        disk.write_at(&[round + 1; 9_000], 12 * MIB)
            .expect("inside");
        let (changed, said) = build(&disk, &cached);
        assert_eq!(said, "26 clusters of 64 KiB, 25 of them packed before");
        assert_eq!(changed, build(&disk, &with_threads(1)).0, "round {round}");
    }
    let packs = names_in(&folder.path().join("cache"));
    assert!(packs.len() <= 16, "{packs:?}");
}

#[test]
fn what_was_packed_ahead_changes_no_byte() {
    let disk = disk(40 * MIB);
    let ahead = Ahead::new(&specs("disk"), &with_threads(1));
    for at in 0..40 * MIB / CLUSTER {
        let mut cluster = vec![0; 65_536];
        disk.read_exact_at(&mut cluster, at * CLUSTER)
            .expect("inside");
        ahead.offer(&mut &cluster[..], CLUSTER).expect("memory");
    }
    let options = WriteOptions {
        ahead: Some(&ahead),
        ..with_threads(2)
    };
    let (with, without) = (temp_folder(), temp_folder());
    let digests = |made: Vec<Artifact>| -> Vec<Digest> {
        made.iter().map(|made| digest(&made.path)).collect()
    };
    assert_eq!(
        digests(write(&disk, with.path(), &options)),
        digests(write(&disk, without.path(), &with_threads(1)))
    );
}

fn detail(recorder: &Recorder) -> String {
    let finished = recorder
        .events()
        .into_iter()
        .rev()
        .find_map(|event| match event {
            Event::StepFinished { detail, .. } => Some(detail),
            _ => None,
        });
    finished.expect("the step ended")
}

#[test]
fn a_poisoned_cache_is_packed_anew() {
    let folder = temp_folder();
    let cache = folder.path().join("cache");
    let cached = WriteOptions {
        cluster_cache: Some(cache.clone()),
        ..with_threads(2)
    };
    let disk = disk(40 * MIB);
    let good: Vec<Digest> = write(&disk, folder.path(), &cached)
        .iter()
        .map(|made| digest(&made.path))
        .collect();
    let mut noise = Noise(99);
    for round in 0..40 {
        let packs = names_in(&cache);
        let victim = &packs[round % packs.len()];
        let mut bytes = fs::read(victim).expect("read");
        let length = bytes.len();
        let mut anywhere = || usize::try_from(noise.next()).unwrap_or(usize::MAX) % length;
        match round % 6 {
            0 | 1 => bytes[anywhere()] ^= 0x10,
            2 => bytes.truncate(anywhere()),
            3 => bytes.clear(),
            4 => bytes.swap(anywhere(), anywhere()),
            _ => bytes.extend_from_slice(b"more"),
        }
        fs::write(victim, bytes).expect("write");
        if round % 6 == 4 && packs.len() > 1 {
            let other = &packs[(round + 1) % packs.len()];
            let aside = folder.path().join("aside");
            fs::rename(victim, &aside).expect("swap");
            fs::rename(other, victim).expect("swap");
            fs::rename(&aside, other).expect("swap");
        }
        let made = write(&disk, folder.path(), &cached);
        let digests: Vec<Digest> = made.iter().map(|made| digest(&made.path)).collect();
        assert_eq!(digests, good, "round {round}");
    }
}

#[test]
fn builds_at_the_same_time_share_a_cache() {
    let folder = temp_folder();
    let options = WriteOptions {
        cluster_cache: Some(folder.path().join("cache")),
        ..with_threads(1)
    };
    let build = |round: u8| {
        let mut disk = disk(20 * MIB);
        disk.write_at(&vec![round; 300_000], 12 * MIB)
            .expect("inside");
        let out = temp_folder();
        let made = write(&disk, out.path(), &options);
        let plain = temp_folder();
        let uncached = write(&disk, plain.path(), &with_threads(1));
        for (one, other) in made.iter().zip(&uncached) {
            assert_eq!(digest(&one.path), digest(&other.path));
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..4_u8 {
            scope.spawn(move || (0..3).for_each(|round| build(worker * 3 + round + 1)));
        }
    });
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let folder = temp_folder();
    fs::write(folder.path().join("file"), b"in the way").expect("write");
    let options = WriteOptions {
        cluster_cache: Some(folder.path().join("file/cache")),
        ..with_threads(1)
    };
    let recorder = Recorder::default();
    let out = temp_folder();
    let made = write_all(
        &specs("disk"),
        &disk(40 * MIB),
        out.path(),
        &options,
        &recorder,
    );
    assert_eq!(made.expect("written").len(), 3);
    let warned = recorder.events().iter().any(|event| {
        matches!(event, Event::Warning { message, .. } if message.contains("cannot be kept"))
    });
    assert!(warned);
}

/// Data that cannot be read.
#[derive(Debug)]
struct Broken(PageMap);

impl SparseSource for Broken {
    fn size(&self) -> ByteSize {
        self.0.size()
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        self.0.data_ranges()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset == 5 * MIB {
            return Err(io::Error::other("bad sector"));
        }
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn a_failed_build_leaves_the_old_images_and_nothing_else() {
    let folder = temp_folder();
    for name in ["disk.raw", "disk.qcow2"] {
        fs::write(folder.path().join(name), b"old").expect("write");
    }
    let broken = Broken(disk(40 * MIB));
    let options = WriteOptions::default();
    let error = write_all(&specs("disk"), &broken, folder.path(), &options, &Silent);
    let error = error.expect_err("a sector is bad");
    assert_eq!(error.to_string(), "cannot read the disk at byte 5242880");
    assert_eq!(names_in(folder.path()).len(), 2);
    assert_eq!(
        fs::read(folder.path().join("disk.qcow2")).expect("read"),
        b"old"
    );
}

#[test]
fn what_a_format_cannot_hold_is_said_before_anything_is_written() {
    let folder = temp_folder();
    let refuse = |spec: &ImageSpec, size: u64| {
        let disk = Zeros(ByteSize::from_bytes(size));
        let options = WriteOptions::default();
        let specs = std::slice::from_ref(spec);
        write_all(specs, &disk, folder.path(), &options, &Silent).expect_err("impossible")
    };
    let qcow2 = ImageSpec::new("disk", ImageFormat::Qcow2);
    assert_eq!(
        refuse(&qcow2, 2048 * TIB + 512).to_string(),
        "a disk of 2251799813685760 bytes (2048 TiB) does not fit qcow2, \
         which ends at 2251799813685248 bytes (2048 TiB)"
    );
    assert_eq!(refuse(&qcow2, 1000).slug(), "image-partial-sector");
    let elsewhere = ImageSpec::new("../disk", ImageFormat::Raw);
    assert_eq!(
        refuse(&elsewhere, 512).to_string(),
        "`../disk.raw` is not a file name"
    );
    let error = "qcow3".parse::<ImageFormat>().expect_err("unknown");
    assert_eq!(error.to_string(), "`qcow3` is not an image format");
    assert_eq!(
        error.hint().expect("a list"),
        "use one or several of: raw, raw.zst, qcow2, vmdk, vhdx, vhd, ova"
    );
    assert!(names_in(folder.path()).is_empty());
    let nowhere = folder.path().join("missing");
    let options = WriteOptions::default();
    let error = write_all(
        &[qcow2],
        &Zeros(ByteSize::from_mib(1)),
        &nowhere,
        &options,
        &Silent,
    );
    let error = error.expect_err("no folder");
    assert!(matches!(error, ImageError::Write { .. }));
    let hint = error.hint().expect("what to do");
    assert_eq!(
        hint,
        format!("make the folder `{}` first", nowhere.display())
    );
}

#[test]
fn a_full_disk_leaves_nothing() {
    if !is_root() {
        return note("a small tmpfs needs root");
    }
    let folder = temp_folder();
    let Some(mut mount) = program("mount", "mount") else {
        return;
    };
    let small = folder.path().join("small");
    fs::create_dir(&small).expect("make");
    mount
        .args(["-t", "tmpfs", "-o", "size=300k", "tmpfs"])
        .arg(&small);
    if !mount.status().is_ok_and(|status| status.success()) {
        return note("this root may not mount a tmpfs");
    }
    let result = write_all(
        &specs("disk"),
        &disk(40 * MIB),
        &small,
        &WriteOptions::default(),
        &Silent,
    );
    let left = names_in(&small);
    must_run(
        program("umount", "mount")
            .expect("beside mount")
            .arg(&small),
    );
    let error = result.expect_err("300 KiB are not enough");
    assert!(
        error
            .hint()
            .expect("what to do")
            .starts_with("free space on"),
        "{error}"
    );
    assert!(left.is_empty(), "{left:?}");
}

/// Runs of bytes of several kinds at random places.
pub(super) fn a_disk() -> impl Strategy<Value = PageMap> {
    let run = (0_u64..8 * MIB, 1_usize..200_000, 0_u8..4, 1_u64..u64::MAX);
    (
        proptest::collection::vec(run, 0..12),
        8 * MIB / 512..20 * MIB / 512,
    )
        .prop_map(|(runs, sectors)| {
            let mut disk = PageMap::new(ByteSize::from_bytes(sectors * 512));
            for (at, length, kind, seed) in runs {
                let mut noise = Noise(seed);
                let bytes = match kind {
                    0 => noise.bytes(length),
                    1 => noise.text(length),
                    2 => vec![noise.next().to_le_bytes()[0]; length],
                    _ => vec![0; length],
                };
                let room = usize::try_from(sectors * 512 - at).expect("small");
                disk.write_at(&bytes[..length.min(room)], at)
                    .expect("inside");
            }
            disk
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), ..ProptestConfig::default() })]
    #[test]
    fn random_disks_survive_in_every_format(disk in a_disk()) {
        let folder = temp_folder();
        let artifacts = write(&disk, folder.path(), &with_threads(2));
        let length = usize::try_from(disk.size().bytes()).expect("small");
        let mut bytes = vec![0; length];
        disk.read_exact_at(&mut bytes, 0).expect("read");
        prop_assert!(fs::read(&artifacts[0].path).expect("read") == bytes);
        for image in &artifacts[1..] {
            Checker::QemuImgCheck.accepts(&image.path);
            Checker::QemuImgCompare.accepts_all(&[&artifacts[0].path, &image.path]);
        }
    }
}

#[test]
fn an_image_that_is_open_elsewhere_is_replaced_not_changed() {
    let folder = temp_folder();
    let first = write(&disk(40 * MIB), folder.path(), &with_threads(2));
    let open = File::open(&first[1].path).expect("open");
    let mut before = [0; 200];
    open.read_exact_at(&mut before, 2 * CLUSTER).expect("read");
    write(&disk(20 * MIB), folder.path(), &with_threads(2));
    let mut after = [0; 200];
    open.read_exact_at(&mut after, 2 * CLUSTER).expect("read");
    assert_eq!(before, after);
}
