//! A .deb, read once from front to back: digest, control files, and the
//! files of the package into a staging folder.
//!
//! Source: deb(5) and ar(5). Members are never held in memory; the control
//! archive is capped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use liblzma::stream::{CONCATENATED, IGNORE_CHECK, Stream};

use super::control::{Control, Stanza};
use super::filter::PathFilter;
use super::plain::{Keeper, Kept, Tee};
use super::stager::Stager;
use crate::digest::Hasher;
use crate::layer::sandbox::protocol::DebFile;
use crate::layer::sandbox::{Fault, StagedFile};
use crate::layer::tar::{MemberKind, MemberReader, TarError};
use crate::tree::{Metadata, NodeKind, TreePath};

/// Longest control archive, uncompressed.
pub(super) const MAX_CONTROL: u64 = 64 << 20;
/// Memory that an xz stream may ask for: `xz -9` takes 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// How much longer data may be than their compressed form, and how much of
/// them is free: real packages stay below 30 times.
const MAX_GROWTH: u64 = 256;
const FREE_GROWTH: u64 = 64 << 20;
/// Logarithm of the largest zstd window: 128 MiB, as `zstd --long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A package whose files wait in the staging folder.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) control: Control,
    pub(crate) is_automatic: bool,
    /// In the order of the archive.
    pub(crate) entries: Vec<Entry>,
    /// MD5 of conffiles, and of every file when the package brought no sums.
    pub(crate) sums: BTreeMap<TreePath, String>,
}

/// One path of a package.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: TreePath,
    pub(crate) meta: Metadata,
    pub(crate) what: What,
}

/// What is at a path of a package.
#[derive(Debug)]
pub(crate) enum What {
    Directory,
    File(StagedFile),
    Symlink(Vec<u8>),
    HardLink(TreePath),
    Special(NodeKind),
    /// Left out by the layer's `exclude_paths`. dpkg lists it all the same.
    Excluded,
}

/// Reads the package into `stage`, an empty folder of its own.
pub(crate) fn unpack(deb: &DebFile, stage: &Path, filter: &PathFilter) -> Result<Unpacked, Fault> {
    if let Some(unpacked) = from_kept(deb, stage, filter)? {
        return unpacked;
    }
    let file = File::open(&deb.path)
        .map_err(|error| Fault::system("open", deb.path.display().to_string(), error))?;
    let mut keeper = Keeper::begin(&deb.plain, &deb.sha256);
    let mut stream = BufReader::with_capacity(128 << 10, Hashing::new(file));
    let result = read_archive(deb, &mut stream, stage, filter, keeper.as_mut());
    // Damage is best explained by the digest, so it is looked at first.
    io::copy(&mut stream, &mut io::sink())
        .map_err(|error| Fault::system("read", deb.path.display().to_string(), error))?;
    let found = stream.into_inner().hasher.finish();
    if found != deb.sha256 {
        return Err(Fault::Digest {
            package: deb.package.clone(),
            found: found.to_string(),
            expected: deb.sha256.to_string(),
        });
    }
    if let (Some(keeper), Ok(_)) = (keeper, &result) {
        keeper.finish(&deb.plain);
    }
    result
}

/// The package from its uncompressed form; `None` when there is none that is
/// sound. One that is not is dropped.
fn from_kept(
    deb: &DebFile,
    stage: &Path,
    filter: &PathFilter,
) -> Result<Option<Result<Unpacked, Fault>>, Fault> {
    let Some(mut kept) = Kept::open(&deb.plain, &deb.sha256, MAX_CONTROL) else {
        return Ok(None);
    };
    let tar = std::mem::take(&mut kept.control);
    let control = read_control("control.tar", &mut tar.as_slice());
    let result = control
        .map_err(|reason| malformed(deb, reason))
        .and_then(|control| Stager::new(deb, control, stage, filter).take(&mut kept));
    if kept.checks_out() {
        return Ok(Some(result));
    }
    let failed = |error| Fault::system("clear", stage.display().to_string(), error);
    std::fs::remove_dir_all(stage).map_err(failed)?;
    std::fs::create_dir(stage).map_err(failed)?;
    // What cannot be removed is found again, and replaced.
    drop(std::fs::remove_file(&deb.plain));
    Ok(None)
}

/// The control files of a package file, its digest and its length; the error
/// is one clause.
pub(crate) fn inspect(path: &Path) -> Result<(Control, crate::digest::Digest, u64), String> {
    let in_words = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(in_words)?;
    let size = file.metadata().map_err(in_words)?.len();
    let mut stream = BufReader::with_capacity(128 << 10, Hashing::new(file));
    let control = first_control(&mut stream);
    io::copy(&mut stream, &mut io::sink()).map_err(in_words)?;
    Ok((control?, stream.into_inner().hasher.finish(), size))
}

/// The control files of a package whose digest nobody has looked at yet:
/// good for putting packages in order, and for nothing that runs.
pub(super) fn peek(deb: &DebFile) -> Option<Control> {
    let file = File::open(&deb.path).ok()?;
    let control = first_control(&mut BufReader::with_capacity(64 << 10, file)).ok()?;
    let is_sane = control.check().is_ok() && control.package() == deb.package;
    is_sane.then_some(control)
}

fn first_control(stream: &mut impl Read) -> Result<Control, String> {
    let mut magic = [0; 8];
    let is_ar = stream.read_exact(&mut magic).is_ok() && &magic == b"!<arch>\n";
    if !is_ar {
        return Err("it is not an ar archive".into());
    }
    while let Some((name, size)) = ar_member(stream).map_err(|error| error.to_string())? {
        let mut body = (&mut *stream).take(size);
        match name.as_str() {
            "debian-binary" => check_version(&mut body)?,
            _ if name.starts_with("control.tar") => return read_control(&name, &mut body),
            _ => {}
        }
        io::copy(&mut body, &mut io::sink())
            .and_then(|_| io::copy(&mut (&mut *stream).take(size % 2), &mut io::sink()))
            .map_err(|error| error.to_string())?;
    }
    Err("it has no control files".into())
}

pub(super) fn malformed(deb: &DebFile, reason: impl std::fmt::Display) -> Fault {
    Fault::Package {
        package: deb.package.clone(),
        reason: reason.to_string(),
    }
}

fn read_archive(
    deb: &DebFile,
    stream: &mut impl Read,
    stage: &Path,
    filter: &PathFilter,
    mut keeper: Option<&mut Keeper>,
) -> Result<Unpacked, Fault> {
    let wrong = |reason: String| malformed(deb, reason);
    let mut magic = [0; 8];
    stream
        .read_exact(&mut magic)
        .map_err(|error| wrong(error.to_string()))?;
    if &magic != b"!<arch>\n" {
        return Err(wrong("it is not an ar archive".into()));
    }
    let mut read = Progress::Nothing;
    while let Some((name, size)) = ar_member(stream).map_err(|error| wrong(error.to_string()))? {
        let mut body = (&mut *stream).take(size);
        read = match (read, name.as_str()) {
            (Progress::Nothing, "debian-binary") => {
                check_version(&mut body).map_err(wrong)?;
                Progress::Version
            }
            (Progress::Version, _) if name.starts_with("control.tar") => {
                let tar = decompressed(&name, &mut body).map_err(wrong)?;
                if let Some(keeper) = &mut keeper {
                    keeper.control(&tar);
                }
                let found = read_control("control.tar", &mut tar.as_slice()).map_err(wrong)?;
                found.check().map_err(wrong)?;
                if found.package() != deb.package {
                    return Err(wrong(format!("it calls itself `{}`", found.package())));
                }
                Progress::Control(found)
            }
            (Progress::Control(control), _) if name.starts_with("data.tar") => {
                let from = Bounded {
                    stream: decompress(&name, &mut body).map_err(wrong)?,
                    left: size.saturating_mul(MAX_GROWTH).saturating_add(FREE_GROWTH),
                };
                let keeper = keeper.as_deref_mut();
                let mut tee = Tee { from, keeper };
                let unpacked = Stager::new(deb, control, stage, filter).take(&mut tee)?;
                // The end of the archive belongs to the form that is kept.
                io::copy(&mut tee, &mut io::sink()).map_err(|error| wrong(error.to_string()))?;
                Progress::Data(unpacked)
            }
            // deb(5): members whose name begins with `_` may be passed over.
            (read, _) if name.starts_with('_') => read,
            (Progress::Version, _) if name.starts_with("data.tar") => {
                return Err(wrong("its data comes before its control files".into()));
            }
            _ => {
                let name = name.escape_default();
                return Err(wrong(format!(
                    "it has a member `{name}` where none belongs"
                )));
            }
        };
        let padded = size % 2;
        io::copy(&mut body, &mut io::sink())
            .and_then(|_| io::copy(&mut (&mut *stream).take(padded), &mut io::sink()))
            .map_err(|error| wrong(error.to_string()))?;
    }
    match read {
        Progress::Data(unpacked) => Ok(unpacked),
        _ => Err(wrong("it has no data".into())),
    }
}

/// How far a .deb has been read: its members come once each, in this order.
enum Progress {
    Nothing,
    Version,
    Control(Control),
    Data(Unpacked),
}

/// Name and size of the next ar member.
fn ar_member(stream: &mut impl Read) -> io::Result<Option<(String, u64)>> {
    let mut header = [0; 60];
    let mut filled = 0;
    while let Some(rest) = header.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    let (fields, end) = header.split_at(58);
    let (before, size) = fields.split_at(48);
    let (name, _) = before.split_at(16);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let size = text(size)
        .parse()
        .map_err(|_| io::Error::other("the size of an ar member is not a number"))?;
    if end != b"`\n" {
        return Err(io::Error::other(
            "an ar member's header does not end as it should",
        ));
    }
    Ok(Some((text(name).trim_end_matches('/').to_owned(), size)))
}

fn check_version(body: &mut impl Read) -> Result<(), String> {
    let mut text = String::new();
    body.take(64)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.starts_with("2.") {
        Ok(())
    } else {
        Err(format!("its format is `{}`", text.trim().escape_default()))
    }
}

/// The uncompressed form of a member, by the end of its name.
fn decompress<'a>(name: &str, body: &'a mut dyn Read) -> Result<Box<dyn Read + 'a>, String> {
    let kind = name.rsplit_once(".tar").map_or("", |(_, kind)| kind);
    Ok(match kind {
        "" => Box::new(body),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(body)),
        ".xz" => {
            // Nothing counts before the digest of the whole package is right,
            // which says more than xz's own check, and that takes an eighth
            // of the time.
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED | IGNORE_CHECK)
                .map_err(|error| error.to_string())?;
            Box::new(liblzma::read::XzDecoder::new_stream(body, stream))
        }
        ".zst" => {
            let mut decoder =
                zstd::stream::read::Decoder::new(body).map_err(|error| error.to_string())?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .map_err(|error| error.to_string())?;
            Box::new(decoder)
        }
        other => return Err(format!("its compression `{other}` is not supported")),
    })
}

/// A whole control archive, uncompressed.
fn decompressed(name: &str, body: &mut dyn Read) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    let mut stream = decompress(name, body)?.take(MAX_CONTROL);
    let read = stream.read_to_end(&mut tar);
    read.map(|_| tar).map_err(|error| error.to_string())
}

fn read_control(name: &str, body: &mut dyn Read) -> Result<Control, String> {
    let stream = decompress(name, body)?.take(MAX_CONTROL);
    let mut members = MemberReader::new(BufReader::new(stream));
    let mut control = Control::default();
    while let Some(member) = members.next_member().map_err(|error| chain(&error))? {
        if member.kind != MemberKind::File {
            continue;
        }
        let path = TreePath::parse(&member.name).map_err(|error| error.to_string())?;
        let name = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let mut bytes = Vec::new();
        members
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        if name == "control" {
            control.stanza = Stanza::parse(&String::from_utf8_lossy(&bytes))
                .ok_or("its control file is malformed")?;
        } else if name.contains('/') {
            return Err(format!("it has a control file `{}`", name.escape_default()));
        } else if control.files.insert(name, (bytes, member.mode)).is_some() {
            return Err("it has a control file twice".into());
        }
    }
    for field in ["Package", "Version", "Architecture"] {
        if control.stanza.get(field).is_none() {
            return Err(format!("its control file has no field `{field}`"));
        }
    }
    Ok(control)
}

/// Contents of the files of a package that are `wanted`.
///
/// # Errors
///
/// What is wrong with the package, in words.
pub(crate) fn files_of(
    deb: &Path,
    wanted: impl Fn(&TreePath) -> bool,
) -> Result<BTreeMap<TreePath, Vec<u8>>, String> {
    let in_words = |error: io::Error| error.to_string();
    let mut stream = BufReader::with_capacity(128 << 10, File::open(deb).map_err(in_words)?);
    stream.read_exact(&mut [0; 8]).map_err(in_words)?;
    let mut found = BTreeMap::new();
    while let Some((name, size)) = ar_member(&mut stream).map_err(in_words)? {
        let mut body = (&mut stream).take(size);
        if name.starts_with("data.tar") {
            let data = decompress(&name, &mut body)?;
            let mut members = MemberReader::new(BufReader::with_capacity(128 << 10, data));
            while let Some(member) = members.next_member().map_err(|error| chain(&error))? {
                let path = TreePath::parse(&member.name).map_err(|error| error.to_string())?;
                if member.kind == MemberKind::File && wanted(&path) {
                    let mut bytes = Vec::new();
                    members.read_to_end(&mut bytes).map_err(in_words)?;
                    found.insert(path, bytes);
                }
            }
        }
        io::copy(&mut body, &mut io::sink()).map_err(in_words)?;
        io::copy(&mut (&mut stream).take(size % 2), &mut io::sink()).map_err(in_words)?;
    }
    Ok(found)
}

pub(super) fn chain(error: &TarError) -> String {
    match std::error::Error::source(&error.fault) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Passes on no more than a package of its length can honestly hold.
struct Bounded<R> {
    stream: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buf)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!(
                "its data are more than {MAX_GROWTH} times as long as their compressed form"
            ))
        })?;
        Ok(count)
    }
}

/// Digests all that is read through it.
struct Hashing {
    file: File,
    hasher: Hasher,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self {
            file,
            hasher: Hasher::new(),
        }
    }
}

impl Read for Hashing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        self.hasher.update(buf.split_at(count).0);
        Ok(count)
    }
}
