//! Members one by one, from any stream.

use std::io::{self, Read};

use zerocopy::FromBytes as _;

use super::header::{Header, MAGIC_GNU, MAGIC_USTAR, PaxFields, number, text};
use super::{
    BLOCK, BLOCK_LEN, MAX_NAME, MAX_PAX, Member, MemberKind, TarError, TarFault, escape_bytes,
};
use crate::units::Timestamp;

/// Reads a tar stream member by member. As an [`io::Read`] it gives the
/// content of the member read last, to its end.
#[derive(Debug)]
pub struct MemberReader<R> {
    stream: R,
    /// Bytes taken from the stream so far.
    at: u64,
    /// Content of the current member that was not read yet.
    left: u64,
    /// Zero bytes after that content.
    padding: u64,
    /// Where the current member's first header is, for messages.
    start: u64,
    end: End,
}

/// How an archive may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With two empty blocks.
    Marked,
    /// Also without them, after any member, as some builders of images leave
    /// it. Only where a digest over the whole stream says that nothing is cut.
    Anywhere,
}

/// A header block, and what the extended headers before it said.
#[derive(Default)]
struct Extended {
    pax: Option<PaxFields>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> MemberReader<R> {
    /// Reads from the first byte of `stream` on.
    #[must_use]
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            at: 0,
            left: 0,
            padding: 0,
            start: 0,
            end: End::Marked,
        }
    }

    /// The same with another idea of how the archive ends.
    #[must_use]
    pub fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// The next member; content of the one before that was not read is passed
    /// over. `None` at the end of the archive, which must be two empty blocks
    /// and nothing but zeros after them.
    ///
    /// # Errors
    ///
    /// [`TarError`] for whatever is not a well-formed archive.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        self.skip_content()
            .map_err(|fault| self.wrong(b"", fault))?;
        self.start = self.at;
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header().map_err(|fault| self.wrong(b"", fault))? else {
                if extended.any() {
                    return Err(self.wrong(b"", TarFault::Orphan));
                }
                return Ok(None);
            };
            let name = header.full_name();
            if let Some(found) = self
                .extended(&header, &mut extended)
                .and_then(|was_extended| {
                    if was_extended {
                        Ok(None)
                    } else {
                        self.member(&header, &mut extended).map(Some)
                    }
                })
                .map_err(|fault| self.wrong(&name, fault))?
            {
                return Ok(Some(found));
            }
        }
    }

    /// Says where in the stream the next byte is.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Content of the current member that was not read yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    fn wrong(&self, name: &[u8], fault: TarFault) -> TarError {
        TarError {
            member: escape_bytes(name),
            offset: self.start,
            fault,
        }
    }

    /// The next header block; `None` at a proper end.
    fn header(&mut self) -> Result<Option<Header>, TarFault> {
        let Some(block) = self.block()? else {
            return match self.end {
                End::Marked => Err(TarFault::NoEnd),
                End::Anywhere => Ok(None),
            };
        };
        if block.iter().all(|byte| *byte == 0) {
            return self.end().map(|()| None);
        }
        let header = Header::read_from_bytes(&block).expect("a header is one block");
        let found = number(&header.chksum, "checksum")?;
        if u64::try_from(found) != Ok(header.sum()) {
            return Err(TarFault::Checksum);
        }
        if &header.magic != MAGIC_USTAR && &header.magic != MAGIC_GNU {
            return Err(TarFault::NotTar);
        }
        Ok(Some(header))
    }

    /// After the first empty block: the second one, then zeros.
    fn end(&mut self) -> Result<(), TarFault> {
        match self.block()? {
            Some(block) if block.iter().all(|byte| *byte == 0) => {}
            Some(_) => return Err(TarFault::AfterEnd),
            None => return Err(TarFault::NoEnd),
        }
        let mut buffer = [0; 4096];
        loop {
            let count = self.stream.read(&mut buffer).map_err(TarFault::Read)?;
            if count == 0 {
                return Ok(());
            }
            let (read, _) = buffer.split_at(count);
            if read.iter().any(|byte| *byte != 0) {
                return Err(TarFault::AfterEnd);
            }
        }
    }

    /// A whole block; `None` when the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_LEN]>, TarFault> {
        let mut block = [0; BLOCK_LEN];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.stream.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarFault::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarFault::Read(error)),
            }
        }
        self.at += BLOCK;
        Ok(Some(block))
    }

    /// Takes an extended header; says whether it was one.
    fn extended(&mut self, header: &Header, found: &mut Extended) -> Result<bool, TarFault> {
        match header.typeflag {
            b'x' => {
                if found.pax.is_some() {
                    return Err(TarFault::Pax);
                }
                found.pax = Some(PaxFields::parse(&self.body(header, MAX_PAX)?)?);
            }
            b'L' if found.name.is_none() => found.name = Some(self.long_name(header)?),
            b'K' if found.link.is_none() => found.link = Some(self.long_name(header)?),
            b'L' | b'K' => return Err(TarFault::Orphan),
            b'g' => {
                // Comments of `git archive` and the like; what would change
                // every member after it is refused.
                let fields = PaxFields::parse(&self.body(header, MAX_PAX)?)?;
                if fields.changes_members() {
                    return Err(TarFault::Pax);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, TarFault> {
        let body = self.body(header, MAX_NAME)?;
        let name = text(&body);
        if name.is_empty() {
            return Err(TarFault::NoName);
        }
        Ok(name.to_vec())
    }

    /// Content of an extended header, at most `cap` bytes.
    fn body(&mut self, header: &Header, cap: u64) -> Result<Vec<u8>, TarFault> {
        let size = size_of_content(header)?;
        if size > cap {
            return Err(TarFault::TooLong(cap));
        }
        self.expect_content(size)?;
        let mut body = Vec::new();
        self.read_to_end(&mut body).map_err(fault_of)?;
        self.skip_content()?;
        Ok(body)
    }

    fn member(&mut self, header: &Header, found: &mut Extended) -> Result<Member, TarFault> {
        let pax = found.pax.take().unwrap_or_default();
        let name = pax.path.or(found.name.take());
        let name = name.unwrap_or_else(|| header.full_name());
        if name.is_empty() {
            return Err(TarFault::NoName);
        }
        if name.len() as u64 > MAX_NAME {
            return Err(TarFault::TooLong(MAX_NAME));
        }
        let link = pax.linkpath.or(found.link.take());
        let link = || link.unwrap_or_else(|| text(&header.linkname).to_vec());
        let kind = kind_of(header, &name, link)?;
        let size = match pax.size {
            Some(size) => size,
            None => size_of_content(header)?,
        };
        let size = match kind {
            MemberKind::File => size,
            // Directories announce no content; some writers put a size there
            // for what will be in them, and readers disagree: refuse.
            _ if size != 0 => return Err(TarFault::ContentOnLink),
            _ => 0,
        };
        self.expect_content(size)?;
        let owner = |field: &[u8], pax: Option<u32>, what| match pax {
            Some(id) => Ok(id),
            None => u32::try_from(number(field, what)?).map_err(|_| TarFault::Number(what)),
        };
        let mtime = match pax.mtime {
            Some(time) => time,
            None => Timestamp::from_seconds(number(&header.mtime, "mtime")?),
        };
        let mode = number(&header.mode, "mode")?;
        Ok(Member {
            name,
            kind,
            // The type stands in its own field; some writers repeat it here.
            mode: u16::try_from(mode & 0o7777).map_err(|_| TarFault::Number("mode"))?,
            uid: owner(&header.uid, pax.uid, "uid")?,
            gid: owner(&header.gid, pax.gid, "gid")?,
            mtime,
            xattrs: pax.xattrs,
            size,
            offset: self.at,
        })
    }

    fn expect_content(&mut self, size: u64) -> Result<(), TarFault> {
        let padded = size
            .checked_next_multiple_of(BLOCK)
            .filter(|padded| self.at.checked_add(*padded).is_some())
            .ok_or(TarFault::Number("size"))?;
        self.left = size;
        self.padding = padded - size;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), TarFault> {
        let mut buffer = [0; 8192];
        while self.left > 0 {
            let count = self.read(&mut buffer).map_err(fault_of)?;
            if count == 0 {
                return Err(TarFault::Truncated);
            }
        }
        while self.padding > 0 {
            let want = usize::try_from(self.padding).expect("less than a block");
            let rest = buffer.get_mut(..want).expect("less than a block");
            self.stream.read_exact(rest).map_err(fault_of)?;
            self.at += self.padding;
            self.padding = 0;
        }
        Ok(())
    }
}

impl<R: Read> Read for MemberReader<R> {
    /// Content of the current member; the end of the stream before the end of
    /// the content is an error.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = buf.len().min(want);
        let Some(buf) = buf.get_mut(..length).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let count = self.stream.read(buf)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl<R: Read + io::Seek> MemberReader<R> {
    /// Passes over the content of the current member without reading it.
    ///
    /// # Errors
    ///
    /// [`TarError`] when the stream cannot seek.
    pub fn seek_over(&mut self) -> Result<(), TarError> {
        let ahead = self.left + self.padding;
        let seek = i64::try_from(ahead).map_err(io::Error::other);
        seek.and_then(|ahead| self.stream.seek_relative(ahead))
            .map_err(|error| self.wrong(b"", TarFault::Read(error)))?;
        self.at += ahead;
        self.left = 0;
        self.padding = 0;
        Ok(())
    }
}

impl Extended {
    fn any(&self) -> bool {
        self.pax.is_some() || self.name.is_some() || self.link.is_some()
    }
}

impl PaxFields {
    fn changes_members(&self) -> bool {
        self.path.is_some()
            || self.linkpath.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.mtime.is_some()
            || !self.xattrs.is_empty()
    }
}

fn fault_of(error: io::Error) -> TarFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => TarFault::Truncated,
        _ => TarFault::Read(error),
    }
}

fn size_of_content(header: &Header) -> Result<u64, TarFault> {
    u64::try_from(number(&header.size, "size")?).map_err(|_| TarFault::Number("size"))
}

fn kind_of(
    header: &Header,
    name: &[u8],
    link: impl FnOnce() -> Vec<u8>,
) -> Result<MemberKind, TarFault> {
    let device = || -> Result<(u32, u32), TarFault> {
        let major = number(&header.devmajor, "devmajor")?;
        let minor = number(&header.devminor, "devminor")?;
        Ok((
            u32::try_from(major).map_err(|_| TarFault::Number("devmajor"))?,
            u32::try_from(minor).map_err(|_| TarFault::Number("devminor"))?,
        ))
    };
    let target = |link: Vec<u8>| {
        if link.is_empty() || link.contains(&0) {
            Err(TarFault::NoName)
        } else if link.len() as u64 > MAX_NAME {
            Err(TarFault::TooLong(MAX_NAME))
        } else {
            Ok(link)
        }
    };
    Ok(match header.typeflag {
        // Before POSIX a trailing slash marked a directory.
        b'0' | 0 if name.ends_with(b"/") => return Err(TarFault::Kind(header.typeflag)),
        b'0' | 0 | b'7' => MemberKind::File,
        b'1' => MemberKind::HardLink(target(link())?),
        b'2' => MemberKind::Symlink(target(link())?),
        b'3' => {
            let (major, minor) = device()?;
            MemberKind::CharDevice { major, minor }
        }
        b'4' => {
            let (major, minor) = device()?;
            MemberKind::BlockDevice { major, minor }
        }
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        b'S' => return Err(TarFault::Sparse),
        other => return Err(TarFault::Kind(other)),
    })
}
