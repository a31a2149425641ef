//! Connections and collections that are named exist.

use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::document::{Kind, Node};
use crate::runbook::Resource;
use crate::suggest::did_you_mean;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for collection in &cx.runbook.collections {
        if let Some(entry) = collection.settings.node.entry("connection") {
            named(cx, &entry.value, "connection", &cx.runbook.connections, problems);
        }
    }
    for step in &cx.graph.steps {
        let with = &step.with.node;
        for (key, what, all) in [
            ("connection", "connection", &cx.runbook.connections),
            ("collection", "collection", &cx.runbook.collections),
            ("collections", "collection", &cx.runbook.collections),
        ] {
            match with.entry(key).map(|entry| (&entry.value, &entry.value.kind)) {
                Some((_, Kind::List(items))) => {
                    items.iter().for_each(|item| named(cx, item, what, all, problems));
                }
                Some((node, _)) => named(cx, node, what, all, problems),
                None => {}
            }
        }
    }
}

/// The name that was probably meant by one that does not exist.
pub(super) fn meant(problem: &Diagnostic) -> Option<String> {
    let help = problem.help.as_deref().filter(|_| problem.code == codes::UNKNOWN_CONNECTION)?;
    Some(help.strip_prefix("did you mean `")?.strip_suffix("`?")?.to_owned())
}

fn named(cx: &Context<'_>, node: &Node, what: &str, all: &[Resource], problems: &mut Vec<Diagnostic>) {
    let Some(name) = node.as_str().filter(|_| !node.is_template()) else { return };
    let names = || all.iter().map(|resource| resource.name.value.as_str());
    if names().any(|known| known == name) || cx.runbook.unread.contains(name) {
        return;
    }
    let help = did_you_mean(name, names()).unwrap_or_else(|| declaration(cx, what, name, all));
    let message = format!("there is no {what} `{name}`");
    problems.push(Diagnostic::error(codes::UNKNOWN_CONNECTION, node.span.clone(), message).help(help));
}

/// A line that declares what is missing, to be copied.
fn declaration(cx: &Context<'_>, what: &str, name: &str, others: &[Resource]) -> String {
    let line = if what == "connection" {
        format!("{name}: {{ type: http, url: \"http://127.0.0.1:8080\" }}")
    } else {
        let connection = cx.runbook.connections.first().map_or("disk", |one| one.name.value.as_str());
        format!("{name}: {{ type: files, connection: {connection}, pattern: \"*.log\" }}")
    };
    if others.is_empty() {
        format!("declare it: write `{what}s: {{ {line} }}` above `steps`")
    } else {
        format!("declare it below `{what}s`, as in `{line}`")
    }
}
