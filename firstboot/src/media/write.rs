//! What goes back onto a medium: bytes of files that are there already, in
//! place. Nothing of the file system itself is written.
//!
//! Where they are was said by the confined reader, which may have been fooled
//! by the medium. So the volume's own device is written to, opened for nobody
//! else: a place outside of it, or a volume in use, is an error.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, fsync, open};
use rustix::io::{Errno, pread, pwrite};

use super::{Candidate, Roots};

/// What became of bytes that should go onto a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// They are there now.
    Written,
    /// They were there before.
    Same,
    /// The medium has no such file, or nobody can write to it.
    NoRoom,
}

/// Makes the file `name` of the medium begin with `bytes`, and go on with
/// `fill` to its end.
///
/// # Errors
///
/// `FileTooLarge` when the file is too short for them, and what the system
/// reports.
pub fn put_slot(
    roots: &Roots,
    candidate: &Candidate,
    name: &str,
    bytes: &[u8],
    fill: u8,
) -> io::Result<Put> {
    let Some(runs) = candidate.slots.get(name) else {
        return Ok(Put::NoRoom);
    };
    let path = roots.dev.join(&candidate.device);
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = match open(&path, flags, Mode::empty()) {
        Ok(device) => device,
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOMEDIUM) => {
            return Ok(Put::NoRoom);
        }
        Err(error) => return Err(error.into()),
    };
    let room: u64 = runs.iter().map(|(_, length)| length).sum();
    let room = usize::try_from(room).map_err(io::Error::other)?;
    if bytes.len() > room {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut wanted = bytes.to_vec();
    wanted.resize(room, fill);
    let mut rest = wanted.as_slice();
    let mut put = Put::Same;
    for (place, length) in runs {
        let length = usize::try_from(*length).map_err(io::Error::other)?;
        let (piece, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = after;
        if !holds(&device, piece, *place)? {
            write_at(&device, piece, *place)?;
            put = Put::Written;
        }
    }
    if put == Put::Written {
        fsync(&device)?;
    }
    Ok(put)
}

fn holds(device: &OwnedFd, piece: &[u8], mut place: u64) -> io::Result<bool> {
    let mut found = vec![0; piece.len()];
    let mut left = found.as_mut_slice();
    while !left.is_empty() {
        match pread(device, &mut *left, place)? {
            // Writing will say that the medium ends here.
            0 => return Ok(false),
            count => {
                place += count as u64;
                left = left.get_mut(count..).unwrap_or_default();
            }
        }
    }
    Ok(found == piece)
}

fn write_at(device: &OwnedFd, mut piece: &[u8], mut place: u64) -> io::Result<()> {
    while !piece.is_empty() {
        let count = pwrite(device, piece, place)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        place += count as u64;
        piece = piece.get(count..).unwrap_or_default();
    }
    Ok(())
}
