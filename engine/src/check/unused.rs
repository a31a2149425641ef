//! What is declared is used.

use std::collections::HashSet;

use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::document::{Kind, Node};
use crate::runbook::Runbook;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    let mut words = HashSet::new();
    for step in &cx.graph.steps {
        collect(&step.with.node, &mut words);
    }
    let mut for_connections = words.clone();
    for collection in &cx.runbook.collections {
        collect(&collection.settings.node, &mut for_connections);
    }
    // An expression could yield any name.
    let computed = |words: &HashSet<&str>, name: &str| {
        words.iter().any(|word| crate::expr::is_template(word) && word.contains(name))
    };
    let kinds = [
        ("connection", &cx.runbook.connections, &for_connections),
        ("collection", &cx.runbook.collections, &words),
    ];
    for (what, all, words) in kinds {
        for resource in all {
            let name = resource.name.value.as_str();
            if !words.contains(name) && !computed(words, name) {
                let message = format!("the {what} `{name}` is not used");
                problems.push(
                    Diagnostic::warning(codes::UNUSED, resource.name.span.clone(), message)
                        .help("take it away, or name it where it was meant to be used"),
                );
            }
        }
    }
}

/// Whether it tells that one of these names is not used.
pub(super) fn names(problem: &Diagnostic, names: &[String], runbook: &Runbook) -> bool {
    problem.code == codes::UNUSED
        && runbook.source.get(problem.span.clone()).is_some_and(|name| names.iter().any(|one| one == name))
}

fn collect<'a>(node: &'a Node, words: &mut HashSet<&'a str>) {
    match &node.kind {
        Kind::String(text) => {
            words.insert(text);
        }
        Kind::List(items) => items.iter().for_each(|item| collect(item, words)),
        Kind::Map(entries) => {
            for entry in entries {
                words.insert(&entry.key);
                collect(&entry.value, words);
            }
        }
        _ => {}
    }
}
