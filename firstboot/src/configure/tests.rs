//! The whole way, on folders that stand for systems.

mod reset;

use std::collections::BTreeSet;

use super::*;
use crate::bundle::CURRENT;
use crate::generation::CONFIGURED;
use crate::item::Item;
use crate::media::{Candidate, Found, SITE_FILE};
use crate::root::Access;
use crate::root::testing::Folder;
use crate::state::Then;
use crate::step::testing::KEY;

const SITE: &str =
    "schema = 1\n[config]\nid = \"acme\"\nserial = 3\n[system]\nhostname = \"web-1\"\n";
const ROLE: &str = "schema = 1\nname = \"web\"\ndescription = \"x\"\nservices = [\"nginx.service\"]\n\
    [param.title]\ntype = \"string\"\n\
    [[template]]\nsource = \"t.j2\"\ntarget = \"/etc/t\"\ntype = \"html\"\n";

pub(super) fn take(root: &Root, found: &Found) -> Status {
    super::take(root, found, &mut BTreeSet::new())
}

pub(super) fn system() -> Folder {
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

pub(super) fn attached(device: &str, site: &str) -> Candidate {
    Candidate {
        device: device.into(),
        filesystem: "FAT12".into(),
        files: [(SITE_FILE.to_owned(), site.as_bytes().to_vec())].into(),
        ignored: vec!["notes.txt".into(), "report.json".into()],
        ..Candidate::default()
    }
}

pub(super) fn found(candidates: Vec<Candidate>) -> Found {
    Found {
        candidates,
        unreadable: Vec::new(),
    }
}

pub(super) fn good() -> String {
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
    let status = go_on(&system.root, &found(vec![attached("vdb", &other)])).expect("configured");
    assert_eq!(status.serial, 3);
    assert_eq!(
        status.notes,
        ["the configuration on vdb is not taken: the configuration needs the claim code"]
    );
    let status = go_on(&system.root, &found(vec![attached("vdb", &good())])).expect("configured");
    assert_eq!(status.notes, [] as [String; 0]);
}

#[test]
fn another_image_renders_the_configuration_again() {
    let system = system();
    take(&system.root, &found(vec![attached("vdb", &good())]));
    let lib = system.path().join("usr/lib/consign");
    std::fs::write(lib.join("image.toml"), "build = \"two\"\n").expect("a new image");
    std::fs::write(lib.join("roles/web/t.j2"), "<h2>{{ app.title }}</h2>\n").expect("a new image");
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
    for _ in 0..2 {
        let status = super::take(&system.root, &found(vec![wrong.clone()]), &mut refused);
        assert_eq!(status.code, code::INVALID);
    }
    let both = found(vec![wrong, attached("vdc", &good())]);
    assert_eq!(
        super::take(&system.root, &both, &mut refused).standing,
        Standing::Starting
    );
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
fn what_the_machine_would_refuse_is_not_valid() {
    let system = system();
    let judged = |more: &str| {
        let text = good().replace("[system]\n", &format!("[system]\n{more}"));
        let refused = examine(&system.root, text.as_bytes(), "site.toml").err();
        refused.map(|refused| refused.files[0].problems[0].key.clone())
    };
    assert_eq!(judged(""), None);
    assert_eq!(
        judged("timezone = \"Europe/Zurick\"\n").as_deref(),
        Some("system.timezone")
    );
    let text = good().replace("serial = 3", "serial = 3\nnot_after = 2026-01-02");
    let refused = examine(&system.root, text.as_bytes(), "site.toml").expect_err("it is over");
    assert_eq!(refused.code(), code::INVALID);
    let text = good() + "[license]\nfile = \"product.key\"\n";
    assert!(examine(&system.root, text.as_bytes(), "site.toml").is_ok());
}

#[test]
fn a_damaged_record_is_never_taken_for_a_new_machine() {
    let system = system();
    take(&system.root, &found(vec![attached("vdb", &good())]));
    for copy in crate::state::FILES {
        std::fs::write(system.path().join(&copy[1..]), "rubbish").expect("damage");
    }
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

/// A configuration with this serial, and what signs it.
pub(super) fn signed(folder: &std::path::Path, device: &str, site: &str) -> Candidate {
    let (_, signature) = crate::trust::testing::by_ssh(folder, site.as_bytes(), crate::trust::SITE)
        .expect("ssh-keygen");
    let mut candidate = attached(device, site);
    candidate.files.insert("site.toml.sig".into(), signature);
    candidate
}

pub(super) fn with_serial(serial: u64) -> String {
    let site = good().replace("serial = 3", &format!("serial = {serial}"));
    site.replace("web-1", &format!("web-{serial}"))
}

pub(super) fn code_of(system: &Folder, candidate: Candidate) -> (u8, u64) {
    let status = go_on(&system.root, &found(vec![candidate])).expect("configured");
    (status.refused, status.serial)
}

#[test]
fn only_newer_configurations_of_the_same_owner_are_taken() {
    let (system, key, other) = (
        system(),
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let by_owner = |serial| signed(key.path(), "vdb", &with_serial(serial));
    let first = take(&system.root, &found(vec![by_owner(3)]));
    assert_eq!(first.standing, Standing::Starting, "{first:?}");
    assert_eq!(
        code_of(&system, attached("vdb", &with_serial(4))),
        (code::SIGNATURE, 3)
    );
    let stranger = signed(other.path(), "vdb", &with_serial(4));
    assert_eq!(code_of(&system, stranger), (code::SIGNATURE, 3));
    let mut swapped = by_owner(4);
    swapped
        .files
        .insert(SITE_FILE.into(), with_serial(5).into_bytes());
    assert_eq!(code_of(&system, swapped), (code::SIGNATURE, 3));
    let elsewhere = with_serial(4).replace("\"acme\"", "\"acme-2\"");
    let elsewhere = signed(key.path(), "vdb", &elsewhere);
    assert_eq!(code_of(&system, elsewhere), (code::INVALID, 3));
    assert_eq!(system.text("/etc/hostname"), "web-1\n".replace('1', "3"));
    assert_eq!(code_of(&system, by_owner(5)), (0, 5));
    assert!(confirm(&system.root).expect("confirmed"));
    for old in [3, 4] {
        assert_eq!(code_of(&system, by_owner(old)), (code::OLDER, 5));
    }
    let same = with_serial(5).replace("Hello", "Bye");
    let same = signed(key.path(), "vdb", &same);
    assert_eq!(code_of(&system, same), (code::OLDER, 5));
    assert_eq!(code_of(&system, by_owner(5)), (0, 5));
    assert_eq!(system.text("/etc/hostname"), "web-5\n");
}

#[test]
fn what_is_refused_by_itself_does_not_stand_in_the_way_of_an_update() {
    let system = system();
    let folder = tempfile::tempdir().expect("folder");
    let first = signed(folder.path(), "vdb", &with_serial(3));
    take(&system.root, &found(vec![first]));
    let bogus = attached("guestinfo", "schema = 1\n");
    let unsigned = attached("vdd", &with_serial(9));
    let update = || signed(folder.path(), "vdc", &with_serial(4));
    let other = signed(folder.path(), "vde", &with_serial(5));
    let all = [update(), other, unsigned.clone(), bogus.clone()];
    let status = go_on(&system.root, &found(all.into())).expect("configured");
    assert_eq!((status.serial, status.refused), (3, code::INVALID));
    assert!(
        status
            .lines()
            .iter()
            .any(|line| line.contains("vdc and vde hold different")),
        "{status:?}"
    );
    // The same text without its signature, from further behind.
    let copy = attached("SMBIOS", &with_serial(4));
    let all = found(vec![update(), unsigned, copy, bogus]);
    let status = go_on(&system.root, &all).expect("configured");
    assert_eq!((status.serial, status.refused), (4, 0), "{status:?}");
    for device in ["vdd", "SMBIOS", "guestinfo"] {
        let start = format!("the configuration on {device} is not taken: ");
        let mut notes = status.notes.iter();
        let place = format!(" ({device}: site.toml:1:1: ");
        assert!(
            notes.any(|note| note.starts_with(&start) && note.contains(&place)),
            "{status:?}"
        );
    }
}

#[test]
fn a_trial_that_nobody_confirmed_goes_back_and_is_not_tried_for_ever() {
    let (system, key) = (system(), tempfile::tempdir().expect("a folder"));
    let by_owner = |serial| signed(key.path(), "vdb", &with_serial(serial));
    take(&system.root, &found(vec![by_owner(3)]));
    for _ in 0..2 {
        assert_eq!(code_of(&system, by_owner(4)), (0, 4));
        assert_eq!(system.text("/etc/hostname"), "web-4\n");
        let status = go_on(&system.root, &found(Vec::new())).expect("configured");
        assert_eq!(status.serial, 3);
        assert_eq!(system.text("/etc/hostname"), "web-3\n");
        assert!(status.notes[0].contains("before the new configuration was confirmed"));
    }
    assert_eq!(code_of(&system, by_owner(4)), (code::APPLY_KEPT, 3));
    assert_eq!(code_of(&system, by_owner(5)), (0, 5));
}

#[test]
fn what_cannot_be_put_in_place_leaves_the_one_before_in_use() {
    let (system, key) = (system(), tempfile::tempdir().expect("a folder"));
    take(
        &system.root,
        &found(vec![signed(key.path(), "vdb", &with_serial(3))]),
    );
    let more = format!("{}[user.bob]\nssh_keys = [\"{KEY}\"]\n", with_serial(4));
    // Where bob's key would be, somebody made a folder.
    std::fs::create_dir_all(system.path().join("etc/ssh/authorized_keys.d/bob/x")).expect("made");
    let status = go_on(&system.root, &found(vec![signed(key.path(), "vdb", &more)]));
    let status = status.expect("configured");
    assert_eq!(
        (status.refused, status.serial),
        (code::APPLY_KEPT, 3),
        "{status:?}"
    );
    assert_eq!(status.standing, Standing::Starting);
    assert_eq!(system.text("/etc/hostname"), "web-3\n");
    assert!(!system.text("/etc/passwd").contains("bob"));
    assert!(system.root.exists(CONFIGURED));
}

#[test]
fn an_operator_goes_back_and_forth() {
    let (system, key) = (system(), tempfile::tempdir().expect("a folder"));
    take(
        &system.root,
        &found(vec![signed(key.path(), "vdb", &with_serial(3))]),
    );
    assert_eq!(
        code_of(&system, signed(key.path(), "vdb", &with_serial(4))),
        (0, 4)
    );
    confirm(&system.root).expect("confirmed");
    for (serial, then) in [(3, Then::Stay), (4, Then::Stay), (3, Then::Forget)] {
        let state = State::load(&system.root).expect("good").expect("there");
        let outcome = roll_back(&system.root, &state, then).expect("one before");
        assert_eq!(outcome.expect("back").status.serial, serial);
        assert_eq!(system.text("/etc/hostname"), format!("web-{serial}\n"));
    }
    let state = State::load(&system.root).expect("good").expect("there");
    assert!(roll_back(&system.root, &state, Then::Stay).is_none());
    assert_eq!(state.serial_floor, 4);
}

/// The bundle of a role goes when the role does.
#[test]
fn bundles_follow_the_role() {
    let link = |name: &str, digest: &str| Item::Link {
        path: format!("{CURRENT}/{name}"),
        target: format!("../releases/{digest}"),
    };
    let before = Generation {
        role: Some("web".into()),
        items: vec![link("web", "aa"), link("all", "bb"), link("old", "cc")],
        releases: [
            ("aa".to_owned(), Some("web".to_owned())),
            ("bb".to_owned(), None),
            // As an agent wrote it that did not keep roles.
            ("cc".to_owned(), None),
        ]
        .into(),
        ..Generation::default()
    };
    for (role, links) in [
        ("web", vec!["web", "all", "old"]),
        ("db", vec!["all", "old"]),
    ] {
        let mut next = Generation {
            role: Some(role.into()),
            ..Generation::default()
        };
        bundles::carry(&before, &mut next);
        let names: Vec<&str> = next.items.iter().map(Item::place).collect();
        let wanted: Vec<String> = links
            .iter()
            .map(|name| format!("{CURRENT}/{name}"))
            .collect();
        assert_eq!(names, wanted);
        assert_eq!(next.releases.len(), links.len());
    }
}

/// A secret that somebody entered goes with the last configuration that could
/// come back and asks for it.
#[test]
fn what_was_entered_goes_with_who_asked_for_it() {
    let system = system();
    let root = &system.root;
    let pin = format!("{}/pin", secrets::ENTERED);
    let site = format!("{}[secret.pin]\nfrom = \"console\"\n", with_serial(3));
    take(root, &found(vec![attached("vdb", &site)]));
    secrets::enter(root, "pin", &consign_schema::Secret::new("CANARY".into())).expect("kept");
    for (serial, is_there) in [(4, true), (5, false)] {
        // The first is refused, and makes the code.
        code_of(&system, attached("vdb", &with_serial(serial)));
        let mut next = attached("vdb", &with_serial(serial));
        let claim = wanted_claim(root).expect("a code");
        next.files.insert("claim.txt".into(), claim.into_bytes());
        assert_eq!(code_of(&system, next), (0, serial));
        assert!(confirm(root).expect("noted"));
        // The one before may still come back.
        assert_eq!(root.exists(&pin), is_there, "serial {serial}");
    }
}

/// A cut while an old release is removed leaves nothing under its name.
#[test]
fn a_release_goes_whole_or_not_at_all() {
    let system = system();
    take(&system.root, &found(vec![attached("vdb", &good())]));
    let state = State::load(&system.root).expect("good").expect("there");
    let put = |path: &str| {
        system
            .root
            .put(path, b"x", Access::own(0o644))
            .expect("put")
    };
    put("/var/lib/consign/releases/aa/one");
    put("/var/lib/consign/releases/.gone/two");
    put("/var/lib/consign/releases/.new/three");
    Generation::prune_releases(&system.root, &state).expect("pruned");
    // Who unpacks a bundle clears `.new` before.
    assert_eq!(
        system.root.list("/var/lib/consign/releases").expect("list"),
        [".new"]
    );
}
