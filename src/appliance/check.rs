//! What the written values mean, and every reason why they mean nothing.

use std::num::NonZeroU32;
use std::ops::Range;

use toml::Spanned;
use toml::value::Offset;

use super::LAYER_FILE_NAME;
use super::diagnostic::{Diagnostic, FileProblems, list, nearest, quoted};
use super::error::ApplianceError;
use super::fields::{Problems, WrittenMoment};
use super::layer::{LayerKind, LayerRecipe};
use super::model::{
    ALIGNMENT, Appliance, Architecture, BootSettings, DiskLayout, DiskProfile, Distribution,
    Firmware, ImageKind, Kernel, MachineFacts, Outputs, Qcow2Compression, System, UserDisk,
};
use super::names::{LayerName, Mirror, Name, NameError, PackageName, Suite, Version};
use super::source::{Shelf, Source};
use super::written::{
    Written, WrittenBoot, WrittenDisk, WrittenIdentity, WrittenMachine, WrittenOutputs,
    WrittenSystem, WrittenUserDisk,
};
use crate::units::{ByteSize, Civil, GIB, TIB, Timestamp};

/// Layers in one appliance.
const LAYERS: usize = 64;
/// The historic importer has four IDE places: system, config disk, and two.
const USER_DISKS: usize = 2;
/// Characters of a label, which is one line.
const LABEL: usize = 200;
/// Characters of a description.
const DESCRIPTION: usize = 4000;
/// Characters of extra kernel command line; Linux takes 2048 in all.
const CMDLINE: usize = 1024;
/// The layer that brings the boot loaders.
const RESERVED_LAYER: &str = "boot-tools";
/// What consign itself puts on the kernel's command line, or must not be there.
const RESERVED_WORDS: &[&str] = &["root", "rootflags", "ro", "rw", "init", "rdinit", "initrd"];
/// Ids that descriptors use for the other disks.
const RESERVED_DISKS: &[&str] = &["system", "config"];

impl Appliance {
    /// Reads `path` and the recipes in `layers/` beside it, and checks them.
    ///
    /// # Errors
    ///
    /// [`ApplianceError`]; [`ApplianceError::Invalid`] has every error of
    /// every file.
    pub fn open(path: &std::path::Path) -> Result<Self, ApplianceError> {
        let source = Source::open(path)?;
        let shelf = Shelf::open(&path.with_file_name(super::LAYERS_FOLDER))?;
        Self::parse(&source, &shelf)
    }

    /// The same from texts that are in memory already.
    ///
    /// # Errors
    ///
    /// [`ApplianceError::Invalid`] with every error of every file.
    pub fn parse(source: &Source, shelf: &Shelf) -> Result<Self, ApplianceError> {
        let mut problems = Problems::new();
        let mut files = Vec::new();
        let appliance = Written::read(source, &mut problems)
            .and_then(|written| check(written, shelf, &mut problems, &mut files));
        files.splice(0..0, FileProblems::new(source, problems));
        match appliance {
            Some(appliance) if files.is_empty() => Ok(appliance),
            _ => Err(ApplianceError::Invalid { files }),
        }
    }
}

/// `None` only after a problem was reported.
fn check(
    written: Written,
    shelf: &Shelf,
    problems: &mut Problems,
    files: &mut Vec<FileProblems>,
) -> Option<Appliance> {
    let WrittenIdentity {
        name,
        version,
        label,
        description,
        source_date,
    } = written.appliance;
    let name = name.and_then(|name| named(&name, Name::KIND, Name::ALLOWED, Name::check, problems));
    let version = version.and_then(|text| {
        named(
            &text,
            Version::KIND,
            Version::ALLOWED,
            Version::check,
            problems,
        )
    });
    let label = label.map(|text| prose(text, "label", LABEL, false, problems));
    let description =
        description.map(|text| prose(text, "description", DESCRIPTION, true, problems));
    let source_date = source_date.and_then(|date| moment(&date, problems));
    let layers = layers(written.system.layers.as_ref(), shelf, problems, files);
    let system = system(&written.system, problems);
    let disk = disk(&written.disk, problems);
    let boot = boot(&written.boot, problems);
    let machine = machine(&written.machine, problems);
    let outputs = outputs(&written.outputs, problems);
    Some(Appliance {
        name: name?,
        version: version?,
        label,
        description,
        source_date,
        system: system?,
        disk: disk?,
        boot: boot?,
        machine: machine?,
        outputs: outputs?,
        layers: layers?,
    })
}

/// A name of some kind, or a problem.
pub(super) fn named<T>(
    text: &Spanned<String>,
    kind: &str,
    allowed: &str,
    check: impl Fn(&str) -> Result<T, NameError>,
    problems: &mut Problems,
) -> Option<T> {
    let shown = quoted(text.get_ref());
    let message = match check(text.get_ref()) {
        Ok(name) => return Some(name),
        Err(NameError::Empty) => format!("the {kind} is empty"),
        Err(NameError::TooLong) => format!("the {kind} `{shown}` is too long"),
        Err(NameError::First(c)) => {
            format!(
                "the {kind} `{shown}` begins with `{}`",
                quoted(&c.to_string())
            )
        }
        Err(NameError::Character(c)) => {
            format!(
                "the {kind} `{shown}` has `{}` in it",
                quoted(&c.to_string())
            )
        }
    };
    problems
        .push(Diagnostic::at(text.span(), message).help(format!("a {kind} is made of {allowed}")));
    None
}

/// One of a closed list of words.
fn word<T: Copy>(
    text: &Spanned<String>,
    what: &str,
    all: &[(&'static str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let known = all.iter().find(|(word, _)| word == text.get_ref());
    if let Some((_, value)) = known {
        return Some(*value);
    }
    let words: Vec<_> = all.iter().map(|(word, _)| *word).collect();
    let unknown = Diagnostic::at(
        text.span(),
        format!("unknown {what} `{}`", quoted(text.get_ref())),
    );
    problems.push(match nearest(text.get_ref(), words.iter().copied()) {
        Some(word) => unknown.help(format!("did you mean `{word}`?")),
        None if words.len() == 1 => unknown.help(format!("there is only {}", list(&words, "and"))),
        None => unknown.help(format!("choose from {}", list(&words, "and"))),
    });
    None
}

macro_rules! table {
    ($name:ident) => {
        &$name::ALL
            .iter()
            .map(|one| (one.word(), *one))
            .collect::<Vec<_>>()
    };
}

/// A list of words without repeats, not empty, in the order written.
fn words<T: Copy + PartialEq>(
    texts: &Spanned<Vec<Spanned<String>>>,
    what: &str,
    all: &[(&'static str, T)],
    problems: &mut Problems,
) -> Option<Vec<T>> {
    if texts.get_ref().is_empty() {
        let words: Vec<_> = all.iter().map(|(word, _)| *word).collect();
        problems.push(
            Diagnostic::at(texts.span(), format!("the list has no {what}"))
                .help(format!("choose from {}", list(&words, "and"))),
        );
        return None;
    }
    let mut chosen = Vec::new();
    for text in texts.get_ref() {
        let Some(value) = word(text, what, all, problems) else {
            continue;
        };
        if chosen.contains(&value) {
            problems.push(repeated(text, what));
        }
        chosen.push(value);
    }
    Some(chosen)
}

fn repeated(text: &Spanned<String>, what: &str) -> Diagnostic {
    Diagnostic::at(
        text.span(),
        format!("the {what} `{}` stands here twice", quoted(text.get_ref())),
    )
    .help("remove one of the two")
}

/// Text for people: no control characters, and lines only where they fit.
fn prose(
    text: Spanned<String>,
    key: &str,
    limit: usize,
    lines: bool,
    problems: &mut Problems,
) -> String {
    let (span, text) = (text.span(), text.into_inner());
    let odd = text
        .chars()
        .find(|c| c.is_control() && !(lines && *c == '\n'));
    if let Some(odd) = odd {
        problems.push(
            Diagnostic::at(
                span.clone(),
                format!("`{key}` has the character `{}` in it", odd.escape_debug()),
            )
            .help(if lines {
                "write text and line breaks only"
            } else {
                "write one line of text"
            }),
        );
    }
    if text.chars().count() > limit {
        problems.push(Diagnostic::at(
            span,
            format!("`{key}` is longer than {limit} characters"),
        ));
    }
    text
}

/// A full date with a zone, from 1980 (the first year FAT knows) to 2099.
fn moment(written: &Spanned<WrittenMoment>, problems: &mut Problems) -> Option<Timestamp> {
    let moment = match written.get_ref() {
        WrittenMoment::Seconds(seconds) => i64::try_from(*seconds)
            .map(Timestamp::from_seconds)
            .map_err(|_| "the date is too far away"),
        WrittenMoment::Date(date) => {
            instant(date).ok_or("the date has no time or no zone, or there is no such day")
        }
        WrittenMoment::Nonsense => Err("this is not a date with a time and a zone"),
    };
    let moment = match moment {
        Ok(moment) => moment,
        Err(message) => {
            problems.push(
                Diagnostic::at(written.span(), message)
                    .help("write it like this: 2024-05-01T00:00:00Z"),
            );
            return None;
        }
    };
    if !(1980..2100).contains(&moment.civil().year) {
        problems.push(
            Diagnostic::at(
                written.span(),
                format!("the source date is in the year {}", moment.civil().year),
            )
            .help("choose a date from 1980 to 2099; FAT knows no earlier one"),
        );
        return None;
    }
    Some(moment)
}

fn instant(date: &toml::value::Datetime) -> Option<Timestamp> {
    let (day, time) = (date.date?, date.time?);
    let shift = match date.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    let local = Timestamp::from_civil(Civil {
        year: i64::from(day.year),
        month: day.month,
        day: day.day,
        hour: time.hour,
        minute: time.minute,
        second: time.second.unwrap_or(0),
    })?;
    Some(Timestamp::from_seconds(local.seconds - shift))
}

/// The layers with their recipes; problems of a recipe go to its own file.
fn layers(
    written: Option<&Spanned<Vec<Spanned<String>>>>,
    shelf: &Shelf,
    problems: &mut Problems,
    files: &mut Vec<FileProblems>,
) -> Option<Vec<LayerRecipe>> {
    let written = written?;
    let mut recipes: Vec<LayerRecipe> = Vec::new();
    let mut all_read = true;
    if written.get_ref().len() > LAYERS {
        problems.push(Diagnostic::at(
            written.span(),
            format!("more than {LAYERS} layers"),
        ));
        return None;
    }
    for (at, text) in written.get_ref().iter().enumerate() {
        if written
            .get_ref()
            .iter()
            .take(at)
            .any(|one| one.get_ref() == text.get_ref())
        {
            problems.push(repeated(text, "layer"));
            continue;
        }
        match layer(text, shelf, problems, files) {
            Some(recipe) => recipes.push(recipe),
            None => all_read = false,
        }
    }
    let is_packages = |recipe: &LayerRecipe| matches!(recipe.kind, LayerKind::Packages(_));
    if all_read && !recipes.iter().any(is_packages) {
        problems.push(
            Diagnostic::at(written.span(), "no layer is of kind `packages`")
                .help("name a layer that brings the operating system first, `base` for example"),
        );
        return None;
    }
    all_read.then_some(recipes)
}

fn layer(
    text: &Spanned<String>,
    shelf: &Shelf,
    problems: &mut Problems,
    files: &mut Vec<FileProblems>,
) -> Option<LayerRecipe> {
    let name = named(
        text,
        LayerName::KIND,
        LayerName::ALLOWED,
        LayerName::check,
        problems,
    )?;
    if name.as_str() == RESERVED_LAYER {
        problems.push(
            Diagnostic::at(text.span(), format!("the layer name `{name}` is taken"))
                .help("choose another name; consign has a layer of that name itself"),
        );
        return None;
    }
    let Some(found) = shelf.layers.get(name.as_str()) else {
        let missing = Diagnostic::at(
            text.span(),
            format!("there is no layer folder `layers/{name}`"),
        );
        let known = shelf.layers.keys().map(String::as_str);
        problems.push(match nearest(name.as_str(), known) {
            Some(near) => missing.help(format!("did you mean `{near}`?")),
            None => missing.help(format!("make the folder, with a `{LAYER_FILE_NAME}` in it")),
        });
        return None;
    };
    let Some(source) = &found.recipe else {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!("there is no `layers/{name}/{LAYER_FILE_NAME}`"),
            )
            .help("write one that says `kind = \"packages\"` or `kind = \"files\"`"),
        );
        return None;
    };
    match LayerRecipe::parse(name, source, found) {
        Ok(recipe) => Some(recipe),
        Err(bad) => {
            files.push(bad);
            None
        }
    }
}

fn system(written: &WrittenSystem, problems: &mut Problems) -> Option<System> {
    let distribution = written
        .distribution
        .as_ref()
        .map(|text| word(text, "distribution", table!(Distribution), problems));
    let suite = written
        .suite
        .as_ref()
        .map(|text| named(text, Suite::KIND, Suite::ALLOWED, Suite::check, problems));
    let architecture = match &written.architecture {
        Some(text) => word(text, "architecture", table!(Architecture), problems),
        None => Some(Architecture::Amd64),
    };
    let kernel = match &written.kernel {
        Some(text) => word(text, "kernel", table!(Kernel), problems),
        None => Some(Kernel::Generic),
    };
    let address = match &written.mirror {
        Some(text) => mirror(text, problems).map(Some),
        None => Some(None),
    };
    Some(System {
        distribution: distribution??,
        suite: suite??,
        architecture: architecture?,
        mirror: address?,
        kernel: kernel?,
    })
}

fn mirror(text: &Spanned<String>, problems: &mut Problems) -> Option<Mirror> {
    let mirror = named(text, Mirror::KIND, Mirror::ALLOWED, Mirror::check, problems)?;
    let schemes = ["http://", "https://", "file:/"];
    if schemes
        .iter()
        .any(|scheme| mirror.as_str().starts_with(scheme))
    {
        return Some(mirror);
    }
    problems.push(
        Diagnostic::at(
            text.span(),
            format!("the mirror `{}` is not an address", quoted(text.get_ref())),
        )
        .help(format!("begin it with {}", list(&schemes, "or"))),
    );
    None
}

/// A size within `least` and `most`, in whole mebibytes.
fn size(
    text: Option<&Spanned<String>>,
    key: &str,
    default: ByteSize,
    (least, most): (ByteSize, ByteSize),
    problems: &mut Problems,
) -> Option<ByteSize> {
    let Some(text) = text else {
        return Some(default);
    };
    let size = match ByteSize::parse(text.get_ref()) {
        Ok(size) => size,
        Err(error) => {
            problems
                .push(Diagnostic::at(text.span(), format!("`{key}`: {error}")).help(error.hint()));
            return None;
        }
    };
    if !size.bytes().is_multiple_of(ALIGNMENT) {
        problems.push(
            Diagnostic::at(text.span(), format!("`{key}` is not a whole number of MiB"))
                .help(format!("write \"{}MiB\"", size.mib_ceil())),
        );
        return None;
    }
    if size < least || size > most {
        problems.push(
            Diagnostic::at(text.span(), format!("`{key}` is {size}"))
                .help(format!("choose from {least} to {most}")),
        );
        return None;
    }
    Some(size)
}

fn disk(written: &WrittenDisk, problems: &mut Problems) -> Option<DiskLayout> {
    const PARTITION: (ByteSize, ByteSize) = (ByteSize::from_mib(64), ByteSize::from_bytes(8 * TIB));
    const ESP: (ByteSize, ByteSize) = (ByteSize::from_mib(64), ByteSize::from_bytes(2 * GIB));
    const DISK: (ByteSize, ByteSize) = (ByteSize::from_mib(256), ByteSize::from_bytes(16 * TIB));
    let is_ab = match &written.profile {
        Some(text) => word(
            text,
            "disk profile",
            &[("ab", true), ("single", false)],
            problems,
        ),
        None => Some(true),
    };
    let esp = size(
        written.esp.as_ref(),
        "esp",
        ByteSize::from_mib(256),
        ESP,
        problems,
    );
    let root = size(
        written.root.as_ref(),
        "root",
        ByteSize::from_mib(2048),
        PARTITION,
        problems,
    );
    let var = size(
        written.var.as_ref(),
        "var",
        ByteSize::from_mib(1024),
        PARTITION,
        problems,
    );
    let whole = match &written.size {
        Some(_) => size(
            written.size.as_ref(),
            "size",
            ByteSize::ZERO,
            DISK,
            problems,
        )
        .map(Some),
        None => Some(None),
    };
    let profile = if is_ab? {
        DiskProfile::Ab { var: var? }
    } else {
        if let Some(var) = &written.var {
            problems.push(
                Diagnostic::at(var.span(), "the disk profile `single` has no `var`")
                    .help("remove the line; state lives on the root"),
            );
        }
        DiskProfile::Single
    };
    let layout = DiskLayout {
        profile,
        esp: esp?,
        root: root?,
        size: whole?,
    };
    let place = written.size.as_ref().map(Spanned::span);
    fits(&layout, place.or(written.header.clone()), problems).then_some(layout)
}

/// Whether all partitions fit the disk; says by how much they do not.
fn fits(layout: &DiskLayout, place: Option<Range<usize>>, problems: &mut Problems) -> bool {
    let least = layout.least().unwrap_or(ByteSize::from_bytes(u64::MAX));
    let Some(size) = layout.size.filter(|size| *size < least) else {
        return true;
    };
    let missing = ByteSize::from_bytes(least.bytes() - size.bytes());
    let var = match layout.profile {
        DiskProfile::Ab { var } => format!(", root {0} twice, var {var}", layout.root),
        DiskProfile::Single => format!(", root {}", layout.root),
    };
    let message = format!(
        "the disk is {size}, its partitions need {missing} more: esp {}{var}, and {} for the \
         partition table and the BIOS loader",
        layout.esp,
        ByteSize::from_bytes(
            DiskLayout::HEAD.bytes() + DiskLayout::BIOS.bytes() + DiskLayout::TAIL.bytes()
        ),
    );
    let help = format!(
        "write `size = \"{}MiB\"`, or leave `size` out to fit the partitions",
        least.mib_ceil()
    );
    problems.push(
        match place {
            Some(place) => Diagnostic::at(place, message),
            None => Diagnostic::whole(message),
        }
        .help(help),
    );
    false
}

fn boot(written: &WrittenBoot, problems: &mut Problems) -> Option<BootSettings> {
    let cmdline = match &written.cmdline {
        Some(text) => cmdline(text, problems),
        None => Some(Vec::new()),
    };
    Some(BootSettings { cmdline: cmdline? })
}

fn cmdline(text: &Spanned<String>, problems: &mut Problems) -> Option<Vec<String>> {
    // What GRUB's or the kernel's parser would take apart.
    let is_odd = |c: char| !(c.is_ascii_graphic() || c == ' ') || "\"'\\$`;{}<>|&#".contains(c);
    let before = problems.len();
    if let Some(odd) = text.get_ref().chars().find(|c| is_odd(*c)) {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!("`cmdline` has `{}` in it", quoted(&odd.to_string())),
            )
            .help("use printable ASCII without quotes and characters that loaders interpret"),
        );
    }
    if text.get_ref().len() > CMDLINE {
        problems.push(Diagnostic::at(
            text.span(),
            format!("`cmdline` is longer than {CMDLINE} characters"),
        ));
    }
    let words: Vec<String> = text
        .get_ref()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    for word in &words {
        let key = word.split_once('=').map_or(word.as_str(), |(key, _)| key);
        if RESERVED_WORDS.contains(&key) || key.starts_with("consign.") {
            problems.push(
                Diagnostic::at(text.span(), format!("`cmdline` sets `{}`", quoted(key)))
                    .help("remove it; consign decides it itself"),
            );
        }
    }
    (problems.len() == before).then_some(words)
}

/// A whole number within bounds.
fn whole(
    number: Option<&Spanned<u64>>,
    key: &str,
    default: u32,
    (least, most): (u32, u32),
    problems: &mut Problems,
) -> Option<u32> {
    let Some(number) = number else {
        return Some(default);
    };
    match u32::try_from(*number.get_ref()) {
        Ok(number) if (least..=most).contains(&number) => Some(number),
        _ => {
            problems.push(
                Diagnostic::at(number.span(), format!("`{key}` is {}", number.get_ref()))
                    .help(format!("choose from {least} to {most}")),
            );
            None
        }
    }
}

fn machine(written: &WrittenMachine, problems: &mut Problems) -> Option<MachineFacts> {
    const MEMORY: (ByteSize, ByteSize) = (ByteSize::from_mib(256), ByteSize::from_bytes(4 * TIB));
    let memory = size(
        written.memory.as_ref(),
        "memory",
        ByteSize::from_mib(1024),
        MEMORY,
        problems,
    );
    let vcpus = whole(written.vcpus.as_ref(), "vcpus", 1, (1, 256), problems);
    let nics = whole(written.nics.as_ref(), "nics", 1, (0, 8), problems);
    let firmware = match &written.firmware {
        Some(texts) => words(texts, "firmware", table!(Firmware), problems),
        None => Some(vec![Firmware::UefiSecure, Firmware::Uefi, Firmware::Bios]),
    };
    let disks = user_disks(written, problems);
    Some(MachineFacts {
        memory: memory?,
        vcpus: NonZeroU32::new(vcpus?)?,
        nics: nics?,
        graphics: written.graphics.as_ref().is_none_or(|yes| *yes.get_ref()),
        firmware: firmware?,
        disks: disks?,
    })
}

fn user_disks(written: &WrittenMachine, problems: &mut Problems) -> Option<Vec<UserDisk>> {
    const DISK: (ByteSize, ByteSize) = (ByteSize::from_mib(1), ByteSize::from_bytes(16 * TIB));
    let mut disks: Vec<UserDisk> = Vec::new();
    let before = problems.len();
    for (at, disk) in written.disks.iter().enumerate() {
        let size = disk
            .size
            .as_ref()
            .and_then(|text| size(Some(text), "size", ByteSize::ZERO, DISK, problems));
        let Some(name) = disk
            .name
            .as_ref()
            .and_then(|text| disk_name(text, at, &written.disks, problems))
        else {
            continue;
        };
        disks.extend(size.map(|size| UserDisk { name, size }));
    }
    (problems.len() == before && disks.len() == written.disks.len()).then_some(disks)
}

fn disk_name(
    text: &Spanned<String>,
    at: usize,
    all: &[WrittenUserDisk],
    problems: &mut Problems,
) -> Option<Name> {
    let name = named(text, "disk name", Name::ALLOWED, Name::check, problems)?;
    if RESERVED_DISKS.contains(&name.as_str()) {
        problems.push(
            Diagnostic::at(text.span(), format!("the disk name `{name}` is taken"))
                .help("choose another name, `data` for example"),
        );
    }
    let before = all.iter().take(at).filter_map(|disk| disk.name.as_ref());
    if before
        .into_iter()
        .any(|other| other.get_ref() == text.get_ref())
    {
        problems.push(repeated(text, "disk name"));
    }
    if at == USER_DISKS {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!("more than {USER_DISKS} disks of the customer's"),
            )
            .help("a guest has four IDE places: the system, the config disk and two more"),
        );
    }
    Some(name)
}

fn outputs(written: &WrittenOutputs, problems: &mut Problems) -> Option<Outputs> {
    let formats = match &written.formats {
        Some(texts) => words(texts, "disk format", table!(ImageKind), problems),
        None => Some(ImageKind::ALL.to_vec()),
    };
    let qcow2_compression = match &written.qcow2_compression {
        Some(text) => word(text, "compression", table!(Qcow2Compression), problems),
        None => Some(Qcow2Compression::Deflate),
    };
    let mut formats = formats?;
    formats.sort_unstable();
    Some(Outputs {
        formats,
        qcow2_compression: qcow2_compression?,
    })
}

/// A package name, or a problem.
pub(super) fn package(text: &Spanned<String>, problems: &mut Problems) -> Option<PackageName> {
    named(
        text,
        PackageName::KIND,
        PackageName::ALLOWED,
        PackageName::check,
        problems,
    )
}
