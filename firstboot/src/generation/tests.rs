use super::*;
use crate::item::Account;
use crate::root::testing::Folder;
use consign_schema::Secret;

fn sample() -> Generation {
    Generation {
        site: b"schema = 1\n".to_vec(),
        id: "acme-01".into(),
        serial: 3,
        role: Some("web".into()),
        image: "build \"1\"".into(),
        items: vec![
            Item::text("/etc/motd", 0o640, "hello\n"),
            Item::text("/run/x", 0o644, ""),
            Item::Link {
                path: "/etc/localtime".into(),
                target: "../usr/share/zoneinfo/UTC".into(),
            },
            Item::HostsName { name: "web".into() },
            Item::Account(Account {
                name: "ann".into(),
                id: 1000,
                home: "/home/ann".into(),
                shell: "/bin/sh".into(),
                password_hash: Some(Secret::new("$6$a$b".into())),
                groups: vec!["sudo".into()],
            }),
        ],
        secrets: Some(b"age".to_vec()),
        credentials: BTreeMap::new(),
        keys: vec!["ssh-ed25519 x".into()],
        releases: [("00".into(), None), ("01".into(), Some("web".into()))].into(),
        ..Generation::default()
    }
}

fn first(folder: &Folder) -> (Generation, State) {
    let mut generation = sample();
    let state = generation.commit(&folder.root, None, Then::Trial);
    (generation, state.expect("committed"))
}

#[test]
fn a_generation_is_read_as_it_was_committed() {
    let folder = Folder::with(&[("/etc/motd", "vendor\n")]);
    let (mut generation, state) = first(&folder);
    assert_eq!(
        (state.generation.number, state.previous, state.phase),
        (1, None, Phase::Committed)
    );
    assert_eq!(
        State::load(&folder.root).expect("a state"),
        Some(state.clone())
    );
    let loaded = Generation::load(&folder.root, &state).expect("loaded");
    assert_eq!(loaded, generation);
    assert_eq!(loaded.originals.len(), 1);
    let before = Some((&state, &loaded));
    let next = generation.commit(&folder.root, before, Then::Stay);
    let next = next.expect("committed");
    assert_eq!(
        (next.generation.number, next.previous),
        (2, Some(state.generation))
    );
}

#[test]
fn a_second_activation_writes_nothing() {
    let folder = Folder::new();
    let (generation, mut state) = first(&folder);
    let done = generation.activate(&folder.root, &mut state);
    assert!(!done.expect("activated").is_same());
    let mut state = State::load(&folder.root).expect("a state").expect("there");
    assert_eq!((state.phase, state.serial_floor), (Phase::Active, 3));
    let done = generation.activate(&folder.root, &mut state);
    assert!(done.expect("activated").is_same());
    assert_eq!(folder.text("/etc/motd"), "hello\n");
    assert_eq!(folder.text(CONFIGURED), "");
}

#[test]
fn any_damaged_part_is_noticed() {
    for part in [
        "manifest.toml",
        "site.toml",
        &format!("files/{}", Digest::of(b"hello\n")),
    ] {
        let folder = Folder::new();
        let (_, state) = first(&folder);
        let path = folder.path().join("var/lib/consign/gen/0001").join(part);
        let mut bytes = std::fs::read(&path).expect(part);
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).expect(part);
        assert!(
            matches!(
                Generation::load(&folder.root, &state),
                Err(GenerationError::Damaged(1))
            ),
            "{part}"
        );
    }
}

#[test]
fn a_piece_that_cannot_be_written_keeps_the_fence_down() {
    let folder = Folder::with(&[("/etc/motd/in-the-way", "")]);
    let (generation, mut state) = first(&folder);
    let error = generation
        .activate(&folder.root, &mut state)
        .expect_err("a folder is in the way");
    assert!(
        error
            .to_string()
            .starts_with("/etc/motd cannot be written: "),
        "{error}"
    );
    assert!(!folder.path().join("run/consign/configured").exists());
    let state = State::load(&folder.root).expect("a state").expect("there");
    assert_eq!(state.phase, Phase::Committed);
}

#[test]
fn only_two_generations_are_kept() {
    let folder = Folder::new();
    let (mut generation, mut state) = first(&folder);
    for _ in 0..3 {
        let before = generation.clone();
        state = generation
            .commit(&folder.root, Some((&state, &before)), Then::Stay)
            .expect("committed");
    }
    Generation::prune(&folder.root, &state).expect("pruned");
    assert_eq!(folder.root.list(FOLDER).expect("list"), ["0003", "0004"]);
    assert!(Generation::load(&folder.root, &state).is_ok());
}

#[test]
fn secrets_are_kept_where_only_root_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    first(&folder);
    let mode = |path: &str| {
        let path = folder.path().join("var/lib/consign/gen").join(path);
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    assert_eq!(
        (
            mode("0001"),
            mode("0001/manifest.toml"),
            mode("0001/site.toml")
        ),
        (0o700, 0o600, 0o600)
    );
}

/// The sample without the greeting, the name and the account, and with
/// another file.
fn other() -> Generation {
    let mut other = sample();
    other.site = b"schema = 1\n# 2\n".to_vec();
    other.serial = 4;
    other.items = vec![
        Item::text("/etc/other", 0o644, "other\n"),
        Item::text("/etc/issue", 0o644, "two\n"),
    ];
    other
}

const SYSTEM: &[(&str, &str)] = &[
    ("/etc/motd", "vendor\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n"),
    ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nsudo:x:27:\n"),
    ("/etc/shadow", "root:*:::::::\n"),
    ("/etc/gshadow", "root:*::\nsudo:*::\n"),
];

/// Every file below `/etc`, with its text.
fn etc(folder: &Folder) -> BTreeMap<String, String> {
    let names = folder.root.list("/etc").expect("list");
    let text = |name: &String| {
        let path = format!("/etc/{name}");
        let link = folder.root.read_link(&path).expect("read");
        link.unwrap_or_else(|| folder.root.read_text(&path, 4096).expect("text"))
    };
    names
        .iter()
        .map(|name| (name.clone(), text(name)))
        .collect()
}

#[test]
fn going_on_and_back_leaves_nothing_of_the_other() {
    let folder = Folder::with(SYSTEM);
    let vendor = etc(&folder);
    let (one, mut state) = first(&folder);
    one.activate(&folder.root, &mut state).expect("activated");
    let with_one = etc(&folder);
    assert_ne!(with_one, vendor);
    let mut two = other();
    let mut state = two
        .commit(&folder.root, Some((&state, &one)), Then::Trial)
        .expect("committed");
    two.activate(&folder.root, &mut state).expect("activated");
    assert_eq!((state.phase, state.serial_floor), (Phase::Trial, 3));
    let mut expected = vendor.clone();
    expected.insert("other".into(), "other\n".into());
    expected.insert("issue".into(), "two\n".into());
    assert_eq!(etc(&folder), expected);
    let mut state = state.back(Then::Forget).expect("there is one before");
    state.save(&folder.root).expect("saved");
    let back = Generation::load(&folder.root, &state).expect("loaded");
    assert_eq!(back, one);
    back.activate(&folder.root, &mut state).expect("activated");
    assert_eq!(etc(&folder), with_one);
    assert_eq!((state.phase, state.previous), (Phase::Active, None));
}

#[test]
fn what_was_on_the_way_back_is_taken_away_by_the_next() {
    let folder = Folder::with(SYSTEM);
    let vendor = etc(&folder);
    let (one, mut state) = first(&folder);
    one.activate(&folder.root, &mut state).expect("activated");
    let mut two = other();
    // Such a file would stand before one of the third.
    two.items.push(Item::text("/run/two", 0o644, ""));
    let mut state = two
        .commit(&folder.root, Some((&state, &one)), Then::Trial)
        .expect("committed");
    two.activate(&folder.root, &mut state).expect("activated");
    // The first one counts again, and nothing of it could be put in place yet.
    let back = state.back(Then::Forget).expect("there is one before");
    let mut three = sample();
    three.site = b"schema = 1\n# 3\n".to_vec();
    three.items = vec![Item::text("/etc/issue", 0o644, "three\n")];
    let mut state = three
        .commit(&folder.root, Some((&back, &one)), Then::Forget)
        .expect("committed");
    three.activate(&folder.root, &mut state).expect("activated");
    let mut expected = vendor;
    expected.insert("issue".into(), "three\n".into());
    // Neither the first nor the third says that this text was ours.
    expected.insert("issue.local".into(), "two\n".into());
    assert_eq!(etc(&folder), expected);
    // The image had no such file, whatever the one that failed wrote there.
    assert_eq!(three.originals, []);
    assert!(!folder.root.exists("/run/two") && !folder.root.exists("/run/x"));
}

#[test]
fn what_a_configuration_had_is_gone_from_an_older_slot_too() {
    let folder = Folder::with(SYSTEM);
    let vendor = etc(&folder);
    let (one, mut state) = first(&folder);
    one.activate(&folder.root, &mut state).expect("activated");
    let mut two = other();
    let mut state = two
        .commit(&folder.root, Some((&state, &one)), Then::Stay)
        .expect("committed");
    two.activate(&folder.root, &mut state).expect("activated");
    // The slot as it was under the first configuration.
    for item in &one.items {
        item.put(&folder.root).expect("put");
    }
    two.activate(&folder.root, &mut state).expect("activated");
    let now = etc(&folder);
    assert_eq!(now.get("motd"), vendor.get("motd"));
    assert_eq!(now.get("passwd"), vendor.get("passwd"));
    assert_eq!(now.get("localtime"), None);
}

#[test]
fn a_local_change_is_kept_once() {
    let folder = Folder::with(SYSTEM);
    let (one, mut state) = first(&folder);
    let done = one.activate(&folder.root, &mut state).expect("activated");
    assert_eq!(done.drifted, [] as [&str; 0]);
    for text in ["mine\n", "mine too\n"] {
        std::fs::write(folder.path().join("etc/motd"), text).expect("changed");
        let done = one.activate(&folder.root, &mut state).expect("activated");
        assert_eq!(done.drifted, ["/etc/motd"]);
        assert_eq!(folder.text("/etc/motd"), "hello\n");
        assert_eq!(folder.text("/etc/motd.local"), "mine\n");
    }
}
