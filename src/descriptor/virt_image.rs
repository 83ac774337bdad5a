//! The virt-image descriptor, `appliance.xml`.
//!
//! Source: the `virt-image(5)` manual and `virtinst/ImageParser.py` of
//! virt-manager 1.0, whose parser is the only norm. Narrower than the manual,
//! so that every historic release boots what it says:
//!
//! - The historic parser looks elements up without namespaces: whatever
//!   stands in the prefixed namespace `va` is invisible to it, and a default
//!   namespace would hide everything. Without its `va` items the descriptor
//!   still describes a machine that boots.
//! - No `features` (one `state` was applied to all of them), no `target` of a
//!   drive (importers choose the bus), memory in kB, one lower-case sha256.
//! - A disk that is made on the host is raw: release 0.600 refuses to make
//!   any other.

use super::element::Element;
use super::{
    CONFIG_DISK_FILE, DescriptorError, Direct, DiskFacts, Display, Firmware, Machine, NAMESPACE,
    check, check_text, preferred, rank,
};
use crate::units::{ByteSize, KIB, MIB};

/// Renders the descriptor. `disks` are image files of the one system disk;
/// the descriptor names qcow2 before raw, and the others as alternatives.
/// With `direct` it has an entry for paravirtualised guests of Xen too, behind
/// the one for whole machines, since importers take the first that fits.
///
/// # Errors
///
/// Any [`DescriptorError`] but `Write`.
pub fn render(
    machine: &Machine,
    disks: &[DiskFacts],
    direct: Option<&Direct>,
) -> Result<String, DescriptorError> {
    check(machine)?;
    if let Some(direct) = direct {
        check_text("kernel", &direct.kernel)?;
        check_text("initramfs", &direct.initrd)?;
        check_text("command line", &direct.command_line)?;
    }
    let system = preferred(machine, disks)?;
    Ok(image(machine, system, disks, direct).to_document())
}

fn image(
    machine: &Machine,
    system: &DiskFacts,
    disks: &[DiskFacts],
    direct: Option<&Direct>,
) -> Element {
    let mut children = vec![
        Element::new("name")
            .attr("version", &machine.version)
            .text(&machine.name),
        Element::new("label").text(&machine.label),
    ];
    if !machine.description.is_empty() {
        children.push(Element::new("description").text(&machine.description));
    }
    children.push(domain(machine, direct));
    children.push(storage(machine, system));
    children.push(modern(machine, system, disks));
    let (prefix, name) = NAMESPACE;
    Element::new("image")
        .namespace(prefix, name)
        .children(children)
}

fn domain(machine: &Machine, direct: Option<&Direct>) -> Element {
    let whole = Element::new("os").children([Element::new("loader").attr("dev", "hd")]);
    let paravirtual = direct.map(|direct| {
        let part = |name, text: &str| Element::new(name).text(text);
        let os = Element::new("os").children([
            part("kernel", &direct.kernel),
            part("initrd", &direct.initrd),
            part("cmdline", &direct.command_line),
        ]);
        boot(machine, "xen", os)
    });
    let boots = [boot(machine, "hvm", whole)].into_iter().chain(paravirtual);
    Element::new("domain").children(boots.chain([devices(machine)]))
}

fn boot(machine: &Machine, kind: &str, os: Element) -> Element {
    let guest = Element::new("guest").children([Element::new("arch").text("x86_64")]);
    let ids = std::iter::once("system")
        .chain(machine.user_disks.iter().map(|disk| disk.id.as_str()))
        .chain(std::iter::once("config"));
    let drives = ids.map(|id| Element::new("drive").attr("disk", id));
    Element::new("boot")
        .attr("type", kind)
        .children([guest, os].into_iter().chain(drives))
}

fn devices(machine: &Machine) -> Element {
    // Importers divide by 1024, so anything below a MiB would be lost.
    let memory = machine.memory.mib_ceil() * (MIB / KIB);
    let mut devices = vec![
        Element::new("vcpu").text(machine.vcpus.to_string()),
        Element::new("memory").text(memory.to_string()),
    ];
    devices.extend((0..machine.nics).map(|_| Element::new("interface")));
    if machine.display == Display::Screen {
        devices.push(Element::new("graphics"));
    }
    Element::new("devices").children(devices)
}

fn storage(machine: &Machine, system: &DiskFacts) -> Element {
    let mut shipped =
        disk("system", &system.file, system.format.name(), system.size).attr("use", "system");
    if let Some(root) = &system.content_root {
        shipped = shipped.attr("va:content-root", root.to_string());
    }
    if let Some(digest) = &system.digest {
        let sum = Element::new("checksum")
            .attr("type", "sha256")
            .text(digest.hex());
        shipped = shipped.children([sum]);
    }
    let mut disks = vec![shipped];
    disks.extend(machine.user_disks.iter().map(|user| {
        let file = machine.user_disk_file(user);
        disk(&user.id, &file, "raw", user.size).attr("use", "user")
    }));
    disks.push(
        disk("config", CONFIG_DISK_FILE, "raw", machine.config.size)
            .attr("use", "user")
            .attr("va:label", &machine.config.label)
            .attr("va:schema", machine.config.schema.to_string()),
    );
    Element::new("storage").children(disks)
}

fn disk(id: &str, file: &str, format: &str, size: ByteSize) -> Element {
    Element::new("disk")
        .attr("id", id)
        .attr("file", file)
        .attr("format", format)
        .attr("size", size.mib_ceil().to_string())
}

/// What the historic format cannot say, for importers that can read it.
fn modern(machine: &Machine, system: &DiskFacts, disks: &[DiskFacts]) -> Element {
    let mut children = vec![
        Element::new("va:build").attr("digest", machine.build.to_string()),
        Element::new("va:os").attr("id", &machine.os_id),
        Element::new("va:chipset").attr("type", "q35"),
        Element::new("va:bus").attr("type", "virtio"),
        Element::new("va:nic").attr("model", "virtio"),
    ];
    children.extend(machine.firmware.iter().map(|firmware| {
        let (kind, secure) = match firmware {
            Firmware::Bios => ("bios", None),
            Firmware::Uefi => ("uefi", Some("off")),
            Firmware::UefiSecure => ("uefi", Some("on")),
        };
        let element = Element::new("va:firmware").attr("type", kind);
        match secure {
            Some(state) => element.attr("secure-boot", state),
            None => element,
        }
    }));
    children.extend(
        machine
            .consoles
            .iter()
            .map(|console| Element::new("va:console").attr("device", console)),
    );
    children.extend(
        disks
            .iter()
            .filter(|disk| disk.file != system.file && rank(disk.format).is_some())
            .map(|disk| {
                Element::new("va:alternative")
                    .attr("disk", "system")
                    .attr("file", &disk.file)
                    .attr("format", disk.format.name())
            }),
    );
    Element::new("va:machine").children(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::sample;
    use crate::digest::{ContentRoot, Digest};

    #[test]
    fn the_first_lines_are_what_historic_parsers_need() {
        let xml = render(&sample::machine(), &sample::disks(), None).expect("renders");
        assert!(xml.starts_with(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <image xmlns:va=\"urn:consign:appliance:1\">\n  \
             <name version=\"1.2.0\">wiki</name>\n"
        ));
        assert!(xml.ends_with("</image>\n"));
        for word in ["xmlns=", "<features", "target=", "<!DOCTYPE"] {
            assert!(!xml.contains(word), "{word} in\n{xml}");
        }
    }

    #[test]
    fn memory_is_in_kib_and_a_whole_number_of_mib() {
        let machine = Machine {
            memory: ByteSize::from_bytes(512 * MIB + 1),
            ..sample::machine()
        };
        let xml = render(&machine, &sample::disks(), None).expect("renders");
        assert!(xml.contains("<memory>525312</memory>"), "{xml}");
    }

    #[test]
    fn a_raw_disk_without_a_sum_has_no_checksum_element() {
        let disks: Vec<_> = sample::disks().into_iter().take(1).collect();
        let xml = render(&sample::machine(), &disks, None).expect("renders");
        assert!(xml.contains("file=\"wiki.raw\" format=\"raw\""), "{xml}");
        assert!(!xml.contains("checksum"), "{xml}");
    }

    #[test]
    fn a_content_root_is_for_modern_importers_only() {
        let mut disks = sample::disks();
        disks[1].content_root = Some(ContentRoot(Digest::of(b"root")));
        let xml = render(&sample::machine(), &disks, None).expect("renders");
        assert!(xml.contains("va:content-root=\"sha256:"), "{xml}");
    }

    #[test]
    fn text_is_escaped() {
        let xml = render(&sample::machine(), &sample::disks(), None).expect("renders");
        assert!(xml.contains("<label>Wiki &amp; notes</label>"), "{xml}");
        assert!(xml.contains("Pages &lt;for"), "{xml}");
    }
}
