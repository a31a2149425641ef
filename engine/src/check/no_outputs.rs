//! A step whose outputs are used has some: it was not skipped, and did not fail while the run went on.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::places::{Place, all};
use super::{Context, codes};
use crate::diagnostic::Diagnostic;
use crate::document::Node;
use crate::expr::{Facts, Reference, Standings, analyse, analyse_expression, is_template};
use crate::kinds::matches;

/// How many steps are followed of which one tests that the next has succeeded.
const FOLLOWED: usize = 64;

pub(super) fn check(cx: &Context<'_>, problems: &mut Vec<Diagnostic>) {
    let may_lack = |step: &&crate::runbook::Step| step.condition.is_some() || step.goes_on();
    if cx.runbook.finally.is_empty() && !cx.graph.steps.iter().any(may_lack) {
        return;
    }
    // What a step refers to too early has no outputs in any case, and that is told.
    let early = problems.iter().filter(|problem| problem.code == codes::NOT_UPSTREAM);
    let early = early.map(|problem| problem.span.clone()).collect();
    let mut rule = Rule { cx, facts: HashMap::new(), early, problems };
    for place in all(cx) {
        let Some(at) = place.step else { continue };
        place.node.texts(&mut |pointer, node, text| {
            if !matches(pointer, place.lazy) {
                rule.text(&place, at, node, text);
            }
        });
    }
}

struct Rule<'r, 'a> {
    cx: &'r Context<'a>,
    /// What surely holds when a step runs, as far as it was asked for.
    facts: HashMap<usize, Facts>,
    /// The places of references to steps that may not have ended.
    early: HashSet<Range<usize>>,
    problems: &'r mut Vec<Diagnostic>,
}

impl Rule<'_, '_> {
    fn text(&mut self, place: &Place<'_>, at: usize, node: &Node, text: &str) {
        if !text.contains("steps") {
            return;
        }
        let analysis = match (is_template(text), place.condition) {
            (true, _) => analyse(text),
            (false, true) => analyse_expression(text),
            (false, false) => return,
        };
        for reference in analysis.references.iter().filter(|one| one.root == "steps" && !one.guarded) {
            let target = reference.name(0).and_then(|id| self.cx.graph.find(id));
            let Some(target) = target.filter(|target| *target != at) else { continue };
            if matches!(reference.name(1), Some("outputs" | "started_at")) {
                self.reference(place, at, node, text, (reference, target));
            }
        }
    }

    fn reference(
        &mut self,
        place: &Place<'_>,
        at: usize,
        node: &Node,
        text: &str,
        (reference, target): (&Reference, usize),
    ) {
        let step = self.cx.graph.steps[target];
        let lacks = self.lacks(at, target);
        if lacks == Standings::NONE {
            return;
        }
        let mut facts = Facts::at(text, &reference.span);
        // An `if` is looked at before anything is known of what it says.
        if !place.condition {
            facts.and(self.facts_of(at));
        }
        self.follow(&mut facts);
        let mut lacks = lacks.both(facts.standings(&step.id.value));
        if step.condition_text().is_some_and(|condition| facts.imply(&condition)) {
            lacks = lacks.both(Standings::SKIPPED.others());
        }
        if lacks == Standings::NONE {
            return;
        }
        let span = node.place(&self.cx.runbook.source, reference.span.clone());
        if self.early.contains(&span) {
            return;
        }
        self.problems.push(self.told(&step.id.value, reference, lacks, span, target));
    }

    fn told(
        &self,
        id: &str,
        reference: &Reference,
        lacks: Standings,
        span: Range<usize>,
        target: usize,
    ) -> Diagnostic {
        let (skipped, failed) = (lacks.meets(Standings::SKIPPED), lacks.meets(Standings::FAILED));
        let what = match (skipped, failed) {
            _ if lacks.meets(Standings::UNFINISHED) => "may not have succeeded when the final steps run",
            (true, true) => "may be skipped or fail",
            (true, false) => "may be skipped",
            _ => "may fail, and the run goes on",
        };
        let none = match reference.name(1) {
            Some("outputs") => "its outputs then have no value".to_owned(),
            _ => format!("`{}` then has no value", reference.text()),
        };
        let mut problem = Diagnostic::warning(codes::NO_OUTPUTS, span, format!("`{id}` {what}; {none}"))
            .help(format!(
                "test `steps.{id}.status == 'succeeded'` first, in `if` or in the expression, or write `{} | default(…)`",
                reference.text()
            ));
        let step = self.cx.graph.steps[target];
        if let Some(condition) = step.condition.as_ref().filter(|_| skipped) {
            problem = problem.also(condition.node.span.clone(), "when this does not hold");
        }
        if let Some(on_failure) = step.on_failure.as_ref().filter(|_| failed && step.goes_on()) {
            problem = problem.also(on_failure.node.span.clone(), "the run goes on");
        }
        problem
    }

    /// In which ways without outputs a step can stand when another one looks, as far as nobody tests it.
    fn lacks(&self, at: usize, target: usize) -> Standings {
        let step = self.cx.graph.steps[target];
        let mut lacks = Standings::NONE;
        if step.condition_text().is_some_and(|condition| condition != "true") {
            lacks = lacks.either(Standings::SKIPPED);
        }
        if self.cx.graph.is_final(at) && !self.cx.graph.is_final(target) {
            lacks = lacks.either(Standings::UNFINISHED);
        }
        if self.cx.graph.is_final(at) || step.goes_on() {
            lacks = lacks.either(Standings::FAILED);
        }
        lacks
    }

    fn facts_of(&mut self, at: usize) -> &Facts {
        let condition = self.cx.graph.steps[at].condition_text();
        self.facts
            .entry(at)
            .or_insert_with(|| condition.map(|text| Facts::of_condition(&text)).unwrap_or_default())
    }

    /// Adds what surely held when the steps ran that surely have succeeded.
    fn follow(&mut self, facts: &mut Facts) {
        let mut followed: Vec<usize> = Vec::new();
        while followed.len() < FOLLOWED {
            let graph = &self.cx.graph;
            let next =
                facts.succeeded().filter_map(|id| graph.find(id)).find(|step| !followed.contains(step));
            let Some(next) = next else { return };
            followed.push(next);
            let more = self.facts_of(next).clone();
            facts.and(&more);
        }
    }
}
