//! What the fuzz targets share: bytes in, every reading that they allow.
//!
//! A reader may refuse; it must not panic, hang or take much memory.

pub mod openpgp;
pub mod seal;
pub mod vhdx;

use std::sync::Arc;

use consign::image::ImageFormat;
use consign::inspect::{Kind, Volume, open_source};
use consign::sparse::{Bytes, SparseSource};

/// Most bytes that are read of a disk: packed ones may claim far more.
const MOST: u64 = 4 << 20;

/// A disk of these bytes.
pub fn source(bytes: &[u8]) -> Arc<dyn SparseSource> {
    Arc::new(Bytes(bytes.into()))
}

/// Opens the bytes as an image and reads what is in it.
pub fn container(bytes: &[u8], format: ImageFormat) {
    let Ok(image) = open_source(source(bytes), Some(format)) else {
        return;
    };
    let mut read = 0;
    let mut buffer = vec![0; 1 << 16];
    for range in image.disk.data_ranges() {
        let length = (range.end - range.start).min(1 << 16);
        let _read = image
            .disk
            .read_exact_at(&mut buffer[..length as usize], range.start);
        read += length;
        if read > MOST {
            break;
        }
    }
}

/// Lists a volume two folders deep, follows its links, and reads its small
/// files.
pub fn volume(volume: &Volume) {
    let Ok(entries) = volume.list("/") else {
        return;
    };
    for entry in entries.iter().take(50) {
        if matches!(entry.kind, Kind::Directory | Kind::Symlink(_)) {
            let _listed = volume.list(&entry.name);
            let below = [&entry.name[..], b"/../", &entry.name[..], b"/x"].concat();
            let _listed = volume.list(below);
        } else if entry.size < MOST {
            let _read = volume.read(&entry.name, &mut |_| Ok(()));
        }
    }
    if let Volume::Fat(fat) = volume {
        let _usage = fat.usage();
    }
}
