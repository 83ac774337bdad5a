//! Statements about vulnerabilities, read by a library that others use.

use std::fs;

use consign::release::ReleaseError;
use consign::release::vex::document;

use super::bills::python;
use super::inventory;
use crate::support::{must_run, run, temp_folder, text_of};

const STATEMENTS: &str = r#"
[[statement]]
vulnerability = "CVE-2024-1111"
aliases = ["GHSA-aaaa-bbbb-cccc"]
package = "nginx"
status = "not_affected"
justification = "vulnerable_code_not_in_execute_path"
notes = "The module is not loaded."

[[statement]]
vulnerability = "CVE-2024-2222"
package = "libstdc++6"
status = "affected"
action = "Update to 1.1."

[[statement]]
vulnerability = "CVE-2024-3333"
status = "fixed"
"#;

const READ: &str = r"
import json, sys
from lib4vex.openvex.openvex_parser import OpenVEXParser
from packageurl import PackageURL
header, products, found = OpenVEXParser().parse(sys.argv[1])
assert header['author'] and header['timestamp'].endswith('Z'), header
assert products == {'wiki': {'name': 'wiki', 'version': '1.0'}}, products
assert [(one['id'], one['status']) for one in found] == [
    ('CVE-2024-1111', 'not_affected'), ('CVE-2024-2222', 'affected'), ('CVE-2024-3333', 'fixed'),
], found
parts = [part['@id'] for one in json.load(open(sys.argv[1]))['statements']
         for part in one['products'][0].get('subcomponents', [])]
bill = open(sys.argv[2]).read()
assert [PackageURL.from_string(part).name for part in parts] == ['nginx', 'libstdc++6'], parts
assert all(json.dumps(part) in bill for part in parts), 'not in the bill'
";

fn refusal(text: &str) -> ReleaseError {
    let folder = temp_folder();
    fs::write(folder.path().join("a.toml"), text).expect("written");
    document(folder.path(), &inventory()).expect_err(text)
}

#[test]
fn a_library_reads_the_statements_and_finds_their_packages_in_the_bill() {
    let folder = temp_folder();
    let vex = folder.path().join("vex");
    fs::create_dir(&vex).expect("a folder");
    assert_eq!(document(&vex, &inventory()).expect("nothing"), None);
    fs::write(vex.join("2024.toml"), STATEMENTS).expect("written");
    fs::write(vex.join("README"), "no statements\n").expect("written");
    let text = document(&vex, &inventory()).expect("sound").expect("some");
    let (path, bill) = (folder.path().join("vex.json"), folder.path().join("bill"));
    fs::write(&path, &text).expect("written");
    fs::write(&bill, inventory().cyclonedx()).expect("written");
    let Some(mut read) = python(READ) else { return };
    must_run(read.arg(&path).arg(&bill));
    fs::write(&path, text.replace("CVE-2024-2222", "CVE-2024-9")).expect("written");
    let other = run(python(READ).expect("as before").arg(&path).arg(&bill));
    assert!(!other.status.success(), "{}", text_of(&other));
}

#[test]
fn a_statement_about_nothing_in_the_image_is_refused_with_what_was_meant() {
    let error = refusal(&STATEMENTS.replace("\"nginx\"", "\"ngnix\""));
    assert!(
        error
            .to_string()
            .contains("no package `ngnix` is in the appliance"),
        "{error}"
    );
    assert_eq!(error.hint().as_deref(), Some("did you mean `nginx`?"));
}

#[test]
fn a_statement_that_lacks_its_reason_is_refused_in_words() {
    for (from, to, expected) in [
        (
            "justification = \"vulnerable_code_not_in_execute_path\"",
            "",
            "either `justification` or",
        ),
        (
            "action = \"Update to 1.1.\"",
            "",
            "`affected` needs `action`",
        ),
        (
            "status = \"fixed\"",
            "status = \"fixed\"\nimpact = \"none\"",
            "are for `not_affected`",
        ),
        (
            "status = \"fixed\"",
            "status = \"fixed\"\naction = \"none\"",
            "is for `affected`",
        ),
        ("status = \"fixed\"", "status = \"mended\"", "mended"),
        ("CVE-2024-3333", "all of them", "are names like"),
        ("CVE-2024-3333", "CVE-2024-3333\"\npackges = \"x", "packges"),
        (
            "CVE-2024-2222\"\npackage = \"libstdc++6",
            "CVE-2024-1111\"\npackage = \"nginx",
            "twice",
        ),
    ] {
        let text = STATEMENTS.replacen(from, to, 1);
        assert_ne!(text, STATEMENTS, "{from}");
        let error = refusal(&text);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.slug(), "release-vex");
    }
}
