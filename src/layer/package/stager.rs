//! The files of a package's data archive into its staging folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;

use md5::Digest as _;

use super::archive::{Entry, Unpacked, What, chain, malformed};
use super::control::Control;
use super::filter::PathFilter;
use crate::layer::sandbox::protocol::DebFile;
use crate::layer::sandbox::{Fault, StagedFile, finish_file};
use crate::layer::tar::{Member, MemberKind, MemberReader};
use crate::tree::{Metadata, NodeKind, TreePath};

/// Writes the files of one package into its staging folder.
pub(super) struct Stager<'a> {
    deb: &'a DebFile,
    stage: &'a Path,
    filter: &'a PathFilter,
    conffiles: Vec<TreePath>,
    sums_all: bool,
    buffer: Vec<u8>,
    unpacked: Unpacked,
}

impl<'a> Stager<'a> {
    pub(super) fn new(
        deb: &'a DebFile,
        control: Control,
        stage: &'a Path,
        filter: &'a PathFilter,
    ) -> Self {
        let conffiles = control
            .conffiles()
            .iter()
            .filter_map(|path| TreePath::parse(path.trim_start_matches('/').as_bytes()).ok())
            .collect();
        Self {
            deb,
            stage,
            filter,
            conffiles,
            sums_all: !control.files.contains_key("md5sums"),
            buffer: vec![0; 128 << 10],
            unpacked: Unpacked {
                control,
                is_automatic: deb.is_automatic,
                entries: Vec::new(),
                sums: BTreeMap::new(),
            },
        }
    }

    pub(super) fn take(mut self, stream: &mut dyn Read) -> Result<Unpacked, Fault> {
        let mut named = BTreeSet::new();
        let mut folders = Vec::new();
        let mut members = MemberReader::new(BufReader::with_capacity(128 << 10, stream));
        while let Some(member) = members
            .next_member()
            .map_err(|error| malformed(self.deb, chain(&error)))?
        {
            let path = TreePath::parse(&member.name)
                .map_err(|error| malformed(self.deb, TarErrorAt(&member, &error.to_string())))?;
            if path.is_root() {
                continue;
            }
            // dpkg's lists have a path a line.
            if member.name.contains(&b'\n') {
                let reason = "its name has a line break";
                return Err(malformed(self.deb, TarErrorAt(&member, reason)));
            }
            if member.kind != MemberKind::Directory && !named.insert(path.clone()) {
                let reason = "it is there twice";
                return Err(malformed(self.deb, TarErrorAt(&member, reason)));
            }
            let what = self.what(&path, &member, &mut members)?;
            if member.kind == MemberKind::Directory && matches!(what, What::Excluded) {
                folders.push(self.unpacked.entries.len());
            }
            self.unpacked.entries.push(Entry {
                path,
                meta: metadata(member),
                what,
            });
        }
        self.keep_folders(&folders);
        Ok(self.unpacked)
    }

    /// Brings back folders that the filter left out: those that something
    /// kept lies in, and those at the upper edge of what is left out, where
    /// scripts put links of their own (`/usr/share/man/man1`).
    fn keep_folders(&mut self, left_out: &[usize]) {
        let entries = &mut self.unpacked.entries;
        let mut needed = BTreeSet::new();
        for entry in entries.iter() {
            if matches!(entry.what, What::Excluded) {
                continue;
            }
            let mut parent = entry.path.parent();
            while let Some(path) = parent.filter(|path| !needed.contains(path)) {
                parent = path.parent();
                needed.insert(path);
            }
        }
        for at in left_out {
            let Some(entry) = entries.get_mut(*at) else {
                continue;
            };
            let parent = entry.path.parent().unwrap_or_default();
            if needed.contains(&entry.path) || !self.filter.excludes(&parent) {
                entry.what = What::Directory;
            }
        }
    }

    fn what(
        &mut self,
        path: &TreePath,
        member: &Member,
        content: &mut impl Read,
    ) -> Result<What, Fault> {
        let is_link = matches!(member.kind, MemberKind::Symlink(_));
        if self.filter.excludes(path) && !(is_link && self.filter.may_lead_to_included(path)) {
            return Ok(What::Excluded);
        }
        Ok(match &member.kind {
            MemberKind::Directory => What::Directory,
            MemberKind::Symlink(target) => What::Symlink(target.clone()),
            MemberKind::HardLink(target) => {
                let target = TreePath::parse(target)
                    .map_err(|error| malformed(self.deb, TarErrorAt(member, &error.to_string())))?;
                if let Some(sum) = self.unpacked.sums.get(&target).cloned() {
                    self.unpacked.sums.insert(path.clone(), sum);
                }
                What::HardLink(target)
            }
            MemberKind::File => What::File(self.stage_file(path, member, content)?),
            MemberKind::Fifo => What::Special(NodeKind::Fifo),
            MemberKind::CharDevice { major, minor } => What::Special(NodeKind::CharDevice {
                major: *major,
                minor: *minor,
            }),
            MemberKind::BlockDevice { major, minor } => What::Special(NodeKind::BlockDevice {
                major: *major,
                minor: *minor,
            }),
        })
    }

    fn stage_file(
        &mut self,
        path: &TreePath,
        member: &Member,
        content: &mut impl Read,
    ) -> Result<StagedFile, Fault> {
        let staged = self.stage.join(self.unpacked.entries.len().to_string());
        let failed = |error: io::Error| Fault::system("write", staged.display().to_string(), error);
        let mut file = File::create_new(&staged).map_err(failed)?;
        let mut md5 = (self.sums_all || self.conffiles.contains(path)).then(md5::Md5::new);
        loop {
            let count = content
                .read(&mut self.buffer)
                .map_err(|error| malformed(self.deb, TarErrorAt(member, &error.to_string())))?;
            if count == 0 {
                break;
            }
            let (bytes, _) = self.buffer.split_at(count);
            file.write_all(bytes).map_err(failed)?;
            if let Some(md5) = &mut md5 {
                md5.update(bytes);
            }
        }
        finish_file(&file, &metadata(member.clone())).map_err(|error| failed(error.into()))?;
        if let Some(md5) = md5 {
            let sum: [u8; 16] = md5.finalize().into();
            self.unpacked.sums.insert(path.clone(), hex(&sum));
        }
        Ok(StagedFile { path: staged })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// A message about one member.
struct TarErrorAt<'a>(&'a Member, &'a str);

impl std::fmt::Display for TarErrorAt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = crate::layer::tar::escape_bytes(&self.0.name);
        write!(f, "member `{name}`: {}", self.1)
    }
}

fn metadata(member: Member) -> Metadata {
    Metadata {
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        xattrs: member.xattrs,
    }
}
