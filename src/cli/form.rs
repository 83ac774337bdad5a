//! `consign config schema`, `page` and `plan`: forms of a site configuration,
//! and what one changes.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use consign_schema::{Change, changes, decode};
use serde_json::json;

use super::config::RolesFrom;
use super::draw::ReportFormat;
use super::error::CliError;
use crate::artifact::PendingFile;
use crate::error::Error;
use crate::factory::form::{json_schema, page};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct SchemaOf {
    #[command(flatten)]
    roles: RolesFrom,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct PageOf {
    /// The page that is written.
    #[arg(short, long, value_name = "FILE", default_value = "config.html")]
    output: PathBuf,
    #[command(flatten)]
    roles: RolesFrom,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlanSite {
    /// The site configuration.
    #[arg(value_name = "SITE")]
    site: PathBuf,
    /// The one that the machine has; only what differs is shown then.
    #[arg(long, value_name = "OLD")]
    since: Option<PathBuf>,
    #[command(flatten)]
    roles: RolesFrom,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: ReportFormat,
}

/// The JSON Schema, with a newline.
pub(super) fn schema(args: &SchemaOf) -> Result<String, Error> {
    let schema = json_schema(&args.roles.shelf()?);
    Ok(format!("{schema:#}\n"))
}

/// Writes the page, whole or not at all.
pub(super) fn write_page(args: &PageOf) -> Result<String, Error> {
    let text = page(&args.roles.shelf()?, &args.roles.name()?);
    let path = &args.output;
    let write = |source| CliError::Write {
        path: path.clone(),
        source,
    };
    let mut pending = PendingFile::create(path).map_err(write)?;
    pending
        .file_mut()
        .write_all(text.as_bytes())
        .map_err(write)?;
    pending.commit().map_err(write)?;
    Ok(format!(
        "wrote `{}`: open it in any browser, with no network\n",
        path.display()
    ))
}

/// What a configuration sets, or changes.
pub(super) fn plan(args: &PlanSite) -> Result<String, Error> {
    let site = args.roles.shelf()?.judge_file(&args.site)?;
    let old = match &args.since {
        Some(path) => read(path)?,
        None => String::new(),
    };
    let found = changes(&old, &read(&args.site)?);
    Ok(match args.format {
        ReportFormat::Json => {
            let list: Vec<_> = found
                .iter()
                .map(|change| json!({ "key": change.key, "before": change.before, "after": change.after }))
                .collect();
            let plan = json!({ "id": site.id.to_string(), "serial": site.serial, "changes": list });
            format!("{plan}\n")
        }
        ReportFormat::Text => {
            let mut text = format!("id {}, serial {}\n", site.id, site.serial);
            for change in &found {
                text.push_str(&line(change));
            }
            if found.is_empty() {
                text.push_str("nothing changes\n");
            }
            text
        }
    })
}

fn line(change: &Change) -> String {
    let key = &change.key;
    match (&change.before, &change.after) {
        (None, Some(after)) => format!("  + {key} = {after}\n"),
        (Some(before), None) => format!("  - {key} = {before}\n"),
        (Some(before), Some(after)) => format!("  ~ {key} = {after} (was {before})\n"),
        (None, None) => String::new(),
    }
}

/// A file that has been judged, or the one before it, which may be of another
/// time: only its keys matter.
fn read(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|source| CliError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(decode(&bytes).map(str::to_owned).unwrap_or_default())
}
