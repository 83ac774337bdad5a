//! What files layers bring for the first-boot agent: roles and the policy,
//! judged by the agent's own rules before an image is built with them.

use std::io;
use std::path::Path;

use consign_schema::{Policy, Problem, Role};

use super::diagnostic::{Diagnostic, FileProblems, nearest, quoted};
use super::error::ApplianceError;
use super::layer::{LayerKind, LayerRecipe};
use super::source::Source;
use crate::tree::list_folder;

/// Where the agent looks, below a files layer's folder.
const POLICY: &str = "usr/lib/consign/policy.toml";
const ROLES: &str = "usr/lib/consign/roles";
const ROLE_FILE: &str = "role.toml";

/// Judges the roles and policies of all files layers.
///
/// # Errors
///
/// Those of reading; what is wrong in the files is the value.
pub(super) fn check(layers: &[LayerRecipe]) -> Result<Vec<FileProblems>, ApplianceError> {
    let mut wrong = Vec::new();
    for layer in layers {
        if let LayerKind::Files(files) = &layer.kind {
            wrong.extend(policy(&files.folder.join(POLICY))?);
            wrong.extend(roles(&files.folder.join(ROLES))?);
        }
    }
    Ok(wrong)
}

fn policy(path: &Path) -> Result<Option<FileProblems>, ApplianceError> {
    let Some(source) = open(path)? else {
        return Ok(None);
    };
    let problems = Policy::parse(source.text()).err().unwrap_or_default();
    Ok(FileProblems::new(&source, diagnostics(&problems, &source)))
}

fn roles(folder: &Path) -> Result<Vec<FileProblems>, ApplianceError> {
    let mut wrong = Vec::new();
    for name in names(folder)? {
        let role = folder.join(&name);
        let path = role.join(ROLE_FILE);
        let Some(source) = open(&path)? else {
            continue;
        };
        let problems = match Role::parse(source.text()) {
            Err(problems) => diagnostics(&problems, &source),
            Ok(parsed) => against_folder(&parsed, &name, &names(&role)?),
        };
        wrong.extend(FileProblems::new(&source, problems));
    }
    Ok(wrong)
}

/// What only the folder can tell: the role's name and its templates.
fn against_folder(role: &Role, folder: &str, files: &[String]) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    if role.name != folder {
        problems.push(
            Diagnostic::whole(format!(
                "the role `{}` is in the folder `{}`",
                role.name,
                quoted(folder)
            ))
            .help("call both the same"),
        );
    }
    let missing = |source: &&str| !files.iter().any(|file| file == source);
    let sources = role
        .templates
        .iter()
        .map(|template| template.source.as_str());
    for source in sources.filter(missing) {
        let message = format!(
            "there is no template `{}` beside `{ROLE_FILE}`",
            quoted(source)
        );
        let near = nearest(source, files.iter().map(String::as_str));
        problems.push(Diagnostic::whole(message).help(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write the file, or remove its [[template]]".to_owned(),
        }));
    }
    problems
}

fn open(path: &Path) -> Result<Option<Source>, ApplianceError> {
    match Source::open(path) {
        Ok(source) => Ok(Some(source)),
        Err(ApplianceError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names in `folder` that are text; a missing folder has none.
fn names(folder: &Path) -> Result<Vec<String>, ApplianceError> {
    match list_folder(folder) {
        Ok(entries) => Ok(entries
            .into_iter()
            .filter_map(|entry| entry.name.into_string().ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(ApplianceError::Read {
            path: folder.to_owned(),
            source,
        }),
    }
}

fn diagnostics(problems: &[Problem], source: &Source) -> Vec<Diagnostic> {
    let one = |problem: &Problem| {
        let at = source.offset(problem.line, problem.column);
        let mut help: Vec<&str> = Vec::new();
        let allowed = problem
            .allowed
            .as_ref()
            .map(|text| format!("allowed: {text}"));
        help.extend(allowed.as_deref());
        help.extend(Some(problem.remedy.as_str()).filter(|text| !text.is_empty()));
        let diagnostic = Diagnostic::at(at..at + 1, &problem.message);
        if help.is_empty() {
            diagnostic
        } else {
            diagnostic.help(help.join("; "))
        }
    };
    problems.iter().map(one).collect()
}
