//! Every step has an id of its own.

use super::{Context, codes};
use crate::diagnostic::Diagnostic;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for (at, step) in cx.graph.steps.iter().enumerate() {
        let Some(first) = cx.graph.find(&step.id.value).filter(|first| *first != at) else { continue };
        let message = format!("two steps have the id `{}`", step.id.value);
        problems.push(
            Diagnostic::error(codes::DUPLICATE_ID, step.id.span.clone(), message)
                .label("again here")
                .help("give one of them another id: `finally` shares its ids with `steps`")
                .also(cx.graph.steps[first].id.span.clone(), "first here"),
        );
    }
}
