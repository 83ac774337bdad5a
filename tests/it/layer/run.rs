//! `run` layers: scripts on top of real packages, in the real sandbox.

use std::collections::BTreeMap;
use std::path::Path;

use consign::layer::files::digest_folder;
use consign::layer::source::deb::Base;
use consign::layer::spec::{FilesRecipe, LayerSpec, Recipe, RunRecipe};
use consign::layer::{Layer, LayerError, Proofs, build_ahead, build_all};
use consign::report::{Event, Recorder, Silent};
use consign::tree::Node;
use consign::units::Timestamp;

use super::foreign::{path, spec};
use super::packages::{Archive, shop};
use super::sandbox::store;
use crate::support::consign_path;

fn run(script: &str) -> RunRecipe {
    RunRecipe {
        script: script.as_bytes().to_vec(),
        input: None,
        environment: BTreeMap::new(),
        network: false,
    }
}

fn build(
    store: &Path,
    archive: &Archive,
    base: &LayerSpec,
    scripts: &[RunRecipe],
) -> Result<Vec<Layer>, LayerError> {
    let mut specs = vec![base.clone()];
    specs.extend(
        scripts
            .iter()
            .cloned()
            .map(|script| spec(Recipe::Run(script))),
    );
    build_all(&specs, &shop(store, archive, consign_path()), &Silent)
}

fn text(layer: &Layer, name: &str) -> String {
    let node = layer.delta.tree.at(name);
    let content = node.and_then(Node::content);
    let content = content.unwrap_or_else(|| panic!("no {name}"));
    String::from_utf8(content.read_all(1 << 20).expect("readable")).expect("text")
}

const FIRST: &str = "#!/bin/sh -e
cp greeting /etc/greeting
rm /etc/issue.net
mkdir -p /opt/app && chown 33:33 /opt/app && chmod 750 /opt/app
env | grep -v ^_ | sort > /opt/app/env
pwd > /opt/app/place
ischroot && echo none > /opt/app/init
grep -c : /proc/net/dev > /opt/app/devices
ls -A /run/consign | sort > /opt/app/beside
echo log > /var/log/setup.log
echo cache > /var/cache/ldconfig/aux-cache
";

#[test]
fn a_script_changes_the_layers_below_and_nothing_else_is_left() {
    let archive = Archive::open();
    let base = archive.resolve(Base::Essential, &[("base", &[])]).remove(0);
    let folder = tempfile::tempdir().expect("folder");
    let input = folder.path().join("input");
    std::fs::create_dir(&input).expect("folder");
    std::fs::write(input.join("greeting"), "hello\n").expect("file");
    let mut first = run(FIRST);
    first.input = Some(FilesRecipe {
        digest: digest_folder(&input).expect("digest"),
        folder: input,
        rules: vec![],
        entries: vec![],
        remove: vec![],
        templates: vec![],
        values: BTreeMap::new(),
    });
    first.environment.insert("MODE".into(), "a b".into());
    let mut second = run("test ! -e /etc/issue.net\ngrep -c : /proc/net/dev >/srv/devices\n");
    second.network = true;
    let scripts = [first, second];
    let store = folder.path().join("store");
    let layers = build(&store, &archive, &base, &scripts).unwrap_or_else(|e| panic!("{e}"));
    let [_, made, above] = layers.as_slice() else {
        panic!("three layers");
    };
    assert_eq!(text(made, "etc/greeting"), "hello\n");
    assert!(made.delta.removed.contains(&path("etc/issue.net")));
    assert_eq!(
        text(made, "opt/app/env"),
        "DEBCONF_NONINTERACTIVE_SEEN=true\nDEBIAN_FRONTEND=noninteractive\nHOME=/root\n\
         LC_ALL=C.UTF-8\nMODE=a b\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         PWD=/run/consign\nSOURCE_DATE_EPOCH=1700000000\nSYSTEMD_OFFLINE=1\nTZ=UTC\n"
    );
    assert_eq!(text(made, "opt/app/place"), "/run/consign\n");
    assert_eq!(text(made, "opt/app/init"), "none\n");
    assert_eq!(text(made, "opt/app/beside"), "greeting\nscript\n");
    assert_eq!(text(made, "opt/app/devices"), "1\n", "only lo");
    let host = std::fs::read_to_string("/proc/net/dev").expect("the host's devices");
    let devices = host.lines().filter(|line| line.contains(':')).count();
    assert_eq!(
        text(above, "srv/devices"),
        format!("{devices}\n"),
        "the host's"
    );
    let meta = &made.delta.tree.at("opt/app").expect("a folder").meta;
    assert_eq!((meta.uid, meta.gid, meta.mode), (33, 33, 0o750));
    assert_eq!(meta.mtime, Timestamp::from_seconds(1_700_000_000));
    for gone in ["run/consign", "var/log/setup.log", "usr/sbin/policy-rc.d"] {
        assert!(made.delta.tree.at(gone).is_none(), "{gone}");
    }
    assert!(made.delta.tree.at("var/cache/ldconfig/aux-cache").is_none());

    // The same again on a base from the store: the same bytes.
    for layer in &layers[1..] {
        let record = format!("layers/{}.json", layer.key.0.hex());
        std::fs::remove_file(store.join(record)).expect("the record");
    }
    let again = build(&store, &archive, &base, &scripts).expect("again");
    assert_eq!(again[1].diff_id, made.diff_id);

    // Scripts without `#!` are the shell's; one that fails says its last words.
    let failing = run("echo some words\nexit 7\n");
    let error = build(&store, &archive, &base, &[failing]).expect_err("it fails");
    assert_eq!(
        error.to_string(),
        "layer `app`: the script ended with exit status 7: some words"
    );
    assert_eq!(error.slug(), "layer-script-failed");
    assert!(error.hint().expect("a hint").contains("network = true"));
    // A key that a script makes is as shared as one that was copied.
    let key = "printf -- '-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAA\\n\
               -----END PRIVATE KEY-----\\n' >/etc/own.key\n";
    let error = build(&store, &archive, &base, &[run(key)]).expect_err("a key");
    assert_eq!(
        error.to_string(),
        "layer `app`: it brings a private key in `/etc/own.key`"
    );
}

/// A layer of one file.
fn note(folder: &Path, text: &str) -> LayerSpec {
    std::fs::create_dir_all(folder.join("etc")).expect("folder");
    std::fs::write(folder.join("etc/note"), text).expect("file");
    spec(Recipe::Files(FilesRecipe {
        digest: digest_folder(folder).expect("digest"),
        folder: folder.to_owned(),
        rules: vec![],
        entries: vec![],
        remove: vec![],
        templates: vec![],
        values: BTreeMap::new(),
    }))
}

#[test]
fn no_script_runs_on_what_was_damaged_in_the_cache() {
    const NOTE: &str = "what the layer below says\n";
    let archive = Archive::open();
    let base = archive.resolve(Base::Essential, &[("base", &[])]).remove(0);
    let folder = tempfile::tempdir().expect("folder");
    let below = [base, note(&folder.path().join("input"), NOTE)];
    let store = store();
    let shop = shop(&store, &archive, consign_path());
    let good = build_all(&below, &shop, &Silent).unwrap_or_else(|e| panic!("{e}"));
    let tar = store.join(format!("blobs/sha256/{}", good[1].diff_id.0.hex()));
    let spoil = || {
        let mut bytes = std::fs::read(&tar).expect("the tar");
        let found = bytes
            .windows(NOTE.len())
            .position(|at| at == NOTE.as_bytes());
        bytes[found.expect("the note")] ^= 0x20;
        std::fs::remove_file(&tar).expect("removed");
        std::fs::write(&tar, bytes).expect("written");
    };
    let ahead = |script: &str| {
        let specs = [&below[..], &[spec(Recipe::Run(run(script)))]].concat();
        let recorder = Recorder::default();
        let proofs = Proofs::new(&shop.store, &recorder);
        let built = build_ahead(&specs, &shop, &proofs, &|_| {}, &recorder);
        let holds = proofs.hold();
        drop(proofs);
        (built, holds, recorder.events())
    };

    // Had it run, its own end would be the error.
    spoil();
    let (built, holds, events) = ahead("exit 7\n");
    let error = built.expect_err("damaged");
    assert_eq!(error.slug(), "layer-damaged", "{error}");
    let is_said = |event: &Event| matches!(event, Event::Warning { message, .. } if message.contains("damaged"));
    assert!(!holds && events.iter().any(is_said), "{events:?}");
    assert!(!tar.exists(), "what is damaged is dropped");

    // The second go makes it again, and the script sees it whole.
    let script = run("cp /etc/note /srv/copy\n");
    let specs = [&below[..], &[spec(Recipe::Run(script))]].concat();
    let again = build_all(&specs, &shop, &Silent).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again[1].diff_id, good[1].diff_id);
    assert_eq!(text(&again[2], "srv/copy"), NOTE);
    // The store outlives the test; the next one is to run the script too.
    let record = store.join(format!("layers/{}.json", again[2].key.0.hex()));
    std::fs::remove_file(record).expect("the record");

    // On sound layers the same way gets as far as the script.
    let (built, holds, _) = ahead("exit 7\n");
    let error = built.expect_err("it fails");
    assert_eq!(error.slug(), "layer-script-failed", "{error}");
    assert!(holds);
}
