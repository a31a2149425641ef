//! The right shape for a value that has another one, from the schema: `effect: read` is meant as `effect: { class: read, repeat: … }`.

use serde_json::Value;

use crate::expr::{analyse_expression, is_template, unescape};

/// What to write instead of a value of the wrong shape, when it can be told what was meant.
pub(super) fn meant(schema: &Value, pointer: &str, got: &Value) -> Option<String> {
    if let Value::String(text) = got
        && is_expression(text)
    {
        return Some(format!("an expression stands in `${{{{ … }}}}`: write \"${{{{ {} }}}}\"", text.trim()));
    }
    let at = pointer.split('/').skip(1).try_fold(schema, |at, name| below(schema, at, &unescape(name)))?;
    let written = shaped(schema, plain(schema, at)?, got)?;
    Some(format!("write `{}: {written}`", unescape(pointer.rsplit('/').next()?)))
}

/// Whether a text can be meant as an expression: it can be read as one, and uses a value.
fn is_expression(text: &str) -> bool {
    if is_template(text) || !text.contains('.') {
        return false;
    }
    let analysis = analyse_expression(text);
    analysis.problems.is_empty() && !analysis.references.is_empty()
}

/// The schema itself, without a reference and without the alternative of nothing.
fn plain<'s>(root: &'s Value, schema: &'s Value) -> Option<&'s Value> {
    let mut at = schema;
    for _ in 0..8 {
        if let Some(target) = at.get("$ref").and_then(Value::as_str) {
            at = root.pointer(target.strip_prefix('#')?)?;
        } else if let Some(all) =
            at.get("anyOf").and_then(Value::as_array).filter(|_| at.get("type").is_none())
        {
            let mut some = all.iter().filter(|one| one.get("type").is_none_or(|of| of != "null"));
            at = some.next()?;
            if some.next().is_some() {
                return None;
            }
        } else {
            return Some(at);
        }
    }
    None
}

fn below<'s>(root: &'s Value, schema: &'s Value, name: &str) -> Option<&'s Value> {
    let schema = plain(root, schema)?;
    let property = schema.get("properties").and_then(|all| all.get(name));
    property.or_else(|| schema.get("additionalProperties")).or_else(|| schema.get("items"))
}

fn is(schema: &Value, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(all)) => all.iter().any(|one| one == name),
        _ => false,
    }
}

/// The values of an enumeration.
fn choices(schema: &Value) -> Vec<&str> {
    if let Some(all) = schema.get("enum").and_then(Value::as_array) {
        return all.iter().filter_map(Value::as_str).collect();
    }
    let all = schema.get("oneOf").and_then(Value::as_array);
    all.into_iter().flatten().filter_map(|one| one.get("const")?.as_str()).collect()
}

/// What was written, in the shape that a map has.
fn shaped(root: &Value, schema: &Value, got: &Value) -> Option<String> {
    if !is(schema, "object") {
        return None;
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        let names: Vec<String> = match got {
            Value::Array(items) if !items.is_empty() => {
                let name = |item: &Value| Some(format!("{}: …", item.as_str()?.split(['=', ':']).next()?));
                items.iter().map(name).collect::<Option<_>>()?
            }
            _ => vec!["NAME: …".to_owned()],
        };
        return Some(format!("{{ {} }}", names.join(", ")));
    };
    let needed: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let taken = properties.iter().find_map(|(name, of)| Some((name, taken(plain(root, of)?, got)?)));
    let mut parts = Vec::new();
    for (name, of) in properties {
        if let Some((_, value)) = taken.as_ref().filter(|(taken, _)| *taken == name) {
            parts.push(format!("{name}: {value}"));
        } else if needed.contains(&name.as_str()) {
            let first = plain(root, of).map(choices).and_then(|all| all.first().copied()).unwrap_or("…");
            parts.push(format!("{name}: {first}"));
        }
    }
    (!parts.is_empty()).then(|| format!("{{ {} }}", parts.join(", ")))
}

/// A written value as a setting takes it, by itself or as the one item of a list.
fn taken(schema: &Value, got: &Value) -> Option<String> {
    match got {
        Value::String(text) if choices(schema).contains(&text.as_str()) => Some(text.clone()),
        Value::Number(number) if is(schema, "integer") => Some(number.to_string()),
        Value::Number(number) if is(schema, "array") => {
            let items = schema.get("items")?;
            is(items, "integer").then(|| format!("[{number}]"))
        }
        _ => None,
    }
}
