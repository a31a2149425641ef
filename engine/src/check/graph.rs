//! The steps of a runbook as a graph: who needs whom.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::reach::reach;
use crate::runbook::{Runbook, Step};

/// How many steps one walk over the graph asks about, in words of 64.
const WORDS: usize = 8;
const BLOCK: usize = WORDS * 64;
/// How many of its needs a step is asked for before the graph is walked.
const NEAR: usize = 8;

/// Every step by its place in the file, the final ones last, with the places it needs.
pub(crate) struct Graph<'a> {
    pub(crate) steps: Vec<&'a Step>,
    /// How many of them are not final.
    pub(crate) main: usize,
    /// Needs that can be followed: known, in the same list, not the step itself.
    pub(crate) needs: Vec<Vec<usize>>,
    /// The same the other way round: who needs each step.
    pub(crate) followers: Vec<Vec<usize>>,
    index: HashMap<&'a str, usize>,
}

impl<'a> Graph<'a> {
    pub(crate) fn new(runbook: &'a Runbook) -> Self {
        let steps: Vec<&Step> = runbook.all_steps().collect();
        let main = runbook.steps.len();
        let mut index = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            index.entry(step.id.value.as_str()).or_insert(at);
        }
        let mut needs = Vec::with_capacity(steps.len());
        for (list, offset, finally) in [(&runbook.steps, 0, false), (&runbook.finally, main, true)] {
            for (at, step) in list.iter().enumerate() {
                let known = match (&step.needs, at) {
                    (None, 0) => Vec::new(),
                    (None, at) => vec![offset + at - 1],
                    (Some(named), _) => named
                        .iter()
                        .filter_map(|need| index.get(need.value.as_str()).copied())
                        .filter(|need| (*need >= main) == finally)
                        .collect(),
                };
                needs.push(known);
            }
        }
        let mut followers = vec![Vec::new(); steps.len()];
        for (at, needs) in needs.iter().enumerate() {
            needs.iter().for_each(|need| followers[*need].push(at));
        }
        Self { steps, main, needs, followers, index }
    }

    /// The place of the first step with this id.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// Whether a step is a final one.
    pub(crate) fn is_final(&self, at: usize) -> bool {
        at >= self.main
    }

    /// Which steps have ended when this one starts: those it needs, near or far; for a final step all that are not final too.
    pub(crate) fn before(&self, at: usize) -> Vec<bool> {
        let mut reached = reach(&self.needs, at);
        if self.is_final(at) {
            reached[..self.main].fill(true);
        }
        reached
    }

    /// Which steps start only when this one has ended.
    pub(crate) fn after(&self, at: usize) -> Vec<bool> {
        let mut reached = reach(&self.followers, at);
        if !self.is_final(at) {
            reached[self.main..].fill(true);
        }
        reached
    }

    /// For each pair, whether the second step has ended when the first starts. One walk over the graph answers for a whole block of second
    /// steps: the cost of many questions is far below that of as many walks, and the memory stays in proportion to the steps.
    pub(crate) fn ended_before(&self, asked: &[(usize, usize)]) -> Vec<bool> {
        let near = |(at, other): &(usize, usize)| {
            (self.is_final(*at) && !self.is_final(*other))
                || self.needs[*at].iter().take(NEAR).any(|need| need == other)
        };
        let mut answers: Vec<bool> = asked.iter().map(near).collect();
        let mut far: Vec<usize> = (0..asked.len()).filter(|question| !answers[*question]).collect();
        if far.is_empty() {
            return answers;
        }
        far.sort_unstable_by_key(|question| asked[*question].1);
        let circles = self.circles();
        let block = |question: usize| asked[question].1 / BLOCK;
        for questions in far.chunk_by(|one, next| block(*one) == block(*next)) {
            let ended = self.walk(&circles, block(questions[0]));
            for question in questions {
                let (at, other) = asked[*question];
                answers[*question] = ended[at][other % BLOCK / 64] >> (other % 64) & 1 == 1;
            }
        }
        answers
    }

    /// Which steps of one block have ended when each step starts, a bit for each.
    fn walk(&self, circles: &[Vec<usize>], block: usize) -> Vec<[u64; WORDS]> {
        let mut ended = vec![[0; WORDS]; self.steps.len()];
        for circle in circles {
            let mut all = [0; WORDS];
            for need in circle.iter().flat_map(|at| &self.needs[*at]) {
                for (word, more) in all.iter_mut().zip(ended[*need]) {
                    *word |= more;
                }
                if need / BLOCK == block {
                    all[need % BLOCK / 64] |= 1 << (need % 64);
                }
            }
            for at in circle {
                ended[*at] = all;
            }
        }
        ended
    }

    /// The steps in groups that wait for each other in a circle, of one step where there is no circle; a group comes after those it needs.
    pub(crate) fn circles(&self) -> Vec<Vec<usize>> {
        let mut graph: DiGraph<(), (), usize> = DiGraph::default();
        let nodes: Vec<NodeIndex<usize>> = self.steps.iter().map(|_| graph.add_node(())).collect();
        for (at, needs) in self.needs.iter().enumerate() {
            for need in needs {
                graph.add_edge(nodes[at], nodes[*need], ());
            }
        }
        // Not Tarjan's: that one is recursive here, and a long chain would be a deep stack.
        let groups = kosaraju_scc(&graph).into_iter();
        groups.map(|group| group.into_iter().map(NodeIndex::index).collect()).collect()
    }

    /// The places of one list in an order that respects needs, file order among equals; nothing when there is a cycle.
    pub(crate) fn order(&self, finally: bool) -> Option<Vec<usize>> {
        let range = if finally { self.main..self.steps.len() } else { 0..self.main };
        let mut followers: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut open: HashMap<usize, usize> = HashMap::new();
        let mut ready = BinaryHeap::new();
        for at in range.clone() {
            let mut needs = self.needs[at].clone();
            needs.sort_unstable();
            needs.dedup();
            for need in &needs {
                followers.entry(*need).or_default().push(at);
            }
            if needs.is_empty() {
                ready.push(Reverse(at));
            }
            open.insert(at, needs.len());
        }
        let mut order = Vec::with_capacity(range.len());
        while let Some(Reverse(at)) = ready.pop() {
            order.push(at);
            for next in followers.remove(&at).unwrap_or_default() {
                if let Some(left) = open.get_mut(&next) {
                    *left -= 1;
                    if *left == 0 {
                        ready.push(Reverse(next));
                    }
                }
            }
        }
        (order.len() == range.len()).then_some(order)
    }
}
