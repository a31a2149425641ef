//! What a value is compared with is something that it can be.

use serde_json::Value;

use super::places::all;
use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::expr::{Comparison, comparisons, is_template};
use crate::runbook::{Input, InputKind};
use crate::state::StepStatus;
use crate::suggest::{did_you_mean, listed};

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for place in all(cx) {
        place.node.texts(&mut |_, node, text| {
            let template = is_template(text);
            if !(template || place.condition) || !(text.contains('=') || text.contains("in")) {
                return;
            }
            for comparison in comparisons(text, !template) {
                if let Some((message, help)) = wrong(cx, &comparison) {
                    let span = node.place(&cx.runbook.source, comparison.span);
                    problems.push(Diagnostic::error(codes::NEVER_EQUAL, span, message).help(help));
                }
            }
        });
    }
}

/// Why a value is never what it is compared with, and what to write.
fn wrong(cx: &Context<'_>, comparison: &Comparison) -> Option<(String, String)> {
    let names: Vec<&str> = comparison.names.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["steps", id, "status"] if cx.graph.find(id).is_some() => {
            let names = StepStatus::NAMES.iter().copied();
            let written = comparison.literal.as_str().unwrap_or_default();
            if names.clone().any(|name| name == written) {
                return None;
            }
            let help = meant(written, StepStatus::NAMES)
                .unwrap_or_else(|| format!("it is one of {}", listed(names)));
            Some((format!("the status of a step is never {}", comparison.literal), help))
        }
        ["inputs", name] => {
            let input = cx.runbook.inputs.iter().find(|input| input.name.value == *name)?;
            of_input(input, &comparison.literal)
        }
        _ => None,
    }
}

/// The status that was meant, by a word that others use or by a slip.
fn meant(written: &str, names: &[&'static str]) -> Option<String> {
    let ours = match written.to_ascii_lowercase().as_str() {
        "success" | "successful" | "ok" | "done" | "passed" | "completed" | "complete" => "succeeded",
        "failure" | "error" | "errored" => "failed",
        "skip" => "skipped",
        _ => return did_you_mean(written, names.iter().copied()),
    };
    Some(format!("write `{ours}`"))
}

fn of_input(input: &Input, literal: &Value) -> Option<(String, String)> {
    let name = &input.name.value;
    let text = literal.as_str();
    let article = input.kind.with_article();
    match (input.kind, literal) {
        (_, Value::Null) | (InputKind::List, _) => None,
        (InputKind::Boolean, Value::Bool(_)) => None,
        (InputKind::Boolean, _) => {
            let message = format!("`inputs.{name}` is {article}, and never equals {literal}");
            Some((message, format!("write `inputs.{name}`, or `not inputs.{name}`")))
        }
        (InputKind::Integer | InputKind::Number, Value::String(written)) => {
            let message = format!("`inputs.{name}` is {article}, and never equals the text {literal}");
            let number = written.parse::<f64>().is_ok();
            let help = if number {
                format!("write {written} without quotes")
            } else {
                "compare it with a number".to_owned()
            };
            Some((message, help))
        }
        (InputKind::Integer | InputKind::Number, _) => None,
        (_, Value::Number(_) | Value::Bool(_)) => {
            let message =
                format!("`inputs.{name}` is {article}, and never equals {literal}, which is no text");
            Some((message, format!("write '{literal}'")))
        }
        _ => {
            let choices: Vec<&str> = input.choices.iter().filter_map(Value::as_str).collect();
            let text = text.filter(|text| !choices.is_empty() && !choices.contains(text))?;
            let help = did_you_mean(text, choices.iter().copied())
                .unwrap_or_else(|| format!("its values are {}", listed(choices)));
            Some((format!("`inputs.{name}` is never {literal}"), help))
        }
    }
}
