//! Every driver of the sandbox gives the same layer, says why another one was
//! not taken, and lets nothing of the host in.
#![expect(clippy::disallowed_types, reason = "tests call foreign programs")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use consign::digest::DiffId;
use consign::layer::source::deb::{Base, SourceError};
use consign::layer::spec::{LayerSpec, PackagePin, Recipe, ToolsRecipe};
use consign::layer::{DebSource, Driver, Layer, LayerShop, SandboxChoice, build_all};
use consign::report::Silent;
use consign::tree::TreePath;
use serde_json::Value;

use super::packages::{
    Archive, Files, SANDBOX, USER, assert_success, homemade, must_skip, search_path, shop, spec,
};
use crate::support::{consign_path, copy_program, program, temp_folder};

/// Packages of the archive, and those made here.
#[derive(Debug)]
struct Both<'a>(&'a Archive, &'a Files);

impl DebSource for Both<'_> {
    fn fetch(&self, pins: &[PackagePin]) -> Result<Vec<PathBuf>, SourceError> {
        if pins
            .iter()
            .all(|pin| self.1.0.iter().any(|(own, _)| own == pin))
        {
            self.1.fetch(pins)
        } else {
            self.0.fetch(pins)
        }
    }
}

/// A store that outlives the tests: it holds the layers below those that are
/// looked at, under keys that say all that they are made of.
pub(super) fn store() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layer-store");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Makes the topmost of `specs` anew, whatever the store has.
fn made_anew(driver: Driver, specs: &[LayerSpec], debs: &dyn DebSource) -> Layer {
    let mut shop: LayerShop<'_> = shop(&store(), debs, consign_path());
    shop.sandbox.choice = SandboxChoice::Only(driver);
    let (top, below) = specs.split_last().expect("a layer");
    let layers = build_all(below, &shop, &Silent).unwrap_or_else(|error| panic!("{error}"));
    let parents: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    let key = consign::layer::key::layer_key(top, &parents, shop.source_date);
    let record = store().join(format!("layers/{}.json", key.0.hex()));
    if record.exists() {
        std::fs::remove_file(record).expect("the record of an earlier run");
    }
    let layers = build_all(specs, &shop, &Silent).unwrap_or_else(|error| panic!("{error}"));
    layers.into_iter().next_back().expect("a layer")
}

/// Tells what a script sees, in files of the image.
const WITNESS: &str = r#"#!/bin/sh
set -e
mkdir /usr/share/seen
cd /usr/share/seen
env | sort >environment
uname -n >name
cut -d' ' -f2 /proc/mounts | sort >mounts
cat /etc/resolv.conf >resolver 2>/dev/null || echo none >resolver
ls /sys >sys
echo gone >/dev/null
head -c 16 /dev/urandom | wc -c >random
test "$(head -c 3 /dev/zero | tr '\0' z)" = zzz
id -u >user
umask >mask
pwd >folder
sleep 1000 &
"#;

/// A package that does all that dpkg has special rules for.
fn odd_package(folder: &Path) -> Files {
    homemade(
        folder,
        "odd",
        &[
            ("usr/share/odd/file", "content\n"),
            ("etc/odd.conf", "setting\n"),
            ("usr/bin/odd-diverted", "mine\n"),
        ],
        &[
            (
                "preinst",
                "#!/bin/sh\nset -e\ndpkg-divert --package odd --divert /usr/bin/true.real --rename \
                 --add /usr/bin/true\ndpkg-statoverride --force-statoverride-add --add daemon adm \
                 2750 /usr/share/odd/file\n",
            ),
            (
                "postinst",
                "#!/bin/sh\nset -e\nuseradd --system odd\nchown odd: /usr/share/odd\n\
                 ln -s odd-diverted /usr/bin/true\ntest ! -e /sbin/init || exit 1\n\
                 invoke-rc.d nothing start || test $? = 101 || test $? = 100\n",
            ),
            ("conffiles", "/etc/odd.conf\n"),
        ],
    )
}

#[test]
fn every_driver_gives_the_same_layer() {
    if must_skip() {
        return;
    }
    let folder = temp_folder();
    let archive = Archive::open();
    let odd = odd_package(folder.path());
    let mut specs = archive.resolve(
        Base::Essential,
        &[("base", &["apt"]), ("top", &["dbus", "openssh-client"])],
    );
    specs.push(spec(
        "odd",
        odd.0.iter().map(|(pin, _)| pin.clone()).collect(),
    ));
    let debs = Both(&archive, &odd);
    let all = |driver| {
        let top = made_anew(driver, &specs[..2], &debs);
        let odd = made_anew(driver, &specs, &debs);
        (top.diff_id, odd.diff_id)
    };
    let userns = all(Driver::Userns);
    assert_eq!(all(Driver::Root), userns);
    assert_eq!(all(Driver::Chroot), userns);
    assert_eq!(in_a_poor_container(&specs, &debs), [userns.0, userns.1]);
}

/// Builds as root of a container that may neither mount nor make devices.
fn in_a_poor_container(specs: &[LayerSpec], debs: &dyn DebSource) -> Vec<DiffId> {
    let layers = super::packages::built_elsewhere(specs, debs, |_, tests| {
        let mut setpriv = Command::new("setpriv");
        setpriv
            .args(["--bounding-set", "-sys_admin,-mknod", "--"])
            .arg(tests)
            .env(SANDBOX, "chroot");
        setpriv
    });
    layers[1..].to_vec()
}

#[test]
fn nothing_of_the_host_is_seen_by_scripts() {
    if must_skip() {
        return;
    }
    let folder = temp_folder();
    let archive = Archive::open();
    let witness = homemade(folder.path(), "witness", &[], &[("postinst", WITNESS)]);
    let mut specs = archive.resolve(Base::Essential, &[("base", &["apt"])]);
    specs.push(spec(
        "witness",
        witness.0.iter().map(|(pin, _)| pin.clone()).collect(),
    ));
    let debs = Both(&archive, &witness);
    for driver in [Driver::Userns, Driver::Root, Driver::Chroot] {
        let layer = made_anew(driver, &specs, &debs);
        let seen = |name: &str| {
            let node = layer.delta.tree.at(&format!("usr/share/seen/{name}"));
            let content = node.and_then(|node| node.content().cloned());
            let bytes = content.expect(name).read_all(1 << 20).expect("readable");
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(seen("name"), "localhost\n", "{driver}");
        assert_eq!(seen("resolver"), "none\n", "{driver}");
        assert_eq!(seen("sys"), "", "{driver}");
        assert_eq!(seen("user"), "0\n", "{driver}");
        assert_eq!(seen("random"), "16\n", "{driver}");
        assert_eq!(seen("mask"), "0022\n", "{driver}");
        assert_eq!(seen("folder"), "/usr/share/seen\n", "{driver}");
        let environment = seen("environment");
        let names: BTreeSet<&str> = environment
            .lines()
            .filter_map(|line| line.split_once('=').map(|(name, _)| name))
            .collect();
        let known: BTreeSet<&str> = [
            "DEBCONF_NONINTERACTIVE_SEEN",
            "DEBIAN_FRONTEND",
            "DPKG_ADMINDIR",
            "DPKG_COLORS",
            "DPKG_FORCE",
            "DPKG_MAINTSCRIPT_ARCH",
            "DPKG_MAINTSCRIPT_DEBUG",
            "DPKG_MAINTSCRIPT_NAME",
            "DPKG_MAINTSCRIPT_PACKAGE",
            "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT",
            "DPKG_PAGER",
            "DPKG_ROOT",
            "DPKG_RUNNING_VERSION",
            "HOME",
            "LC_ALL",
            "OLDPWD",
            "PATH",
            "PWD",
            "SOURCE_DATE_EPOCH",
            "SYSTEMD_OFFLINE",
            "TZ",
        ]
        .into();
        let strange: Vec<_> = names.difference(&known).collect();
        assert!(strange.is_empty(), "{driver}: {strange:?}");
        let mounts = seen("mounts");
        let is_known = |at: &&str| *at == "/" || *at == "/proc" || at.starts_with("/dev");
        let strange: Vec<&str> = mounts.lines().filter(|at| !is_known(at)).collect();
        assert!(strange.is_empty(), "{driver}: {strange:?}");
    }
    let left = Command::new("pgrep").args(["-f", "sleep 1000"]).output();
    let left = left.expect("pgrep runs").stdout;
    assert_eq!(left, b"", "a process of a script goes on");
}

/// `consign sandbox` behind `wrapper`.
fn verdicts(wrapper: &mut Command, options: &[&str]) -> Value {
    let output = wrapper
        .arg(consign_path())
        .args(["sandbox", "--format", "json"])
        .args(options)
        .env("PATH", search_path())
        .output()
        .expect("it runs");
    assert_success(&output);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn reason(verdicts: &Value, driver: usize) -> &str {
    verdicts["drivers"][driver]["reason"].as_str().unwrap_or("")
}

#[test]
fn the_reason_of_each_refusal_is_told() {
    if must_skip() {
        return;
    }
    let free = verdicts(&mut Command::new("env"), &[]);
    assert_eq!(free["used"], "userns");

    // As a container's filter does it.
    let Some(mut strace) = program("strace", "strace") else {
        return;
    };
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=unshare:error=EPERM",
    ]);
    let filtered = verdicts(&mut strace, &[]);
    assert_eq!(filtered["used"], "chroot", "{filtered}");
    assert!(
        reason(&filtered, 0).contains("Operation not permitted"),
        "{filtered}"
    );
    assert!(
        reason(&filtered, 1).contains("cannot enter its namespaces"),
        "{filtered}"
    );

    // As Ubuntu's AppArmor does it: a namespace without its powers.
    let Some(mut strace) = program("strace", "strace") else {
        return;
    };
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=setgroups:error=EPERM",
    ]);
    let powerless = verdicts(&mut strace, &["--sandbox", "userns"]);
    assert_eq!(powerless["used"], Value::Null);
    assert_eq!(
        powerless["drivers"][0]["slug"],
        "sandbox-powerless-namespaces"
    );
    let Some(mut strace) = program("strace", "strace") else {
        return;
    };
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=mount:error=EACCES",
    ]);
    let powerless = verdicts(&mut strace, &["--sandbox", "userns"]);
    assert!(
        reason(&powerless, 0).contains("Permission denied"),
        "{powerless}"
    );

    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set", "-chown,-sys_admin", "--"]);
    let poor = verdicts(&mut setpriv, &["--sandbox", "chroot"]);
    assert_eq!(reason(&poor, 0), "root has no CAP_CHOWN here");
    assert_eq!(
        poor["drivers"][0]["hint"],
        "start the container with --cap-add CAP_CHOWN"
    );
}

#[test]
fn a_user_without_ids_is_told_the_command_that_gives_them() {
    if must_skip() {
        return;
    }
    let folder = temp_folder();
    let copy = folder.path().join("consign");
    copy_program(consign_path(), &copy);
    let open = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(folder.path())
        .status();
    assert!(open.expect("chmod runs").success());
    let run = |user: &str, arguments: &[&str]| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]);
        setpriv
            .arg(&copy)
            .args(arguments)
            .env("PATH", search_path());
        setpriv.output().expect("setpriv runs")
    };
    let nobody = run("65534", &["sandbox", "--format", "json"]);
    let verdicts: Value = serde_json::from_slice(&nobody.stdout).expect("JSON");
    // Where the host has a kernel that anybody may read, a machine is left.
    let used = verdicts["used"].as_str();
    assert!(matches!(used, None | Some("vm")), "{verdicts}");
    let hint = verdicts["drivers"][0]["hint"].as_str().unwrap_or("");
    assert!(hint.contains("usermod --add-subuids"), "{verdicts}");
    assert_eq!(reason(&verdicts, 1), "it needs root");

    let known = run(USER, &["sandbox", "--format", "json"]);
    let verdicts: Value = serde_json::from_slice(&known.stdout).expect("JSON");
    assert_eq!(verdicts["used"], "userns", "{verdicts}");

    let profile = run(USER, &["sandbox", "--apparmor-profile"]);
    let text = String::from_utf8(profile.stdout).expect("text");
    assert!(text.contains("userns,"), "{text}");
    assert!(
        text.contains(&format!("profile consign \"{}\"", copy.display())),
        "{text}"
    );
}

#[test]
#[ignore = "emulates a machine: ci/nightly.d/sandbox runs it"]
fn a_machine_gives_the_same_layer_too() {
    if must_skip() || program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let folder = temp_folder();
    let archive = Archive::open();
    let kernel = archive.resolve(Base::Essential, &[("kernel", &["linux-image-cloud-amd64"])]);
    let Recipe::Packages(recipe) = &kernel[0].recipe else {
        panic!("packages only");
    };
    let is_kernel = |pin: &&PackagePin| pin.name.starts_with("linux-image-6");
    let kernel = recipe.pins.iter().find(is_kernel).expect("a kernel");
    let kernel = archive
        .fetch(std::slice::from_ref(kernel))
        .expect("a .deb")
        .remove(0);

    let tools = archive.resolve(Base::Nothing, &[("tools", &["busybox-static"])]);
    let Recipe::Packages(recipe) = &tools[0].recipe else {
        panic!("packages only");
    };
    let path = |text: &str| TreePath::parse(text.as_bytes()).expect("a path");
    let script = "cd /work; uname -n >out; id -u >>out; cat in >>out; ls /sys >>out; \
                  cat /proc/net/dev | wc -l >>out; head -c 8 /dev/urandom | wc -c >>out";
    let spec = LayerSpec {
        name: "tools".into(),
        recipe: Recipe::Tools(ToolsRecipe {
            pins: recipe.pins.clone(),
            input: [(path("work/in"), b"content\n".to_vec())].into(),
            command: ["/bin/busybox", "sh", "-c", script]
                .map(str::to_owned)
                .to_vec(),
            keep: vec![path("work/out")],
        }),
        allow_secrets: vec![],
    };
    let made = |driver| {
        let store = folder.path().join(format!("{driver}"));
        std::fs::create_dir(&store).expect("folder");
        let mut shop = shop(&store, &archive, consign_path());
        shop.sandbox.choice = SandboxChoice::Only(driver);
        shop.sandbox.kernel = Some(kernel.clone());
        let layers = build_all(std::slice::from_ref(&spec), &shop, &Silent);
        layers.unwrap_or_else(|error| panic!("{driver}: {error}"))[0].diff_id
    };
    assert_eq!(made(Driver::Vm), made(Driver::Userns));
}
