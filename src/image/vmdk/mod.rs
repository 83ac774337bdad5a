//! VMDK images for transport: `streamOptimized`, the only kind that `ESXi`,
//! vCenter and OVA readers import.
//!
//! File, front to back: header, text descriptor, then grains as they come,
//! each with a marker; a grain table behind the last grain that it names; the
//! grain directory, the footer (a header that knows where the directory is)
//! and the end-of-stream marker. The header says that the footer counts.
//! Grains of zeros are not there. A grain is a cluster of the pass, so its
//! packed bytes are those of qcow2, wrapped as zlib.
//!
//! Version 3, a footer and an end: a file without them is refused by
//! importers that read it as a stream, with a message about its digest.

pub(crate) mod format;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U16, U32, U64};

use super::pass::{Cluster, Container};
use super::{CLUSTER_SIZE, ImageError, STORED};
use crate::digest::{ContentRoot, Digest, of_fields};
use crate::units::{ByteSize, TIB};
use format::{
    COMPRESSED, COMPRESSION_DEFLATE, ENTRIES_PER_TABLE, GD_AT_END, GrainMarker, MAGIC, MARKER_EOS,
    MARKER_FOOTER, MARKER_GD, MARKER_GT, MARKERS, Marker, SECTOR, SparseExtentHeader,
    TABLE_SECTORS, VALID_NEWLINE,
};

/// The largest disk: what a sector number of 32 bits reaches.
pub(super) const LIMIT: ByteSize = ByteSize::from_bytes(2 * TIB);

/// Sectors of a grain.
const GRAIN: u64 = CLUSTER_SIZE as u64 / SECTOR;
/// Where the descriptor is, and its room.
const DESCRIPTOR_OFFSET: u64 = 1;
const DESCRIPTOR_SECTORS: u64 = 20;
/// The first sector behind the head.
const OVER_HEAD: u64 = GRAIN;
/// The longest name that fits the descriptor's line.
const LONGEST_NAME: usize = 255;

/// A VMDK image in the making.
#[derive(Debug)]
pub(super) struct VmdkWriter {
    file_name: String,
    /// Sectors of the disk.
    capacity: u64,
    /// Which of the packed forms of a cluster is ours.
    packer: usize,
    /// The next free sector of the file.
    at: u64,
    /// Sectors of the grain tables.
    directory: Vec<U32>,
    /// The grain table that is being filled, and its number.
    table: Option<(usize, Vec<U32>)>,
}

/// Refuses names that cannot stand between quotes in a descriptor.
pub(super) fn check_name(name: &str) -> Result<(), ImageError> {
    if name.contains(['"', '\\']) || name.len() > LONGEST_NAME {
        return Err(ImageError::VmdkName {
            name: name.to_owned(),
        });
    }
    Ok(())
}

impl VmdkWriter {
    /// An image called `file_name` of a disk of `size` bytes, at most [`LIMIT`].
    pub(super) fn new(size: ByteSize, file_name: &str, packer: usize) -> Self {
        let capacity = size.bytes() / SECTOR;
        let tables = capacity.div_ceil(GRAIN * u64::from(ENTRIES_PER_TABLE));
        let tables = usize::try_from(tables).expect("at most 65,536 tables");
        Self {
            file_name: file_name.to_owned(),
            capacity,
            packer,
            at: OVER_HEAD,
            directory: vec![U32::ZERO; tables],
            table: None,
        }
    }

    /// Appends whole sectors; returns the first one.
    fn put(&mut self, file: &File, bytes: &[u8]) -> io::Result<U32> {
        let sector = u32::try_from(self.at);
        let sector = sector.map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        file.write_all_at(bytes, self.at * SECTOR)?;
        self.at += (bytes.len() as u64).div_ceil(SECTOR);
        Ok(sector.into())
    }

    fn put_marker(&mut self, file: &File, kind: u32, sectors: u64) -> io::Result<()> {
        let marker = Marker {
            num_sectors: sectors.into(),
            size: U32::ZERO,
            kind: kind.into(),
            pad: [0; 496],
        };
        self.put(file, marker.as_bytes())?;
        Ok(())
    }

    /// Writes the grain table that is open, its marker before it.
    fn put_table(&mut self, file: &File) -> io::Result<()> {
        let Some((number, table)) = self.table.take() else {
            return Ok(());
        };
        self.put_marker(file, MARKER_GT, TABLE_SECTORS)?;
        self.directory[number] = self.put(file, table.as_bytes())?;
        Ok(())
    }

    fn header(&self, gd_offset: u64) -> SparseExtentHeader {
        SparseExtentHeader {
            magic_number: MAGIC.into(),
            version: 3.into(),
            flags: (VALID_NEWLINE | COMPRESSED | MARKERS).into(),
            capacity: self.capacity.into(),
            grain_size: GRAIN.into(),
            descriptor_offset: DESCRIPTOR_OFFSET.into(),
            descriptor_size: DESCRIPTOR_SECTORS.into(),
            num_gtes_per_gt: ENTRIES_PER_TABLE.into(),
            rgd_offset: U64::ZERO,
            gd_offset: gd_offset.into(),
            over_head: OVER_HEAD.into(),
            unclean_shutdown: 0,
            single_end_line_char: b'\n',
            non_end_line_char: b' ',
            double_end_line_char1: b'\r',
            double_end_line_char2: b'\n',
            compress_algorithm: U16::new(COMPRESSION_DEFLATE),
            pad: [0; 433],
        }
    }

    /// The text that names the extent. The ids come from the content, so they
    /// are the same for the same disk, and others for any other.
    fn descriptor(&self, root: &ContentRoot) -> String {
        let id = of_fields([b"vmdk content id v1".as_slice(), root.0.bytes()]);
        let (cid, long) = ids(id.bytes());
        let cylinders = (self.capacity / (255 * 63)).clamp(1, 65_535);
        format!(
            "# Disk DescriptorFile\n\
             version=1\n\
             CID={cid}\n\
             parentCID=ffffffff\n\
             createType=\"streamOptimized\"\n\
             \n\
             # Extent description\n\
             RW {capacity} SPARSE \"{name}\"\n\
             \n\
             # The Disk Data Base\n\
             #DDB\n\
             \n\
             ddb.adapterType = \"lsilogic\"\n\
             ddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"255\"\n\
             ddb.geometry.sectors = \"63\"\n\
             ddb.longContentID = \"{long}\"\n\
             ddb.virtualHWVersion = \"4\"\n",
            capacity = self.capacity,
            name = self.file_name,
        )
    }
}

/// `CID` and `ddb.longContentID`, whose last digits are the first. Two
/// values of a `CID` mean something else, and are not among them.
fn ids(bytes: &[u8; 32]) -> (String, String) {
    let long = Digest::from_bytes(*bytes).hex()[..32].to_owned();
    let long = if long[24..].starts_with("fffffff") {
        format!("{}0{}", &long[..24], &long[25..])
    } else {
        long
    };
    (long[24..].to_owned(), long)
}

/// A zlib stream around raw deflate that unpacks to `data`.
fn zlib(packed: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) {
    // Deflate with a window of 32 KiB, no dictionary; the word is a multiple of 31.
    const HEAD: [u8; 2] = [0x78, 0x9c];
    out.extend_from_slice(&HEAD);
    match packed {
        Some(packed) => out.extend_from_slice(packed),
        None => store(data, out),
    }
    let sum = zlib_rs::adler32::adler32(1, data);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Stored blocks of deflate (RFC 1951, section 3.2.4): each has a byte with
/// the final bit and the kind 00, its length, and that inverted.
fn store(data: &[u8], out: &mut Vec<u8>) {
    let count = data.chunks(STORED).count();
    for (number, block) in data.chunks(STORED).enumerate() {
        let length = u16::try_from(block.len()).expect("at most 65,535");
        out.push(u8::from(number + 1 == count));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
}

impl Container for VmdkWriter {
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()> {
        let place = |n: u64| usize::try_from(n).map_err(io::Error::other);
        let per_table = u64::from(ENTRIES_PER_TABLE);
        let number = place(cluster.index / per_table)?;
        if self.table.as_ref().is_some_and(|(open, _)| *open != number) {
            self.put_table(file)?;
        }
        let mut grain = vec![0; size_of::<GrainMarker>()];
        zlib(cluster.packed(self.packer), &cluster.data, &mut grain);
        let size = u32::try_from(grain.len() - size_of::<GrainMarker>());
        let marker = GrainMarker {
            lba: (cluster.index * GRAIN).into(),
            size: size.map_err(io::Error::other)?.into(),
        };
        grain[..size_of::<GrainMarker>()].copy_from_slice(marker.as_bytes());
        let sector = self.put(file, &grain)?;
        let (_, table) = self
            .table
            .get_or_insert_with(|| (number, vec![U32::ZERO; ENTRIES_PER_TABLE as usize]));
        table[place(cluster.index % per_table)?] = sector;
        Ok(())
    }

    fn finish(&mut self, file: &File, root: &ContentRoot) -> io::Result<()> {
        self.put_table(file)?;
        let mut directory = std::mem::take(&mut self.directory);
        let sectors = (directory.as_bytes().len() as u64).div_ceil(SECTOR).max(1);
        let entries = sectors * SECTOR / size_of::<U32>() as u64;
        directory.resize(usize::try_from(entries).unwrap_or_default(), U32::ZERO);
        self.put_marker(file, MARKER_GD, sectors)?;
        let directory_at = self.put(file, directory.as_bytes())?;
        self.put_marker(file, MARKER_FOOTER, 1)?;
        let footer = self.header(directory_at.get().into());
        self.put(file, footer.as_bytes())?;
        self.put_marker(file, MARKER_EOS, 0)?;
        file.set_len(self.at * SECTOR)?;
        let descriptor = self.descriptor(root);
        if descriptor.len() as u64 > DESCRIPTOR_SECTORS * SECTOR {
            return Err(io::Error::other("the descriptor is too long"));
        }
        file.write_all_at(descriptor.as_bytes(), DESCRIPTOR_OFFSET * SECTOR)?;
        file.write_all_at(self.header(GD_AT_END).as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::ZlibDecoder;
    use std::io::Read as _;

    #[test]
    fn what_does_not_pack_is_stored() {
        let data: Vec<u8> = (0..65_536_u32).map(|n| (n * n).to_le_bytes()[1]).collect();
        let mut grain = Vec::new();
        zlib(None, &data, &mut grain);
        assert_eq!(grain.len(), 2 + 5 + 65_535 + 5 + 1 + 4);
        let mut back = Vec::new();
        let mut decoder = ZlibDecoder::new(&grain[..]);
        decoder.read_to_end(&mut back).expect("a sound stream");
        assert!(back == data);
    }

    #[test]
    fn the_short_id_is_the_end_of_the_long_one() {
        let mut bytes = [0xff; 32];
        let (short, long) = ids(&bytes);
        assert_eq!(short, "0fffffff", "ffffffff means: no parent");
        assert!(long.ends_with(&short) && long.len() == 32);
        bytes[15] = 0x1e;
        assert_eq!(ids(&bytes).0, "ffffff1e");
    }

    #[test]
    fn a_name_that_would_break_the_descriptor_is_refused() {
        for name in ["a\".vmdk", "a\\b.vmdk", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("wiki 1.vmdk").is_ok());
    }
}
