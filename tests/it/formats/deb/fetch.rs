//! Fetching pinned packages: faults of mirrors, networks and the cache.

use std::path::PathBuf;

use consign::digest::Digest;
use consign::layer::source::deb::{
    Access, AptSettings, Client, HostEnvironment, Network, Repository, SourceError, fetch,
};
use consign::layer::spec::PackagePin;
use consign::report::{Event, Outcome, Recorder};

use super::archive::{TestArchive, resolve_from, warnings};
use super::server::{Fault, Server};
use super::signer::NOW;

const BYTES: &[u8] = b"hello, package";

/// An archive behind a server, and the pin of its package.
struct Fixture {
    archive: TestArchive,
    server: Server,
    pins: Vec<PackagePin>,
}

impl Fixture {
    fn new() -> Self {
        let archive = TestArchive::new();
        let server = Server::start(&archive.path(""));
        let resolution = archive.resolve().expect("it resolves");
        Self {
            archive,
            server,
            pins: resolution.layers[0].pins.clone(),
        }
    }

    fn repositories(&self) -> Vec<Repository> {
        vec![self.archive.repository_at(&self.server.address())]
    }

    fn fetch(&self, network: Network) -> (Result<Vec<PathBuf>, SourceError>, Recorder) {
        self.fetch_with(&Client::new(AptSettings::default(), network))
    }

    fn fetch_with(&self, client: &Client) -> (Result<Vec<PathBuf>, SourceError>, Recorder) {
        let recorder = Recorder::default();
        let cache = self.archive.cache();
        let access = Access {
            client,
            cache: &cache,
            now: NOW,
            reporter: &recorder,
        };
        let outcome = fetch(&self.pins, &self.repositories(), &access);
        (outcome, recorder)
    }

    fn error(&self) -> SourceError {
        let (outcome, _) = self.fetch(Network::Online);
        assert_eq!(self.kept(), [] as [&str; 0], "nothing wrong may be kept");
        outcome.expect_err("it must fail")
    }

    /// Names in the package cache, hidden ones too.
    fn kept(&self) -> Vec<String> {
        let folder = self.archive.cache().join("debs");
        let found = consign::tree::list_folder(&folder).expect("a folder");
        found
            .into_iter()
            .map(|it| it.name.to_string_lossy().into_owned())
            .collect()
    }

    fn package_requests(&self) -> usize {
        let is_package = |request: &&Vec<String>| request[0].contains(".deb ");
        self.server.requests().iter().filter(is_package).count()
    }
}

fn outcome_of(recorder: &Recorder) -> (Outcome, String) {
    let finished = |event| match event {
        Event::StepFinished {
            outcome, detail, ..
        } => Some((outcome, detail)),
        _ => None,
    };
    recorder
        .events()
        .into_iter()
        .find_map(finished)
        .expect("it finished")
}

#[test]
fn packages_are_fetched_once_and_checked_each_time() {
    let fixture = Fixture::new();
    let (outcome, recorder) = fixture.fetch(Network::Online);
    let paths = outcome.expect("it comes");
    assert_eq!(std::fs::read(&paths[0]).expect("a file"), BYTES);
    assert_eq!(fixture.kept(), [format!("{}.deb", Digest::of(BYTES).hex())]);
    assert_eq!(
        outcome_of(&recorder),
        (
            Outcome::Done,
            "1 packages, 14 B, 1 of them downloaded".into()
        )
    );
    let (outcome, recorder) = fixture.fetch(Network::Offline);
    assert_eq!(outcome.expect("it is there"), paths);
    assert_eq!(
        outcome_of(&recorder),
        (
            Outcome::Cached,
            "1 packages, 14 B, in the cache and checked".into()
        )
    );
    assert_eq!(fixture.package_requests(), 1);
}

#[test]
fn many_packages_come_over_few_connections_in_order() {
    let mut archive = TestArchive::new();
    for number in 0..40 {
        archive.add(
            &format!("p{number}"),
            "1",
            format!("package {number}").as_bytes(),
        );
    }
    let mut fixture = Fixture::new();
    fixture.pins = (0..40)
        .map(|number| {
            let bytes = format!("package {number}");
            PackagePin {
                name: format!("p{number}"),
                version: "1".into(),
                path: format!("pool/main/p{number}_1_all.deb"),
                size: bytes.len() as u64,
                sha256: Digest::of(bytes.as_bytes()),
                ..fixture.pins[0].clone()
            }
        })
        .collect();
    fixture.server = Server::start(&archive.path(""));
    let (outcome, _) = fixture.fetch(Network::Online);
    for (number, path) in outcome.expect("they come").iter().enumerate() {
        let bytes = std::fs::read_to_string(path).expect("a file");
        assert_eq!(bytes, format!("package {number}"));
    }
    let connections = fixture.server.connections();
    assert!((1..=6).contains(&connections), "{connections} connections");
}

#[test]
fn a_package_with_another_digest_is_refused_and_not_kept() {
    let fixture = Fixture::new();
    fixture.server.fail(".deb", Fault::Flip);
    let error = fixture.error();
    let mut flipped = BYTES.to_vec();
    flipped[BYTES.len() / 2] ^= 1;
    assert_eq!(
        error.to_string(),
        format!(
            "`{}/pool/main/hello_1.0_all.deb` has digest `{}`, but `{}` is locked",
            fixture.server.address(),
            Digest::of(&flipped),
            Digest::of(BYTES)
        )
    );
    assert_eq!(
        (error.slug(), error.class().code()),
        ("source-wrong-digest", 3)
    );
    assert!(
        error
            .hint()
            .expect("a hint")
            .contains("nothing of it was kept")
    );
}

#[test]
fn a_package_of_another_size_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.archive.path(&fixture.pins[0].path);
    std::fs::write(&path, b"much longer than it was before").expect("write");
    let error = fixture.error();
    let address = fixture.server.address();
    assert_eq!(
        error.to_string(),
        format!("`{address}/pool/main/hello_1.0_all.deb` has more, but 14 bytes are locked")
    );
    std::fs::write(&path, b"short").expect("write");
    let error = fixture.error();
    assert!(
        error
            .to_string()
            .ends_with("has 5 bytes, but 14 bytes are locked"),
        "{error}"
    );
}

#[test]
fn a_package_that_is_gone_under_a_lock_has_an_error_of_its_own() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.archive.path(&fixture.pins[0].path)).expect("remove");
    let error = fixture.error();
    assert_eq!(
        error.to_string(),
        "package `hello` 1.0 is locked, but gone from the mirror"
    );
    assert_eq!((error.slug(), error.class().code()), ("source-gone", 1));
    let hint = error.hint().expect("a hint");
    assert!(
        hint.contains("consign lock --update") && hint.contains("delete appliance.lock"),
        "{hint}"
    );
}

#[test]
fn a_pin_of_another_suite_is_named() {
    let mut fixture = Fixture::new();
    fixture.pins[0].suite = "trixie".into();
    let error = fixture.error();
    assert_eq!(
        error.to_string(),
        "package `hello` is locked from suite `trixie`, which is not among the sources"
    );
}

#[test]
fn a_pin_that_leads_out_of_the_repository_is_refused() {
    let mut fixture = Fixture::new();
    fixture.pins[0].path = "../../../../etc/passwd".into();
    let error = fixture.error();
    assert_eq!(error.slug(), "source-malformed");
    assert_eq!(fixture.package_requests(), 0);
}

#[test]
fn broken_transfers_and_busy_servers_are_tried_again() {
    for fault in [Fault::Cut, Fault::Status(503), Fault::Redirect] {
        let fixture = Fixture::new();
        fixture.server.fail(".deb", fault);
        let (outcome, _) = fixture.fetch(Network::Online);
        let paths = outcome.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(std::fs::read(&paths[0]).expect("a file"), BYTES);
        assert_eq!(fixture.package_requests(), 2, "{fault:?}");
    }
}

#[test]
fn a_refusal_is_not_tried_again() {
    let fixture = Fixture::new();
    fixture.server.fail(".deb", Fault::Status(403));
    let error = fixture.error();
    let address = fixture.server.address();
    assert_eq!(
        error.to_string(),
        format!("`{address}/pool/main/hello_1.0_all.deb` cannot be fetched: the server says 403")
    );
    assert_eq!(fixture.package_requests(), 1);
}

#[test]
fn a_poisoned_package_in_the_cache_is_dropped_and_fetched_again() {
    let fixture = Fixture::new();
    let path = fixture
        .fetch(Network::Online)
        .0
        .expect("it comes")
        .remove(0);
    let mut damaged = BYTES.to_vec();
    damaged[3] ^= 1;
    for poison in [&damaged[..], b"", b"longer than the package is"] {
        std::fs::write(&path, poison).expect("write");
        let (outcome, recorder) = fixture.fetch(Network::Online);
        assert_eq!(
            std::fs::read(&outcome.expect("it comes")[0]).expect("a file"),
            BYTES
        );
        let message = format!(
            "`{}` in the cache is damaged, and is fetched again",
            path.display()
        );
        assert_eq!(warnings(&recorder), [message]);
    }
    std::fs::write(&path, damaged).expect("write");
    let error = fixture
        .fetch(Network::Offline)
        .0
        .expect_err("no network to mend it");
    assert_eq!(
        error.to_string(),
        "package `hello` 1.0 is not in the cache, and the build is offline"
    );
}

#[test]
fn a_plain_proxy_is_asked_in_the_absolute_form_with_its_password() {
    let fixture = Fixture::new();
    let proxy = fixture.server.address().replace("http://", "http://u:p@");
    let host = HostEnvironment {
        search_path: std::ffi::OsStr::new(""),
        http_proxy: Some(&proxy),
        https_proxy: None,
        no_proxy: Some("elsewhere.example"),
    };
    let settings = AptSettings::parse("", &host).expect("a proxy");
    let recorder = Recorder::default();
    let cache = fixture.archive.cache();
    let client = Client::new(settings, Network::Online);
    let access = Access {
        client: &client,
        cache: &cache,
        now: NOW,
        reporter: &recorder,
    };
    // A name that only the proxy could find.
    let repository = fixture.archive.repository_at("http://mirror.invalid/deb");
    let from = fixture.archive.path("pool");
    let to = fixture.archive.path("deb/pool");
    std::fs::create_dir_all(to.parent().expect("it has one")).expect("a folder");
    std::fs::rename(from, to).expect("it moves");
    fetch(&fixture.pins, &[repository], &access).expect("the proxy has it");
    let request = fixture.server.requests().pop().expect("a request");
    assert_eq!(
        request[0],
        "GET http://mirror.invalid/deb/pool/main/hello_1.0_all.deb HTTP/1.1"
    );
    let has = |header: &str| request.iter().any(|line| line.eq_ignore_ascii_case(header));
    assert!(has("host: mirror.invalid"), "{request:?}");
    assert!(has("proxy-authorization: Basic dTpw"), "{request:?}");
}

#[test]
fn a_mirror_that_cannot_be_reached_is_named_with_what_to_do() {
    let archive = TestArchive::new();
    let repository = archive.repository_at("http://bob:s3cr3t@127.0.0.1:1/debian");
    let error = resolve_from(&[repository], &archive.cache())
        .0
        .expect_err("nobody is there");
    assert!(
        error
            .to_string()
            .starts_with("cannot reach `127.0.0.1:1`: "),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("s3cr3t"));
    assert_eq!(
        (error.slug(), error.class().code()),
        ("source-unreachable", 1)
    );
    assert_eq!(
        error.hint().as_deref(),
        Some(
            "check the network, set http_proxy or Acquire::http::Proxy, or name another mirror in \
             CONSIGN_MIRROR"
        )
    );
}
