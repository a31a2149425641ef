//! What can only be read is neither deleted from nor changed.

use super::safety::{class, collections};
use super::{Context, codes, kinds};
use crate::diagnostic::Diagnostic;
use crate::kinds::{Class, ResourceKindInfo};

/// Why a step can not act on a collection of these settings: what it does, what can not be done, and what to write instead.
type Refusal = (&'static str, &'static str, &'static str);

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for step in &cx.graph.steps {
        let destroys = class(cx, step) == Some(Class::Destroy);
        let updates = cx.catalog.step(&step.uses.value).is_some_and(|kind| (kind.updates)(&step.with.value));
        let refusal = |kind: &ResourceKindInfo, settings| -> Option<Refusal> {
            let only_read = (kind.only_read)(settings).filter(|_| destroys);
            let not_updated = (kind.not_updated)(settings).filter(|_| updates);
            only_read
                .map(|instead| ("destroys items", "only be read", instead))
                .or_else(|| not_updated.map(|instead| ("changes items", "not be changed", instead)))
        };
        for (name, span) in collections(step) {
            let Some(found) = cx.runbook.collections.iter().find(|one| one.name.value == name) else {
                continue;
            };
            let Some(kind) = kinds::find(cx.catalog.collections, &found.kind.value) else { continue };
            if let Some((does, can, instead)) = refusal(kind, &found.settings.value) {
                let message = format!("`{}` {does} of `{name}`, which can {can}", step.id.value);
                problems.push(Diagnostic::error(codes::ONLY_READ, span, message).help(instead));
            }
        }
    }
}
