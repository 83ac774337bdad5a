//! The JSON Schema (draft 2020-12) of a site configuration.
//!
//! It knows shapes and patterns; what a JSON Schema cannot say (a gateway
//! outside of its network) `consign config check` and the appliance find.

use serde_json::{Map, Value, json};

use crate::app::{Param, ParamKind, ParamValue};
use crate::describe::{ALTERNATIVES, DATE, KEYS, Key, NEEDED_LISTS, Names, TABLES, Taken, Takes};
use crate::policy::Policy;
use crate::role::Role;

/// The schema for an appliance with these roles, sorted by name, and this
/// policy, of which only the choice of roles counts here.
#[must_use]
pub fn json_schema(roles: &[&Role], policy: &Policy) -> Value {
    let offered = |role: &&Role| policy.roles.is_empty() || policy.roles.contains(&role.name);
    let roles: Vec<&Role> = roles.iter().copied().filter(offered).collect();
    schema_of(&roles)
}

fn schema_of(roles: &[&Role]) -> Value {
    let mut root = object("");
    let mut required = vec!["schema", "config"];
    if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("schema".into(), json!({ "const": crate::SCHEMA }));
        match roles {
            [] => {
                properties.remove("role");
            }
            [role] => {
                set_role_names(properties, roles);
                properties.insert("app".into(), parameters(role));
                if needs_parameters(role) {
                    required.push("app");
                }
            }
            _ => {
                set_role_names(properties, roles);
                properties.insert("app".into(), json!({ "type": "object" }));
                required.push("role");
            }
        }
    }
    if let [_, _, ..] = roles {
        let cases: Vec<Value> = roles.iter().map(|role| role_case(role)).collect();
        root.insert("allOf".into(), cases.into());
    }
    root.insert("required".into(), json!(required));
    root.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    root.insert("title".into(), "Site configuration".into());
    Value::Object(root)
}

fn set_role_names(properties: &mut Map<String, Value>, roles: &[&Role]) {
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    if let Some(name) = properties
        .get_mut("role")
        .and_then(|role| role.pointer_mut("/properties/name"))
    {
        *name = json!({ "enum": names, "description": "The role." });
    }
}

/// Whether a file for this role must have an `[app]`.
fn needs_parameters(role: &Role) -> bool {
    role.params.iter().any(|param| param.default.is_none())
}

/// With this role, these parameters.
fn role_case(role: &Role) -> Value {
    let mut then = json!({ "properties": { "app": parameters(role) } });
    if needs_parameters(role)
        && let Some(then) = then.as_object_mut()
    {
        then.insert("required".into(), json!(["app"]));
    }
    json!({
        "if": {
            "properties": {
                "role": { "properties": { "name": { "const": role.name } }, "required": ["name"] },
            },
            "required": ["role"],
        },
        "then": then,
    })
}

/// The names below `prefix`, in the order of the description.
fn children(prefix: &str) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let Some(rest) = key.path.strip_prefix(prefix) else {
            continue;
        };
        let name = rest.split('.').next().unwrap_or(rest);
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The object whose keys begin with `prefix`, which is empty or ends in a dot.
fn object(prefix: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for name in children(prefix) {
        let path = format!("{prefix}{name}");
        let key = KEYS.iter().find(|key| key.path == path);
        let is_needed_list = NEEDED_LISTS.iter().any(|(list, ..)| *list == path);
        if is_needed_list || key.is_some_and(|key| key.required) {
            required.push(name.trim_end_matches("[]"));
        }
        let value = match (key, name.strip_suffix("[]")) {
            (Some(key), _) => leaf(key),
            (None, Some(_)) => list(&path),
            (None, None) => table(&path),
        };
        let name = name.strip_suffix("[]").unwrap_or(name);
        properties.insert(name.to_owned(), described(value, &path));
    }
    let mut object = Map::new();
    object.insert("type".into(), "object".into());
    object.insert("properties".into(), Value::Object(properties));
    object.insert("additionalProperties".into(), false.into());
    if !required.is_empty() {
        object.insert("required".into(), json!(required));
    }
    let is_choice = prefix.ends_with("match.") || prefix.ends_with("members[].");
    if is_choice {
        object.insert("minProperties".into(), 1.into());
        object.insert("maxProperties".into(), 1.into());
    }
    let table = prefix.strip_suffix('.').unwrap_or(prefix);
    if let Some((_, keys)) = ALTERNATIVES.iter().find(|(path, _)| *path == table) {
        let cases: Vec<Value> = keys
            .iter()
            .map(|key| json!({ "required": [key] }))
            .collect();
        object.insert("anyOf".into(), cases.into());
    }
    object
}

/// A list of tables.
fn list(path: &str) -> Value {
    let items = object(&format!("{path}."));
    match NEEDED_LISTS.iter().find(|(list, ..)| *list == path) {
        Some((_, min, max)) => {
            json!({ "type": "array", "items": items, "minItems": min, "maxItems": max })
        }
        None => json!({ "type": "array", "items": items }),
    }
}

/// A table with names of its own, or with keys.
fn table(path: &str) -> Value {
    let many = format!("{path}.*");
    let names = TABLES
        .iter()
        .find(|table| table.path == many)
        .and_then(|table| table.names);
    match names {
        Some(names) => json!({
            "type": "object",
            "propertyNames": property_names(&names),
            "additionalProperties": object(&format!("{many}.")),
        }),
        None => Value::Object(object(&format!("{path}."))),
    }
}

fn property_names(names: &Names) -> Value {
    let pattern = names.pattern;
    match names.taken {
        Taken::None => json!({ "pattern": pattern }),
        Taken::Names(taken) => json!({ "pattern": pattern, "not": { "enum": taken } }),
        Taken::Pattern(taken) => json!({ "pattern": pattern, "not": { "pattern": taken } }),
    }
}

fn described(mut value: Value, path: &str) -> Value {
    let many = format!("{path}.*");
    let table = TABLES
        .iter()
        .find(|table| table.path == path || table.path == many);
    if let (Some(table), Some(object)) = (table, value.as_object_mut()) {
        object.insert("description".into(), table.help.into());
    }
    value
}

fn leaf(key: &Key) -> Value {
    let mut value = match key.takes {
        Takes::Text(pattern) => json!({ "type": "string", "pattern": pattern }),
        Takes::Limited(pattern, max, never) => json!({
            "type": "string",
            "pattern": pattern,
            "maxLength": max,
            "not": { "pattern": never },
        }),
        Takes::Lines => json!({ "type": "string", "contentMediaType": "text/plain" }),
        Takes::Choice(values) => json!({ "enum": values }),
        Takes::Number(min, i64::MAX) => json!({ "type": "integer", "minimum": min }),
        Takes::Number(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Takes::Place(min, max, pattern) => json!({
            "type": ["integer", "string"],
            "minimum": min,
            "maximum": max,
            "pattern": pattern,
        }),
        Takes::Boolean => json!({ "type": "boolean" }),
        // JSON has no dates: validators see a TOML date as text.
        Takes::Date => json!({ "type": "string", "pattern": DATE }),
        Takes::Texts(pattern, max) => json!({
            "type": ["array", "string"],
            "items": { "type": "string", "pattern": pattern },
            "maxItems": max,
            "pattern": pattern,
        }),
    };
    if let Some(object) = value.as_object_mut() {
        object.insert("description".into(), key.help.into());
        object.insert("examples".into(), json!([key.example]));
    }
    value
}

/// `[app]` of a role.
fn parameters(role: &Role) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for param in &role.params {
        properties.insert(param.name.clone(), parameter(param));
        if param.default.is_none() {
            required.push(param.name.as_str());
        }
    }
    json!({
        "type": "object",
        "description": role.description,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn parameter(param: &Param) -> Value {
    let mut value = match &param.kind {
        ParamKind::String { max } => json!({ "type": "string", "maxLength": max }),
        ParamKind::Int { min, max: i64::MAX } => json!({ "type": "integer", "minimum": min }),
        ParamKind::Int { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        ParamKind::Port => json!({ "type": "integer", "minimum": 1, "maximum": 65_535 }),
        ParamKind::Bool => json!({ "type": "boolean" }),
        ParamKind::Enum { values } => json!({ "enum": values }),
        ParamKind::Ip => json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+$" }),
        _ => json!({ "type": "string", "pattern": "^[A-Za-z0-9.-]+$" }),
    };
    if let Some(object) = value.as_object_mut() {
        object.insert("description".into(), param.help.clone().into());
        let default = param.default.as_ref().map(|default| match default {
            ParamValue::Int(number) => json!(number),
            ParamValue::Bool(value) => json!(value),
            other => json!(other.to_string()),
        });
        if let Some(default) = default {
            object.insert("default".into(), default);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_says_what_a_table_may_have() {
        let schema = json_schema(&[], &Policy::default());
        let at = |pointer: &str| schema.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/required"), json!(["schema", "config"]));
        assert_eq!(at("/additionalProperties"), json!(false));
        assert_eq!(at("/properties/config/required"), json!(["id", "serial"]));
        assert_eq!(
            at("/properties/nic/items/properties/match/maxProperties"),
            json!(1)
        );
        assert_eq!(
            at("/properties/user/additionalProperties/properties/sudo/type"),
            json!("boolean")
        );
        assert_eq!(at("/properties/role"), Value::Null);
        assert_eq!(
            at("/properties/bond/additionalProperties/properties/members/type"),
            json!("array")
        );
    }
}
