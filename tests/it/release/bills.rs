//! Bills of materials and the envelope, judged by the libraries that security
//! teams use, with the official schemas.
#![expect(clippy::disallowed_types, reason = "tests call foreign programs")]

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{inventory, sample};
use crate::support::{consign, must_run, program, repo_root, run, skip, temp_folder, text_of};

/// Where `ci/install` puts the judges that Debian does not have.
const JUDGES: &str = "target/python-judges";

/// Python with the judges, or [`skip`].
pub(super) fn python(script: &str) -> Option<Command> {
    let judges = repo_root().join(JUDGES);
    if !judges.is_dir() {
        skip("no judges of bills of materials: run ci/install");
        return None;
    }
    let mut python = program("python3", "python3")?;
    python.env("PYTHONPATH", judges).arg("-c").arg(script);
    Some(python)
}

const SPDX: &str = r"
import sys
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
problems = validate_full_spdx_document(parse_file(sys.argv[1]))
sys.exit('\n'.join(p.validation_message for p in problems) or 0)
";

const CYCLONEDX: &str = r"
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
newest = max(SchemaVersion, key=lambda version: version.value)
text = open(sys.argv[1]).read()
assert json.loads(text)['specVersion'] == newest.to_version(), newest
problem = JsonStrictValidator(newest).validate_str(text)
sys.exit(str(problem)[:2000] if problem else 0)
";

/// Reads the key and the envelope as a DSSE library does.
const DSSE: &str = r"
import json, sys
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from securesystemslib.signer import Signature
pem, path = open(sys.argv[1]).read(), sys.argv[2]
data = json.load(open(path))
keyid = data['signatures'][0]['keyid']
key = SSlibKey(keyid, 'ed25519', 'ed25519', {'public': sys.argv[3]})
import base64
payload = base64.b64decode(data['payload'])
signatures = {keyid: Signature(keyid, base64.b64decode(data['signatures'][0]['sig']).hex())}
Envelope(payload, data['payloadType'], signatures).verify([key], 1)
statement = json.loads(payload)
assert statement['_type'] == 'https://in-toto.io/Statement/v1'
assert statement['predicateType'] == 'https://slsa.dev/provenance/v1'
";

fn judge(script: &str, path: &Path, damage: (&str, &str)) {
    let Some(mut python) = python(script) else {
        return;
    };
    must_run(python.arg(path));
    let text = fs::read_to_string(path).expect("read");
    assert!(text.contains(damage.0), "nothing to damage");
    fs::write(path, text.replacen(damage.0, damage.1, 1)).expect("written");
    let refused = run(self::python(script).expect("as before").arg(path));
    assert!(!refused.status.success(), "accepts damage");
}

#[test]
fn spdx_tools_accept_the_bill() {
    let folder = temp_folder();
    let path = folder.path().join("sbom.spdx.json");
    fs::write(&path, inventory().spdx()).expect("written");
    judge(
        SPDX,
        &path,
        ("\"SPDXRef-Appliance\"", "\"SPDXRef_Appliance\""),
    );
}

#[test]
fn the_cyclonedx_schema_accepts_the_bill() {
    let folder = temp_folder();
    let path = folder.path().join("sbom.cdx.json");
    fs::write(&path, inventory().cyclonedx()).expect("written");
    judge(
        CYCLONEDX,
        &path,
        ("\"type\": \"operating-system\"", "\"type\": \"os\""),
    );
}

#[test]
fn a_dsse_library_accepts_the_envelope() {
    let sample = sample();
    let pem = must_run(
        consign()
            .arg("key")
            .arg(&sample.public)
            .args(["--as", "pem"]),
    );
    let pem_path = sample.key.with_extension("pem");
    fs::write(&pem_path, pem.stdout).expect("written");
    let key = consign::sign::PublicKey::open(&sample.public).expect("a key");
    let hex = consign::digest::Digest::from_bytes(*key.bytes()).hex();
    let ask = |envelope: &Path| {
        let mut python = python(DSSE)?;
        Some(run(python.arg(&pem_path).arg(envelope).arg(&hex)))
    };
    let envelope = sample.folder.join("provenance.dsse.json");
    let Some(output) = ask(&envelope) else { return };
    assert!(output.status.success(), "{}", text_of(&output));
    let text = fs::read_to_string(&envelope).expect("read");
    let changed = sample.key.with_extension("json");
    fs::write(
        &changed,
        text.replacen("\"payload\":\"ew", "\"payload\":\"eg", 1),
    )
    .expect("written");
    let output = ask(&changed).expect("as before");
    assert!(!output.status.success(), "accepts a changed payload");
}
