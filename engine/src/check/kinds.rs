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
