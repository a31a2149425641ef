//! `runbook steps`.

use std::collections::BTreeSet;

use console::measure_text_width;
use runbook_engine::kinds::StepKindInfo;
use runbook_steps::catalog::CATALOG;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::Steps;
use crate::exit::{Failure, Outcome};
use crate::format;
use crate::report::describe::wrap;

/// Lists the step kinds, or explains one.
pub fn run(app: &App, args: &Steps) -> Outcome {
    let Some(name) = &args.kind else { return list(app) };
    let kind = CATALOG.step(name).ok_or_else(|| {
        let names: Vec<&str> = CATALOG.steps.iter().map(|kind| kind.name).collect();
        Failure::usage(format!("there is no step kind `{name}`")).help(format!("known: {}", names.join(", ")))
    })?;
    let (config, outputs) = (Value::from((kind.config)()), Value::from((kind.outputs)()));
    if app.json {
        return super::print_json(&json!({
            "name": kind.name,
            "summary": kind.summary,
            "with": config,
            "outputs": outputs,
            "example": kind.example,
        }));
    }
    let mut lines = fitted(page(kind, &config, &outputs));
    lines.extend(["example:".to_owned()]);
    lines.extend(kind.example.trim_end().lines().map(|line| format!("  {line}").trim_end().to_owned()));
    super::print(lines.join("\n").trim_end())
}

/// The lines, those that are wider than the terminal continued below, as far in as they begin.
fn fitted(lines: Vec<String>) -> Vec<String> {
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

fn list(app: &App) -> Outcome {
    if app.json {
        let kinds: Vec<Value> =
            CATALOG.steps.iter().map(|kind| json!({ "name": kind.name, "summary": kind.summary })).collect();
        return super::print_json(&Value::Array(kinds));
    }
    let width = CATALOG.steps.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    let room = format::look_of_stdout().width.map_or(usize::MAX, |columns| columns.saturating_sub(width + 3));
    let mut lines = Vec::new();
    for kind in CATALOG.steps {
        let mut name = kind.name;
        for part in wrap(kind.summary, room) {
            lines.push(format!("{name:width$}  {part}"));
            name = "";
        }
    }
    super::print(&lines.join("\n"))
}

fn page(kind: &StepKindInfo, config: &Value, outputs: &Value) -> Vec<String> {
    let mut lines = vec![format!("{}: {}", kind.name, kind.summary), String::new()];
    if let Some(text) = config.get("description").and_then(Value::as_str) {
        lines.extend(text.lines().map(str::to_owned));
        lines.push(String::new());
    }
    lines.push("with:".to_owned());
    fields(config, config, 1, &mut BTreeSet::new(), &mut lines);
    lines.push(String::new());
    lines.push("outputs (steps.ID.outputs.NAME):".to_owned());
    fields(outputs, outputs, 1, &mut BTreeSet::new(), &mut lines);
    lines.push(String::new());
    lines
}

/// One field a block: name, type, whether it is required, its default, its description; then the fields below it.
fn fields(root: &Value, schema: &Value, depth: usize, seen: &mut BTreeSet<String>, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty())
    else {
        if depth == 1 {
            lines.push(format!("{indent}(none)"));
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
        let mut about = vec![kind_of(root, field)];
        if required.contains(&name.as_str()) {
            about.push("required".to_owned());
        }
        if let Some(default) = field.get("default").filter(|default| !default.is_null()) {
            about.push(format!("default {default}"));
        }
        lines.push(format!("{indent}{name}  ({})", about.join(", ")));
        if let Some(text) = field.get("description").and_then(Value::as_str) {
            lines.extend(text.lines().map(|line| format!("{indent}    {line}").trim_end().to_owned()));
        }
        let target = target(root, field);
        let key = target.to_string();
        // A type that holds itself is explained once.
        if depth < 4 && seen.insert(key.clone()) {
            fields(root, target, depth + 2, seen, lines);
            seen.remove(&key);
        }
    }
}

/// The schema behind references, lists and optional values.
fn target<'a>(root: &'a Value, field: &'a Value) -> &'a Value {
    if let Some(name) = field.get("$ref").and_then(Value::as_str) {
        return name
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer))
            .map_or(field, |one| target(root, one));
    }
    if let Some(choice) = field.get("anyOf").and_then(Value::as_array) {
        let real = choice.iter().find(|one| one.get("type").and_then(Value::as_str) != Some("null"));
        return real.map_or(field, |one| target(root, one));
    }
    field.get("items").map_or(field, |items| target(root, items))
}

fn kind_of(root: &Value, field: &Value) -> String {
    if field.get("items").is_some() {
        return format!("list of {}", kind_of(root, target(root, field)));
    }
    let schema = target(root, field);
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
