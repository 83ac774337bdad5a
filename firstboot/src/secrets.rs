//! Secrets of a site: from `secrets.age` to credentials of services.
//!
//! At rest they stay encrypted to this machine's identity, but for those that
//! somebody entered, which only root can read. While the machine runs they are
//! files in memory below `/run/credstore`, where systemd's `LoadCredential=`
//! looks; never in arguments, environment, logs or messages.

use std::collections::BTreeMap;
use std::io;

use consign_schema::{Secret, SecretSource, SiteConfig};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::age::{self, AgeError, Identity};
use crate::root::{Access, Change, Root};
use crate::text::parse;
use crate::write_back::TAKEN;

const IDENTITY: &str = "/var/lib/consign/identity.age";
/// For people, and for `request.toml`.
const RECIPIENT: &str = "/var/lib/consign/recipient";
/// Where systemd looks for credentials that are named without a path.
pub const STORE: &str = "/run/credstore";
/// What somebody entered at the machine, by name; as safe as the identity.
pub const ENTERED: &str = "/var/lib/consign/entered";
/// An encrypted file is never longer.
const MAX_SIZE: usize = 256 << 10;

/// Makes the machine's identity where there is none.
///
/// # Errors
///
/// What the system reports.
pub fn settle(root: &Root) -> io::Result<Change> {
    let kept = root.read_text(IDENTITY, MAX_SIZE)?;
    let identity = if let Some(identity) = Identity::parse(&kept) {
        identity
    } else {
        let mut seed = [0; 32];
        if getrandom(&mut seed, GetRandomFlags::empty())? != seed.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let identity = Identity::from_bytes(&seed);
        let text = format!("{}\n", identity.expose());
        root.put(IDENTITY, text.as_bytes(), Access::own(0o600))?;
        identity
    };
    if root.exists(RECIPIENT) {
        return Ok(Change::Same);
    }
    let recipient = format!("{}\n", identity.recipient());
    root.put(RECIPIENT, recipient.as_bytes(), Access::own(0o644))
}

/// What secrets for this machine are encrypted to.
pub fn recipient(root: &Root) -> Option<String> {
    let text = root.read_text(RECIPIENT, 256).ok()?;
    let text = text.trim();
    text.starts_with("age1").then(|| text.to_owned())
}

/// Why a site's secrets cannot be had: the key, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Of which key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Names of credentials and of their entries in `secrets.age`; no entry:
/// somebody enters it at the machine.
pub fn wanted(site: &SiteConfig) -> BTreeMap<String, String> {
    let entry = |secret: &consign_schema::SecretEntry| match secret.from {
        SecretSource::Age => secret.entry.clone(),
        _ => String::new(),
    };
    let secrets = site.secrets.iter();
    secrets
        .map(|secret| (secret.name.clone(), entry(secret)))
        .collect()
}

/// Names of those that have to be entered, and have not been.
pub fn to_enter(root: &Root, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let names = wanted.iter().filter(|(_, entry)| entry.is_empty());
    names
        .map(|(name, _)| name.clone())
        .filter(|name| !root.exists(&format!("{ENTERED}/{name}")))
        .collect()
}

/// Keeps what somebody entered, for its owner alone.
///
/// # Errors
///
/// What the system reports.
pub fn enter(root: &Root, name: &str, secret: &Secret) -> io::Result<()> {
    root.put_directory(ENTERED, Access::own(0o700))?;
    let path = format!("{ENTERED}/{name}");
    root.put(&path, secret.expose().as_bytes(), Access::own(0o600))?;
    Ok(())
}

/// Whether every secret that the site wants is there and can be read.
///
/// # Errors
///
/// [`Missing`], for every one that is not.
pub fn check(
    root: &Root,
    wanted: &BTreeMap<String, String>,
    file: Option<&[u8]>,
) -> Result<(), Vec<Missing>> {
    let sealed = || wanted.iter().filter(|(_, entry)| !entry.is_empty());
    if sealed().next().is_none() {
        return Ok(());
    }
    let all = |message: String, remedy: String| {
        vec![Missing {
            key: "secret".to_owned(),
            message,
            remedy,
        }]
    };
    let Some(file) = file else {
        return Err(all(
            "there is no secrets.age beside the configuration".into(),
            encrypt_again(root),
        ));
    };
    if file.starts_with(TAKEN.as_bytes()) {
        let message = "secrets.age was taken by an appliance before, and erased";
        return Err(all(message.into(), encrypt_again(root)));
    }
    let entries = open(root, file).map_err(|error| {
        all(
            format!("secrets.age cannot be used: {error}"),
            encrypt_again(root),
        )
    })?;
    let absent = sealed().filter(|(_, entry)| !entries.contains_key(*entry));
    let absent: Vec<Missing> = absent
        .map(|(name, entry)| Missing {
            key: format!("secret.{name}"),
            message: format!("secrets.age has no text named `{entry}`"),
            remedy: format!("add `{entry} = \"...\"` before it is encrypted"),
        })
        .collect();
    if absent.is_empty() {
        Ok(())
    } else {
        Err(absent)
    }
}

fn encrypt_again(root: &Root) -> String {
    match recipient(root) {
        Some(recipient) => format!("encrypt it with `age -r {recipient}`, as request.toml says"),
        None => "encrypt it to the recipient in request.toml".to_owned(),
    }
}

/// Why an encrypted file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenError {
    Age(AgeError),
    NoIdentity,
    NotToml,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Age(error) => error.fmt(f),
            Self::NoIdentity => f.write_str("the machine's identity is missing"),
            Self::NotToml => f.write_str("what was encrypted is not `name = \"text\"` lines"),
        }
    }
}

fn open(root: &Root, file: &[u8]) -> Result<BTreeMap<String, Secret>, OpenError> {
    let identity = root.read_text(IDENTITY, MAX_SIZE).unwrap_or_default();
    let identity = Identity::parse(&identity).ok_or(OpenError::NoIdentity)?;
    let plain = age::decrypt(file, &identity).map_err(OpenError::Age)?;
    let plain = Secret::new(String::from_utf8(plain).map_err(|_| OpenError::NotToml)?);
    let table = parse(plain.expose()).ok_or(OpenError::NotToml)?;
    let mut entries = BTreeMap::new();
    for (name, value) in &table {
        let text = value.get_ref().as_str().ok_or(OpenError::NotToml)?;
        entries.insert(name.get_ref().to_string(), Secret::new(text.to_owned()));
    }
    Ok(entries)
}

/// Makes the credentials in memory what the generation says.
///
/// # Errors
///
/// What the system reports; that a file cannot be read is an error too.
pub fn put(
    root: &Root,
    wanted: &BTreeMap<String, String>,
    file: Option<&[u8]>,
) -> io::Result<Change> {
    let mut is_written = false;
    for name in root.list(STORE)? {
        if !wanted.contains_key(&name) {
            root.remove(&format!("{STORE}/{name}"))?;
        }
    }
    if wanted.is_empty() {
        return Ok(Change::Same);
    }
    let entries = match file {
        Some(file) => open(root, file).map_err(|error| io::Error::other(error.to_string()))?,
        None => BTreeMap::new(),
    };
    root.put_directory(STORE, Access::own(0o700))?;
    for (name, entry) in wanted {
        let secret = if entry.is_empty() {
            let entered = root.read_text(&format!("{ENTERED}/{name}"), MAX_SIZE)?;
            // Its services wait for it.
            if entered.is_empty() {
                continue;
            }
            &Secret::new(entered)
        } else if file.is_none() {
            continue;
        } else {
            entries
                .get(entry)
                .ok_or_else(|| io::Error::other(format!("secrets.age has no `{entry}`")))?
        };
        let path = format!("{STORE}/{name}");
        let change = root.put(&path, secret.expose().as_bytes(), Access::own(0o400))?;
        is_written |= change == Change::Written;
    }
    Ok(if is_written {
        Change::Written
    } else {
        Change::Same
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    #[test]
    fn each_machine_has_an_identity_of_its_own_and_keeps_it() {
        let (one, two) = (Folder::new(), Folder::new());
        assert_eq!(settle(&one.root).expect("made"), Change::Written);
        assert_eq!(settle(&two.root).expect("made"), Change::Written);
        let first = recipient(&one.root).expect("a recipient");
        assert_ne!(recipient(&two.root), Some(first.clone()));
        assert_eq!(settle(&one.root).expect("kept"), Change::Same);
        assert_eq!(recipient(&one.root), Some(first));
    }

    #[test]
    fn what_is_missing_is_said_without_what_is_there() {
        let folder = Folder::new();
        settle(&folder.root).expect("made");
        let wanted: BTreeMap<_, _> = [("db".to_owned(), "password".to_owned())].into();
        for file in [None, Some(b"CANARY".as_slice())] {
            let missing = check(&folder.root, &wanted, file).expect_err("missing");
            let text = format!("{missing:?}");
            assert!(text.contains("age1") && !text.contains("CANARY"), "{text}");
        }
        assert_eq!(check(&folder.root, &BTreeMap::new(), None), Ok(()));
        assert!(put(&folder.root, &wanted, Some(b"CANARY")).is_err());
    }

    #[test]
    fn what_is_entered_at_the_machine_is_kept_and_handed_on() {
        let folder = Folder::new();
        settle(&folder.root).expect("made");
        let wanted: BTreeMap<_, _> = [("pin".to_owned(), String::new())].into();
        let path = format!("{STORE}/pin");
        assert_eq!(check(&folder.root, &wanted, None), Ok(()));
        assert_eq!(put(&folder.root, &wanted, None).expect("put"), Change::Same);
        assert_eq!(to_enter(&folder.root, &wanted), ["pin"]);
        assert!(!folder.root.exists(&path));
        enter(&folder.root, "pin", &Secret::new("CANARY".into())).expect("kept");
        assert_eq!(to_enter(&folder.root, &wanted), [""; 0]);
        assert_eq!(
            put(&folder.root, &wanted, None).expect("put"),
            Change::Written
        );
        assert_eq!(folder.text(&path), "CANARY");
        assert_eq!(put(&folder.root, &wanted, None).expect("put"), Change::Same);
        // A configuration without it takes it away.
        put(&folder.root, &BTreeMap::new(), None).expect("put");
        assert!(!folder.root.exists(&path));
    }
}
