//! The operator's command, run as it is on folders that stand for systems.
#![expect(clippy::disallowed_types, reason = "the tests run the agent")]

use std::fs;
use std::path::Path;
use std::process::Command;

const AGENT: &str = env!("CARGO_BIN_EXE_consign-firstboot");

/// Exit status, what it printed, what it complained of.
fn appliance(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(AGENT).args(words).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, text).expect("written");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn cloud_inits_files_are_converted_to_what_the_agent_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path();
    write(
        place,
        "meta-data",
        "instance-id: acme-01\nlocal-hostname: web-1\n",
    );
    write(
        place,
        "user-data",
        "#cloud-config\nusers:\n  - name: ann\n    ssh_authorized_keys:\n      - ssh-ed25519 \
         AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann\n",
    );
    write(
        place,
        "network-config",
        "version: 2\nethernets:\n  eth0:\n    match:\n      macaddress: 52:54:00:12:34:56\n    dhcp4: true\n",
    );
    let (code, site, said) = appliance(&["convert", text(place)]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "acme-01",
        "hostname = \"web-1\"",
        "[user.ann]",
        "52:54:00:12:34:56",
    ] {
        assert!(site.contains(part), "no {part} in {site}");
    }
    // It is a configuration: the same program says so.
    write(place, "site.toml", &site);
    let file = place.join("site.toml");
    let (code, told, said) = appliance(&["--root", text(place), "validate", text(&file)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(told.contains("is valid"), "{told}");
    // What has no counterpart is refused at its line, and nothing is printed.
    write(
        place,
        "user-data",
        "#cloud-config\nhostname: a\nruncmd:\n  - [touch, /CANARY]\n",
    );
    let (code, site, said) = appliance(&["convert", text(place)]);
    assert_eq!((code, site.as_str()), (Some(20), ""));
    assert!(
        said.contains("user-data:4:3") && !said.contains("CANARY"),
        "{said}"
    );
    let (code, _, _) = appliance(&["convert", text(&place.join("nothing"))]);
    assert_eq!(code, Some(66));
}

#[test]
fn the_schema_is_the_one_that_came_with_the_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, said) = appliance(&["--root", text(folder.path()), "schema"]);
    assert!(
        code == Some(66) && said.contains("site.schema.json"),
        "{said}"
    );
    write(
        folder.path(),
        "usr/lib/consign/site.schema.json",
        "{\"type\":\"object\"}\n",
    );
    let (code, told, _) = appliance(&["--root", text(folder.path()), "schema"]);
    assert_eq!((code, told.as_str()), (Some(0), "{\"type\":\"object\"}\n"));
}

/// Two copies of one image share nothing that tells machines apart.
#[test]
fn clones_have_host_keys_and_identities_of_their_own() {
    let made = [(); 2].map(|()| {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, _, said) = appliance(&["--root", text(folder.path()), "config"]);
        let own = [
            "ssh/ssh_host_ed25519_key",
            "ssh/ssh_host_ed25519_key.pub",
            "identity.age",
            "recipient",
        ];
        own.map(|name| {
            let path = folder.path().join("var/lib/consign").join(name);
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}\n{said}"))
        })
    });
    for (one, two) in made[0].iter().zip(&made[1]) {
        assert!(!one.is_empty());
        assert_ne!(one, two);
    }
}

/// A secret that somebody enters is kept for its services, and nowhere told.
#[test]
fn a_secret_is_taken_from_who_is_at_the_machine() {
    use std::io::Write as _;
    use std::process::Stdio;
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path();
    for (name, content) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/shadow", "root:*:1::::::\n"),
    ] {
        write(place, name, content);
    }
    let site = place.join("site.toml");
    write(
        place,
        "site.toml",
        "schema = 1\n[config]\nid = \"a\"\nserial = 1\n[secret.pin]\nfrom = \"console\"\n",
    );
    let enter = |name: &str, secret: &str| {
        let mut child = Command::new(AGENT)
            .args(["--root", text(place), "secret", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut input = child.stdin.take().expect("a pipe");
        // Who is refused at once does not read.
        let _ = input.write_all(secret.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("CANARY"), "{said}");
        (output.status.code(), said)
    };
    assert_eq!(enter("pin", "CANARY\n").0, Some(10), "not configured yet");
    appliance(&["--root", text(place), "config"]);
    let (_, told, said) = appliance(&["--root", text(place), "apply", text(&site)]);
    assert!(
        (told + &said).contains("appliance secret pin"),
        "what is missing is told"
    );
    let (code, said) = enter("other", "CANARY\n");
    assert!(
        code == Some(64) && said.contains("those that are: pin"),
        "{said}"
    );
    assert_eq!(enter("pin", "\n").0, Some(64));
    assert_eq!(enter("pin", &"CANARY".repeat(20_000)).0, Some(64));
    assert_eq!(enter("pin", "CANARY\n").0, Some(0));
    let stored = place.join("run/credstore/pin");
    assert_eq!(fs::read_to_string(&stored).expect("handed on"), "CANARY");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&stored.metadata().expect("there").permissions());
    assert_eq!(mode & 0o777, 0o400);
}
