//! Reads a lock. It may come from a stranger: strict, and nothing in it is
//! believed before it was judged.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;

use super::{FORMAT, LOCK_FILE_NAME, Lock, LockedImage, LockedLayer, LockedRelease};
use crate::appliance::{
    Diagnostic, FileProblems, LayerName, PackageName, RepositoryName, Source, Suite,
};
use crate::digest::Digest;
use crate::layer::spec::{
    ArchiveRequest, ImageRequest, LOCAL, PackageGroup, PackageLimit, PackagePin, Reference,
    RepositoryRequest,
};
use crate::plan::error::PlanError;
use crate::units::{GIB, Timestamp};

/// Longer locks are refused; a lock of 1,000 packages has half a MiB.
const LIMIT: u64 = 16 << 20;
/// The largest .deb that can be meant.
const PACKAGE_LIMIT: u64 = 8 * GIB;
/// Characters of a path, a version or a sentence.
const TEXT_LIMIT: usize = 512;
/// Characters of an address.
const URL_LIMIT: usize = 4096;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u64,
    suite: Spanned<String>,
    architecture: Spanned<String>,
    #[serde(default)]
    repository: Vec<Spanned<RepositoryRequest>>,
    #[serde(default)]
    pin: Vec<Spanned<PackageLimit>>,
    #[serde(default)]
    release: Vec<WrittenRelease>,
    #[serde(default)]
    layer: Vec<WrittenLayer>,
    #[serde(default)]
    image: Vec<WrittenImage>,
    #[serde(default)]
    archive: Vec<WrittenArchive>,
    tools: WrittenTools,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenImage {
    layer: Spanned<String>,
    reference: Spanned<String>,
    manifest: Digest,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenArchive {
    layer: Spanned<String>,
    url: Spanned<String>,
    sha256: Digest,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRelease {
    suite: Spanned<String>,
    date: Spanned<String>,
    digest: Digest,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLayer {
    name: Spanned<String>,
    requested: Vec<Spanned<String>>,
    recommends: bool,
    excluded: Vec<Spanned<String>>,
    #[serde(default)]
    debs: Vec<Spanned<String>>,
    #[serde(default)]
    package: Vec<Spanned<PackagePin>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTools {
    requested: Vec<Spanned<String>>,
    #[serde(default)]
    package: Vec<Spanned<PackagePin>>,
}

impl Lock {
    /// Reads the lock at `path`; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`PlanError::LockUnreadable`] and [`PlanError::LockInvalid`].
    pub fn open(path: &Path) -> Result<Option<Self>, PlanError> {
        use crate::appliance::ApplianceError;
        match Source::open_within(path, LIMIT) {
            Ok(source) => Self::parse(&source).map(Some),
            Err(ApplianceError::Missing { .. }) => Ok(None),
            Err(source) => Err(PlanError::LockUnreadable { source }),
        }
    }

    /// The same from a text that is in memory already.
    ///
    /// # Errors
    ///
    /// [`PlanError::LockInvalid`].
    pub fn parse(source: &Source) -> Result<Self, PlanError> {
        let mut problems = Vec::new();
        let lock = read(source, &mut problems);
        match (FileProblems::new(source, problems), lock) {
            (None, Some(lock)) => Ok(lock),
            (Some(problems), _) => Err(PlanError::LockInvalid { problems }),
            (None, None) => unreachable!("`read` reports why it gives nothing"),
        }
    }
}

fn read(source: &Source, problems: &mut Vec<Diagnostic>) -> Option<Lock> {
    if let Some(conflict) = conflict(source.text()) {
        problems.push(conflict);
        return None;
    }
    let written: Written = match toml::from_str(source.text()) {
        Ok(written) => written,
        Err(error) => {
            let message = format!("this is not a lock: {}", error.message().escape_debug());
            problems.push(match error.span() {
                Some(span) => Diagnostic::at(span, message),
                None => Diagnostic::whole(message),
            });
            return None;
        }
    };
    if written.format != FORMAT {
        problems.push(
            Diagnostic::whole(format!(
                "the lock has format {}, this consign reads {FORMAT}",
                written.format
            ))
            .help("run `consign lock` to make it anew"),
        );
        return None;
    }
    let mut judge = Judge {
        problems,
        suites: BTreeSet::new(),
        seen: BTreeSet::new(),
        architecture: written.architecture.get_ref().clone(),
    };
    judge.lock(written)
}

/// What a merge leaves where both sides changed the same lines.
fn conflict(text: &str) -> Option<Diagnostic> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with("<<<<<<<") || line.starts_with(">>>>>>>") {
            return Some(
                Diagnostic::at(at..at + line.trim_end().len(), "an unfinished merge").help(
                    format!("take either side of `{LOCK_FILE_NAME}`, then run `consign lock`"),
                ),
            );
        }
        at += line.len();
    }
    None
}

struct Judge<'p> {
    problems: &'p mut Vec<Diagnostic>,
    suites: BTreeSet<String>,
    seen: BTreeSet<(String, String)>,
    architecture: String,
}

impl Judge<'_> {
    fn lock(&mut self, written: Written) -> Option<Lock> {
        let before = self.problems.len();
        let releases: Vec<_> = written
            .release
            .into_iter()
            .filter_map(|release| self.release(release))
            .collect();
        self.name(&written.suite, "suite", Suite::parse);
        self.name(&written.architecture, "architecture", Suite::parse);
        let repositories = self.repositories(written.repository);
        let limits = self.limits(written.pin);
        let mut names = BTreeSet::new();
        let mut layers = Vec::new();
        for layer in written.layer {
            if !names.insert(layer.name.get_ref().clone()) {
                self.say(&layer.name, "the layer stands here twice");
            }
            layers.push(self.layer(layer));
        }
        // The tools layer stands alone: it may repeat the packages of others.
        self.seen.clear();
        let lock = Lock {
            suite: written.suite.into_inner(),
            architecture: written.architecture.into_inner(),
            repositories,
            limits,
            releases,
            layers,
            tools_requested: self.packages(written.tools.requested),
            tools: self.pins(written.tools.package),
            images: self.images(written.image),
            archives: self.archives(written.archive),
        };
        (self.problems.len() == before).then_some(lock)
    }

    fn images(&mut self, images: Vec<WrittenImage>) -> Vec<LockedImage> {
        let mut names = BTreeSet::new();
        let images = images.into_iter().map(|image| {
            self.foreign_layer(&image.layer, &mut names);
            if let Err(why) = Reference::parse(image.reference.get_ref()) {
                let shown = shorten(image.reference.get_ref());
                self.say(
                    &image.reference,
                    format!("`{shown}` is not an image: {why}"),
                );
            }
            LockedImage {
                request: ImageRequest {
                    layer: image.layer.into_inner(),
                    reference: image.reference.into_inner(),
                },
                manifest: image.manifest,
            }
        });
        images.collect()
    }

    fn archives(&mut self, archives: Vec<WrittenArchive>) -> Vec<ArchiveRequest> {
        let mut names = BTreeSet::new();
        let archives = archives.into_iter().map(|archive| {
            self.foreign_layer(&archive.layer, &mut names);
            let url = archive.url.get_ref();
            if url.len() > URL_LIMIT || !url.chars().all(|c| c.is_ascii_graphic()) {
                self.say(&archive.url, "this is not an address");
            }
            ArchiveRequest {
                layer: archive.layer.into_inner(),
                url: archive.url.into_inner(),
                sha256: archive.sha256,
            }
        });
        archives.collect()
    }

    fn foreign_layer(&mut self, layer: &Spanned<String>, names: &mut BTreeSet<String>) {
        self.name(layer, "layer name", LayerName::parse);
        if !names.insert(layer.get_ref().clone()) {
            self.say(layer, "the layer stands here twice");
        }
    }

    fn say<T>(&mut self, place: &Spanned<T>, message: impl Into<String>) {
        self.problems
            .push(Diagnostic::at(place.span(), message).help("run `consign lock` to make it anew"));
    }

    fn name<T>(&mut self, text: &Spanned<String>, what: &str, parse: fn(&str) -> Option<T>) {
        if parse(text.get_ref()).is_none() {
            let shown = shorten(text.get_ref());
            self.say(text, format!("`{shown}` is not a {what}"));
        }
    }

    fn release(&mut self, release: WrittenRelease) -> Option<LockedRelease> {
        self.name(&release.suite, "suite", Suite::parse);
        if !self.suites.insert(release.suite.get_ref().clone()) {
            self.say(&release.suite, "the suite stands here twice");
        }
        let date = Timestamp::parse(release.date.get_ref());
        if date.is_none() {
            self.say(&release.date, "this is not a date");
        }
        Some(LockedRelease {
            suite: release.suite.into_inner(),
            date: date?,
            digest: release.digest,
        })
    }

    fn repositories(&mut self, written: Vec<Spanned<RepositoryRequest>>) -> Vec<RepositoryRequest> {
        let mut names = BTreeSet::new();
        for one in &written {
            let it = one.get_ref();
            let texts = [&it.suite].into_iter().chain(&it.components);
            let is_sound = RepositoryName::parse(&it.name).is_some()
                && texts.chain(&it.packages).all(|text| is_word(text));
            if !is_sound {
                self.say(one, "a name, suite, component or pattern in here is none");
            } else if !names.insert(it.name.clone()) {
                self.say(one, "the repository stands here twice");
            }
        }
        let mut found: Vec<_> = written.into_iter().map(Spanned::into_inner).collect();
        found.sort_by(|one, two| one.name.cmp(&two.name));
        found
    }

    fn limits(&mut self, written: Vec<Spanned<PackageLimit>>) -> Vec<PackageLimit> {
        for one in &written {
            let it = one.get_ref();
            let texts = it.packages.iter().chain(&it.version).chain(&it.source);
            if !texts.into_iter().all(|text| is_word(text)) {
                self.say(one, "a pattern, version or source in here is none");
            }
        }
        written.into_iter().map(Spanned::into_inner).collect()
    }

    fn layer(&mut self, layer: WrittenLayer) -> LockedLayer {
        self.name(&layer.name, "layer name", LayerName::parse);
        LockedLayer {
            group: PackageGroup {
                layer: layer.name.into_inner(),
                packages: self.packages(layer.requested),
                recommends: layer.recommends,
                exclude: self.packages(layer.excluded),
                debs: self.debs(layer.debs),
            },
            packages: self.pins(layer.package),
        }
    }

    fn debs(&mut self, paths: Vec<Spanned<String>>) -> Vec<String> {
        for path in &paths {
            if !is_pool_path(path.get_ref()) {
                let shown = shorten(path.get_ref());
                self.say(path, format!("`{shown}` is not the path of a package file"));
            }
        }
        let mut paths: Vec<_> = paths.into_iter().map(Spanned::into_inner).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    fn packages(&mut self, names: Vec<Spanned<String>>) -> Vec<String> {
        for name in &names {
            self.name(name, "package name", PackageName::parse);
        }
        let mut names: Vec<_> = names.into_iter().map(Spanned::into_inner).collect();
        names.sort();
        names.dedup();
        names
    }

    fn pins(&mut self, pins: Vec<Spanned<PackagePin>>) -> Vec<PackagePin> {
        for pin in &pins {
            if let Some(problem) = self.judge_pin(pin.get_ref()) {
                let name = shorten(&pin.get_ref().name);
                self.say(pin, format!("package `{name}`: {problem}"));
            }
        }
        let mut pins: Vec<_> = pins.into_iter().map(Spanned::into_inner).collect();
        // Two merged branches leave them in another order.
        pins.sort();
        pins
    }

    fn judge_pin(&mut self, pin: &PackagePin) -> Option<String> {
        let version = |c: char| c.is_ascii_alphanumeric() || ".+~:-".contains(c);
        let sentence = |c: char| c.is_ascii_graphic() || c == ' ';
        let of = |text: &str, belongs: fn(char) -> bool| {
            !text.is_empty() && text.len() <= TEXT_LIMIT && text.chars().all(belongs)
        };
        let key = (pin.name.clone(), pin.architecture.clone());
        if PackageName::parse(&pin.name).is_none() {
            Some("the name is not one of a package".into())
        } else if !of(&pin.version, version) {
            Some(format!("`{}` is not a version", shorten(&pin.version)))
        } else if pin.architecture != "all" && pin.architecture != self.architecture {
            Some(format!("it is for `{}`", shorten(&pin.architecture)))
        } else if pin.suite != LOCAL && !self.suites.contains(&pin.suite) {
            let suite = shorten(&pin.suite);
            Some(format!("there is no [[release]] of its suite `{suite}`"))
        } else if !is_pool_path(&pin.path) {
            let path = shorten(&pin.path);
            Some(format!("`{path}` is not a path below a repository"))
        } else if pin.size == 0 || pin.size > PACKAGE_LIMIT {
            Some(format!("it cannot have {} bytes", pin.size))
        } else if !of(&pin.source, sentence) || !of(&pin.reason, sentence) {
            Some("its source or reason is not a line of ASCII text".into())
        } else if !self.seen.insert(key) {
            Some("it stands here twice".into())
        } else {
            None
        }
    }
}

/// Printable, without spaces.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_LIMIT && text.chars().all(|c| c.is_ascii_graphic())
}

/// Relative, printable, without a way up, and a .deb.
fn is_pool_path(path: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '?' | '#' | ':');
    path.len() <= TEXT_LIMIT
        && path.chars().all(is_plain)
        && path.split('/').all(is_part)
        && Path::new(path).extension().is_some_and(|end| end == "deb")
}

fn shorten(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}
