//! Every kind exists, and takes the settings it is given.

use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::kinds::{Fault, ResourceKindInfo, SettingProblem};
use crate::runbook::{Resource, Setting, Spanned};
use crate::suggest::{closest, listed};

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for step in &cx.graph.steps {
        match cx.catalog.step(&step.uses.value) {
            Some(kind) => {
                let mut found = (kind.check)(&step.with.value);
                for missing in found.iter_mut().filter(|problem| problem.fault == Fault::Missing) {
                    let where_else = || format!("`runbook steps {}` tells what it takes", kind.name);
                    missing.help.get_or_insert_with(where_else);
                }
                problems.extend(setting_problems(found, &step.with, &step.uses.value));
            }
            None => {
                let names = cx.catalog.steps.iter().map(|kind| kind.name);
                let mut problem = unknown("step kind", &step.uses, names);
                if let Some(help) = elsewhere(cx, &step.uses.value) {
                    problem.help = Some(help);
                }
                problems.push(problem);
            }
        }
    }
    resources(&cx.runbook.connections, cx.catalog.connections, "connection kind", problems);
    resources(&cx.runbook.collections, cx.catalog.collections, "collection kind", problems);
}

fn resources(
    all: &[Resource],
    kinds: &'static [ResourceKindInfo],
    what: &str,
    problems: &mut Vec<Diagnostic>,
) {
    for resource in all {
        match find(kinds, &resource.kind.value) {
            Some(kind) => {
                let found = (kind.check)(&resource.settings.value);
                problems.extend(setting_problems(found, &resource.settings, &resource.kind.value));
            }
            None => problems.push(unknown(what, &resource.kind, kinds.iter().map(|kind| kind.name))),
        }
    }
}

/// The kind of a connection or a collection.
pub(super) fn find(kinds: &'static [ResourceKindInfo], name: &str) -> Option<&'static ResourceKindInfo> {
    kinds.iter().find(|kind| kind.name == name)
}

/// What others call a step kind: their names, ours, and how it is written.
const ELSEWHERE: &[(&[&str], &str, &str)] = &[
    (
        &["manual", "pause", "prompt", "confirm", "ask", "gate", "input", "human", "hold"],
        "confirm-prompt",
        "{ message: \"Is it done?\", phrases: [DONE] }",
    ),
    (&["approve", "review", "sign-off"], "approval", "{ message: \"May it go on?\", role: release manager }"),
    (
        &["shell", "sh", "bash", "script", "exec", "run", "cmd", "python", "powershell", "local", "task"],
        "command",
        "{ argv: [sh, -c, \"echo hello\"] }",
    ),
    (&["docker", "container", "image"], "command", "{ argv: [docker, run, --rm, image] }"),
    (&["kubectl", "k8s", "kubernetes"], "command", "{ argv: [kubectl, get, pods] }"),
    (&["ssh", "remote"], "command", "{ argv: [ssh, host, uptime] }"),
    (&["sleep", "delay", "timer"], "command", "{ argv: [sleep, 30] }"),
    (&["echo", "print", "log", "debug", "message"], "command", "{ argv: [echo, hello] }"),
    (&["wait", "poll", "until", "wait-until", "healthcheck", "health-check"], "wait-for", "…"),
    (
        &["curl", "request", "rest", "api", "get", "post", "fetch", "http-request", "https"],
        "http",
        "{ connection: api, path: /health }",
    ),
    (
        &["slack", "email", "mail", "webhook", "teams", "pagerduty", "alert", "notification", "tell"],
        "notify",
        "{ url: \"https://example.com/hook\", message: hello }",
    ),
    (&["delete", "remove", "purge", "clean", "cleanup", "prune", "destroy", "wipe"], "delete-batch", "…"),
    (&["dump", "export", "save"], "snapshot", "…"),
    (
        &["check", "test", "validate", "condition", "precondition", "expect", "ensure", "guard"],
        "assert",
        "{ that: \"${{ … }}\" }",
    ),
    (&["restore", "put"], "upload", "…"),
    (&["tail", "logs"], "watch-log", "…"),
    (&["lock", "maintenance", "disable"], "freeze", "…"),
    (&["unlock", "thaw", "enable", "release"], "unfreeze", "…"),
];

/// What to write for a kind that others have.
fn elsewhere(cx: &Context<'_>, name: &str) -> Option<String> {
    let name = name.to_lowercase().replace('_', "-");
    let (_, kind, with) = ELSEWHERE
        .iter()
        .find(|(names, kind, _)| names.contains(&name.as_str()) && cx.catalog.step(kind).is_some())?;
    Some(if *with == "…" {
        format!("write `uses: {kind}`; `runbook steps {kind}` shows one")
    } else {
        format!("write `uses: {kind}` with `with: {with}`")
    })
}

fn unknown<'n>(
    what: &str,
    kind: &Spanned<String>,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Diagnostic {
    let help = closest(&kind.value, names.clone()).map_or_else(
        || format!("the {what}s are {}", listed(names)),
        |close| format!("did you mean `{close}`?"),
    );
    Diagnostic::error(codes::KIND, kind.span.clone(), format!("there is no {what} `{}`", kind.value))
        .help(help)
}

/// What a kind says of its settings, each at its token.
pub(crate) fn setting_problems(
    found: Vec<SettingProblem>,
    setting: &Setting,
    kind: &str,
) -> impl Iterator<Item = Diagnostic> {
    let what = format!("`{kind}`");
    found.into_iter().map(move |problem| setting.problem(codes::SETTING, &what, problem))
}
