//! No step waits for itself.

use std::collections::{HashSet, VecDeque};

use super::{Context, Graph, codes};
use crate::diagnostic::Diagnostic;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    for mut places in cx.graph.circles() {
        places.sort_unstable();
        let first = places[0];
        if places.len() == 1 && !cx.graph.needs[first].contains(&first) {
            continue;
        }
        let path = round_trip(&cx.graph, &places);
        let shown =
            path.iter().map(|at| cx.graph.steps[*at].id.value.as_str()).collect::<Vec<_>>().join(" -> ");
        let mut problem = Diagnostic::error(
            codes::CYCLE,
            span_of_need(&cx.graph, path[0], path[path.len() - 2]),
            format!("steps wait for each other in a circle: {shown}"),
        )
        .label("this closes the circle")
        .help("each step starts when the ones it needs have ended; take one of these needs away");
        for pair in path.windows(2) {
            let id = &cx.graph.steps[pair[1]].id;
            problem = problem.also(id.span.clone(), format!("needs `{}`", cx.graph.steps[pair[0]].id.value));
        }
        problems.push(problem);
    }
}

/// The shortest way along `needs`, in the order of running, from the first of these steps back to itself.
fn round_trip(graph: &Graph<'_>, places: &[usize]) -> Vec<usize> {
    let inside: HashSet<usize> = places.iter().copied().collect();
    let first = places[0];
    let mut came_from: Vec<Option<usize>> = vec![None; graph.steps.len()];
    let mut open = VecDeque::from([first]);
    while let Some(at) = open.pop_front() {
        for follower in graph.followers[at].iter().copied() {
            if follower == first {
                let mut path = vec![first, at];
                while let Some(before) =
                    path.last().filter(|last| **last != first).and_then(|last| came_from[*last])
                {
                    path.push(before);
                }
                path.reverse();
                return path;
            }
            if inside.contains(&follower) && came_from[follower].is_none() {
                came_from[follower] = Some(at);
                open.push_back(follower);
            }
        }
    }
    vec![first, first]
}

/// Where a step says that it needs another; its id when it does not say so.
fn span_of_need(graph: &Graph<'_>, at: usize, need: usize) -> std::ops::Range<usize> {
    let (step, id) = (graph.steps[at], &graph.steps[need].id.value);
    step.needs
        .iter()
        .flatten()
        .find(|named| named.value == *id)
        .map_or_else(|| step.id.span.clone(), |named| named.span.clone())
}
