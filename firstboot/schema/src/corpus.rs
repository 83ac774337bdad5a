//! Wrong site configurations, one fault each, and what is said of them.
//!
//! A case replaces a piece of [`GOOD`]; `«` stands where the problem must
//! point to. `CANARY` stands for a secret in the wrong place: it must not
//! appear in any output.

use crate::{Code, Policy, Problem, Role, check, decode};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

const GOOD: &str = r#"# A site.
schema = 1

[config]
id = "acme-01"
serial = 3

[system]
hostname = "web-1.example.org"
timezone = "Europe/Berlin"
locale = "C.UTF-8"

[[nic]]
match = { mac = "52:54:00:12:34:56" }
address = ["10.1.2.10/24", "fd00::10/64"]
gateway = ["10.1.2.1", "fe80::1"]
mtu = 9000

[[nic]]
match = { name = "en*" }
dhcp4 = true
vlan = 7

[dns]
servers = ["10.1.2.1"]
search = ["example.org"]

[ntp]
servers = ["time.example.org", "10.1.2.1"]

[user.admin]
ssh_keys = ["@KEY@ ann"]
password_hash = '$6$saltsalt$@HASH@'
sudo = true

[user.root]
ssh_keys = "@KEY@"

[role]
name = "web"

[app]
title = "Grüße"
port = 8080
theme = "dark"
"#;

const ROLE: &str = r#"
schema = 1
name = "web"
description = "A site"
[param.title]
type = "string"
max = 20
[param.port]
type = "port"
default = 80
[param.theme]
type = "enum"
values = ["dark", "light"]
default = "light"
[param.workers]
type = "int"
min = 1
max = 8
default = 2
[param.upstream]
type = "ip"
default = "192.0.2.1"
[param.peer]
type = "hostname"
default = "peer.example.org"
[param.open]
type = "bool"
default = false
"#;

/// What is replaced, by what, and the kind of problem.
const CASES: &[(&str, &str, &str)] = &[
    // Syntax.
    ("schema = 1", "schema = «", "syntax"),
    ("schema = 1", "schema «1", "syntax"),
    ("id = \"acme-01\"", "id = \"acme-01«", "syntax"),
    ("id = \"acme-01\"", "id = «acme-01", "syntax"),
    ("serial = 3", "serial = «03", "syntax"),
    ("[config]", "[config«", "syntax"),
    ("[[nic]]\nmatch = { mac", "[[nic]«\nmatch = { mac", "syntax"),
    ("mtu = 9000", "mtu: «9000", "syntax"),
    ("dhcp4 = true", "dhcp4 = «yes", "syntax"),
    ("dhcp4 = true", "dhcp4 = «True", "syntax"),
    ("title = \"Grüße\"", "title = \"CANARY\\«q\"", "syntax"),
    ("sudo = true", "sudo = true port «= 1", "syntax"),
    // Doubled keys and tables.
    ("serial = 3", "serial = 3\n«serial = 4", "duplicate-key"),
    ("[role]\n", "[dns]\n\n[role]\n", "duplicate-key"),
    ("[ntp]", "[«dns]", "duplicate-key"),
    ("sudo = true", "sudo = true\n«sudo = true", "duplicate-key"),
    // Control characters.
    ("Grüße", "Gr«\u{1b}ße", "control-character"),
    (
        "id = \"acme-01\"",
        "id = \"acme«\0-01\"",
        "control-character",
    ),
    ("\"Grüße\"", "«\"Gr\\u0000CANARY\"", "control-character"),
    ("\"Grüße\"", "«\"a\\nCANARY\"", "control-character"),
    ("\"Grüße\"", "«\"\"\"a\nCANARY\"\"\"", "control-character"),
    ("\"Grüße\"", "«\"\\u202eCANARY\"", "control-character"),
    // The head of the file.
    ("schema = 1", "schema = «2", "unknown-schema"),
    ("schema = 1", "schema = «\"1\"", "wrong-type"),
    ("schema = 1", "schema = «0", "out-of-range"),
    ("id = \"acme-01\"\n", "", "missing-key"),
    ("id = \"acme-01\"", "id = «\"Acme CANARY\"", "invalid-value"),
    ("serial = 3\n", "", "missing-key"),
    ("serial = 3", "serial = «0", "out-of-range"),
    ("serial = 3", "serial = «-1", "out-of-range"),
    ("serial = 3", "serial = «3.0", "wrong-type"),
    (
        "serial = 3",
        "serial = «99999999999999999999",
        "out-of-range",
    ),
    (
        "serial = 3",
        "serial = 3\n«not_aftr = 2030-01-01",
        "unknown-key",
    ),
    // Unknown keys.
    ("hostname =", "«hostnmae =", "unknown-key"),
    ("[ntp]", "[«npt]", "unknown-key"),
    (
        "[role]\n",
        "[proxy]\n«url = \"http://CANARY\"\n\n[role]\n",
        "unknown-key",
    ),
    ("mtu = 9000", "«MTU = 9000", "unknown-key"),
    ("port = 8080", "«prot = 8080", "unknown-key"),
    ("sudo = true", "«sudu = true", "unknown-key"),
    ("sudo = true", "«password = \"CANARY\"", "unknown-key"),
    (
        "{ name = \"en*\" }",
        "{ name = \"en*\", «driver = \"x\" }",
        "unknown-key",
    ),
    (
        "name = \"web\"",
        "name = \"web\"\n«bundle = \"x\"",
        "unknown-key",
    ),
    ("# A site.", "«packages = [\"CANARY\"]", "unknown-key"),
    // [system]
    (
        "\"web-1.example.org\"",
        "«\"web_1 CANARY\"",
        "invalid-value",
    ),
    ("\"web-1.example.org\"", "«\"\"", "invalid-value"),
    ("\"web-1.example.org\"", "«\"localhost\"", "invalid-value"),
    ("\"web-1.example.org\"", "«\"10.1.2.3\"", "invalid-value"),
    ("\"web-1.example.org\"", "«5", "wrong-type"),
    (
        "\"Europe/Berlin\"",
        "«\"../../etc/CANARY\"",
        "invalid-value",
    ),
    ("\"Europe/Berlin\"", "«\"Europe / Berlin\"", "invalid-value"),
    ("\"C.UTF-8\"", "«\"en_US\"", "invalid-value"),
    ("\"C.UTF-8\"", "«\"de_DE.ISO-8859-1\"", "invalid-value"),
    // [[nic]]
    (
        "{ mac = \"52:54:00:12:34:56\" }",
        "{ mac = «\"52:54:00:12:34\" }",
        "invalid-value",
    ),
    (
        "{ mac = \"52:54:00:12:34:56\" }",
        "{ mac = «\"ff:ff:ff:ff:ff:ff\" }",
        "invalid-value",
    ),
    (
        "{ mac = \"52:54:00:12:34:56\" }",
        "{ slot = «\"3\" }",
        "invalid-value",
    ),
    ("{ mac = \"52:54:00:12:34:56\" }", "«{}", "conflict"),
    (
        "{ mac = \"52:54:00:12:34:56\" }",
        "«{ mac = \"52:54:00:12:34:56\", name = \"eth0\" }",
        "conflict",
    ),
    (
        "{ mac = \"52:54:00:12:34:56\" }",
        "«\"52:54:00:12:34:56\"",
        "wrong-type",
    ),
    ("{ name = \"en*\" }", "{ name = «\"lo\" }", "invalid-value"),
    (
        "{ name = \"en*\" }",
        "{ name = «\"en CANARY\" }",
        "invalid-value",
    ),
    ("\"10.1.2.10/24\"", "«\"10.1.2.10\"", "invalid-value"),
    ("\"10.1.2.10/24\"", "«\"10.1.2.10/33\"", "invalid-value"),
    (
        "\"10.1.2.10/24\"",
        "«\"10.1.2.10/255.255.255.0\"",
        "invalid-value",
    ),
    ("\"10.1.2.10/24\"", "«\"10.1.2.300/24\"", "invalid-value"),
    ("\"10.1.2.10/24\"", "«\"10.1.2.0/24\"", "invalid-value"),
    ("\"10.1.2.10/24\"", "«\"10.1.2.255/24\"", "invalid-value"),
    ("\"10.1.2.10/24\"", "«10", "wrong-type"),
    (
        "\"fd00::10/64\"",
        "\"fd00::10/64\", «\"fd00::10/48\"",
        "conflict",
    ),
    ("\"10.1.2.1\", \"fe80::1\"]", "«\"10.1.9.1\"]", "conflict"),
    ("\"10.1.2.1\", \"fe80::1\"]", "«\"10.1.2.10\"]", "conflict"),
    ("\"10.1.2.1\", \"fe80::1\"]", "«\"10.1.2.255\"]", "conflict"),
    (
        "\"10.1.2.1\", \"fe80::1\"]",
        "«\"10.1.2.1/24\"]",
        "invalid-value",
    ),
    (
        "\"10.1.2.1\", \"fe80::1\"]",
        "\"10.1.2.1\", «\"10.1.2.2\"]",
        "conflict",
    ),
    (
        "dhcp4 = true\nvlan",
        "dhcp4 = true\ngateway = «\"10.1.2.1\"\nvlan",
        "conflict",
    ),
    ("mtu = 9000", "mtu = «100", "out-of-range"),
    ("mtu = 9000", "mtu = «1000", "conflict"),
    ("mtu = 9000", "mtu = «\"9000\"", "wrong-type"),
    ("vlan = 7", "vlan = «4095", "out-of-range"),
    ("dhcp4 = true", "dhcp4 = «\"true\"", "wrong-type"),
    ("dhcp4 = true", "dhcp4 = «1", "wrong-type"),
    (
        "«[[nic]]\nmatch = { name = \"en*\" }\ndhcp4 = true",
        "«[[nic]]\nmatch = { name = \"en*\" }\ndhcp4 = false",
        "conflict",
    ),
    (
        "«[[nic]]\nmatch = { name = \"en*\" }\ndhcp4 = true\n",
        "«[[nic]]\nmatch = { name = \"en*\" }\n",
        "missing-key",
    ),
    (
        "«[[nic]]\nmatch = { name = \"en*\" }\ndhcp4 = true\nvlan = 7",
        "«[[nic]]\nmatch = { mac = \"52:54:00:12:34:56\" }\ndhcp4 = true",
        "conflict",
    ),
    (
        "{ name = \"en*\" }\ndhcp4 = true",
        "{ slot = «0 }\ndhcp4 = true",
        "out-of-range",
    ),
    // [dns], [ntp]
    (
        "servers = [\"10.1.2.1\"]",
        "servers = [«\"dns.CANARY.org\"]",
        "invalid-value",
    ),
    (
        "servers = [\"10.1.2.1\"]",
        "servers = [\"10.1.2.1\", «\"0.0.0.0\"]",
        "invalid-value",
    ),
    (
        "servers = [\"10.1.2.1\"]",
        "servers = «[\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\"]",
        "out-of-range",
    ),
    ("servers = [\"10.1.2.1\"]", "servers = «5", "wrong-type"),
    (
        "search = [\"example.org\"]",
        "search = [«\"example_CANARY.org\"]",
        "invalid-value",
    ),
    (
        "\"time.example.org\"",
        "«\"http://CANARY/\"",
        "invalid-value",
    ),
    // [user]
    ("[user.root]", "[user.«Ann]", "invalid-value"),
    ("[user.root]", "[user.«www-data]", "conflict"),
    ("[user.root]", "[user.«\"a:b\"]", "invalid-value"),
    ("[\"@KEY@ ann\"]", "[«\"CANARY\"]", "invalid-value"),
    (
        "[\"@KEY@ ann\"]",
        "[«\"-----BEGIN OPENSSH PRIVATE KEY----- CANARY\"]",
        "invalid-value",
    ),
    (
        "[\"@KEY@ ann\"]",
        "[«\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkV CANARY\"]",
        "invalid-value",
    ),
    ("[\"@KEY@ ann\"]", "[\"@KEY@ ann\", «\"@KEY@\"]", "conflict"),
    (
        "[\"@KEY@ ann\"]",
        "[«\"from=\\\"CANARY\\\" @KEY@\"]",
        "invalid-value",
    ),
    ("'$6$saltsalt$@HASH@'", "«\"CANARY\"", "invalid-value"),
    (
        "'$6$saltsalt$@HASH@'",
        "«'$1$saltsalt$CANARYCANARYCANARYCANA'",
        "invalid-value",
    ),
    (
        "'$6$saltsalt$@HASH@'",
        "«'$6$saltsalt$CANARY'",
        "invalid-value",
    ),
    ("'$6$saltsalt$@HASH@'", "«'!'", "invalid-value"),
    (
        "«[user.root]\nssh_keys = \"@KEY@\"",
        "«[user.root]\nsudo = false",
        "missing-key",
    ),
    (
        "«root]\nssh_keys = \"@KEY@\"",
        "«root]\nssh_keys = \"@KEY@\"\nsudo = true",
        "conflict",
    ),
    (
        "[user.root]\nssh_keys = \"@KEY@\"",
        "[user]\nroot = «\"@KEY@\"",
        "wrong-type",
    ),
    // [role], [app]
    ("name = \"web\"", "name = «\"wbe\"", "unknown-role"),
    ("name = \"web\"", "", "missing-key"),
    ("title = \"Grüße\"\n", "", "missing-key"),
    (
        "title = \"Grüße\"",
        "title = «\"a title of more than twenty CANARY\"",
        "out-of-range",
    ),
    ("title = \"Grüße\"", "title = «5", "wrong-type"),
    ("port = 8080", "port = «0", "out-of-range"),
    ("port = 8080", "port = «\"8080\"", "wrong-type"),
    ("port = 8080", "workers = «9", "out-of-range"),
    ("port = 8080", "upstream = «\"CANARY\"", "invalid-value"),
    (
        "port = 8080",
        "upstream = «\"10.0.0.1/24\"",
        "invalid-value",
    ),
    ("port = 8080", "peer = «\"a b\"", "invalid-value"),
    ("port = 8080", "open = «\"no\"", "wrong-type"),
    ("theme = \"dark\"", "theme = «\"drak\"", "invalid-value"),
    (
        "«[app]\ntitle = \"Grüße\"",
        "«[[app]]\ntitle = \"Grüße\"",
        "wrong-type",
    ),
];

fn filled(text: &str) -> String {
    text.replace("@KEY@", KEY)
        .replace("@HASH@", &"a".repeat(86))
}

pub(crate) fn role() -> Role {
    Role::parse(ROLE).expect("the role of these tests")
}

/// A good file, and how its placeholders are filled.
pub(crate) struct Sample {
    pub(crate) text: &'static str,
    pub(crate) fill: fn(&str) -> String,
}

const SAMPLE: Sample = Sample {
    text: GOOD,
    fill: filled,
};

fn case(from: &str, to: &str) -> (String, Option<(u32, u32)>) {
    case_of(&SAMPLE, from, to)
}

/// The text of a case, and where its marker stood, if it had one.
fn case_of(sample: &Sample, from: &str, to: &str) -> (String, Option<(u32, u32)>) {
    let from = from.replace('«', "");
    assert_eq!(
        sample.text.matches(&from).count(),
        1,
        "`{from}` names one place"
    );
    let marked = (sample.fill)(&sample.text.replacen(&from, to, 1));
    let place = marked.find('«').map(|at| {
        let before = &marked[..at];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        (
            u32::try_from(line).expect("short"),
            u32::try_from(column).expect("short"),
        )
    });
    (marked.replace('«', ""), place)
}

/// The good file, and every wrong one.
#[cfg(feature = "describe")]
pub(crate) fn texts() -> Vec<String> {
    texts_of(&SAMPLE, CASES)
}

#[cfg(feature = "describe")]
pub(crate) fn texts_of(sample: &Sample, cases: &[(&str, &str, &str)]) -> Vec<String> {
    let wrong = cases
        .iter()
        .map(|(from, to, _)| case_of(sample, from, to).0);
    std::iter::once((sample.fill)(sample.text))
        .chain(wrong)
        .collect()
}

fn judge(text: &str) -> Result<crate::SiteConfig, Vec<Problem>> {
    check(text, &[role()], &Policy::default())
}

#[test]
fn the_good_file_is_good() {
    let site = judge(&filled(GOOD)).expect("good");
    assert_eq!(site.serial, 3);
    assert_eq!(site.nics.len(), 2);
    assert_eq!(site.users.len(), 2);
    assert_eq!(site.role.as_deref(), Some("web"));
    assert_eq!(site.app.get("workers"), Some(&crate::ParamValue::Int(2)));
    let problem = site.problem("system.timezone", "the image has no such zone", "x");
    assert_eq!((problem.line, problem.column), (10, 12));
    let problem = site.problem("app.workers", "x", "x");
    assert_eq!((problem.line, problem.column), (42, 2));
}

#[test]
fn the_only_interface_needs_no_name() {
    let text = filled(GOOD).replace("match = { name = \"en*\" }\n", "");
    let site = judge(&text).expect("the first interface is meant");
    let first = crate::NicMatch::Position(1);
    assert_eq!(site.nics.get(1).map(|nic| &nic.matches), Some(&first));
    let text = filled(GOOD).replace("{ name = \"en*\" }", "{ slot = 1 }");
    assert_eq!(judge(&text).map(|site| site.nics), Ok(site.nics));
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_fine() {
    let text = format!("\u{feff}{}", filled(GOOD).replace('\n', "\r\n"));
    assert_eq!(judge(&text).map(|site| site.serial), Ok(3));
    let (wrong, place) = case("mtu = 9000", "mtu = «1");
    let wrong = format!("\u{feff}{}", wrong.replace('\n', "\r\n"));
    let problems = judge(&wrong).expect_err("wrong");
    assert_eq!(
        problems
            .first()
            .map(|problem| (problem.line, problem.column)),
        place
    );
}

#[test]
fn each_wrong_file_is_refused_for_its_fault_and_at_its_place() {
    judge_cases(CASES, &SAMPLE, &judge);
}

/// What `check` makes of a text.
type Judge<'j> = &'j dyn Fn(&str) -> Result<crate::SiteConfig, Vec<Problem>>;

/// Every case must be refused for its fault alone, at its place, and without
/// the value.
pub(crate) fn judge_cases(cases: &[(&str, &str, &str)], sample: &Sample, judge: Judge<'_>) {
    let mut wrong = Vec::new();
    for (from, to, slug) in cases {
        let (text, place) = case_of(sample, from, to);
        let Err(problems) = judge(&text) else {
            wrong.push(format!("`{to}` is accepted"));
            continue;
        };
        let [problem] = problems.as_slice() else {
            wrong.push(format!("`{to}` gives {problems:#?}"));
            continue;
        };
        let found = (problem.line, problem.column);
        if problem.code.slug() != *slug || place.is_some_and(|place| place != found) {
            wrong.push(format!(
                "`{to}`: expected {slug} at {place:?}, found {problem:?}"
            ));
        }
        if problem.message.is_empty() || problem.remedy.is_empty() {
            wrong.push(format!("`{to}`: nothing to do about {problem:?}"));
        }
        let shown = problem.lines("site.toml").join("\n");
        if shown.contains("CANARY") || format!("{problem:?}").contains("CANARY") {
            wrong.push(format!("`{to}`: shows the value: {shown}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn all_problems_of_a_file_are_found_at_once() {
    let text = filled(GOOD)
        .replace("web-1.example.org", "web_1")
        .replace("mtu = 9000", "mtu = 1")
        .replace("port = 8080", "prot = 8080")
        .replace("serial = 3", "");
    let problems = judge(&text).expect_err("wrong in four ways");
    let codes: Vec<Code> = problems.iter().map(|problem| problem.code).collect();
    let expected = [
        Code::MissingKey,
        Code::InvalidValue,
        Code::OutOfRange,
        Code::UnknownKey,
    ];
    assert_eq!(codes, expected);
}

#[test]
fn a_file_of_rubbish_gives_at_most_fifty_problems() {
    let text: Vec<String> = (0..1000).map(|n| format!("key{n} = 1")).collect();
    assert_eq!(
        judge(&text.join("\n")).expect_err("rubbish").len(),
        crate::MAX_PROBLEMS
    );
    let text: Vec<String> = (0..1000).map(|n| format!("rubbish {n}")).collect();
    assert_eq!(
        judge(&text.join("\n")).expect_err("rubbish").len(),
        crate::MAX_PROBLEMS
    );
}

#[test]
fn files_that_are_not_text_are_refused_as_such() {
    let slug = |bytes: &[u8]| {
        decode(bytes)
            .expect_err("not text")
            .first()
            .map(|problem| problem.code.slug())
    };
    assert_eq!(slug(b"\xff\xfes\0c\0"), Some("not-text"));
    assert_eq!(slug(&vec![b'a'; crate::MAX_SIZE + 1]), Some("too-large"));
    let problems = decode(b"a = 1\nb = \"\xe4\"\n").expect_err("Latin-1");
    assert_eq!(
        problems
            .first()
            .map(|problem| (problem.line, problem.column)),
        Some((2, 6))
    );
    assert!(decode(&vec![b'#'; crate::MAX_SIZE]).is_ok());
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let problems = judge("").expect_err("empty");
    let keys: Vec<&str> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(keys, ["schema", "config", "app.title"]);
}

#[test]
fn the_nearest_name_is_offered() {
    let remedy = |from, to| {
        let problems = judge(&case(from, to).0).expect_err("wrong");
        problems
            .first()
            .map(|problem| problem.remedy.clone())
            .unwrap_or_default()
    };
    assert_eq!(
        remedy("hostname =", "hostnmae ="),
        "write `hostname`, if that is meant"
    );
    assert_eq!(
        remedy("name = \"web\"", "name = \"wbe\""),
        "write \"web\", if that is meant"
    );
    assert_eq!(
        remedy("theme = \"dark\"", "theme = \"drak\""),
        "write \"dark\", if that is meant"
    );
}

#[test]
fn a_policy_limits_what_a_site_may_set() {
    let policy = Policy {
        roles: vec!["web".into()],
        required: vec!["ntp.servers".into(), "license".into()],
        forbidden: vec![
            "user.root".into(),
            "nic.vlan".into(),
            "user.*.password_hash".into(),
        ],
        ..Policy::default()
    };
    let problems = check(&filled(GOOD), &[role()], &policy).expect_err("four rules broken");
    let keys: Vec<(&str, u32)> = problems
        .iter()
        .map(|problem| (problem.key.as_str(), problem.line))
        .collect();
    assert_eq!(
        keys,
        [
            ("license", 1),
            ("nic.vlan", 22),
            ("user.admin.password_hash", 33),
            ("user.root", 36)
        ]
    );
    assert!(
        problems
            .iter()
            .all(|problem| problem.code == Code::NotAllowed)
    );
}

#[test]
fn one_role_needs_not_be_chosen_and_two_do() {
    let text = filled(GOOD).replace("[role]\nname = \"web\"\n", "");
    assert_eq!(
        judge(&text).map(|site| site.role),
        Ok(Some("web".to_owned()))
    );
    let mut other = role();
    other.name = "status".into();
    let problems = check(&text, &[role(), other], &Policy::default()).expect_err("which?");
    assert!(
        problems
            .iter()
            .any(|problem| problem.key == "role" && problem.code == Code::MissingKey)
    );
}

#[test]
fn an_image_without_roles_takes_no_parameters() {
    let text = filled(GOOD);
    let problems = check(&text, &[], &Policy::default()).expect_err("no roles");
    let codes: Vec<Code> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [Code::UnknownRole]);
    let text = text.replace("[role]\nname = \"web\"\n", "");
    let problems = check(&text, &[], &Policy::default()).expect_err("no roles");
    let codes: Vec<Code> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [Code::Conflict]);
}

#[test]
fn mutated_files_never_panic() {
    let good = filled(GOOD);
    let roles = [role()];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let junk = [
        "[",
        "]",
        "\"",
        "=",
        "\n",
        ".",
        "{",
        "}",
        "é",
        "0",
        "'",
        "#",
        ",",
        "\\",
        "[[nic]]\n",
    ];
    for _ in 0..3000 {
        let mut text = good.clone();
        for _ in 0..=random() % 3 {
            let mut at = usize::try_from(random() % text.len() as u64).expect("in range");
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let piece = junk[usize::try_from(random() % junk.len() as u64).expect("in range")];
            if random() % 3 == 0 {
                text.truncate(at);
            } else if random() % 2 == 0 {
                text.insert_str(at, piece);
            } else if text.len() > at {
                text.remove(at);
            }
            if text.is_empty() {
                break;
            }
        }
        if let Err(problems) = check(&text, &roles, &Policy::default()) {
            assert!(!problems.is_empty() && problems.len() <= crate::MAX_PROBLEMS);
        }
    }
}

/// What is said where people slip often: it leads to what is right.
#[test]
fn remedies_lead_to_what_is_right() {
    let address = "address = [\"10.1.2.10/24\", \"fd00::10/64\"]";
    let hostname = "hostname = \"web-1.example.org\"";
    let quotes = "put the value in double quotes";
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY\n-----END OPENSSH PRIVATE KEY-----";
    let proxy = |line: &str| format!("[proxy]\n{line}\n[dns]");
    let (long, plain) = (format!("[\"\"\"{key}\"\"\"]"), format!("[\n\"{key}\"]"));
    for (from, to, said) in [
        (
            "dhcp4 = true",
            "dhcp4 = yes",
            "write true or false in small letters;",
        ),
        (
            "dhcp4 = true",
            "dhcp4 = True",
            "write true or false in small letters;",
        ),
        (
            "dhcp4 = true",
            "dhcp4 = \"yes\"",
            "remedy: write true or false",
        ),
        (address, "address = 10.1.2.10/24", quotes),
        (
            address,
            "address = [\n \"10.1.2.10/24\",\n fd00::10/64]",
            quotes,
        ),
        (
            address,
            "address = [[\"10.1.2.10/24\"]]",
            "this is a list in a list",
        ),
        (
            "mac = \"52:54:00:12:34:56\"",
            "mac = 52:54:00:12:34:56",
            quotes,
        ),
        ("mtu = 9000", "mtu = 9k", "a number has no unit"),
        (
            "mtu = 9000",
            "mtu = \"9k\"",
            "without quotes and without a unit",
        ),
        ("mtu = 9000", "mtu = \"9000\"", "leave the quotes out"),
        (hostname, "hostname = web", quotes),
        (hostname, "hostname = 10", quotes),
        (
            hostname,
            "hostname = [\"web\"]",
            "without brackets around it",
        ),
        ("[\"@KEY@ ann\"]", long.as_str(), "replace the key pair"),
        ("[\"@KEY@ ann\"]", plain.as_str(), "replace the key pair"),
        (
            "@KEY@ ann",
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "this is a certificate",
        ),
        (
            "schema = 1",
            "schema = 0",
            "allowed: 1\n    remedy: write `schema = 1`",
        ),
        ("schema = 1", "schema = 2", "allowed: 1\n"),
        ("serial = 3", "serial = 0", "allowed: 1 or more"),
        (
            "[dns]",
            &proxy("https_proxy = \"http://p\""),
            "write `https`, if",
        ),
        (
            "[dns]",
            &proxy("https = \"https://p:3128/CANARY\""),
            "end the address after the port",
        ),
        (
            "[dns]",
            &proxy("http = \"http://p?CANARY\""),
            "proxies have none",
        ),
        (
            "[dns]",
            "[disk.d]\nmatch = { slot = \"/dev/sdb\" }\n[dns]",
            "by its `serial`",
        ),
        ("[dns]", "[[ca]]\npme = 1\n[dns]", "not a key of `[[ca]]`"),
    ] {
        let text = filled(&GOOD.replacen(from, to, 1));
        let problems = judge(&text).expect_err(to);
        let lines = problems.iter().flat_map(|problem| problem.lines("f"));
        let lines = lines.collect::<Vec<_>>().join("\n");
        assert!(lines.contains(said), "{to}: {lines}");
        assert!(!lines.contains("CANARY"), "{to}: {lines}");
        // What is missing in `[[ca]]` is the second one.
        assert!(problems.len() == 1 || to.contains("pme"), "{to}: {lines}");
    }
}
