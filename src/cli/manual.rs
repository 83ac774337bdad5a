//! Shell completion and manual pages, both from the command line's own definition.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::error::{CliError, output};
use crate::artifact::write_file;
use crate::error::Error;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct CompletionArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ManArgs {
    /// An existing folder for the pages.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

impl ManArgs {
    /// Where the pages go.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Prints the completion script.
///
/// # Errors
///
/// [`CliError::Output`].
pub(super) fn completion<A: CommandFactory>(
    args: &CompletionArgs,
    out: &mut dyn Write,
) -> Result<(), Error> {
    completion_of::<A>(args.shell, "consign", out)
}

/// The same for a program of another name.
///
/// # Errors
///
/// [`CliError::Output`].
pub(super) fn completion_of<A: CommandFactory>(
    shell: clap_complete::Shell,
    name: &str,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut A::command(), name, &mut script);
    out.write_all(&script).map_err(output)?;
    Ok(())
}

/// Writes `NAME.1` and one page for each subcommand.
///
/// # Errors
///
/// [`CliError::Write`] names the page.
pub(super) fn pages_of<A: CommandFactory>(
    folder: &Path,
    name: &str,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut command = A::command();
    command.build();
    let mut names = Vec::new();
    write_page(&command, name, folder, &mut names)?;
    for name in names {
        writeln!(out, "{name}").map_err(output)?;
    }
    Ok(())
}

fn write_page(
    command: &clap::Command,
    name: &str,
    folder: &Path,
    names: &mut Vec<String>,
) -> Result<(), CliError> {
    let path = folder.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned()))
        .render(&mut page)
        .and_then(|()| write_file(&path, &page))
        .map_err(|source| CliError::Write {
            path: path.clone(),
            source,
        })?;
    names.push(path.display().to_string());
    for inner in command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help")
    {
        write_page(
            inner,
            &format!("{name}-{}", inner.get_name()),
            folder,
            names,
        )?;
    }
    Ok(())
}
