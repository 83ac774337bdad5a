//! Which network interface a part of the file means.

use toml::de::DeValue;

use crate::address::{MacAddr, parsed};
use crate::document::Section;
use crate::problem::Code;
use crate::report::{Finding, Report};

/// Which interface a `[[nic]]` table means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NicMatch {
    /// The one with this hardware address.
    Mac(MacAddr),
    /// The one in this place, from 1, in the order of the PCI addresses.
    Position(u8),
    /// The one at this PCI address, written as `0000:00:03.0`.
    Slot(String),
    /// Those whose name matches; `*`, `?` and `[..]` as in a shell.
    Name(String),
}

impl NicMatch {
    /// Reads `match = { mac | slot | name }`.
    pub(crate) fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mac = section.get("mac").map(|found| {
            let text = found.text(report)?;
            parsed(text, MacAddr::parse, report).map(|found| Self::Mac(found.value))
        });
        let slot = section.get("slot").map(|found| {
            if let DeValue::Integer(_) = found.value {
                let place = found.integer(&(1..=64), report)?;
                return u8::try_from(place.value).ok().map(Self::Position);
            }
            let text = found.text(report)?;
            parsed(text, parse_slot, report).map(|found| Self::Slot(found.value))
        });
        let name = section.get("name").map(|found| {
            let text = found.text(report)?;
            parsed(text, parse_pattern, report).map(|found| Self::Name(found.value))
        });
        let given: Vec<Option<Self>> = [mac, slot, name].into_iter().flatten().collect();
        if given.len() != 1 {
            let message = if given.is_empty() {
                "the interface is not named"
            } else {
                "the interface is named in two ways"
            };
            let finding = Finding::new(Code::Conflict, message)
                .allowed("one of mac, slot, name")
                .remedy("write for example match = { slot = 1 }");
            section.note(report, finding);
        }
        section.finish(report);
        given.into_iter().next().flatten()
    }
}

/// A PCI address: domain (may be left out), bus, device, function.
fn parse_slot(text: &str) -> Result<String, Finding> {
    let full = match text.split(':').count() {
        2 => format!("0000:{text}"),
        _ => text.to_owned(),
    };
    // Every digit stands for itself, every other character for its place.
    let shape: String = full
        .chars()
        .map(|c| {
            if matches!(c, '0'..='9' | 'a'..='f') {
                'x'
            } else {
                c
            }
        })
        .collect();
    let is_slot = shape == "xxxx:xx:xx.x";
    if is_slot {
        return Ok(full);
    }
    Err(Finding::invalid("this is not a PCI address")
        .allowed("a number from 1, or domain:bus:device.function in small hexadecimal digits")
        .remedy("write 1 for the first interface, or an address such as \"0000:00:03.0\""))
}

fn parse_pattern(text: &str) -> Result<String, Finding> {
    let is_pattern = (1..=15).contains(&text.len())
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'.' | b'_' | b'-' | b'*' | b'?' | b'[' | b']')
        });
    if !is_pattern {
        return Err(Finding::invalid("this is not the name of an interface")
            .allowed("up to 15 letters, digits, `.`, `_`, `-`, and the patterns `*`, `?`, `[..]`")
            .remedy("write a name such as \"eth0\" or a pattern such as \"en*\""));
    }
    if text == "lo" {
        return Err(
            Finding::invalid("the loopback interface is not configured here")
                .remedy("name a network interface"),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_pci_addresses() {
        assert_eq!(parse_slot("00:03.0").ok().as_deref(), Some("0000:00:03.0"));
        assert_eq!(
            parse_slot("0000:0a:1f.7").ok().as_deref(),
            Some("0000:0a:1f.7")
        );
        for bad in [
            "",
            "3",
            "00:03",
            "00:03:0",
            "0000:00:03.0.1",
            "00.03.0",
            "0000:00.03:0",
        ] {
            assert!(parse_slot(bad).is_err(), "{bad}");
        }
    }
}
