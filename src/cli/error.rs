//! What can go wrong on the command line itself.

use std::io;
use std::path::PathBuf;

use crate::units::ExitClass;

/// Why a subcommand could not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// Standard output, or what stands for it, does not take text.
    #[error("cannot write to standard output")]
    Output {
        /// What the system said.
        source: io::Error,
    },
    /// The system does not tell where consign itself is.
    #[error("cannot find the file of consign itself")]
    Environment {
        /// What the system said.
        source: io::Error,
    },
    /// A release would be mixed with something else.
    #[error("`{}` is there already, and is not empty", path.display())]
    ReleaseExists {
        /// The folder.
        path: PathBuf,
    },
    /// `--release` beside a folder.
    #[error("`{}` is no disk image", path.display())]
    NotAnImage {
        /// As it was given.
        path: PathBuf,
    },
    /// Another lock than the one that a release was made with.
    #[error("`{}` is not the lock of the release", path.display())]
    OtherLock {
        /// The lock beside the appliance.
        path: PathBuf,
        /// The release's.
        wanted: PathBuf,
    },
    /// The appliance's files are those of another release.
    #[error("these are the files of {found}, the release is {wanted}")]
    OtherAppliance {
        /// Name and version of the appliance.
        found: String,
        /// Name and version of the release.
        wanted: String,
    },
    /// A build that should give the same bytes gave others.
    #[error("the release cannot be reproduced: {}", differences.join("; "))]
    NotReproduced {
        /// Everything that differs, the most telling first.
        differences: Vec<String>,
        /// What may explain it.
        advice: String,
    },
    /// No image, no release.
    #[error("the appliance has no disk image to release")]
    NoImage,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a key")]
    Chance {
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let us hear of Ctrl-C.
    #[error("cannot listen for signals")]
    Signals {
        /// What the system said.
        source: io::Error,
    },
    /// More signatures demanded than keys given.
    #[error("{threshold} signatures are demanded, but only {keys} keys are trusted")]
    Threshold {
        /// Demanded.
        threshold: usize,
        /// Given, rotations included.
        keys: usize,
    },
    /// Sources that no repository has any more.
    #[error("no repository has the source of {}", some(sources))]
    SourcesGone {
        /// Names and versions.
        sources: Vec<String>,
    },
    /// A release has one OpenPGP key at most.
    #[error("several OpenPGP keys are to sign")]
    SeveralOpenPgp,
    /// No such folder to work in.
    #[error("cannot work in `{}`", path.display())]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No place for packages and layers.
    #[error("there is no home folder to keep packages and layers in")]
    NoCache,
    /// `--locked` without a lock.
    #[error("`{}` does not exist", path.display())]
    NoLock {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// `--update` of a package that is not there.
    #[error("`{}` is not in the lock", package.escape_debug())]
    NotLocked {
        /// As it was given.
        package: String,
    },
    /// Things in the cache were damaged, and are gone.
    #[error("{count} damaged in the cache, and dropped")]
    CacheDamaged {
        /// How many.
        count: usize,
    },
    /// A layer that is needed is not in the cache.
    #[error("layer `{layer}` is not in the cache")]
    NotBuilt {
        /// Its name.
        layer: String,
    },
    /// Not a path of the image.
    #[error("`{}` is not a path of the image", path.escape_debug())]
    NotAPath {
        /// As it was given.
        path: String,
    },
    /// No layer has a file.
    #[error("no layer has `{}`{}", path.escape_debug(), clause(why))]
    NoSuchFile {
        /// As it was given.
        path: String,
        /// What is known about it.
        why: String,
    },
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder could not be made.
    #[error("cannot make the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Outputs cannot go where they should.
    #[error("cannot write into the folder `{}`", path.display())]
    NotWritable {
        /// The folder, or the one that it would be made in.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A starter would overwrite something.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// Nothing says which roles a site may choose.
    #[error("there is no `{}` to take roles from", path.display())]
    NoRoles {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A path without a file's name.
    #[error("`{}` names no file", path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// A name that descriptors and messages cannot have.
    #[error("the name of `{}` is no UTF-8", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// There is nothing to convert.
    #[error("the disk in `{}` has no bytes", path.display())]
    EmptyDisk {
        /// The image.
        path: PathBuf,
    },
    /// Not a name for an appliance.
    #[error("`{}` is no name for an appliance", name.escape_debug())]
    Name {
        /// As it was given.
        name: String,
    },
    /// A file of the starter could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The first few, and how many more.
fn some(sources: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = sources.iter().take(SHOWN).map(|one| format!("`{one}`"));
    let text = shown.collect::<Vec<_>>().join(", ");
    match sources.len().saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

impl CliError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Output { .. } => "output-failed",
            Self::Environment { .. } => "no-executable",
            Self::Chance { .. } => "no-chance",
            Self::Signals { .. } => "no-signals",
            Self::ReleaseExists { .. } => "release-exists",
            Self::NotAnImage { .. } => "verify-not-an-image",
            Self::OtherLock { .. } => "reproduce-other-lock",
            Self::OtherAppliance { .. } => "reproduce-other-appliance",
            Self::NotReproduced { .. } => "not-reproduced",
            Self::NoImage => "release-no-image",
            Self::Threshold { .. } => "threshold",
            Self::SeveralOpenPgp => "release-several-openpgp",
            Self::SourcesGone { .. } => "sources-gone",
            Self::Directory { .. } => "no-directory",
            Self::NoCache => "no-cache",
            Self::NoLock { .. } => "no-lock",
            Self::NotLocked { .. } => "not-locked",
            Self::CacheDamaged { .. } => "cache-damaged",
            Self::NotBuilt { .. } => "why-not-built",
            Self::NotAPath { .. } => "why-not-a-path",
            Self::NoSuchFile { .. } => "why-unknown",
            Self::Read { .. } => "read-failed",
            Self::Folder { .. } => "folder-failed",
            Self::NotWritable { .. } => "output-folder",
            Self::Exists { .. } => "init-exists",
            Self::NoRoles { .. } => "no-roles",
            Self::NoFileName { .. } => "no-file-name",
            Self::NotUtf8 { .. } => "no-utf8-name",
            Self::EmptyDisk { .. } => "empty-disk",
            Self::Name { .. } => "init-name",
            Self::Write { .. } => "init-write",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some(
                "choose another folder with `--folder`, or move it away; nothing was written"
                    .into(),
            ),
            Self::Name { .. } => Some(
                "begin with a letter or digit, go on with letters, digits, `_`, `.` and `-`; \
                 at most 64 characters"
                    .into(),
            ),
            Self::ReleaseExists { .. } => Some("choose another folder with `-o FOLDER`".into()),
            Self::NotAnImage { .. } => Some(
                "`--release` goes with a disk image; a release is verified by its folder alone"
                    .into(),
            ),
            Self::OtherLock { path, wanted } => Some(format!(
                "move `{}` away, or copy `{}` over it",
                path.display(),
                wanted.display()
            )),
            Self::OtherAppliance { .. } => {
                Some("check out the files that the release was made from".into())
            }
            Self::NotReproduced { advice, .. } => Some(advice.clone()),
            Self::NoImage => Some("name a format in `[outputs]`".into()),
            Self::Threshold { .. } => Some("give each key with a `--key` of its own".into()),
            Self::SourcesGone { .. } => Some(
                "name an archive that keeps old versions as `mirror`; all other sources are there"
                    .into(),
            ),
            Self::SeveralOpenPgp => Some("choose one; Ed25519 keys may be several".into()),
            Self::NoRoles { .. } => Some(
                "name an image of the appliance: `--image FILE`, or a folder of roles: \
                 `--roles FOLDER`"
                    .into(),
            ),
            Self::NoFileName { .. } => Some("end the path with the name of a file".into()),
            Self::NotUtf8 { .. } => Some("name it in UTF-8, and rename it afterwards".into()),
            Self::EmptyDisk { .. } => Some("fetch the image again, or name another one".into()),
            Self::NoCache => Some("name a folder with `--cache FOLDER`".into()),
            Self::NoLock { .. } => Some(
                "make it with `consign lock` and commit it, or let the build make it with \
                 `--unlocked`"
                    .into(),
            ),
            Self::NotLocked { .. } => {
                Some("name packages that appliance.lock has; to add one, name it in a layer".into())
            }
            Self::CacheDamaged { .. } => {
                Some("build again, it is made or fetched anew; look at the disk".into())
            }
            Self::NotBuilt { .. } => Some("build once, or run `consign cache pull`".into()),
            Self::NotAPath { .. } => Some("write it as the image has it: /etc/fstab".into()),
            Self::NoSuchFile { .. } => Some(
                "look at the path; what consign itself adds (loader, agent, units) comes from \
                 no layer"
                    .into(),
            ),
            Self::Folder { .. } => Some("choose a folder that you may write to".into()),
            Self::NotWritable { .. } => {
                Some("choose a folder that you may write to, with `-o FOLDER`".into())
            }
            Self::Output { .. }
            | Self::Chance { .. }
            | Self::Signals { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Environment { .. }
            | Self::Directory { .. } => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Exists { .. }
            | Self::Name { .. }
            | Self::NoRoles { .. }
            | Self::NoFileName { .. }
            | Self::NotUtf8 { .. }
            | Self::EmptyDisk { .. }
            | Self::Directory { .. }
            | Self::Threshold { .. }
            | Self::SeveralOpenPgp
            | Self::ReleaseExists { .. }
            | Self::NotAnImage { .. }
            | Self::OtherLock { .. }
            | Self::OtherAppliance { .. }
            | Self::NoImage
            | Self::NoCache
            | Self::NoLock { .. }
            | Self::NotLocked { .. }
            | Self::NotAPath { .. } => ExitClass::Usage,
            Self::CacheDamaged { .. } | Self::NotReproduced { .. } => ExitClass::Verification,
            Self::Output { .. }
            | Self::NotBuilt { .. }
            | Self::SourcesGone { .. }
            | Self::NoSuchFile { .. }
            | Self::Chance { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Folder { .. }
            | Self::NotWritable { .. } => ExitClass::Build,
            Self::Environment { .. } | Self::Signals { .. } => ExitClass::Bug,
        }
    }
}

fn clause(why: &str) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    }
}

/// The error of writing to standard output.
pub(super) fn output(source: io::Error) -> CliError {
    CliError::Output { source }
}
