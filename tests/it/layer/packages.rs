//! Layers of real Debian packages: configured by their own dpkg, the same for
//! root and for an ordinary user, the same in one run and in two.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests call foreign programs, read their settings, look at the clock and say what they skip"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use consign::digest::{DiffId, Digest};
use consign::layer::source::deb::{
    Access, Base, Client, HostEnvironment, LayerRequest, Network, Repository, Request, SourceError,
    fetch, host_repositories, read_settings, resolve,
};
use consign::layer::spec::{LayerSpec, PackagePin, PackagesRecipe, Recipe, ToolsRecipe};
use consign::layer::{
    DebSource, Driver, Layer, LayerError, LayerShop, PROVIDED, Removals, SandboxChoice,
    SandboxSettings, Store, build_all,
};
use consign::report::{Event, Outcome, Recorder, Silent};
use consign::tree::TreePath;
use consign::units::{ExitClass, Timestamp};

use crate::support::{consign_path, copy_program};

/// An ordinary user with subordinate ids, made by `ci/install`.
pub(super) const USER: &str = "consign-test";
/// The driver that a process of ours is to use.
pub(super) const SANDBOX: &str = "CONSIGN_TEST_SANDBOX";
/// What the ordinary user's process is told, besides the pins.
pub(super) const STORE: &str = "CONSIGN_TEST_STORE";

pub(super) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The host's repositories, with a cache for packages that outlives the test.
#[derive(Debug)]
pub(super) struct Archive {
    client: Client,
    repositories: Vec<Repository>,
    cache: PathBuf,
}

impl Archive {
    pub(super) fn open() -> Self {
        let search_path = search_path();
        let settings = read_settings(&HostEnvironment {
            search_path: &search_path,
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
        })
        .expect("apt's settings");
        Self {
            repositories: host_repositories("bookworm", None, &settings, &Silent)
                .expect("repositories of the host"),
            client: Client::new(settings, Network::Online),
            cache: Path::new(env!("CARGO_TARGET_TMPDIR")).join("layer-packages"),
        }
    }

    fn access(&self) -> Access<'_> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seconds = since.expect("after 1970").as_secs();
        Access {
            client: &self.client,
            cache: &self.cache,
            now: Timestamp::from_seconds(i64::try_from(seconds).expect("a date")),
            reporter: &Silent,
        }
    }

    pub(super) fn resolve(&self, base: Base, layers: &[(&str, &[&str])]) -> Vec<LayerSpec> {
        let request = Request {
            architecture: "amd64".into(),
            base,
            layers: layers
                .iter()
                .map(|(name, packages)| LayerRequest {
                    name: (*name).into(),
                    packages: packages.iter().map(|name| (*name).into()).collect(),
                    recommends: false,
                })
                .collect(),
            exclude: vec![],
            provided: PROVIDED.iter().map(|name| (*name).into()).collect(),
            limits: Vec::new(),
            held: Vec::new(),
        };
        let resolution =
            resolve(&request, &self.repositories, &self.access()).expect("a resolution");
        let layers = resolution.layers.into_iter();
        layers.map(|layer| spec(&layer.name, layer.pins)).collect()
    }
}

impl DebSource for Archive {
    fn fetch(&self, pins: &[PackagePin]) -> Result<Vec<PathBuf>, SourceError> {
        fetch(pins, &self.repositories, &self.access())
    }
}

pub(super) fn spec(name: &str, pins: Vec<PackagePin>) -> LayerSpec {
    LayerSpec {
        name: name.into(),
        recipe: Recipe::Packages(PackagesRecipe {
            pins,
            exclude_paths: vec!["/usr/share/doc/*".into(), "/usr/share/locale/*".into()],
            include_paths: vec!["/usr/share/doc/*/copyright".into()],
        }),
        allow_secrets: vec![],
    }
}

/// Packages that are files already.
#[derive(Debug)]
pub(super) struct Files(pub(super) Vec<(PackagePin, PathBuf)>);

impl DebSource for Files {
    fn fetch(&self, pins: &[PackagePin]) -> Result<Vec<PathBuf>, SourceError> {
        let path = |pin: &PackagePin| {
            let found = self.0.iter().find(|(other, _)| other == pin);
            found.expect("one of ours").1.clone()
        };
        Ok(pins.iter().map(path).collect())
    }
}

pub(super) fn shop<'a>(store: &Path, debs: &'a dyn DebSource, program: &Path) -> LayerShop<'a> {
    LayerShop {
        store: Store::open(store).expect("a store"),
        debs,
        sandbox: SandboxSettings {
            program: program.to_owned(),
            search_path: search_path(),
            choice: std::env::var(SANDBOX)
                .ok()
                .and_then(|name| Driver::parse(&name))
                .map_or(SandboxChoice::First, SandboxChoice::Only),
            kernel: None,
        },
        source_date: Timestamp::from_seconds(1_700_000_000),
        removals: Removals::default(),
    }
}

fn build(store: &Path, debs: &dyn DebSource, specs: &[LayerSpec]) -> Vec<Layer> {
    build_all(specs, &shop(store, debs, consign_path()), &Silent)
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn diff_ids(layers: &[Layer]) -> Vec<DiffId> {
    layers.iter().map(|layer| layer.diff_id).collect()
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    output.stdout == b"0\n"
}

/// Whether to go on without root: never in CI.
pub(super) fn must_skip() -> bool {
    if is_root() {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
    eprintln!("SKIPPED: only root can look into the layers with chroot");
    true
}

/// Unpacks the layers with GNU tar, for the target's own tools to judge.
pub(super) fn unpack(store: &Path, layers: &[Layer]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("folder");
    for layer in layers {
        let tar = store.join("blobs/sha256").join(layer.diff_id.0.hex());
        let output = Command::new("tar")
            .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
            .arg(tar)
            .arg("-C")
            .arg(root.path())
            .output()
            .expect("tar runs");
        assert_success(&output);
    }
    root
}

pub(super) fn in_root(root: &Path, command: &[&str]) -> String {
    let output = Command::new("chroot")
        .arg(root)
        .args(command)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("chroot runs");
    assert_success(&output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub(super) fn assert_success(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {words}{said}", output.status);
}

#[test]
fn a_system_of_packages_is_what_its_own_dpkg_wants_whoever_builds_it() {
    if must_skip() {
        return;
    }
    let archive = Archive::open();
    let specs = archive.resolve(
        Base::Essential,
        &[("base", &["apt"]), ("ssh", &["openssh-server"])],
    );
    let folder = tempfile::tempdir().expect("folder");
    let store = folder.path().join("root");
    let layers = build(&store, &archive, &specs);
    judge(&store, &layers);

    // The upper layer once more, on a base that comes from the store.
    let record = format!("layers/{}.json", layers[1].key.0.hex());
    std::fs::remove_file(store.join(record)).expect("the record");
    let again = build(&store, &archive, &specs);
    assert_eq!(diff_ids(&again), diff_ids(&layers));

    assert_eq!(built_by_ordinary_user(&archive, &specs), diff_ids(&layers));
}

fn judge(store: &Path, layers: &[Layer]) {
    let root = unpack(store, layers);
    let root = root.path();
    assert_eq!(in_root(root, &["dpkg", "--audit"]), "");
    // Every file has the sum that its package gives, but for those left out.
    let verified = in_root(root, &["dpkg", "--verify"]);
    let is_left_out =
        |line: &&str| line.contains(" /usr/share/doc/") || line.contains(" /usr/share/locale/");
    let wrong: Vec<&str> = verified.lines().filter(|line| !is_left_out(line)).collect();
    assert_eq!(wrong, [""; 0]);
    let list = in_root(
        root,
        &["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package}\n"],
    );
    let not_installed: Vec<&str> = list
        .lines()
        .filter(|line| !line.starts_with("ii "))
        .collect();
    assert_eq!(not_installed, [""; 0]);
    let pins: usize = layers.iter().map(|layer| layer.packages.len()).sum();
    assert_eq!(list.lines().count(), pins);
    in_root(root, &["apt-get", "check"]);
    let automatic = in_root(root, &["apt-mark", "showauto"]);
    assert!(
        automatic.lines().any(|name| name == "libwrap0"),
        "{automatic}"
    );
    for gone in [
        "etc/ssh/ssh_host_rsa_key",
        "usr/sbin/policy-rc.d",
        "etc/passwd-",
        "var/lib/dpkg/status-old",
        "var/log/dpkg.log",
        "var/lib/dpkg/tmp.ci",
    ] {
        assert!(!root.join(gone).exists(), "{gone} is left");
    }
    assert!(root.join("bin").is_symlink() && root.join("usr/bin/dpkg").is_file());
    assert!(
        in_root(root, &["stat", "-c", "%U:%G %a", "/usr/bin/ssh-agent"]).contains(":_ssh 2755")
    );
    // Left out by the layer, still in dpkg's list, as with dpkg's own path-exclude.
    assert!(!root.join("usr/share/doc/dpkg/changelog.gz").exists());
    assert!(root.join("usr/share/doc/dpkg/copyright").exists());
    // Folders at the edge stay for scripts; so does the way to a licence.
    assert!(root.join("usr/share/locale/de").is_dir());
    assert!(!root.join("usr/share/locale/de/LC_MESSAGES").exists());
    assert!(root.join("usr/share/doc/libgcc-s1").is_symlink());
    assert!(root.join("usr/share/doc/libgcc-s1/copyright").is_file());
}

/// Builds in a process of the ordinary user, and gives the digests.
fn built_by_ordinary_user(archive: &Archive, specs: &[LayerSpec]) -> Vec<DiffId> {
    built_elsewhere(specs, archive, |place, tests| {
        let chown = Command::new("chown").args(["-R", USER]).arg(place).output();
        assert_success(&chown.expect("chown runs"));
        let mut setpriv = Command::new("setpriv");
        setpriv
            .args(["--reuid", USER, "--regid", USER, "--init-groups", "--"])
            .arg(tests);
        setpriv
    })
}

/// Builds in a process of its own, started through the command that `through`
/// gives for the folder it works in and the program of the tests, and gives
/// the digests.
pub(super) fn built_elsewhere(
    specs: &[LayerSpec],
    source: &dyn DebSource,
    through: impl FnOnce(&Path, &Path) -> Command,
) -> Vec<DiffId> {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path();
    let at = |name: &str| place.join(name);
    // Where the user may read and run them, whoever owns the checkout.
    copy_program(consign_path(), &at("consign"));
    copy_program(&std::env::current_exe().expect("a path"), &at("tests"));
    let mut debs = Vec::new();
    for spec in specs {
        let Recipe::Packages(recipe) = &spec.recipe else {
            panic!("packages only");
        };
        for (pin, path) in recipe
            .pins
            .iter()
            .zip(source.fetch(&recipe.pins).expect("debs"))
        {
            let copy = at(&pin.sha256.hex());
            std::fs::copy(path, &copy).expect("copy");
            debs.push((spec.name.clone(), pin.clone(), copy));
        }
    }
    let text = serde_json::to_vec(&debs).expect("JSON");
    std::fs::write(at("debs.json"), text).expect("write");
    let output = through(place, &at("tests"))
        .args(["--exact", "layer::packages::part_of_an_ordinary_user"])
        .args(["--ignored", "--nocapture"])
        .env(STORE, place)
        .output()
        .expect("it runs");
    assert_success(&output);
    let text = std::fs::read_to_string(at("digests")).expect("the answer");
    let left: Vec<_> = std::fs::read_dir(at("store/work")).expect("work").collect();
    assert!(left.is_empty(), "{left:?}");
    text.lines()
        .map(|line| DiffId(Digest::parse(line).expect("a digest")))
        .collect()
}

/// Not a test of its own: what the ordinary user's process does.
#[test]
#[ignore = "run by another test, as another user"]
fn part_of_an_ordinary_user() {
    let place = PathBuf::from(std::env::var_os(STORE).expect("told by the test"));
    let text = std::fs::read(place.join("debs.json")).expect("read");
    let debs: Vec<(String, PackagePin, PathBuf)> = serde_json::from_slice(&text).expect("JSON");
    let mut specs: Vec<LayerSpec> = Vec::new();
    for (layer, pin, _) in &debs {
        match specs.last_mut() {
            Some(last) if &last.name == layer => {
                if let Recipe::Packages(recipe) = &mut last.recipe {
                    recipe.pins.push(pin.clone());
                }
            }
            _ => specs.push(spec(layer, vec![pin.clone()])),
        }
    }
    let files = Files(debs.into_iter().map(|(_, pin, path)| (pin, path)).collect());
    let store = place.join("store");
    std::fs::create_dir(&store).expect("folder");
    let layers = build_all(
        &specs,
        &shop(&store, &files, &place.join("consign")),
        &Silent,
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let digests: Vec<String> = layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    std::fs::write(place.join("digests"), digests.join("\n")).expect("write");
}

/// A package made here by `dpkg-deb`, for what real packages do not do.
pub(super) fn homemade(
    folder: &Path,
    name: &str,
    files: &[(&str, &str)],
    scripts: &[(&str, &str)],
) -> Files {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = folder.join(name);
    let control = tree.join("DEBIAN");
    std::fs::create_dir_all(&control).expect("folders");
    let stanza = format!(
        "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n"
    );
    std::fs::write(control.join("control"), stanza).expect("write");
    for (path, text) in files {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("write");
    }
    for (script, text) in scripts {
        let path = control.join(script);
        std::fs::write(&path, text).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    }
    let deb = folder.join(format!("{name}.deb"));
    let output = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-b"])
        .args([&tree, &deb])
        .output()
        .expect("dpkg-deb runs");
    assert_success(&output);
    let bytes = std::fs::read(&deb).expect("read");
    let pin = PackagePin {
        name: name.into(),
        version: "1".into(),
        architecture: "all".into(),
        suite: "local".into(),
        path: format!("{name}.deb"),
        size: bytes.len() as u64,
        sha256: Digest::of(&bytes),
        source: name.into(),
        reason: "requested".into(),
    };
    Files(vec![(pin, deb)])
}

fn build_homemade(files: &Files) -> Result<Vec<Layer>, LayerError> {
    let store = tempfile::tempdir().expect("folder");
    let pins = files.0.iter().map(|(pin, _)| pin.clone()).collect();
    build_all(
        &[spec("odd", pins)],
        &shop(store.path(), files, consign_path()),
        &Silent,
    )
}

#[test]
fn a_package_that_is_not_the_pinned_one_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let files = homemade(folder.path(), "odd", &[("usr/share/odd", "x")], &[]);
    let mut bytes = std::fs::read(&files.0[0].1).expect("read");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&files.0[0].1, bytes).expect("write");
    let error = build_homemade(&files).expect_err("it differs");
    assert_eq!(error.slug(), "package-digest");
    assert_eq!(error.class(), ExitClass::Verification);
    assert!(
        error
            .to_string()
            .starts_with("layer `odd`: package `odd` has digest `sha256:")
    );
}

#[test]
fn a_preinst_that_fails_is_named_with_its_package() {
    let folder = tempfile::tempdir().expect("folder");
    let script = "#!/nonexistent\n";
    let files = homemade(folder.path(), "odd", &[], &[("preinst", script)]);
    let error = build_homemade(&files).expect_err("there is no such interpreter");
    assert!(
        error.to_string().contains("preinst"),
        "the script is named: {error}"
    );
}

#[test]
fn a_tool_runs_in_a_root_of_its_own_and_what_it_made_is_kept() {
    let archive = Archive::open();
    let specs = archive.resolve(Base::Nothing, &[("tools", &["coreutils"])]);
    let Recipe::Packages(recipe) = specs[0].recipe.clone() else {
        panic!("packages only");
    };
    let path = |text: &str| TreePath::parse(text.as_bytes()).expect("a path");
    let tool = |script: &[&str]| LayerSpec {
        name: "tools".into(),
        recipe: Recipe::Tools(ToolsRecipe {
            pins: recipe.pins.clone(),
            input: [(path("work/in"), b"content".to_vec())].into(),
            command: script.iter().map(|word| (*word).into()).collect(),
            keep: vec![path("work/out")],
        }),
        allow_secrets: vec![],
    };
    let folder = tempfile::tempdir().expect("folder");
    let copy = tool(&["/usr/bin/cp", "/work/in", "/work/out"]);
    let layers = build(folder.path(), &archive, std::slice::from_ref(&copy));
    let made = layers[0].delta.tree.at("work/out").expect("it was made");
    let content = made.content().expect("a file");
    assert_eq!(content.read_all(100).expect("readable"), b"content");
    assert_eq!(layers[0].delta.tree.len(), 3, "nothing else is kept");

    let recorder = Recorder::default();
    let again = shop(folder.path(), &archive, Path::new("/nonexistent"));
    build_all(&[copy], &again, &recorder).expect("from the store, without a sandbox");
    let is_cached = |event: &Event| {
        matches!(
            event,
            Event::StepFinished {
                outcome: Outcome::Cached,
                ..
            }
        )
    };
    assert!(recorder.events().iter().any(is_cached));

    let nothing = tool(&["/usr/bin/true"]);
    let error = build_all(
        &[nothing],
        &shop(folder.path(), &archive, consign_path()),
        &Silent,
    )
    .expect_err("it makes nothing");
    assert_eq!(
        error.to_string(),
        "layer `tools`: `/usr/bin/true` did not make `/work/out`"
    );
    let wrong = tool(&["/usr/bin/cat", "/missing"]);
    let error = build_all(
        &[wrong],
        &shop(folder.path(), &archive, consign_path()),
        &Silent,
    )
    .expect_err("it fails");
    assert_eq!(
        error.to_string(),
        "layer `tools`: `/usr/bin/cat` ended with exit status 1: /usr/bin/cat: /missing: No such \
         file or directory"
    );
}
