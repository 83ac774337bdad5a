//! From a layer's tar to a volume in a file, and nothing else: what `ci/bench`
//! holds beside `mke2fs -d`.
//!
//!     tree-to-ext4 TAR IMAGE MIB [TAR...]
//!
//! The tars behind are layers over the first.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use consign::fs::ext4::{Ext4Options, Ext4Volume};
use consign::layer::tar::read_delta;
use consign::sparse::SparseSource as _;
use consign::tree::{Blob, FileTree};
use consign::units::{ByteSize, Guid, Timestamp};

/// Bytes that are read and written at once.
const PIECE: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [tar, image, mib, more @ ..] = args.as_slice() else {
        return Err("tree-to-ext4 TAR IMAGE MIB [TAR...]".into());
    };
    let mib: u64 = mib.to_str().unwrap_or_default().parse()?;
    let mut tree = FileTree::new();
    for layer in std::iter::once(tar).chain(more) {
        tree.apply(&read_delta(&Blob::open(Path::new(layer))?)?)?;
    }
    let options = Ext4Options::new(
        ByteSize::from_mib(mib),
        Guid::from_u128(0x0706_0504_0302_8100_8000_0000_0000_0001),
        Guid::from_u128(0x0706_0504_0302_8100_8000_0000_0000_0002),
        Timestamp::from_seconds(1_700_000_000),
    );
    write(&Ext4Volume::new(tree, &options)?, Path::new(image))?;
    Ok(())
}

/// On all cores, as a build does it: a volume answers for any place at once.
fn write(volume: &Ext4Volume, image: &Path) -> std::io::Result<()> {
    let file = File::create(image)?;
    file.set_len(volume.size().bytes())?;
    let pieces: Vec<(u64, usize)> = volume.data_ranges().flat_map(pieces).collect();
    let next = AtomicUsize::new(0);
    let work = || -> std::io::Result<()> {
        let mut buf = vec![0; PIECE];
        while let Some((at, length)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let part = &mut buf[..*length];
            volume.read_exact_at(part, *at)?;
            file.write_all_at(part, *at)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(ScopedJoinHandle::join)
            .try_for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, usize)> {
    let end = range.end;
    range.step_by(PIECE).map(move |at| {
        let left = usize::try_from(end - at).unwrap_or(PIECE);
        (at, left.min(PIECE))
    })
}
