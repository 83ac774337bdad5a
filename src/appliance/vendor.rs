//! What files layers bring for the first-boot agent: roles and the policy,
//! judged by the agent's own rules before an image is built with them.

use std::io;
use std::path::Path;

use consign_schema::template::check_template;
use consign_schema::{Problem, Role, check_policy};

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
    let mut sound = Vec::new();
    let folders = || {
        layers.iter().filter_map(|layer| match &layer.kind {
            LayerKind::Files(files) => Some(&files.folder),
            _ => None,
        })
    };
    for folder in folders() {
        wrong.extend(roles(&folder.join(ROLES), &mut sound)?);
    }
    // Where one cannot be read, what it has is not known.
    let sound: Vec<&Role> = sound.iter().filter(|_| wrong.is_empty()).collect();
    for folder in folders() {
        wrong.extend(policy(&folder.join(POLICY), &sound)?);
    }
    Ok(wrong)
}

fn policy(path: &Path, roles: &[&Role]) -> Result<Option<FileProblems>, ApplianceError> {
    let Some(source) = open(path)? else {
        return Ok(None);
    };
    let problems = check_policy(source.text(), roles).err().unwrap_or_default();
    Ok(FileProblems::new(&source, diagnostics(&problems, &source)))
}

/// What is wrong with the roles of a folder; those that can be read are `sound`.
fn roles(folder: &Path, sound: &mut Vec<Role>) -> Result<Vec<FileProblems>, ApplianceError> {
    let mut wrong = Vec::new();
    for name in names(folder)? {
        let role = folder.join(&name);
        let path = role.join(ROLE_FILE);
        let Some(source) = open(&path)? else {
            continue;
        };
        let problems = match Role::parse(source.text()) {
            Err(problems) => diagnostics(&problems, &source),
            Ok(parsed) => {
                let problems = against_folder(&parsed, &name, &names(&role)?);
                wrong.extend(templates(&parsed, &role)?);
                sound.push(parsed);
                problems
            }
        };
        wrong.extend(FileProblems::new(&source, problems));
    }
    Ok(wrong)
}

/// What is wrong with the templates that are there.
fn templates(role: &Role, folder: &Path) -> Result<Vec<FileProblems>, ApplianceError> {
    let mut wrong = Vec::new();
    for template in &role.templates {
        let Some(source) = open(&folder.join(&template.source))? else {
            continue;
        };
        if let Err(reason) = check_template(role, template.escape, source.text()) {
            let message = format!("the template cannot be filled in: {reason}");
            let help = format!("name what `{ROLE_FILE}` has in [param], as `app.NAME`");
            let problem = Diagnostic::whole(message).help(help);
            wrong.extend(FileProblems::new(&source, vec![problem]));
        }
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
