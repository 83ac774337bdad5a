//! What the confined child tells, as bytes on a pipe; and the ear of its
//! parent, which believes none of it.
//!
//! A record is a letter, a length (`u32`, little endian) and that many bytes.

use std::io;

use super::content::{Emit, is_plain};
use super::volume::{MAX_RUNS, Run};
use super::{
    Candidate, FILE_LIMIT, Form, KNOWN_FILES, NAME_LIMIT, NO_CLOUD_FILES, OVF_FILE, PAYLOAD_LIMIT,
    SLOT_LIMIT, SLOTS, Unreadable, printable,
};

const VOLUME: u8 = b'V';
const FILE: u8 = b'F';
const PAYLOAD: u8 = b'P';
const SLOT: u8 = b'S';
const IGNORED: u8 = b'I';
const DAMAGED: u8 = b'D';
/// The child came to its end.
pub const END: u8 = b'.';

/// Characters of a reason or a name.
const TEXT_LIMIT: usize = 512;
/// The longest record: a file with its name.
const RECORD_LIMIT: u64 = FILE_LIMIT + 256;
/// All that one disk can tell: 64 files on each of 64 partitions would be
/// more than anybody needs, so it ends before.
pub const TOTAL_LIMIT: u64 = 32 << 20;

/// Writes records to a sink that may break.
pub struct Speaker<'w> {
    write: &'w mut dyn FnMut(&[u8]) -> io::Result<()>,
    /// The first failure; nothing is written after it.
    pub result: io::Result<()>,
}

impl<'w> Speaker<'w> {
    pub fn new(write: &'w mut dyn FnMut(&[u8]) -> io::Result<()>) -> Self {
        Self {
            write,
            result: Ok(()),
        }
    }

    pub fn record(&mut self, letter: u8, parts: &[&[u8]]) {
        if self.result.is_ok() {
            self.result = self.try_record(letter, parts);
        }
    }

    fn try_record(&mut self, letter: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let mut head = vec![letter];
        head.extend_from_slice(&length.to_le_bytes());
        (self.write)(&head)?;
        parts.iter().try_for_each(|part| (self.write)(part))
    }
}

impl Emit for Speaker<'_> {
    fn volume(&mut self, partition: u32, kind: &str) {
        self.record(VOLUME, &[&partition.to_le_bytes(), kind.as_bytes()]);
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        self.record(FILE, &[name.as_bytes(), b"\0", bytes]);
    }

    fn payload(&mut self, name: &str, size: u64) {
        self.record(PAYLOAD, &[&size.to_le_bytes(), name.as_bytes()]);
    }

    fn slot(&mut self, name: &str, runs: &[Run]) {
        let numbers = runs.iter().flat_map(|(place, length)| [place, length]);
        let bytes: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
        self.record(SLOT, &[name.as_bytes(), b"\0", &bytes]);
    }

    fn ignored(&mut self, name: &str) {
        self.record(IGNORED, &[name.as_bytes()]);
    }

    fn damaged(&mut self, partition: u32, reason: &str) {
        self.record(DAMAGED, &[&partition.to_le_bytes(), reason.as_bytes()]);
    }
}

/// What was told of one disk.
#[derive(Debug, Default)]
pub struct Told {
    /// Volumes of ours.
    pub candidates: Vec<Candidate>,
    /// Volumes that cannot be read.
    pub unreadable: Vec<Unreadable>,
    disk: String,
    /// Whether the last volume is still being told.
    is_open: bool,
}

impl Told {
    /// Nothing yet, of the disk with this kernel's name.
    #[must_use]
    pub fn of(disk: &str) -> Self {
        Self {
            disk: disk.to_owned(),
            ..Self::default()
        }
    }

    /// The child did not come to its end: what it told last is not whole.
    pub fn gave_up(&mut self, reason: &str) {
        let last = self.candidates.last().map(|last| last.partition);
        let partition = last.filter(|_| self.is_open).unwrap_or(0);
        self.damaged(partition, reason);
    }

    /// As the kernel would name it: `vda1`, `nvme0n1p1`.
    fn name(&self, partition: u32) -> String {
        let disk = &self.disk;
        match partition {
            0 => disk.clone(),
            number if disk.ends_with(|c: char| c.is_ascii_digit()) => format!("{disk}p{number}"),
            number => format!("{disk}{number}"),
        }
    }

    /// Takes one record.
    ///
    /// # Errors
    ///
    /// `InvalidData` for what no honest child says.
    fn hear(&mut self, letter: u8, bytes: &[u8]) -> io::Result<()> {
        let lie = || io::Error::from(io::ErrorKind::InvalidData);
        let text = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).ok();
            text.map(str::to_owned).ok_or_else(lie)
        };
        match letter {
            VOLUME => {
                let (number, kind) = bytes.split_first_chunk::<4>().ok_or_else(lie)?;
                self.volume(u32::from_le_bytes(*number), &text(kind)?);
            }
            FILE => {
                let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(lie)?;
                let (name, content) = bytes.split_at(end);
                let content = content.get(1..).unwrap_or_default();
                let name = text(name)?;
                let is_text_file = KNOWN_FILES.contains(&name.as_str())
                    || name == OVF_FILE
                    || NO_CLOUD_FILES.contains(&name.as_str())
                    || name.strip_prefix("license/").is_some_and(is_plain);
                if !is_text_file || content.len() as u64 > FILE_LIMIT || !self.is_open {
                    return Err(lie());
                }
                self.file(&name, content);
            }
            PAYLOAD => {
                let (size, name) = bytes.split_first_chunk::<8>().ok_or_else(lie)?;
                let (size, name) = (u64::from_le_bytes(*size), text(name)?);
                let is_bundle = name.strip_prefix("payload/").is_some_and(is_plain);
                if !is_bundle || size > PAYLOAD_LIMIT || !self.is_open {
                    return Err(lie());
                }
                self.payload(&name, size);
            }
            SLOT => {
                let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(lie)?;
                let (name, numbers) = bytes.split_at(end);
                let name = text(name)?;
                let runs = runs(numbers.get(1..).unwrap_or_default()).ok_or_else(lie)?;
                if !SLOTS.contains(&name.as_str()) || !self.is_open {
                    return Err(lie());
                }
                self.slot(&name, &runs);
            }
            IGNORED => self.ignored(&text(bytes)?),
            DAMAGED => {
                let (number, reason) = bytes.split_first_chunk::<4>().ok_or_else(lie)?;
                self.damaged(u32::from_le_bytes(*number), &text(reason)?);
            }
            _ => return Err(lie()),
        }
        Ok(())
    }
}

impl Emit for Told {
    fn volume(&mut self, partition: u32, kind: &str) {
        self.is_open = true;
        let device = self.name(partition);
        self.candidates.push(Candidate {
            device,
            disk: self.disk.clone(),
            partition,
            filesystem: printable(kind, 40),
            ..Candidate::default()
        });
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        if let Some(candidate) = self.candidates.last_mut()
            && candidate.files.len() < NAME_LIMIT
        {
            if name == OVF_FILE {
                candidate.form = Form::Ovf;
            } else if NO_CLOUD_FILES.contains(&name) {
                candidate.form = Form::NoCloud;
            }
            candidate.files.insert(name.to_owned(), bytes.to_vec());
        }
    }

    fn payload(&mut self, name: &str, size: u64) {
        if let Some(candidate) = self.candidates.last_mut()
            && candidate.payload.len() < NAME_LIMIT
        {
            candidate.payload.insert(name.to_owned(), size);
        }
    }

    fn slot(&mut self, name: &str, runs: &[Run]) {
        if let Some(candidate) = self.candidates.last_mut() {
            candidate.slots.insert(name.to_owned(), runs.to_vec());
        }
    }

    fn ignored(&mut self, name: &str) {
        if let Some(candidate) = self.candidates.last_mut()
            && candidate.ignored.len() < NAME_LIMIT
        {
            candidate.ignored.push(printable(name, TEXT_LIMIT));
        }
    }

    fn damaged(&mut self, partition: u32, reason: &str) {
        if self.is_open
            && self
                .candidates
                .last()
                .is_some_and(|last| last.partition == partition)
        {
            self.candidates.pop();
        }
        self.is_open = false;
        if self.unreadable.len() < NAME_LIMIT {
            self.unreadable.push(Unreadable {
                device: self.name(partition),
                reason: printable(reason, TEXT_LIMIT),
            });
        }
    }
}

/// Pairs of numbers, few enough and none too large.
fn runs(bytes: &[u8]) -> Option<Vec<Run>> {
    let (pairs, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() || pairs.len() > MAX_RUNS {
        return None;
    }
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(*bytes.first_chunk()?));
    let run = |pair: &[u8; 16]| Some((number(pair)?, number(pair.get(8..)?)?));
    let runs: Vec<Run> = pairs.iter().map(run).collect::<Option<_>>()?;
    let total = runs
        .iter()
        .try_fold(0_u64, |total, (_, length)| total.checked_add(*length))?;
    (1..=SLOT_LIMIT).contains(&total).then_some(runs)
}

/// Hears all records from `read`, which fills a buffer or fails.
///
/// # Errors
///
/// `UnexpectedEof` when the child died before its end, `InvalidData` for what
/// no honest child says.
pub fn listen(
    told: &mut Told,
    read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let lie = || io::Error::from(io::ErrorKind::InvalidData);
    let mut total = 0;
    loop {
        let mut head = [0; 5];
        read(&mut head)?;
        let [letter, length @ ..] = head;
        if letter == END {
            return Ok(());
        }
        let length = u64::from(u32::from_le_bytes(length));
        total += length + 5;
        if length > RECORD_LIMIT || total > TOTAL_LIMIT {
            return Err(lie());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        read(&mut bytes)?;
        told.hear(letter, &bytes)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(say: impl FnOnce(&mut Speaker<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut write = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        let mut speaker = Speaker::new(&mut write);
        say(&mut speaker);
        assert!(speaker.result.is_ok());
        bytes
    }

    fn heard(mut bytes: &[u8]) -> (Told, io::Result<()>) {
        let mut told = Told::of("nvme0n1");
        let result = listen(&mut told, &mut |buffer| {
            io::Read::read_exact(&mut bytes, buffer)
        });
        (told, result)
    }

    #[test]
    fn what_is_said_is_heard() {
        let bytes = spoken(|speaker| {
            speaker.damaged(1, "is cut off");
            speaker.volume(2, "FAT16");
            speaker.file("site.toml", b"schema = 1\n");
            speaker.file("license/a.key", b"\0\xff");
            speaker.payload("payload/a.vab", 1 << 30);
            speaker.ignored("photos");
            speaker.record(END, &[]);
        });
        let (told, result) = heard(&bytes);
        assert!(result.is_ok());
        let [candidate] = told.candidates.as_slice() else {
            panic!("one candidate")
        };
        assert_eq!(candidate.device, "nvme0n1p2");
        assert_eq!(candidate.files["license/a.key"], b"\0\xff");
        assert_eq!(candidate.payload["payload/a.vab"], 1 << 30);
        assert_eq!(told.unreadable[0].to_string(), "nvme0n1p1: is cut off");
    }

    #[test]
    fn a_volume_that_turns_out_damaged_is_no_candidate() {
        let bytes = spoken(|speaker| {
            speaker.volume(0, "FAT16");
            speaker.file("site.toml", b"x");
            speaker.damaged(0, "a loop\u{1b}[2J");
            speaker.record(END, &[]);
        });
        let (told, result) = heard(&bytes);
        assert!(result.is_ok() && told.candidates.is_empty());
        assert_eq!(told.unreadable[0].reason, "a loop\\u{1b}[2J");
    }

    #[test]
    fn a_child_that_was_taken_over_cannot_say_what_it_wants() {
        let open = spoken(|speaker| speaker.volume(0, "FAT16"));
        let with = |letter: u8, parts: &[&[u8]]| {
            let mut bytes = open.clone();
            bytes.extend(spoken(|speaker| speaker.record(letter, parts)));
            bytes.extend(spoken(|speaker| speaker.record(END, &[])));
            bytes
        };
        let long = vec![b'x'; usize::try_from(FILE_LIMIT).expect("fits") + 1];
        let cases = [
            with(FILE, &[b"../etc/passwd\0x"]),
            with(FILE, &[b"license/../../x\0x"]),
            with(FILE, &[b"site.toml\0", &long]),
            with(FILE, &[b"site.toml"]),
            with(PAYLOAD, &[&u64::MAX.to_le_bytes(), b"payload/a.vab"]),
            with(PAYLOAD, &[&[0; 8], b"payload/../a"]),
            with(VOLUME, &[b"x"]),
            with(b'X', &[b"x"]),
            vec![FILE, 0xff, 0xff, 0xff, 0xff],
            open.clone(),
        ];
        for (at, bytes) in cases.iter().enumerate() {
            assert!(heard(bytes).1.is_err(), "case {at}");
        }
    }
}
