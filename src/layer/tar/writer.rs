//! A tar stream whose bytes depend on its members only.
//!
//! ustar headers without names of users, pax headers only where a field does
//! not fit, in the fixed order path, linkpath, uid, gid, size, mtime, xattrs.
//! Directories end in a slash. Two empty blocks end the stream.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use zerocopy::{FromZeros as _, IntoBytes as _};

use super::header::{Header, MAGIC_USTAR, pax_record};
use super::{BLOCK, BLOCK_LEN, MemberKind, OPAQUE, TarError, TarFault, WHITEOUT, XATTR_KEY};
use crate::digest::{DiffId, Hasher, KeptDigest, KeptHasher};
use crate::tree::{Metadata, NodeId, NodeKind, TreeDelta, TreePath};
use crate::units::Timestamp;

/// Largest number in an 8-byte octal field with its NUL.
const MAX_ID: u32 = 0o7_777_777;
/// Largest number in a 12-byte octal field with its NUL.
const MAX_LONG: u64 = 0o77_777_777_777;

/// What a tar is known by: both digests are of one pass over the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TarSum {
    /// Its name.
    pub diff_id: DiffId,
    /// What proves it while it is in the cache.
    pub kept: KeptDigest,
    /// Its length in bytes.
    pub size: u64,
}

/// Writes members in the order given, and digests the stream.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    hasher: Hasher,
    kept: KeptHasher,
    at: u64,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Starts a stream. `out` gets large and small pieces: buffer it.
    #[must_use]
    pub fn new(out: W) -> Self {
        Self {
            out,
            hasher: Hasher::new(),
            kept: KeptHasher::default(),
            at: 0,
            buffer: vec![0; 256 << 10],
        }
    }

    /// A member without content: anything but a file. The size of a
    /// [`MemberKind::File`] is taken as 0.
    ///
    /// # Errors
    ///
    /// [`TarError`] when the output fails.
    pub fn member(
        &mut self,
        path: &TreePath,
        meta: &Metadata,
        kind: &MemberKind,
    ) -> Result<(), TarError> {
        self.headers(path, meta, kind, 0)
            .map_err(|error| self.wrong(path, TarFault::Read(error)))
    }

    /// A file of exactly `size` bytes.
    ///
    /// # Errors
    ///
    /// [`TarError`] when the output or `content` fails, or `content` has
    /// another length.
    pub fn file(
        &mut self,
        path: &TreePath,
        meta: &Metadata,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), TarError> {
        self.headers(path, meta, &MemberKind::File, size)
            .map_err(|error| self.wrong(path, TarFault::Read(error)))?;
        let found = self
            .copy(size, content)
            .map_err(|error| self.wrong(path, TarFault::Read(error)))?;
        if found != size {
            let expected = size;
            return Err(self.wrong(path, TarFault::Length { expected, found }));
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).expect("below 512");
        self.put(&[0; BLOCK_LEN][..padding])
            .map_err(|error| self.wrong(path, TarFault::Read(error)))
    }

    /// Hides `path` of the layers below.
    ///
    /// # Errors
    ///
    /// [`TarError`] when the output fails.
    pub fn whiteout(&mut self, path: &TreePath) -> Result<(), TarError> {
        let name = [WHITEOUT, path.name().unwrap_or_default()].concat();
        self.marker(path, path.parent().and_then(|parent| parent.join(&name)))
    }

    /// Hides all that the layers below have in the directory `path`.
    ///
    /// # Errors
    ///
    /// [`TarError`] when the output fails.
    pub fn opaque(&mut self, path: &TreePath) -> Result<(), TarError> {
        self.marker(path, path.join(OPAQUE))
    }

    /// Ends the stream: gives back the output, and what it was.
    ///
    /// # Errors
    ///
    /// [`TarError`] when the output fails.
    pub fn finish(mut self) -> Result<(W, TarSum), TarError> {
        self.put(&[0; 2 * BLOCK_LEN])
            .and_then(|()| self.out.flush())
            .map_err(|error| self.wrong(&TreePath::root(), TarFault::Read(error)))?;
        let sum = TarSum {
            diff_id: DiffId(self.hasher.finish()),
            kept: self.kept.finish(),
            size: self.at,
        };
        Ok((self.out, sum))
    }

    /// A node of a tree that is neither a file nor a link to one.
    ///
    /// # Errors
    ///
    /// [`TarError`] when the output fails, and for sockets.
    pub fn node(
        &mut self,
        path: &TreePath,
        meta: &Metadata,
        kind: &NodeKind,
    ) -> Result<(), TarError> {
        let kind = match kind {
            NodeKind::Directory => MemberKind::Directory,
            NodeKind::File(_) => MemberKind::File,
            NodeKind::Symlink(target) => MemberKind::Symlink(target.clone()),
            NodeKind::CharDevice { major, minor } => MemberKind::CharDevice {
                major: *major,
                minor: *minor,
            },
            NodeKind::BlockDevice { major, minor } => MemberKind::BlockDevice {
                major: *major,
                minor: *minor,
            },
            NodeKind::Fifo => MemberKind::Fifo,
            NodeKind::Socket => return Err(self.wrong(path, TarFault::Socket)),
        };
        self.member(path, meta, &kind)
    }

    /// The error for a content that cannot be read.
    #[must_use]
    pub fn broken(&self, path: &TreePath, source: io::Error) -> TarError {
        self.wrong(path, TarFault::Read(source))
    }

    fn marker(&mut self, path: &TreePath, marker: Option<TreePath>) -> Result<(), TarError> {
        let marker = marker.ok_or_else(|| self.wrong(path, TarFault::Whiteout))?;
        self.member(&marker, &Metadata::root_owned(0o644), &MemberKind::File)
    }

    fn wrong(&self, path: &TreePath, fault: TarFault) -> TarError {
        TarError {
            member: path.to_string(),
            offset: self.at,
            fault,
        }
    }

    fn headers(
        &mut self,
        path: &TreePath,
        meta: &Metadata,
        kind: &MemberKind,
        size: u64,
    ) -> io::Result<()> {
        let mut name = path.as_bytes().to_vec();
        if matches!(kind, MemberKind::Directory) {
            // The root directory is `./`.
            let end: &[u8] = if name.is_empty() { b"./" } else { b"/" };
            name.extend_from_slice(end);
        }
        let link: &[u8] = match kind {
            MemberKind::Symlink(target) | MemberKind::HardLink(target) => target,
            _ => b"",
        };
        let extended = pax_fields(&name, link, meta, size);
        if !extended.is_empty() {
            let fixed = Metadata::root_owned(0o644);
            self.header(b"pax", b"", &fixed, b'x', (0, 0), extended.len() as u64)?;
            self.put(&extended)?;
            let padding = extended.len().next_multiple_of(BLOCK_LEN) - extended.len();
            self.put(&[0; BLOCK_LEN][..padding])?;
        }
        let (flag, device) = match kind {
            MemberKind::File => (b'0', (0, 0)),
            MemberKind::HardLink(_) => (b'1', (0, 0)),
            MemberKind::Symlink(_) => (b'2', (0, 0)),
            MemberKind::CharDevice { major, minor } => (b'3', (*major, *minor)),
            MemberKind::BlockDevice { major, minor } => (b'4', (*major, *minor)),
            MemberKind::Directory => (b'5', (0, 0)),
            MemberKind::Fifo => (b'6', (0, 0)),
        };
        self.header(&name, link, meta, flag, device, size)
    }

    fn header(
        &mut self,
        name: &[u8],
        link: &[u8],
        meta: &Metadata,
        flag: u8,
        device: (u32, u32),
        size: u64,
    ) -> io::Result<()> {
        let mut header = Header::new_zeroed();
        fill(&mut header.name, name);
        fill(&mut header.linkname, link);
        octal(&mut header.mode, u64::from(meta.mode));
        octal(&mut header.uid, u64::from(meta.uid.min(MAX_ID)));
        octal(&mut header.gid, u64::from(meta.gid.min(MAX_ID)));
        octal(&mut header.size, size.min(MAX_LONG));
        let seconds = u64::try_from(meta.mtime.seconds).unwrap_or(0);
        octal(&mut header.mtime, seconds.min(MAX_LONG));
        header.typeflag = flag;
        header.magic = *MAGIC_USTAR;
        if matches!(flag, b'3' | b'4') {
            octal(&mut header.devmajor, u64::from(device.0));
            octal(&mut header.devminor, u64::from(device.1));
        }
        let sum = header.sum();
        // Six digits, NUL, space: as POSIX says, unlike the other fields.
        header.chksum = *b"000000\0 ";
        octal(&mut header.chksum[..7], sum);
        self.put(header.as_bytes())
    }

    fn copy(&mut self, size: u64, content: &mut dyn Read) -> io::Result<u64> {
        let mut done = 0;
        while done < size {
            let want = usize::try_from(size - done)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let count = match content.read(&mut self.buffer[..want]) {
                Ok(0) => return Ok(done),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.hasher.update(&self.buffer[..count]);
            self.kept.update(&self.buffer[..count]);
            self.out.write_all(&self.buffer[..count])?;
            done += count as u64;
            self.at += count as u64;
        }
        // One more byte would mean that the file grew while it was read.
        let more = content.read(&mut self.buffer[..1])? as u64;
        Ok(done + more)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.kept.update(bytes);
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    let count = bytes.len().min(field.len());
    field[..count].copy_from_slice(&bytes[..count]);
}

/// Zero-padded octal digits and a NUL. The value fits by the caller's `min`.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
}

/// The records for whatever does not fit the ustar header.
fn pax_fields(name: &[u8], link: &[u8], meta: &Metadata, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.extend_from_slice(&pax_record(key, value));
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let (long_name, long_link) = (name.len() > 100, link.len() > 100);
    if (long_name && !is_text(name)) || (long_link && !is_text(link)) {
        add(b"hdrcharset", b"BINARY");
    }
    if long_name {
        add(b"path", name);
    }
    if long_link {
        add(b"linkpath", link);
    }
    for (key, id) in [(b"uid", meta.uid), (b"gid", meta.gid)] {
        if id > MAX_ID {
            add(key, id.to_string().as_bytes());
        }
    }
    if size > MAX_LONG {
        add(b"size", size.to_string().as_bytes());
    }
    let fits = u64::try_from(meta.mtime.seconds).is_ok_and(|seconds| seconds <= MAX_LONG);
    if meta.mtime.nanos != 0 || !fits {
        add(b"mtime", decimal_time(meta.mtime).as_bytes());
    }
    for (key, value) in &meta.xattrs {
        add(&[XATTR_KEY, key].concat(), value);
    }
    records
}

/// `[-]SECONDS[.FRACTION]` without trailing zeros.
fn decimal_time(time: Timestamp) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let (sign, total) = if total < 0 {
        ("-", -total)
    } else {
        ("", total)
    };
    let text = format!(
        "{sign}{}.{:09}",
        total / 1_000_000_000,
        total % 1_000_000_000
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Writes `delta` to `out` in component order: of each directory first its
/// opaque mark, then whiteouts and entries by name; hard links to lower
/// layers come last.
///
/// # Errors
///
/// [`TarError`] when the output or a content fails, and for sockets.
pub fn write_delta<W: Write>(delta: &TreeDelta, out: W) -> Result<(W, TarSum), TarError> {
    let mut writer = TarWriter::new(out);
    let mut marks: BTreeMap<&TreePath, (bool, bool)> = BTreeMap::new();
    for path in &delta.opaque {
        marks.entry(path).or_default().0 = true;
    }
    for path in &delta.removed {
        marks.entry(path).or_default().1 = true;
    }
    for (path, _, _) in delta.tree.iter() {
        marks.entry(path).or_default();
    }
    let mut first_names: BTreeMap<NodeId, &TreePath> = BTreeMap::new();
    for (path, (is_opaque, is_removed)) in marks {
        if is_removed {
            writer.whiteout(path)?;
        }
        if !delta.implied.contains(path)
            && let (Some(id), Some(_)) = (delta.tree.id(path), delta.tree.get(path))
        {
            write_entry(&mut writer, delta, path, id, &mut first_names)?;
        }
        if is_opaque {
            writer.opaque(path)?;
        }
    }
    for (path, target) in &delta.links {
        let kind = MemberKind::HardLink(target.as_bytes().to_vec());
        writer.member(path, &Metadata::root_owned(0o644), &kind)?;
    }
    writer.finish()
}

fn write_entry<'a, W: Write>(
    writer: &mut TarWriter<W>,
    delta: &'a TreeDelta,
    path: &'a TreePath,
    id: NodeId,
    first_names: &mut BTreeMap<NodeId, &'a TreePath>,
) -> Result<(), TarError> {
    let node = delta.tree.node(id);
    if let Some(first) = first_names.get(&id) {
        // A hard link has no metadata of its own; readers see its target's.
        let meta = Metadata {
            xattrs: BTreeMap::new(),
            ..node.meta.clone()
        };
        let kind = MemberKind::HardLink(first.as_bytes().to_vec());
        return writer.member(path, &meta, &kind);
    }
    if !node.is_directory() {
        first_names.insert(id, path);
    }
    match &node.kind {
        NodeKind::File(content) => {
            let mut reader = io::BufReader::with_capacity(256 << 10, content.reader());
            writer.file(path, &node.meta, content.size(), &mut reader)
        }
        kind => writer.node(path, &node.meta, kind),
    }
}
