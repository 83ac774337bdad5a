//! The config disk: a small volume that carries one site configuration. FAT
//! where the appliance may write its report back, a CD where media are
//! read-only.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use consign_schema::{Facts, SiteConfig};

use super::FactoryError;
use super::beside::Beside;
use super::roles::{Shelf, read_limited};
use crate::artifact::{PendingFile, is_same_file};
use crate::digest::{Digest, derive_guid};
use crate::fs::fat::{FatKind, FatOptions, FatVolume, preallocated};
use crate::fs::iso9660::{IsoOptions, IsoVolume};
use crate::sparse::SparseSource;
use crate::tree::{Content, FileTree, Node, TreePath};
use crate::units::{ByteSize, KIB, MIB, Timestamp};

/// What the agent looks for.
const LABEL: &str = "VACONFIG";
/// Room for certificates, a licence and a small payload; the size that the
/// descriptor names.
const SIZE: ByteSize = ByteSize::from_mib(16);
/// The earliest time that FAT can say: 1980-01-01.
const EPOCH: Timestamp = Timestamp::from_seconds(315_532_800);
/// Files that the agent overwrites in place, their sizes, and what they are
/// full of until then: blank lines, an empty archive.
const RESERVED: [(&str, ByteSize, u8); 3] = [
    ("report.json", ByteSize::from_bytes(64 * KIB), b'\n'),
    ("request.toml", ByteSize::from_bytes(16 * KIB), b'\n'),
    ("support.tar", ByteSize::from_bytes(1024 * KIB), 0),
];

/// What a config disk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConfigMedia {
    /// A FAT volume, with room for the appliance's report and request.
    #[default]
    Fat,
    /// An ISO 9660 volume with Joliet names: a CD, which nobody writes to.
    Iso,
}

/// A config disk that was made.
#[derive(Debug)]
pub struct ConfigDisk {
    /// What it says.
    pub site: SiteConfig,
    /// Its length.
    pub size: ByteSize,
    /// Digest of the site configuration, whose first 8 hex digits the
    /// appliance shows as `cfg=`.
    pub digest: Digest,
}

/// Judges `site` and writes it to a config disk `output`, whole or not at
/// all. The same file gives the same bytes anywhere, at any time.
///
/// # Errors
///
/// [`FactoryError`].
pub fn config_disk(
    shelf: &Shelf,
    site: &Path,
    media: ConfigMedia,
    beside: &Beside<'_>,
    output: &Path,
) -> Result<ConfigDisk, FactoryError> {
    let files = [beside.licenses, beside.payload].concat();
    let inputs = [Some(site), beside.secrets].into_iter().flatten();
    let mut inputs = inputs.chain(files.iter().map(PathBuf::as_path));
    if let Some(path) = inputs.find(|input| is_same_file(input, output)) {
        let path = path.to_owned();
        return Err(FactoryError::Overwrites { path });
    }
    let bytes = read_limited(site)?;
    let file = site.display().to_string();
    let checked = shelf.judge(&file, &bytes)?;
    let digest = Digest::of(&bytes);
    let mut files = beside.files(&bytes, &checked)?;
    let facts = Facts {
        files: Some(files.keys().cloned().collect()),
        ..Facts::default()
    };
    let problems = checked.check_against(&facts);
    if !problems.is_empty() {
        return Err(FactoryError::Site { file, problems });
    }
    files.insert("site.toml".into(), Content::from_bytes(bytes));
    let volume: Box<dyn SparseSource> = match media {
        ConfigMedia::Fat => Box::new(fat_volume(&files, &digest)?),
        ConfigMedia::Iso => Box::new(iso_volume(&files)?),
    };
    let write = |source| FactoryError::Write {
        path: output.to_owned(),
        source,
    };
    let mut pending = PendingFile::create(output).map_err(write)?;
    let mut buffer = vec![0; usize::try_from(256 * KIB).expect("256 KiB fits")];
    let mut at = 0;
    while at < volume.size().bytes() {
        let left = usize::try_from(volume.size().bytes() - at).unwrap_or(usize::MAX);
        let part = left.min(buffer.len());
        let part = &mut buffer[..part];
        volume.read_exact_at(part, at).map_err(write)?;
        pending.file_mut().write_all(part).map_err(write)?;
        at += part.len() as u64;
    }
    pending.commit().map_err(write)?;
    Ok(ConfigDisk {
        site: checked,
        size: volume.size(),
        digest,
    })
}

fn path(name: &str) -> TreePath {
    TreePath::parse(name.as_bytes()).expect("a constant name")
}

fn put(tree: &mut FileTree, name: &str, node: Node) {
    tree.insert(path(name), node)
        .expect("files of an empty root");
}

/// The files that are asked for, in their folders.
fn site_tree(files: &BTreeMap<String, Content>) -> FileTree {
    let mut tree = FileTree::new();
    for (name, content) in files {
        if let Some((folder, _)) = name.split_once('/')
            && tree.get(&path(folder)).is_none()
        {
            put(&mut tree, folder, Node::directory(0o755));
        }
        put(&mut tree, name, Node::file(0o644, content.clone()));
    }
    tree
}

fn iso_volume(files: &BTreeMap<String, Content>) -> Result<IsoVolume, FactoryError> {
    let options = IsoOptions {
        label: LABEL.parse()?,
        source_date: EPOCH,
    };
    Ok(IsoVolume::new(&site_tree(files), &options)?)
}

/// Whole MiB with room for the files, their tables and folders.
fn room(files: &BTreeMap<String, Content>) -> ByteSize {
    let bytes: u64 = files.values().map(Content::size).sum();
    let whole = (bytes + bytes / 64).div_ceil(MIB) + 4;
    ByteSize::from_mib(whole).max(SIZE)
}

fn fat_volume(
    files: &BTreeMap<String, Content>,
    digest: &Digest,
) -> Result<FatVolume, FactoryError> {
    let mut tree = site_tree(files);
    for (name, size, fill) in RESERVED {
        let node = preallocated(&path(name), size, fill)?;
        put(&mut tree, name, node);
    }
    let options = FatOptions {
        size: room(files),
        kind: FatKind::Auto,
        volume_id: derive_guid(digest, "config-disk").short(),
        label: LABEL.parse()?,
        source_date: EPOCH,
    };
    Ok(FatVolume::new(&tree, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n[system]\nhostname = \"a\"\n";

    #[test]
    fn the_same_site_gives_the_same_disk() {
        let folder = tempfile::tempdir().expect("folder");
        let site = folder.path().join("site.toml");
        std::fs::write(&site, SITE).expect("write");
        for (media, size) in [(ConfigMedia::Fat, SIZE.bytes()), (ConfigMedia::Iso, 53_248)] {
            let disks = ["one.img", "two.img"].map(|name| {
                let output = folder.path().join(name);
                config_disk(&Shelf::default(), &site, media, &Beside::default(), &output)
                    .expect("a good site");
                std::fs::read(output).expect("read")
            });
            assert_eq!(disks[0].len() as u64, size);
            let [one, two] = &disks;
            assert_eq!(one, two);
        }
    }

    #[test]
    fn a_wrong_site_leaves_no_disk() {
        let folder = tempfile::tempdir().expect("folder");
        let (site, output) = (
            folder.path().join("site.toml"),
            folder.path().join("site.img"),
        );
        std::fs::write(&site, SITE.replace("hostname", "hostnam")).expect("write");
        let error = config_disk(
            &Shelf::default(),
            &site,
            ConfigMedia::Fat,
            &Beside::default(),
            &output,
        )
        .expect_err("wrong");
        assert_eq!(error.slug(), "site-invalid");
        assert!(!output.exists());
    }
}
