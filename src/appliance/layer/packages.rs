//! `kind = "packages"`.

use toml::Spanned;

use super::{PackagesLayer, layer_name, patterns};
use crate::appliance::check::package;
use crate::appliance::diagnostic::{Diagnostic, quoted};
use crate::appliance::fields::{Fields, Problems};
use crate::appliance::names::PackageName;
use crate::appliance::source::ShelfLayer;

pub(super) fn read(
    mut top: Fields<'_>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<PackagesLayer> {
    const EXAMPLE: &str = "[\"nginx\"]";
    if !top.has("debs") {
        top.require("packages", EXAMPLE);
    }
    let packages = top.texts("packages", EXAMPLE, problems);
    let recommends = top.truth("recommends", problems);
    let exclude = top.texts("exclude", "[\"perl\"]", problems);
    let exclude_paths = top.texts("exclude_paths", "[\"/usr/share/man/*\"]", problems);
    let include_paths = top.texts("include_paths", "[\"/usr/share/man/man1/*\"]", problems);
    let debs = top.texts("debs", "[\"debs/*.deb\"]", problems);
    top.finish(problems);
    if packages.is_none() && debs.is_none() {
        return None;
    }
    if let (Some(list), None) = (&packages, &debs)
        && list.get_ref().is_empty()
    {
        problems.push(
            Diagnostic::at(list.span(), "the layer names no package")
                .help("name one, or leave the layer out of `appliance.toml`"),
        );
    }
    let packages = packages.map(Spanned::into_inner).unwrap_or_default();
    let packages = names(&packages, problems);
    let excluded = exclude.map(Spanned::into_inner).unwrap_or_default();
    let exclude = names(&excluded, problems);
    for text in &excluded {
        if packages.iter().any(|name| name.as_str() == text.get_ref()) {
            problems.push(
                Diagnostic::at(
                    text.span(),
                    format!(
                        "`{}` is both asked for and excluded",
                        quoted(text.get_ref())
                    ),
                )
                .help("remove it from one of the two lists"),
            );
        }
    }
    Some(PackagesLayer {
        packages,
        recommends: recommends.is_some_and(Spanned::into_inner),
        exclude,
        exclude_paths: patterns(exclude_paths, "exclude_paths", problems),
        include_paths: patterns(include_paths, "include_paths", problems),
        debs: package_files(debs, layer, problems),
    })
}

/// The package files that the patterns mean; each must mean one.
fn package_files(
    texts: Option<Spanned<Vec<Spanned<String>>>>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in texts.map(Spanned::into_inner).unwrap_or_default() {
        let before = found.len();
        let fits = |path: &&String| fits(text.get_ref(), path);
        found.extend(layer.debs.iter().filter(fits).cloned());
        if found.len() == before {
            let place = format!("layers/{}/{}", layer_name(layer), quoted(text.get_ref()));
            problems.push(
                Diagnostic::at(text.span(), format!("there is no package file `{place}`"))
                    .help("write a path below the layer's folder; `*` stands for any name"),
            );
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Whether `text` is `pattern`, in which each `*` stands for anything but `/`.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut left) = text.strip_prefix(head) else {
        return false;
    };
    loop {
        if fits(rest, left) {
            return true;
        }
        match left.strip_prefix(|c: char| c != '/') {
            Some(shorter) => left = shorter,
            None => return false,
        }
    }
}

/// Package names, sorted; repeats are problems.
fn names(texts: &[Spanned<String>], problems: &mut Problems) -> Vec<PackageName> {
    let mut names: Vec<PackageName> = Vec::new();
    for text in texts {
        let Some(name) = package(text, problems) else {
            continue;
        };
        if names.contains(&name) {
            problems.push(
                Diagnostic::at(
                    text.span(),
                    format!("the package `{name}` stands here twice"),
                )
                .help("remove one of the two"),
            );
        }
        names.push(name);
    }
    names.sort();
    names
}
