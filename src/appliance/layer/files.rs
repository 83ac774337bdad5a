//! `kind = "files"`: a folder, and what a folder cannot hold.

use toml::Spanned;

use super::rule::{id, octal, rules};
use super::{Entry, EntryKind, FilesLayer, absolute, layer_name, patterns};
use crate::appliance::diagnostic::{Diagnostic, list, nearest, quoted};
use crate::appliance::fields::{Fields, Problems};
use crate::appliance::source::ShelfLayer;

const DEFAULT_FOLDER: &str = "files";

pub(super) fn read(
    mut top: Fields<'_>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<FilesLayer> {
    let folder = top.text("folder", "\"files\"", problems);
    let wrong_type = folder.is_none() && top.has("folder");
    let rules = rules(&mut top, problems);
    let entries = entries(&mut top, problems);
    let remove = top.texts("remove", "[\"/etc/motd\"]", problems);
    let templates = top.texts("templates", "[\"/etc/issue\"]", problems);
    top.finish(problems);
    let templates = patterns(templates, "templates", problems);
    let mut remove = plain_paths(remove, problems);
    remove.sort();
    remove.dedup();
    if wrong_type {
        return None;
    }
    let name = folder
        .as_ref()
        .map_or(DEFAULT_FOLDER, |text| text.get_ref());
    if !layer.folders.contains(name) {
        let path = format!("layers/{}/{}", layer_name(layer), quoted(name));
        let message = format!("there is no folder `{path}`");
        let missing = match &folder {
            Some(text) => Diagnostic::at(text.span(), message),
            None => Diagnostic::whole(message),
        };
        let near = nearest(name, layer.folders.iter().map(String::as_str));
        problems.push(match near {
            Some(near) => missing.help(format!("did you mean `folder = \"{near}\"`?")),
            None => missing.help("make the folder; its files go into the image"),
        });
        return None;
    }
    Some(FilesLayer {
        folder: layer.folder.join(name),
        rules,
        entries,
        remove,
        templates,
    })
}

/// Paths, not patterns: what is removed is named.
fn plain_paths(
    texts: Option<Spanned<Vec<Spanned<String>>>>,
    problems: &mut Problems,
) -> Vec<String> {
    let texts = texts.map(Spanned::into_inner).unwrap_or_default();
    for text in &texts {
        path(text, "remove", problems);
    }
    texts.into_iter().map(Spanned::into_inner).collect()
}

/// A path in the image that is not its root.
fn path(text: &Spanned<String>, key: &str, problems: &mut Problems) {
    absolute(text, key, problems);
    if text.get_ref().trim_matches('/').is_empty() {
        problems.push(
            Diagnostic::at(text.span(), format!("`{key}` names the root of the image"))
                .help("name something below it"),
        );
    }
}

fn entries(top: &mut Fields<'_>, problems: &mut Problems) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for table in top.tables("entry", problems) {
        let Some((text, entry)) = entry(table, problems) else {
            continue;
        };
        if entries.iter().any(|other| other.path == entry.path) {
            problems.push(
                Diagnostic::at(
                    text.span(),
                    format!("the entry `{}` stands here twice", quoted(&entry.path)),
                )
                .help("remove one of the two"),
            );
        }
        entries.push(entry);
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// What `[[entry]]` may be, in the order of the manual.
const KINDS: [&str; 6] = ["directory", "symlink", "link", "char", "block", "fifo"];

fn entry(mut table: Fields<'_>, problems: &mut Problems) -> Option<(Spanned<String>, Entry)> {
    table.require("path", "\"/var/lib/app\"");
    table.require("kind", "\"directory\"");
    let text = table.text("path", "\"/var/lib/app\"", problems);
    let kind = table.text("kind", "\"directory\"", problems);
    let target = table.text("target", "\"/usr/bin/app\"", problems);
    let major = table.number("major", "1", problems);
    let minor = table.number("minor", "3", problems);
    let uid = table.number("uid", "0", problems);
    let gid = table.number("gid", "0", problems);
    let mode = table.text("mode", "\"0755\"", problems);
    let span = table.span();
    table.finish(problems);
    let (text, kind) = (text?, kind?);
    path(&text, "path", problems);
    let word = kind.get_ref().as_str();
    let needs = |what: &str| {
        let message = format!("an entry of kind `{}` needs {what}", quoted(word));
        Diagnostic::at(span.clone().unwrap_or_else(|| kind.span()), message)
    };
    let target = |problems: &mut Problems| match &target {
        Some(target) if !target.get_ref().is_empty() && !target.get_ref().contains('\0') => {
            Some(target.clone())
        }
        _ => {
            problems.push(needs("a `target`").help("add `target = \"/usr/bin/app\"`"));
            None
        }
    };
    let device = |problems: &mut Problems| {
        let number =
            |number: &Option<Spanned<u64>>| u32::try_from(*number.as_ref()?.get_ref()).ok();
        let numbers = number(&major).zip(number(&minor));
        if numbers.is_none() {
            problems
                .push(needs("`major` and `minor`").help("add them, as `ls -l /dev` shows them"));
        }
        numbers
    };
    let kind = match word {
        "directory" => EntryKind::Directory,
        "symlink" => EntryKind::Symlink(target(problems)?.into_inner()),
        "link" => {
            let target = target(problems)?;
            absolute(&target, "target", problems);
            EntryKind::Link(target.into_inner())
        }
        "char" => device(problems).map(|(major, minor)| EntryKind::Char { major, minor })?,
        "block" => device(problems).map(|(major, minor)| EntryKind::Block { major, minor })?,
        "fifo" => EntryKind::Fifo,
        other => {
            let unknown = Diagnostic::at(
                kind.span(),
                format!("unknown kind of entry `{}`", quoted(other)),
            );
            problems.push(match nearest(other, KINDS) {
                Some(near) => unknown.help(format!("did you mean `{near}`?")),
                None => unknown.help(format!("choose from {}", list(&KINDS, "and"))),
            });
            return None;
        }
    };
    let default = match kind {
        EntryKind::Directory => 0o755,
        EntryKind::Symlink(_) => 0o777,
        _ => 0o644,
    };
    let id = |number: Option<Spanned<u64>>, key, problems: &mut Problems| {
        number.map_or(Some(0), |number| id(&number, key, problems))
    };
    let entry = Entry {
        path: text.get_ref().clone(),
        kind,
        uid: id(uid, "uid", problems)?,
        gid: id(gid, "gid", problems)?,
        mode: mode.map_or(Some(default), |mode| octal(&mode, "mode", problems))?,
    };
    Some((text, entry))
}
