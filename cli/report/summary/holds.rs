//! What the run changed for its own time: what is back, what is still held, and what a person has to put back.

use console::Style;
use runbook_engine::event::{Closed, Obligation};
use runbook_engine::plan::Plan;
use runbook_engine::state::{ObligationPhase, ObligationState, RunStatus};
use runbook_steps::freeze::{self, ByHand};
use serde_json::Value;

use super::{Facts, describe, row};
use crate::format;

/// One row for each; two for what is not back and can be put back by a command.
pub(super) fn rows(facts: &Facts<'_>, lines: &mut Vec<String>) {
    for one in facts.state.obligations.values() {
        match &one.phase {
            ObligationPhase::Closed(Closed::Foreign { present }) => {
                not_back(facts, &one.obligation, present, lines);
            }
            ObligationPhase::Closed(how) => {
                row(facts, lines, "Released", &describe::closed(&one.obligation.label, how));
            }
            _ => {
                row(facts, lines, "HELD", &loud(&held(facts, one)));
                if let Some(error) = &one.stuck {
                    row(facts, lines, "", &describe::error_line(error));
                    by_hand_line(facts, &one.obligation, "by hand,", lines);
                }
            }
        }
    }
}

fn loud(text: &str) -> String {
    format::paint(Style::new().yellow().bold(), text)
}

fn held(facts: &Facts<'_>, one: &ObligationState) -> String {
    let until = one.hold_until();
    let until = if until > facts.now {
        // No process is at work on a run that has failed.
        let by = if facts.state.status == RunStatus::Failed { ", by `runbook reconcile`" } else { "" };
        format!("until {} at most{by}", format::clock(until, facts.now))
    } else {
        "OVERDUE".to_owned()
    };
    let label = &one.obligation.label;
    let how = match one.phase {
        ObligationPhase::Opened => "is about to be changed, and is not yet",
        ObligationPhase::Changing => "may have been changed and is NOT back",
        ObligationPhase::Releasing => "was being put back, and is NOT known to be back",
        _ => "is NOT back",
    };
    format!("{label} {how}, {until}; its original value is {}", describe::original(&one.obligation))
}

/// Somebody else's value is there. Nobody but a person can say which one is right.
fn not_back(facts: &Facts<'_>, obligation: &Obligation, present: &str, lines: &mut Vec<String>) {
    let text = format!(
        "{} was changed by somebody else to {} and was left alone; its original value was {}",
        obligation.label,
        describe::one_line(present),
        describe::original(obligation)
    );
    row(facts, lines, "NOT BACK", &loud(&text));
    by_hand_line(facts, obligation, "if the original is the right one,", lines);
}

/// What a person can type to put it back, or to end that.
fn by_hand_line(facts: &Facts<'_>, obligation: &Obligation, when: &str, lines: &mut Vec<String>) {
    if let Some(command) = by_hand(facts.plan, obligation) {
        let then = if command.puts_back { "this puts it back:" } else { "put it there, then" };
        // Never broken, so that it can be copied.
        lines.push(format!("{:12}{when} {then}  {}", "", command.line));
    }
}

/// What ends a release by hand, with the inputs in their places; as the runbook has it where it needs more than those.
fn by_hand(plan: &Plan, obligation: &Obligation) -> Option<ByHand> {
    let with = &plan.step(&obligation.step)?.with;
    let name =
        ["/kubernetes/connection", "/http/connection"].iter().find_map(|at| with.pointer(at)?.as_str());
    let connection = name.and_then(|name| plan.connections.get(name)).unwrap_or(&Value::Null);
    freeze::by_hand(with, connection, obligation)
}
