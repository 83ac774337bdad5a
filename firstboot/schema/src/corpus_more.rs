//! More wrong site configurations: those of the sections that most sites do
//! without. As in [`corpus`](crate::corpus), one fault each.

use crate::corpus::{Sample, judge_cases};
use crate::{Code, DiskFact, Facts, Moment, NicFact, Policy, check};

/// The certificates of nobody, made for these tests.
const CA: &str = "MIIBRDCB96ADAgECAhQyCoExAo+AvqSFkLbvLDkUosd2WTAFBgMrZXAwFzEVMBMGA1UEAwwMRXhhbXBsZSBSb290MCAXDTI2MTEyNjExMjkwNloYDzIxMjYxMTAyMTEyOTA2WjAXMRUwEwYDVQQDDAxFeGFtcGxlIFJvb3QwKjAFBgMrZXADIQC6GpEKeAFitH5YGeHQY8eL8q10+ZUrxIMDMCrLx5vN+6NTMFEwHQYDVR0OBBYEFLYADvptT3Mmu7bX684U0GyeXDB5MB8GA1UdIwQYMBaAFLYADvptT3Mmu7bX684U0GyeXDB5MA8GA1UdEwEB/wQFMAMBAf8wBQYDK2VwA0EAIR1jp4HkL5VkyJgrkm9+D+Zm4ipRUURCw8mYufkVXDSakta4rvGgW7moXzDU2ZM1AM63fKPoh5sltmI7Ih3WAQ==";
const LEAF: &str = "MIIBLzCB4qADAgECAhQg2iegJ66rn1r12KdczqK+EToZRDAFBgMrZXAwDjEMMAoGA1UEAwwDd3d3MCAXDTI2MTEyNjExMjkwNloYDzIxMjYxMTAyMTEyOTA2WjAOMQwwCgYDVQQDDAN3d3cwKjAFBgMrZXADIQDX5UcbnZ64429o1AUzVOelwYFphXaarQ755+hD+YFLGaNQME4wHQYDVR0OBBYEFBzP3j7nB5e8urOfW5MRk4ShFbfQMB8GA1UdIwQYMBaAFBzP3j7nB5e8urOfW5MRk4ShFbfQMAwGA1UdEwEB/wQCMAAwBQYDK2VwA0EAmv7U+OdsKFmeooFGj/f1g/iy3PjZpB42DRGwUL4D+eFrppjWQg7LBos88RrHrLHHhmz+zjLMF3uDNdIrIZxUDw==";

const GOOD: &str = r#"schema = 1
[config]
id = "acme-02"
serial = 1
not_before = 2026-01-01
not_after = 2036-01-01
[system]
keymap = "de-latin1"
[[nic]]
match = { slot = 3 }
address = ["10.8.0.1/24"]
[bond.bond0]
mode = "802.3ad"
members = [{ slot = 1 }, { slot = 2 }]
address = ["10.2.0.10/24"]
gateway = ["10.2.0.1"]
[vlan.office]
id = 7
bond = "bond0"
dhcp4 = true
[proxy]
http = "http://proxy.example.org:3128"
no_proxy = [".example.org", "10.0.0.0/8"]
[[ca]]
pem = '''
@CA@
'''
[disk.data]
match = { serial = "S3RIAL" }
mount = "/srv/data"
fs = "ext4"
use = "format"
grow = true
min_size = "10 GiB"
[disk.logs]
match = { slot = 2 }
[license]
file = "product.key"
[report]
write = false
[secret.db-password]
from = "secrets.age"
services = ["db.service"]
"#;

const CASES: &[(&str, &str, &str)] = &[
    (
        "not_before = 2026-01-01",
        "not_before = «\"2026-01-01\"",
        "wrong-type",
    ),
    (
        "not_before = 2026-01-01",
        "not_before = «2026",
        "wrong-type",
    ),
    (
        "not_before = 2026-01-01",
        "not_before = «2026-01-01T10:00:00",
        "invalid-value",
    ),
    (
        "not_before = 2026-01-01",
        "not_before = «10:00:00",
        "invalid-value",
    ),
    (
        "not_before = 2026-01-01",
        "not_before = «2026-13-01",
        "syntax",
    ),
    (
        "not_after = 2036-01-01",
        "not_after = «2025-01-01",
        "conflict",
    ),
    ("not_after = 2036-01-01", "not_after = «true", "wrong-type"),
    ("not_after =", "«not_afer =", "unknown-key"),
    ("\"de-latin1\"", "«\"../CANARY\"", "invalid-value"),
    ("\"de-latin1\"", "«\"d\"", "invalid-value"),
    ("\"de-latin1\"", "«5", "wrong-type"),
    ("[bond.bond0]", "[bond.«Bond0]", "invalid-value"),
    ("[bond.bond0]", "[bond.«eth0]", "invalid-value"),
    ("[bond.bond0]", "[bond.«\"a name\"]", "invalid-value"),
    ("\"802.3ad\"", "«\"lacp\"", "invalid-value"),
    ("\"802.3ad\"", "«4", "wrong-type"),
    (
        "«[bond.bond0]\nmode = \"802.3ad\"\nmembers = [{ slot = 1 }, { slot = 2 }]",
        "«[bond.bond0]\nmode = \"802.3ad\"",
        "missing-key",
    ),
    (
        "members = [{ slot = 1 }, { slot = 2 }]\n",
        "members = «\"eth0\"\n",
        "wrong-type",
    ),
    (
        "{ slot = 1 }, { slot = 2 }]\n",
        "{ slot = 1 }, «{ slot = 1 }]\n",
        "conflict",
    ),
    (
        "{ slot = 1 }, { slot = 2 }]\n",
        "{ slot = 1 }, { slot = «0 }]\n",
        "out-of-range",
    ),
    (
        "{ slot = 1 }, { slot = 2 }]\n",
        "{ slot = 1 }, «{ }]\n",
        "conflict",
    ),
    (
        "{ slot = 1 }, { slot = 2 }]\n",
        "{ slot = 1 }, { slot = 2, «speed = 1 }]\n",
        "unknown-key",
    ),
    (
        "{ slot = 1 }, { slot = 2 }]\n",
        "{ slot = 1 }, «{ slot = 3 }]\n",
        "conflict",
    ),
    (
        "address = [\"10.2.0.10/24\"]",
        "address = [«\"10.2.0.10\"]",
        "invalid-value",
    ),
    (
        "address = [\"10.2.0.10/24\"]",
        "«adress = [\"10.2.0.10/24\"]",
        "unknown-key",
    ),
    (
        "gateway = [\"10.2.0.1\"]",
        "gateway = [«\"10.3.0.1\"]",
        "conflict",
    ),
    ("[vlan.office]", "[vlan.«Office]", "invalid-value"),
    ("[vlan.office]", "[vlan.«bond0]", "conflict"),
    ("id = 7\n", "id = «0\n", "out-of-range"),
    ("id = 7\n", "id = «\"7\"\n", "wrong-type"),
    (
        "«[vlan.office]\nid = 7\n",
        "«[vlan.office]\n",
        "missing-key",
    ),
    ("bond = \"bond0\"", "bond = «\"bond1\"", "conflict"),
    ("bond = \"bond0\"", "bond = «7", "wrong-type"),
    (
        "«[vlan.office]\nid = 7\nbond = \"bond0\"",
        "«[vlan.office]\nid = 7\nbond = \"bond0\"\nmatch = { slot = 3 }",
        "conflict",
    ),
    (
        "«[vlan.office]\nid = 7\nbond = \"bond0\"\ndhcp4 = true",
        "«[vlan.office]\nid = 7\nbond = \"bond0\"",
        "missing-key",
    ),
    (
        "dhcp4 = true\n[proxy]",
        "address = [«\"10.8.0.1/24\"]\n[proxy]",
        "conflict",
    ),
    (
        "\"http://proxy.example.org:3128\"",
        "«\"proxy.example.org:3128\"",
        "invalid-value",
    ),
    (
        "\"http://proxy.example.org:3128\"",
        "«\"http://me:CANARY@proxy.example.org:3128\"",
        "invalid-value",
    ),
    (
        "\"http://proxy.example.org:3128\"",
        "«\"socks5://proxy\"",
        "invalid-value",
    ),
    (
        "\"http://proxy.example.org:3128\"",
        "«\"http://proxy:99999\"",
        "invalid-value",
    ),
    (
        "\"http://proxy.example.org:3128\"",
        "«\"http://proxy/CANARY\"",
        "invalid-value",
    ),
    ("\"http://proxy.example.org:3128\"", "«3128", "wrong-type"),
    (
        "[\".example.org\", \"10.0.0.0/8\"]",
        "[\".example.org\", «\"10.0.0.0/99\"]",
        "invalid-value",
    ),
    (
        "[\".example.org\", \"10.0.0.0/8\"]",
        "[«\"*\"]",
        "invalid-value",
    ),
    ("[\".example.org\", \"10.0.0.0/8\"]", "«true", "wrong-type"),
    ("no_proxy =", "«noproxy =", "unknown-key"),
    ("http = \"http", "«ftp = \"http", "unknown-key"),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = «\"CANARY\"\n",
        "invalid-value",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = «\"-----BEGIN PRIVATE KEY----- CANARY\"\n",
        "invalid-value",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = «'''\n-----BEGIN CERTIFICATE-----\nMIICANARY\n'''\n",
        "invalid-value",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = «'''\n-----BEGIN CERTIFICATE-----\nMIIC*NARY\n-----END CERTIFICATE-----\n'''\n",
        "invalid-value",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = «'''\n-----BEGIN CERTIFICATE-----\nMIICANAR\n-----END CERTIFICATE-----\n'''\n",
        "invalid-value",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = «'''\n@LEAF@\n'''\n",
        "invalid-value",
    ),
    ("pem = '''\n@CA@\n'''\n", "pem = «5\n", "wrong-type"),
    (
        "«[[ca]]\npem = '''\n@CA@\n'''\n",
        "«[[ca]]\n",
        "missing-key",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = '''\n@CA@\n'''\n[[ca]]\npem = «'''\n@CA@\n'''\n",
        "conflict",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "«file = \"ca.pem\"\npem = '''\n@CA@\n'''\n",
        "unknown-key",
    ),
    (
        "pem = '''\n@CA@\n'''\n",
        "pem = «\"\\u0007\"\n",
        "control-character",
    ),
    ("[disk.data]", "[disk.«Data]", "invalid-value"),
    (
        "{ serial = \"S3RIAL\" }",
        "{ serial = «\" \" }",
        "invalid-value",
    ),
    ("{ serial = \"S3RIAL\" }", "{ slot = «0 }", "out-of-range"),
    (
        "{ serial = \"S3RIAL\" }",
        "«{ slot = 1, serial = \"S3RIAL\" }",
        "conflict",
    ),
    ("{ serial = \"S3RIAL\" }", "«{ }", "conflict"),
    ("{ serial = \"S3RIAL\" }", "«\"/dev/sdb\"", "wrong-type"),
    ("\"/srv/data\"", "«\"/etc\"", "invalid-value"),
    ("\"/srv/data\"", "«\"/srv/../etc\"", "invalid-value"),
    (
        "\"/srv/data\"",
        "«\"/var/lib/consign/gen\"",
        "invalid-value",
    ),
    ("\"/srv/data\"", "«\"srv\"", "invalid-value"),
    ("\"/srv/data\"", "«1", "wrong-type"),
    ("\"ext4\"", "«\"btrfs\"", "invalid-value"),
    ("use = \"format\"", "use = «\"formt\"", "invalid-value"),
    ("use = \"format\"", "use = «true", "wrong-type"),
    ("grow = true", "grow = «\"yes\"", "wrong-type"),
    ("\"10 GiB\"", "«\"10\"", "invalid-value"),
    ("\"10 GiB\"", "«\"10 GB\"", "invalid-value"),
    ("\"10 GiB\"", "«10", "wrong-type"),
    ("min_size", "«minsize", "unknown-key"),
    (
        "«[disk.logs]\nmatch = { slot = 2 }",
        "[disk.«logs]\nmatch = { serial = \"S3RIAL\" }",
        "conflict",
    ),
    (
        "[disk.«logs]\nmatch = { slot = 2 }",
        "[disk.«logs]\nmatch = { slot = 2 }\nmount = \"/srv/data\"",
        "conflict",
    ),
    (
        "file = \"product.key\"",
        "file = «\"../CANARY\"",
        "invalid-value",
    ),
    (
        "file = \"product.key\"",
        "file = «\"/etc/CANARY\"",
        "invalid-value",
    ),
    ("file = \"product.key\"", "file = «\"\"", "invalid-value"),
    ("file = \"product.key\"", "file = «1", "wrong-type"),
    (
        "«[license]\nfile = \"product.key\"",
        "«[license]",
        "missing-key",
    ),
    (
        "file = \"product.key\"",
        "file = \"product.key\"\n«key = \"CANARY\"",
        "unknown-key",
    ),
    ("write = false", "write = «0", "wrong-type"),
    ("write = false", "«wrote = false", "unknown-key"),
    (
        "[secret.db-password]",
        "[secret.«\"DB x\"]",
        "invalid-value",
    ),
    (
        "[secret.db-password]\nfrom = \"secrets.age\"\nservices = [\"db.service\"]",
        "[secret]\ndb = «\"CANARY\"",
        "not-allowed",
    ),
    (
        "from = \"secrets.age\"",
        "from = «\"CANARY\"",
        "invalid-value",
    ),
    (
        "from = \"secrets.age\"",
        "from = \"secrets.age\"\n«value = \"CANARY\"",
        "unknown-key",
    ),
    (
        "from = \"secrets.age\"",
        "from = \"secrets.age\"\nentry = «\"CANARY/x\"",
        "invalid-value",
    ),
    (
        "services = [\"db.service\"]",
        "services = [«\"db\"]",
        "invalid-value",
    ),
    ("services = [\"db.service\"]", "services = «1", "wrong-type"),
    ("schema = 1", "schema = «1000", "unknown-schema"),
    ("[report]", "[«reprot]", "unknown-key"),
    ("[license]", "[«licence]", "unknown-key"),
    (
        "[secret.db-password]",
        "[«secrets.db-password]",
        "unknown-key",
    ),
];

fn pem(body: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----")
}

pub(crate) fn filled(text: &str) -> String {
    text.replace("@CA@", &pem(CA)).replace("@LEAF@", &pem(LEAF))
}

const SAMPLE: Sample = Sample {
    text: GOOD,
    fill: filled,
};

/// The good file, and every wrong one.
#[cfg(feature = "describe")]
pub(crate) fn texts() -> Vec<String> {
    crate::corpus::texts_of(&SAMPLE, CASES)
}

fn good() -> crate::SiteConfig {
    check(&filled(GOOD), &[], &Policy::default()).expect("good")
}

#[test]
fn every_section_is_read() {
    let site = good();
    assert_eq!(
        site.not_after.map(|end| end.to_string()).as_deref(),
        Some("2036-01-01")
    );
    assert_eq!(site.bonds.first().map(|bond| bond.members.len()), Some(2));
    assert_eq!(
        site.bonds.first().map(|bond| bond.mode.name()),
        Some("802.3ad")
    );
    assert_eq!(site.vlans.first().map(|vlan| vlan.id), Some(7));
    assert_eq!(site.proxy.no_proxy.len(), 2);
    let authority = site.authorities.first().expect("one");
    assert_eq!(authority.not_before.to_string(), "2026-11-26");
    assert_eq!(authority.not_after.to_string(), "2126-11-02");
    let again: String = authority
        .pem()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    assert_eq!(again, CA);
    let data = site.disks.first().expect("two");
    assert_eq!(
        (data.mount.as_str(), data.min_size),
        ("/srv/data", 10 << 30)
    );
    assert_eq!(
        site.disks.get(1).map(|disk| disk.mount.as_str()),
        Some("/srv/logs")
    );
    let license = site.license.as_ref().map(|license| license.file.as_str());
    assert_eq!(license, Some("license/product.key"));
    assert!(!site.report.write);
    assert_eq!(
        site.secrets.first().map(|secret| secret.entry.as_str()),
        Some("db-password")
    );
}

#[test]
fn each_wrong_file_of_these_sections_is_refused_at_its_place() {
    let policy = Policy::default();
    judge_cases(CASES, &SAMPLE, &|text| check(text, &[], &policy));
}

#[test]
fn facts_contradict_at_the_place_of_the_key() {
    let site = good();
    let day = |year| Moment::of_day(year, 6, 1);
    let disk = |name: &str, serial: &str, gib: u64| DiskFact {
        name: name.into(),
        serial: serial.into(),
        size: gib << 30,
    };
    let nic = |name: &str| NicFact {
        name: name.into(),
        ..NicFact::default()
    };
    let right = Facts {
        now: day(2027),
        nics: Some(vec![nic("eth0"), nic("eth1"), nic("eth2")]),
        disks: Some(vec![disk("vdb", "S3RIAL", 20), disk("vdc", "", 1)]),
        files: Some(["license/product.key".into(), "secrets.age".into()].into()),
    };
    assert_eq!(site.check_against(&right), []);
    assert_eq!(site.check_against(&Facts::default()), []);
    let told = |facts: Facts| -> Vec<(Code, String)> {
        let problems = site.check_against(&facts);
        problems
            .into_iter()
            .map(|problem| (problem.code, problem.key))
            .collect()
    };
    let one = |code, key: &str| vec![(code, key.to_owned())];
    let at = |now| Facts {
        now,
        ..Facts::default()
    };
    assert_eq!(
        told(at(day(2025))),
        [
            (Code::NotYetValid, "config.not_before".into()),
            (Code::NotYetValid, "ca[1].pem".into())
        ]
    );
    assert_eq!(told(at(day(2040))), one(Code::Expired, "config.not_after"));
    assert_eq!(told(at(day(2200))).len(), 2);
    let short = vec![disk("vdb", "S3RIAL", 5), disk("vdc", "", 1)];
    let facts = Facts {
        disks: Some(short),
        ..Facts::default()
    };
    assert_eq!(told(facts), one(Code::Unavailable, "disk.data.min_size"));
    let facts = Facts {
        disks: Some(vec![disk("vdb", "other", 50)]),
        ..Facts::default()
    };
    assert_eq!(told(facts).len(), 2);
    let facts = Facts {
        nics: Some(vec![nic("eth0"), nic("eth1")]),
        ..Facts::default()
    };
    assert_eq!(told(facts), one(Code::Unavailable, "nic[1].match"));
    let facts = Facts {
        files: Some(std::collections::BTreeSet::new()),
        ..Facts::default()
    };
    assert_eq!(
        told(facts),
        [
            (Code::Unavailable, "license.file".into()),
            (Code::Unavailable, "secret.db-password".into())
        ]
    );
}

#[test]
fn damaged_certificates_never_panic() {
    let text = filled(GOOD);
    let start = text.find("MII").expect("the certificate");
    for at in 0..CA.len() {
        for letter in ["A", "/", "h"] {
            let mut text = text.clone();
            text.replace_range(start + at..=start + at, letter);
            // Right or wrong does not matter here.
            let _ = check(&text, &[], &Policy::default());
        }
    }
}

#[test]
fn a_policy_lets_a_site_set_some_keys_within_limits() {
    let policy = "schema = 1\nallowed = [\"system.keymap\", \"nic\", \"bond.*.members\", \"disk\"]\n\
        [[range]]\nkey = \"bond.*.members.slot\"\nmax = 1\n\
        [[range]]\nkey = \"disk.*.fs\"\nvalues = [\"xfs\"]\n";
    let policy = Policy::parse(policy).expect("good");
    let problems = check(&filled(GOOD), &[], &policy).expect_err("limited");
    let keys: Vec<&str> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert!(
        problems
            .iter()
            .all(|problem| problem.code == Code::NotAllowed)
    );
    assert_eq!(
        keys,
        [
            "bond.bond0.mode",
            "bond.bond0.members.slot",
            "bond.bond0.address",
            "bond.bond0.gateway",
            "vlan.office.id",
            "vlan.office.bond",
            "vlan.office.dhcp4",
            "proxy.http",
            "proxy.no_proxy",
            "ca.pem",
            "disk.data.fs",
            "license.file",
            "report.write",
            "secret.db-password.from",
            "secret.db-password.services",
        ]
    );
}
