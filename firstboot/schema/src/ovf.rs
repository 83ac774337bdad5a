//! An OVF environment as a site configuration: flat properties become keys as
//! the vendor's policy says.
//!
//! Source: DMTF DSP0243 (OVF 2.1), section 9.5. Narrower than that: of the
//! whole document only `Property` elements with a key and a value count, and
//! a document with a DTD is refused.

use std::collections::BTreeMap;

use std::fmt::Write as _;

use crate::policy::{Policy, PropertyKind};
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report, shown};
use crate::text::quoted;

/// Properties at most.
const MAX_PROPERTIES: usize = 256;

/// Writes the properties that `policy` knows as a `site.toml`. Without a
/// property for them, `config.id` is `ovf` and `config.serial` 1.
///
/// # Errors
///
/// What is wrong with the document, and properties whose text is not what
/// their type says, by their place in it.
pub fn convert_ovf(xml: &str, policy: &Policy) -> Result<String, Vec<Problem>> {
    let mut report = Report::new(xml);
    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    for (name, value, at) in properties(xml, &mut report) {
        let Some(property) = policy.properties.iter().find(|known| known.name == name) else {
            continue;
        };
        // An empty field of the form means that nothing was filled in.
        if value.trim().is_empty() {
            continue;
        }
        if let Some(text) = literal(value.trim(), property.kind) {
            keys.insert(property.key.clone(), text);
            continue;
        }
        let message = format!("the property `{}` has another type", shown(&name));
        let finding = Finding::new(Code::WrongType, message)
            .allowed(match property.kind {
                PropertyKind::Number => "a whole number",
                PropertyKind::Boolean => "true or false",
                _ => "one line of text",
            })
            .remedy("correct it among the properties of the virtual machine");
        report.note(&(at..at), &property.key, finding);
    }
    if keys.is_empty() && report.is_clean() {
        let finding = Finding::new(
            Code::MissingKey,
            "the document has no property that this appliance knows",
        )
        .allowed(
            policy
                .properties
                .iter()
                .map(|known| known.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        )
        .remedy("fill in the properties of the virtual machine");
        report.note(&(0..0), "", finding);
    }
    if !report.is_clean() {
        return Err(report.into_problems());
    }
    let default = |keys: &mut BTreeMap<String, String>, key: &str, text: &str| {
        keys.entry(key.to_owned())
            .or_insert_with(|| text.to_owned());
    };
    default(&mut keys, "config.id", "\"ovf\"");
    default(&mut keys, "config.serial", "1");
    Ok(document(&keys))
}

/// A TOML document of dotted keys; what is below `nic` goes into one
/// `[[nic]]`.
fn document(keys: &BTreeMap<String, String>) -> String {
    let mut text = "# Made from the properties of an OVF environment.\nschema = 1\n".to_owned();
    for (key, value) in keys.iter().filter(|(key, _)| !key.starts_with("nic.")) {
        let _ = writeln!(text, "{key} = {value}");
    }
    let mut nic = keys
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("nic.")?, value)))
        .peekable();
    if nic.peek().is_some() {
        text.push_str("[[nic]]\n");
    }
    for (key, value) in nic {
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}

/// The text as TOML; `None` when it is not of this kind.
fn literal(text: &str, kind: PropertyKind) -> Option<String> {
    match kind {
        PropertyKind::Text => Some(quoted(text)),
        PropertyKind::Number => text.parse::<i64>().ok().map(|number| number.to_string()),
        PropertyKind::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" => Some("true".into()),
            "false" => Some("false".into()),
            _ => None,
        },
        PropertyKind::List => {
            let items = text.split([',', ' ']).filter(|item| !item.is_empty());
            let items: Vec<String> = items.map(quoted).collect();
            Some(format!("[{}]", items.join(", ")))
        }
    }
}

/// Keys, values and places of the `Property` elements.
fn properties(xml: &str, report: &mut Report<'_>) -> Vec<(String, String, usize)> {
    let mut found = Vec::new();
    let mut refuse = |at: usize, message: &str| {
        let finding = Finding::new(Code::Syntax, message)
            .remedy("let the hypervisor make the document again");
        report.note(&(at..at), "", finding);
    };
    let mut at = 0;
    while let Some(start) = xml.get(at..).and_then(|rest| rest.find('<')) {
        let start = at + start;
        let rest = xml.get(start..).unwrap_or_default();
        if let Some(inside) = rest.strip_prefix("<!--") {
            let Some(end) = inside.find("-->") else {
                refuse(start, "a comment has no end");
                return found;
            };
            at = start + 4 + end + 3;
            continue;
        }
        if rest.starts_with("<!") {
            refuse(start, "the document declares something of its own");
            return found;
        }
        let Some(end) = rest.find('>') else {
            refuse(start, "an element has no end");
            return found;
        };
        at = start + end + 1;
        let element = rest.get(1..end).unwrap_or_default().trim_end_matches('/');
        let (name, attributes) = element
            .split_once(|c: char| c.is_ascii_whitespace())
            .unwrap_or((element, ""));
        if local(name) != "Property" {
            continue;
        }
        let Some(attributes) = read_attributes(attributes) else {
            refuse(start, "an element is not XML");
            return found;
        };
        let value_of = |wanted: &str| {
            let mut all = attributes.iter();
            all.find(|(name, _)| name == wanted)
                .map(|(_, value)| value.clone())
        };
        if let (Some(key), Some(value)) = (value_of("key"), value_of("value")) {
            found.push((key, value, start));
        }
        if found.len() > MAX_PROPERTIES {
            refuse(start, "the document has more than 256 properties");
            return found;
        }
    }
    found
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// Names without their prefixes, and values without their entities.
fn read_attributes(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Some(found);
        }
        let (name, rest) = text.split_once('=')?;
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, rest) = rest.get(1..)?.split_once(quote)?;
        found.push((local(name.trim()).to_owned(), unescaped(value)?));
        text = rest;
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut parts = text.split('&');
    plain.push_str(parts.next()?);
    for part in parts {
        let (entity, rest) = part.split_once(';')?;
        let c = match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        };
        plain.push(c);
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    const POLICY: &str = r#"schema = 1
[[property]]
name = "hostname"
key = "system.hostname"
[[property]]
name = "ip"
key = "nic.address"
type = "list"
[[property]]
name = "gateway"
key = "nic.gateway"
[[property]]
name = "mtu"
key = "nic.mtu"
type = "number"
[[property]]
name = "report"
key = "report.write"
type = "boolean"
"#;

    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"
    xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="">
  <PlatformSection><Kind>VMware ESXi</Kind></PlatformSection>
  <!-- <Property oe:key="hostname" oe:value="commented"/> -->
  <PropertySection>
    <Property oe:key="hostname" oe:value="web-1"/>
    <Property oe:key="ip" oe:value="10.1.2.10/24, fd00::10/64"/>
    <Property oe:key="gateway" oe:value="10.1.2.1"/>
    <Property oe:key="mtu" oe:value="1400"/>
    <Property oe:key="report" oe:value="False"/>
    <Property oe:key="empty" oe:value=""/>
    <Property oe:key="vm.vmname" oe:value="&lt;any&gt;"/>
  </PropertySection>
</Environment>
"#;

    fn policy() -> Policy {
        Policy::parse(POLICY).expect("a good policy")
    }

    #[test]
    fn properties_become_keys_as_the_vendor_says() {
        let text = convert_ovf(XML, &policy()).expect("converted");
        let site = check(&text, &[], &Policy::default()).expect("good");
        assert_eq!(site.id.as_str(), "ovf");
        assert_eq!(
            site.system.hostname.as_ref().map(crate::HostName::as_str),
            Some("web-1")
        );
        assert_eq!(site.nics.len(), 1);
        assert_eq!(site.nics[0].link.addresses.len(), 2);
        assert_eq!(site.nics[0].link.mtu, Some(1400));
        assert!(!site.report.write);
    }

    #[test]
    fn values_cannot_write_keys() {
        let xml = XML.replace("web-1", "a&quot;&#10;[user.root]&#10;x = &quot;");
        let text = convert_ovf(&xml, &policy()).expect("converted");
        let problems = check(&text, &[], &Policy::default()).expect_err("no host name");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "system.hostname");
    }

    #[test]
    fn wrong_documents_are_refused_at_their_place() {
        for (from, to, line, slug) in [
            ("1400", "many", 10, "wrong-type"),
            ("False", "no", 11, "wrong-type"),
            (
                "<PropertySection>",
                "<!DOCTYPE x [<!ENTITY a 'b'>]>",
                6,
                "syntax",
            ),
            ("\"web-1\"/>", "web-1/>", 7, "syntax"),
            ("web-1", "&nbsp;", 7, "syntax"),
            ("<!-- <", "<!- <", 5, "syntax"),
        ] {
            let problems = convert_ovf(&XML.replace(from, to), &policy()).expect_err(to);
            assert_eq!(
                (problems[0].line, problems[0].code.slug()),
                (line, slug),
                "{to}"
            );
        }
        assert!(convert_ovf("", &policy()).is_err());
        assert!(convert_ovf(&XML.replace("oe:key", "oe:kee"), &policy()).is_err());
    }
}
