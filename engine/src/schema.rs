//! The JSON Schemas of what goes in and comes out: runbooks, frozen plans, events.
//!
//! The one of runbooks is put together from the kinds' own; editors complete and check with it.
//! Draft 7, which YAML language servers support best. Steps, connections and collections are `if`/`then` on their kind, so that a
//! mistake is reported at its key instead of as "no alternative fits". Wherever a value is expected, an expression is one too.

use serde_json::{Map, Value, json};

use crate::event::Event;
use crate::kinds::{Catalog, ResourceKindInfo};
use crate::plan::{Limits, OnFailure, Plan, Retry};
use crate::saved::SavedPlan;

/// The schema of a runbook file.
pub fn runbook(catalog: &Catalog) -> Value {
    let mut definitions = Map::new();
    let step = step(catalog, &mut definitions);
    definitions.insert("step".to_owned(), step);
    let connection = resource(catalog.connections, "connection", &mut definitions);
    definitions.insert("connection".to_owned(), connection);
    let collection = resource(catalog.collections, "collection", &mut definitions);
    definitions.insert("collection".to_owned(), collection);
    let limits = own::<Limits>("limits", &mut definitions);
    let steps = json!({ "type": "array", "items": { "$ref": "#/definitions/step" } });
    let by_name = |what: &str| {
        json!({ "type": "object", "propertyNames": { "pattern": SNAKE_CASE },
                "additionalProperties": { "$ref": format!("#/definitions/{what}") } })
    };
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "runbook",
        "description": "An operational procedure: a graph of typed steps.",
        "type": "object",
        "required": ["runbook", "steps"],
        "additionalProperties": false,
        "properties": {
            "runbook": { "type": "string", "pattern": KEBAB_CASE, "description": "The name of the runbook, kebab-case." },
            "description": { "type": "string", "description": "What it is for, in one line." },
            "inputs": { "type": "object", "propertyNames": { "pattern": SNAKE_CASE }, "additionalProperties": input(),
                        "description": "What a run must be told, with types, defaults and bounds." },
            "secrets": { "type": "object", "propertyNames": { "pattern": SNAKE_CASE }, "additionalProperties": secret(),
                         "description": "Where credentials are read from. They are never stored." },
            "connections": described(by_name("connection"), "How systems are reached."),
            "collections": described(by_name("collection"), "Sets of items in those systems."),
            "limits": described(limits, "The blast radius of the whole run, kept across resumes."),
            "lock": { "type": "string", "description": "At most one unfinished run per lock key." },
            "max_parallel": { "type": "integer", "minimum": 1, "description": "How many steps may run at one time; 8 unless given." },
            "drift": { "enum": ["refuse", "subset"], "default": "refuse", "description": "What it means when the world is not what a reviewed plan says: nothing is done (refuse), or what has gone is left out and what is new or changed is left alone (subset)." },
            "steps": described(steps.clone(), "The steps. One without `needs` needs the step just above it."),
            "finally": described(steps, "Steps that run when the others have ended, however they ended."),
        },
        "definitions": definitions,
    })
}

/// The schema of a frozen plan, as a run keeps it.
pub fn plan() -> Value {
    described(written::<Plan>("plan"), "The frozen plan of a run: the definition with its inputs resolved.")
}

/// The schema of a saved plan, as `runbook plan -o` writes it.
pub fn saved_plan() -> Value {
    let text = "What a run would do, found out by reads alone, for somebody to look at and for a run to be bound by.";
    described(written::<SavedPlan>("saved plan"), text)
}

/// The schema of an event as it is printed: one JSON object a line, with the run it belongs to.
pub fn event() -> Value {
    let mut schema = described(written::<Event>("event"), "One thing that happened to a run.");
    schema["properties"]["run"] = json!({ "type": "string", "description": "The run it belongs to." });
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(0, Value::from("run"));
    }
    schema
}

/// The schema of what the program writes of a type.
fn written<T: schemars::JsonSchema>(title: &str) -> Value {
    let settings = schemars::generate::SchemaSettings::draft07().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    schema["title"] = Value::from(title);
    schema
}

const SNAKE_CASE: &str = "^[a-z][a-z0-9_]*$";
const KEBAB_CASE: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";

fn described(mut schema: Value, text: &str) -> Value {
    schema["description"] = Value::from(text);
    schema
}

fn input() -> Value {
    json!({
        "type": "object",
        "required": ["type"],
        "additionalProperties": false,
        "properties": {
            "type": { "enum": ["string", "integer", "number", "boolean", "url", "path", "duration", "list"] },
            "description": { "type": "string" },
            "required": { "type": "boolean", "description": "False: without a value the input is null." },
            "default": { "description": "The value when none is given." },
            "enum": { "type": "array", "description": "The only values allowed." },
            "minimum": { "type": ["number", "string"] },
            "maximum": { "type": ["number", "string"] },
            "pattern": { "type": "string", "description": "A regular expression that the whole value must match." },
            "items": { "enum": ["string", "integer", "number", "boolean", "url", "path", "duration"] },
        }
    })
}

fn secret() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {
            "env": { "type": "string", "description": "An environment variable." },
            "file": { "type": "string", "description": "A file; one trailing line break is dropped." },
        }
    })
}

fn step(catalog: &Catalog, definitions: &mut Map<String, Value>) -> Value {
    let names: Vec<&str> = catalog.steps.iter().map(|kind| kind.name).collect();
    let mut cases = Vec::new();
    for kind in catalog.steps {
        let with = hoist(kind.name, (kind.config)().to_value(), definitions);
        cases.push(case("uses", kind.name, json!({ "properties": { "with": with } })));
    }
    json!({
        "type": "object",
        "required": ["id", "uses"],
        "additionalProperties": false,
        "properties": {
            "id": { "type": "string", "pattern": SNAKE_CASE, "description": "Its name in expressions and in `needs`." },
            "name": { "type": "string", "description": "What people call it." },
            "uses": { "oneOf": catalog.steps.iter().map(|kind| json!({ "const": kind.name, "description": kind.summary })).collect::<Vec<_>>(),
                      "description": format!("The step kind: {}.", names.join(", ")) },
            "with": { "type": "object", "description": "The settings of the step kind." },
            "needs": { "type": "array", "items": { "type": "string" }, "description": "The steps that must have ended well. Without it: the step just above." },
            "if": { "type": ["string", "boolean"], "description": "An expression; when it is false the step is skipped." },
            "retry": own::<Retry>("retry", definitions),
            "timeout": { "type": "string", "description": "The longest one attempt may take, such as 5m." },
            "on_failure": own::<OnFailure>("on-failure", definitions),
            "limits": own::<Limits>("limits", definitions),
            "waive": { "type": "object", "additionalProperties": { "type": "string" },
                       "description": "Safety rules that do not hold for this step: rule code and reason." },
        },
        "allOf": cases,
    })
}

fn resource(kinds: &[ResourceKindInfo], what: &str, definitions: &mut Map<String, Value>) -> Value {
    let mut cases = Vec::new();
    for kind in kinds {
        let mut settings = hoist(&format!("{what}-{}", kind.name), (kind.config)().to_value(), definitions);
        if let Some(properties) = settings.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert("type".to_owned(), json!({ "const": kind.name }));
        }
        cases.push(case("type", kind.name, settings));
    }
    let types: Vec<Value> =
        kinds.iter().map(|kind| json!({ "const": kind.name, "description": kind.summary })).collect();
    json!({ "type": "object", "required": ["type"], "properties": { "type": { "oneOf": types } }, "allOf": cases })
}

fn case(key: &str, name: &str, then: Value) -> Value {
    json!({ "if": { "properties": { key: { "const": name } }, "required": [key] }, "then": then })
}

/// The schema of one of the engine's own types; its parts go to the definitions.
fn own<T: schemars::JsonSchema>(name: &str, definitions: &mut Map<String, Value>) -> Value {
    let settings = schemars::generate::SchemaSettings::draft07();
    hoist(name, settings.into_generator().into_root_schema_for::<T>().to_value(), definitions)
}

/// Moves a schema's definitions below a prefix into the common ones, and lets an expression stand for any value.
fn hoist(prefix: &str, mut schema: Value, definitions: &mut Map<String, Value>) -> Value {
    let parts = ["$defs", "definitions"].iter().find_map(|key| schema.as_object_mut()?.remove(*key));
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("title");
    }
    rename(prefix, &mut schema);
    open_up(&mut schema, true);
    if let Some(Value::Object(parts)) = parts {
        for (name, mut part) in parts {
            rename(prefix, &mut part);
            open_up(&mut part, true);
            definitions.insert(format!("{prefix}.{name}"), part);
        }
    }
    schema
}

fn rename(prefix: &str, schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                match value {
                    Value::String(target) if key == "$ref" => {
                        let name = target.rsplit('/').next().unwrap_or_default();
                        *target = format!("#/definitions/{prefix}.{name}");
                    }
                    value => rename(prefix, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(prefix, item)),
        _ => {}
    }
}

/// Every value below may also be an expression. The outermost is left as it is: it is the settings themselves.
fn open_up(schema: &mut Value, outermost: bool) {
    let Some(object) = schema.as_object_mut() else { return };
    for key in ["properties", "patternProperties"] {
        if let Some(properties) = object.get_mut(key).and_then(Value::as_object_mut) {
            properties.values_mut().for_each(|one| open_up(one, false));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            open_up(inner, false);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(inner) = object.get_mut(key).and_then(Value::as_array_mut) {
            inner.iter_mut().for_each(|one| open_up(one, true));
        }
    }
    let plain_text = object.get("type") == Some(&json!("string"))
        && !["pattern", "enum", "const", "format"].iter().any(|key| object.contains_key(*key));
    let constrains =
        ["type", "$ref", "enum", "const", "anyOf", "oneOf"].iter().any(|key| object.contains_key(*key));
    if outermost || plain_text || !constrains {
        return;
    }
    let mut outer = Map::new();
    if let Some(description) = object.remove("description") {
        outer.insert("description".to_owned(), description);
    }
    let inner = Value::Object(std::mem::take(object));
    outer.insert("anyOf".to_owned(), json!([inner, { "type": "string", "pattern": "\\$\\{\\{" }]));
    *object = outer;
}
