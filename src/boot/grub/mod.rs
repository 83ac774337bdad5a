//! GRUB and shim: Debian's own, on the ESP and in front of it.
//!
//! In: the files of the tools layer. Out: boot code for BIOS with its few
//! fields patched, and the ESP's loader files. Never here: grub-install, a
//! block device.

mod config;
mod image;

pub use image::BootCode;
pub(super) use image::{CORE_IMAGE_LBA, patch};

use std::fmt::Write as _;

use super::cmdline;
use super::error::BootError;
use super::spec::BootSpec;
use crate::layer::spec::{LayerSpec, PackagePin, Recipe, ToolsRecipe};
use crate::tree::{Content, FileTree, Node, TreePath};

/// The Debian packages that [`tools_recipe`] takes, and no others: what
/// they depend on for their maintainer scripts is not needed, since they are
/// only unpacked. The libraries are those that `grub-mkimage` is linked with.
pub const TOOLS_PACKAGES: &[&str] = &[
    "grub-common",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "libc6",
    "libdevmapper1.02.1",
    "liblzma5",
    "libpcre2-8-0",
    "libselinux1",
    "libudev1",
    "shim-helpers-amd64-signed",
    "shim-signed",
];

/// Modules inside `core.img`: enough for [`config`], and nothing is loaded
/// from a disk later.
const CORE_MODULES: [&str; 12] = [
    "biosdisk", "part_gpt", "fat", "normal", "linux", "loadenv", "test", "echo", "serial",
    "terminal", "halt", "reboot",
];

/// GRUB's folder: on partition 2 of the disk it was loaded from. Debian's
/// signed GRUB has the same path built in.
const CORE_PREFIX: &str = "(,gpt2)/EFI/debian";

const BOOT_IMG: &str = "usr/lib/grub/i386-pc/boot.img";
const CORE_IMG: &str = "core.img";
const SHIM: &str = "usr/lib/shim/shimx64.efi.signed";
const MOK_MANAGER: &str = "usr/lib/shim/mmx64.efi.signed";
const SIGNED_GRUB: &str = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed";

/// The environment block must stay this long: GRUB rewrites it in place.
const GRUBENV_SIZE: usize = 1024;
/// Its first line (GRUB manual, "The GRUB environment block").
const GRUBENV_HEAD: &str = "# GRUB Environment Block\n";

/// The layer of boot tools: `grub-mkimage` run in the sandbox, its result and
/// the signed loaders kept. `pins` are [`TOOLS_PACKAGES`].
#[must_use]
pub fn tools_recipe(pins: Vec<PackagePin>) -> LayerSpec {
    let mut command: Vec<String> = [
        "/usr/bin/grub-mkimage",
        "--format=i386-pc",
        "--directory=/usr/lib/grub/i386-pc",
    ]
    .map(String::from)
    .to_vec();
    command.push(format!("--prefix={CORE_PREFIX}"));
    command.push(format!("--output=/{CORE_IMG}"));
    command.extend(CORE_MODULES.map(String::from));
    LayerSpec {
        name: "boot-tools".into(),
        recipe: Recipe::Tools(ToolsRecipe {
            pins,
            input: std::collections::BTreeMap::new(),
            command,
            keep: [BOOT_IMG, CORE_IMG, SHIM, MOK_MANAGER, SIGNED_GRUB]
                .map(path)
                .to_vec(),
        }),
        allow_secrets: Vec::new(),
    }
}

/// Patches the boot code of the tools layer.
///
/// # Errors
///
/// [`BootError::NoTool`], and as [`patch`].
pub(super) fn boot_code(tools: &FileTree) -> Result<BootCode, BootError> {
    let read = |name: &str| -> Result<Vec<u8>, BootError> {
        let content = tool(tools, name)?;
        content.read_all(1 << 20).map_err(|source| BootError::Read {
            path: path(name),
            source,
        })
    };
    patch(&read(BOOT_IMG)?, read(CORE_IMG)?)
}

/// Puts the loaders and their configuration onto the ESP.
///
/// # Errors
///
/// [`BootError::NoTool`].
pub(super) fn install(
    esp: &mut FileTree,
    tools: &FileTree,
    spec: &BootSpec,
) -> Result<(), BootError> {
    // shim looks for GRUB beside itself, GRUB for its configuration in `/EFI/debian`.
    for (name, source) in [
        ("EFI/BOOT/BOOTX64.EFI", SHIM),
        ("EFI/BOOT/grubx64.efi", SIGNED_GRUB),
        ("EFI/BOOT/mmx64.efi", MOK_MANAGER),
    ] {
        esp.insert(path(name), Node::file(0o644, tool(tools, source)?.clone()))?;
    }
    let text = config::render(spec);
    esp.insert(
        path("EFI/debian/grub.cfg"),
        Node::file(0o644, Content::from_bytes(text.into_bytes())),
    )?;
    esp.insert(
        path("EFI/debian/grubenv"),
        Node::file(0o644, Content::from_bytes(environment_block(spec))),
    )?;
    Ok(())
}

/// The environment block as it ships: slot a is good, slot b is empty.
fn environment_block(spec: &BootSpec) -> Vec<u8> {
    let mut text = String::from(GRUBENV_HEAD);
    text.push_str("order=a\ngood=a\n");
    for (slot, _) in cmdline::slots(&spec.slots) {
        let tries = if slot == "a" { "ok" } else { "0" };
        let _ = writeln!(text, "{slot}_tries={tries}");
    }
    let mut block = text.into_bytes();
    block.resize(GRUBENV_SIZE, b'#');
    block
}

fn tool<'a>(tools: &'a FileTree, name: &str) -> Result<&'a Content, BootError> {
    tools
        .at(name)
        .and_then(Node::content)
        .ok_or_else(|| BootError::NoTool { path: path(name) })
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a relative path without dots")
}

#[cfg(test)]
mod tests {
    use super::super::tests::ab_spec;
    use super::*;

    #[test]
    fn the_environment_block_is_1024_bytes_and_slot_a_is_good() {
        let block = environment_block(&ab_spec());
        assert_eq!(block.len(), GRUBENV_SIZE);
        assert!(block.starts_with(
            b"# GRUB Environment Block\norder=a\ngood=a\na_tries=ok\nb_tries=0\n####"
        ));
    }

    #[test]
    fn the_tools_layer_keeps_what_the_image_needs() {
        let Recipe::Tools(recipe) = tools_recipe(Vec::new()).recipe else {
            panic!("a tools recipe");
        };
        assert_eq!(recipe.command[0], "/usr/bin/grub-mkimage");
        assert!(
            recipe
                .command
                .contains(&"--prefix=(,gpt2)/EFI/debian".into())
        );
        assert_eq!(recipe.keep.len(), 5);
    }
}
