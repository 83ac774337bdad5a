//! What a start does on folders that stand for systems.

use super::*;
use crate::root::testing::Folder;
use crate::state::Then;

#[test]
fn the_loaders_last_resort_keeps_services_down() {
    let nginx = format!("{SERVICES}/nginx.service");
    let folder = Folder::with(&[
        (
            "/proc/cmdline",
            "root=x consign.slot=b consign.fenced=1 quiet\n",
        ),
        (CONFIGURED, ""),
        (&nginx, ""),
    ]);
    let root = &folder.root;
    let mut status = Status::new(Standing::Starting, code::NOT_YET, "configured");
    status.generation = 1;
    let slot = last_resort(root).expect("the loader said so");
    hold(root, &mut status, &slot);
    assert_eq!((status.standing, status.code), (Standing::Fenced, 31));
    assert_eq!(
        status.lines()[0],
        "state: fenced - no slot has tries left; slot b was started as a last resort"
    );
    assert!(!root.exists(CONFIGURED) && !root.exists(SERVICES));
}

fn starting(generation: u32, system: &str) -> Status {
    Status {
        generation,
        system: system.into(),
        ..Status::new(Standing::Starting, code::NOT_YET, "configured")
    }
}

/// A machine whose first configuration counts.
fn configured() -> Folder {
    let folder = Folder::new();
    let mut generation = Generation {
        site: b"schema = 1\n".to_vec(),
        id: "a".into(),
        serial: 3,
        ..Generation::default()
    };
    let state = generation.commit(&folder.root, None, Then::Stay);
    let mut state = state.expect("committed");
    generation
        .activate(&folder.root, &mut state)
        .expect("in place");
    folder
}

#[test]
fn a_verify_that_was_ended_is_gone_on_with() {
    let folder = configured();
    let root = &folder.root;
    // As the early step left it, there is nothing to bring up.
    assert_eq!(resumed(root, starting(1, "")), (starting(1, ""), false));
    // Its services were to be brought up.
    let begun = starting(1, "running");
    assert_eq!(resumed(root, begun.clone()), (begun, true));
    // It was taken, and nobody said so.
    for standing in [Standing::Waiting, Standing::Fenced] {
        let before = Status::new(standing, code::WAITING, "before");
        let (status, is_new) = resumed(root, before);
        assert_eq!((status.serial, status.standing), (3, Standing::Starting));
        assert!(is_new);
    }
    // What was being put in place is.
    let mut state = State::load(root).expect("good").expect("there");
    state.phase = Phase::Committed;
    state.save(root).expect("saved");
    root.remove(CONFIGURED).expect("removed");
    let (status, is_new) = resumed(root, starting(2, ""));
    assert_eq!((status.generation, is_new), (1, true));
    assert!(root.exists(CONFIGURED));
    let state = State::load(root).expect("good").expect("there");
    assert_eq!(state.phase, Phase::Active);
    let mut ready = starting(1, "running");
    ready.standing = Standing::Ready;
    assert_eq!(resumed(root, ready.clone()), (ready, false));
}

#[test]
fn what_stays_behind_the_fence_listens() {
    let folder = Folder::new();
    let fenced = |code| Status::new(Standing::Fenced, code, "x");
    let waiting = Status::new(Standing::Waiting, code::WAITING, "x");
    assert!(listens(&folder.root, &waiting));
    assert!(listens(&folder.root, &fenced(code::APPLY_FAILED)));
    assert!(!listens(&folder.root, &fenced(code::INTERNAL)));
    assert!(!listens(&folder.root, &starting(1, "")));
    let folder = Folder::with(&[("/proc/cmdline", "consign.slot=a consign.fenced=1")]);
    assert!(!listens(&folder.root, &fenced(code::APPLY_FAILED)));
}

#[test]
fn any_other_start_is_none() {
    for line in [
        "consign.slot=a consign.try=1",
        "consign.fenced=0",
        "xconsign.fenced=1",
    ] {
        let folder = Folder::with(&[("/proc/cmdline", line)]);
        assert_eq!(last_resort(&folder.root), None, "{line}");
    }
}
