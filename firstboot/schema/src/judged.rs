//! The schema against the reader, with somebody else's validator: what the
//! reader takes the schema takes, and it refuses what a schema can refuse.
#![expect(clippy::disallowed_types, reason = "tests call foreign programs")]
#![expect(
    clippy::disallowed_methods,
    reason = "whether this is CI only the environment knows"
)]
#![expect(clippy::print_stderr, reason = "no silent skips")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{Policy, Role, check, corpus, corpus_more, json_schema};

/// Where `ci/install` puts the judges that Debian does not have.
const JUDGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python-judges");

/// Reads a schema and values; says which it takes.
const SCRIPT: &str = r"
import json, sys
from jsonschema import Draft202012Validator as Validator
schema, values = json.load(sys.stdin)
Validator.check_schema(schema)
judge = Validator(schema, format_checker=Validator.FORMAT_CHECKER)
print(json.dumps([[e.json_path + ': ' + e.message[:300] for e in judge.iter_errors(value)] for value in values]))
";

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

const HEAD: &str = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n";

/// Right, each behind [`HEAD`].
const RIGHT: &[&str] = &[
    "",
    "not_before = 2026-01-01\nnot_after = 2036-12-31T23:59:59.5Z",
    "not_before = 2026-01-01T10:00:00+02:00",
    "not_before = 2026-01-01 10:00:00-11:30",
    "not_before = 2026-01-01T10:00Z",
    "[system]\nhostname = \"Web-1\"\ntimezone = \"Etc/GMT+1\"\nlocale = \"de.UTF-8@euro\"",
    "[system]\nlocale = \"POSIX\"\nkeymap = \"us\"",
    "[[nic]]\naddress = \"10.1.2.10/24\"\ngateway = \"10.1.2.1\"",
    "[[nic]]\naddress = [\"10.1.2.10/31\", \"2001:db8::1/128\"]\ngateway = \"fe80::1\"",
    "[[nic]]\nmatch = { slot = \"0000:00:03.0\" }\ndhcp4 = true",
    "[[nic]]\nmatch = { slot = \"0a:1f.7\" }\ndhcp6 = true",
    "[[nic]]\nmatch = { slot = 64 }\naddress = \"10.1.2.10/24\"\nmtu = 0x5dc",
    "[[nic]]\nmatch = { mac = \"52-54-00-AB-cd-ef\" }\ndhcp4 = true\nvlan = 4094",
    "[[nic]]\nmatch = { name = \"e[nt]?*\" }\ndhcp4 = true",
    "[bond.office]\nmembers = [{ slot = \"0000:00:03.0\" }, { name = \"enp*\" }]",
    "[bond.ensemble]\nmembers = [{ slot = 1 }]\naddress = []",
    "[vlan.office]\nid = 7\nmatch = { slot = \"0000:00:03.0\" }\ndhcp4 = true",
    "[dns]\nservers = \"10.1.2.1\"\nsearch = \"example.org\"",
    "[dns]\nservers = []",
    "[ntp]\nservers = \"time.example.org\"",
    "[ntp]\nservers = [\"fd00::1\", \"10.1.2.1\"]",
    "[proxy]\nhttp = \"http://fd00::1:3128\"\nhttps = \"https://[fd00::1]/\"\nno_proxy = \".a\"",
    "[proxy]\nhttp = \"http://[proxy.example.org]:000080\"",
    "[user.root]\nssh_keys = \"@KEY@\"",
    "[user._a]\nssh_keys = [\" @KEY@  two  words \"]\nsudo = true",
    "[user.admin]\nssh_keys = [\"@WIDE@\"]",
    "[user.admin]\nssh_keys = [\"@KEY@ line\u{2028}separator\"]",
    "[user.admin]\npassword_hash = '$y$j9T$abc$@43@'",
    "[user.admin]\npassword_hash = '$5$rounds=5000$abc$@43@'",
    "[user.admin]\npassword_hash = '$2b$12$@43@aaaaaaaaaa'",
    "[disk.data]\nmount = \"/data\"\nmin_size = \"010  GiB\"",
    "[disk.data]\nmount = \"/srv\"\nmin_size = \"10\u{a0}GiB\"",
    "[disk.data]\nmount = \"/var/lib/a/b\"\nmin_size = \"1MiB\"",
    "[license]\nfile = \"LICENSE/Product.KEY\"",
    "[license]\nfile = \"license/a\"",
    "[report]",
    "[trust]\nkeys = \"@WIDE@\"",
    "[trust]\nkeys = [\"RW@43@aaaaaaaaaaa\"]",
    "[secret.a]\nservices = \"a@b.service\"\nfrom = \"console\"",
];

/// What both must refuse, each behind [`HEAD`].
const WRONG: &[&str] = &[
    "not_before = \"soon\"",
    "not_before = 2026-01-01T10:00:00",
    "[system]\nhostname = \"localhost\"",
    "[system]\nhostname = \"LocalHost.example.org\"",
    "[system]\nhostname = \"10.1.2.3\"",
    "[system]\nhostname = \"a123456789.b123456789.c123456789.d123456789.e123456789.f123456789\"",
    "[[nic]]\nmtu = 1500",
    "[[nic]]\naddress = \"10.1.2.10/33\"",
    "[[nic]]\naddress = \"fd00::1/129\"",
    "[[nic]]\naddress = [[\"10.1.2.10/24\"]]",
    "[[nic]]\ngateway = \"gate\"\ndhcp4 = true",
    "[[nic]]\nmatch = { slot = \"1\" }\ndhcp4 = true",
    "[[nic]]\nmatch = { slot = 65 }\ndhcp4 = true",
    "[[nic]]\nmatch = { mac = \"53:54:00:12:34:56\" }\ndhcp4 = true",
    "[[nic]]\nmatch = { mac = \"52:54-00:12:34:56\" }\ndhcp4 = true",
    "[[nic]]\nmatch = { slot = 1, name = \"eth0\" }\ndhcp4 = true",
    "[bond.bond0]\ndhcp4 = true",
    "[bond.bond0]\nmembers = []",
    "[bond.eth0]\nmembers = [{ slot = 1 }]",
    "[vlan.enp3s0]\nid = 7\ndhcp4 = true",
    "[vlan.office]\nid = 7",
    "[user.admin]\nsudo = true",
    "[user.daemon]\nssh_keys = \"@KEY@\"",
    "[user.admin]\nssh_keys = \"ssh-dss AAAA\"",
    "[user.admin]\nssh_keys = \"from=here @KEY@\"",
    "[user.admin]\npassword_hash = '$6$abc$short'",
    "[user.admin]\npassword_hash = '$1$abc$@43@'",
    "[disk.data]\nmount = \"/etc\"",
    "[disk.data]\nmount = \"/var/lib\"",
    "[disk.data]\nmin_size = \"0 GiB\"",
    "[license]\nfile = \"other/product.key\"",
    "[license]",
    "[trust]\nkeys = \" @KEY@\"",
    "[app]\na = 1",
];

/// What the validator finds wrong with each value, or nothing where it is
/// missing on this machine.
fn judge(schema: &Value, values: &[Value]) -> Option<Vec<Vec<String>>> {
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).env("PYTHONPATH", JUDGES);
    python.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match python.stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return skip(&format!("python3: {error}")),
    };
    let mut input = child.stdin.take().expect("a pipe");
    // A script that ends at once reads nothing; its own words say why.
    let _written = input.write_all(json!([schema, values]).to_string().as_bytes());
    drop(input);
    let out = child.wait_with_output().expect("python3 ends");
    let said = String::from_utf8_lossy(&out.stderr);
    if said.contains("No module named 'jsonschema'") {
        return skip("no judge of JSON Schemas: run ci/install");
    }
    assert!(out.status.success(), "{said}");
    Some(serde_json::from_slice(&out.stdout).expect("a list of lists"))
}

/// Missing judges are a failure in CI only.
fn skip<T>(reason: &str) -> Option<T> {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!is_ci, "cannot be skipped in CI: {reason}");
    eprintln!("SKIPPED: {reason}");
    None
}

/// What a validator sees of TOML: dates are texts.
fn seen(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(seen).collect(),
        toml::Value::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| (key, seen(value)));
            Value::Object(entries.collect())
        }
    }
}

/// The texts that are TOML, with what a validator sees.
fn readable(texts: Vec<String>) -> (Vec<String>, Vec<Value>) {
    let read = |text: String| {
        let table = text.parse::<toml::Table>().ok()?;
        Some((text, seen(toml::Value::Table(table))))
    };
    texts.into_iter().filter_map(read).unzip()
}

fn filled(text: &str) -> String {
    format!("{HEAD}{text}\n")
        .replace("@KEY@", KEY)
        .replace("@WIDE@", &KEY.replace(' ', "   "))
        .replace("@43@", &"a".repeat(43))
}

/// The sample of the README, with a whole key.
fn of_the_readme() -> String {
    let readme = include_str!("../../../README.md");
    let (_, after) = readme.split_once("```toml\n   schema").expect("the sample");
    let (sample, _) = after.split_once("```").expect("its end");
    format!("schema{sample}").replace("ssh-ed25519 AAAA…", KEY)
}

fn role_of_the_readme() -> Role {
    let text = "schema = 1\nname = \"web\"\ndescription = \"A\"\n[param.title]\ntype = \"string\"\n\
        [param.listen_port]\ntype = \"port\"\ndefault = 80\n";
    Role::parse(text).expect("good")
}

/// Judges the texts both ways: whatever the reader takes the schema must
/// take. Gives how many wrong ones both refuse, and how many there are.
fn compare(roles: &[Role], policy: &Policy, texts: Vec<String>) -> Option<(usize, usize)> {
    let (texts, values) = readable(texts);
    let schema = json_schema(&roles.iter().collect::<Vec<_>>(), policy);
    let found = judge(&schema, &values)?;
    assert_eq!(found.len(), texts.len());
    let (mut refused, mut wrong) = (0, 0);
    for (text, found) in texts.iter().zip(found) {
        let judged = check(text, roles, policy);
        let is_right = judged.is_ok();
        assert!(!is_right || found.is_empty(), "{found:?}:\n{text}");
        wrong += usize::from(!is_right);
        refused += usize::from(!is_right && !found.is_empty());
    }
    Some((refused, wrong))
}

#[test]
fn whatever_the_reader_takes_the_schema_takes() {
    for text in RIGHT {
        let judged = check(&filled(text), &[], &Policy::default());
        assert!(judged.is_ok(), "{text}: {judged:#?}");
    }
    let texts = RIGHT.iter().map(|text| filled(text)).collect();
    compare(&[], &Policy::default(), texts);
    let role = role_of_the_readme();
    let judged = check(
        &of_the_readme(),
        std::slice::from_ref(&role),
        &Policy::default(),
    );
    assert!(judged.is_ok(), "{judged:#?}");
    compare(&[role], &Policy::default(), vec![of_the_readme()]);
}

#[test]
fn what_a_schema_can_refuse_is_refused() {
    let texts: Vec<String> = WRONG.iter().map(|text| filled(text)).collect();
    for text in &texts {
        assert!(check(text, &[], &Policy::default()).is_err(), "{text}");
    }
    let (texts, values) = readable(texts);
    assert_eq!(texts.len(), WRONG.len());
    let Some(found) = judge(&json_schema(&[], &Policy::default()), &values) else {
        return;
    };
    for (text, found) in texts.iter().zip(found) {
        assert!(!found.is_empty(), "accepted:\n{text}");
    }
}

#[test]
fn the_corpora_are_judged_alike() {
    let Some((refused, wrong)) = compare(&[corpus::role()], &Policy::default(), corpus::texts())
    else {
        return;
    };
    let (more, more_wrong) =
        compare(&[], &Policy::default(), corpus_more::texts()).expect("as before");
    assert!(
        refused >= 78 && more >= 74,
        "{refused} of {wrong} and {more} of {more_wrong} wrong files are refused"
    );
}

#[test]
fn each_of_several_roles_has_its_parameters() {
    let other = "schema = 1\nname = \"other\"\ndescription = \"B\"\n[param.a]\ntype = \"int\"\ndefault = 1\n";
    let roles = [Role::parse(other).expect("good"), role_of_the_readme()];
    let texts = [
        "[role]\nname = \"other\"",
        "[role]\nname = \"other\"\n[app]\na = 2",
        "[role]\nname = \"web\"\n[app]\ntitle = \"x\"",
        // Wrong.
        "[role]\nname = \"web\"",
        "[role]\nname = \"web\"\n[app]\na = 2",
        "[role]\nname = \"other\"\n[app]\ntitle = \"x\"",
        "[role]\nname = \"third\"",
        "",
    ];
    let texts = texts.iter().map(|text| filled(text)).collect();
    if let Some(found) = compare(&roles, &Policy::default(), texts) {
        assert_eq!(found, (5, 5));
    }
}

#[test]
fn a_role_that_alone_is_offered_needs_not_be_chosen() {
    let other = "schema = 1\nname = \"other\"\ndescription = \"B\"\n";
    let roles = [Role::parse(other).expect("good"), role_of_the_readme()];
    let policy = Policy {
        roles: vec!["web".into()],
        ..Policy::default()
    };
    let texts = ["[app]\ntitle = \"x\"", "", "[role]\nname = \"other\""];
    let texts = texts.iter().map(|text| filled(text)).collect();
    if let Some(found) = compare(&roles, &policy, texts) {
        assert_eq!(found, (2, 2));
    }
}
