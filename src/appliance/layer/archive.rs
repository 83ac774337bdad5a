//! `kind = "tar"` and `kind = "oci"`: archives and images laid over the tree.

use toml::Spanned;

use super::rule::rules;
use super::{OciLayer, OciSource, TarLayer, TarSource, absolute, file_of, layer_name, patterns};
use crate::appliance::diagnostic::{Diagnostic, nearest, quoted};
use crate::appliance::fields::{Fields, Problems};
use crate::appliance::source::ShelfLayer;
use crate::digest::Digest;

const EXCLUDE: &str = "[\"/usr/share/doc/*\"]";
const SHA256: &str = "\"…64 hex digits, as sha256sum prints them…\"";
/// Components that can be dropped; no path has more.
const MAX_STRIP: u64 = 64;

pub(super) fn tar(
    mut top: Fields<'_>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<TarLayer> {
    let file = top.text("file", "\"app.tar.gz\"", problems);
    let url = top.text("url", "\"https://example.com/app.tar.gz\"", problems);
    let sha256 = top.text("sha256", SHA256, problems);
    let strip = top.number("strip", "1", problems);
    let into = top.text("into", "\"/opt/app\"", problems);
    let exclude_paths = top.texts("exclude_paths", EXCLUDE, problems);
    let rules = rules(&mut top, problems);
    let is_one = top.has("file") != top.has("url");
    top.finish(problems);
    if !is_one {
        problems.push(one_of("file", "\"app.tar.gz\"", "url"));
    }
    if let Some(into) = &into {
        absolute(into, "into", problems);
    }
    let strip = strip.and_then(|strip| match u32::try_from(*strip.get_ref()) {
        Ok(count) if u64::from(count) <= MAX_STRIP => Some(count),
        _ => {
            problems.push(
                Diagnostic::at(strip.span(), format!("`strip` is {}", strip.get_ref()))
                    .help(format!("choose from 0 to {MAX_STRIP}")),
            );
            None
        }
    });
    let exclude_paths = patterns(exclude_paths, "exclude_paths", problems);
    let source = tar_source(file, url, sha256, layer, problems);
    is_one.then_some(TarLayer {
        source: source?,
        strip: strip.unwrap_or(0),
        into: into.map_or_else(|| "/".to_owned(), Spanned::into_inner),
        exclude_paths,
        rules,
    })
}

fn one_of(key: &str, example: &str, other: &str) -> Diagnostic {
    Diagnostic::whole(format!("the layer names either a `{key}` or a `{other}`"))
        .help(format!("write one of them: `{key} = {example}`"))
}

fn tar_source(
    file: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    sha256: Option<Spanned<String>>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<TarSource> {
    let had_sha256 = sha256.is_some();
    let sha256 = sha256.and_then(|text| digest(&text, problems));
    if let Some(url) = url {
        if !had_sha256 {
            problems.push(
                Diagnostic::at(url.span(), "an archive from an address needs its `sha256`")
                    .help(format!("add `sha256 = {SHA256}`")),
            );
        }
        let is_address = ["https://", "http://"]
            .iter()
            .any(|scheme| url.get_ref().starts_with(scheme))
            && url.get_ref().chars().all(|c| c.is_ascii_graphic());
        if !is_address {
            problems.push(
                Diagnostic::at(
                    url.span(),
                    format!("`{}` is not an address", quoted(url.get_ref())),
                )
                .help("begin it with `https://` or `http://`; a local archive is a `file`"),
            );
            return None;
        }
        return Some(TarSource::Url {
            url: url.into_inner(),
            sha256: sha256?,
        });
    }
    Some(TarSource::File {
        path: file_of(&file?, "file", layer, problems)?,
        sha256,
    })
}

fn digest(text: &Spanned<String>, problems: &mut Problems) -> Option<Digest> {
    let digest = Digest::parse(text.get_ref());
    if digest.is_none() {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!("`{}` is not a SHA-256 digest", quoted(text.get_ref())),
            )
            .help("write 64 hex digits, as sha256sum prints them"),
        );
    }
    digest
}

pub(super) fn oci(
    mut top: Fields<'_>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<OciLayer> {
    let path = top.text("path", "\"image\"", problems);
    let image = top.text("image", "\"app:1.0\"", problems);
    let from = top.text("from", "\"registry.example.com/app:1.0\"", problems);
    let exclude_paths = top.texts("exclude_paths", EXCLUDE, problems);
    let rules = rules(&mut top, problems);
    let is_one = top.has("path") != top.has("from");
    top.finish(problems);
    if !is_one {
        problems.push(one_of("path", "\"image\"", "from"));
    }
    if let (Some(image), Some(_)) = (&image, &from) {
        problems.push(
            Diagnostic::at(image.span(), "`image` chooses among the images of a `path`")
                .help("remove it: `from` names its image itself"),
        );
    }
    let exclude_paths = patterns(exclude_paths, "exclude_paths", problems);
    let source = match (path, from) {
        (Some(path), _) => image_path(&path, layer, problems).map(|path| OciSource::Path {
            path,
            image: image.map(Spanned::into_inner),
        }),
        (None, Some(from)) => reference(from, problems).map(OciSource::Registry),
        (None, None) => None,
    };
    is_one.then_some(OciLayer {
        source: source?,
        exclude_paths,
        rules,
    })
}

/// A folder of the layer, or a file.
fn image_path(
    path: &Spanned<String>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<std::path::PathBuf> {
    let text = path.get_ref();
    if layer.folders.contains(text) {
        return Some(layer.folder.join(text));
    }
    if text.contains('/') || layer.files.contains(text) {
        return file_of(path, "path", layer, problems);
    }
    let place = format!("layers/{}/{}", layer_name(layer), quoted(text));
    let missing = Diagnostic::at(
        path.span(),
        format!("there is neither a folder nor a file `{place}`"),
    );
    let known = layer.folders.iter().chain(&layer.files);
    problems.push(match nearest(text, known.map(String::as_str)) {
        Some(near) => missing.help(format!("did you mean `path = \"{near}\"`?")),
        None => missing.help("put an OCI image layout or what `docker save` writes there"),
    });
    None
}

/// What can be said without the registry's own rules, which the plan knows.
fn reference(from: Spanned<String>, problems: &mut Problems) -> Option<String> {
    let text = from.get_ref();
    let has_registry = text
        .split_once('/')
        .is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost");
    if has_registry && !text.contains("://") && text.chars().all(|c| c.is_ascii_graphic()) {
        return Some(from.into_inner());
    }
    problems.push(
        Diagnostic::at(
            from.span(),
            format!("`{}` does not name an image of a registry", quoted(text)),
        )
        .help("write `REGISTRY/NAME:TAG`, for example \"registry.example.com/app:1.0\""),
    );
    None
}
