//! `consign init`: writes a commented starter.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::{CliError, output};
use crate::appliance::{FILE_NAME, LAYERS_FOLDER, Name};
use crate::error::Error;

/// What the appliance is called when nobody says.
const DEFAULT_NAME: &str = "my-appliance";

/// The lowest layer is the reference appliance's own: it is the one that is tested.
const BASE: &str = include_str!("../../layers/base/layer.toml");
const APPLIANCE: &str = include_str!("starter/appliance.toml");
const APP: &str = include_str!("starter/layer.toml");
const SITE: &str = include_str!("starter/site.toml");
const MOTD: &str = include_str!("starter/motd");

/// Writes a starter: a commented appliance.toml, a layer of packages and a
/// layer of files. Overwrites nothing.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct InitArgs {
    /// What the appliance is called.
    #[arg(default_value = DEFAULT_NAME)]
    name: String,
    /// Where to write it.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// Runs the subcommand.
///
/// # Errors
///
/// [`CliError`]; when something is in the way, nothing is written.
pub(super) fn run(args: &InitArgs, out: &mut dyn Write) -> Result<(), Error> {
    let name = Name::parse(&args.name).ok_or_else(|| CliError::Name {
        name: args.name.clone(),
    })?;
    let files = starter(&name);
    for taken in [FILE_NAME, LAYERS_FOLDER] {
        let path = below(&args.folder, taken);
        if path.symlink_metadata().is_ok() {
            return Err(CliError::Exists { path }.into());
        }
    }
    for (file, text) in &files {
        write_new(&below(&args.folder, file), text)?;
    }
    let list: Vec<_> = files.iter().map(|(file, _)| format!("  {file}")).collect();
    let list = list.join("\n");
    let text = format!(
        "wrote `{name}`:\n{list}\n\n\
         next: put your files below layers/app/files, then run `consign build`\n"
    );
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// `file` in `folder`, as one would write it.
fn below(folder: &Path, file: &str) -> PathBuf {
    if folder == Path::new(".") {
        PathBuf::from(file)
    } else {
        folder.join(file)
    }
}

/// The files of a starter, in the order in which they are written.
fn starter(name: &Name) -> Vec<(&'static str, String)> {
    vec![
        (FILE_NAME, APPLIANCE.replace("NAME", name.as_str())),
        ("layers/base/layer.toml", BASE.to_owned()),
        ("layers/app/layer.toml", APP.to_owned()),
        ("layers/app/site.toml", SITE.to_owned()),
        (
            "layers/app/files/etc/motd",
            MOTD.replace("NAME", name.as_str()),
        ),
    ]
}

fn write_new(path: &Path, text: &str) -> Result<(), CliError> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|source| CliError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::appliance::{Appliance, Style};

    /// A new starter in a folder of its own.
    pub(in super::super) fn starter(name: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        init(name, folder.path()).expect("a starter");
        folder
    }

    fn init(name: &str, folder: &Path) -> Result<String, Error> {
        let args = InitArgs {
            name: name.into(),
            folder: folder.to_owned(),
        };
        let mut out = Vec::new();
        run(&args, &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn a_starter_is_sound() {
        let folder = starter("wiki");
        let appliance = Appliance::open(&folder.path().join(FILE_NAME))
            .unwrap_or_else(|error| panic!("{error}\n{}", error.draw(Style::Plain)));
        assert_eq!(appliance.name.as_str(), "wiki");
        assert_eq!(appliance.layers.len(), 2);
    }

    #[test]
    fn every_commented_line_of_the_starter_is_a_default_or_sound() {
        let uncommented: String = APPLIANCE
            .replace("NAME", "wiki")
            .lines()
            .map(|line| match line.strip_prefix("#: ") {
                Some(setting) => format!("{setting}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        let folder = starter("wiki");
        let plain = Appliance::open(&folder.path().join(FILE_NAME)).expect("sound");
        std::fs::write(folder.path().join(FILE_NAME), uncommented).expect("write");
        let mut full = Appliance::open(&folder.path().join(FILE_NAME))
            .unwrap_or_else(|error| panic!("{error}\n{}", error.draw(Style::Plain)));
        // What has no default is an example.
        assert!(full.label.take().is_some());
        assert!(full.description.take().is_some());
        assert!(full.source_date.take().is_some());
        assert!(full.system.mirror.take().is_some());
        assert!(!std::mem::take(&mut full.repositories).is_empty());
        assert!(!std::mem::take(&mut full.pins).is_empty());
        assert!(!std::mem::take(&mut full.boot.cmdline).is_empty());
        assert!(!std::mem::take(&mut full.machine.disks).is_empty());
        assert!(full.disk.size.take().is_some());
        assert!(!std::mem::take(&mut full.values).is_empty());
        assert_eq!(full, plain);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_written_then() {
        let folder = starter("wiki");
        let file = folder.path().join(FILE_NAME);
        std::fs::remove_file(&file).expect("remove");
        let error = init("other", folder.path()).expect_err("layers are there");
        assert_eq!(error.slug(), "init-exists");
        assert!(
            error.to_string().ends_with("layers` exists already"),
            "{error}"
        );
        assert!(!file.exists());
    }

    #[test]
    fn a_name_that_importers_refuse_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let error = init("my wiki", folder.path()).expect_err("a space");
        assert_eq!(error.to_string(), "`my wiki` is no name for an appliance");
        assert_eq!(error.class().code(), 2);
        assert!(!folder.path().join(FILE_NAME).exists());
    }

    #[test]
    fn the_files_are_named() {
        let folder = tempfile::tempdir().expect("folder");
        let said = init("wiki", folder.path()).expect("a starter");
        for file in [
            "appliance.toml",
            "layers/base/layer.toml",
            "layers/app/layer.toml",
        ] {
            assert!(said.contains(file), "{said}");
            assert!(folder.path().join(file).is_file());
        }
    }
}
