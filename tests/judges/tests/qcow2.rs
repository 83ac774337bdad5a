//! qcow2 images, read back with qcow2-rs.

use std::fs;
use std::path::{Path, PathBuf};

use consign::image::{ImageFormat, ImageSpec, WriteOptions, write_all};
use consign::report::Silent;
use consign::sparse::{PageMap, SparseSource};
use consign::units::{ByteSize, MIB};
use judges::read_qcow2;

const SIZE: usize = 600 << 20;

/// A disk over two L2 tables, with data that packs, data that does not, and holes.
fn disk() -> PageMap {
    let mut disk = PageMap::new(ByteSize::from_bytes(SIZE as u64));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |count: usize, values: u8| -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[5]
        };
        (0..count).map(|_| next() % values).collect()
    };
    for (at, bytes) in [
        (0, noise(900_000, 7)),
        (2 * MIB + 33, noise(400_000, 255)),
        (5 * MIB, b"a line of a log, again and again\n".repeat(9_000)),
        (511 * MIB + 500_000, noise(900_000, 20)),
        (SIZE as u64 - 70_000, noise(70_000, 3)),
    ] {
        disk.write_at(&bytes, at).expect("inside");
    }
    disk
}

fn write(folder: &Path) -> PathBuf {
    let specs = [ImageSpec::new("disk", ImageFormat::Qcow2)];
    let options = WriteOptions::default();
    let made = write_all(&specs, &disk(), folder, &options, &Silent).expect("written");
    made[0].path.clone()
}

fn expected() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    disk().read_exact_at(&mut bytes, 0).expect("inside");
    bytes
}

#[test]
fn qcow2_rs_reads_the_disk_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = read_qcow2(&write(folder.path())).expect("readable");
    assert!(read == expected());
}

#[test]
fn qcow2_rs_notices_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = write(folder.path());
    let mut bytes = fs::read(&image).expect("read");
    // The first packed cluster: behind the header and the L1 table.
    bytes[2 * 65_536 + 50..2 * 65_536 + 90].fill(0x5a);
    fs::write(&image, &bytes).expect("write");
    let read = read_qcow2(&image);
    assert!(read.is_err() || read.is_ok_and(|read| read != expected()));
}
