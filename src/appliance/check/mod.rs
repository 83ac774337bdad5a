//! What the written values mean, and every reason why they mean nothing.

mod machine;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::LAYER_FILE_NAME;
use super::diagnostic::{Diagnostic, FileProblems, list, nearest, quoted};
use super::error::ApplianceError;
use super::fields::Problems;
use super::layer::{LayerKind, LayerRecipe};
use super::model::{
    Appliance, Architecture, BootSettings, Distribution, ImageKind, Kernel, Outputs,
    Qcow2Compression, System,
};
use super::names::{LayerName, Mirror, Name, Suite, Version};
use super::repository;
use super::source::{Shelf, Source};
use super::vendor;
use super::written::{Written, WrittenBoot, WrittenIdentity, WrittenOutputs, WrittenSystem};
use machine::{disk, machine};
use value::{moment, prose, repeated, table, word, words};
pub(super) use value::{named, package};

/// Layers in one appliance.
const LAYERS: usize = 64;

/// Characters of a label, which is one line.
const LABEL: usize = 200;

/// Characters of a description.
const DESCRIPTION: usize = 4000;

/// Characters of extra kernel command line; Linux takes 2048 in all.
const CMDLINE: usize = 1024;
/// The levels of zstd, and its own choice.
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;
const ZSTD_LEVEL: u8 = 3;

/// The layer that brings the boot loaders.
const RESERVED_LAYER: &str = "boot-tools";

/// What consign itself puts on the kernel's command line, or must not be there.
const RESERVED_WORDS: &[&str] = &["root", "rootflags", "ro", "rw", "init", "rdinit", "initrd"];

impl Appliance {
    /// Reads `path` and the recipes in `layers/` beside it, and checks them; then
    /// the roles and policies that files layers bring.
    ///
    /// # Errors
    ///
    /// [`ApplianceError`]; [`ApplianceError::Invalid`] has every error of
    /// every file.
    pub fn open(path: &std::path::Path) -> Result<Self, ApplianceError> {
        let source = Source::open(path)?;
        let shelf = Shelf::open(&path.with_file_name(super::LAYERS_FOLDER))?;
        let appliance = Self::parse(&source, &shelf)?;
        let files = vendor::check(&appliance.layers)?;
        if files.is_empty() {
            Ok(appliance)
        } else {
            Err(ApplianceError::Invalid { files })
        }
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
        vendor,
        eula,
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
    let vendor = vendor.map(|text| prose(text, "vendor", LABEL, false, problems));
    let eula = eula.and_then(|text| eula_file(&text, &written.folder, problems));
    let source_date = source_date.and_then(|date| moment(&date, problems));
    let layers = layers(written.system.layers.as_ref(), shelf, problems, files);
    let system = system(&written.system, problems);
    let suite = system.as_ref().map_or("", |it| it.suite.as_str());
    let pins = repository::settle(suite, &written.repositories, written.pins, problems);
    let disk = disk(&written.disk, problems);
    let boot = boot(&written.boot, problems);
    let machine = machine(&written.machine, problems);
    let outputs = outputs(&written.outputs, problems);
    let values = values(written.values, problems);
    Some(Appliance {
        folder: written.folder,
        name: name?,
        version: version?,
        label,
        description,
        vendor,
        eula,
        source_date,
        system: system?,
        repositories: written.repositories,
        pins,
        disk: disk?,
        boot: boot?,
        machine: machine?,
        outputs: outputs?,
        values,
        layers: layers?,
    })
}

/// A file beside `appliance.toml`, or below that folder.
fn eula_file(text: &Spanned<String>, folder: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let path = Path::new(text.get_ref());
    let is_below = |part| matches!(part, std::path::Component::Normal(_));
    if path.components().next().is_some() && path.components().all(is_below) {
        return Some(folder.join(path));
    }
    problems.push(
        Diagnostic::at(
            text.span(),
            format!("`{}` is no file beside this one", quoted(text.get_ref())),
        )
        .help("name a text file in the folder of `appliance.toml`, \"EULA.txt\" for example"),
    );
    None
}

/// Names are words, so that `@values.NAME@` can be told from other text.
fn values(
    written: Vec<(Spanned<String>, Spanned<String>)>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    for (name, _) in &written {
        if name.get_ref().is_empty() || !name.get_ref().chars().all(in_name) {
            problems.push(
                Diagnostic::at(
                    name.span(),
                    format!("`{}` is not the name of a value", quoted(name.get_ref())),
                )
                .help("use lower-case letters, digits and `_`"),
            );
        }
    }
    let pairs = written.into_iter();
    pairs
        .map(|(name, text)| (name.into_inner(), text.into_inner()))
        .collect()
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

pub(super) fn mirror(text: &Spanned<String>, problems: &mut Problems) -> Option<Mirror> {
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

fn outputs(written: &WrittenOutputs, problems: &mut Problems) -> Option<Outputs> {
    let formats = match &written.formats {
        Some(texts) => words(texts, "disk format", table!(ImageKind), problems),
        None => Some(vec![ImageKind::Raw, ImageKind::Qcow2]),
    };
    let qcow2_compression = match &written.qcow2_compression {
        Some(text) => word(text, "compression", table!(Qcow2Compression), problems),
        None => Some(Qcow2Compression::Deflate),
    };
    let zstd_level = match &written.zstd_level {
        Some(level) => zstd_level(level, problems),
        None => Some(ZSTD_LEVEL),
    };
    let mut formats = formats?;
    formats.sort_unstable();
    Some(Outputs {
        formats,
        qcow2_compression: qcow2_compression?,
        zstd_level: zstd_level?,
    })
}

fn zstd_level(level: &Spanned<u64>, problems: &mut Problems) -> Option<u8> {
    let known = u8::try_from(*level.get_ref()).ok();
    let known = known.filter(|level| ZSTD_LEVELS.contains(level));
    if known.is_none() {
        problems.push(
            Diagnostic::at(
                level.span(),
                format!("zstd has no level {}", level.get_ref()),
            )
            .help("use 1 (fast) to 19 (small); 3 is zstd's own choice"),
        );
    }
    known
}
