//! From a tree of packages to a tree that boots, the ESP beside it, and the
//! boot code in front of both.
//!
//! In: the merged tree, the files of the tools layer ([`tools_recipe`]), the
//! agent, a [`BootSpec`]. Out: a [`Bootable`].
//! Never here: block devices, mounts, programs of the tree, choices.
//! Checked by: unit tests here; `tests/it/boot.rs` boots the result under
//! BIOS, UEFI and Secure Boot and from every disk controller QEMU emulates.

mod agent;
mod clean;
mod cmdline;
mod error;
mod files;
mod grub;
mod initramfs;
mod kernel;
mod keys;
mod lean;
mod slots;
mod spec;
mod units;
mod vendor_files;

pub use clean::{
    Action as CleanAction, Leftover, RULES as CLEAN_RULES, Rule as CleanRule, leftovers, rule_for,
};
pub use error::BootError;
pub use grub::{BootCode, TOOLS_PACKAGES, tools_recipe};
pub use initramfs::{PACKING, Packer, pack};
pub use lean::{LeanKernel, lean_kernel};
pub use spec::{BootSpec, Slots};

use std::fmt::Write as _;

use files::{path, text_file};
use kernel::Kernel;

use crate::tree::{Content, FileTree, Node, NodeKind};

/// The first sector (of 512 bytes) of the partition that holds
/// [`BootCode::core_image`]; the boot code has it built in.
pub const BIOS_PARTITION_LBA: u64 = grub::CORE_IMAGE_LBA;

/// Facts about the image, for the agent.
const FACTS: &str = "usr/lib/consign/image.toml";

/// All that goes onto a disk so that it boots.
#[derive(Debug, Clone)]
pub struct Bootable {
    /// The root file system.
    pub root: FileTree,
    /// `/var`, where it is a partition of its own.
    pub var: Option<FileTree>,
    /// The EFI system partition.
    pub esp: FileTree,
    /// What BIOS starts.
    pub boot_code: BootCode,
    /// What a host starts that loads kernels itself.
    pub direct: DirectBoot,
}

/// Kernel, initramfs and command line, to be started without a loader.
#[derive(Debug, Clone)]
pub struct DirectBoot {
    /// Version of the kernel.
    pub version: String,
    /// The kernel, signed by Debian.
    pub kernel: Content,
    /// The initramfs.
    pub initrd: Content,
    /// The command line, without a newline.
    pub cmdline: String,
}

/// Makes `tree` boot. `tools` holds the files that [`tools_recipe`] keeps,
/// `agent` is the program that becomes `/init`, `packer` is [`pack`] or
/// something that remembers its results.
///
/// # Errors
///
/// [`BootError`] when the tree has no bootable Debian system, the tools are
/// not those of a known GRUB, or the spec has an impossible kernel parameter.
pub fn install(
    mut tree: FileTree,
    tools: &FileTree,
    agent: &Content,
    spec: &BootSpec,
    packer: &Packer<'_>,
) -> Result<Bootable, BootError> {
    cmdline::check(spec)?;
    check_root(&tree)?;
    let kernel = Kernel::find(&tree)?;
    let boot_code = grub::boot_code(tools)?;
    let initrd = initramfs::build(&tree, &kernel, agent, spec.source_date, packer)?;
    let direct = DirectBoot {
        version: kernel.version,
        kernel: kernel.image,
        initrd,
        cmdline: cmdline::direct(spec),
    };
    let esp = esp(tools, &direct, spec)?;

    clean::clean(&mut tree, spec.source_date)?;
    units::make_lean(&mut tree, spec.source_date)?;
    keys::make_at_boot(&mut tree, spec.source_date)?;
    agent::place(&mut tree, agent, spec.source_date)?;
    tree.insert(
        path(FACTS),
        text_file(facts(&direct, spec), spec.source_date),
    )?;
    let mut var = slots::arrange(&mut tree, spec)?;
    files::stamp(&mut tree, spec.source_date);
    if let Some(var) = &mut var {
        files::stamp(var, spec.source_date);
    }
    Ok(Bootable {
        root: tree,
        var,
        esp,
        boot_code,
        direct,
    })
}

/// Makes the initramfs of a tree that is not finished, for a `packer` that
/// remembers: mostly what comes on top changes nothing in it.
///
/// # Errors
///
/// Those of [`install`].
pub fn rehearse(
    tree: &FileTree,
    agent: &Content,
    spec: &BootSpec,
    packer: &Packer<'_>,
) -> Result<(), BootError> {
    let kernel = Kernel::find(tree)?;
    initramfs::build(tree, &kernel, agent, spec.source_date, packer).map(drop)
}

/// What every root needs, checked before any work.
fn check_root(tree: &FileTree) -> Result<(), BootError> {
    for top in ["bin", "lib", "sbin"] {
        match tree.at(top).map(|node| &node.kind) {
            Some(NodeKind::Symlink(_)) => {}
            _ => return Err(BootError::NotMerged { path: top }),
        }
    }
    for needed in ["usr/sbin/init", "usr/lib/os-release"] {
        if tree.at(needed).is_none() {
            return Err(BootError::Missing { path: needed });
        }
    }
    Ok(())
}

fn esp(tools: &FileTree, direct: &DirectBoot, spec: &BootSpec) -> Result<FileTree, BootError> {
    let mut esp = FileTree::new();
    grub::install(&mut esp, tools, spec)?;
    for (name, content) in [
        ("slot-a/vmlinuz", &direct.kernel),
        ("slot-a/initrd", &direct.initrd),
    ] {
        esp.insert(path(name), Node::file(0o644, content.clone()))?;
    }
    files::stamp(&mut esp, spec.source_date);
    Ok(esp)
}

/// `image.toml`: what the agent may want to know and cannot see.
fn facts(direct: &DirectBoot, spec: &BootSpec) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("name", spec.name.as_str()),
        ("version", &spec.version),
        ("build", &spec.build_id),
        ("kernel", &direct.version),
        ("slots", spec.slots.name()),
    ] {
        let _ = writeln!(text, "{key} = {}", quoted(value));
    }
    text.push_str("\n[partitions]\n");
    let _ = writeln!(text, "esp = \"{}\"", spec.slots.esp());
    for (slot, root) in cmdline::slots(&spec.slots) {
        let _ = writeln!(text, "root-{slot} = \"{root}\"");
    }
    if let Some(var) = spec.slots.var() {
        let _ = writeln!(text, "var = \"{var}\"");
    }
    text
}

/// A TOML basic string; TOML has JSON's escapes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007F")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Guid, Timestamp};

    pub(super) fn ab_spec() -> BootSpec {
        BootSpec {
            name: "sample".into(),
            version: "1.2.3".into(),
            build_id: "sha256:00".into(),
            slots: Slots::Ab {
                esp: Guid::from_u128(0xe),
                root_a: Guid::from_u128(0xa),
                root_b: Guid::from_u128(0xb),
                var: Guid::from_u128(0xf),
            },
            kernel_parameters: Vec::new(),
            source_date: Timestamp::from_seconds(1_700_000_000),
        }
    }

    pub(super) fn single_spec() -> BootSpec {
        BootSpec {
            slots: Slots::Single {
                esp: Guid::from_u128(0xe),
                root: Guid::from_u128(0xa),
            },
            ..ab_spec()
        }
    }

    #[test]
    fn the_facts_are_toml() {
        let direct = DirectBoot {
            version: "6.1".into(),
            kernel: Content::from_bytes(*b""),
            initrd: Content::from_bytes(*b""),
            cmdline: String::new(),
        };
        let mut spec = ab_spec();
        spec.version = "a\"b\\\u{7f}".into();
        let table: toml::Table = facts(&direct, &spec).parse().expect("TOML");
        assert_eq!(table["version"].as_str(), Some("a\"b\\\u{7f}"));
        assert_eq!(
            table["partitions"]["root-b"].as_str(),
            Some("00000000-0000-0000-0000-00000000000b")
        );
    }
}
