//! cpio archives in the "newc" form, as the kernel unpacks them.
//!
//! Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.
//! Narrower than that: no hard links, no devices, owner root, one time.

use std::io::Write as _;

/// `c_magic`: without checksum.
const MAGIC: &[u8; 6] = b"070701";
/// Name of the entry that ends the archive.
const TRAILER: &str = "TRAILER!!!";
/// Headers with names, and file data, start at multiples of this.
const ALIGNMENT: usize = 4;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Writes entries in the order they are added; parents come first.
#[derive(Debug)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    mtime: u32,
    inode: u32,
}

impl Archive {
    /// An empty archive; every entry gets `mtime`, in seconds.
    pub(crate) fn new(mtime: u32) -> Self {
        Self {
            bytes: Vec::new(),
            mtime,
            inode: 0,
        }
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, S_IFDIR | 0o755, 2, &[]);
    }

    /// Adds a regular file with these permission bits.
    pub(crate) fn file(&mut self, name: &str, mode: u16, data: &[u8]) {
        self.entry(name, S_IFREG | u32::from(mode), 1, data);
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, S_IFLNK | 0o777, 1, target.as_bytes());
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.mtime = 0;
        self.inode = u32::MAX;
        self.entry(TRAILER, 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, links: u32, data: &[u8]) {
        self.inode = self.inode.wrapping_add(1);
        let size = u32::try_from(data.len()).expect("a module or program below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("one of our short names");
        self.bytes.extend_from_slice(MAGIC);
        // c_ino c_mode c_uid c_gid c_nlink c_mtime c_filesize c_devmajor
        // c_devminor c_rdevmajor c_rdevminor c_namesize c_check
        let fields = [
            self.inode, mode, 0, 0, links, self.mtime, size, 0, 0, 0, 0, name_size, 0,
        ];
        for field in fields {
            write!(self.bytes, "{field:08x}").expect("writing to memory cannot fail");
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_the_fields_of_the_format() {
        let mut archive = Archive::new(0x10);
        archive.directory("a");
        archive.file("a/b", 0o755, b"xyz");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with(concat!(
            "070701", "00000001", "000041ed", "00000000", "00000000", "00000002", "00000010",
            "00000000", "00000000", "00000000", "00000000", "00000000", "00000002", "00000000",
            "a\0",
        )));
        assert!(text.contains("a/b\0\0\0xyz\x00070701"));
        assert!(text.contains(TRAILER));
        assert_eq!(bytes.len() % ALIGNMENT, 0);
    }
}
