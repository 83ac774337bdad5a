//! From a layer's tar stream to the change that it makes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::sync::Arc;

use super::{
    End, Member, MemberKind, MemberReader, OPAQUE, TarError, TarFault, WHITEOUT, escape_bytes,
    holes,
};
use crate::layer::package::PathFilter;
use crate::tree::{Blob, Metadata, Node, NodeKind, PathError, TreeDelta, TreePath};

/// Reads the change out of the uncompressed tar in `blob`. Contents stay
/// where they are: they are given as places in `blob`.
///
/// # Errors
///
/// [`TarError`]: malformed archives, paths that leave the image, duplicates,
/// whiteouts of nothing, links that cannot be.
pub fn read_delta(blob: &Arc<Blob>) -> Result<TreeDelta, TarError> {
    read_selected(blob, &Selection::default(), Form::Strict)
}

/// How strictly an archive is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// To the letter.
    Strict,
    /// As builders of images write it, and its digest vouches for it: names
    /// may begin with a slash, and the end need not be marked.
    Image,
}

/// Which members of an archive count, and where they land.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Leading components that are dropped from each name; members with no
    /// more than these are passed over.
    pub strip: usize,
    /// The directory of the image that the archive is laid into.
    pub into: TreePath,
    /// Patterns of paths of the image that are left out, as dpkg's
    /// `path-exclude`: `*` matches slashes too.
    pub exclude: Vec<String>,
}

impl Selection {
    /// Where a member with this name lands; `None` for one that is passed over.
    fn place(&self, name: &[u8], filter: &PathFilter) -> Result<Option<TreePath>, PathError> {
        let path = TreePath::parse(name)?;
        if self.strip == 0 && self.into.is_root() {
            return Ok((!filter.excludes(&path)).then_some(path));
        }
        let mut place = self.into.clone();
        let mut components = path.components();
        for _ in 0..self.strip {
            components.next();
        }
        let mut is_inside = self.strip == 0;
        for component in components {
            is_inside = true;
            place = place.join(component).ok_or(PathError::Dots)?;
        }
        Ok((is_inside && !filter.excludes(&place)).then_some(place))
    }
}

/// The same of the members that `selection` takes.
///
/// # Errors
///
/// As [`read_delta`].
pub fn read_selected(
    blob: &Arc<Blob>,
    selection: &Selection,
    form: Form,
) -> Result<TreeDelta, TarError> {
    let broken = |error| TarError {
        member: String::new(),
        offset: 0,
        fault: TarFault::Read(error),
    };
    let mut file: &File = blob.file();
    file.rewind().map_err(broken)?;
    let length = file.metadata().map_err(broken)?.len();
    let mut reader = MemberReader::new(BufReader::with_capacity(64 << 10, file));
    if form == Form::Image {
        reader = reader.ending(End::Anywhere);
    }
    let mut sink = DeltaBuilder::new(selection, form);
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

struct DeltaBuilder<'a> {
    selection: &'a Selection,
    form: Form,
    filter: PathFilter,
    delta: TreeDelta,
    named: BTreeSet<TreePath>,
}

impl<'a> DeltaBuilder<'a> {
    fn new(selection: &'a Selection, form: Form) -> Self {
        Self {
            selection,
            form,
            filter: PathFilter::new(&selection.exclude, &[]),
            delta: TreeDelta::new(),
            named: BTreeSet::new(),
        }
    }

    fn place(&self, name: &[u8]) -> Result<Option<TreePath>, PathError> {
        let mut name = name;
        while let (Form::Image, Some(rest)) = (self.form, name.strip_prefix(b"/")) {
            name = rest;
        }
        self.selection.place(name, &self.filter)
    }

    fn take(&mut self, member: &Member, blob: &Arc<Blob>) -> Result<(), TarFault> {
        let Some(path) = self.place(&member.name).map_err(TarFault::Path)? else {
            return Ok(());
        };
        let parent = path.parent().unwrap_or_default();
        // The names are reserved: as a folder it would hide something when the
        // layer is written and read again.
        let is_reserved = |name: &[u8]| name.starts_with(WHITEOUT);
        if parent.components().any(is_reserved) {
            return Err(TarFault::Whiteout);
        }
        if let Some(name) = path.name().filter(|name| is_reserved(name)) {
            return self.whiteout(member, &parent, name);
        }
        let kind = match &member.kind {
            MemberKind::HardLink(target) => return self.hard_link(path, target),
            MemberKind::File => {
                let content = holes::content(blob, member.offset, member.size);
                NodeKind::File(content.map_err(TarFault::Read)?)
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
        let place = self.place(target).map_err(TarFault::LinkPath)?;
        let target = place.ok_or(TarFault::LinkToNothing)?;
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
            // It would hide every layer below: no image means that.
            if parent.is_root() {
                return Err(TarFault::Whiteout);
            }
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
