//! What the image brings: its name, the vendor's policy, the roles.

use std::collections::BTreeMap;
use std::io;

use consign_schema::{Code, MAX_SIZE, Policy, Problem, Role, decode};

use crate::bundle::VENDOR;
use crate::root::Root;
use crate::text;
use crate::trust::{self, Key};

/// Facts that the builder wrote.
const FACTS: &str = "/usr/lib/consign/image.toml";
/// The vendor's policy; without one, a site may set everything.
const POLICY: &str = "/usr/lib/consign/policy.toml";
/// One folder for each role, with `role.toml` and the templates.
pub const ROLES: &str = "/usr/lib/consign/roles";

/// Name, version and build of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The appliance's name.
    pub name: String,
    /// The vendor's version.
    pub version: String,
    /// What tells this build from every other.
    pub build: String,
}

/// The roles and limits that the vendor built in.
#[derive(Debug, Clone, Default)]
pub struct Vendor {
    /// What a site may set.
    pub policy: Policy,
    /// The roles, sorted by name.
    pub roles: Vec<Role>,
}

/// A file of the image is wrong: the vendor's fault, found at the customer's.
#[derive(Debug)]
pub struct VendorFault {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl Image {
    /// Reads the builder's facts; empty where they are missing.
    pub fn load(root: &Root) -> Self {
        let text = root.read_text(FACTS, MAX_SIZE).unwrap_or_default();
        let Some(table) = text::parse(&text) else {
            return Self::default();
        };
        let field = |key| text::string(&table, key).unwrap_or_default();
        Self {
            name: field("name"),
            version: field("version"),
            build: field("build"),
        }
    }
}

impl Vendor {
    /// Reads policy and roles.
    ///
    /// # Errors
    ///
    /// The first file that is not what it should be.
    pub fn load(root: &Root) -> Result<Self, VendorFault> {
        let policy = match read(root, POLICY)? {
            Some(text) => {
                authenticate(root, &text)?;
                Policy::parse(&text).map_err(|problems| fault(POLICY, problems))?
            }
            None => Policy::default(),
        };
        let mut roles = Vec::new();
        for name in root.list(ROLES).unwrap_or_default() {
            let file = format!("{ROLES}/{name}/role.toml");
            if let Some(text) = read(root, &file)? {
                roles.push(Role::parse(&text).map_err(|problems| fault(&file, problems))?);
            }
        }
        Ok(Self { policy, roles })
    }
}

/// The templates of a role by their file names.
///
/// # Errors
///
/// A template that is missing or not text.
pub fn templates(root: &Root, role: &Role) -> io::Result<BTreeMap<String, String>> {
    let mut templates = BTreeMap::new();
    for template in &role.templates {
        let path = format!("{ROLES}/{}/{}", role.name, template.source);
        let bytes = root.read(&path, MAX_SIZE)?;
        let text = bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| {
                let what = format!("{path} is missing or not text");
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?;
        templates.insert(template.source.clone(), text);
    }
    Ok(templates)
}

/// Where the image has its vendor's key, the policy must be signed with it.
fn authenticate(root: &Root, policy: &str) -> Result<(), VendorFault> {
    let unread = |_| fault(VENDOR, Vec::new());
    let keys = root
        .read_text(VENDOR, trust::MAX_SIGNATURE)
        .map_err(unread)?;
    if keys.is_empty() {
        return Ok(());
    }
    let keys = Key::parse_all(&keys).ok_or_else(|| fault(VENDOR, Vec::new()))?;
    let file = format!("{POLICY}.sig");
    let signature = root.read(&file, trust::MAX_SIGNATURE).map_err(unread)?;
    let signed = trust::verify(
        policy.as_bytes(),
        &signature.unwrap_or_default(),
        trust::POLICY,
        &keys,
    );
    signed.map(|_| ()).map_err(|error| {
        let problem = Problem {
            code: Code::NotAllowed,
            line: 1,
            column: 1,
            key: String::new(),
            message: format!("the policy is not signed by the vendor: {error}"),
            allowed: None,
            remedy:
                "sign it with `ssh-keygen -Y sign -n consign-policy`, before the image is built"
                    .to_owned(),
        };
        fault(POLICY, vec![problem])
    })
}

fn read(root: &Root, file: &str) -> Result<Option<String>, VendorFault> {
    let bytes = root
        .read(file, MAX_SIZE)
        .map_err(|_| fault(file, Vec::new()))?;
    bytes
        .map(|bytes| {
            decode(&bytes)
                .map(str::to_owned)
                .map_err(|problems| fault(file, problems))
        })
        .transpose()
}

fn fault(file: &str, problems: Vec<Problem>) -> VendorFault {
    VendorFault {
        file: file.to_owned(),
        problems,
    }
}
