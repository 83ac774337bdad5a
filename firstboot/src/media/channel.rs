//! Configurations that come without a medium of ours: credentials in SMBIOS
//! strings and in QEMU's `fw_cfg`, a variable of `VMware`'s, and the OVF
//! environment on a CD.
//!
//! They have a lower rank than our media: where one of those offers another
//! configuration, they do not count, and the machine says so.
//! Whether a channel counts at all, the vendor's policy says.
//!
//! Sources: DMTF DSP0134 (SMBIOS) 3.6, section 7.12; systemd.system-credentials(7).

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use consign_schema::{Channel, Import, NoCloud, Policy, convert_no_cloud, convert_ovf, decode};

use super::{Candidate, FILE_LIMIT, Form, Found, OVF_FILE, SITE_FILE, Unreadable};

/// The credential.
const NAME: &str = "appliance.config";
/// Its file in `fw_cfg`, below `/sys`.
pub(super) const FW_CFG: &str =
    "firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/appliance.config/raw";
/// The SMBIOS table, below `/sys`.
const DMI: &str = "firmware/dmi/tables/DMI";
/// Who made the machine, below `/sys`, and what `VMware` says there.
#[cfg(target_arch = "x86_64")]
const MAKER: &str = "class/dmi/id/sys_vendor";
#[cfg(target_arch = "x86_64")]
const VMWARE: &str = "VMware";
/// A table is at most this long.
const DMI_LIMIT: u64 = 1 << 20;
/// SMBIOS type 11, OEM Strings; type 127 ends the table.
const OEM_STRINGS: u8 = 11;
const END_OF_TABLE: u8 = 127;

/// Adds what the firmware brings. `sys` is `/sys`.
pub fn look(sys: &Path, policy: &Policy, found: &mut Found) {
    // What nobody wants is not asked for, nor told when it is too long.
    let is_asked = policy.channels.contains(&Channel::GuestInfo);
    for (device, bytes) in [
        ("fw_cfg", read(&sys.join(FW_CFG), FILE_LIMIT)),
        (
            "SMBIOS",
            read(&sys.join(DMI), DMI_LIMIT).and_then(|table| credential(&table)),
        ),
        ("guestinfo", is_asked.then(|| guestinfo(sys)).flatten()),
    ] {
        match bytes {
            Some(bytes) if bytes.len() as u64 > FILE_LIMIT => {
                found.unreadable.push(Unreadable {
                    device: device.into(),
                    reason: format!("has a value {NAME} that is too long"),
                });
            }
            Some(bytes) => found.candidates.push(Candidate {
                device: device.into(),
                filesystem: "credential".into(),
                files: [(SITE_FILE.to_owned(), bytes)].into(),
                ..Candidate::default()
            }),
            None => {}
        }
    }
}

/// The variable of a machine of `VMware`'s, as text or in base64: values of a
/// `.vmx` file have one line.
#[cfg(target_arch = "x86_64")]
fn guestinfo(sys: &Path) -> Option<Vec<u8>> {
    let maker = read(&sys.join(MAKER), 4096)?;
    if !maker.starts_with(VMWARE.as_bytes()) {
        return None;
    }
    #[cfg(not(test))]
    return super::child::ask_guestinfo().map(decoded);
    #[cfg(test)]
    Some(decoded(VARIABLE.to_vec()))
}

/// Other machines have no port to ask at.
#[cfg(not(target_arch = "x86_64"))]
const fn guestinfo(_: &Path) -> Option<Vec<u8>> {
    None
}

/// What is not base64 is judged as it is, and refused with a reason.
fn decoded(value: Vec<u8>) -> Vec<u8> {
    let text = std::str::from_utf8(&value).ok();
    let text = text.map(str::trim_ascii);
    text.and_then(consign_schema::base64).unwrap_or(value)
}

/// A little more than `limit` bytes at most; `None` when there are none.
fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(limit + 1).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

/// The credential among the OEM strings of an SMBIOS table.
fn credential(mut table: &[u8]) -> Option<Vec<u8>> {
    loop {
        let kind = *table.first()?;
        let length = usize::from(*table.get(1)?);
        if kind == END_OF_TABLE || length < 4 {
            return None;
        }
        let strings = table.get(length..)?;
        let end = strings.windows(2).position(|pair| pair == [0, 0])?;
        if kind == OEM_STRINGS {
            let mut texts = strings.get(..end)?.split(|byte| *byte == 0);
            if let Some(found) = texts.find_map(value_of) {
                return Some(found);
            }
        }
        table = strings.get(end + 2..)?;
    }
}

fn value_of(text: &[u8]) -> Option<Vec<u8>> {
    let (text, is_binary) = match text.strip_prefix(b"io.systemd.credential.binary:") {
        Some(text) => (text, true),
        None => (text.strip_prefix(b"io.systemd.credential:")?, false),
    };
    let value = text.strip_prefix(NAME.as_bytes())?.strip_prefix(b"=")?;
    if is_binary {
        return Some(decoded(value.to_vec()));
    }
    Some(value.to_vec())
}

/// Keeps what the vendor's policy admits, foreign forms converted.
#[must_use]
pub fn admit(found: Found, policy: &Policy) -> Found {
    let mut admitted = Found {
        unreadable: found.unreadable,
        ..Found::default()
    };
    for mut candidate in found.candidates {
        let channel = match (candidate.form, candidate.device.as_str()) {
            (Form::Ovf, _) => Some(Channel::Ovf),
            (Form::Site, "fw_cfg") => Some(Channel::FwCfg),
            (Form::Site, "SMBIOS") => Some(Channel::Smbios),
            (Form::Site, "guestinfo") => Some(Channel::GuestInfo),
            _ => None,
        };
        let is_open = channel.is_none_or(|channel| policy.channels.contains(&channel));
        let converted = match candidate.form {
            _ if !is_open => continue,
            Form::Site => Ok(()),
            // Every virtual machine of VMware may have such a document.
            Form::Ovf if policy.properties.is_empty() => continue,
            Form::NoCloud if !policy.import.contains(&Import::NoCloud) => continue,
            Form::NoCloud => take_no_cloud(&mut candidate),
            Form::Ovf => convert(&mut candidate, OVF_FILE, |text| convert_ovf(text, policy)),
        };
        match converted {
            Ok(()) => admitted.candidates.push(candidate),
            Err(reason) => admitted.unreadable.push(Unreadable {
                device: candidate.device,
                reason,
            }),
        }
    }
    admitted
}

type Converted = Result<String, Vec<consign_schema::Problem>>;

fn convert(
    candidate: &mut Candidate,
    name: &str,
    convert: impl FnOnce(&str) -> Converted,
) -> Result<(), String> {
    let bytes = candidate.files.remove(name).unwrap_or_default();
    let text = decode(&bytes).and_then(convert);
    let text = text.map_err(|problems| told(name, &problems))?;
    candidate
        .files
        .insert(SITE_FILE.to_owned(), text.into_bytes());
    Ok(())
}

/// The first problem, and how many there are.
fn told(name: &str, problems: &[consign_schema::Problem]) -> String {
    let first = problems.first();
    let text = first.map(|problem| {
        format!(
            "has a {name} that cannot be taken: {}:{}: {}; {}",
            problem.line, problem.column, problem.message, problem.remedy
        )
    });
    let more = match problems.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    text.unwrap_or_default() + &more
}

/// `CIDATA` as a `site.toml`.
fn take_no_cloud(candidate: &mut Candidate) -> Result<(), String> {
    let files = std::mem::take(&mut candidate.files);
    let text = |name: &str| match files.get(name) {
        Some(bytes) => decode(bytes).map_err(|problems| told(name, &problems)),
        None => Ok(""),
    };
    let texts = NoCloud {
        meta_data: text("meta-data")?,
        user_data: text("user-data")?,
        network_config: text("network-config")?,
    };
    let site = convert_no_cloud(texts).map_err(|(name, problems)| told(name, &problems))?;
    candidate
        .files
        .insert(SITE_FILE.to_owned(), site.into_bytes());
    Ok(())
}

/// What the hypervisor has in the tests, which cannot be executed as the agent.
#[cfg(all(test, target_arch = "x86_64"))]
const VARIABLE: &[u8] = b"c2NoZW1hID0gMQo=";

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n";

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_machine_of_vmwares_is_known_by_its_maker_and_asked_where_the_vendor_says_so() {
        let open = Policy {
            channels: vec![Channel::GuestInfo],
            ..Policy::default()
        };
        let folder = tempfile::tempdir().expect("folder");
        let maker = folder.path().join(MAKER);
        std::fs::create_dir_all(maker.parent().expect("a folder")).expect("folder");
        for (name, is_asked) in [("VMware, Inc.\n", true), ("QEMU\n", false)] {
            std::fs::write(&maker, name).expect("write");
            let mut found = Found::default();
            look(folder.path(), &Policy::default(), &mut found);
            assert_eq!(found, Found::default(), "{name}");
            look(folder.path(), &open, &mut found);
            assert_eq!(found.candidates.len(), usize::from(is_asked), "{name}");
            if let Some(candidate) = found.candidates.first() {
                assert_eq!(candidate.device, "guestinfo");
                assert_eq!(candidate.files[SITE_FILE], b"schema = 1\n");
                assert!(
                    admit(found.clone(), &Policy::default())
                        .candidates
                        .is_empty()
                );
                assert_eq!(admit(found, &open).candidates.len(), 1);
            }
        }
        assert_eq!(decoded(SITE.into()), SITE.as_bytes());
    }

    fn table(strings: &[&str]) -> Vec<u8> {
        let mut table = vec![1, 8, 0, 0, 1, 2, 3, 4];
        table.extend_from_slice(b"maker\0\0");
        table.extend_from_slice(&[
            OEM_STRINGS,
            5,
            1,
            0,
            u8::try_from(strings.len()).expect("few"),
        ]);
        for text in strings {
            table.extend_from_slice(text.as_bytes());
            table.push(0);
        }
        table.extend_from_slice(&[0, END_OF_TABLE, 4, 2, 0, 0, 0]);
        table
    }

    #[test]
    fn credentials_stand_among_the_oem_strings() {
        let plain = format!("io.systemd.credential:appliance.config={SITE}");
        let binary = "io.systemd.credential.binary:appliance.config=c2NoZW1hID0gMQo=";
        let found = credential(&table(&["other", &plain]));
        assert_eq!(found.as_deref(), Some(SITE.as_bytes()));
        let found = credential(&table(&[binary]));
        assert_eq!(found.as_deref(), Some(b"schema = 1\n".as_slice()));
        assert_eq!(
            credential(&table(&["io.systemd.credential:appliance.configx=1"])),
            None
        );
    }

    #[test]
    fn media_for_cloud_init_count_where_the_vendor_says_so() {
        let medium = |user_data: &str| Found {
            candidates: vec![Candidate {
                form: Form::NoCloud,
                device: "sr0".into(),
                files: [("user-data".to_owned(), user_data.as_bytes().to_vec())].into(),
                ..Candidate::default()
            }],
            ..Found::default()
        };
        let good = "#cloud-config\nhostname: web-1\n";
        assert_eq!(admit(medium(good), &Policy::default()), Found::default());
        let open = Policy {
            import: vec![Import::NoCloud],
            ..Policy::default()
        };
        let found = admit(medium(good), &open);
        let site = String::from_utf8_lossy(&found.candidates[0].files[SITE_FILE]);
        assert!(site.contains("hostname = \"web-1\""), "{site}");
        let found = admit(medium("#cloud-config\nruncmd: [reboot]\n"), &open);
        assert!(found.candidates.is_empty());
        let reason = &found.unreadable[0].reason;
        assert!(
            reason.contains("user-data that cannot be taken: 2:1: `runcmd`"),
            "{reason}"
        );
    }

    #[test]
    fn damaged_tables_end() {
        let whole = table(&["io.systemd.credential:appliance.config=x"]);
        for length in 0..whole.len() - 8 {
            assert_eq!(credential(&whole[..length]), None, "{length}");
        }
        assert_eq!(credential(&[11, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn the_firmware_is_looked_at_below_sys() {
        let folder = tempfile::tempdir().expect("folder");
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            std::fs::write(path, bytes).expect("write");
        };
        put(FW_CFG, SITE.as_bytes());
        put(
            DMI,
            &table(&[&format!("io.systemd.credential:appliance.config={SITE}")]),
        );
        let mut found = Found::default();
        look(folder.path(), &Policy::default(), &mut found);
        let devices: Vec<&str> = found
            .candidates
            .iter()
            .map(|it| it.device.as_str())
            .collect();
        assert_eq!(devices, ["fw_cfg", "SMBIOS"]);
        let closed = Policy {
            channels: Vec::new(),
            ..Policy::default()
        };
        assert!(admit(found.clone(), &closed).candidates.is_empty());
        let open = Policy {
            channels: vec![Channel::Smbios],
            ..Policy::default()
        };
        let admitted = admit(found, &open);
        assert_eq!(admitted.candidates.len(), 1);
        assert_eq!(admitted.candidates[0].files[SITE_FILE], SITE.as_bytes());
    }
}
