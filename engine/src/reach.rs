//! What comes after what, near or far.

/// The places that can be reached from one along these edges, in one step or more: whether each can, in their order. `edges` has, of each place, the
/// places that its edges lead to.
pub fn reach(edges: &[Vec<usize>], from: usize) -> Vec<bool> {
    let mut reached = vec![false; edges.len()];
    let mut open = edges[from].clone();
    while let Some(next) = open.pop() {
        if !std::mem::replace(&mut reached[next], true) {
            open.extend(&edges[next]);
        }
    }
    reached
}
