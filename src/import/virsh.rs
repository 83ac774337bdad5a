//! libvirt, asked through `virsh`, so that any version of it will do.
//!
//! Its words are in the C locale by [`Call`], and tell what kind of failure
//! it was; the codes do not.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::error::ImportError;
use super::finding::NetworkState;
use crate::exec::{Call, ExecError, Tool};

/// A connection.
#[derive(Debug, Clone)]
pub struct Virsh {
    call: Call,
    uri: String,
}

impl Virsh {
    /// Finds virsh and has it connect to `uri`, which must be of this host.
    ///
    /// # Errors
    ///
    /// [`ImportError::LibvirtMissing`], `Remote`, `LibvirtDown`, `LibvirtDenied`.
    pub fn connect(
        uri: &str,
        search_path: &OsStr,
        environment: &[(OsString, OsString)],
    ) -> Result<Self, ImportError> {
        if !is_local(uri) {
            return Err(ImportError::Remote {
                uri: uri.to_owned(),
            });
        }
        let call = Call::find(Tool::Virsh, search_path).map_err(|error| match error {
            ExecError::Missing { .. } => ImportError::LibvirtMissing,
            other => other.into(),
        })?;
        let call = call
            .args(["--quiet", "--connect", uri])
            .envs(environment.iter().cloned());
        let virsh = Self {
            call,
            uri: uri.to_owned(),
        };
        virsh.run(&["uri"], b"").map_err(|failure| {
            let uri = uri.to_owned();
            match failure {
                Failure::Tool(error) => error.into(),
                Failure::Words(words) if is_denial(&words) => {
                    ImportError::LibvirtDenied { uri, words }
                }
                Failure::Words(words) => ImportError::LibvirtDown { uri, words },
            }
        })?;
        Ok(virsh)
    }

    /// The connection's address.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The same, which no Ctrl-C at a terminal ends: for taking steps back.
    pub(super) fn apart(&self) -> Self {
        Self {
            call: self.call.clone().apart(),
            uri: self.uri.clone(),
        }
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Result<String, Failure> {
        match self.call.clone().args(args).run(input) {
            Ok(output) => Ok(String::from_utf8_lossy(&output).into_owned()),
            Err(ExecError::Failed { stderr, .. }) => Err(Failure::Words(last_error(&stderr))),
            Err(error) => Err(Failure::Tool(error)),
        }
    }

    fn do_it(
        &self,
        doing: &'static str,
        name: &str,
        args: &[&str],
        input: &[u8],
    ) -> Result<String, ImportError> {
        self.run(args, input).map_err(|failure| match failure {
            Failure::Tool(error) => error.into(),
            Failure::Words(words) => why(doing, name, words),
        })
    }

    /// The guest's state in libvirt's words; `None` when there is no such guest.
    pub(super) fn state(&self, name: &str) -> Result<Option<String>, ImportError> {
        match self.run(&["domstate", name], b"") {
            Ok(state) => Ok(Some(state.trim().to_owned())),
            Err(Failure::Words(words)) if words.contains("failed to get domain") => Ok(None),
            Err(Failure::Words(words)) => Err(why("look at", name, words)),
            Err(Failure::Tool(error)) => Err(error.into()),
        }
    }

    /// The guest's description as it will be at the next start.
    pub(super) fn description(&self, name: &str) -> Result<String, ImportError> {
        let args = ["dumpxml", "--inactive", "--security-info", name];
        self.do_it("describe", name, &args, b"")
    }

    /// Defines a guest, whose description is held against libvirt's schema.
    pub(super) fn define(&self, name: &str, xml: &str) -> Result<(), ImportError> {
        let args = ["define", "/dev/stdin", "--validate"];
        self.do_it("define", name, &args, xml.as_bytes())?;
        Ok(())
    }

    pub(super) fn start(&self, name: &str) -> Result<(), ImportError> {
        self.do_it("start", name, &["start", name], b"")?;
        Ok(())
    }

    pub(super) fn autostart(&self, name: &str) -> Result<(), ImportError> {
        self.do_it("autostart", name, &["autostart", name], b"")?;
        Ok(())
    }

    /// Whether the guest's memory is kept, to go on from there.
    pub(super) fn is_saved(&self, name: &str) -> Result<bool, ImportError> {
        let info = self.do_it("look at", name, &["dominfo", name], b"")?;
        Ok(field(&info, "Managed save:") == Some("yes"))
    }

    /// Drops what [`Self::is_saved`] tells of.
    pub(super) fn drop_save(&self, name: &str) -> Result<(), ImportError> {
        let args = ["managedsave-remove", name];
        self.do_it("drop what was saved of", name, &args, b"")?;
        Ok(())
    }

    /// Cuts its power.
    pub(super) fn destroy(&self, name: &str) -> Result<(), ImportError> {
        self.do_it("stop", name, &["destroy", name], b"")?;
        Ok(())
    }

    /// Forgets the guest, and removes its firmware's variables.
    pub(super) fn undefine(&self, name: &str) -> Result<(), ImportError> {
        let args = [
            "undefine",
            name,
            "--nvram",
            "--managed-save",
            "--snapshots-metadata",
        ];
        self.do_it("undefine", name, &args, b"")?;
        Ok(())
    }

    /// That a network is there and active.
    pub(super) fn check_network(&self, name: &str) -> Result<(), ImportError> {
        let bad = |state| ImportError::Network {
            name: name.to_owned(),
            state,
        };
        match self.run(&["net-info", name], b"") {
            Ok(text) if field(&text, "Active:") == Some("yes") => Ok(()),
            Ok(_) => Err(bad(NetworkState::Inactive)),
            Err(Failure::Words(_)) => Err(bad(NetworkState::Missing)),
            Err(Failure::Tool(error)) => Err(error.into()),
        }
    }

    /// The folder of a storage pool.
    ///
    /// # Errors
    ///
    /// [`ImportError::Pool`].
    pub fn pool_folder(&self, name: &str) -> Result<PathBuf, ImportError> {
        let no_folder = || ImportError::Pool {
            name: name.to_owned(),
        };
        let xml = match self.run(&["pool-dumpxml", name], b"") {
            Ok(xml) => xml,
            Err(Failure::Words(_)) => return Err(no_folder()),
            Err(Failure::Tool(error)) => return Err(error.into()),
        };
        let pool = super::xml::parse(xml.as_bytes()).map_err(|_| no_folder())?;
        let is_folder = matches!(pool.attribute("type"), Some("dir" | "fs" | "netfs"));
        let path = pool
            .first("target")
            .and_then(|target| target.first("path"))
            .and_then(super::xml::Element::text);
        match path {
            Some(path) if is_folder => Ok(path.into()),
            _ => Err(no_folder()),
        }
    }
}

enum Failure {
    /// virsh said no.
    Words(String),
    /// virsh did not run.
    Tool(ExecError),
}

/// The address has no host: `driver[+transport]:///path`.
fn is_local(uri: &str) -> bool {
    match uri.split_once("://") {
        Some((_, rest)) => rest.starts_with('/'),
        None => true,
    }
}

fn is_denial(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    [
        "permission denied",
        "authentication",
        "access denied",
        "not authorized",
    ]
    .iter()
    .any(|word| words.contains(word))
}

/// What went wrong, told by libvirt's words where it is one of the usual things.
fn why(doing: &'static str, name: &str, words: String) -> ImportError {
    if words.contains("already exists") || words.contains("already defined") {
        return ImportError::NameTaken {
            name: name.to_owned(),
        };
    }
    // QEMU: "could not load PC BIOS 'bios-256k.bin'".
    if words.contains("could not load PC BIOS") {
        return ImportError::NoFirmware {
            wanted: "BIOS".into(),
            found: "UEFI".into(),
        };
    }
    if words.contains("Unable to find any firmware") || words.contains("Unable to find 'efi'") {
        return ImportError::NoFirmware {
            wanted: "UEFI".into(),
            found: "BIOS".into(),
        };
    }
    ImportError::Libvirt {
        doing,
        name: name.to_owned(),
        words,
    }
}

/// virsh repeats itself: the last line with `error:` is the reason.
fn last_error(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let reasons: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("error: "))
        .collect();
    if reasons.is_empty() {
        lines.join("; ")
    } else {
        reasons.join("; ")
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_is_told_by_its_name() {
        for uri in [
            "qemu:///system",
            "qemu+unix:///system?socket=/x",
            "xen:///system",
        ] {
            assert!(is_local(uri), "{uri}");
        }
        for uri in ["qemu+ssh://host/system", "qemu://host/system", "xen://h"] {
            assert!(!is_local(uri), "{uri}");
        }
    }

    #[test]
    fn usual_failures_have_names_of_their_own() {
        let slug = |words: &str| why("start", "x", words.into()).slug();
        assert_eq!(
            slug("operation failed: domain 'x' already exists with uuid 1"),
            "import-name-taken"
        );
        assert_eq!(
            slug("qemu unexpectedly closed the monitor: could not load PC BIOS 'bios-256k.bin'"),
            "import-no-firmware"
        );
        assert_eq!(slug("internal error"), "libvirt-failed");
        assert!(is_denial(
            "Failed to connect socket to '/x': Permission denied"
        ));
        assert!(!is_denial(
            "Failed to connect socket to '/x': No such file or directory"
        ));
    }

    #[test]
    fn only_reasons_are_quoted() {
        let stderr = "error: Failed to start domain 'x'\nerror: no network\n";
        assert_eq!(last_error(stderr), "Failed to start domain 'x'; no network");
        assert_eq!(last_error("segmentation fault"), "segmentation fault");
    }
}
