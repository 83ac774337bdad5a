//! Debian's own programs judge: dpkg our order of versions, apt our choices.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use consign::layer::source::deb::{
    Access, Base, Client, HostEnvironment, LayerRequest, Network, Repository, Request, SourceError,
    Version, host_repositories, read_settings, resolve,
};
use consign::report::Silent;
use consign::units::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

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

    /// `NAME VERSION` of all that apt would install.
    fn would_install(&self, packages: &[&str]) -> BTreeSet<String> {
        let mut command = self.command().expect("it was there before");
        command.args([
            "-s",
            "-qq",
            "install",
            "--no-install-recommends",
            "?essential",
        ]);
        let output = must_run(command.args(packages));
        let text = String::from_utf8(output.stdout).expect("it is text");
        let package = |line: &str| {
            let mut words = line.strip_prefix("Inst ")?.split_whitespace();
            let name = words.next()?.split(':').next()?.to_owned();
            let version = words.find_map(|word| word.strip_prefix('('))?;
            Some(format!("{name} {version}"))
        };
        text.lines().filter_map(package).collect()
    }
}

fn ours(packages: &[&str], repositories: &[Repository], access: &Access<'_>) -> BTreeSet<String> {
    let request = Request {
        architecture: "amd64".into(),
        base: Base::Essential,
        layers: vec![LayerRequest {
            name: "all".into(),
            packages: packages.iter().map(|&name| name.to_owned()).collect(),
            recommends: false,
        }],
        exclude: Vec::new(),
        provided: vec!["linux-initramfs-tool".into()],
        limits: Vec::new(),
        held: Vec::new(),
    };
    let resolution = resolve(&request, repositories, access).expect("it resolves");
    let layer = resolution.layers.into_iter().next().expect("one layer");
    layer
        .pins
        .into_iter()
        .map(|pin| format!("{} {}", pin.name, pin.version))
        .collect()
}

/// Needs a mirror: about 10 MB of lists, twice.
#[test]
fn choices_are_those_of_apt() {
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
            return skip(&format!("this host cannot ask apt about bookworm: {error}"));
        }
        Err(error) => panic!("{error}"),
    };
    let Some(apt) = Apt::new(&repositories) else {
        return skip("no `apt-get`, or a source without a keyring");
    };
    let cache = temp_folder();
    let client = Client::new(settings, Network::Online);
    let access = Access {
        client: &client,
        cache: cache.path(),
        now: clock(),
        reporter: &Silent,
    };
    let lists: [&[&str]; 3] = [
        &[
            "systemd-sysv",
            "udev",
            "linux-image-amd64",
            "openssh-server",
            "ca-certificates",
            "nginx",
        ],
        &[
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
        ],
        &["gnome-core"],
    ];
    for packages in lists {
        let (apt, ours) = (
            apt.would_install(packages),
            ours(packages, &repositories, &access),
        );
        assert!(!apt.is_empty(), "apt installs something for {packages:?}");
        let only = |one: &BTreeSet<String>, two: &BTreeSet<String>| -> Vec<String> {
            one.difference(two).cloned().collect()
        };
        let difference = (only(&apt, &ours), only(&ours, &apt));
        assert_eq!(
            difference,
            (vec![], vec![]),
            "only apt's, only ours, of {packages:?}"
        );
    }
    assert!(Path::new(cache.path()).join("lists").is_dir());
}

#[expect(
    clippy::disallowed_methods,
    reason = "the real archive is signed for the real time"
)]
fn clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since.expect("after 1970").as_secs();
    Timestamp::from_seconds(i64::try_from(seconds).expect("before the year 292 billion"))
}
