//! A file system of a finished disk, read by somebody else's ext4.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ext4_view::{Ext4, Ext4Read};

/// A part of a file.
struct Part {
    file: File,
    start: u64,
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start_byte: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        self.file.read_exact_at(into, self.start + start_byte)?;
        Ok(())
    }
}

/// Opens the ext4 volume in the GPT partition called `name` of a raw disk.
pub(crate) fn open(disk: &Path, name: &str) -> Ext4 {
    let file = File::open(disk).expect("the disk can be opened");
    let table = gpt::GptConfig::new()
        .writable(false)
        .open(disk)
        .expect("the disk has a table");
    let partition = table
        .partitions()
        .values()
        .find(|partition| partition.name == name)
        .unwrap_or_else(|| panic!("no partition {name}"));
    let start = partition.first_lba * 512;
    Ext4::load(Box::new(Part { file, start })).expect("the volume can be read")
}

/// Every path below `folder`, folders before what they hold, and `visit`ed.
pub(crate) fn walk(volume: &Ext4, folder: &str, visit: &mut impl FnMut(&str)) {
    let mut names: Vec<String> = volume
        .read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| entry.file_name().display().to_string())
        .filter(|name| name != "." && name != "..")
        .collect();
    names.sort();
    for name in names {
        let path = format!("{}/{name}", folder.trim_end_matches('/'));
        visit(&path);
        let metadata = volume.symlink_metadata(path.as_str()).expect("metadata");
        if metadata.is_dir() {
            walk(volume, &path, visit);
        }
    }
}
