//! The text of a lock: one way to write each.

use std::fmt::{self, Write as _};

use super::{FORMAT, Lock};
use crate::layer::spec::PackagePin;

const HEAD: &str = "\
# The packages that this appliance is made of. Written by consign; commit it
# and do not edit it. `consign lock` makes it anew.
";

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        writeln!(f, "format = {FORMAT}")?;
        pair(f, "suite", &self.suite)?;
        pair(f, "architecture", &self.architecture)?;
        for repository in &self.repositories {
            writeln!(f, "\n[[repository]]")?;
            pair(f, "name", &repository.name)?;
            pair(f, "suite", &repository.suite)?;
            list(f, "components", &repository.components)?;
            if let Some(priority) = repository.priority {
                writeln!(f, "priority = {priority}")?;
            }
            list(f, "packages", &repository.packages)?;
        }
        for limit in &self.limits {
            writeln!(f, "\n[[pin]]")?;
            list(f, "packages", &limit.packages)?;
            for (key, value) in [("version", &limit.version), ("source", &limit.source)] {
                if let Some(value) = value {
                    pair(f, key, value)?;
                }
            }
        }
        for release in &self.releases {
            writeln!(f, "\n[[release]]")?;
            pair(f, "suite", &release.suite)?;
            pair(f, "date", &release.date.to_string())?;
            pair(f, "digest", &release.digest.to_string())?;
        }
        for layer in &self.layers {
            writeln!(f, "\n[[layer]]")?;
            pair(f, "name", &layer.group.layer)?;
            list(f, "requested", &layer.group.packages)?;
            writeln!(f, "recommends = {}", layer.group.recommends)?;
            list(f, "excluded", &layer.group.exclude)?;
            if !layer.group.debs.is_empty() {
                list(f, "debs", &layer.group.debs)?;
            }
            for pin in &layer.packages {
                package(f, "layer", pin)?;
            }
        }
        for image in &self.images {
            writeln!(f, "\n[[image]]")?;
            pair(f, "layer", &image.request.layer)?;
            pair(f, "reference", &image.request.reference)?;
            pair(f, "manifest", &image.manifest.to_string())?;
        }
        for archive in &self.archives {
            writeln!(f, "\n[[archive]]")?;
            pair(f, "layer", &archive.layer)?;
            pair(f, "url", &archive.url)?;
            pair(f, "sha256", &archive.sha256.to_string())?;
        }
        writeln!(f, "\n[tools]")?;
        list(f, "requested", &self.tools_requested)?;
        for pin in &self.tools {
            package(f, "tools", pin)?;
        }
        Ok(())
    }
}

fn package(f: &mut fmt::Formatter<'_>, place: &str, pin: &PackagePin) -> fmt::Result {
    let PackagePin {
        name,
        version,
        architecture,
        suite,
        path,
        size,
        sha256,
        source,
        reason,
    } = pin;
    writeln!(f, "\n[[{place}.package]]")?;
    pair(f, "name", name)?;
    pair(f, "version", version)?;
    pair(f, "architecture", architecture)?;
    pair(f, "suite", suite)?;
    pair(f, "path", path)?;
    writeln!(f, "size = {size}")?;
    pair(f, "sha256", &sha256.to_string())?;
    pair(f, "source", source)?;
    pair(f, "reason", reason)
}

fn pair(f: &mut fmt::Formatter<'_>, key: &str, value: &str) -> fmt::Result {
    writeln!(f, "{key} = {}", Quoted(value))
}

/// One element a line, so that two branches can each add one.
fn list(f: &mut fmt::Formatter<'_>, key: &str, values: &[String]) -> fmt::Result {
    if values.is_empty() {
        return writeln!(f, "{key} = []");
    }
    writeln!(f, "{key} = [")?;
    for value in values {
        writeln!(f, "    {},", Quoted(value))?;
    }
    writeln!(f, "]")
}

/// A TOML basic string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
