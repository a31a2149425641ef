//! The fields of a schema, for people: name, type, whether it must be there, its default, what it means.

use std::collections::BTreeSet;

use console::measure_text_width;
use serde_json::Value;

use crate::format;
use crate::report::describe::wrap;

/// The lines, those that are wider than the terminal continued below, as far in as they begin.
pub fn fitted(lines: Vec<String>) -> Vec<String> {
    let Some(width) = format::look_of_stdout().width else { return lines };
    let mut fitted = Vec::with_capacity(lines.len());
    for line in lines {
        if measure_text_width(&line) < width {
            fitted.push(line);
            continue;
        }
        let indent = " ".repeat(line.len() - line.trim_start().len());
        let room = width.saturating_sub(indent.len() + 1);
        fitted.extend(wrap(&line, room).into_iter().map(|part| format!("{indent}{part}")));
    }
    fitted
}

/// How deep the fields of fields are told.
const DEPTH: usize = 4;

/// The fields of a schema whose references lead into `root`, indented.
pub fn fields(root: &Value, schema: &Value) -> Vec<String> {
    fields_to(DEPTH, root, schema)
}

/// The same, those of its fields no deeper than this: 1 for its own alone.
pub fn fields_to(deepest: usize, root: &Value, schema: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut list = List { root, deepest, seen: BTreeSet::new(), lines: &mut lines };
    list.below(schema, 1);
    lines
}

/// The lines in the making.
struct List<'a> {
    root: &'a Value,
    deepest: usize,
    seen: BTreeSet<String>,
    lines: &'a mut Vec<String>,
}

impl<'a> List<'a> {
    /// One field a block: name, type, whether it is required, its default, its description; then the fields below it.
    fn below(&mut self, schema: &'a Value, depth: usize) {
        let indent = "  ".repeat(depth);
        let all = schema.get("properties").and_then(Value::as_object);
        let Some(properties) = all.filter(|all| !all.is_empty()) else {
            if depth == 1 {
                self.lines.push(format!("{indent}(none)"));
            }
            return;
        };
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, field) in properties {
            let mut about = vec![kind_of(self.root, field)];
            if required.contains(&name.as_str()) {
                about.push("required".to_owned());
            }
            if let Some(default) = field.get("default").filter(|default| !default.is_null()) {
                about.push(format!("default {default}"));
            }
            self.lines.push(format!("{indent}{name}  ({})", about.join(", ")));
            if let Some(text) = field.get("description").and_then(Value::as_str) {
                let text = text.lines().map(|line| format!("{indent}    {line}").trim_end().to_owned());
                self.lines.extend(text);
            }
            let target = target(self.root, field);
            let key = target.to_string();
            // A type that holds itself is explained once.
            if depth < self.deepest && self.seen.insert(key.clone()) {
                self.below(target, depth + 2);
                self.seen.remove(&key);
            }
        }
    }
}

/// The schema behind references, lists and optional values.
fn target<'a>(root: &'a Value, field: &'a Value) -> &'a Value {
    let field = through(root, field);
    match (choices(field).first(), field.get("items")) {
        (Some(one), _) => target(root, one),
        (None, Some(items)) => target(root, items),
        (None, None) => field,
    }
}

/// The schema behind references.
fn through<'a>(root: &'a Value, field: &'a Value) -> &'a Value {
    let only = field.get("allOf").and_then(Value::as_array).and_then(|all| match all.as_slice() {
        [only] => Some(only),
        _ => None,
    });
    let named = || {
        let name = field.get("$ref").and_then(Value::as_str)?;
        root.pointer(name.strip_prefix('#')?)
    };
    only.or_else(named).map_or(field, |next| through(root, next))
}

/// What a field may be, when it may be several things; beside nothing at all, and beside an expression, which fits everywhere.
fn choices(field: &Value) -> Vec<&Value> {
    let expression = |one: &Value| {
        one.get("pattern").and_then(Value::as_str).is_some_and(|pattern| pattern.contains("\\$"))
    };
    let null = |one: &Value| one.get("type").and_then(Value::as_str) == Some("null");
    let all = field.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    all.filter(|one| !expression(one) && !null(one)).collect()
}

fn kind_of(root: &Value, field: &Value) -> String {
    let field = through(root, field);
    let choices = choices(field);
    if !choices.is_empty() {
        let kinds: Vec<String> = choices.into_iter().map(|one| kind_of(root, one)).collect();
        return kinds.join(" | ");
    }
    if let Some(items) = field.get("items") {
        return format!("list of {}", kind_of(root, items));
    }
    let schema = field;
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let word = |one: &Value| {
            let constant = one.get("const").and_then(Value::as_str).map(str::to_owned);
            let key = || one.get("properties")?.as_object()?.keys().next().map(|key| format!("{key}: …"));
            constant.or_else(key)
        };
        let words: Vec<String> = choices.iter().filter_map(word).collect();
        if !words.is_empty() {
            return words.join(" | ");
        }
    }
    match schema.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => {
            let kinds: Vec<&str> =
                kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
            kinds.join(" | ")
        }
        _ => "any".to_owned(),
    }
}
