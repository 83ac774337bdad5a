//! What is left of a machine after a factory reset.

use super::*;

#[test]
fn a_reset_leaves_the_machine_as_it_was_delivered() {
    let system = system();
    let before = system.text("/etc/passwd");
    take(&system.root, &found(vec![attached("vdb", &good())]));
    settle(&system.root);
    assert!(begin_reset(&system.root).expect("begun"));
    // As after a cut: the next start goes on.
    assert_eq!(go_on(&system.root, &found(Vec::new())), None);
    assert_eq!(system.text("/etc/passwd"), before);
    for gone in [
        "etc/t",
        "etc/ssh/authorized_keys.d/ann",
        "home/ann",
        "run/consign/configured",
    ] {
        assert!(!system.path().join(gone).exists(), "{gone}");
    }
    assert_eq!(
        system.root.list("/var/lib/consign").expect("list"),
        [] as [&str; 0]
    );
    assert_eq!(State::load(&system.root).expect("none"), None);
}

#[test]
fn a_reset_is_the_way_out_of_a_damaged_state() {
    let system = system();
    let before = system.text("/etc/passwd");
    take(&system.root, &found(vec![attached("vdb", &good())]));
    for copy in crate::state::FILES {
        std::fs::write(system.path().join(&copy[1..]), "rubbish").expect("damage");
    }
    let status = go_on(&system.root, &found(Vec::new())).expect("fenced");
    assert!(status.summary.contains("factory-reset"), "{status:?}");
    assert!(begin_reset(&system.root).expect("begun"));
    finish_reset(&system.root).expect("finished");
    assert_eq!(system.text("/etc/passwd"), before);
    for gone in ["etc/t", "home/ann", "run/consign/configured"] {
        assert!(!system.path().join(gone).exists(), "{gone}");
    }
    assert_eq!(State::load(&system.root).expect("none"), None);
    // Where no generation is left either, the machine is new all the same.
    take(&system.root, &found(vec![attached("vdb", &good())]));
    for copy in crate::state::FILES {
        std::fs::write(system.path().join(&copy[1..]), "").expect("damage");
    }
    std::fs::remove_dir_all(system.path().join("var/lib/consign/gen")).expect("damage");
    assert!(begin_reset(&system.root).expect("begun"));
    assert_eq!(go_on(&system.root, &found(Vec::new())), None);
    assert_eq!(State::load(&system.root).expect("none"), None);
}

#[test]
fn a_reset_knows_what_a_damaged_configuration_had_put_where() {
    let system = system();
    let before = system.text("/etc/passwd");
    take(&system.root, &found(vec![attached("vdb", &good())]));
    // Of one that was taken back, nobody knows any more.
    let bob = system.path().join("home/bob");
    std::fs::create_dir_all(&bob).expect("a home");
    let is_given = std::os::unix::fs::chown(&bob, Some(1234), Some(1234)).is_ok();
    let place = system.path().join("var/lib/consign/gen/0001/site.toml");
    std::fs::write(place, "rubbish").expect("damage");
    assert!(begin_reset(&system.root).expect("begun"));
    finish_reset(&system.root).expect("finished");
    assert_eq!(system.text("/etc/passwd"), before);
    for gone in ["etc/t", "home/ann", "etc/ssh/authorized_keys.d/ann"] {
        assert!(!system.path().join(gone).exists(), "{gone}");
    }
    assert_eq!(bob.exists(), !is_given, "only root can give a home away");
}

/// What the image had is back, and the generations that had kept it are going:
/// half of them must not say that there was nothing.
#[test]
fn a_reset_that_was_cut_while_generations_go_keeps_what_the_image_had() {
    for is_renamed in [false, true] {
        let system = system();
        std::fs::write(system.path().join("etc/t"), "of the image\n").expect("written");
        take(&system.root, &found(vec![attached("vdb", &good())]));
        assert_ne!(system.text("/etc/t"), "of the image\n");
        assert!(begin_reset(&system.root).expect("begun"));
        let state = State::load(&system.root).expect("good").expect("there");
        let generation = Generation::load(&system.root, &state).expect("whole");
        for item in generation.without() {
            item.put(&system.root).expect("put");
        }
        let kept = system.path().join("var/lib/consign");
        if is_renamed {
            std::fs::rename(kept.join("gen"), kept.join("gen.removed")).expect("renamed");
            std::fs::remove_dir_all(kept.join("gen.removed/0001/files")).expect("removed");
        }
        finish_reset(&system.root).expect("finished");
        assert_eq!(system.text("/etc/t"), "of the image\n", "{is_renamed}");
        let left = system.root.list("/var/lib/consign").expect("list");
        assert_eq!(left, [] as [&str; 0]);
    }
}

#[test]
fn a_reset_takes_what_people_left() {
    let (system, key) = (system(), tempfile::tempdir().expect("a folder"));
    let with = |serial, name: &str| {
        let site = format!(
            "{}[user.{name}]\nssh_keys = [\"{KEY}\"]\n",
            with_serial(serial)
        );
        signed(key.path(), "vdb", &site)
    };
    take(&system.root, &found(vec![with(3, "bob")]));
    let write = |path: &str| {
        let path = system.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, "CANARY").expect("written");
    };
    for path in ["home/bob/letter", "etc/hostname", "var/log/journal/0123/x"] {
        write(path);
    }
    for (serial, name) in [(4, "eve"), (5, "joe")] {
        assert_eq!(code_of(&system, with(serial, name)), (0, serial));
        confirm(&system.root).expect("confirmed");
    }
    // What is not the agent's stays.
    write("etc/other.local");
    assert_eq!(system.text("/etc/hostname.local"), "CANARY");
    assert!(begin_reset(&system.root).expect("begun"));
    finish_reset(&system.root).expect("finished");
    for gone in [
        "home/bob",
        "home/eve",
        "home/joe",
        "home/ann",
        "etc/hostname.local",
    ] {
        assert!(!system.path().join(gone).exists(), "{gone}");
    }
    let journal = system.root.list("/var/log/journal").expect("it stays");
    assert_eq!(journal, [] as [&str; 0]);
    assert!(system.path().join("var/log/journal").exists());
    assert_eq!(system.text("/etc/other.local"), "CANARY");
}
