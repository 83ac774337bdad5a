//! `consign inspect`: what is in a disk image, without a mount.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::draw::ReportFormat;
use super::error::output;
use crate::error::Error;
use crate::image::ImageFormat;
use crate::inspect::{self, DiskImage, Entry, FileSystem, Kind, Overview, PartitionFacts};
use crate::tree::Escaped;
use crate::units::{ByteSize, Timestamp};

/// Shows what is in a disk image: container, content root, partitions, file
/// systems. Reads raw, raw.zst, qcow2, VMDK, VHDX and VHD; mounts nothing,
/// needs no rights, and opens no other file that the image may name.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct InspectArgs {
    #[command(subcommand)]
    command: Option<InspectCommand>,
    #[command(flatten)]
    overview: OverviewArgs,
}

#[derive(Debug, Clone, clap::Args)]
struct OverviewArgs {
    /// The image.
    #[arg(value_name = "DISK", required = true)]
    disk: Option<PathBuf>,
    /// Does not read the whole disk for its content root.
    #[arg(long)]
    no_root: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, clap::Args)]
struct How {
    /// What the image is, instead of what its first bytes say.
    #[arg(long, value_name = "FORMAT", value_parser = super::build::image_format)]
    input_format: Option<ImageFormat>,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum InspectCommand {
    /// Lists a directory of a volume.
    Ls(PathArgs),
    /// Prints a file of a volume.
    Cat(PathArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct PathArgs {
    /// The image, and behind a colon the partition by number or name.
    #[arg(value_name = "DISK[:PARTITION]")]
    disk: PathBuf,
    /// The path on the volume.
    #[arg(value_name = "PATH", default_value = "/")]
    path: OsString,
    #[command(flatten)]
    how: How,
}

impl InspectArgs {
    /// How the user wants errors.
    pub(super) fn format(&self) -> ReportFormat {
        match &self.command {
            Some(InspectCommand::Ls(args) | InspectCommand::Cat(args)) => args.how.format,
            None => self.overview.how.format,
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
///
/// [`Error::Inspect`].
pub(super) fn run(args: &InspectArgs, out: &mut dyn Write) -> Result<(), Error> {
    match &args.command {
        Some(InspectCommand::Ls(args)) => list(args, out),
        Some(InspectCommand::Cat(args)) => cat(args, out),
        None => show(&args.overview, out),
    }
}

fn show(args: &OverviewArgs, out: &mut dyn Write) -> Result<(), Error> {
    let path = args.disk.as_deref().unwrap_or(Path::new("-"));
    let image = inspect::open(path, args.how.input_format)?;
    let overview = inspect::overview(&image, !args.no_root)?;
    let text = match args.how.format {
        ReportFormat::Text => text(path, &overview),
        ReportFormat::Json => format!("{:#}\n", object(&overview)),
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// The image, and what stands behind the last colon when there is no such file.
fn split(disk: &Path) -> (PathBuf, Option<String>) {
    let bytes = disk.as_os_str().as_bytes();
    let colon = bytes.iter().rposition(|byte| *byte == b':');
    match colon.map(|at| (&bytes[..at], &bytes[at + 1..])) {
        Some((file, part)) if !disk.exists() && !part.contains(&b'/') => (
            PathBuf::from(OsStr::from_bytes(file)),
            Some(String::from_utf8_lossy(part).into_owned()),
        ),
        _ => (disk.to_owned(), None),
    }
}

fn open(args: &PathArgs) -> Result<(DiskImage, Option<String>), Error> {
    let (file, part) = split(&args.disk);
    Ok((inspect::open(&file, args.how.input_format)?, part))
}

fn list(args: &PathArgs, out: &mut dyn Write) -> Result<(), Error> {
    let (image, part) = open(args)?;
    let volume = image.volume(part.as_deref())?;
    let path = args.path.as_bytes();
    // Nothing is printed of a directory that cannot be read to its end.
    for entry in volume.entries(path)? {
        entry?;
    }
    let out = &mut BufWriter::new(out);
    let mut separator = "";
    for entry in volume.entries(path)? {
        let entry = entry?;
        let written = match args.how.format {
            ReportFormat::Text => out.write_all(line(&entry).as_bytes()),
            ReportFormat::Json => element(&entry, separator, out),
        };
        written.map_err(output)?;
        separator = ",";
    }
    if args.how.format == ReportFormat::Json {
        let end: &[u8] = if separator.is_empty() {
            b"[]\n"
        } else {
            b"\n]\n"
        };
        out.write_all(end).map_err(output)?;
    }
    out.flush().map_err(output)?;
    Ok(())
}

/// One element of a list as it is printed, behind the one before.
fn element(entry: &Entry, separator: &str, out: &mut dyn Write) -> io::Result<()> {
    let begin = if separator.is_empty() { "[" } else { separator };
    let object = format!("{:#}", entry_object(entry)).replace('\n', "\n  ");
    write!(out, "{begin}\n  {object}")
}

fn cat(args: &PathArgs, out: &mut dyn Write) -> Result<(), Error> {
    let (image, part) = open(args)?;
    let volume = image.volume(part.as_deref())?;
    let mut closed = None;
    let read = volume.read(args.path.as_bytes(), &mut |piece| {
        out.write_all(piece).map_err(|error| {
            let kind = error.kind();
            closed = Some(error);
            kind.into()
        })
    });
    if let Some(error) = closed {
        return Err(output(error).into());
    }
    Ok(read?)
}

/// Names and labels come from outside.
fn clean(text: &str) -> String {
    let clean = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(clean).collect()
}

fn text(path: &Path, overview: &Overview) -> String {
    let mut text = format!(
        "{}: {}{}, {}\n",
        clean(&path.to_string_lossy()),
        overview.format,
        if overview.detail == overview.format.name() {
            String::new()
        } else {
            format!(" ({})", overview.detail)
        },
        overview.file_size,
    );
    let mut row = |name: &str, value: &str| {
        writeln!(text, "{name:14}{value}").expect("a string takes all");
    };
    row(
        "disk",
        &format!("{}, {} of it data", overview.disk_size, overview.data),
    );
    if let Some(root) = &overview.content_root {
        row("content root", &root.to_string());
    }
    if let Some(guid) = &overview.disk_guid {
        row("GPT", &guid.to_string());
    }
    if let Some(fault) = overview.primary_fault {
        row("GPT primary", fault);
    }
    if let Some(fault) = overview.backup_fault {
        row("GPT backup", fault);
    }
    for partition in &overview.partitions {
        text.push_str(&partition_line(partition));
    }
    text
}

fn partition_line(partition: &PartitionFacts) -> String {
    let number = partition.number.map_or("-".to_owned(), |n| n.to_string());
    let size = ByteSize::from_bytes(partition.range.end - partition.range.start);
    let content = match &partition.file_system {
        FileSystem::Empty => "empty".to_owned(),
        FileSystem::Unknown => "no known file system".to_owned(),
        FileSystem::Faulty(error) => clean(&error.to_string()),
        FileSystem::Known {
            name,
            label,
            id,
            usage,
        } => {
            let label = label
                .as_deref()
                .map_or(String::new(), |label| format!(" `{}`", clean(label)));
            let used = usage.total.bytes().saturating_sub(usage.free.bytes());
            let used = ByteSize::from_bytes(used);
            format!("{name}{label} {id}, {used} of {} used", usage.total)
        }
    };
    let size = size.to_string();
    let name = clean(&partition.name);
    format!("{number:>3}  {name:12} {size:>10}  {content}\n")
}

fn object(overview: &Overview) -> Value {
    let partitions: Vec<Value> = overview.partitions.iter().map(partition_object).collect();
    json!({
        "format": overview.format.name(),
        "detail": overview.detail,
        "file_size": overview.file_size.bytes(),
        "disk_size": overview.disk_size.bytes(),
        "data": overview.data.bytes(),
        "content_root": overview.content_root,
        "disk_guid": overview.disk_guid.map(|guid| guid.to_string()),
        "primary_table_fault": overview.primary_fault,
        "backup_table_fault": overview.backup_fault,
        "partitions": partitions,
    })
}

fn partition_object(partition: &PartitionFacts) -> Value {
    let file_system = match &partition.file_system {
        FileSystem::Empty => json!({"kind": "empty"}),
        FileSystem::Unknown => json!({"kind": "unknown"}),
        FileSystem::Faulty(error) => json!({"kind": "faulty", "fault": error.to_string()}),
        FileSystem::Known {
            name,
            label,
            id,
            usage,
        } => json!({
            "kind": name,
            "label": label,
            "id": id,
            "total": usage.total.bytes(),
            "free": usage.free.bytes(),
        }),
    };
    json!({
        "number": partition.number,
        "name": partition.name,
        "type": partition.type_guid.map(|guid| guid.to_string()),
        "guid": partition.guid.map(|guid| guid.to_string()),
        "start": partition.range.start,
        "size": partition.range.end - partition.range.start,
        "file_system": file_system,
    })
}

/// The type's letter and the nine permissions, as `ls -l` has them.
fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::Directory => 'd',
        Kind::File => '-',
        Kind::Symlink(_) => 'l',
        Kind::CharDevice(..) => 'c',
        Kind::BlockDevice(..) => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn line(entry: &Entry) -> String {
    let size = match entry.kind {
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            format!("{major}, {minor}")
        }
        _ => entry.size.to_string(),
    };
    let mut name = Escaped(&entry.name).to_string();
    if let Kind::Symlink(target) = &entry.kind {
        name = format!("{name} -> {}", Escaped(target));
    }
    format!(
        "{}{} {:>3} {:>5} {:>5} {size:>10} {} {name}\n",
        mode(entry),
        if entry.xattrs.is_empty() { ' ' } else { '+' },
        entry.links,
        entry.uid,
        entry.gid,
        Timestamp::from_seconds(entry.mtime.0),
    )
}

fn entry_object(entry: &Entry) -> Value {
    let text = |bytes: &[u8]| Escaped(bytes).to_string();
    let hex = |bytes: &[u8]| {
        let add = |mut text: String, byte: &u8| {
            write!(text, "{byte:02x}").expect("a string takes all");
            text
        };
        bytes.iter().fold(String::new(), add)
    };
    let (kind, target, device) = match &entry.kind {
        Kind::Directory => ("directory", None, None),
        Kind::File => ("file", None, None),
        Kind::Symlink(target) => ("symlink", Some(text(target)), None),
        Kind::CharDevice(major, minor) => ("char-device", None, Some([*major, *minor])),
        Kind::BlockDevice(major, minor) => ("block-device", None, Some([*major, *minor])),
        Kind::Fifo => ("fifo", None, None),
        Kind::Socket => ("socket", None, None),
    };
    let xattrs: serde_json::Map<String, Value> = entry
        .xattrs
        .iter()
        .map(|(name, value)| (text(name), hex(value).into()))
        .collect();
    json!({
        "name": text(&entry.name),
        "kind": kind,
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "links": entry.links,
        "mtime": Timestamp::from_seconds(entry.mtime.0).to_string(),
        "mtime_nanos": entry.mtime.1,
        "inode": entry.inode,
        "target": target,
        "device": device,
        "xattrs": xattrs,
    })
}
