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
        said.contains("user-data:3:1") && !said.contains("CANARY"),
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

/// The system that the commands below work on.
fn delivered() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/shadow", "root:*:1::::::\n"),
        ("site-1", &site(1, "")),
        ("site-2", &site(2, "")),
        ("wrong", &site(2, "[systme]\n")),
        ("older", &site(1, "[ntp]\nservers = [\"10.1.2.1\"]\n")),
        (
            "link",
            &site(
                3,
                "[[nic]]\naddress = [\"10.1.2.10/24\"]\nmatch = { name = \"e*\" }\n",
            ),
        ),
    ] {
        write(folder.path(), name, content);
    }
    folder
}

fn site(serial: u32, rest: &str) -> String {
    format!(
        "schema = 1\n[config]\nid = \"a\"\nserial = {serial}\n[system]\n\
         hostname = \"web-{serial}\"\n{rest}"
    )
}

/// Runs a command on the folder; `input` stands on its standard input.
fn on(place: &Path, words: &[&str], input: &str) -> (i32, String) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = Command::new(AGENT)
        .args(["--root", text(place)])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // Who reads nothing may be gone.
    let _ = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap_or(-1), said)
}

/// Programs of customers' look at these numbers: none of them ever moves.
#[test]
fn exit_codes_are_frozen() {
    let folder = delivered();
    let place = folder.path();
    let file = |name: &str| text(&place.join(name)).to_owned();
    let must = |words: &[&str], code: i32| {
        let (found, said) = on(place, words, "");
        assert_eq!(found, code, "{words:?}: {said}");
    };
    let status = |state: &str, code: i32| {
        let toml = format!("schema = 1\nstate = \"{state}\"\nexit = {code}\ngeneration = 1\n");
        write(place, "run/consign/status.toml", &toml);
        must(&["status", "--wait"], code);
    };
    must(&["status"], 75);
    must(&["nothing"], 64);
    must(&["apply", &file("site-1"), "--confirm", "soon"], 64);
    must(&["validate", &file("nothing")], 66);
    must(&["config"], 10);
    must(&["status", "--wait"], 10);
    must(&["rollback"], 10);
    must(&["plan", &file("site-1")], 0);
    must(&["validate", &file("wrong")], 20);
    must(&["apply", &file("wrong")], 20);
    let policy = "usr/lib/consign/policy.toml";
    write(
        place,
        policy,
        "schema = 1\nforbidden = [\"system.hostname\"]\n",
    );
    must(&["apply", &file("site-1")], 22);
    write(place, policy, "schema = 1\nfrobidden = []\n");
    must(&["validate", &file("site-1")], 70);
    fs::remove_file(place.join(policy)).expect("removed");
    must(&["apply", &file("site-1")], 0);
    must(&["plan", &file("site-1")], 0);
    let (found, said) = on(place, &["rollback"], "");
    assert_eq!(found, 30, "{said}");
    assert!(said.contains("nothing has changed"), "{said}");
    must(&["validate", &file("site-2")], 0);
    must(&["apply", &file("site-2")], 21);
    must(&["apply", &file("older")], 21);
    let code = fs::read_to_string(place.join("var/lib/consign/claim")).expect("a code");
    let (found, said) = on(place, &["apply", &file("older"), "--claim"], &code);
    assert_eq!(found, 23, "{said}");
    // Where its file goes, somebody made a folder.
    fs::create_dir_all(place.join("run/systemd/network/20-consign-1.network/x")).expect("made");
    let (found, said) = on(place, &["apply", &file("link"), "--claim"], &code);
    assert_eq!(found, 30, "{said}");
    for copy in ["state.a", "state.b"] {
        write(place, &format!("var/lib/consign/{copy}"), "rubbish");
    }
    must(&["config"], 31);
    must(&["status", "--wait"], 31);
    // What only a system with services finds out.
    status("ready", 0);
    status("degraded", 40);
    status("degraded", 41);
    must(&["factory-reset"], 64);
    must(&["factory-reset", "--yes"], 0);
    must(&["config"], 10);
}

/// Who made room, or took away what stood in the way, needs no new serial.
#[test]
fn what_could_not_be_put_in_place_is_applied_again() {
    let folder = delivered();
    let place = folder.path();
    let one = text(&place.join("site-1")).to_owned();
    let hostname = place.join("etc/hostname");
    let in_the_way = hostname.join("x");
    fs::create_dir_all(&in_the_way).expect("made");
    let (found, said) = on(place, &["apply", &one], "");
    assert_eq!(found, 31, "{said}");
    let (found, said) = on(place, &["apply", &one], "");
    assert_eq!(found, 31, "still in the way: {said}");
    fs::remove_dir_all(&hostname).expect("removed");
    // The loader started it although no slot had tries left.
    write(place, "proc/cmdline", "consign.slot=a consign.fenced=1\n");
    let (found, said) = on(place, &["apply", &one], "");
    assert_eq!((found, hostname.exists()), (31, false), "{said}");
    fs::remove_file(place.join("proc/cmdline")).expect("removed");
    let (found, said) = on(place, &["apply", &one], "");
    assert_eq!(found, 0, "{said}");
    let name = fs::read_to_string(&hostname).expect("a name");
    assert_eq!(name, "web-1\n");
    let (found, said) = on(place, &["apply", &one], "");
    assert_eq!(found, 0);
    assert!(said.contains("in use"), "{said}");
}

/// A list of processes shows no claim code, and a wrong one changes nothing.
#[test]
fn the_claim_code_comes_from_who_is_at_the_machine() {
    let folder = delivered();
    let place = folder.path();
    let two = text(&place.join("site-2")).to_owned();
    assert_eq!(on(place, &["apply", text(&place.join("site-1"))], "").0, 0);
    // A plan leaves nothing behind, no code either.
    assert_eq!(on(place, &["plan", &two], "").0, 21);
    assert!(!place.join("var/lib/consign/claim").exists());
    assert_eq!(on(place, &["apply", &two], "").0, 21);
    let code = fs::read_to_string(place.join("var/lib/consign/claim")).expect("a code");
    assert_eq!(
        on(place, &["apply", &two, "--claim", code.trim()], "").0,
        64
    );
    assert_eq!(on(place, &["apply", &two, "--claim"], "\n").0, 64);
    assert_eq!(
        on(place, &["apply", &two, "--claim"], "ABCDEFGHJKLM\n").0,
        21
    );
    let hostname = || fs::read_to_string(place.join("etc/hostname")).expect("a name");
    assert_eq!(hostname(), "web-1\n");
    let (found, said) = on(place, &["apply", &two, "--claim"], &code);
    assert_eq!((found, hostname().as_str()), (0, "web-2\n"), "{said}");
    assert!(!said.contains(code.trim()), "{said}");
}

/// What a dropped session leaves behind goes at its deadline, and not else.
#[test]
fn an_unconfirmed_configuration_is_taken_back_by_its_digest() {
    let folder = delivered();
    let place = folder.path();
    let two = text(&place.join("site-2")).to_owned();
    let hostname = || fs::read_to_string(place.join("etc/hostname")).expect("a name");
    on(place, &["apply", text(&place.join("site-1"))], "");
    on(place, &["apply", &two], "");
    let code = fs::read_to_string(place.join("var/lib/consign/claim")).expect("a code");
    let sum = Command::new("sha256sum")
        .arg(&two)
        .output()
        .expect("sha256sum");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    let digest = sum.split_whitespace().next().expect("a digest");
    assert_eq!(on(place, &["unconfirmed", digest], "").0, 0);
    assert_eq!(
        on(place, &["apply", &two, "--confirm", "60", "--claim"], &code).0,
        0
    );
    assert_eq!(
        on(place, &["unconfirmed", &"0".repeat(64)], ""),
        (0, String::new())
    );
    assert_eq!(hostname(), "web-2\n");
    let three = text(&place.join("link")).to_owned();
    let (found, said) = on(place, &["apply", &three], "");
    assert!(found == 30 && said.contains("is on trial"), "{said}");
    let (found, said) = on(place, &["unconfirmed", digest], "");
    assert_eq!((found, hostname().as_str()), (30, "web-1\n"));
    assert!(said.contains("nobody confirmed"), "{said}");
    assert_eq!(on(place, &["unconfirmed", digest], ""), (0, String::new()));
    assert!(
        on(place, &["confirm"], "")
            .1
            .contains("nothing is on trial")
    );
}

/// A plan tells what somebody changed since it was written.
#[test]
fn a_plan_marks_what_was_edited() {
    let folder = delivered();
    let place = folder.path();
    on(place, &["apply", text(&place.join("site-1"))], "");
    on(place, &["apply", text(&place.join("site-2"))], "");
    let code = fs::read_to_string(place.join("var/lib/consign/claim")).expect("a code");
    let plan = || {
        on(
            place,
            &["plan", text(&place.join("site-2")), "--claim"],
            &code,
        )
        .1
    };
    assert!(plan().contains("write /etc/hostname\n"), "{}", plan());
    write(place, "etc/hostname", "by somebody\n");
    let edited = "write /etc/hostname (somebody changed it: that is kept in /etc/hostname.local)\n";
    assert!(plan().contains(edited), "{}", plan());
    assert!(!place.join("etc/hostname.local").exists());
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

/// Who mistypes is told the word in one line; who asks for help gets it.
#[test]
fn a_wrong_command_line_is_named() {
    let folder = delivered();
    let place = folder.path();
    let one = text(&place.join("site-1")).to_owned();
    for (words, said) in [
        (&["valdate", "x"][..], "`validate` is the nearest"),
        (&["status", "--jsn"], "`--json` is the nearest"),
        (&["apply", "a", "b"], "`apply` takes [FILE]"),
        (
            &["validate", &one, "--signature", "nosuch"],
            "means nothing",
        ),
        (&["confirm", "--yes"], "means nothing to `confirm`"),
        (&["verify"], "for the running system only"),
    ] {
        let (code, found) = on(place, words, "");
        assert_eq!((code, found.lines().count()), (64, 1), "{found}");
        assert!(
            found.contains(said) && found.contains("appliance --help"),
            "{words:?}: {found}"
        );
    }
    let (code, help, said) = appliance(&["--help"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    for words in [
        &["validate", "--help"][..],
        &["apply", "x", "-h"],
        &["help"],
    ] {
        assert_eq!(appliance(words), (Some(0), help.clone(), String::new()));
    }
    assert!(!place.join("run").exists(), "nothing was done");
}

/// Programs get JSON whatever the answer is.
#[test]
fn json_is_told_of_every_verdict() {
    let folder = delivered();
    let place = folder.path();
    let ask = |words: &[&str]| {
        let (code, told, _) = appliance(&[&["--root", text(place)], words].concat());
        (code, told)
    };
    let file = |name: &str| text(&place.join(name)).to_owned();
    let (code, told) = ask(&["status", "--json"]);
    assert_eq!(code, Some(75));
    assert!(
        told.starts_with("{\"schema\":1,\"state\":\"starting\",\"exit\":75,")
            && told.contains("has not run yet"),
        "{told}"
    );
    assert_eq!(
        ask(&["validate", &file("site-1"), "--json"]),
        (
            Some(0),
            "{\"schema\":1,\"exit\":0,\"problems\":[]}\n".to_owned()
        )
    );
    let wrong = file("wrong");
    let (code, told) = ask(&["validate", "--json", &wrong]);
    let start = format!(
        "{{\"schema\":1,\"exit\":20,\"problems\":[{{\"file\":\"{wrong}\",\"line\":7,\
         \"column\":2,\"code\":\"unknown-key\",\"key\":\"systme\",\"message\":\""
    );
    assert_eq!(code, Some(20));
    assert!(told.starts_with(&start), "{told}");
    let (code, told) = ask(&["validate", "--json", &file("nothing")]);
    assert_eq!(code, Some(66));
    assert!(told.contains("\"code\":\"unreadable\""), "{told}");
}

/// A plan is what apply would do: of the same file both say the same.
#[test]
fn a_plan_says_what_apply_would() {
    let folder = delivered();
    let place = folder.path();
    let [one, two] = ["site-1", "site-2"].map(|name| text(&place.join(name)).to_owned());
    on(place, &["apply", &one], "");
    let planned = on(place, &["plan", &one], "");
    assert_eq!(planned, on(place, &["apply", &one], ""));
    assert!(planned.1.contains("is in use"), "{}", planned.1);
    // What was taken and is not in place any more is put there again.
    fs::remove_dir_all(place.join("run")).expect("a new start");
    fs::remove_file(place.join("etc/hostname")).expect("removed");
    let (code, said) = on(place, &["plan", &one], "");
    assert!(code == 0 && said.contains("write /etc/hostname"), "{said}");
    on(place, &["apply", &one], "");
    on(place, &["apply", &two], "");
    let claim = fs::read_to_string(place.join("var/lib/consign/claim")).expect("a code");
    on(place, &["apply", &two, "--claim"], &claim);
    let (code, said) = on(place, &["plan", &one], "");
    assert!(code == 30 && said.contains("is on trial"), "{said}");
}

/// Without a key of the owner's no signature helps, and nobody is sent for one.
#[test]
fn who_needs_the_claim_code_is_told_so() {
    let folder = delivered();
    let place = folder.path();
    let two = text(&place.join("site-2")).to_owned();
    on(place, &["apply", text(&place.join("site-1"))], "");
    write(place, "signature", "-----BEGIN SSH SIGNATURE-----\n");
    let signature = text(&place.join("signature")).to_owned();
    for command in ["plan", "apply"] {
        for more in [&[][..], &["--signature", &signature]] {
            let (code, said) = on(place, &[&[command, &two], more].concat(), "");
            assert_eq!(code, 21, "{said}");
            assert!(
                said.contains("no signature counts")
                    && said.contains("appliance apply FILE --claim")
                    && !said.contains("--sign`"),
                "{said}"
            );
        }
    }
    for command in ["plan", "apply"] {
        let (code, said) = on(place, &[command, &two, "--claim"], "ABCDEFGHJKLM\n");
        assert_eq!(code, 21, "{said}");
        assert!(said.contains("the claim code is wrong"), "{said}");
    }
}
