//! Debian's real archive, as far as the reference appliance reads it, out of
//! the cache of the build that fetched it: signed lists and packages.
#![expect(
    clippy::disallowed_methods,
    reason = "the cache's place is in the environment"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use consign::plan::{LOCK_FILE_NAME, Lock};

use super::{TestFolder, appliance, repo_root, temp_folder};

/// A folder that a web server can serve as a mirror.
pub(crate) struct CachedMirror {
    folder: TestFolder,
    /// Paths of packages below the root of the server.
    pub(crate) packages: Vec<String>,
}

impl CachedMirror {
    /// Of the reference appliance's build, which is made first.
    pub(crate) fn new() -> Self {
        appliance::appliance();
        let mut mirror = Self {
            folder: temp_folder(),
            packages: Vec::new(),
        };
        for (suite, release) in releases(&consign_cache()) {
            mirror.add_suite(&suite, &release);
        }
        let lock = Lock::open(&repo_root().join(LOCK_FILE_NAME)).expect("a sound lock");
        for pin in lock.expect("the build left it").packages() {
            let path = format!("{}/{}", archive_of(&pin.suite), pin.path);
            if mirror.packages.contains(&path) {
                continue;
            }
            let file = format!("debs/{}.deb", pin.sha256.hex());
            mirror.link(&consign_cache().join(file), &path);
            mirror.packages.push(path);
        }
        mirror
    }

    /// The root of the server.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn add_suite(&mut self, suite: &str, release: &Path) {
        let base = format!("{}/dists/{suite}", archive_of(suite));
        self.link(release, &format!("{base}/InRelease"));
        let text = fs::read_to_string(release).expect("a signed list");
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [digest, _, name] = words.as_slice() else {
                continue;
            };
            let list = consign_cache().join(format!("lists/{digest}.zst"));
            if digest.len() == 64 && name.ends_with("/Packages") && list.is_file() {
                let path = self.path().join(format!("{base}/{name}"));
                fs::create_dir_all(path.parent().expect("below")).expect("folders");
                let packed = fs::File::open(&list).expect("a list");
                let mut plain = Vec::new();
                zstd::Decoder::new(packed)
                    .and_then(|mut decoder| decoder.read_to_end(&mut plain))
                    .expect("zstd");
                fs::write(path, plain).expect("a list");
            }
        }
    }

    fn link(&self, file: &Path, name: &str) {
        assert!(file.is_file(), "{} is not there", file.display());
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("folders");
        symlink(file, path).expect("a link");
    }
}

/// The archive of a suite, as Debian splits them.
fn archive_of(suite: &str) -> &'static str {
    if suite.ends_with("-security") {
        "debian-security"
    } else {
        "debian"
    }
}

/// The newest signed list of each suite in the cache.
fn releases(cache: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = consign::tree::list_folder(&cache.join("releases")).expect("signed lists");
    files.sort_by_key(|file| file.metadata.modified().expect("a time"));
    let with_suite = files.into_iter().filter_map(|file| {
        let text = fs::read_to_string(&file.path).ok()?;
        let suite = text
            .lines()
            .find_map(|line| line.strip_prefix("Codename: "))?;
        Some((suite.trim().to_owned(), file.path))
    });
    with_suite.collect()
}

/// The cache that builds of these tests use.
pub(crate) fn consign_cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    base.or_else(home).expect("a home").join("consign")
}
