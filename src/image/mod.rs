//! Image files: from a disk to what is handed over.
//!
//! In: a disk as a [`SparseSource`] and one [`ImageSpec`] for each file. Out:
//! the [`Artifact`]s, each whole or not at all, and the disk's content root.
//! The disk is read once for all of them; no temporary raw image exists.
//! Never here: partitions, file systems, choices. Checked by: `qemu-img check`
//! and `compare`, and qcow2-rs (`tests/it/formats/image.rs`, `tests/judges`).
//!
//! The same disk gives the same bytes with any number of threads, with and
//! without a cache.

mod ahead;
mod cache;
mod codec;
mod deflate;
mod error;
mod ordered;
pub(crate) mod ova;
mod pass;
pub(crate) mod qcow2;
mod raw;
pub(crate) mod raw_zst;
mod root;
mod spec;
pub(crate) mod vhd;
pub(crate) mod vhdx;
pub(crate) mod vmdk;

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

pub use ahead::Ahead;
pub use error::ImageError;
pub use ova::{Envelope, Member, PackedDisk, Sha1Hex};
pub use spec::{Compression, FileSum, ImageFormat, ImageSpec, Voucher, WriteOptions, ZstdLevel};

use crate::artifact::{Artifact, ArtifactKind, PendingFile};
use crate::digest::{ContentRoot, Digest};
use crate::report::{Outcome, Reporter};
use crate::sparse::SparseSource;
use crate::units::ByteSize;
use cache::{Keeper, PackPaths, Stock};
use codec::{Codec, Packer};
use ova::OvaWriter;
use pass::{CHUNK_SIZE, Container, Packed, Piece, Press, Presses};
use qcow2::{CompressionType, Qcow2Writer};
use raw::RawWriter;
use raw_zst::RawZstWriter;
use vhd::VhdWriter;
use vhdx::VhdxWriter;
use vmdk::VmdkWriter;

/// Bytes that are hashed and packed together: a leaf of the content root and
/// a cluster of qcow2.
pub(crate) const CLUSTER_SIZE: usize = root::LEAF_SIZE;

/// Bytes of the longest stored block of deflate.
const STORED: usize = 65_535;

/// Bytes of the disk after which the system is asked to begin with writing.
const BEGIN_EVERY: usize = 16 << 20;

/// The name of this room's step in events.
const STEP: &str = "image";

/// Writes all images of `disk` into the folder `out_dir` in one pass.
///
/// The files appear under their names when all of them are complete and
/// synced; older ones of the same names stay until then.
///
/// # Errors
///
/// [`ImageError`] for whatever a format cannot hold, before anything is
/// written; for what `disk` reports; and for what the system reports.
pub fn write_all(
    specs: &[ImageSpec],
    disk: &dyn SparseSource,
    out_dir: &Path,
    options: &WriteOptions<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<Artifact>, ImageError> {
    reporter.started(STEP);
    for spec in specs {
        spec.check(disk.size(), options.envelope)?;
    }
    let threads = pass::thread_count(options.threads, most_threads(specs));
    let presses = presses(specs, options);
    let mut outputs = specs
        .iter()
        .map(|spec| Output::create(spec, disk.size(), out_dir, &presses, options.envelope))
        .collect::<Result<Vec<_>, _>>()?;
    let mut memory = Memory::new(specs, options, &presses, reporter);
    let mut progress = Progress::new(disk, reporter);
    let root = pass::run(disk, &presses, threads, |piece| {
        for output in &mut outputs {
            output.append(&piece)?;
        }
        memory.note(&piece);
        progress.reached(&piece);
        Ok(())
    })?;
    let artifacts = finish(outputs, root, options.voucher)?;
    let detail = memory.finish(&presses, progress.clusters);
    reporter.finished(STEP, Outcome::Done, detail);
    Ok(artifacts)
}

/// From this level of zstd on, a thread has more than 30 MiB for a chunk.
const COSTLY_LEVEL: i32 = 10;

/// How many threads are enough when nobody asks for a number: chunks of 4 MiB
/// at a high level take up to 80 MiB each.
fn most_threads(specs: &[ImageSpec]) -> Option<NonZeroUsize> {
    let is_costly = |spec: &ImageSpec| match spec.compression {
        Compression::Zstd(level) => {
            spec.format == ImageFormat::RawZst && level.number() >= COSTLY_LEVEL
        }
        Compression::Deflate => false,
    };
    specs
        .iter()
        .any(is_costly)
        .then_some(NonZeroUsize::MIN.saturating_add(1))
}

/// The root over the logical content of `disk`: see `root.rs` for its
/// definition. Equal for every image of the disk, whatever the format.
///
/// # Errors
///
/// What `disk` reports.
pub fn content_root(disk: &dyn SparseSource) -> Result<ContentRoot, ImageError> {
    pass::run(
        disk,
        &Presses::default(),
        pass::thread_count(None, None),
        |_| Ok(()),
    )
}

fn codec(spec: &ImageSpec) -> Option<Codec> {
    let level = match spec.compression {
        Compression::Deflate => ZstdLevel::default(),
        Compression::Zstd(level) => level,
    };
    match (spec.format, spec.compression) {
        (ImageFormat::Raw | ImageFormat::Vhdx | ImageFormat::Vhd, _) => None,
        (ImageFormat::RawZst, _) => Some(Codec::Stream(level.number())),
        (ImageFormat::Vmdk | ImageFormat::Ova, _) | (ImageFormat::Qcow2, Compression::Deflate) => {
            Some(Codec::Deflate)
        }
        (ImageFormat::Qcow2, Compression::Zstd(_)) => Some(Codec::Zstd(level.number())),
    }
}

/// One press for each codec, however many images use it.
fn presses(specs: &[ImageSpec], options: &WriteOptions<'_>) -> Presses {
    let mut codecs: Vec<Codec> = specs.iter().filter_map(codec).collect();
    codecs.sort_unstable();
    codecs.dedup();
    let press = |codec| Press {
        packer: Packer::new(codec),
        stock: pack_paths(specs, options, codec).map(|paths| Stock::open(&paths)),
        ahead: options
            .ahead
            .map(|ahead| ahead.take(codec))
            .unwrap_or_default(),
    };
    let (chunks, clusters) = codecs
        .into_iter()
        .partition::<Vec<_>, _>(|codec| matches!(codec, Codec::Stream(_)));
    Presses {
        clusters: clusters.into_iter().map(press).collect(),
        chunks: chunks.into_iter().map(press).collect(),
    }
}

/// Where the packs of `codec` are, named after the first image that uses it.
fn pack_paths(specs: &[ImageSpec], options: &WriteOptions<'_>, of: Codec) -> Option<PackPaths> {
    let folder = options.cluster_cache.as_deref()?;
    let image = specs.iter().find(|spec| codec(spec) == Some(of))?;
    Some(PackPaths::new(folder, &image.file_name, of))
}

/// A file in the making.
struct Output<'a> {
    spec: &'a ImageSpec,
    path: PathBuf,
    pending: PendingFile,
    container: Box<dyn Container + 'a>,
    /// Clusters since the system was last asked to begin with writing.
    unasked: usize,
    /// Bytes that it was asked to write.
    asked: u64,
}

impl<'a> Output<'a> {
    fn create(
        spec: &'a ImageSpec,
        size: ByteSize,
        out_dir: &Path,
        presses: &Presses,
        envelope: Option<&'a dyn Envelope>,
    ) -> Result<Self, ImageError> {
        let path = out_dir.join(&spec.file_name);
        let failed = |source| ImageError::Write {
            path: path.clone(),
            source,
        };
        let pending = PendingFile::create(&path).map_err(failed)?;
        let container = match envelope {
            Some(envelope) if spec.format == ImageFormat::Ova => {
                let store = tempfile::tempfile_in(out_dir).map_err(failed)?;
                Box::new(OvaWriter::new(size, envelope, store, packer(spec, presses)))
            }
            _ => container(spec, size, presses),
        };
        Ok(Self {
            spec,
            path,
            pending,
            container,
            unasked: 0,
            asked: 0,
        })
    }

    fn failed(&self, source: io::Error) -> ImageError {
        ImageError::Write {
            path: self.path.clone(),
            source,
        }
    }

    fn append(&mut self, piece: &Piece) -> Result<(), ImageError> {
        let file = self.pending.file();
        let mut appended = Ok(());
        for cluster in &piece.clusters {
            appended = appended.and_then(|()| self.container.append(file, cluster));
        }
        if let Some(chunk) = &piece.chunk {
            appended = appended.and_then(|()| self.container.append_chunk(file, chunk));
        }
        appended.map_err(|source| self.failed(source))?;
        self.unasked += piece.clusters.len();
        if self.unasked * CLUSTER_SIZE >= BEGIN_EVERY && self.spec.sum == FileSum::Skip {
            self.unasked = 0;
            self.begin_writing();
        }
        Ok(())
    }

    /// Asks the system to bring what has been written to the disk, so that
    /// the sync in the end waits for the rest only. What is on the disk then
    /// leaves the memory: not for files that are read again for their digest.
    fn begin_writing(&mut self) {
        use rustix::fs::{Advice, fadvise};
        let file = self.pending.file();
        let length = file.metadata().map_or(0, |found| found.len());
        if let Some(count) = NonZeroU64::new(length.saturating_sub(self.asked)) {
            // Without it the sync takes longer, and nothing else.
            let _begun = fadvise(file, self.asked, Some(count), Advice::DontNeed);
            self.asked = length;
        }
    }

    /// Writes the rest and syncs, and reads the file for its digest meanwhile.
    fn complete(&mut self, root: &ContentRoot) -> Result<(ByteSize, Option<Digest>), ImageError> {
        let file = self.pending.file();
        let complete = self.container.finish(file, root).and_then(|()| {
            std::thread::scope(|scope| {
                let sync = scope.spawn(|| file.sync_all());
                let digest = match self.spec.sum {
                    FileSum::Compute => Some(Digest::of_file(file)?),
                    FileSum::Skip => None,
                };
                let synced = sync.join();
                synced.unwrap_or_else(|_| Err(io::Error::other("the syncing thread died")))?;
                let size = ByteSize::from_bytes(file.metadata()?.len());
                Ok((size, digest))
            })
        });
        complete.map_err(|source| self.failed(source))
    }
}

/// Which of the presses is an image's own.
fn packer(spec: &ImageSpec, presses: &Presses) -> usize {
    let all = match spec.format {
        ImageFormat::RawZst => &presses.chunks,
        _ => &presses.clusters,
    };
    all.iter()
        .position(|press| Some(press.packer.codec()) == codec(spec))
        .unwrap_or_default()
}

/// The writer of a format. A package's is made where its envelope is known.
fn container(spec: &ImageSpec, size: ByteSize, presses: &Presses) -> Box<dyn Container> {
    let packer = packer(spec, presses);
    match spec.format {
        ImageFormat::Raw => Box::new(RawWriter::new(size)),
        ImageFormat::RawZst => Box::new(RawZstWriter::new(size, packer)),
        ImageFormat::Qcow2 => {
            let compression = match spec.compression {
                Compression::Deflate => CompressionType::Deflate,
                Compression::Zstd(_) => CompressionType::Zstd,
            };
            Box::new(Qcow2Writer::new(size, compression, packer))
        }
        ImageFormat::Vmdk | ImageFormat::Ova => {
            Box::new(VmdkWriter::new(size, &spec.file_name, packer))
        }
        ImageFormat::Vhdx => Box::new(VhdxWriter::new(size)),
        ImageFormat::Vhd => Box::new(VhdWriter::new(size)),
    }
}

/// Completes every file, all at once, before the first of them gets its name.
fn finish(
    mut outputs: Vec<Output>,
    root: ContentRoot,
    voucher: Option<&dyn Voucher>,
) -> Result<Vec<Artifact>, ImageError> {
    let complete = std::thread::scope(|scope| {
        let root = &root;
        let threads: Vec<_> = outputs
            .iter_mut()
            .map(|output| scope.spawn(move || output.complete(root)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()
    })?;
    if voucher.is_some_and(|voucher| !voucher.vouches()) {
        return Err(ImageError::Withdrawn);
    }
    let mut artifacts = Vec::new();
    for (output, (size, digest)) in outputs.into_iter().zip(complete) {
        let path = output.path;
        let committed = output.pending.commit();
        committed.map_err(|source| ImageError::Write {
            path: path.clone(),
            source,
        })?;
        artifacts.push(Artifact {
            path,
            kind: ArtifactKind::Disk,
            size,
            digest,
            content_root: Some(root),
        });
    }
    Ok(artifacts)
}

/// The caches of a build. They never make it fail.
struct Memory<'a> {
    clusters: Vec<Option<Keeper>>,
    chunks: Vec<Option<Keeper>>,
    reused: u64,
    reporter: &'a dyn Reporter,
}

impl<'a> Memory<'a> {
    fn new(
        specs: &[ImageSpec],
        options: &WriteOptions<'_>,
        presses: &Presses,
        reporter: &'a dyn Reporter,
    ) -> Self {
        let keeper = |press: &Press| {
            let paths = pack_paths(specs, options, press.packer.codec())?;
            Some(Keeper::new(paths, press.stock.as_ref()?))
        };
        let mut memory = Self {
            clusters: presses.clusters.iter().map(keeper).collect(),
            chunks: presses.chunks.iter().map(keeper).collect(),
            reused: 0,
            reporter,
        };
        if let Some(folder) = &options.cluster_cache
            && let Err(error) = std::fs::create_dir_all(folder)
        {
            memory.clusters.clear();
            memory.chunks.clear();
            warn(reporter, &error);
        }
        memory
    }

    fn note(&mut self, piece: &Piece) {
        let reused = |packed: &[Packed]| packed.iter().all(|packed| packed.reused);
        for cluster in &piece.clusters {
            let chunks = piece.chunk.as_ref().map_or(&[][..], |chunk| &chunk.packed);
            let has_any = !cluster.packed.is_empty() || !chunks.is_empty();
            self.reused += u64::from(has_any && reused(&cluster.packed) && reused(chunks));
            keep(
                &mut self.clusters,
                &cluster.leaf,
                &cluster.packed,
                self.reporter,
            );
        }
        if let Some(chunk) = &piece.chunk {
            keep(&mut self.chunks, &chunk.key, &chunk.packed, self.reporter);
        }
    }

    fn finish(self, presses: &Presses, clusters: u64) -> String {
        let keepers = self.clusters.into_iter().zip(&presses.clusters);
        let keepers = keepers.chain(self.chunks.into_iter().zip(&presses.chunks));
        for (keeper, press) in keepers {
            if let (Some(keeper), Some(stock)) = (keeper, &press.stock)
                && let Err(error) = keeper.finish(stock)
            {
                warn(self.reporter, &error);
            }
        }
        let reused = self.reused;
        format!("{clusters} clusters of 64 KiB, {reused} of them packed before")
    }
}

/// Gives each keeper its form; one that fails is let go.
fn keep(keepers: &mut [Option<Keeper>], key: &Digest, packed: &[Packed], reporter: &dyn Reporter) {
    for (slot, packed) in keepers.iter_mut().zip(packed) {
        if let Some(keeper) = slot
            && let Err(error) = keeper.note(key, packed)
        {
            *slot = None;
            warn(reporter, &error);
        }
    }
}

fn warn(reporter: &dyn Reporter, error: &io::Error) {
    let message = format!("packed clusters cannot be kept for the next build: {error}");
    reporter.warn(message, None);
}

/// Says how far the pass is, now and then.
struct Progress<'a> {
    reporter: &'a dyn Reporter,
    total: ByteSize,
    clusters: u64,
    /// Clusters at which it is said again.
    next: u64,
}

impl<'a> Progress<'a> {
    fn new(disk: &dyn SparseSource, reporter: &'a dyn Reporter) -> Self {
        let data = disk.data_ranges().map(|range| range.end - range.start);
        Self {
            reporter,
            total: ByteSize::from_bytes(data.sum()),
            clusters: 0,
            next: 0,
        }
    }

    fn reached(&mut self, piece: &Piece) {
        const EVERY: u64 = (4 * CHUNK_SIZE / CLUSTER_SIZE) as u64;
        self.clusters += piece.clusters.len() as u64;
        if self.clusters >= self.next {
            self.next = self.clusters + EVERY;
            let done = ByteSize::from_bytes(self.clusters * CLUSTER_SIZE as u64);
            self.reporter
                .bytes(STEP, done.min(self.total), Some(self.total));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_costly_levels_of_raw_zst_have_few_threads() {
        let spec = |format, level| ImageSpec {
            compression: Compression::Zstd(ZstdLevel::new(level).expect("a level")),
            ..ImageSpec::new("disk", format)
        };
        let two = NonZeroUsize::new(2);
        assert_eq!(most_threads(&[spec(ImageFormat::RawZst, 9)]), None);
        assert_eq!(most_threads(&[spec(ImageFormat::Qcow2, 19)]), None);
        let costly = spec(ImageFormat::RawZst, 10);
        assert_eq!(most_threads(&[spec(ImageFormat::Qcow2, 3), costly]), two);
        let threads = |wanted, most| pass::thread_count(NonZeroUsize::new(wanted), most).get();
        assert_eq!((threads(7, two), threads(7, None)), (7, 7));
        assert!(threads(0, two) <= 2);
    }
}
