//! The roles and the policy of an appliance, from the folders of its layers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use consign_schema::describe::{KEYS, Key};
use consign_schema::{Policy, Role, SiteConfig, check, decode};

use super::FactoryError;
use crate::appliance::{Appliance, LayerKind};
use crate::descriptor::Property;
use crate::sign::vendor;
use crate::tree::list_folder;

/// Where a files layer has its roles, from its folder on.
pub(super) const ROLES: &str = "usr/lib/consign/roles";
/// Where a files layer has the vendor's policy.
pub(super) const POLICY: &str = "usr/lib/consign/policy.toml";
/// Where a layer has the vendor's public keys.
const VENDOR: &str = "usr/lib/consign/vendor.pub";
/// What a role is called.
pub(super) const ROLE_FILE: &str = "role.toml";

/// What the appliance offers its sites.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    roles: BTreeMap<String, Role>,
    policy: Policy,
}

impl Shelf {
    /// The roles and the policy of the appliance's files layers; of two with
    /// one name the upper layer's counts, as in the image.
    ///
    /// # Errors
    ///
    /// [`FactoryError::Vendor`] for a role or policy that is wrong,
    /// [`FactoryError::Template`] for one that is not whole.
    pub fn of_appliance(appliance: &Appliance) -> Result<Self, FactoryError> {
        let mut shelf = Self::default();
        let mut signed = Signed::default();
        for layer in &appliance.layers {
            let LayerKind::Files(files) = &layer.kind else {
                continue;
            };
            shelf.add_roles(&files.folder.join(ROLES))?;
            let policy = files.folder.join(POLICY);
            if let Some(text) = read_if_there(&policy)? {
                shelf.policy = Policy::parse(&text).map_err(|problems| FactoryError::Vendor {
                    path: policy.clone(),
                    problems,
                })?;
            }
            signed.take(&files.folder)?;
        }
        signed.check()?;
        Ok(shelf)
    }

    /// The roles of a folder that has one folder for each.
    ///
    /// # Errors
    ///
    /// As [`of_appliance`](Self::of_appliance); [`FactoryError::Read`] when
    /// there is no such folder.
    pub fn of_folder(folder: &Path) -> Result<Self, FactoryError> {
        if !folder.is_dir() {
            let source = std::io::ErrorKind::NotADirectory.into();
            return Err(FactoryError::Read {
                path: folder.to_owned(),
                source,
            });
        }
        let mut shelf = Self::default();
        shelf.add_roles(folder)?;
        Ok(shelf)
    }

    pub(super) fn add(&mut self, role: Role) {
        self.roles.insert(role.name.clone(), role);
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// The vendor's policy.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the policy lets a hypervisor ask for, each with what it means.
    #[must_use]
    pub fn properties(&self) -> Vec<Property> {
        let described = |property: &consign_schema::Property| {
            let path = |key: &&Key| key.path.replace("[]", "") == property.key;
            let help = KEYS.iter().find(path).map_or("", |key| key.help);
            Property {
                name: property.name.clone(),
                label: property.key.clone(),
                description: help.to_owned(),
                kind: property.kind,
            }
        };
        self.policy.properties.iter().map(described).collect()
    }

    /// Judges a site configuration exactly as the agent will; `file` is the
    /// name for messages.
    ///
    /// # Errors
    ///
    /// [`FactoryError::Site`] with every problem.
    pub fn judge(&self, file: &str, bytes: &[u8]) -> Result<SiteConfig, FactoryError> {
        let roles: Vec<Role> = self.roles.values().cloned().collect();
        decode(bytes)
            .and_then(|text| check(text, &roles, &self.policy))
            .map_err(|problems| FactoryError::Site {
                file: file.to_owned(),
                problems,
            })
    }

    /// The same for a file.
    ///
    /// # Errors
    ///
    /// [`FactoryError::Read`] and [`FactoryError::Site`].
    pub fn judge_file(&self, path: &Path) -> Result<SiteConfig, FactoryError> {
        self.judge(&path.display().to_string(), &read_limited(path)?)
    }

    fn add_roles(&mut self, folder: &Path) -> Result<(), FactoryError> {
        if !folder.is_dir() {
            return Ok(());
        }
        let read = |source| FactoryError::Read {
            path: folder.to_owned(),
            source,
        };
        for entry in list_folder(folder).map_err(read)? {
            let path = entry.path.join(ROLE_FILE);
            let Some(text) = read_if_there(&path)? else {
                continue;
            };
            let role =
                Role::parse(&text).map_err(|problems| FactoryError::Vendor { path, problems })?;
            if entry.name.to_str() != Some(role.name.as_str()) {
                return Err(FactoryError::RoleFolder {
                    role: role.name,
                    folder: entry.path,
                });
            }
            check_templates(&role, &entry.path)?;
            self.add(role);
        }
        Ok(())
    }
}

/// The policy with what judges it, each from the uppermost layer that has it.
#[derive(Debug, Default)]
struct Signed {
    keys: Option<Vec<u8>>,
    policy: Option<(PathBuf, Vec<u8>)>,
    signature: Option<Vec<u8>>,
}

impl Signed {
    fn take(&mut self, folder: &Path) -> Result<(), FactoryError> {
        let path = folder.join(POLICY);
        let read = |path: &Path| bytes_if_there(path);
        self.keys = read(&folder.join(VENDOR))?.or(self.keys.take());
        let signature = folder.join(format!("{POLICY}.sig"));
        self.signature = read(&signature)?.or(self.signature.take());
        self.policy = read(&path)?
            .map(|bytes| (path, bytes))
            .or(self.policy.take());
        Ok(())
    }

    fn check(self) -> Result<(), FactoryError> {
        let (Some(keys), Some((path, policy))) = (self.keys, self.policy) else {
            return Ok(());
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let signature = self.signature.map(text);
        vendor::check(&text(keys), "consign-policy", &policy, signature.as_deref())
            .map_err(|source| FactoryError::Signature { path, source })
    }
}

fn check_templates(role: &Role, folder: &Path) -> Result<(), FactoryError> {
    for template in &role.templates {
        let path = folder.join(&template.source);
        if !path.is_file() {
            return Err(FactoryError::Template {
                role: role.name.clone(),
                path,
            });
        }
    }
    Ok(())
}

/// As [`read_limited`]; `None` when it is not there.
fn bytes_if_there(path: &Path) -> Result<Option<Vec<u8>>, FactoryError> {
    match read_limited(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FactoryError::Read { source, .. })
            if matches!(
                source.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A text file of at most the schema's limit; `None` when it is not there.
fn read_if_there(path: &Path) -> Result<Option<String>, FactoryError> {
    let Some(bytes) = bytes_if_there(path)? else {
        return Ok(None);
    };
    let text = decode(&bytes).map(str::to_owned);
    let wrong = |problems| FactoryError::Vendor {
        path: path.to_owned(),
        problems,
    };
    text.map(Some).map_err(wrong)
}

/// The bytes of a file, and of one that is too long just enough to see it.
pub(super) fn read_limited(path: &Path) -> Result<Vec<u8>, FactoryError> {
    let read = |source| FactoryError::Read {
        path: PathBuf::from(path),
        source,
    };
    let limit = consign_schema::MAX_SIZE as u64 + 1;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(read)?;
    file.take(limit).read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}
