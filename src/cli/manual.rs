//! Shell completion and manual pages, both from the command line's own definition.

use std::io::Write;
use std::path::PathBuf;

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

/// Prints the completion script.
///
/// # Errors
///
/// [`CliError::Output`].
pub(super) fn completion<A: CommandFactory>(
    args: &CompletionArgs,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut A::command(), "consign", &mut script);
    out.write_all(&script).map_err(output)?;
    Ok(())
}

/// Writes `consign.1` and one page for each subcommand.
///
/// # Errors
///
/// [`CliError::Write`] names the page.
pub(super) fn pages<A: CommandFactory>(args: &ManArgs, out: &mut dyn Write) -> Result<(), Error> {
    let mut command = A::command();
    command.build();
    let mut names = Vec::new();
    write_page(&command, "consign", args, &mut names)?;
    for name in names {
        writeln!(out, "{name}").map_err(output)?;
    }
    Ok(())
}

fn write_page(
    command: &clap::Command,
    name: &str,
    args: &ManArgs,
    names: &mut Vec<String>,
) -> Result<(), CliError> {
    let path = args.folder.join(format!("{name}.1"));
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
        write_page(inner, &format!("{name}-{}", inner.get_name()), args, names)?;
    }
    Ok(())
}
