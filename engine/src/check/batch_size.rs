//! A batch is no larger than what each of its collections deletes or changes at once.

use serde_json::Value;

use super::safety::{class, collections};
use super::{Context, codes, kinds};
use crate::diagnostic::Diagnostic;
use crate::kinds::Class;

/// The setting that says how many items a batch has.
const BATCH_SIZE: &str = "batch_size";

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for step in &cx.graph.steps {
        let Some(kind) = cx.catalog.step(&step.uses.value) else { continue };
        let with = &step.with.value;
        let Some(size) = with.get(BATCH_SIZE).and_then(Value::as_u64) else { continue };
        let acts = class(cx, step) == Some(Class::Destroy) || (kind.updates)(with);
        let pointer = format!("/{BATCH_SIZE}");
        // What no collection takes is told by the kind itself.
        if !acts || (kind.check)(with).iter().any(|problem| problem.pointer == pointer) {
            continue;
        }
        let most = |name: &str| {
            let found = cx.runbook.collections.iter().find(|one| one.name.value == name)?;
            kinds::find(cx.catalog.collections, &found.kind.value).map(|kind| kind.max_batch as u64)
        };
        let named = collections(step).into_iter();
        let least = named.filter_map(|(name, _)| Some((most(&name)?, name))).min_by_key(|(most, _)| *most);
        if let Some((most, name)) = least.filter(|(most, _)| *most < size) {
            let message = format!(
                "`{BATCH_SIZE}` of `{}`: {size} is more than `{name}` takes at once",
                step.uses.value
            );
            let span = step.with.node.locate(&pointer, false);
            problems.push(
                Diagnostic::error(codes::SETTING, span, message).help(format!("write {most}, or less")),
            );
        }
    }
}
