//! From what is attached and what is kept to a configured machine, or to the
//! reason why it waits.
//!
//! ```text
//! find -> check -> render -> stage -> commit -> activate
//! ```
//!
//! Any failure before the commit changes nothing; after it, the generation is
//! put in place again until that is done. A machine that was configured once
//! goes on with what it has, whatever is attached.

use std::collections::{BTreeMap, BTreeSet};

use consign_schema::{Code, Problem, SiteConfig, check, decode};

use crate::digest::Digest;
use crate::facts;
use crate::generation::Generation;
use crate::image::{Image, Vendor, VendorFault};
use crate::media::{Candidate, Found, SITE_FILE};
use crate::root::Root;
use crate::state::State;
use crate::status::{FileProblems, Standing, Status, code};
use crate::step::{self, Machine, host_key, machine_id, name};

/// What `consign config disk` prepares for the agent to write to.
const OUR_FILES: [&str; 2] = ["report.json", "request.toml"];

/// What does not depend on a configuration: identity. What fails is noted and
/// stops nothing, so that somebody can still look.
pub fn settle(root: &Root) -> Vec<String> {
    let mut notes = Vec::new();
    if let Err(error) = host_key::settle(root) {
        notes.push(format!("the SSH host key cannot be made: {error}"));
    }
    if let Some(fault) = machine_id::fault(root) {
        notes.push(fault.to_owned());
    }
    notes
}

/// Puts the configuration that counts in place, if there is one. `found` is
/// what is attached now.
///
/// # Errors
///
/// `None` on a machine that was never configured: it needs a medium.
pub fn go_on(root: &Root, found: &Found) -> Option<Status> {
    let state = match State::load(root) {
        Ok(state) => state?,
        Err(error) => return Some(fenced(error.to_string())),
    };
    let generation = match Generation::load(root, &state) {
        Ok(generation) => generation,
        Err(error) => return Some(fenced(error.to_string())),
    };
    let (generation, state, files) = renewed(root, generation, state);
    let mut status = match generation.activate(root, &state) {
        Ok(_) => configured(&generation, &state),
        Err(error) => return Some(fenced(error.to_string())),
    };
    if let Err(error) = Generation::prune(root, &state) {
        status
            .notes
            .push(format!("old configurations cannot be removed: {error}"));
    }
    status.files = files;
    if !status.files.is_empty() {
        status.notes.push("the image is newer than the configuration, which it does not accept; the files made for the older image are in use".into());
    }
    status.notes.extend(not_taken(&generation, found));
    if let Err(error) = name::tell_kernel(root) {
        status
            .notes
            .push(format!("the kernel does not take the host name: {error}"));
    }
    Some(status)
}

/// The generation for this build of the image: rendered again from the
/// customer's file when it was made for another build. Where the new image
/// refuses the file, the old generation stays, and the problems say why.
fn renewed(
    root: &Root,
    generation: Generation,
    state: State,
) -> (Generation, State, Vec<FileProblems>) {
    if generation.image == Image::load(root).build {
        return (generation, state, Vec::new());
    }
    let ids = generation.account_ids();
    match prepare(root, &generation.site, SITE_FILE, ids) {
        Ok(fresh) => match fresh.commit(root, Some(&state)) {
            Ok(state) => (fresh, state, Vec::new()),
            Err(error) => {
                let file = FileProblems::whole(SITE_FILE, "unavailable", &error.to_string(), "");
                (generation, state, vec![file])
            }
        },
        Err(refused) => (generation, state, refused.files),
    }
}

/// Why a medium with another configuration is not taken.
fn not_taken(generation: &Generation, found: &Found) -> Vec<String> {
    let other = |candidate: &&Candidate| {
        candidate
            .files
            .get(SITE_FILE)
            .is_some_and(|bytes| Digest::of(bytes) != generation.digest())
    };
    let media = found.candidates.iter().filter(other);
    media
        .map(|candidate| {
            format!(
                "the configuration on {} is not taken: the machine is configured already",
                candidate.device
            )
        })
        .collect()
}

/// Takes the configuration among `found` into use on a machine that has none.
/// One that is refused joins `refused`, and stands back from then on when
/// another comes.
pub fn take(root: &Root, found: &Found, refused: &mut BTreeSet<Digest>) -> Status {
    let (candidate, bytes) = match choose(found, refused) {
        Ok(chosen) => chosen,
        Err(status) => return *status,
    };
    let file = format!("{}: {SITE_FILE}", candidate.device);
    let agreed = facts::agree(root, candidate, bytes, &file);
    let prepared = agreed.and_then(|()| prepare(root, bytes, &file, BTreeMap::new()));
    let generation = match prepared {
        Ok(generation) => generation,
        Err(reason) => {
            refused.insert(Digest::of(bytes));
            return reason.status();
        }
    };
    let state = match generation.commit(root, None) {
        Ok(state) => state,
        Err(error) => {
            // Nothing has changed: the machine goes on waiting.
            let summary = format!(
                "the configuration on {} cannot be kept: {error}",
                candidate.device
            );
            return Status::new(Standing::Waiting, code::APPLY_FAILED, summary);
        }
    };
    match generation.activate(root, &state) {
        Ok(_) => {
            let mut status = configured(&generation, &state);
            let is_strange = |name: &&String| !OUR_FILES.contains(&name.as_str());
            let ignored = candidate.ignored.iter().filter(is_strange);
            status
                .notes
                .extend(ignored.map(|name| format!("{}: {name} is ignored", candidate.device)));
            if let Err(error) = name::tell_kernel(root) {
                status
                    .notes
                    .push(format!("the kernel does not take the host name: {error}"));
            }
            status
        }
        Err(error) => fenced(error.to_string()),
    }
}

/// The one configuration among the media, or why there is none.
fn choose<'f>(
    found: &'f Found,
    refused: &BTreeSet<Digest>,
) -> Result<(&'f Candidate, &'f [u8]), Box<Status>> {
    let mut with_file: Vec<(&Candidate, &[u8])> = found
        .candidates
        .iter()
        .filter_map(|candidate| Some((candidate, candidate.files.get(SITE_FILE)?.as_slice())))
        .collect();
    let is_new = |(_, bytes): &(&Candidate, &[u8])| !refused.contains(&Digest::of(bytes));
    if with_file.iter().any(is_new) {
        with_file.retain(is_new);
    }
    let different: BTreeSet<Digest> = with_file
        .iter()
        .map(|(_, bytes)| Digest::of(bytes))
        .collect();
    if different.len() > 1 {
        let names: Vec<&str> = with_file
            .iter()
            .map(|(candidate, _)| candidate.device.as_str())
            .collect();
        let message = format!(
            "the media {} hold different configurations",
            names.join(" and ")
        );
        let remedy = "detach all but one config disk";
        let file = FileProblems::whole(SITE_FILE, Code::Conflict.slug(), &message, remedy);
        return Err(Box::new(invalid(
            "more than one configuration is attached",
            vec![file],
        )));
    }
    if let Some(chosen) = with_file.first() {
        return Ok(*chosen);
    }
    let mut files: Vec<FileProblems> = found
        .candidates
        .iter()
        .map(|candidate| {
            let message = format!("the medium has no {SITE_FILE} in its root");
            let remedy = format!("copy {SITE_FILE} to the root of the medium");
            FileProblems::whole(
                &candidate.device,
                Code::MissingKey.slug(),
                &message,
                &remedy,
            )
        })
        .collect();
    files.extend(found.unreadable.iter().map(|medium| {
        let remedy = "format a medium as FAT with the label VACONFIG";
        FileProblems::whole(
            &medium.device,
            Code::Unavailable.slug(),
            &medium.reason,
            remedy,
        )
    }));
    Err(Box::new(if found.candidates.is_empty() {
        Status {
            files,
            ..Status::new(
                Standing::Waiting,
                code::WAITING,
                "no configuration is attached",
            )
        }
    } else {
        invalid("the config disk has no configuration", files)
    }))
}

/// Why a configuration is not taken.
#[derive(Debug)]
pub struct Refused {
    code: u8,
    summary: &'static str,
    /// What is wrong, by file.
    pub files: Vec<FileProblems>,
}

impl Refused {
    fn status(self) -> Status {
        let standing = if self.code == code::INTERNAL {
            Standing::Fenced
        } else {
            Standing::Waiting
        };
        Status {
            files: self.files,
            ..Status::new(standing, self.code, self.summary)
        }
    }

    /// The exit code that says what kind of refusal it is.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// A customer's file with these problems.
    pub fn site(file: &str, problems: &[Problem]) -> Self {
        let only_policy = problems
            .iter()
            .all(|problem| problem.code == Code::NotAllowed);
        Self {
            code: if only_policy {
                code::POLICY
            } else {
                code::INVALID
            },
            summary: if only_policy {
                "the configuration sets what this appliance does not allow"
            } else {
                "the configuration is wrong"
            },
            files: vec![FileProblems::of(file, problems)],
        }
    }

    fn vendor(fault: &VendorFault) -> Self {
        let mut files = vec![FileProblems::of(&fault.file, &fault.problems)];
        if fault.problems.is_empty() {
            let remedy = "ask the vendor of the appliance";
            files = vec![FileProblems::whole(
                &fault.file,
                "unavailable",
                "it cannot be read",
                remedy,
            )];
        }
        Self {
            code: code::INTERNAL,
            summary: "the appliance itself is faulty",
            files,
        }
    }
}

/// Judges a customer's file against this image: nothing is rendered, nothing
/// looked up on the machine.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn judge(root: &Root, bytes: &[u8], file: &str) -> Result<(SiteConfig, Vendor), Refused> {
    let vendor = Vendor::load(root).map_err(|fault| Refused::vendor(&fault))?;
    let site = decode(bytes)
        .and_then(|text| check(text, &vendor.roles, &vendor.policy))
        .map_err(|problems| Refused::site(file, &problems))?;
    Ok((site, vendor))
}

/// A customer's file, checked and rendered for this machine; nothing is written.
///
/// # Errors
///
/// [`Refused`] with every problem.
pub fn prepare(
    root: &Root,
    bytes: &[u8],
    file: &str,
    known_ids: BTreeMap<String, u32>,
) -> Result<Generation, Refused> {
    let (site, vendor) = judge(root, bytes, file)?;
    let machine = Machine::look(root, &site, &vendor, known_ids).map_err(|error| {
        Refused::vendor(&VendorFault {
            file: error.to_string(),
            problems: Vec::new(),
        })
    })?;
    let rendered =
        step::render(&site, &machine).map_err(|problems| Refused::site(file, &problems))?;
    Ok(Generation {
        site: bytes.to_vec(),
        id: site.id.to_string(),
        serial: site.serial,
        role: site.role,
        image: machine.image.build,
        items: rendered,
    })
}

fn configured(generation: &Generation, state: &State) -> Status {
    Status {
        id: generation.id.clone(),
        serial: generation.serial,
        config: generation.digest().short(),
        role: generation.role.clone().unwrap_or_default(),
        generation: state.generation,
        ..Status::new(
            Standing::Starting,
            code::NOT_YET,
            "configured; services are starting",
        )
    }
}

fn invalid(summary: &str, files: Vec<FileProblems>) -> Status {
    Status {
        files,
        ..Status::new(Standing::Waiting, code::INVALID, summary)
    }
}

fn fenced(reason: String) -> Status {
    Status::new(Standing::Fenced, code::APPLY_FAILED, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::CONFIGURED;
    use crate::root::testing::Folder;
    use crate::step::testing::KEY;

    const SITE: &str =
        "schema = 1\n[config]\nid = \"acme\"\nserial = 3\n[system]\nhostname = \"web-1\"\n";
    const ROLE: &str = "schema = 1\nname = \"web\"\ndescription = \"x\"\nservices = [\"nginx.service\"]\n\
        [param.title]\ntype = \"string\"\n\
        [[template]]\nsource = \"t.j2\"\ntarget = \"/etc/t\"\ntype = \"html\"\n";

    fn take(root: &Root, found: &Found) -> Status {
        super::take(root, found, &mut BTreeSet::new())
    }

    fn system() -> Folder {
        Folder::with(&[
            ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("/etc/group", "root:x:0:\n"),
            ("/etc/shadow", "root:*:1::::::\n"),
            (
                "/usr/lib/consign/image.toml",
                "name = \"sample\"\nversion = \"1\"\nbuild = \"one\"\n",
            ),
            ("/usr/lib/consign/roles/web/role.toml", ROLE),
            (
                "/usr/lib/consign/roles/web/t.j2",
                "<h1>{{ app.title }}</h1>\n",
            ),
        ])
    }

    fn attached(device: &str, site: &str) -> Candidate {
        Candidate {
            device: device.into(),
            filesystem: "FAT12".into(),
            files: [(SITE_FILE.to_owned(), site.as_bytes().to_vec())].into(),
            ignored: vec!["notes.txt".into(), "report.json".into()],
            ..Candidate::default()
        }
    }

    fn found(candidates: Vec<Candidate>) -> Found {
        Found {
            candidates,
            unreadable: Vec::new(),
        }
    }

    fn good() -> String {
        format!("{SITE}[user.ann]\nssh_keys = [\"{KEY}\"]\n[app]\ntitle = \"Hello <b>\"\n")
    }

    #[test]
    fn a_good_disk_configures_the_machine_and_the_fence_is_lifted() {
        let system = system();
        let found = found(vec![attached("vdb", &good())]);
        assert_eq!(go_on(&system.root, &found), None);
        let status = take(&system.root, &found);
        assert_eq!(
            (status.standing, status.serial, status.generation),
            (Standing::Starting, 3, 1),
            "{status:?}"
        );
        assert_eq!(status.notes, ["vdb: notes.txt is ignored"]);
        assert_eq!(system.text("/etc/t"), "<h1>Hello &lt;b&gt;</h1>\n");
        assert_eq!(system.text("/etc/hostname"), "web-1\n");
        assert_eq!(
            system.text("/etc/ssh/authorized_keys.d/ann"),
            format!("{KEY}\n")
        );
        assert!(system.root.exists(CONFIGURED));
        assert!(system.root.exists("/run/consign/services/nginx.service"));
    }

    #[test]
    fn a_wrong_disk_changes_nothing_and_says_all_that_is_wrong() {
        let system = system();
        let wrong = good().replace("web-1", "web_1").replace("title", "tilte");
        let status = take(&system.root, &found(vec![attached("vdb", &wrong)]));
        assert_eq!(
            (status.standing, status.code),
            (Standing::Waiting, code::INVALID)
        );
        let lines = status.lines();
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("vdb: site.toml:6:12: [invalid-value]")),
            "{lines:?}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("vdb: site.toml:10:1: [unknown-key]")),
            "{lines:?}"
        );
        assert!(!system.path().join("var/lib/consign/gen").exists());
        assert!(!system.path().join("etc/hostname").exists());
        assert!(!system.root.exists(CONFIGURED));
        let status = take(&system.root, &found(vec![attached("vdb", &good())]));
        assert_eq!(status.standing, Standing::Starting);
    }

    #[test]
    fn a_configured_machine_goes_on_without_a_disk_and_with_another() {
        let system = system();
        take(&system.root, &found(vec![attached("vdb", &good())]));
        std::fs::remove_dir_all(system.path().join("run")).expect("a new start");
        std::fs::remove_file(system.path().join("etc/t")).expect("a new root");
        let status = go_on(&system.root, &found(Vec::new())).expect("configured");
        assert_eq!(
            (status.standing, status.generation),
            (Standing::Starting, 1)
        );
        assert_eq!(system.text("/etc/t"), "<h1>Hello &lt;b&gt;</h1>\n");
        assert!(system.root.exists(CONFIGURED));
        let other = good().replace("serial = 3", "serial = 4");
        let status =
            go_on(&system.root, &found(vec![attached("vdb", &other)])).expect("configured");
        assert_eq!(status.serial, 3);
        assert_eq!(
            status.notes,
            ["the configuration on vdb is not taken: the machine is configured already"]
        );
        let status =
            go_on(&system.root, &found(vec![attached("vdb", &good())])).expect("configured");
        assert_eq!(status.notes, [] as [String; 0]);
    }

    #[test]
    fn another_image_renders_the_configuration_again() {
        let system = system();
        take(&system.root, &found(vec![attached("vdb", &good())]));
        let lib = system.path().join("usr/lib/consign");
        std::fs::write(lib.join("image.toml"), "build = \"two\"\n").expect("a new image");
        std::fs::write(lib.join("roles/web/t.j2"), "<h2>{{ app.title }}</h2>\n")
            .expect("a new image");
        let status = go_on(&system.root, &found(Vec::new())).expect("configured");
        assert_eq!((status.generation, status.serial), (2, 3));
        assert_eq!(system.text("/etc/t"), "<h2>Hello &lt;b&gt;</h2>\n");
        std::fs::write(lib.join("image.toml"), "build = \"three\"\n").expect("a new image");
        std::fs::write(lib.join("roles/web/t.j2"), "{{ nothing }}\n").expect("a new image");
        let status = go_on(&system.root, &found(Vec::new())).expect("configured");
        assert_eq!(status.generation, 2);
        assert_eq!(system.text("/etc/t"), "<h2>Hello &lt;b&gt;</h2>\n");
        assert!(!status.files.is_empty() && !status.notes.is_empty());
    }

    #[test]
    fn two_disks_must_agree() {
        let system = system();
        let other = good().replace("serial = 3", "serial = 4");
        let both = found(vec![attached("vdb", &good()), attached("vdc", &other)]);
        let status = take(&system.root, &both);
        assert_eq!(
            (status.standing, status.code),
            (Standing::Waiting, code::INVALID)
        );
        assert!(
            status
                .lines()
                .iter()
                .any(|line| line.contains("vdb and vdc"))
        );
        let same = found(vec![attached("vdb", &good()), attached("vdc", &good())]);
        assert_eq!(take(&system.root, &same).standing, Standing::Starting);
    }

    #[test]
    fn a_corrected_disk_is_taken_beside_the_wrong_one() {
        let system = system();
        let mut refused = BTreeSet::new();
        let wrong = attached("vdb", &good().replace("title", "tilte"));
        let status = super::take(&system.root, &found(vec![wrong.clone()]), &mut refused);
        assert_eq!(status.code, code::INVALID);
        let both = found(vec![wrong.clone(), attached("vdc", &good())]);
        assert_eq!(
            super::take(&system.root, &both, &mut refused).standing,
            Standing::Starting
        );
        let again = super::take(&system.root, &found(vec![wrong]), &mut refused);
        assert_eq!(again.code, code::INVALID);
    }

    #[test]
    fn without_a_disk_the_machine_waits() {
        let system = system();
        let status = take(&system.root, &found(Vec::new()));
        assert_eq!(
            (status.standing, status.code),
            (Standing::Waiting, code::WAITING)
        );
        let mut empty = attached("vdb", "");
        empty.files.clear();
        let status = take(&system.root, &found(vec![empty]));
        assert_eq!(
            (status.standing, status.code),
            (Standing::Waiting, code::INVALID)
        );
    }

    #[test]
    fn what_the_vendor_forbids_has_a_code_of_its_own() {
        let system = system();
        let policy = system.path().join("usr/lib/consign/policy.toml");
        std::fs::write(&policy, "schema = 1\nforbidden = [\"user.ann\"]\n").expect("a policy");
        let disk = found(vec![attached("vdb", &good())]);
        let status = take(&system.root, &disk);
        assert_eq!(
            (status.standing, status.code),
            (Standing::Waiting, code::POLICY)
        );
        std::fs::write(&policy, "schema = 1\nfrobidden = []\n").expect("a policy");
        let status = take(&system.root, &disk);
        assert_eq!(
            (status.standing, status.code),
            (Standing::Fenced, code::INTERNAL)
        );
    }

    #[test]
    fn a_damaged_record_is_never_taken_for_a_new_machine() {
        let system = system();
        take(&system.root, &found(vec![attached("vdb", &good())]));
        std::fs::write(system.path().join("var/lib/consign/state"), "rubbish").expect("damage");
        let status = go_on(&system.root, &found(Vec::new())).expect("not new");
        assert_eq!(
            (status.standing, status.code),
            (Standing::Fenced, code::APPLY_FAILED)
        );
    }

    #[test]
    fn identity_is_settled_before_any_configuration() {
        let system = system();
        let notes = settle(&system.root);
        assert_eq!(notes, ["the machine has no machine-id that lasts"]);
        assert!(host_key::fingerprint(&system.root).is_some());
    }
}
