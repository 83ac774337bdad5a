//! A folder of another user, with a copy of all that a build reads.
#![expect(
    clippy::disallowed_types,
    reason = "the test starts consign as another user"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{
    TestFolder, appliance, consign_path, is_root, must_run, program, repo_root, skip, temp_folder,
};

/// The user that `ci/install` makes, with subordinate ids.
pub(crate) const USER: &str = "consign-test";
/// A user without any.
pub(crate) const NOBODY: &str = "nobody";

/// Where a build in a checkout leaves the agent.
const AGENT: &str = "target/x86_64-unknown-linux-gnu/firstboot/consign-firstboot";

/// A folder that another user owns: a copy of the sources that a build
/// reads with their lock, the builder and the agent.
pub(crate) struct OtherPlace {
    folder: TestFolder,
    user: &'static str,
}

impl OtherPlace {
    /// `None`, said loudly, where there is no such user or we may not become it.
    pub(crate) fn of(user: &'static str) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let is_known = passwd
            .lines()
            .any(|line| line.split(':').next() == Some(user));
        if !is_root() || !is_known {
            skip(&format!(
                "cannot become {user}: run ci/install and the tests as root"
            ));
            return None;
        }
        // What is copied below: the agent, and the lock.
        appliance::appliance();
        let folder = temp_folder();
        let place = Self { folder, user };
        let source = place.source();
        fs::create_dir(&source).expect("a folder");
        let mut copy = program("cp", "coreutils")?;
        must_run(
            copy.arg("-a")
                .args(
                    ["appliance.toml", "appliance.lock", "layers", AGENT]
                        .map(|name| repo_root().join(name)),
                )
                .arg(consign_path())
                .arg(&source),
        );
        place.give_away()?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.folder.path(), mode).expect("our folder");
        Some(place)
    }

    /// Gives everything in it to its user. `None`, said loudly, without chown.
    pub(crate) fn give_away(&self) -> Option<()> {
        let mut chown = program("chown", "coreutils")?;
        must_run(chown.args(["-R", self.user]).arg(self.folder.path()));
        Some(())
    }

    /// Where the sources are, and where commands run.
    pub(crate) fn source(&self) -> PathBuf {
        self.path("an other place")
    }

    /// A file beside the sources' folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The cache of builds in here.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path(".cache/consign")
    }

    /// A shell command of the user, in surroundings of its own. `variables`
    /// are assignments for its environment.
    pub(crate) fn shell(&self, variables: &[String], command: &str) -> Option<Command> {
        let group = if self.user == NOBODY {
            "nogroup"
        } else {
            self.user
        };
        let mut setpriv = program("setpriv", "util-linux")?;
        setpriv
            .args(["--reuid", self.user, "--regid", group, "--init-groups"])
            .args(["--reset-env", "--", "/usr/bin/env", "-i"])
            .args(["PATH=/usr/bin:/bin", "TZ=Pacific/Chatham", "LC_ALL=C.UTF-8"])
            .arg(format!("HOME={}", self.folder.path().display()))
            .args(variables)
            .args(["sh", "-c", &format!("umask 077; {command}")])
            .current_dir(self.source());
        Some(setpriv)
    }
}

/// Copies a folder with everything in it. `None`, said loudly, without cp.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Option<()> {
    fs::create_dir_all(to.parent().expect("below a folder")).expect("folders");
    let mut copy = program("cp", "coreutils")?;
    must_run(copy.args(["-a", "--reflink=auto"]).arg(from).arg(to));
    Some(())
}
