//! A freeze is lifted before or after a step that stands on it, never beside it.

use super::safety::{FREEZE, class, lifts, standing_on};
use super::{Context, Finding, codes};
use crate::diagnostic::Diagnostic;
use crate::kinds::Class;
use crate::suggest::listed;

/// How many steps are pointed at for one that lifts a freeze beside them.
const SHOWN: usize = 5;

pub(super) fn check(cx: &Context<'_>, found: &mut Vec<Finding>) {
    for (at, freeze) in cx.graph.steps[..cx.graph.main].iter().enumerate() {
        if freeze.uses.value != FREEZE {
            continue;
        }
        let follows = cx.graph.after(at);
        let lifting =
            (0..cx.graph.main).filter(|step| follows[*step] && lifts(cx.graph.steps[*step], freeze));
        let lifting: Vec<usize> = lifting.collect();
        if lifting.is_empty() {
            continue;
        }
        let standing = standing_on(cx, at);
        for lift in lifting {
            let before = cx.graph.before(lift);
            let beside: Vec<usize> = standing.iter().copied().filter(|step| !before[*step]).collect();
            if !beside.is_empty() {
                found.push(Finding { step: lift, problem: told(cx, at, lift, &beside) });
            }
        }
    }
}

fn told(cx: &Context<'_>, freeze: usize, lift: usize, beside: &[usize]) -> Diagnostic {
    let [freeze, lift] = [freeze, lift].map(|at| cx.graph.steps[at]);
    let steps = beside.iter().map(|at| cx.graph.steps[*at]);
    let names = listed(steps.clone().map(|step| step.id.value.as_str()));
    let message = format!(
        "`{}` may lift the freeze `{}` while {names} {}",
        lift.id.value,
        freeze.id.value,
        if beside.len() == 1 { "runs" } else { "run" }
    );
    let mut problem = Diagnostic::error(codes::UNFREEZE_BESIDE, lift.uses.span.clone(), message);
    let (mut undeclared, mut shown) = (false, 0);
    for step in steps {
        let unknown = class(cx, step) == Some(Class::Undetermined);
        undeclared |= unknown;
        shown += 1;
        if shown <= SHOWN {
            let label = if unknown { "nobody says what this does" } else { "this destroys" };
            problem = problem.also(step.uses.span.clone(), label);
        }
    }
    let (them, they) =
        if beside.len() == 1 { ("it", "it does not need") } else { ("them", "they do not need") };
    let mut help = format!(
        "let `{0}` need {names}, directly or through other steps; or let {them} need `{0}`, when {they} the freeze",
        lift.id.value
    );
    if undeclared {
        help.push_str("; or declare the `effect`, when it only reads or writes");
    }
    problem.help(help)
}
