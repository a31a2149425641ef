//! The steps of a runbook as a graph: who needs whom.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::runbook::{Runbook, Step};

/// Every step by its place in the file, the final ones last, with the places it needs.
pub(crate) struct Graph<'a> {
    pub(crate) steps: Vec<&'a Step>,
    /// How many of them are not final.
    pub(crate) main: usize,
    /// Needs that can be followed: known, in the same list, not the step itself.
    pub(crate) needs: Vec<Vec<usize>>,
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
        Self { steps, main, needs, index }
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
        let mut reached = vec![false; self.steps.len()];
        let mut open = self.needs[at].clone();
        while let Some(next) = open.pop() {
            if !std::mem::replace(&mut reached[next], true) {
                open.extend(&self.needs[next]);
            }
        }
        if self.is_final(at) {
            reached[..self.main].fill(true);
        }
        reached
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
