//! `appliance.toml` as it was written: every value with its place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::SCHEMA;
use super::diagnostic::Diagnostic;
use super::fields::{Fields, Problems, WrittenMoment, parse};
use super::repository::{OwnRepository, WrittenPin, pins, repositories};
use super::source::Source;

/// The whole file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) folder: PathBuf,
    pub(super) appliance: WrittenIdentity,
    pub(super) system: WrittenSystem,
    pub(super) repositories: Vec<OwnRepository>,
    pub(super) pins: Vec<WrittenPin>,
    pub(super) disk: WrittenDisk,
    pub(super) boot: WrittenBoot,
    pub(super) machine: WrittenMachine,
    pub(super) outputs: WrittenOutputs,
    /// Names and texts for templates.
    pub(super) values: Vec<(Spanned<String>, Spanned<String>)>,
}

#[derive(Debug)]
pub(super) struct WrittenIdentity {
    pub(super) name: Option<Spanned<String>>,
    pub(super) version: Option<Spanned<String>>,
    pub(super) label: Option<Spanned<String>>,
    pub(super) description: Option<Spanned<String>>,
    pub(super) vendor: Option<Spanned<String>>,
    pub(super) eula: Option<Spanned<String>>,
    pub(super) source_date: Option<Spanned<WrittenMoment>>,
}

#[derive(Debug)]
pub(super) struct WrittenSystem {
    pub(super) distribution: Option<Spanned<String>>,
    pub(super) suite: Option<Spanned<String>>,
    pub(super) architecture: Option<Spanned<String>>,
    pub(super) mirror: Option<Spanned<String>>,
    pub(super) kernel: Option<Spanned<String>>,
    pub(super) layers: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug)]
pub(super) struct WrittenDisk {
    pub(super) header: Option<Range<usize>>,
    pub(super) profile: Option<Spanned<String>>,
    pub(super) size: Option<Spanned<String>>,
    pub(super) esp: Option<Spanned<String>>,
    pub(super) root: Option<Spanned<String>>,
    pub(super) var: Option<Spanned<String>>,
}

#[derive(Debug)]
pub(super) struct WrittenBoot {
    pub(super) cmdline: Option<Spanned<String>>,
}

#[derive(Debug)]
pub(super) struct WrittenMachine {
    pub(super) memory: Option<Spanned<String>>,
    pub(super) vcpus: Option<Spanned<u64>>,
    pub(super) nics: Option<Spanned<u64>>,
    pub(super) graphics: Option<Spanned<bool>>,
    pub(super) firmware: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) disks: Vec<WrittenUserDisk>,
}

#[derive(Debug)]
pub(super) struct WrittenUserDisk {
    pub(super) name: Option<Spanned<String>>,
    pub(super) size: Option<Spanned<String>>,
}

#[derive(Debug)]
pub(super) struct WrittenOutputs {
    pub(super) formats: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) qcow2_compression: Option<Spanned<String>>,
    pub(super) zstd_level: Option<Spanned<u64>>,
}

impl Written {
    /// Reads the whole file; `None` when it is not TOML, or of another schema.
    pub(super) fn read(source: &Source, problems: &mut Problems) -> Option<Self> {
        let table = parse(source, problems)?;
        let mut top = Fields::top(&table);
        top.require("schema", "1");
        if let Some(schema) = top.number("schema", "1", problems)
            && *schema.get_ref() != SCHEMA
        {
            // Its keys may mean something else: nothing more can be judged.
            problems.push(
                Diagnostic::at(
                    schema.span(),
                    format!(
                        "`schema` is {}, this consign reads {SCHEMA}",
                        schema.get_ref()
                    ),
                )
                .help("write `schema = 1`, or use the consign that the file was written for"),
            );
            return None;
        }
        let folder = source.path().parent().unwrap_or(Path::new(""));
        let written = Self {
            folder: folder.to_owned(),
            appliance: identity(top.table("appliance", problems), problems),
            system: system(top.table("system", problems), problems),
            repositories: repositories(top.tables("repository", problems), folder, problems),
            pins: pins(top.tables("pin", problems), problems),
            disk: disk(top.table("disk", problems), problems),
            boot: boot(top.table("boot", problems), problems),
            machine: machine(top.table("machine", problems), problems),
            outputs: outputs(top.table("outputs", problems), problems),
            values: top.pairs("values", "{ vendor = \"Example Ltd\" }", problems),
        };
        top.finish(problems);
        Some(written)
    }
}

fn identity(mut table: Fields<'_>, problems: &mut Problems) -> WrittenIdentity {
    table.require("name", "\"wiki\"");
    table.require("version", "\"1.0.0\"");
    let written = WrittenIdentity {
        name: table.text("name", "\"wiki\"", problems),
        version: table.text("version", "\"1.0.0\"", problems),
        label: table.text("label", "\"Team wiki\"", problems),
        description: table.text("description", "\"...\"", problems),
        vendor: table.text("vendor", "\"Example Ltd\"", problems),
        eula: table.text("eula", "\"EULA.txt\"", problems),
        source_date: table.moment("source_date", "2024-05-01T00:00:00Z", problems),
    };
    table.finish(problems);
    written
}

fn system(mut table: Fields<'_>, problems: &mut Problems) -> WrittenSystem {
    const DISTRIBUTION: &str = "\"debian\"";
    const SUITE: &str = "\"bookworm\"";
    const LAYERS: &str = "[\"base\", \"app\"]";
    table.require("distribution", DISTRIBUTION);
    table.require("suite", SUITE);
    table.require("layers", LAYERS);
    let written = WrittenSystem {
        distribution: table.text("distribution", DISTRIBUTION, problems),
        suite: table.text("suite", SUITE, problems),
        architecture: table.text("architecture", "\"amd64\"", problems),
        mirror: table.text("mirror", "\"https://mirror.example.com/debian\"", problems),
        kernel: table.text("kernel", "\"generic\"", problems),
        layers: table.texts("layers", LAYERS, problems),
    };
    table.finish(problems);
    written
}

fn disk(mut table: Fields<'_>, problems: &mut Problems) -> WrittenDisk {
    let written = WrittenDisk {
        header: table.span(),
        profile: table.text("profile", "\"ab\"", problems),
        size: table.text("size", "\"8GiB\"", problems),
        esp: table.text("esp", "\"256MiB\"", problems),
        root: table.text("root", "\"2GiB\"", problems),
        var: table.text("var", "\"1GiB\"", problems),
    };
    table.finish(problems);
    written
}

fn boot(mut table: Fields<'_>, problems: &mut Problems) -> WrittenBoot {
    let written = WrittenBoot {
        cmdline: table.text("cmdline", "\"mitigations=auto\"", problems),
    };
    table.finish(problems);
    written
}

fn machine(mut table: Fields<'_>, problems: &mut Problems) -> WrittenMachine {
    let written = WrittenMachine {
        memory: table.text("memory", "\"1GiB\"", problems),
        vcpus: table.number("vcpus", "1", problems),
        nics: table.number("nics", "1", problems),
        graphics: table.truth("graphics", problems),
        firmware: table.texts("firmware", "[\"uefi\", \"bios\"]", problems),
        disks: table
            .tables("disk", problems)
            .into_iter()
            .map(|disk| user_disk(disk, problems))
            .collect(),
    };
    table.finish(problems);
    written
}

fn user_disk(mut table: Fields<'_>, problems: &mut Problems) -> WrittenUserDisk {
    table.require("name", "\"data\"");
    table.require("size", "\"8GiB\"");
    let written = WrittenUserDisk {
        name: table.text("name", "\"data\"", problems),
        size: table.text("size", "\"8GiB\"", problems),
    };
    table.finish(problems);
    written
}

fn outputs(mut table: Fields<'_>, problems: &mut Problems) -> WrittenOutputs {
    let written = WrittenOutputs {
        formats: table.texts("formats", "[\"raw\", \"qcow2\"]", problems),
        qcow2_compression: table.text("qcow2_compression", "\"deflate\"", problems),
        zstd_level: table.number("zstd_level", "3", problems),
    };
    table.finish(problems);
    written
}
