//! What can only be read is not deleted from.

use super::safety::{collections, destroying};
use super::{Context, codes, kinds};
use crate::diagnostic::Diagnostic;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for at in destroying(cx) {
        let step = cx.graph.steps[at];
        for (name, span) in collections(step) {
            let Some(found) = cx.runbook.collections.iter().find(|one| one.name.value == name) else {
                continue;
            };
            let Some(kind) = kinds::find(cx.catalog.collections, &found.kind.value) else { continue };
            if let Some(instead) = (kind.only_read)(&found.settings.value) {
                let message =
                    format!("`{}` destroys items of `{name}`, which can only be read", step.id.value);
                problems.push(Diagnostic::error(codes::ONLY_READ, span, message).help(instead));
            }
        }
    }
}
