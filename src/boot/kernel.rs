//! The kernel in the tree: which one, and what may be left out of it.

use super::error::BootError;
use crate::tree::{Content, FileTree, TreePath};

/// The one kernel of a tree.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// `6.1.0-37-amd64`.
    pub(super) version: String,
    /// The bootable image, signed by Debian.
    pub(super) image: Content,
    /// `usr/lib/modules/VERSION`.
    pub(super) modules: TreePath,
}

impl Kernel {
    /// Finds the one kernel of `tree`.
    ///
    /// # Errors
    ///
    /// [`BootError::NoKernel`], [`BootError::SeveralKernels`], [`BootError::NoModules`].
    pub(super) fn find(tree: &FileTree) -> Result<Self, BootError> {
        let boot = path("boot");
        let mut found: Vec<(String, Content)> = Vec::new();
        for (entry, _, node) in tree.subtree(&boot) {
            let name = entry.name().and_then(|name| std::str::from_utf8(name).ok());
            let version = name.and_then(|name| name.strip_prefix("vmlinuz-"));
            if let (Some(version), Some(content)) = (version, node.content())
                && entry.parent().as_ref() == Some(&boot)
            {
                found.push((version.to_owned(), content.clone()));
            }
        }
        if found.len() > 1 {
            let versions = found.into_iter().map(|(version, _)| version).collect();
            return Err(BootError::SeveralKernels { versions });
        }
        let (version, image) = found.pop().ok_or(BootError::NoKernel)?;
        let modules = path(&format!("usr/lib/modules/{version}"));
        if tree.get(&modules).is_none() {
            return Err(BootError::NoModules {
                version,
                path: modules,
            });
        }
        Ok(Self {
            version,
            image,
            modules,
        })
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a relative path without dots")
}
