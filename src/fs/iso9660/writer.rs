//! Fills the structures: descriptors, path tables, directories.

use zerocopy::IntoBytes as _;

use super::IsoOptions;
use super::format::{
    DESCRIPTORS, DescriptorType, DirectoryRecord, FLAG_DIRECTORY, JOLIET_ESCAPE, LongTime,
    PathTableRecord, SECTOR, SECTOR_BYTES, STANDARD, SYSTEM_AREA, ShortTime, VolumeDescriptor,
};
use super::layout::{Directory, File, Hierarchy, Layout, Target, place_record};
use crate::units::Timestamp;

/// The identifiers of a directory itself and of its parent.
const OWN: [u8; 1] = [0];
const PARENT: [u8; 1] = [1];

/// Everything from the first descriptor to the first file.
pub(super) fn write(layout: &Layout, options: &IsoOptions) -> Vec<u8> {
    let mut out = Out::default();
    let primary = primary_descriptor(layout, options);
    out.put_at_sector(SYSTEM_AREA, primary.as_bytes());
    let joliet = joliet_descriptor(layout, options);
    out.put_at_sector(SYSTEM_AREA + 1, joliet.as_bytes());
    let end = [&[DescriptorType::Terminator as u8], &STANDARD[..], &[1]].concat();
    out.put_at_sector(SYSTEM_AREA + DESCRIPTORS - 1, &end);
    for hierarchy in [&layout.primary, &layout.joliet] {
        let (little, big) = path_tables(hierarchy);
        out.put_at_sector(hierarchy.l_table, &little);
        out.put_at_sector(hierarchy.m_table, &big);
    }
    for hierarchy in [&layout.primary, &layout.joliet] {
        for directory in &hierarchy.directories {
            let bytes = records(directory, hierarchy, &layout.files, options.source_date);
            out.put_at_sector(directory.sector, &bytes);
        }
    }
    out.bytes
}

/// Whole sectors from [`SYSTEM_AREA`] on.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
}

impl Out {
    /// Appends `bytes`, whose place is the end of what there is.
    fn put_at_sector(&mut self, sector: u32, bytes: &[u8]) {
        let at = (sector - SYSTEM_AREA) as usize * SECTOR_BYTES;
        debug_assert_eq!(at, self.bytes.len(), "sectors are handed out in this order");
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(bytes);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    }
}

fn primary_descriptor(layout: &Layout, options: &IsoOptions) -> Box<VolumeDescriptor> {
    let mut descriptor = VolumeDescriptor::empty(DescriptorType::Primary);
    set_common(
        &mut descriptor,
        layout,
        &layout.primary,
        options.source_date,
    );
    set_texts(
        &mut descriptor,
        |field, text| {
            field.fill(b' ');
            for (byte, value) in field.iter_mut().zip(text.bytes()) {
                *byte = value;
            }
        },
        options,
    );
    descriptor
}

fn joliet_descriptor(layout: &Layout, options: &IsoOptions) -> Box<VolumeDescriptor> {
    let mut descriptor = VolumeDescriptor::empty(DescriptorType::Supplementary);
    set_common(&mut descriptor, layout, &layout.joliet, options.source_date);
    set_texts(
        &mut descriptor,
        |field, text| {
            let units = text
                .encode_utf16()
                .chain(std::iter::repeat(u16::from(b' ')));
            // A last odd byte stays zero.
            for (pair, unit) in field.chunks_exact_mut(2).zip(units) {
                pair.copy_from_slice(&unit.to_be_bytes());
            }
        },
        options,
    );
    for (byte, escape) in descriptor.escape_sequences.iter_mut().zip(JOLIET_ESCAPE) {
        *byte = escape;
    }
    descriptor
}

fn set_common(
    descriptor: &mut VolumeDescriptor,
    layout: &Layout,
    hierarchy: &Hierarchy,
    date: Timestamp,
) {
    descriptor.volume_space_size = layout.sectors.into();
    descriptor.volume_set_size = 1.into();
    descriptor.volume_sequence_number = 1.into();
    descriptor.logical_block_size = u16::try_from(SECTOR).expect("2,048").into();
    descriptor.path_table_size = hierarchy.table_bytes.into();
    descriptor.l_path_table = hierarchy.l_table.to_le_bytes();
    descriptor.m_path_table = hierarchy.m_table.into();
    if let Some(root) = hierarchy.directories.first() {
        descriptor.root = directory_record(root, OWN.len(), date);
    }
    descriptor.root_identifier = OWN[0];
    descriptor.creation = LongTime::of(date);
    descriptor.modification = LongTime::of(date);
    descriptor.expiration = LongTime::NONE;
    descriptor.effective = LongTime::NONE;
    descriptor.file_structure_version = 1;
}

/// Fills every text; all but the label are blank, which means none.
fn set_texts(
    descriptor: &mut VolumeDescriptor,
    write: impl Fn(&mut [u8], &str),
    options: &IsoOptions,
) {
    write(&mut descriptor.volume_identifier, options.label.as_str());
    for blank in [
        descriptor.system_identifier.as_mut_slice(),
        &mut descriptor.volume_set_identifier,
        &mut descriptor.publisher_identifier,
        &mut descriptor.data_preparer_identifier,
        &mut descriptor.application_identifier,
        &mut descriptor.copyright_file,
        &mut descriptor.abstract_file,
        &mut descriptor.bibliographic_file,
    ] {
        write(blank, "");
    }
}

/// The table in little and in big endian.
fn path_tables(hierarchy: &Hierarchy) -> (Vec<u8>, Vec<u8>) {
    let (mut little, mut big) = (Vec::new(), Vec::new());
    for directory in &hierarchy.directories {
        let identifier = match directory.identifier.as_slice() {
            [] => OWN.as_slice(),
            name => name,
        };
        let parent = u16::try_from(directory.parent + 1).expect("counted in Outline::of");
        let record = |location_of_extent, parent_directory_number| PathTableRecord {
            length_of_identifier: short(identifier.len()),
            extended_attribute_length: 0,
            location_of_extent,
            parent_directory_number,
        };
        let sector = directory.sector;
        let of_both = [
            (
                &mut little,
                record(sector.to_le_bytes(), parent.to_le_bytes()),
            ),
            (&mut big, record(sector.to_be_bytes(), parent.to_be_bytes())),
        ];
        for (table, record) in of_both {
            table.extend_from_slice(record.as_bytes());
            table.extend_from_slice(identifier);
            table.resize(table.len().next_multiple_of(2), 0);
        }
    }
    (little, big)
}

/// The records of one directory, whole sectors.
fn records(
    directory: &Directory,
    hierarchy: &Hierarchy,
    files: &[File],
    date: Timestamp,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |record: DirectoryRecord, identifier: &[u8]| {
        let at = place_record(bytes.len() as u64, identifier.len());
        let at = usize::try_from(at).expect("below 4 GiB: measured");
        bytes.resize(at, 0);
        bytes.extend_from_slice(record.as_bytes());
        bytes.extend_from_slice(identifier);
        bytes.resize(at + DirectoryRecord::bytes(identifier.len()), 0);
    };
    let parent = &hierarchy.directories[directory.parent];
    put(directory_record(directory, OWN.len(), date), &OWN);
    put(directory_record(parent, PARENT.len(), date), &PARENT);
    for entry in &directory.entries {
        let name = &entry.identifier;
        let record = match entry.target {
            Target::Directory(index) => {
                directory_record(&hierarchy.directories[index], name.len(), date)
            }
            Target::File(index) => file_record(&files[index], name.len(), date),
        };
        put(record, name);
    }
    bytes.resize(directory.bytes as usize, 0);
    bytes
}

fn directory_record(directory: &Directory, identifier: usize, date: Timestamp) -> DirectoryRecord {
    record(
        directory.sector,
        directory.bytes,
        FLAG_DIRECTORY,
        identifier,
        date,
    )
}

fn file_record(file: &File, identifier: usize, date: Timestamp) -> DirectoryRecord {
    let bytes = u32::try_from(file.content.size()).expect("at most MAX_FILE: add_file");
    record(file.sector, bytes, 0, identifier, date)
}

fn record(
    sector: u32,
    bytes: u32,
    file_flags: u8,
    identifier: usize,
    date: Timestamp,
) -> DirectoryRecord {
    DirectoryRecord {
        length: short(DirectoryRecord::bytes(identifier)),
        extended_attribute_length: 0,
        location_of_extent: sector.into(),
        data_length: bytes.into(),
        recording: ShortTime::of(date),
        file_flags,
        file_unit_size: 0,
        interleave_gap_size: 0,
        volume_sequence_number: 1.into(),
        length_of_identifier: short(identifier),
    }
}

fn short(length: usize) -> u8 {
    u8::try_from(length).expect("a name has at most 132 bytes: JOLIET_UNITS")
}
