//! Debian's own programs judge: dpkg our order of versions, apt our choices.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use consign::layer::source::deb::{
    Access, AptSettings, Base, Client, HostEnvironment, LayerRequest, Network, Offer, Repository,
    Request, Resolution, SourceError, Version, host_repositories, read_settings, resolve,
};
use consign::layer::spec::PackagePin;
use consign::report::Silent;
use consign::units::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::archive::TestArchive;
use super::signer::NOW;
use crate::support::{TestFolder, must_run, program, run, search_path, skip, temp_folder};

#[test]
fn versions_sort_as_dpkg_sorts_them() {
    if program("dpkg", "dpkg").is_none() {
        return;
    }
    // Few characters, so that pairs differ by little; the upstream part
    // begins with a digit, else dpkg complains.
    let version = "([0-2]:)?[0-2][0-9a-c.+~-]{0,6}(-[0-9a-c.+~]{1,4})?";
    let pair = (version, version);
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases: 300,
            failure_persistence: None,
            ..Config::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let dpkg = |arguments: &[&str]| {
        let mut dpkg = program("dpkg", "dpkg").expect("looked up above");
        run(dpkg.args(arguments)).status.success()
    };
    let outcome = runner.run(&pair, |(one, two)| {
        let (first, second) = (Version::parse(&one), Version::parse(&two));
        prop_assert_eq!(
            first.is_some(),
            dpkg(&["--validate-version", &one]),
            "{}",
            one
        );
        let (Some(first), Some(second)) = (first, second) else {
            return Ok(());
        };
        let operator = match first.cmp(&second) {
            std::cmp::Ordering::Less => "lt",
            std::cmp::Ordering::Equal => "eq",
            std::cmp::Ordering::Greater => "gt",
        };
        let agrees = dpkg(&["--compare-versions", &one, operator, &two]);
        prop_assert!(agrees, "dpkg: not {} {} {}", one, operator, two);
        Ok(())
    });
    outcome.expect("dpkg agrees");
}

/// apt in a clean root with the host's sources of bookworm.
struct Apt {
    folder: TestFolder,
}

impl Apt {
    fn new(repositories: &[Repository]) -> Option<Self> {
        let apt = Self {
            folder: temp_folder(),
        };
        let at = |name: &str| apt.folder.path().join(name);
        std::fs::create_dir_all(at("lists/partial")).expect("a folder");
        std::fs::create_dir_all(at("cache/archives/partial")).expect("a folder");
        // Our initramfs is no package; apt needs one to be told so.
        let status = "Package: pretended\nStatus: install ok installed\nVersion: 1\n\
            Architecture: all\nMaintainer: none\nProvides: linux-initramfs-tool\nDescription: x\n";
        std::fs::write(at("status"), status).expect("a file");
        let mut sources = String::new();
        for it in repositories {
            let keyring = it.keys.files.first()?.display();
            let (address, components) = (it.addresses.first()?, it.components.join(" "));
            let suite = &it.suite;
            writeln!(
                sources,
                "deb [signed-by={keyring}] {address} {suite} {components}"
            )
            .expect("memory");
        }
        std::fs::write(at("sources.list"), sources).expect("a file");
        must_run(apt.command()?.arg("update"));
        Some(apt)
    }

    #[expect(
        clippy::disallowed_types,
        reason = "apt is the judge, and not called by us"
    )]
    fn command(&self) -> Option<std::process::Command> {
        let mut command = program("apt-get", "apt")?;
        let root = self.folder.path().display().to_string();
        for setting in [
            format!("Dir::State::lists={root}/lists"),
            format!("Dir::State::status={root}/status"),
            format!("Dir::State::extended_states={root}/extended_states"),
            format!("Dir::Cache={root}/cache"),
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=/nonexistent".into(),
            "Dir::Etc::preferences=/nonexistent".into(),
            "Dir::Etc::preferencesparts=/nonexistent".into(),
            "APT::Sandbox::User=root".into(),
            "APT::Get::List-Cleanup=false".into(),
            "Debug::NoLocking=1".into(),
            // Else apt takes itself for essential.
            "pkgCacheGen::ForceEssential=,".into(),
        ] {
            command.args(["-o", &setting]);
        }
        Some(command)
    }

    /// `NAME VERSION` of all that apt would install with the essential packages.
    fn would_install(&self, packages: &[&str]) -> BTreeSet<String> {
        let packages = [&["?essential"], packages].concat();
        self.simulate(&packages).expect("apt can install it")
    }

    /// `NAME VERSION` of all that apt would install; `None` when it cannot.
    fn simulate(&self, packages: &[&str]) -> Option<BTreeSet<String>> {
        let mut command = self.command().expect("it was there before");
        command.args(["-s", "-qq", "install", "--no-install-recommends"]);
        let output = run(command.args(packages));
        if !output.status.success() {
            return None;
        }
        let text = String::from_utf8(output.stdout).expect("it is text");
        let package = |line: &str| {
            let mut words = line.strip_prefix("Inst ")?.split_whitespace();
            let name = words.next()?.split(':').next()?.to_owned();
            let version = words.find_map(|word| word.strip_prefix('('))?;
            Some(format!("{name} {version}"))
        };
        Some(text.lines().filter_map(package).collect())
    }

    /// All versions that the sources have.
    fn versions(&self) -> BTreeSet<String> {
        let mut command = program("apt-cache", "apt").expect("it comes with apt-get");
        let root = self.folder.path().display().to_string();
        for setting in [
            format!("Dir::State::lists={root}/lists"),
            format!("Dir::State::status={root}/status"),
            format!("Dir::Cache={root}/cache"),
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=/nonexistent".into(),
        ] {
            command.args(["-o", &setting]);
        }
        let text = must_run(command.arg("dumpavail")).stdout;
        let text = String::from_utf8(text).expect("it is text");
        let version = |line: &str| line.strip_prefix("Version: ").map(str::to_owned);
        text.lines().filter_map(version).collect()
    }
}

/// Real versions, sorted by us: dpkg finds each one not after the next.
fn sort_as_dpkg_does(versions: &BTreeSet<String>) {
    let step = versions.len() / 250 + 1;
    let mut sample: Vec<Version<'_>> = versions
        .iter()
        .step_by(step)
        .map(|text| Version::parse(text).expect("a version of Debian's"))
        .collect();
    sample.sort();
    assert!(sample.len() > 100, "only {} versions", sample.len());
    for pair in sample.windows(2) {
        let (one, two) = (pair[0].as_str(), pair[1].as_str());
        let mut dpkg = program("dpkg", "dpkg").expect("it comes with apt");
        let output = run(dpkg.args(["--compare-versions", one, "le", two]));
        assert!(output.status.success(), "dpkg: not {one} <= {two}");
    }
}

/// What the words behind a colon, versions of virtual packages and the like
/// mean: apt's simulation of each request has the same packages, or none.
#[test]
fn relations_mean_what_they_mean_to_apt() {
    let packages = [
        "py 1; Multi-Arch: allowed",
        "pl 1",
        "fo 1; Multi-Arch: foreign",
        "sa 1; Multi-Arch: same",
        "vp 1; Multi-Arch: allowed; Provides: virt (= 2), plain",
        "vn 1; Provides: vonly",
        "ve 1; Provides: vexp:any",
        "va 1; Provides: vamd:amd64, vint:i386",
        "old 1; Depends: pl",
        "old 2; Depends: py",
    ];
    let requests = [
        "r-any-allowed 1; Depends: py:any",
        "r-any-none 1; Depends: pl:any",
        "r-any-foreign 1; Depends: fo:any",
        "r-any-same 1; Depends: sa:any",
        "r-any-version 1; Depends: py:any (>= 1)",
        "r-any-version-not 1; Depends: py:any (>= 2)",
        "r-any-virtual 1; Depends: virt:any",
        "r-any-virtual-none 1; Depends: vonly:any",
        "r-any-provided 1; Depends: vexp:any",
        "r-provided-any 1; Depends: vexp",
        "r-provided-native 1; Depends: vamd",
        "r-provided-native-named 1; Depends: vamd:amd64",
        "r-provided-other 1; Depends: vint",
        "r-native 1; Depends: pl:amd64",
        "r-other 1; Depends: pl:i386",
        "r-other-or 1; Depends: pl:i386 | fo",
        "r-virtual-version 1; Depends: virt (>= 2)",
        "r-virtual-version-not 1; Depends: virt (>= 3)",
        "r-virtual-unversioned 1; Depends: plain (>= 1)",
        "r-virtual 1; Depends: plain",
        "r-older 1; Depends: old (<< 2)",
        "r-newest 1; Depends: old",
        "r-conflict 1; Depends: vp; Conflicts: virt",
        "r-conflict-version 1; Depends: vp; Conflicts: virt (<< 2)",
        "r-conflict-unversioned 1; Depends: vp; Conflicts: plain (<< 9)",
        "r-conflict-other 1; Depends: py; Conflicts: py:i386",
        "r-conflict-any 1; Depends: py; Conflicts: py:any",
        "r-breaks 1; Depends: pl; Breaks: pl (<< 2)",
        "r-breaks-not 1; Depends: pl; Breaks: pl (<< 1)",
        "r-self 1; Provides: thing; Conflicts: thing; Replaces: thing",
        "r-pre 1; Pre-Depends: py, virt | nothing",
        "r-none 1; Depends: nothing",
        "r-none-or 1; Depends: nothing | pl",
    ];
    let mut archive = TestArchive::new();
    for line in packages.iter().chain(&requests) {
        archive.add_short(line);
    }
    archive.publish();
    let repositories = [archive.repository()];
    let Some(apt) = Apt::new(&repositories) else {
        return skip("no `apt-get`");
    };
    let client = Client::new(AptSettings::default(), Network::Online);
    let cache = archive.cache();
    let access = Access {
        client: &client,
        cache: &cache,
        now: NOW,
        reporter: &Silent,
    };
    let mut differences = Vec::new();
    for line in requests {
        let name = line.split(' ').next().expect("a name");
        let theirs = apt.simulate(&[name]);
        let ours = ask(&[name], &repositories, &access).ok();
        // Where apt takes only the newest version, we look for an older one.
        if name != "r-older" && theirs != ours {
            differences.push(format!("{line}\n  apt: {theirs:?}\n  ours: {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn ask(
    packages: &[&str],
    repositories: &[Repository],
    access: &Access<'_>,
) -> Result<BTreeSet<String>, SourceError> {
    resolve(&request(Base::Nothing, packages), repositories, access).map(shown)
}

fn request(base: Base, packages: &[&str]) -> Request {
    Request {
        architecture: "amd64".into(),
        base,
        layers: vec![LayerRequest {
            name: "all".into(),
            packages: packages.iter().map(|&name| name.to_owned()).collect(),
            recommends: false,
        }],
        exclude: Vec::new(),
        provided: vec!["linux-initramfs-tool".into()],
        limits: Vec::new(),
        held: Vec::new(),
    }
}

/// `NAME VERSION` of the one layer's packages.
fn shown(resolution: Resolution) -> BTreeSet<String> {
    let layer = resolution.layers.into_iter().next().expect("one layer");
    let shown = |pin: PackagePin| format!("{} {}", pin.name, pin.version);
    layer.pins.into_iter().map(shown).collect()
}

/// What is asked for in tests on the real archive.
const SERVERS: [&str; 17] = [
    "apache2",
    "bind9",
    "bsd-mailx",
    "docker.io",
    "gunicorn",
    "mariadb-server",
    "nodejs",
    "openjdk-17-jre-headless",
    "php",
    "php-fpm",
    "php-mysql",
    "postfix",
    "postgresql",
    "puppet-agent",
    "rabbitmq-server",
    "redis-server",
    "samba",
];

/// The real archive as this host has it, for us and for apt.
struct Real {
    apt: Apt,
    offer: Offer,
}

impl Real {
    fn open() -> Option<Self> {
        let path = search_path();
        let host = HostEnvironment {
            search_path: &path,
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
        };
        let settings = read_settings(&host).expect("apt's settings");
        let repositories = match host_repositories("bookworm", None, &settings, &Silent) {
            Ok(repositories) => repositories,
            Err(error @ (SourceError::NoSource { .. } | SourceError::NoKeyring { .. })) => {
                skip(&format!("this host cannot ask apt about bookworm: {error}"));
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let Some(apt) = Apt::new(&repositories) else {
            skip("no `apt-get`, or a source without a keyring");
            return None;
        };
        let cache = temp_folder();
        let client = Client::new(settings, Network::Online);
        let access = Access {
            client: &client,
            cache: cache.path(),
            now: clock(),
            reporter: &Silent,
        };
        let offer = Offer::open(&repositories, &[], "amd64", &access).expect("lists");
        assert!(cache.path().join("lists").is_dir());
        Some(Self { apt, offer })
    }

    fn assert_same(&self, packages: &[&str]) {
        let apt = self.apt.would_install(packages);
        let ours = self.ours(packages).expect("it resolves");
        assert!(!apt.is_empty(), "apt installs something for {packages:?}");
        let only = |one: &BTreeSet<String>, two: &BTreeSet<String>| -> Vec<String> {
            one.difference(two).cloned().collect()
        };
        assert_eq!(
            (only(&apt, &ours), only(&ours, &apt)),
            (vec![], vec![]),
            "only apt's, only ours, of {packages:?}"
        );
    }

    fn ours(&self, packages: &[&str]) -> Result<BTreeSet<String>, SourceError> {
        let request = request(Base::Essential, packages);
        self.offer.resolve(&request, &Silent).map(shown)
    }
}

/// Needs a mirror: about 10 MB of lists, twice.
#[test]
fn choices_are_those_of_apt() {
    let Some(real) = Real::open() else {
        return;
    };
    sort_as_dpkg_does(&real.apt.versions());
    let system = [
        "systemd-sysv",
        "udev",
        "linux-image-amd64",
        "openssh-server",
        "ca-certificates",
        "nginx",
    ];
    real.assert_same(&system);
    real.assert_same(&SERVERS);
    real.assert_same(&["gnome-core"]);
}

/// Each server by itself, and requests that no archive can satisfy.
#[test]
#[ignore = "takes minutes; ci/nightly.d/sources runs it"]
fn every_server_alone_is_what_apt_chooses_and_real_conflicts_are_told() {
    let Some(real) = Real::open() else {
        return;
    };
    for server in SERVERS {
        real.assert_same(&["systemd-sysv", server]);
    }
    for pair in [
        ["postfix", "exim4-daemon-light"],
        ["systemd-sysv", "sysvinit-core"],
        ["mariadb-server", "default-mysql-server-core"],
        ["libcurl4-openssl-dev", "libcurl4-gnutls-dev"],
    ] {
        let packages = [&["?essential"], &pair[..]].concat();
        let (theirs, ours) = (real.apt.simulate(&packages), real.ours(&pair));
        assert_eq!(theirs.is_some(), ours.is_ok(), "{pair:?}: {ours:?}");
        if let Err(error) = ours {
            let said = error.to_string();
            let names_both = pair.iter().all(|name| said.contains(name));
            assert!(names_both && said.contains("exclude each other"), "{said}");
            assert!(said.len() < 1000, "{said}");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the real archive is signed for the real time"
)]
pub(super) fn clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since.expect("after 1970").as_secs();
    Timestamp::from_seconds(i64::try_from(seconds).expect("before the year 292 billion"))
}
