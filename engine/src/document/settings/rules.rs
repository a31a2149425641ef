//! What a type's schema demands beyond the type: which settings go together, how many items there are, how large a number is.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use crate::expr::{escape, is_template, whole};
use crate::kinds::{Fault, SettingProblem};
use crate::suggest::listed;

/// Every place where a value breaks a rule of its schema that reading its type does not show. A text that holds `${{` fits
/// anything, and one that is a single expression may come to nothing.
///
/// The rules: `oneOf` and `anyOf` whose alternatives name settings by `required` (beside one `not`, which stands for none of them),
/// `not` of `required`, `dependencies`, `minItems`, `minProperties`, `minimum` and
/// `maximum`, and a `pattern`, of a text or of the names of a map (`propertyNames`), whose `patternErrorMessage` says what it wants.
pub fn check_rules(schema: &Value, value: &Value) -> Vec<SettingProblem> {
    let mut reader = Reader { root: schema, problems: Vec::new() };
    reader.value(schema, value, &mut String::new());
    reader.problems
}

struct Reader<'a> {
    root: &'a Value,
    problems: Vec<SettingProblem>,
}

/// Whether a setting is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    No,
    /// An expression decides.
    Perhaps,
    Yes,
}

fn there(map: &Map<String, Value>, name: &str) -> There {
    match map.get(name) {
        None | Some(Value::Null) => There::No,
        Some(Value::String(text)) if whole(text).is_some() => There::Perhaps,
        Some(_) => There::Yes,
    }
}

impl<'a> Reader<'a> {
    fn value(&mut self, schema: &'a Value, value: &Value, pointer: &mut String) {
        let Some(schema) = self.plain(schema) else { return };
        match value {
            Value::Object(map) => self.map(schema, map, pointer),
            Value::Array(items) => {
                if let Some(least) = schema.get("minItems").and_then(Value::as_u64)
                    && (items.len() as u64) < least
                {
                    let message = match items.len() {
                        0 => "the list is empty".to_owned(),
                        count => format!("the list has {count} items, and it needs at least {least}"),
                    };
                    self.problem(pointer, Fault::Value, message, None);
                }
                let Some(inner) = schema.get("items") else { return };
                for (at, item) in items.iter().enumerate() {
                    self.below(inner, item, &at.to_string(), pointer);
                }
            }
            Value::String(text) if !is_template(text) => {
                self.named(schema, text, pointer, Fault::Value);
            }
            Value::Number(number) => {
                let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
                let Some(size) = number.as_f64() else { return };
                let rule = match (bound("minimum"), bound("maximum")) {
                    (Some(least), _) if size < least => format!("at least {least}"),
                    (_, Some(most)) if size > most => format!("at most {most}"),
                    _ => return,
                };
                self.problem(pointer, Fault::Value, format!("{number} is not {rule}"), None);
            }
            _ => {}
        }
    }

    /// A text, or the name of a key, against a pattern that says in words what it wants.
    fn named(&mut self, schema: &Map<String, Value>, text: &str, pointer: &str, fault: Fault) {
        let part = |name: &str| schema.get(name).and_then(Value::as_str);
        let (Some(pattern), Some(wanted)) = (part("pattern"), part("patternErrorMessage")) else { return };
        if !compiled(pattern).is_some_and(|pattern| pattern.is_match(text)) {
            self.problem(pointer, fault, format!("`{text}` is not {wanted}"), None);
        }
    }

    fn below(&mut self, schema: &'a Value, value: &Value, key: &str, pointer: &mut String) {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&escape(key));
        self.value(schema, value, pointer);
        pointer.truncate(length);
    }

    fn map(&mut self, schema: &'a Map<String, Value>, map: &Map<String, Value>, pointer: &mut String) {
        if let Some(names) = schema.get("oneOf").and_then(alternatives) {
            let none =
                schema["oneOf"].as_array().is_some_and(|all| all.iter().any(|one| one.get("not").is_some()));
            self.one_of(&names, none, map, pointer);
        }
        if let Some(names) = schema.get("anyOf").and_then(alternatives)
            && names.iter().all(|name| there(map, name) == There::No)
        {
            let message = format!("at least one of {} is needed", listed(names.iter().copied()));
            self.problem(pointer, Fault::Missing, message, None);
        }
        let together = schema.get("not").and_then(|not| not.get("required")).and_then(Value::as_array);
        if let Some(names) = together.map(|names| names.iter().filter_map(Value::as_str).collect::<Vec<_>>())
            && names.iter().all(|name| there(map, name) == There::Yes)
        {
            self.beside(&names, map, pointer, None);
        }
        for (name, needed) in schema.get("dependencies").and_then(Value::as_object).into_iter().flatten() {
            let needed = needed.as_array().into_iter().flatten().filter_map(Value::as_str);
            for other in needed.filter(|other| there(map, other) == There::No) {
                if there(map, name) == There::Yes {
                    let at = format!("{pointer}/{}", escape(name));
                    self.problem(
                        &at,
                        Fault::Key,
                        format!("`{name}` goes with `{other}`, which is missing"),
                        None,
                    );
                }
            }
        }
        if let Some(least) = schema.get("minProperties").and_then(Value::as_u64)
            && (map.len() as u64) < least
        {
            self.problem(pointer, Fault::Value, "the map is empty".to_owned(), None);
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in map {
            if let Some(names) = schema.get("propertyNames").and_then(Value::as_object) {
                self.named(names, key, &format!("{pointer}/{}", escape(key)), Fault::Key);
            }
            let own = properties.and_then(|properties| properties.get(key));
            if let Some(inner) = own.or_else(|| schema.get("additionalProperties")) {
                self.below(inner, value, key, pointer);
            }
        }
    }

    fn one_of(&mut self, names: &[&str], none: bool, map: &Map<String, Value>, pointer: &str) {
        let all = listed(names.iter().copied());
        let of = |wanted: There| names.iter().copied().filter(move |name| there(map, name) == wanted);
        let sure: Vec<&str> = of(There::Yes).collect();
        if sure.len() > 1 {
            let only = if none { "only" } else { "exactly" };
            let help = format!("{only} one of {all} is allowed: take the others away");
            self.beside(&sure, map, pointer, Some(help));
        } else if sure.is_empty() && !none && of(There::Perhaps).next().is_none() {
            let message = format!("exactly one of {all} is needed, and none is there");
            self.problem(pointer, Fault::Missing, message, None);
        }
    }

    /// The second of settings that exclude each other, in the order of the text.
    fn beside(&mut self, names: &[&str], map: &Map<String, Value>, pointer: &str, help: Option<String>) {
        let mut in_order = map.keys().filter(|key| names.contains(&key.as_str()));
        if let (Some(first), Some(second)) = (in_order.next(), in_order.next()) {
            let message = format!("`{second}` can not stand beside `{first}`");
            self.problem(&format!("{pointer}/{}", escape(second)), Fault::Key, message, help);
        }
    }

    fn problem(&mut self, pointer: &str, fault: Fault, message: String, help: Option<String>) {
        self.problems.push(SettingProblem { pointer: pointer.to_owned(), fault, message, help });
    }

    /// The schema of a value that is there: behind references, and without the alternative that it is nothing.
    fn plain(&self, schema: &'a Value) -> Option<&'a Map<String, Value>> {
        let mut schema = schema.as_object()?;
        // Bounded, though a reference to itself alone would mean nothing.
        for _ in 0..16 {
            if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
                schema = self.root.pointer(target.strip_prefix('#')?)?.as_object()?;
                continue;
            }
            let something = |one: &&Value| one.get("type").is_none_or(|kind| kind != "null");
            let Some(all) = schema.get("anyOf").and_then(Value::as_array) else { return Some(schema) };
            let mut left = all.iter().filter(something);
            match (left.next(), left.next()) {
                (Some(one), None) if all.len() > 1 => schema = one.as_object()?,
                _ => return Some(schema),
            }
        }
        None
    }
}

/// A pattern of a schema, each compiled once: there are few, and every step of a runbook is held against them.
fn compiled(pattern: &str) -> Option<Regex> {
    static MADE: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = made.get(pattern) {
        return Some(known.clone());
    }
    let new = Regex::new(pattern).ok()?;
    made.insert(pattern.to_owned(), new.clone());
    Some(new)
}

/// The settings that alternatives name, when that is all that they do.
fn alternatives(all: &Value) -> Option<Vec<&str>> {
    let all = all.as_array()?.iter().filter(|one| one.get("not").is_none());
    all.map(|one| match one.get("required")?.as_array()?.as_slice() {
        [name] if one.get("properties").is_none() => name.as_str(),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: &Value) -> Vec<String> {
        let required = |name: &str| json!({ "required": [name] });
        let schema = json!({
            "oneOf": [required("a"), required("b"), required("c")],
            "anyOf": [required("a"), required("b"), required("c"), required("in")],
            "dependencies": { "b": ["more"], "more": ["b"] },
            "not": { "required": ["in", "out"] },
            "properties": {
                "list": { "type": ["array", "null"], "minItems": 1, "items": { "$ref": "#/$defs/Part" } },
                "in": { "anyOf": [{ "$ref": "#/$defs/Part" }, { "type": "null" }] },
                "named": { "additionalProperties": { "$ref": "#/$defs/Part" }, "minProperties": 1 },
                "either": { "anyOf": [{ "$ref": "#/$defs/Part" }, { "type": "array" }] },
            },
            "$defs": { "Part": {
                "oneOf": [required("x"), required("y"), { "not": { "anyOf": [required("x"), required("y")] } }],
                "properties": { "x": { "minimum": 1, "maximum": 5 } },
            } },
        });
        check_rules(&schema, value)
            .into_iter()
            .map(|problem| format!("{:?} {}: {}", problem.fault, problem.pointer, problem.message))
            .collect()
    }

    #[test]
    fn alternatives_are_counted_and_expressions_may_come_to_nothing() {
        let none = ["Missing : exactly one of `a`, `b`, `c` is needed, and none is there"];
        let x = "${{ inputs.x }}";
        for (value, found) in [
            (json!({ "a": 1 }), &[][..]),
            (json!({ "a": x }), &[]),
            (json!({ "a": x, "b": x, "more": 1 }), &[]),
            (json!({ "c": format!("{x}/y"), "a": "z" }), &["Key /a: `a` can not stand beside `c`"]),
            (json!({ "a": 1, "c": x, "b": null }), &[]),
            (json!({ "in": 1 }), &none[..]),
            (json!({ "a": null, "in": {} }), &none[..]),
            (json!({ "c": 1, "a": 1 }), &["Key /a: `a` can not stand beside `c`"]),
            (json!({ "b": 1 }), &["Key /b: `b` goes with `more`, which is missing"]),
            (json!({ "a": 1, "more": x }), &[]),
            (json!({ "a": 1, "out": 1, "in": {} }), &["Key /in: `in` can not stand beside `out`"]),
            (json!({ "a": 1, "out": x, "in": {} }), &[]),
        ] {
            assert_eq!(check(&value), found, "{value}");
        }
        assert_eq!(check(&json!({})).len(), 2);
    }

    #[test]
    fn rules_hold_at_any_depth() {
        for (value, found) in [
            (
                json!({ "list": [{}, { "x": 9, "y": 1 }] }),
                &["Key /list/1/y: `y` can not stand beside `x`", "Value /list/1/x: 9 is not at most 5"][..],
            ),
            (json!({ "list": [] }), &["Value /list: the list is empty"]),
            (json!({ "in": { "x": 0 } }), &["Value /in/x: 0 is not at least 1"]),
            (json!({ "named": {} }), &["Value /named: the map is empty"]),
            (
                json!({ "named": { "a/b": { "x": 1, "y": 1 } } }),
                &["Key /named/a~1b/y: `y` can not stand beside `x`"],
            ),
            // Which of the two it is meant to be is not known.
            (json!({ "either": { "x": 9 } }), &[]),
        ] {
            let mut value = value;
            value["a"] = json!(1);
            assert_eq!(check(&value), found, "{value}");
        }
    }
}
