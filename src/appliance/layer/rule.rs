//! `[[rule]]`: owners, modes and xattrs by pattern.

use std::collections::BTreeMap;

use toml::Spanned;

use super::{PathRule, absolute};
use crate::appliance::diagnostic::{Diagnostic, list, quoted};
use crate::appliance::fields::{Fields, Problems};

/// The largest id that a user namespace can map: 2^32 - 1 means "no id".
const MAX_ID: u64 = u32::MAX as u64 - 1;

/// The `[[rule]]`s of a recipe.
pub(super) fn rules(top: &mut Fields<'_>, problems: &mut Problems) -> Vec<PathRule> {
    let tables = top.tables("rule", problems);
    tables
        .into_iter()
        .filter_map(|table| rule(table, problems))
        .collect()
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

pub(super) fn id(number: &Spanned<u64>, key: &str, problems: &mut Problems) -> Option<u32> {
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
pub(super) fn octal(text: &Spanned<String>, key: &str, problems: &mut Problems) -> Option<u16> {
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
