//! CycloneDX 1.7.
//!
//! Source: the CycloneDX specification 1.7, JSON. A package's files are its
//! `evidence.occurrences`, a layer's are components of type `file` in it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Crate, Inventory, LayerFacts, Owner};
use super::{agent_crates, appliance_purl, builder_crates, crate_purl, deb_purl};
use crate::layer::spec::PackagePin;

const APPLIANCE: &str = "appliance";
const AGENT: &str = "agent";
const BUILDER: &str = "builder";

/// Paths by the package that owns them.
type Occurrences<'a> = BTreeMap<&'a str, Vec<Value>>;

/// The document as JSON.
pub(super) fn document(inventory: &Inventory) -> Value {
    let occurrences = occurrences(inventory);
    let mut components = vec![agent(inventory)];
    components.extend(
        inventory
            .layers
            .iter()
            .map(|layer| self::layer(layer, inventory)),
    );
    let debs = inventory.layers.iter().flat_map(|layer| &layer.packages);
    components.extend(debs.map(|pin| deb(pin, &inventory.suite, &occurrences)));
    components.extend(
        agent_crates()
            .iter()
            .filter(|one| one.name != "consign-firstboot")
            .map(library),
    );
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": format!("urn:uuid:{}", inventory.serial),
        "version": 1,
        "metadata": {
            "timestamp": inventory.date.to_string(),
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": [builder(inventory)] },
            "component": {
                "type": "operating-system",
                "bom-ref": APPLIANCE,
                "name": inventory.name,
                "version": inventory.version,
                "purl": appliance_purl(inventory),
            },
        },
        "components": components,
        "dependencies": dependencies(inventory),
    })
}

fn occurrences(inventory: &Inventory) -> Occurrences<'_> {
    let mut all = Occurrences::new();
    for file in &inventory.files {
        if let Owner::Package(name) = &file.owner {
            let place = json!({ "location": file.path });
            all.entry(name).or_default().push(place);
        }
    }
    all
}

fn deb_ref(pin: &PackagePin) -> String {
    format!("deb:{}:{}", pin.name, pin.architecture)
}

fn deb(pin: &PackagePin, suite: &str, occurrences: &Occurrences<'_>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": deb_ref(pin),
        "name": pin.name,
        "version": pin.version,
        "purl": deb_purl(pin, suite),
        "hashes": [sha256(&pin.sha256.hex())],
        "properties": [
            { "name": "consign:source-package", "value": pin.source },
            { "name": "consign:reason", "value": pin.reason },
        ],
    });
    if let Some(places) = occurrences.get(pin.name.as_str()) {
        component["evidence"] = json!({ "occurrences": places });
    }
    component
}

fn layer(layer: &LayerFacts, inventory: &Inventory) -> Value {
    let own = |owner: &Owner| matches!(owner, Owner::Layer(name) if *name == layer.name);
    let files = inventory.files.iter().filter(|file| own(&file.owner));
    let files: Vec<Value> = files
        .map(|file| {
            json!({
                "type": "file",
                "name": file.path,
                "hashes": [sha256(&file.sha256.hex())],
            })
        })
        .collect();
    json!({
        "type": "container",
        "bom-ref": format!("layer:{}", layer.name),
        "name": layer.name,
        "hashes": [sha256(&layer.diff_id.0.hex())],
        "components": files,
    })
}

fn agent(inventory: &Inventory) -> Value {
    json!({
        "type": "application",
        "bom-ref": AGENT,
        "name": "consign-firstboot",
        "version": inventory.builder,
        "hashes": [sha256(&inventory.agent.hex())],
    })
}

/// The tool that made it, with its crates inside.
fn builder(inventory: &Inventory) -> Value {
    let crates = builder_crates();
    let parts: Vec<Value> = crates
        .iter()
        .filter(|one| one.name != "consign")
        .map(part)
        .collect();
    json!({
        "type": "application",
        "bom-ref": BUILDER,
        "name": "consign",
        "version": inventory.builder,
        "components": parts,
    })
}

/// A crate without a reference: the agent may have the same one.
fn part(one: &Crate) -> Value {
    let mut component = json!({
        "type": "library",
        "name": one.name,
        "version": one.version,
        "purl": crate_purl(one),
    });
    if let Some(checksum) = &one.checksum {
        component["hashes"] = json!([sha256(checksum)]);
    }
    component
}

fn crate_ref(one: &Crate) -> String {
    format!("cargo:{}@{}", one.name, one.version)
}

fn library(one: &Crate) -> Value {
    let mut component = part(one);
    component["bom-ref"] = crate_ref(one).into();
    component
}

fn dependencies(inventory: &Inventory) -> Vec<Value> {
    let layers = inventory.layers.iter();
    let mut top = vec![AGENT.to_owned()];
    top.extend(layers.clone().map(|layer| format!("layer:{}", layer.name)));
    let crates = agent_crates();
    let crates = crates
        .iter()
        .filter(|one| one.name != "consign-firstboot")
        .map(crate_ref);
    let mut all = vec![
        json!({ "ref": APPLIANCE, "dependsOn": top }),
        json!({ "ref": AGENT, "dependsOn": crates.collect::<Vec<_>>() }),
    ];
    all.extend(layers.map(|layer| {
        let debs: Vec<String> = layer.packages.iter().map(deb_ref).collect();
        json!({ "ref": format!("layer:{}", layer.name), "dependsOn": debs })
    }));
    all
}

fn sha256(hex: &str) -> Value {
    json!({ "alg": "SHA-256", "content": hex })
}
