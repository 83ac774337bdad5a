//! `kind = "run"`: a script on top of the layers below.

use std::collections::BTreeMap;

use toml::Spanned;

use super::{RunLayer, file_of, layer_name};
use crate::appliance::diagnostic::{Diagnostic, nearest, quoted};
use crate::appliance::fields::{Fields, Problems};
use crate::appliance::source::ShelfLayer;

/// What the sandbox decides itself.
const RESERVED: [&str; 6] = [
    "PATH",
    "HOME",
    "LC_ALL",
    "TZ",
    "SOURCE_DATE_EPOCH",
    "SYSTEMD_OFFLINE",
];

pub(super) fn read(
    mut top: Fields<'_>,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<RunLayer> {
    top.require("script", "\"setup.sh\"");
    let script = top.text("script", "\"setup.sh\"", problems);
    let folder = top.text("folder", "\"files\"", problems);
    let network = top.truth("network", problems);
    let pairs = top.pairs("environment", "{ MODE = \"production\" }", problems);
    top.finish(problems);
    let environment = environment(&pairs, problems);
    let folder = match folder {
        None => None,
        Some(name) if layer.folders.contains(name.get_ref()) => {
            Some(layer.folder.join(name.get_ref()))
        }
        Some(name) => {
            let path = format!("layers/{}/{}", layer_name(layer), quoted(name.get_ref()));
            let missing = Diagnostic::at(name.span(), format!("there is no folder `{path}`"));
            let near = nearest(name.get_ref(), layer.folders.iter().map(String::as_str));
            problems.push(match near {
                Some(near) => missing.help(format!("did you mean `folder = \"{near}\"`?")),
                None => missing.help("make the folder; the script finds its files beside itself"),
            });
            return None;
        }
    };
    Some(RunLayer {
        script: file_of(&script?, "script", layer, problems)?,
        folder,
        network: network.is_some_and(Spanned::into_inner),
        environment,
    })
}

fn environment(
    pairs: &[(Spanned<String>, Spanned<String>)],
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in pairs {
        let text = name.get_ref();
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = text.chars().all(is_inner) && !text.starts_with(|c: char| c.is_ascii_digit());
        if !is_name || text.is_empty() {
            problems.push(
                Diagnostic::at(
                    name.span(),
                    format!("`{}` is not the name of a variable", quoted(text)),
                )
                .help("use letters, digits and `_`"),
            );
        } else if RESERVED.contains(&text.as_str()) {
            problems.push(
                Diagnostic::at(name.span(), format!("`{text}` is set by the sandbox"))
                    .help("remove it; a script can set it for itself"),
            );
        } else if value.get_ref().contains('\0') {
            problems.push(Diagnostic::at(
                value.span(),
                format!("the value of `{text}` has a NUL character"),
            ));
        }
        environment.insert(text.clone(), value.get_ref().clone());
    }
    environment
}
