//! SPDX 2.3.
//!
//! Source: the SPDX specification 2.3, JSON serialisation. What nobody
//! declared is `NOASSERTION`, as its section 3 demands.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::{Crate, FileFacts, Inventory, LayerFacts, Owner};
use super::{agent_crates, appliance_purl, builder_crates, crate_purl, deb_purl};
use crate::layer::spec::PackagePin;
use crate::release::manifest::hex;

const NOTHING: &str = "NOASSERTION";
const APPLIANCE: &str = "SPDXRef-Appliance";
const BUILDER: &str = "SPDXRef-Builder";
const AGENT: &str = "SPDXRef-Agent";

/// Gives each thing an identifier of the letters that SPDX allows, and no two
/// the same.
#[derive(Debug, Default)]
struct Ids(BTreeMap<String, u32>);

impl Ids {
    fn id(&mut self, kind: &str, name: &str) -> String {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let id = format!(
            "SPDXRef-{kind}-{}",
            name.chars().map(plain).collect::<String>()
        );
        let count = self.0.entry(id.clone()).or_default();
        *count += 1;
        match *count {
            1 => id,
            count => format!("{id}-again-{count}"),
        }
    }
}

/// The parts of a document that grow together.
#[derive(Debug, Default)]
struct Parts {
    ids: Ids,
    packages: Vec<Value>,
    files: Vec<Value>,
    relationships: Vec<Value>,
    /// Identifiers of Debian packages by name.
    debs: BTreeMap<String, String>,
    layers: BTreeMap<String, String>,
}

impl Parts {
    fn relate(&mut self, from: &str, how: &str, to: &str) {
        self.relationships.push(json!({
            "spdxElementId": from,
            "relationshipType": how,
            "relatedSpdxElement": to,
        }));
    }
}

/// The document as JSON.
pub(super) fn document(inventory: &Inventory) -> Value {
    let mut parts = Parts::default();
    ourselves(inventory, &mut parts);
    for layer in &inventory.layers {
        add_layer(layer, inventory, &mut parts);
    }
    let mut sums: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for file in &inventory.files {
        let owner = add_file(file, &mut parts);
        sums.entry(owner).or_default().push(&file.sha1);
    }
    for entry in &mut parts.packages {
        let files = entry["SPDXID"].as_str().and_then(|id| sums.remove(id));
        if let Some(files) = files {
            analyzed(entry, files);
        }
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", inventory.name, inventory.version),
        "documentNamespace": format!("urn:uuid:{}", inventory.serial),
        "creationInfo": {
            "created": inventory.date.to_string(),
            "creators": [format!("Tool: consign-{}", inventory.builder)],
        },
        "packages": parts.packages,
        "files": parts.files,
        "relationships": parts.relationships,
    })
}

/// A package with what every package has.
fn package(id: &str, name: &str, version: &str, more: Value) -> Value {
    let mut package = json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
    });
    if let (Some(package), Value::Object(more)) = (package.as_object_mut(), more) {
        package.extend(more);
    }
    package
}

/// The appliance, the agent in it, and the program that made it.
fn ourselves(inventory: &Inventory, parts: &mut Parts) {
    let Inventory {
        name,
        version,
        builder,
        ..
    } = inventory;
    let purpose = |purpose: &str| json!({ "primaryPackagePurpose": purpose });
    let agent = json!({
        "primaryPackagePurpose": "APPLICATION",
        "checksums": [sha256(&inventory.agent.hex())],
    });
    let appliance = json!({
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "externalRefs": [purl(&appliance_purl(inventory))],
    });
    parts.packages.extend([
        package(APPLIANCE, name, version, appliance),
        package(AGENT, "consign-firstboot", builder, agent),
        package(BUILDER, "consign", builder, purpose("APPLICATION")),
    ]);
    parts.relate("SPDXRef-DOCUMENT", "DESCRIBES", APPLIANCE);
    parts.relate(APPLIANCE, "CONTAINS", AGENT);
    parts.relate(BUILDER, "BUILD_TOOL_OF", APPLIANCE);
    let mut ids: BTreeMap<Crate, String> = BTreeMap::new();
    for (root, own, crates) in [
        (BUILDER, "consign", builder_crates()),
        (AGENT, "consign-firstboot", agent_crates()),
    ] {
        for one in crates.into_iter().filter(|one| one.name != own) {
            let id = ids
                .get(&one)
                .cloned()
                .unwrap_or_else(|| add_crate(&one, parts));
            parts.relate(root, "DEPENDS_ON", &id);
            ids.insert(one, id);
        }
    }
}

fn add_crate(one: &Crate, parts: &mut Parts) -> String {
    let id = parts
        .ids
        .id("crate", &format!("{}-{}", one.name, one.version));
    let mut more = json!({ "externalRefs": [purl(&crate_purl(one))] });
    if let Some(checksum) = &one.checksum {
        more["checksums"] = json!([sha256(checksum)]);
    }
    parts
        .packages
        .push(package(&id, &one.name, &one.version, more));
    id
}

fn add_layer(layer: &LayerFacts, inventory: &Inventory, parts: &mut Parts) {
    let id = parts.ids.id("layer", &layer.name);
    let more = json!({
        "primaryPackagePurpose": "ARCHIVE",
        "checksums": [sha256(&layer.diff_id.0.hex())],
    });
    let version = &inventory.version;
    parts.packages.push(package(
        &id,
        &format!("layer {}", layer.name),
        version,
        more,
    ));
    parts.relate(APPLIANCE, "CONTAINS", &id);
    for pin in &layer.packages {
        let deb = add_deb(pin, &inventory.suite, parts);
        parts.relate(&id, "CONTAINS", &deb);
    }
    parts.layers.insert(layer.name.clone(), id);
}

fn add_deb(pin: &PackagePin, suite: &str, parts: &mut Parts) -> String {
    let id = parts
        .ids
        .id("deb", &format!("{}-{}", pin.name, pin.architecture));
    let more = json!({
        "checksums": [sha256(&pin.sha256.hex())],
        "externalRefs": [purl(&deb_purl(pin, suite))],
        "packageFileName": pin.path.rsplit('/').next().unwrap_or_default(),
        "sourceInfo": format!("built from the source package {}", pin.source),
    });
    parts
        .packages
        .push(package(&id, &pin.name, &pin.version, more));
    parts.debs.insert(pin.name.clone(), id.clone());
    id
}

/// Marks a package whose files are listed: section 7.9 wants one code over
/// the SHA-1 sums of them all, sorted.
fn analyzed(package: &mut Value, mut sums: Vec<&str>) {
    sums.sort_unstable();
    let code = hex(&Sha1::digest(sums.concat()));
    package["filesAnalyzed"] = true.into();
    package["packageVerificationCode"] = json!({ "packageVerificationCodeValue": code });
    package["licenseInfoFromFiles"] = json!([NOTHING]);
}

/// Adds a file, and gives the identifier of the package that it is in.
fn add_file(file: &FileFacts, parts: &mut Parts) -> String {
    let id = format!("SPDXRef-file-{}", parts.files.len() + 1);
    parts.files.push(json!({
        "SPDXID": id,
        "fileName": format!(".{}", file.path),
        "checksums": [
            { "algorithm": "SHA1", "checksumValue": file.sha1 },
            sha256(&file.sha256.hex()),
        ],
        "licenseConcluded": NOTHING,
        "licenseInfoInFiles": [NOTHING],
        "copyrightText": NOTHING,
    }));
    let owner = match &file.owner {
        Owner::Package(name) => parts.debs.get(name),
        Owner::Layer(name) => parts.layers.get(name),
        Owner::Builder => None,
    };
    let owner = owner.map_or(APPLIANCE, String::as_str).to_owned();
    parts.relate(&owner, "CONTAINS", &id);
    owner
}

fn sha256(hex: &str) -> Value {
    json!({ "algorithm": "SHA256", "checksumValue": hex })
}

fn purl(purl: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": purl,
    })
}
