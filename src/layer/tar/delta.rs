//! From a layer's tar stream to the change that it makes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::sync::Arc;

use super::{Member, MemberKind, MemberReader, OPAQUE, TarError, TarFault, WHITEOUT, escape_bytes};
use crate::tree::{Blob, Content, Metadata, Node, NodeKind, TreeDelta, TreePath};

/// Reads the change out of the uncompressed tar in `blob`. Contents stay
/// where they are: they are given as places in `blob`.
///
/// # Errors
///
/// [`TarError`]: malformed archives, paths that leave the image, duplicates,
/// whiteouts of nothing, links that cannot be.
pub fn read_delta(blob: &Arc<Blob>) -> Result<TreeDelta, TarError> {
    let broken = |error| TarError {
        member: String::new(),
        offset: 0,
        fault: TarFault::Read(error),
    };
    let mut file: &File = blob.file();
    file.rewind().map_err(broken)?;
    let length = file.metadata().map_err(broken)?.len();
    let mut reader = MemberReader::new(BufReader::with_capacity(64 << 10, file));
    let mut sink = DeltaBuilder::default();
    while let Some(member) = reader.next_member()? {
        let wrong = |fault| TarError {
            member: escape_bytes(&member.name),
            offset: member.offset,
            fault,
        };
        if member.size > length.saturating_sub(member.offset) {
            return Err(wrong(TarFault::Truncated));
        }
        sink.take(&member, blob).map_err(wrong)?;
        reader.seek_over()?;
    }
    Ok(sink.delta)
}

struct DeltaBuilder {
    delta: TreeDelta,
    named: BTreeSet<TreePath>,
}

impl Default for DeltaBuilder {
    fn default() -> Self {
        Self {
            delta: TreeDelta::new(),
            named: BTreeSet::new(),
        }
    }
}

impl DeltaBuilder {
    fn take(&mut self, member: &Member, blob: &Arc<Blob>) -> Result<(), TarFault> {
        let path = TreePath::parse(&member.name).map_err(TarFault::Path)?;
        if let Some(name) = path.name().filter(|name| name.starts_with(WHITEOUT)) {
            let parent = path.parent().unwrap_or_default();
            return self.whiteout(member, &parent, name);
        }
        let kind = match &member.kind {
            MemberKind::HardLink(target) => return self.hard_link(path, target),
            MemberKind::File => {
                NodeKind::File(Content::stored(blob.clone(), member.offset, member.size))
            }
            MemberKind::Directory => NodeKind::Directory,
            MemberKind::Symlink(target) => NodeKind::Symlink(target.clone()),
            MemberKind::CharDevice { major, minor } => NodeKind::CharDevice {
                major: *major,
                minor: *minor,
            },
            MemberKind::BlockDevice { major, minor } => NodeKind::BlockDevice {
                major: *major,
                minor: *minor,
            },
            MemberKind::Fifo => NodeKind::Fifo,
        };
        let node = Node {
            meta: Metadata {
                mode: member.mode,
                uid: member.uid,
                gid: member.gid,
                mtime: member.mtime,
                xattrs: member.xattrs.clone(),
            },
            kind,
        };
        self.claim(&path, node.is_directory())?;
        self.delta.put(path, node).map_err(TarFault::Tree)?;
        Ok(())
    }

    fn hard_link(&mut self, path: TreePath, target: &[u8]) -> Result<(), TarFault> {
        let target = TreePath::parse(target).map_err(TarFault::LinkPath)?;
        if target == path {
            return Err(TarFault::SelfLink);
        }
        self.claim(&path, false)?;
        if self.named.contains(&target) && self.delta.tree.get(&target).is_some() {
            self.delta.put_link(path, &target).map_err(TarFault::Tree)?;
        } else {
            self.delta.links.insert(path, target);
        }
        Ok(())
    }

    fn whiteout(
        &mut self,
        member: &Member,
        parent: &TreePath,
        name: &[u8],
    ) -> Result<(), TarFault> {
        if member.kind != MemberKind::File || member.size != 0 {
            return Err(TarFault::Whiteout);
        }
        if name == OPAQUE {
            if !self.delta.opaque.insert(parent.clone()) {
                return Err(TarFault::Duplicate);
            }
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        // `.wh..wh.` is reserved: AUFS keeps its own books under such names.
        if hidden.starts_with(WHITEOUT) {
            return Err(TarFault::Whiteout);
        }
        let path = parent.join(hidden).ok_or(TarFault::Whiteout)?;
        if !self.delta.removed.insert(path) {
            return Err(TarFault::Duplicate);
        }
        Ok(())
    }

    /// Notes that the archive names `path`, once. What is not a directory
    /// cannot stand where earlier members lie below.
    fn claim(&mut self, path: &TreePath, is_directory: bool) -> Result<(), TarFault> {
        if !self.named.insert(path.clone()) {
            return Err(TarFault::Duplicate);
        }
        if !is_directory && (path.is_root() || self.delta.tree.get(path).is_some()) {
            return Err(TarFault::Duplicate);
        }
        Ok(())
    }
}
