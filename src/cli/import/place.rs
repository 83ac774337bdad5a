//! Where guests go: the connection, and the folder of their files.

use std::path::{Path, PathBuf, absolute};

use super::PlaceArgs;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::error::Error;
use crate::exec::{Call, Tool};
use crate::import::virsh::Virsh;
use crate::import::wishes::Network;
use crate::import::{Host, ImportError};

/// Where a system's libvirt keeps disks.
const SYSTEM_STORAGE: &str = "/var/lib/libvirt/images";

/// Where guests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Connection {
    Libvirt(String),
    Plain,
}

impl Connection {
    /// The one that was named; else the user's usual one; else, where virsh
    /// is not installed, QEMU alone.
    pub(super) fn choose(place: &PlaceArgs, environment: &Environment) -> Self {
        match place.connect.as_deref() {
            Some("none") => Self::Plain,
            Some(uri) => Self::Libvirt(uri.to_owned()),
            None => match &environment.libvirt {
                Some(uri) => Self::Libvirt(uri.clone()),
                None if Call::find(Tool::Virsh, &environment.search_path).is_err() => Self::Plain,
                None if rustix::process::geteuid().is_root() => {
                    Self::Libvirt("qemu:///system".into())
                }
                None => Self::Libvirt("qemu:///session".into()),
            },
        }
    }

    pub(super) fn uri(&self) -> Option<&str> {
        match self {
            Self::Libvirt(uri) => Some(uri),
            Self::Plain => None,
        }
    }

    pub(super) fn is_system(&self) -> bool {
        self.uri().is_some_and(|uri| uri.contains("/system"))
    }

    /// A user's own libvirt has no networks.
    pub(super) fn default_network(&self) -> Network {
        if self.is_system() {
            Network::Named("default".into())
        } else {
            Network::User
        }
    }

    pub(super) fn open(&self, environment: &Environment) -> Result<Host, ImportError> {
        match self {
            Self::Libvirt(uri) => {
                Host::libvirt(uri, &environment.search_path, &environment.for_virsh)
            }
            Self::Plain => Host::plain(&environment.search_path),
        }
    }
}

impl PlaceArgs {
    pub(super) fn storage(
        &self,
        connection: &Connection,
        environment: &Environment,
    ) -> Result<PathBuf, Error> {
        let pool = self
            .storage
            .as_deref()
            .and_then(Path::to_str)
            .and_then(|text| text.strip_prefix("pool="));
        let folder = match (pool, &self.storage, connection.uri()) {
            (Some(pool), _, Some(uri)) => {
                Virsh::connect(uri, &environment.search_path, &environment.for_virsh)?
                    .pool_folder(pool)?
            }
            (_, Some(folder), _) => folder.clone(),
            (_, None, _) if connection.is_system() => SYSTEM_STORAGE.into(),
            (_, None, _) => environment
                .user_data
                .as_ref()
                .ok_or(CliError::NoCache)?
                .join("consign/guests"),
        };
        absolute(&folder)
            .map_err(|source| ImportError::Folder {
                path: folder,
                source,
            })
            .map_err(Error::from)
    }
}
