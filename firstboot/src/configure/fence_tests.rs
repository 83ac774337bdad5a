//! What a machine behind its fence does with what is attached.

use std::collections::BTreeSet;

use super::tests::{attached, code_of, found, good, signed, system, take, with_serial};
use super::*;
use crate::generation::{CONFIGURED, Generation};
use crate::media::Candidate;
use crate::root::testing::Folder;
use crate::state::Phase;
use crate::step::testing::KEY;

/// The same machine's, with bob besides.
fn with_bob(serial: u64) -> String {
    format!(
        "{}[user.bob]\nssh_keys = [\"{KEY}\"]\n",
        with_serial(serial)
    )
}

/// A machine whose first configuration, serial 3, counts and cannot be put in
/// place: where bob's keys would be is a folder.
fn fenced_machine(first: Candidate) -> (Folder, Status) {
    let system = system();
    let keys = system.path().join("etc/ssh/authorized_keys.d/bob/x");
    std::fs::create_dir_all(keys).expect("made");
    let status = take(&system.root, &found(vec![first]));
    assert_eq!(
        (status.standing, status.code),
        (Standing::Fenced, code::APPLY_FAILED)
    );
    assert!(!system.root.exists(CONFIGURED));
    (system, status)
}

/// What the machine becomes while it listens.
fn hears(system: &Folder, shown: &Status, candidate: Candidate) -> Option<Status> {
    let found = found(vec![candidate]);
    offered(&system.root, &found, &mut BTreeSet::new(), shown)
}

fn state(system: &Folder) -> State {
    State::load(&system.root).expect("good").expect("there")
}

#[test]
fn what_cannot_be_put_in_place_is_corrected_without_a_restart() {
    let (key, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    for is_restarted in [false, true] {
        let first = signed(key.path(), "vdb", &with_bob(3));
        let (system, shown) = fenced_machine(first.clone());
        let become_with = |candidate: Candidate| {
            let status = if is_restarted {
                go_on(&system.root, &found(vec![candidate]))
            } else {
                hears(&system, &shown, candidate)
            };
            status.expect("a status")
        };
        let still = become_with(first);
        assert_eq!((still.standing, still.refused), (Standing::Fenced, 0));
        assert!(still.notes[0].contains("without a restart"), "{still:?}");
        for (stranger, refused) in [
            (attached("vdc", &with_serial(4)), code::SIGNATURE),
            (
                signed(other.path(), "vdc", &with_serial(4)),
                code::SIGNATURE,
            ),
            (signed(key.path(), "vdc", &with_serial(3)), code::OLDER),
        ] {
            let status = become_with(stranger);
            assert_eq!(
                (status.standing, status.code, status.refused),
                (Standing::Fenced, code::APPLY_FAILED, refused)
            );
        }
        let status = become_with(signed(key.path(), "vdc", &with_serial(4)));
        assert_eq!(
            (status.standing, status.serial, status.refused),
            (Standing::Starting, 4, 0),
            "{status:?}"
        );
        assert!(system.root.exists(CONFIGURED));
        assert_eq!(system.text("/etc/hostname"), "web-4\n");
        // Nothing of the one that failed is left, nor gone back to.
        assert!(!system.text("/etc/passwd").contains("bob"));
        let state = state(&system);
        assert_eq!((state.phase, state.previous), (Phase::Active, None));
        assert_eq!(state.serial_floor, 4);
    }
}

#[test]
fn another_that_cannot_be_put_in_place_does_not_end_the_listening() {
    let key = tempfile::tempdir().expect("a folder");
    let (system, shown) = fenced_machine(signed(key.path(), "vdb", &with_bob(3)));
    let shown = hears(&system, &shown, signed(key.path(), "vdb", &with_bob(4)));
    let shown = shown.expect("a status");
    assert_eq!(
        (shown.standing, shown.code),
        (Standing::Fenced, code::APPLY_FAILED)
    );
    let status = hears(&system, &shown, signed(key.path(), "vdb", &with_serial(5)));
    let status = status.expect("a status");
    assert_eq!((status.standing, status.serial), (Standing::Starting, 5));
}

#[test]
fn a_machine_without_keys_is_corrected_with_the_claim_code() {
    let (system, shown) = fenced_machine(attached("vdb", &with_bob(3)));
    let mut next = attached("vdb", &with_serial(4));
    let status = hears(&system, &shown, next.clone()).expect("a status");
    assert_eq!(status.refused, code::SIGNATURE);
    let claim = wanted_claim(&system.root).expect("a code");
    next.files.insert("claim.txt".into(), claim.into_bytes());
    let status = hears(&system, &shown, next).expect("a status");
    assert_eq!((status.standing, status.serial), (Standing::Starting, 4));
}

/// The signer of the one before still counts while its manifest is whole;
/// without that, only who is at the machine: a pinned key may be an old one.
#[test]
fn a_damaged_configuration_makes_way_for_the_next() {
    let (key, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    for (part, needs_claim) in [("site.toml", false), ("manifest.toml", true)] {
        let system = system();
        let first = found(vec![signed(key.path(), "vdb", &with_bob(3))]);
        let pinned = system.path().join("usr/lib/consign/customer.pub");
        std::fs::copy(key.path().join("key.pub"), pinned).expect("pinned");
        take(&system.root, &first);
        let path = format!("var/lib/consign/gen/0001/{part}");
        std::fs::write(system.path().join(path), "rubbish").expect("damaged");
        std::fs::remove_dir_all(system.path().join("run")).expect("a new start");
        let shown = go_on(&system.root, &found(Vec::new())).expect("configured");
        assert_eq!(shown.standing, Standing::Fenced);
        let stranger = signed(other.path(), "vdb", &with_serial(4));
        let status = hears(&system, &shown, stranger).expect("a status");
        assert_eq!(status.refused, code::SIGNATURE);
        let elsewhere = with_serial(4).replace("\"acme\"", "\"acme-2\"");
        let status = hears(&system, &shown, signed(key.path(), "vdb", &elsewhere));
        assert_ne!(status.expect("a status").refused, 0);
        let mut next = signed(key.path(), "vdb", &with_serial(4));
        if needs_claim {
            let status = hears(&system, &shown, next.clone()).expect("a status");
            assert_eq!(status.refused, code::SIGNATURE);
            let claim = wanted_claim(&system.root).expect("a code");
            next.files.insert("claim.txt".into(), claim.into_bytes());
        }
        // At a start it is taken as well.
        let status = go_on(&system.root, &found(vec![next])).expect("a status");
        assert_eq!(
            (status.standing, status.serial),
            (Standing::Starting, 4),
            "{part}: {status:?}"
        );
        assert!(system.root.exists(CONFIGURED));
        // What was known of the damaged one is gone with it.
        let has_bob = system.text("/etc/passwd").contains("bob");
        assert_eq!(has_bob, needs_claim);
        let state = state(&system);
        assert_eq!((state.phase, state.previous), (Phase::Active, None));
        assert!(Generation::load(&system.root, &state).is_ok());
    }
}

/// Somebody applied a configuration at the machine while it listened.
#[test]
fn a_machine_that_was_configured_meanwhile_takes_no_first_configuration() {
    let (key, system) = (tempfile::tempdir().expect("a folder"), system());
    let shown = take(&system.root, &found(Vec::new()));
    assert_eq!(shown.standing, Standing::Waiting);
    take(
        &system.root,
        &found(vec![signed(key.path(), "vdb", &with_serial(3))]),
    );
    let unsigned = || attached("vdc", &with_serial(9));
    assert_eq!(hears(&system, &shown, unsigned()), None);
    // Nor by any other way.
    let status = take(&system.root, &found(vec![unsigned()]));
    assert_eq!(status.code, code::APPLY_KEPT, "{status:?}");
    assert_eq!(system.text("/etc/hostname"), "web-3\n");
    let state = state(&system);
    assert_eq!(state.generation.number, 1);
    assert!(Generation::load(&system.root, &state).is_ok());
    // One that was applied, and could not be put in place, has its rules too.
    system.root.remove(CONFIGURED).expect("fenced");
    let status = hears(&system, &shown, unsigned()).expect("a status");
    assert_eq!(
        (status.standing, status.serial, status.refused),
        (Standing::Starting, 3, code::SIGNATURE)
    );
    system.root.remove(CONFIGURED).expect("fenced");
    let next = signed(key.path(), "vdc", &with_serial(9));
    let status = hears(&system, &shown, next).expect("a status");
    assert_eq!((status.standing, status.serial), (Standing::Starting, 9));
}

#[test]
fn what_cannot_be_kept_now_is_looked_at_again() {
    let system = system();
    let waiting = take(&system.root, &found(Vec::new()));
    assert!(!may_be_kept_later(&waiting));
    // As a full disk does, it lets nothing be kept.
    let place = system.path().join("var/lib/consign");
    std::fs::create_dir_all(&place).expect("a folder");
    std::fs::write(place.join("gen"), "").expect("in the way");
    let disk = found(vec![attached("vdb", &good())]);
    let mut refused = BTreeSet::new();
    let shown = offered(&system.root, &disk, &mut refused, &waiting).expect("a status");
    assert_eq!(
        (shown.standing, shown.code),
        (Standing::Waiting, code::APPLY_FAILED)
    );
    assert!(may_be_kept_later(&shown));
    std::fs::remove_file(place.join("gen")).expect("room");
    let status = offered(&system.root, &disk, &mut refused, &shown).expect("a status");
    assert_eq!(status.standing, Standing::Starting, "{status:?}");
}

/// Any disk that comes or goes is a reason to look again.
#[test]
fn what_is_no_longer_in_the_way_needs_no_new_configuration() {
    let first = attached("vdb", &with_bob(3));
    let (system, shown) = fenced_machine(first.clone());
    let keys = system.path().join("etc/ssh/authorized_keys.d/bob");
    std::fs::remove_dir_all(keys).expect("gone");
    let status = hears(&system, &shown, first).expect("a status");
    assert_eq!(
        (status.standing, status.serial, status.refused),
        (Standing::Starting, 3, 0)
    );
    assert!(system.root.exists(CONFIGURED));
}

/// The files of who is gone stay, and are nobody else's.
#[test]
fn a_number_is_its_owners_for_ever() {
    let key = tempfile::tempdir().expect("a folder");
    let system = system();
    let with = |serial: u64, names: &[&str]| {
        let users = names
            .iter()
            .map(|name| format!("[user.{name}]\nssh_keys = [\"{KEY}\"]\n"));
        let site = with_serial(serial).replace("user.ann", "user.eve");
        signed(key.path(), "vdb", &(site + &users.collect::<String>()))
    };
    let number = |name: &str| {
        let state = state(&system);
        let generation = Generation::load(&system.root, &state).expect("loaded");
        let items = generation.items.iter();
        let mut accounts = items.filter_map(|item| match item {
            crate::item::Item::Account(account) => Some(account),
            _ => None,
        });
        let account = accounts.find(|account| account.name == name);
        account.expect("an account").id
    };
    take(&system.root, &found(vec![with(3, &["ann"])]));
    let ann = number("ann");
    for (serial, names) in [
        (4, vec![]),
        (5, vec!["carl"]),
        (6, vec!["dora"]),
        (7, vec!["ann", "carl", "dora"]),
    ] {
        assert_eq!(code_of(&system, with(serial, &names)), (0, serial));
        confirm(&system.root).expect("confirmed");
        // A new slot knows nobody, and what they own may be elsewhere.
        let text = "root:x:0:0:root:/root:/bin/bash\n";
        std::fs::write(system.path().join("etc/passwd"), text).expect("written");
        std::fs::remove_dir_all(system.path().join("home")).expect("no homes");
        for name in names.iter().filter(|name| **name != "ann") {
            assert_ne!(number(name), ann, "{name}");
        }
    }
    assert_eq!(number("ann"), ann);
    assert_ne!(number("carl"), number("dora"));
}
