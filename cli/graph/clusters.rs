//! Which steps are drawn inside which frame: a freeze frames the steps that run while it is in force.

use super::Graph;

/// The frame of a freeze.
pub(super) struct Cluster {
    /// The freeze, by its place in [`Graph::holds`].
    pub hold: usize,
    /// The places of the steps directly inside.
    pub nodes: Vec<usize>,
    /// The frames inside.
    pub inner: Vec<Cluster>,
}

/// The frames of the outermost freezes, and the steps outside of all of them, the final ones apart.
pub(super) fn clusters(graph: &Graph) -> (Vec<Cluster>, Vec<usize>) {
    let inside = |parent: Option<usize>| -> Vec<usize> {
        (0..graph.nodes.len()).filter(|at| !graph.nodes[*at].finally && home(graph, *at) == parent).collect()
    };
    (below(graph, None, &inside), inside(None))
}

fn below(graph: &Graph, parent: Option<usize>, inside: &dyn Fn(Option<usize>) -> Vec<usize>) -> Vec<Cluster> {
    let of_parent = |hold: &usize| {
        let freeze = graph.holds[*hold].freeze;
        !graph.nodes[freeze].finally && graph.nodes[freeze].held.last().copied() == parent
    };
    let holds = (0..graph.holds.len()).filter(of_parent);
    holds
        .map(|hold| Cluster { hold, nodes: inside(Some(hold)), inner: below(graph, Some(hold), inside) })
        .collect()
}

/// The frame a step stands in: a freeze stands in its own, another step in the last that is in force.
fn home(graph: &Graph, at: usize) -> Option<usize> {
    let own = graph.holds.iter().position(|hold| hold.freeze == at);
    own.or_else(|| graph.nodes[at].held.last().copied())
}
