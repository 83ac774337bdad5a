//! What is known about vulnerabilities: `OpenVEX` statements.
//!
//! In: the vendor's `vex/*.toml` beside the appliance, an [`Inventory`]. Out:
//! one `OpenVEX` 0.2.0 document, the same bytes for the same input. A
//! statement about a package that is not in the bill is an error: it would
//! silence a scanner about something else, or about nothing.
//! Checked by: the project's JSON Schema (`tests/it/release/vex.rs`).
//!
//! ```toml
//! [[statement]]
//! vulnerability = "CVE-2024-1234"
//! package = "libssl3"              # left out: the appliance as a whole
//! status = "not_affected"          # affected, fixed, under_investigation
//! justification = "vulnerable_code_not_in_execute_path"
//! # or: impact = "…"; for affected: action = "…"; always: notes = "…"
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::ReleaseError;
use super::sbom::{Inventory, appliance_purl, deb_purl};
use super::signing::read_small;
use crate::tree::list_folder;
use crate::units::nearest;

/// Its name in a release.
pub const VEX_FILE: &str = "openvex.json";
/// The folder beside `appliance.toml`.
pub const VEX_FOLDER: &str = "vex";
/// Longest file of statements that is read.
const MAX_FILE: u64 = 1 << 20;
const CONTEXT: &str = "https://openvex.dev/ns/v0.2.0";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    statement: Vec<Statement>,
}

/// One statement, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    vulnerability: String,
    #[serde(default)]
    aliases: Vec<String>,
    package: Option<String>,
    status: Status,
    justification: Option<Justification>,
    impact: Option<String>,
    action: Option<String>,
    notes: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    NotAffected,
    Affected,
    Fixed,
    UnderInvestigation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Justification {
    ComponentNotPresent,
    VulnerableCodeNotPresent,
    VulnerableCodeNotInExecutePath,
    VulnerableCodeCannotBeControlledByAdversary,
    InlineMitigationsAlreadyExist,
}

impl Statement {
    /// What the statement lacks, or has too much of.
    fn problem(&self) -> Option<&'static str> {
        let is_named = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
            !name.is_empty() && name.chars().all(is_plain)
        };
        if !is_named(&self.vulnerability) || !self.aliases.iter().all(|one| is_named(one)) {
            return Some("`vulnerability` and `aliases` are names like `CVE-2024-1234`");
        }
        let reasons =
            usize::from(self.justification.is_some()) + usize::from(self.impact.is_some());
        match self.status {
            Status::NotAffected if reasons != 1 => {
                Some("`not_affected` needs either `justification` or `impact`")
            }
            Status::NotAffected => None,
            _ if reasons > 0 => Some("`justification` and `impact` are for `not_affected`"),
            Status::Affected if self.action.is_none() => {
                Some("`affected` needs `action`: what the customer can do")
            }
            _ => None,
        }
        .or_else(|| {
            let is_lost = self.status != Status::Affected && self.action.is_some();
            is_lost.then_some("`action` is for `affected`")
        })
    }
}

/// The document for the statements in `folder`; `None` where there is no such
/// folder, or nothing in it.
///
/// # Errors
///
/// [`ReleaseError::Vex`] for a file that says nothing sound,
/// [`ReleaseError::VexPackage`] for a package that is not in the bill.
pub fn document(folder: &Path, inventory: &Inventory) -> Result<Option<String>, ReleaseError> {
    let files = files(folder)?;
    if files.is_empty() {
        return Ok(None);
    }
    let packages = packages(inventory);
    let mut statements = Vec::new();
    let mut said = BTreeSet::new();
    for path in files {
        let wrong = |problem: String| ReleaseError::Vex {
            path: path.clone(),
            problem,
        };
        let text = String::from_utf8(read_small(&path, MAX_FILE)?);
        let text = text.map_err(|_| wrong("it is not text".into()))?;
        let written: Written = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        for statement in written.statement {
            let about = statement.package.as_deref().unwrap_or("the appliance");
            let at = |problem: &str| {
                wrong(format!(
                    "{} about {about}: {problem}",
                    statement.vulnerability
                ))
            };
            if let Some(problem) = statement.problem() {
                return Err(at(problem));
            }
            if !said.insert((statement.vulnerability.clone(), statement.package.clone())) {
                return Err(at("it is there twice"));
            }
            let purls = match &statement.package {
                None => None,
                Some(name) => Some(packages.get(name.as_str()).ok_or_else(|| {
                    let near = nearest(name, packages.keys().copied());
                    ReleaseError::VexPackage {
                        path: path.clone(),
                        package: name.clone(),
                        near: near.map(str::to_owned),
                    }
                })?),
            };
            statements.push(statement_json(&statement, purls, inventory));
        }
    }
    let document = json!({
        "@context": CONTEXT,
        "@id": format!("urn:uuid:{}", inventory.serial),
        "author": format!("the vendor of {}", inventory.name),
        "role": "vendor",
        "timestamp": inventory.date.to_string(),
        "version": 1,
        "tooling": format!("consign {}", inventory.builder),
        "statements": statements,
    });
    Ok(Some(format!("{document:#}\n")))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, ReleaseError> {
    if folder.symlink_metadata().is_err() {
        return Ok(Vec::new());
    }
    let entries = list_folder(folder).map_err(|source| ReleaseError::Read {
        path: folder.to_owned(),
        source,
    })?;
    let is_ours = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "toml");
    Ok(entries
        .into_iter()
        .map(|entry| entry.path)
        .filter(is_ours)
        .collect())
}

/// The package URLs of the bill, by name: a name may be there in two versions.
fn packages(inventory: &Inventory) -> BTreeMap<&str, BTreeSet<String>> {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for pin in inventory.layers.iter().flat_map(|layer| &layer.packages) {
        let purl = deb_purl(pin, &inventory.suite);
        found.entry(pin.name.as_str()).or_default().insert(purl);
    }
    found
}

fn statement_json(
    statement: &Statement,
    purls: Option<&BTreeSet<String>>,
    inventory: &Inventory,
) -> Value {
    let mut product = json!({ "@id": appliance_purl(inventory) });
    if let Some(purls) = purls {
        let parts = purls.iter().map(|purl| json!({ "@id": purl }));
        product["subcomponents"] = parts.collect();
    }
    let mut vulnerability = json!({ "name": statement.vulnerability });
    if !statement.aliases.is_empty() {
        vulnerability["aliases"] = json!(statement.aliases);
    }
    let mut found = json!({
        "vulnerability": vulnerability,
        "timestamp": inventory.date.to_string(),
        "products": [product],
        "status": statement.status,
    });
    if let Some(justification) = statement.justification {
        found["justification"] = json!(justification);
    }
    for (key, text) in [
        ("impact_statement", &statement.impact),
        ("action_statement", &statement.action),
        ("status_notes", &statement.notes),
    ] {
        if let Some(text) = text {
            found[key] = json!(text);
        }
    }
    found
}
