//! Where an image's blobs are: files of a folder, or members of an archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::error::OciError;
use super::{Descriptor, MAX_DOCUMENT};
use crate::digest::Digest;
use crate::layer::tar::{MemberKind, MemberReader};
use crate::tree::{Blob, Content};

/// Members of an archive that are kept in mind.
const MAX_MEMBERS: usize = 65_536;

/// Named blobs.
#[derive(Debug)]
pub enum Blobs {
    /// Files below a folder.
    Folder(PathBuf),
    /// Members of an archive, by name.
    Archive(BTreeMap<String, Content>),
}

impl Blobs {
    /// The members of the uncompressed archive in `blob`; `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`OciError`] when it is no tar archive.
    pub fn of_tar(blob: &Arc<Blob>, name: &str) -> Result<Self, OciError> {
        let wrong = |source| OciError::Layer {
            layer: name.to_owned(),
            source: Box::new(source),
        };
        let failed = |source| OciError::read(name, source);
        let mut file: &File = blob.file();
        io::Seek::rewind(&mut file).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut members = MemberReader::new(io::BufReader::with_capacity(64 << 10, file));
        let mut found: BTreeMap<String, Content> = BTreeMap::new();
        while let Some(member) = members.next_member().map_err(wrong)? {
            let path = String::from_utf8_lossy(&member.name);
            let path = path.trim_start_matches("./").to_owned();
            if found.len() >= MAX_MEMBERS {
                return Err(OciError::malformed(name, "it has too many members"));
            }
            let content = match &member.kind {
                MemberKind::File if member.size <= length.saturating_sub(member.offset) => {
                    Content::stored(blob.clone(), member.offset, member.size)
                }
                MemberKind::File => {
                    return Err(OciError::malformed(name, "it ends in the middle"));
                }
                // Older dockers link the layers that several images share.
                MemberKind::HardLink(target) | MemberKind::Symlink(target) => {
                    let target = String::from_utf8_lossy(target);
                    let target = target.trim_start_matches("./").trim_start_matches("../");
                    match found.get(target) {
                        Some(content) => content.clone(),
                        None => continue,
                    }
                }
                _ => continue,
            };
            if found.insert(path.clone(), content).is_some() {
                let reason = format!("it has `{}` twice", path.escape_debug());
                return Err(OciError::malformed(name, reason));
            }
            members.seek_over().map_err(wrong)?;
        }
        Ok(Self::Archive(found))
    }

    /// Whether there is a blob of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Archive(members) => members.contains_key(name),
        }
    }

    /// The blob of this name, unchecked.
    pub(super) fn content(&self, name: &str) -> Result<Content, OciError> {
        match self {
            Self::Archive(members) => {
                let found = members.get(name).cloned();
                found.ok_or_else(|| OciError::Missing { name: name.into() })
            }
            Self::Folder(folder) => {
                let is_plain = |part: &str| !matches!(part, "" | "." | "..");
                if !name.split('/').all(is_plain) {
                    return Err(OciError::Missing { name: name.into() });
                }
                let path = folder.join(name);
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = match rustix::fs::open(&path, flags, Mode::empty()) {
                    Ok(file) => File::from(file),
                    Err(rustix::io::Errno::NOENT) => {
                        return Err(OciError::Missing { name: name.into() });
                    }
                    Err(error) => return Err(OciError::read(name, error.into())),
                };
                let status = file
                    .metadata()
                    .map_err(|source| OciError::read(name, source))?;
                if !status.is_file() {
                    return Err(OciError::malformed(name, "it is not a file"));
                }
                Ok(Content::stored(
                    Blob::from_file(file, &path),
                    0,
                    status.len(),
                ))
            }
        }
    }

    /// All bytes of a blob that is at most `limit` long, unchecked.
    pub(super) fn bytes(&self, name: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        let content = self.content(name)?;
        content
            .read_all(limit)
            .map_err(|source| OciError::read(name, source))
    }

    /// A JSON document that has a name and no digest.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, OciError> {
        let bytes = self.bytes(name, MAX_DOCUMENT)?;
        serde_json::from_slice(&bytes).map_err(|error| OciError::malformed(name, error.to_string()))
    }

    /// The bytes that `digest` names, checked.
    pub(super) fn blob_bytes(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, OciError> {
        let bytes = self.bytes(&format!("blobs/sha256/{}", digest.hex()), limit)?;
        let found = Digest::of(&bytes);
        if found == *digest {
            return Ok(bytes);
        }
        Err(OciError::Digest {
            what: "blob",
            expected: *digest,
            found,
        })
    }

    /// The document that `descriptor` names, its size and digest checked.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let bytes = self.blob_bytes(&descriptor.digest, MAX_DOCUMENT)?;
        if bytes.len() as u64 == descriptor.size {
            return Ok(bytes);
        }
        Err(OciError::Size {
            what: descriptor.digest.to_string(),
            expected: descriptor.size,
            found: bytes.len() as u64,
        })
    }
}
