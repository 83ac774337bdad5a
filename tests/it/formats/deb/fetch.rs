//! Fetching pinned packages: faults of mirrors, networks and the cache.

use std::path::PathBuf;

use consign::digest::Digest;
use consign::layer::source::deb::{
    Access, AptSettings, Client, HostEnvironment, Network, Repository, SourceError, fetch, resolve,
};
use consign::layer::spec::PackagePin;
use consign::report::{Event, Outcome, Recorder};

use super::archive::{TestArchive, hello, resolve_from, warnings};
use super::server::{Fault, Server};
use super::signer::NOW;
use crate::support::{is_root, must_run, note, program, run, temp_folder};

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
fn a_broken_transfer_goes_on_where_it_ended() {
    let fixture = Fixture::new();
    fixture.server.fail(".deb", Fault::Cut);
    fixture.fetch(Network::Online).0.expect("it comes");
    let requests = fixture.server.requests();
    let second = requests.last().expect("a second request");
    let half = BYTES.len() / 2;
    let asks = format!("range: bytes={half}-");
    assert!(
        second.iter().any(|line| line.eq_ignore_ascii_case(&asks)),
        "{second:?}"
    );
}

#[test]
fn a_silent_server_is_named_after_a_while() {
    let fixture = Fixture::new();
    for _ in 0..4 {
        fixture.server.fail(".deb", Fault::Silence);
    }
    let patience = std::time::Duration::from_millis(200);
    let client = Client::new(AptSettings::default(), Network::Online).with_patience(patience);
    let error = fixture.fetch_with(&client).0.expect_err("nobody answers");
    let host = fixture.server.address().replace("http://", "");
    assert_eq!(
        error.to_string(),
        format!("cannot reach `{host}`: it does not answer in time")
    );
}

#[test]
fn a_name_that_nobody_knows_is_named() {
    let archive = TestArchive::new();
    let repository = archive.repository_at("http://mirror.invalid/debian");
    let error = resolve_from(&[repository], &archive.cache())
        .0
        .expect_err("there is no such name");
    let said = error.to_string();
    let start = "cannot reach `mirror.invalid`: its name ";
    assert!(said.starts_with(start), "{said}");
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let fixture = Fixture::new();
    let host = HostEnvironment {
        search_path: std::ffi::OsStr::new(""),
        http_proxy: Some("http://user:s3cr3t@127.0.0.1:1"),
        https_proxy: None,
        no_proxy: None,
    };
    let settings = AptSettings::parse("", &host).expect("settings");
    let client = Client::new(settings, Network::Online);
    let error = fixture.fetch_with(&client).0.expect_err("no proxy");
    let said = error.to_string();
    assert!(said.contains("through the proxy `127.0.0.1:1`: "), "{said}");
    assert!(!said.contains("s3cr3t"));
}

/// A server with a certificate that nobody signed.
#[test]
fn a_certificate_that_is_not_trusted_is_said_so() {
    let Some(mut make) = program("openssl", "openssl") else {
        return;
    };
    let folder = temp_folder();
    let at = |name: &str| folder.path().join(name);
    make.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
    ]);
    make.args([
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
    ]);
    must_run(make.arg(at("key")).arg("-out").arg(at("cert")));
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let mut serve = program("openssl", "openssl").expect("it was there before");
    serve.args([
        "s_server",
        "-quiet",
        "-accept",
        &format!("127.0.0.1:{port}"),
        "-key",
    ]);
    let mut server = serve
        .arg(at("key"))
        .arg("-cert")
        .arg(at("cert"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a server");
    let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    for _ in 0..100 {
        if is_up() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let archive = TestArchive::new();
    let repository = archive.repository_at(&format!("https://localhost:{port}/debian"));
    let outcome = resolve_from(&[repository], &archive.cache()).0;
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    let error = outcome.expect_err("nobody signed it");
    let said = error.to_string();
    assert!(said.contains("its certificate is not trusted ("), "{said}");
    assert!(
        error
            .hint()
            .expect("a hint")
            .contains("Acquire::https::CaInfo"),
        "{:?}",
        error.hint()
    );
}

/// A tmpfs of 256 KiB as the cache, and a package of 1 MiB.
#[test]
fn a_full_disk_is_said_so_and_nothing_half_made_stays() {
    let mut archive = TestArchive::new();
    archive.add("large", "1", &vec![7; 1 << 20]);
    archive.publish();
    let folder = temp_folder();
    let Some(mut mount) = program("mount", "mount").filter(|_| is_root()) else {
        return note("no small disk: needs root");
    };
    let output = run(mount
        .args(["-t", "tmpfs", "-o", "size=256k", "none"])
        .arg(folder.path()));
    if !output.status.success() {
        return note("no small disk: mounts are forbidden here");
    }
    let mut request = hello();
    request.layers[0].packages = vec!["large".into()];
    let client = Client::new(AptSettings::default(), Network::Online);
    let access = Access {
        client: &client,
        cache: folder.path(),
        now: NOW,
        reporter: &Recorder::default(),
    };
    let repositories = [archive.repository()];
    let resolution = resolve(&request, &repositories, &access).expect("it resolves");
    let error = fetch(&resolution.layers[0].pins, &repositories, &access).expect_err("no room");
    let left = consign::tree::list_folder(&folder.path().join("debs")).expect("a folder");
    let mut umount = program("umount", "mount").expect("it comes with mount");
    must_run(umount.arg(folder.path()));
    assert_eq!(left.len(), 0, "{left:?}");
    assert_eq!(error.slug(), "source-cache");
    assert!(
        error
            .hint()
            .expect("a hint")
            .starts_with("make room on that disk"),
        "{:?}",
        error.hint()
    );
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
