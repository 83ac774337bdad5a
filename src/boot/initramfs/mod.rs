//! The initramfs: the agent as `/init`, storage drivers, and the table by
//! which it picks them.
//!
//! In: the tree with its kernel, the agent. Out: one compressed archive, the
//! same bytes for the same input. Never here: a shell, the tree's own programs.

mod drivers;
mod modules;

use std::io;

use super::error::BootError;
use super::kernel::Kernel;
use crate::tree::cpio::Archive;
use crate::tree::{Content, FileTree, TreePath};
use crate::units::{MIB, Timestamp};

/// An initramfs above this size is a mistake in the list of drivers.
const SIZE_LIMIT: u64 = 4 * MIB;
/// No module and no agent is larger.
const FILE_LIMIT: u64 = 64 * MIB;
/// Level of compression: a third of a second for our 14 MB, within one percent
/// of levels that take three times as long.
const ZSTD_LEVEL: i32 = 9;

/// Names how [`pack`] packs: it changes whenever other bytes come out.
pub const PACKING: &str = "zstd 9, crate 0.14.4";

/// Packs an archive for the kernel: the same bytes for the same input.
///
/// # Errors
///
/// What the library reports.
pub fn pack(archive: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(archive, ZSTD_LEVEL)
}

/// Packs archives as [`pack`] does, or knows what would come out.
pub type Packer<'p> = dyn Fn(&[u8]) -> io::Result<Vec<u8>> + 'p;

/// Builds the initramfs of `kernel`.
///
/// # Errors
///
/// [`BootError`] when the kernel lacks a driver that every root needs, when
/// its module index is broken, or when the result is too large.
pub(super) fn build(
    tree: &FileTree,
    kernel: &Kernel,
    agent: &Content,
    source_date: Timestamp,
    packer: &Packer<'_>,
) -> Result<Content, BootError> {
    let archive = archive(tree, kernel, agent, source_date)?;
    let bytes = packer(&archive).map_err(|source| BootError::Compress { source })?;
    let size = bytes.len() as u64;
    if size > SIZE_LIMIT {
        return Err(BootError::InitramfsSize {
            size,
            most: SIZE_LIMIT,
        });
    }
    Ok(Content::from_bytes(bytes))
}

fn archive(
    tree: &FileTree,
    kernel: &Kernel,
    agent: &Content,
    source_date: Timestamp,
) -> Result<Vec<u8>, BootError> {
    let choice = modules::choose(tree, kernel)?;
    let mut archive = Archive::new(u32::try_from(source_date.seconds).unwrap_or(0));
    let agent_path = TreePath::parse(b"init").expect("a plain name");
    archive.file("init", 0o755, &read(agent, &agent_path)?);
    archive.directory("modules");
    for module in &choice.modules {
        let content = tree
            .get(&module.path)
            .and_then(|node| node.content())
            .ok_or_else(|| BootError::ModuleMissing {
                module: module.name.clone(),
                needed: module.path.to_string(),
            })?;
        let name = format!("modules/{}.ko", module.name);
        archive.file(&name, 0o644, &read(content, &module.path)?);
    }
    archive.file("modules/table", 0o644, choice.table.as_bytes());
    Ok(archive.finish())
}

fn read(content: &Content, path: &TreePath) -> Result<Vec<u8>, BootError> {
    content
        .read_all(FILE_LIMIT)
        .map_err(|source| BootError::Read {
            path: path.clone(),
            source,
        })
}
