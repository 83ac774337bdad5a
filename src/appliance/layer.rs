//! `layer.toml`: how one layer is made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;

use super::check::package;
use super::diagnostic::{Diagnostic, FileProblems, list, nearest, quoted};
use super::fields::{Fields, Problems, parse};
use super::names::{LayerName, PackageName};
use super::source::{ShelfLayer, Source};

const KINDS: [&str; 2] = ["packages", "files"];
const DEFAULT_FOLDER: &str = "files";
/// The largest id that a user namespace can map: 2^32 - 1 means "no id".
const MAX_ID: u64 = u32::MAX as u64 - 1;

/// A layer as its `layer.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecipe {
    /// Its name, which is its folder's.
    pub name: LayerName,
    /// What it is made of.
    pub kind: LayerKind,
}

/// What a layer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerKind {
    /// Packages of the distribution.
    Packages(PackagesLayer),
    /// A folder laid over the tree.
    Files(FilesLayer),
}

/// `kind = "packages"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagesLayer {
    /// Asked for by name, sorted; what they need comes too.
    pub packages: Vec<PackageName>,
    /// Whether what they recommend comes too.
    pub recommends: bool,
    /// Never installed, sorted.
    pub exclude: Vec<PackageName>,
    /// Paths that are not unpacked: patterns as in dpkg's `path-exclude`.
    pub exclude_paths: Vec<String>,
    /// Exceptions to them.
    pub include_paths: Vec<String>,
    /// Package files that are installed too: paths below the layer's folder,
    /// sorted.
    pub debs: Vec<String>,
}

/// `kind = "files"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesLayer {
    /// The folder on the host.
    pub folder: PathBuf,
    /// Owners and modes, in the order written; the last match wins.
    pub rules: Vec<PathRule>,
}

/// One `[[rule]]`: owner, mode and xattrs of the paths that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// A pattern with a leading `/`.
    pub path: String,
    /// Numeric owner.
    pub uid: Option<u32>,
    /// Numeric group.
    pub gid: Option<u32>,
    /// Low 12 bits of the mode of files.
    pub mode: Option<u16>,
    /// The same for directories.
    pub directory_mode: Option<u16>,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl LayerRecipe {
    /// Reads and checks `source`, the `layer.toml` of `layer`.
    ///
    /// # Errors
    ///
    /// Every problem of the file.
    pub(super) fn parse(
        name: LayerName,
        source: &Source,
        layer: &ShelfLayer,
    ) -> Result<Self, FileProblems> {
        let mut problems = Problems::new();
        let kind = read(source, layer, &mut problems);
        match (FileProblems::new(source, problems), kind) {
            (None, Some(kind)) => Ok(Self { name, kind }),
            (Some(problems), _) => Err(problems),
            (None, None) => unreachable!("`read` reports why it gives nothing"),
        }
    }
}

fn read(source: &Source, layer: &ShelfLayer, problems: &mut Problems) -> Option<LayerKind> {
    let table = parse(source, problems)?;
    let mut top = Fields::top(&table);
    top.require("kind", "\"packages\"");
    let Some(kind) = top.text("kind", "\"packages\"", problems) else {
        top.missing(&[], problems);
        return None;
    };
    match kind.get_ref().as_str() {
        "packages" => packages(top, layer, problems).map(LayerKind::Packages),
        "files" => files(top, layer, problems).map(LayerKind::Files),
        other => {
            let unknown = Diagnostic::at(
                kind.span(),
                format!("unknown kind of layer `{}`", quoted(other)),
            );
            problems.push(match nearest(other, KINDS) {
                Some(near) => unknown.help(format!("did you mean `{near}`?")),
                None => unknown.help(format!("choose from {}", list(&KINDS, "and"))),
            });
            None
        }
    }
}

fn packages(
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

fn patterns(
    texts: Option<Spanned<Vec<Spanned<String>>>>,
    key: &str,
    problems: &mut Problems,
) -> Vec<String> {
    let texts = texts.map(Spanned::into_inner).unwrap_or_default();
    for text in &texts {
        absolute(text, key, problems);
    }
    texts.into_iter().map(Spanned::into_inner).collect()
}

fn absolute(text: &Spanned<String>, key: &str, problems: &mut Problems) {
    let pattern = text.get_ref();
    let is_bad = |part: &str| matches!(part, "." | "..");
    if !pattern.starts_with('/') || pattern.contains('\0') || pattern.split('/').any(is_bad) {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!("`{key}`: `{}` is not a path in the image", quoted(pattern)),
            )
            .help("begin it with `/` and leave out `.` and `..`"),
        );
    }
}

fn files(mut top: Fields<'_>, layer: &ShelfLayer, problems: &mut Problems) -> Option<FilesLayer> {
    let folder = top.text("folder", "\"files\"", problems);
    let wrong_type = folder.is_none() && top.has("folder");
    let rules = top
        .tables("rule", problems)
        .into_iter()
        .filter_map(|table| rule(table, problems))
        .collect();
    top.finish(problems);
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
    })
}

fn layer_name(layer: &ShelfLayer) -> String {
    let name = layer.folder.file_name().unwrap_or_default();
    quoted(&name.to_string_lossy())
}

fn rule(mut table: Fields<'_>, problems: &mut Problems) -> Option<PathRule> {
    table.require("path", "\"/usr/bin/*\"");
    let path = table.text("path", "\"/usr/bin/*\"", problems);
    let uid = table.number("uid", "0", problems);
    let gid = table.number("gid", "0", problems);
    let mode = table.text("mode", "\"0644\"", problems);
    let directory_mode = table.text("directory_mode", "\"0755\"", problems);
    let pairs = table.pairs("xattrs", "{ \"user.note\" = \"text\" }", problems);
    let changes = ["mode", "directory_mode", "uid", "gid", "xattrs"];
    let says_nothing = !changes.iter().any(|key| table.has(key));
    let name = table.name().to_owned();
    table.finish(problems);
    let path = path?;
    absolute(&path, "path", problems);
    if says_nothing {
        problems.push(
            Diagnostic::at(path.span(), format!("this {name} changes nothing"))
                .help(format!("add {}", list(&changes, "or"))),
        );
    }
    Some(PathRule {
        uid: uid.and_then(|number| id(&number, "uid", problems)),
        gid: gid.and_then(|number| id(&number, "gid", problems)),
        mode: mode.and_then(|text| octal(&text, "mode", problems)),
        directory_mode: directory_mode.and_then(|text| octal(&text, "directory_mode", problems)),
        xattrs: xattrs(&pairs, problems),
        path: path.into_inner(),
    })
}

fn id(number: &Spanned<u64>, key: &str, problems: &mut Problems) -> Option<u32> {
    let id = Some(*number.get_ref()).filter(|id| *id <= MAX_ID);
    if id.is_none() {
        problems.push(
            Diagnostic::at(number.span(), format!("`{key}` is {}", number.get_ref()))
                .help(format!("choose from 0 to {MAX_ID}")),
        );
    }
    id.and_then(|id| u32::try_from(id).ok())
}

/// Three or four octal digits.
fn octal(text: &Spanned<String>, key: &str, problems: &mut Problems) -> Option<u16> {
    let digits = text.get_ref();
    let is_mode =
        matches!(digits.len(), 3 | 4) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    if is_mode {
        return u16::from_str_radix(digits, 8).ok();
    }
    problems.push(
        Diagnostic::at(
            text.span(),
            format!("`{key}`: `{}` is not a mode", quoted(digits)),
        )
        .help("write three or four octal digits, for example \"0755\""),
    );
    None
}

/// Values are text, or hex digits after `0x`, as getfattr prints them.
fn xattrs(
    pairs: &[(Spanned<String>, Spanned<String>)],
    problems: &mut Problems,
) -> BTreeMap<String, Vec<u8>> {
    const NAMESPACES: [&str; 4] = ["user.", "trusted.", "security.", "system.posix_acl_"];
    let mut xattrs = BTreeMap::new();
    for (name, value) in pairs {
        let key = name.get_ref();
        let is_known = NAMESPACES
            .iter()
            .any(|prefix| key.len() > prefix.len() && key.starts_with(prefix));
        if !is_known || key.len() > 255 || key.contains('\0') {
            problems.push(
                Diagnostic::at(
                    name.span(),
                    format!("`{}` is not the name of an extended attribute", quoted(key)),
                )
                .help("begin it with `user.`, `trusted.`, `security.` or `system.posix_acl_`"),
            );
            continue;
        }
        let bytes = match value.get_ref().strip_prefix("0x") {
            Some(hex) => from_hex(hex),
            None => Some(value.get_ref().clone().into_bytes()),
        };
        match bytes {
            Some(bytes) => {
                xattrs.insert(key.clone(), bytes);
            }
            None => problems.push(
                Diagnostic::at(value.span(), format!("`{key}` is not hex digits in pairs"))
                    .help("write text, or `0x` and two hex digits for each byte"),
            ),
        }
    }
    xattrs
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    hex.as_bytes().chunks(2).map(pair).collect()
}
