//! `runbook steps`.

use runbook_engine::kinds::StepKindInfo;
use runbook_steps::catalog::CATALOG;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::Steps;
use crate::exit::{Failure, Outcome};
use crate::fields::{fields, fitted};
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
            "example": example(kind),
        }));
    }
    let mut lines = fitted(page(kind, &config, &outputs));
    lines.extend(["example:".to_owned()]);
    lines.extend(example(kind).lines().map(|line| format!("  {line}").trim_end().to_owned()));
    lines.extend(see_also(&config));
    super::print(lines.join("\n").trim_end())
}

/// A step as it stands below `steps`.
fn example(kind: &StepKindInfo) -> String {
    let text = kind.example.trim_end();
    if text.starts_with("- ") { text.to_owned() } else { format!("- {}", text.replace('\n', "\n  ")) }
}

/// Where to read on of what the settings name.
fn see_also(config: &Value) -> Vec<String> {
    let has = |keys: &[&str]| {
        keys.iter().any(|key| config.get("properties").is_some_and(|all| all.get(key).is_some()))
    };
    let mut lines = vec![
        String::new(),
        "`runbook explain step`: needs, if, retry, timeout, on_failure, limits".to_owned(),
    ];
    if has(&["connection"]) {
        lines.push("`runbook explain connections`: how a connection is declared".to_owned());
    }
    if has(&["collection", "collections"]) {
        lines.push("`runbook explain collections`: how a collection is declared".to_owned());
    }
    lines
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
    lines.push(String::new());
    lines.push("`runbook steps KIND` explains one, `runbook explain` the file around them.".to_owned());
    super::print(&lines.join("\n"))
}

fn page(kind: &StepKindInfo, config: &Value, outputs: &Value) -> Vec<String> {
    let mut lines = vec![format!("{}: {}", kind.name, kind.summary), String::new()];
    if let Some(text) = config.get("description").and_then(Value::as_str) {
        lines.extend(text.lines().map(str::to_owned));
        lines.push(String::new());
    }
    lines.push("with:".to_owned());
    lines.extend(fields(config, config));
    lines.push(String::new());
    lines.push("outputs (steps.ID.outputs.NAME):".to_owned());
    lines.extend(fields(outputs, outputs));
    lines.push(String::new());
    lines
}
