//! What the fuzz targets share: bytes in, every reading that they allow.
//!
//! A reader may refuse; it must not panic, hang or take much memory.

pub mod openpgp;
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
        let _read = image.disk.read_exact_at(&mut buffer[..length as usize], range.start);
        read += length;
        if read > MOST {
            break;
        }
    }
}

/// Lists a volume two folders deep, and reads its small files.
pub fn volume(volume: &Volume) {
    let Ok(entries) = volume.list("/") else {
        return;
    };
    for entry in entries.iter().take(50) {
        let path = String::from_utf8_lossy(&entry.name).into_owned();
        if entry.kind == Kind::Directory {
            let _listed = volume.list(&path);
        } else if entry.size < MOST {
            let _read = volume.read(&path, &mut |_| Ok(()));
        }
    }
    if let Volume::Fat(fat) = volume {
        let _usage = fat.usage();
    }
}
