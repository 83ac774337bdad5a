//! Signed lists and package lists: what is refused, and what is kept.

use consign::layer::source::deb::{
    Access, AptSettings, Base, Client, Expiry, LayerRequest, Network, OwnSource, Presence,
    Repository, Request, Resolution, SourceError, Trust, own_repositories, resolve,
};
use consign::report::Recorder;

use super::judge::clock;
use crate::support::vendor::VendorRepository;
use crate::support::{program, run};

use super::archive::{DATE, TestArchive, hello, resolve_from, warnings};
use super::server::{Fault, Server};
use super::signer::{NOW, Style};

fn resolve_error(archive: &TestArchive) -> SourceError {
    archive.resolve().expect_err("it must be refused")
}

/// The one file in a folder of the cache.
fn only_file(archive: &TestArchive, folder: &str) -> std::path::PathBuf {
    let found = consign::tree::list_folder(&archive.cache().join(folder)).expect("a folder");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].path.clone()
}

fn resolve_offline(archive: &TestArchive, repository: &Repository) -> Result<(), SourceError> {
    let client = Client::new(AptSettings::default(), Network::Offline);
    let recorder = Recorder::default();
    let cache = archive.cache();
    let access = Access {
        client: &client,
        cache: &cache,
        now: NOW,
        reporter: &recorder,
    };
    resolve(&hello(), std::slice::from_ref(repository), &access).map(drop)
}

#[test]
fn a_good_archive_gives_pins_and_facts() {
    let archive = TestArchive::new();
    let resolution = archive.resolve().expect("it resolves");
    let pin = &resolution.layers[0].pins[0];
    assert_eq!((pin.name.as_str(), pin.version.as_str()), ("hello", "1.0"));
    assert_eq!(
        (pin.suite.as_str(), pin.path.as_str()),
        ("bookworm", "pool/main/hello_1.0_all.deb")
    );
    let date = resolution.newest_date().expect("a date").to_string();
    assert_eq!(date, "2023-11-14T22:13:20Z");
    let debug = format!("{resolution:?}");
    assert!(
        !debug.contains("file:"),
        "no address may get into pins: {debug}"
    );
}

#[test]
fn an_expired_release_is_refused_and_the_hosts_setting_honoured_with_a_warning() {
    let mut archive = TestArchive::new();
    archive
        .head
        .insert("Valid-Until", "Tue, 21 Nov 2023 22:13:20 UTC".into());
    archive.publish();
    let error = resolve_error(&archive);
    let address = archive.repository().addresses[0].to_string();
    assert_eq!(
        error.to_string(),
        format!(
            "the package list of suite `bookworm` from {address} expired on 2023-11-21T22:13:20Z"
        )
    );
    assert_eq!((error.slug(), error.class().code()), ("source-expired", 3));
    let lax = Repository {
        expiry: Expiry::Ignored,
        ..archive.repository()
    };
    let (outcome, warnings) = resolve_from(&[lax], &archive.cache());
    outcome.expect("the host does not check it");
    assert_eq!(
        warnings,
        [
            "apt's settings on this host switch off the expiry check of `bookworm`, so that an old \
             package list would not be noticed"
        ]
    );
}

#[test]
fn another_suite_under_the_name_is_refused() {
    let mut archive = TestArchive::new();
    archive.head.insert("Codename", "bullseye".into());
    archive.publish();
    let error = resolve_error(&archive);
    assert!(
        error
            .to_string()
            .ends_with("answers suite `bookworm` with the package list of `bullseye (oldstable)`"),
        "{error}"
    );
    assert_eq!(error.class().code(), 3);
}

#[test]
fn a_package_list_with_another_digest_is_refused_and_not_kept() {
    let archive = TestArchive::new();
    let server = Server::start(&archive.path(""));
    server.fail("Packages.gz", Fault::Flip);
    let repository = archive.repository_at(&server.address());
    let (outcome, _) = resolve_from(std::slice::from_ref(&repository), &archive.cache());
    let error = outcome.expect_err("a byte is wrong");
    let start = format!(
        "`{}/dists/bookworm/main/binary-amd64/Packages.gz` has digest `sha256:",
        server.address()
    );
    assert!(error.to_string().starts_with(&start), "{error}");
    assert!(error.to_string().ends_with("` is signed"), "{error}");
    assert_eq!(
        (error.slug(), error.class().code()),
        ("source-wrong-digest", 3)
    );
    assert!(!archive.cache().join("lists").exists());
    let (outcome, _) = resolve_from(&[repository], &archive.cache());
    outcome.expect("the next one is right");
}

#[test]
fn a_list_that_unpacks_to_more_than_it_says_is_refused() {
    let archive = TestArchive::new();
    let text = archive.write_lists();
    let size = |line: &str| line.split_whitespace().nth(1).expect("a size").to_owned();
    let plain = text
        .lines()
        .find(|line| line.ends_with("/Packages"))
        .expect("it is listed");
    let smaller = plain.replace(&size(plain), "10");
    archive.publish_message(
        &archive
            .signer
            .sign(&text.replace(plain, &smaller), Style::default()),
    );
    let error = resolve_error(&archive);
    assert_eq!(
        error.to_string(),
        "`main/binary-amd64/Packages.gz` of suite `bookworm` is malformed: unpacked, it is longer \
         than it says"
    );
}

#[test]
fn a_damaged_list_in_the_cache_is_fetched_again() {
    let archive = TestArchive::new();
    archive.resolve().expect("it resolves");
    let kept = only_file(&archive, "lists");
    for damage in [
        &b"not zstd"[..],
        &zstd::encode_all(&b"Package: evil\n"[..], 1).expect("memory"),
    ] {
        std::fs::write(&kept, damage).expect("write");
        let (outcome, warnings) = resolve_from(&[archive.repository()], &archive.cache());
        outcome.expect("it is fetched again");
        assert_eq!(
            warnings,
            [format!(
                "`{}` in the cache is damaged, and is fetched again",
                kept.display()
            )]
        );
    }
}

#[test]
fn offline_uses_the_lists_of_the_last_time_and_checks_them_again() {
    let archive = TestArchive::new();
    let server = Server::start(&archive.path(""));
    let repository = archive.repository_at(&server.address());
    let error = resolve_offline(&archive, &repository).expect_err("nothing is there yet");
    assert_eq!(
        error.to_string(),
        "the package list of suite `bookworm` is not in the cache, and the build is offline"
    );
    let (outcome, _) = resolve_from(std::slice::from_ref(&repository), &archive.cache());
    outcome.expect("it resolves");
    let before = server.requests().len();
    resolve_offline(&archive, &repository).expect("it is in the cache");
    assert_eq!(server.requests().len(), before);
    let kept = only_file(&archive, "releases");
    let text = std::fs::read_to_string(&kept).expect("it is text");
    std::fs::write(&kept, text.replace("oldstable", "newstable")).expect("write");
    let error = resolve_offline(&archive, &repository).expect_err("it was changed");
    assert_eq!(error.slug(), "source-bad-signature");
}

#[test]
fn a_mirror_that_goes_back_in_time_is_not_followed() {
    let mut archive = TestArchive::new();
    archive.resolve().expect("it resolves");
    archive
        .head
        .insert("Date", "Mon, 13 Nov 2023 22:13:20 UTC".into());
    archive.publish();
    let (outcome, warnings) = resolve_from(&[archive.repository()], &archive.cache());
    let date = outcome.expect("the kept list is still good").newest_date();
    assert_eq!(date.expect("a date").to_string(), "2023-11-14T22:13:20Z");
    assert!(
        warnings[0].contains("older than that of 2023-11-14T22:13:20Z"),
        "{warnings:?}"
    );
    assert_ne!(DATE, archive.head["Date"]);
}

#[test]
fn a_missing_suite_is_an_error_or_a_warning() {
    let archive = TestArchive::new();
    let other = Repository {
        suite: "bookworm-updates".into(),
        ..archive.repository()
    };
    let error = resolve_from(std::slice::from_ref(&other), &archive.cache())
        .0
        .expect_err("not there");
    let address = other.addresses[0].to_string();
    assert_eq!(
        error.to_string(),
        format!("there is no suite `bookworm-updates` at {address}")
    );
    let optional = Repository {
        presence: Presence::Optional,
        ..other
    };
    let (outcome, warnings) = resolve_from(&[archive.repository(), optional], &archive.cache());
    outcome.expect("the other suite is enough");
    assert_eq!(
        warnings,
        ["the mirror has no suite `bookworm-updates`, which is left out"]
    );
}

#[test]
fn a_missing_component_is_named() {
    let archive = TestArchive::new();
    let mut repository = archive.repository();
    repository.components = vec!["contrib".into()];
    let error = resolve_from(&[repository], &archive.cache())
        .0
        .expect_err("not there");
    assert!(
        error
            .to_string()
            .ends_with("has no packages for `contrib` on `amd64`"),
        "{error}"
    );
}

#[test]
fn a_trusted_source_needs_no_signature_but_is_told() {
    let archive = TestArchive::new();
    let text = archive.write_lists();
    archive.publish_message(&text);
    assert_eq!(resolve_error(&archive).slug(), "source-bad-signature");
    let blind = Repository {
        trust: Trust::Blind,
        ..archive.repository()
    };
    let (outcome, warnings) = resolve_from(&[blind], &archive.cache());
    outcome.expect("the host's owner said so");
    assert!(
        warnings[0].starts_with("suite `bookworm` is not checked for a signature"),
        "{warnings:?}"
    );
}

#[test]
fn lists_are_asked_for_by_their_digest_first() {
    let archive = TestArchive::new();
    let server = Server::start(&archive.path(""));
    let recorder = Recorder::default();
    let (outcome, _) = resolve_from(
        &[archive.repository_at(&server.address())],
        &archive.cache(),
    );
    outcome.expect("it resolves");
    let lines: Vec<_> = server
        .requests()
        .into_iter()
        .map(|request| request[0].clone())
        .collect();
    assert_eq!(lines[0], "GET /dists/bookworm/InRelease HTTP/1.1");
    assert!(
        lines[1].starts_with("GET /dists/bookworm/main/binary-amd64/by-hash/SHA256/"),
        "{lines:?}"
    );
    assert_eq!(
        lines[2],
        "GET /dists/bookworm/main/binary-amd64/Packages.gz HTTP/1.1"
    );
    assert_eq!(server.connections(), 1, "the connection is kept");
    assert_eq!(warnings(&recorder), [] as [&str; 0]);
}

#[test]
fn a_list_packed_with_zstd_is_read() {
    let mut archive = TestArchive::new();
    archive.packing = ".zst";
    std::fs::remove_file(archive.path("dists/bookworm/main/binary-amd64/Packages.gz"))
        .expect("it was published");
    archive.publish();
    archive.resolve().expect("it resolves");
}

/// Resolves `acme` from a vendor's repository, by the real clock.
fn from_vendor(
    vendor: &VendorRepository,
    place: &str,
    suite: &str,
) -> Result<Resolution, SourceError> {
    let key = vendor.root().join("key.asc");
    vendor.write_key(&key);
    let address = format!("file:{}", vendor.root().join(place).display());
    let source = OwnSource {
        name: "acme",
        address: Some(&address),
        suite,
        components: &[],
        key: Some(key.as_path()),
        priority: None,
        packages: &[],
    };
    let settings = AptSettings::default();
    let repositories = own_repositories(&[source], None, &settings)?;
    let client = Client::new(settings, Network::Online);
    let cache = crate::support::temp_folder();
    let access = Access {
        client: &client,
        cache: cache.path(),
        now: clock(),
        reporter: &Recorder::default(),
    };
    let request = Request {
        base: Base::Nothing,
        layers: vec![LayerRequest {
            name: "app".into(),
            packages: vec!["acme".into()],
            recommends: false,
        }],
        ..hello()
    };
    resolve(&request, &repositories, &access)
}

#[test]
fn a_signature_beside_the_list_counts_as_one_within() {
    let Some(vendor) = VendorRepository::new() else {
        return;
    };
    vendor.add("acme", "1", "");
    vendor.publish();
    vendor.sign_detached();
    let pin = from_vendor(&vendor, "", "stable")
        .expect("gpg signed it")
        .layers[0]
        .pins[0]
        .clone();
    assert_eq!(
        (pin.suite.as_str(), pin.path.as_str()),
        ("acme", "pool/acme_1_amd64.deb")
    );
    let suite = vendor.root().join("dists/stable");
    let text = std::fs::read_to_string(suite.join("Release")).expect("a file");
    std::fs::write(
        suite.join("Release"),
        text.replace("Origin: Vendor", "Origin: Vendos"),
    )
    .expect("write");
    let error = from_vendor(&vendor, "", "stable").expect_err("a byte is wrong");
    assert_eq!(error.slug(), "source-bad-signature");
    let Some(mut gpgv) = program("gpgv", "gpgv") else {
        return;
    };
    let mut key = program("gpg", "gnupg").expect("it was there before");
    let ring = suite.join("key.gpg");
    run(key
        .args(["--dearmor", "--output"])
        .arg(&ring)
        .arg(vendor.root().join("key.asc")));
    gpgv.arg("--keyring").arg(&ring);
    let output = run(gpgv
        .arg(suite.join("Release.gpg"))
        .arg(suite.join("Release")));
    assert!(!output.status.success(), "gpgv accepts what we reject");
}

#[test]
fn a_folder_without_suites_is_a_repository_too() {
    let Some(vendor) = VendorRepository::new() else {
        return;
    };
    vendor.add("acme", "2", "");
    vendor.publish_flat();
    let pin = from_vendor(&vendor, "pool", "./")
        .expect("it is signed")
        .layers[0]
        .pins[0]
        .clone();
    assert_eq!(pin.path, "acme_2_amd64.deb");
    vendor.add("acme", "3", "");
    let found = from_vendor(&vendor, "", "pool/").expect("one folder up");
    assert_eq!(found.layers[0].pins[0].version, "2");
}

#[test]
fn the_hosts_longest_time_is_honoured_and_said() {
    let archive = TestArchive::new();
    let mut repository = archive.repository();
    let year = 365 * 24 * 60 * 60;
    repository.valid_time.most.insert(String::new(), 2 * year);
    let (outcome, warnings) = resolve_from(&[repository.clone()], &archive.cache());
    outcome.expect("two years are not over");
    assert_eq!(
        warnings,
        [
            "apt's settings on this host let the package list of suite `bookworm` count until \
             2025-11-13T22:13:20Z"
        ]
    );
    repository.valid_time.most.insert(String::new(), year);
    let error = resolve_from(&[repository], &archive.cache())
        .0
        .expect_err("a year is over");
    assert_eq!(error.slug(), "source-expired");
}

#[test]
fn another_archive_with_a_suite_of_the_same_name_is_left_out() {
    let (mut debian, mut other) = (TestArchive::new(), TestArchive::new());
    debian.head.insert("Origin", "Debian".into());
    debian.publish();
    other.head.insert("Origin", "Vendor".into());
    other.add("hello", "9.0", b"another hello");
    other.publish();
    let (outcome, warnings) =
        resolve_from(&[other.repository(), debian.repository()], &debian.cache());
    let resolution = outcome.expect("Debian's is there");
    assert_eq!(resolution.layers[0].pins[0].version, "1.0");
    assert_eq!(resolution.releases.len(), 1);
    assert_eq!(
        warnings,
        ["the host's source of suite `bookworm` by `Vendor` is left out"]
    );
}

#[test]
fn priorities_come_before_versions_and_patterns_before_both() {
    let (old, mut new) = (TestArchive::new(), TestArchive::new());
    new.add("hello", "2.0", b"newer hello");
    new.head.insert("NotAutomatic", "yes".into());
    new.publish();
    let chosen = |change: &dyn Fn(&mut Repository)| {
        let mut other = new.repository();
        other.label = "acme".into();
        change(&mut other);
        let cache = crate::support::temp_folder();
        let (outcome, _) = resolve_from(&[old.repository(), other], cache.path());
        let pin = outcome.expect("it resolves").layers[0].pins[0].clone();
        format!("{} {}", pin.version, pin.suite)
    };
    assert_eq!(
        chosen(&|_| {}),
        "1.0 bookworm",
        "it asks for priority 1 itself"
    );
    assert_eq!(chosen(&|it| it.preference.priority = Some(500)), "2.0 acme");
    assert_eq!(
        chosen(&|it| it.preference.priority = Some(499)),
        "1.0 bookworm"
    );
    assert_eq!(
        chosen(&|it| {
            it.preference.priority = Some(900);
            it.preference.packages = vec!["acme-*".into()];
        }),
        "1.0 bookworm"
    );
}
