//! The steps of a runbook.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fields::{Fields, Keys, plain_text, snake_case, written_out, wrong};
use super::lower::name_of;
use super::{Setting, Spanned, Step, Waiver};
use crate::check::codes;
use crate::diagnostic::Diagnostic;
use crate::document::{Kind, Node, check_kind};
use crate::duration::Duration;
use crate::expr::{is_template, whole};
use crate::plan::{Limits, OnFailure, Retry};

/// What is done instead of repeating a step.
pub(crate) const EACH: &str = "a step is not repeated for each item: hand the program the whole list, as in `argv: \"${{ ['./each.sh'] + inputs.names }}\"`, and let it repeat; or write a step for each";
const IMAGE: &str = "write `uses: command` with `with: { argv: [docker, run, --rm, image, program] }`";

static STEP: Keys = Keys {
    what: "a step",
    known: &[
        "id",
        "name",
        "uses",
        "with",
        "needs",
        "if",
        "retry",
        "timeout",
        "on_failure",
        "limits",
        "waive",
    ],
    needed: &[("id", "id: its_name"), ("uses", "uses: command")],
    others: &[
        ("depends_on", "write `needs: [step]`"),
        ("dependsOn", "write `needs: [step]`"),
        ("depends", "write `needs: [step]`"),
        ("dependencies", "write `needs: [step]`"),
        ("after", "write `needs: [step]`"),
        ("requires", "write `needs: [step]`"),
        ("when", "write `if: \"${{ … }}\"`"),
        ("only_if", "write `if: \"${{ … }}\"`"),
        ("condition", "write `if: \"${{ … }}\"`"),
        ("run", "write `uses: command` with `with: { argv: [program, argument] }`"),
        ("script", "write `uses: command` with `with: { argv: [program, argument] }`"),
        ("command", "write `uses: command` with `with: { argv: [program, argument] }`"),
        ("shell", "write `uses: command` with `with: { argv: [program, argument] }`"),
        ("action", "write `uses: kind`"),
        ("type", "write `uses: kind`"),
        ("kind", "write `uses: kind`"),
        ("task", "write `uses: kind`"),
        ("args", "write `with`"),
        ("params", "write `with`"),
        ("parameters", "write `with`"),
        ("config", "write `with`"),
        ("inputs", "write `with`"),
        ("settings", "write `with`"),
        ("env", "write it below `with`"),
        ("title", "write `name`"),
        ("description", "write `name`"),
        ("retries", "write `retry: { max_attempts: 3 }`, which counts the first attempt"),
        ("max_attempts", "write `retry: { max_attempts: 3 }`, which counts the first attempt"),
        ("continue_on_error", "write `on_failure: continue`"),
        ("continue-on-error", "write `on_failure: continue`"),
        ("ignore_errors", "write `on_failure: continue`"),
        ("allow_failure", "write `on_failure: continue`"),
        ("register", "outputs need no name: `${{ steps.ID.outputs.NAME }}`"),
        ("outputs", "outputs are those of the kind: `${{ steps.ID.outputs.NAME }}`"),
        ("with_items", EACH),
        ("withItems", EACH),
        ("withParam", EACH),
        ("loop", EACH),
        ("foreach", EACH),
        ("for_each", EACH),
        ("strategy", EACH),
        ("matrix", EACH),
        ("until", "write a step with `uses: wait-for`"),
        ("delay", "write `retry: { delay: 5s }`"),
        ("notify", "write a step with `uses: notify`"),
        ("become", "put `sudo` first in `argv`"),
        ("sudo", "put `sudo` first in `argv`"),
        ("working-directory", "write `cwd` below `with`"),
        ("working_directory", "write `cwd` below `with`"),
        ("cwd", "write `cwd` below `with`"),
        ("argv", "write it below `with`"),
        ("image", IMAGE),
        ("container", IMAGE),
        ("template", "write `uses: kind`"),
        ("on_error", "write `on_failure: stop`, or put the step that cleans up below `finally`"),
        ("on_fail", "write `on_failure: stop`, or put the step that cleans up below `finally`"),
        ("unless", "write `if: \"${{ not (…) }}\"`"),
        ("parallel", "steps with the same `needs` run side by side"),
        ("confirm", "write a step with `uses: confirm-prompt` before it"),
        ("vars", "write `with`, or declare `inputs` for the whole runbook"),
        ("timeout_minutes", "write `timeout: 5m`"),
        ("timeout-minutes", "write `timeout: 5m`"),
    ],
};

/// The steps of a list; each that has an id and a kind.
pub(super) fn steps(node: &Arc<Node>, key: &str, problems: &mut Vec<Diagnostic>) -> Vec<Step> {
    match &node.kind {
        Kind::List(items) => items.iter().filter_map(|item| step(item, problems)).collect(),
        Kind::Null => Vec::new(),
        Kind::Map(_) => {
            problems.push(
                wrong(node, &format!("`{key}`"), "a list").help("begin each step with `- id: its_name`"),
            );
            Vec::new()
        }
        _ => {
            problems.push(wrong(node, &format!("`{key}`"), "a list of steps"));
            Vec::new()
        }
    }
}

fn step(node: &Arc<Node>, problems: &mut Vec<Diagnostic>) -> Option<Step> {
    let fields = Fields::of(node, &STEP, problems)?;
    let id = fields.needed_text("id", problems);
    if let Some(id) = &id {
        snake_case(id, "a step", problems);
    }
    let uses = fields.needed_text("uses", problems);
    let with = fields.setting("with").filter(|with| with.node.kind != Kind::Null).unwrap_or_else(|| {
        let written = fields.get("with").map(|entry| entry.key_span.clone());
        let span = written.or_else(|| uses.as_ref().map(|uses| uses.span.clone()));
        let span = span.unwrap_or_else(|| node.span.clone());
        Setting::new(&Arc::new(Node { span: span.clone(), kind: Kind::Map(Vec::new()) }), &span)
    });
    if with.node.entries().is_none() {
        problems.push(wrong(&with.node, "`with`", "a map"));
        return None;
    }
    let needs = fields.get("needs").map(|entry| needs(&entry.value, problems));
    let step = Step {
        id: id?,
        name: fields.setting("name"),
        uses: uses?,
        with,
        needs,
        condition: fields.setting("if"),
        retry: fields.setting("retry"),
        timeout: fields.setting("timeout"),
        on_failure: fields.setting("on_failure"),
        limits: fields.setting("limits"),
        waive: fields.get("waive").map(|entry| waive(&entry.value, problems)).unwrap_or_default(),
    };
    check(&step, problems);
    Some(step)
}

fn check(step: &Step, problems: &mut Vec<Diagnostic>) {
    if let Some(name) = step.name.as_ref().filter(|name| name.node.as_str().is_none()) {
        problems.push(wrong(&name.node, "`name`", "a text"));
    }
    if let Some(condition) = &step.condition {
        match &condition.value {
            Value::Bool(_) => {}
            Value::String(text)
                if is_template(text) && whole(text).is_none() && crate::expr::split(text).is_ok() =>
            {
                let message = "an `if` is one expression, and this is a longer text";
                problems.push(
                    Diagnostic::error(codes::EXPRESSION, condition.node.span.clone(), message)
                        .help("put the whole condition into one `${{ … }}`, with `and` and `or`"),
                );
            }
            Value::String(_) => {}
            _ => problems.push(wrong(&condition.node, "`if`", "an expression")),
        }
    }
    if let Some(retry) = &step.retry {
        settings::<Retry>(retry, "retry", problems);
    }
    if let Some(timeout) = &step.timeout {
        settings::<Duration>(timeout, "timeout", problems);
        let length = timeout.value.as_str().and_then(|text| text.parse::<Duration>().ok());
        if length.is_some_and(|length| length == Duration::default()) {
            problems.push(
                Diagnostic::error(
                    codes::VALUE,
                    timeout.node.span.clone(),
                    "a `timeout` of nothing is over at once",
                )
                .help(
                    "write how long it may take, such as 30s or 5m; without `timeout` it may take any time",
                ),
            );
        }
    }
    if let Some(on_failure) = &step.on_failure {
        settings::<OnFailure>(on_failure, "on_failure", problems);
    }
    if let Some(limits) = &step.limits {
        settings::<Limits>(limits, "limits", problems);
    }
}

/// Writes down every mistake in settings that the engine itself reads.
pub(crate) fn settings<T: DeserializeOwned + JsonSchema + 'static>(
    setting: &Setting,
    what: &str,
    problems: &mut Vec<Diagnostic>,
) {
    let what = format!("`{what}`");
    let found = check_kind::<T>(&setting.value);
    problems.extend(found.into_iter().map(|problem| setting.problem(codes::VALUE, &what, problem)));
}

fn needs(node: &Arc<Node>, problems: &mut Vec<Diagnostic>) -> Vec<Spanned<String>> {
    match &node.kind {
        Kind::List(items) => items.iter().filter_map(|item| plain_text(item, "needs", problems)).collect(),
        Kind::String(text) => {
            problems
                .push(wrong(node, "`needs`", "a list of step ids").help(format!("write `needs: [{text}]`")));
            Vec::new()
        }
        _ => {
            problems.push(
                wrong(node, "`needs`", "a list of step ids")
                    .help("`needs: []` is for a step that needs none"),
            );
            Vec::new()
        }
    }
}

fn waive(node: &Arc<Node>, problems: &mut Vec<Diagnostic>) -> Vec<Waiver> {
    let mut waived = Vec::new();
    let Some(entries) = node.entries() else {
        let help = "write `waive: { RB0501: the reason }`";
        problems.push(wrong(node, "`waive`", "a map of rule codes and reasons").help(help));
        return waived;
    };
    for entry in entries {
        if !codes::WAIVABLE.contains(&entry.key.as_str()) {
            let message = format!("there is no rule `{}` to waive", entry.key);
            let help = format!(
                "rules that can be waived: {}",
                crate::suggest::listed(codes::WAIVABLE.iter().copied())
            );
            problems.push(Diagnostic::error(codes::WAIVER, entry.key_span.clone(), message).help(help));
        } else if entry.value.is_template() {
            problems.push(written_out(&entry.value, "waive"));
        } else if let Some(reason) = entry.value.as_str().filter(|reason| !reason.trim().is_empty()) {
            waived.push(Waiver { code: name_of(entry), reason: reason.to_owned() });
        } else {
            // The rule is not told as well: what is missing is the reason.
            waived.push(Waiver { code: name_of(entry), reason: String::new() });
            let message = format!("`{}` is waived without a reason", entry.key);
            problems.push(
                Diagnostic::error(codes::WAIVER, entry.key_span.clone(), message)
                    .help("the reason is shown to whoever approves and audits the run"),
            );
        }
    }
    waived
}
