//! Who runs the guest: libvirt, or QEMU alone.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::domain::NAMESPACE;
use super::error::ImportError;
use super::plan::Plan;
use super::qemu;
use super::run::named_networks;
use super::virsh::Virsh;
use super::wishes::{Network, Virt};
use super::xml::Element;
use crate::exec::{Call, Tool, escape};
use crate::machine::kvm::{self, Accelerator, Probe};
use crate::report::Reporter;

/// Who runs the guest.
#[derive(Debug)]
pub enum Host {
    /// libvirt.
    Libvirt {
        /// The connection.
        virsh: Virsh,
        /// Where programs are looked for.
        search_path: OsString,
    },
    /// QEMU alone.
    Plain {
        /// QEMU.
        call: Call,
        /// Where programs are looked for.
        search_path: OsString,
    },
}

impl Host {
    /// QEMU alone.
    ///
    /// # Errors
    ///
    /// [`ImportError::Tool`] when there is none.
    pub fn plain(search_path: &OsStr) -> Result<Self, ImportError> {
        Ok(Self::Plain {
            call: Call::find(Tool::QemuX86, search_path)?,
            search_path: search_path.to_owned(),
        })
    }

    /// The libvirt at `uri`.
    ///
    /// # Errors
    ///
    /// As [`Virsh::connect`].
    pub fn libvirt(
        uri: &str,
        search_path: &OsStr,
        environment: &[(OsString, OsString)],
    ) -> Result<Self, ImportError> {
        Ok(Self::Libvirt {
            virsh: Virsh::connect(uri, search_path, environment)?,
            search_path: search_path.to_owned(),
        })
    }

    /// The connection; `None` for QEMU alone.
    #[must_use]
    pub fn uri(&self) -> Option<&str> {
        match self {
            Self::Libvirt { virsh, .. } => Some(virsh.uri()),
            Self::Plain { .. } => None,
        }
    }

    /// The same, with programs that no Ctrl-C at a terminal ends: for taking
    /// steps back.
    pub(super) fn apart(&self) -> Self {
        let search_path = self.search_path().to_owned();
        match self {
            Self::Libvirt { virsh, .. } => Self::Libvirt {
                virsh: virsh.apart(),
                search_path,
            },
            Self::Plain { call, .. } => Self::Plain {
                call: call.clone().apart(),
                search_path,
            },
        }
    }

    fn search_path(&self) -> &OsStr {
        match self {
            Self::Libvirt { search_path, .. } | Self::Plain { search_path, .. } => search_path,
        }
    }

    pub(super) fn qemu_img(&self) -> Result<Call, ImportError> {
        Ok(Call::find(Tool::QemuImg, self.search_path())?)
    }

    /// That the networks of the plan are there.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), ImportError> {
        if let Self::Libvirt { virsh, .. } = self {
            for name in named_networks(plan) {
                virsh.check_network(name)?;
            }
        }
        let bridge = plan.nics.iter().find_map(|nic| match &nic.network {
            Network::Bridge(name) if !is_bridge(name) => Some(name),
            _ => None,
        });
        match bridge {
            Some(name) => Err(ImportError::Bridge { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// What will run the guest. `auto` says why when it is not KVM.
    pub(super) fn accelerator(
        &self,
        virt: Virt,
        reporter: &dyn Reporter,
    ) -> Result<Accelerator, ImportError> {
        accelerator(virt, self.search_path(), reporter)
    }

    /// The guest's state; `None` when there is none that this host knows.
    pub(super) fn state(&self, name: &str) -> Result<Option<String>, ImportError> {
        match self {
            Self::Libvirt { virsh, .. } => virsh.state(name),
            Self::Plain { .. } => Ok(None),
        }
    }

    pub(super) fn is_running(&self, name: &str, folder: &Path) -> Result<bool, ImportError> {
        match self {
            Self::Libvirt { virsh, .. } => {
                let state = virsh.state(name)?;
                Ok(state.is_some_and(|state| !state.starts_with("shut off")))
            }
            Self::Plain { .. } => Ok(qemu::control(folder).is_some()),
        }
    }

    /// Whether the guest's memory is saved, to go on with its disks as they are.
    pub(super) fn is_saved(&self, name: &str) -> Result<bool, ImportError> {
        match self {
            Self::Libvirt { virsh, .. } if virsh.state(name)?.is_some() => virsh.is_saved(name),
            _ => Ok(false),
        }
    }

    /// Refuses a guest that is not off, in memory or on disk; says whether it
    /// runs where that may be ended.
    pub(super) fn check_off(
        &self,
        name: &str,
        folder: &Path,
        force: bool,
    ) -> Result<bool, ImportError> {
        let name = || name.to_owned();
        let is_running = self.is_running(&name(), folder)?;
        match () {
            () if force => Ok(is_running),
            () if is_running => Err(ImportError::Running { name: name() }),
            () if self.is_saved(&name())? => Err(ImportError::Saved { name: name() }),
            () => Ok(false),
        }
    }

    /// Drops what was saved of the guest, if anything, and says so.
    pub(super) fn drop_save(&self, name: &str, reporter: &dyn Reporter) -> Result<(), ImportError> {
        if let Self::Libvirt { virsh, .. } = self
            && self.is_saved(name)?
        {
            virsh.drop_save(name)?;
            reporter.warn(
                format!(
                    "what was saved of `{}` was dropped: it fits the old disks only",
                    escape(name)
                ),
                None,
            );
        }
        Ok(())
    }

    /// Cuts the power of a guest that runs.
    pub(super) fn cut_power(&self, name: &str, folder: &Path) -> Result<(), ImportError> {
        if !self.is_running(name, folder)? {
            return Ok(());
        }
        match self {
            Self::Libvirt { virsh, .. } => virsh.destroy(name),
            Self::Plain { .. } => qemu::cut_power(folder),
        }
    }

    /// Where the guest's files are: what its own description says, else `usual`.
    pub(super) fn folder_of(&self, name: &str, usual: &Path) -> Result<PathBuf, ImportError> {
        let Self::Libvirt { virsh, .. } = self else {
            return Ok(usual.to_owned());
        };
        if virsh.state(name)?.is_none() {
            return Ok(usual.to_owned());
        }
        let xml = virsh.description(name)?;
        Ok(recorded_folder(&xml, name).unwrap_or_else(|| usual.to_owned()))
    }
}

/// The folder that an import wrote into the description of this guest. A copy
/// under another name carries the words along, and none of the files are its own.
fn recorded_folder(xml: &str, name: &str) -> Option<PathBuf> {
    let domain = super::xml::parse(xml.as_bytes()).ok()?;
    let metadata = domain.first("metadata")?;
    let import: &Element = metadata.all_of(Some(NAMESPACE), "import").next()?;
    let folder = PathBuf::from(import.attribute("folder")?);
    let is_its_own = import.attribute("name") == Some(name);
    (is_its_own && folder.is_absolute()).then_some(folder)
}

fn is_bridge(name: &str) -> bool {
    let folder = Path::new("/sys/class/net").join(name).join("bridge");
    !name.contains('/') && folder.is_dir()
}

/// What will run a guest on this host.
///
/// # Errors
///
/// [`ImportError::Kvm`] where KVM was demanded.
pub fn accelerator(
    virt: Virt,
    search_path: &OsStr,
    reporter: &dyn Reporter,
) -> Result<Accelerator, ImportError> {
    if virt == Virt::Qemu {
        return Ok(Accelerator::Tcg);
    }
    let reason = match Call::find(Tool::QemuX86, search_path) {
        Ok(qemu) => match kvm::probe(&qemu)? {
            Probe::Works => return Ok(Accelerator::Kvm),
            Probe::Broken(reason) => reason,
        },
        Err(error) => error.to_string(),
    };
    if virt == Virt::Kvm {
        return Err(ImportError::Kvm { reason });
    }
    reporter.warn(
        format!(
            "KVM does not work here ({}); the guest is emulated and slow",
            escape(&reason)
        ),
        Some("run on a machine with KVM, as a user who may open /dev/kvm"),
    );
    Ok(Accelerator::Tcg)
}
