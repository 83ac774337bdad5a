//! Provenance: an in-toto statement of how the files were made.
//!
//! Source: in-toto attestation framework, Statement v1; SLSA, Provenance v1.
//! No times of the build and no names of machines: two builds say the same.

use serde_json::{Value, json};

use super::manifest::FileLine;
use super::sbom::Inventory;
use crate::digest::Digest;

/// What a build by consign is called.
const BUILD_TYPE: &str = "urn:consign:build:v1";
const BUILDER: &str = "urn:consign:builder:v1";

/// The statement's text. Its subjects are `files`.
pub(super) fn statement(inventory: &Inventory, lock: &Digest, files: &[FileLine]) -> String {
    let subjects: Vec<Value> = files.iter().map(subject).collect();
    let packages = inventory.layers.iter().flat_map(|layer| &layer.packages);
    let materials: Vec<Value> = packages
        .map(|pin| {
            json!({
                "name": format!("{} {}", pin.name, pin.version),
                "uri": super::sbom::deb_purl(pin, &inventory.suite),
                "digest": { "sha256": pin.sha256.hex() },
            })
        })
        .collect();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "appliance": inventory.name,
                    "version": inventory.version,
                    "lock": { "sha256": lock.hex() },
                    "source_date": inventory.date.to_string(),
                },
                "internalParameters": {
                    "layers": inventory.layers.iter().map(|layer| json!({
                        "name": layer.name,
                        "diff_id": layer.diff_id.to_string(),
                    })).collect::<Vec<_>>(),
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {
                        "consign": inventory.builder,
                        "agent": inventory.agent.to_string(),
                    },
                },
            },
        },
    });
    format!("{statement:#}\n")
}

fn subject(file: &FileLine) -> Value {
    json!({
        "name": file.name,
        "digest": { "sha256": file.sha256.hex(), "sha512": file.sha512.as_str() },
    })
}
