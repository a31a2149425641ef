//! Every kind exists, and takes the settings it is given.

use serde_json::Value;

use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::document::Node;
use crate::kinds::{ResourceKindInfo, SettingProblem};
use crate::runbook::{Resource, Spanned};
use crate::suggest::{closest, listed};

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for step in &cx.graph.steps {
        match cx.catalog.step(&step.uses.value) {
            Some(kind) => {
                let found = (kind.check)(&step.with.value);
                // The problem of settings that are not there at all belongs to the kind.
                problems.extend(setting_problems(found, &step.with.node, &step.uses.value));
            }
            None => {
                let names = cx.catalog.steps.iter().map(|kind| kind.name);
                problems.push(unknown("step kind", &step.uses, names));
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
                problems.extend(setting_problems(found, &resource.settings.node, &resource.kind.value));
            }
            None => problems.push(unknown(what, &resource.kind, kinds.iter().map(|kind| kind.name))),
        }
    }
}

/// The kind of a connection or a collection.
pub(super) fn find(kinds: &'static [ResourceKindInfo], name: &str) -> Option<&'static ResourceKindInfo> {
    kinds.iter().find(|kind| kind.name == name)
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
    node: &Node,
    kind: &str,
) -> impl Iterator<Item = Diagnostic> {
    found.into_iter().map(move |problem| {
        let name = problem.pointer.rsplit('/').next().filter(|name| !name.is_empty() && !problem.at_key);
        let message = match name {
            Some(name) if name.parse::<usize>().is_err() => {
                format!("`{name}` of `{kind}`: {}", problem.message)
            }
            _ => format!("`{kind}`: {}", problem.message),
        };
        let span = if problem.pointer.is_empty() && !matches!(node.to_json(), Value::Null) {
            start_of(node)
        } else {
            node.locate(&problem.pointer, problem.at_key)
        };
        let mut diagnostic = Diagnostic::error(codes::SETTING, span, message);
        diagnostic.help = problem.help;
        diagnostic
    })
}

/// The first key of settings, rather than all their lines.
fn start_of(node: &Node) -> std::ops::Range<usize> {
    node.entries()
        .and_then(|entries| entries.first())
        .map_or(node.span.clone(), |entry| entry.key_span.clone())
}
