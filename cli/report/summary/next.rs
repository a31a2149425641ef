//! What to type next.

use console::{Style, measure_text_width};
use runbook_engine::error::ErrorKind;
use runbook_engine::event::Question;
use runbook_engine::shell::quoted;
use runbook_engine::state::StepStatus;

use super::{Facts, INDENT, asking, describe, row};
use crate::confirm::bounded;
use crate::format;
use crate::reviewed;

/// The commands that fit how the run stands; none when it has ended for good.
pub(super) fn rows(facts: &Facts<'_>, lines: &mut Vec<String>) {
    let (state, run) = (facts.state, facts.run);
    if state.status.is_final() {
        return;
    }
    if let Some(stalled) = &facts.stalled {
        let mut ways = stalled.ways();
        let word = if state.cancel.is_some() { "cancel" } else { "resume" };
        ways.push((format!("runbook {word} {run}"), "once that process has ended"));
        commands(facts, lines, &ways);
        return;
    }
    if facts.owned {
        commands(facts, lines, &[(format!("runbook logs {run} -f"), "watch it")]);
        return;
    }
    let held = state.open_obligations().next().is_some();
    let cancel = (
        format!("runbook cancel {run}"),
        if held { "put back what is held, and end it; what is done stays done" } else { "end it" },
    );
    let mut next = Vec::new();
    for (step, question) in asking(facts) {
        row(facts, lines, "Asks", &format!("{step}: {}", describe::open_question_line(question, facts.now)));
        // What a person has to look at before the answer.
        for (name, value) in bounded(question, facts.plan.bounds().as_ref()).facts() {
            row(facts, lines, "", &format!("{name}: {}", describe::one_line(value)));
        }
        let answer = |text: &str| format!("runbook answer {run} {step} {text}");
        match question {
            Question::Phrase { terminal: true, .. } => {
                next.push((format!("runbook answer {run} {step}"), "type it at a terminal"));
            }
            Question::Phrase { phrase, .. } => {
                next.push((answer(&format!("'{}'", phrase.replace('\'', r"'\''"))), ""));
            }
            // A line for each, because a shell takes `a|b` for two commands.
            other => next.extend(other.words().iter().map(|(word, meaning)| (answer(word), *meaning))),
        }
    }
    if state.cancel.is_some() {
        // Who asked for the end does not go on.
        if state.is_untidy() {
            next.push((format!("runbook cancel {run}"), "try again, once what is said above is mended"));
            next.push((format!("runbook cancel {run} --abandon"), "end it, and leave that as it is"));
        } else {
            next.push(cancel);
        }
        next.extend(by_hand(facts));
        next.push((format!("runbook show {run}"), "look at it"));
    } else {
        if failed_with(facts, ErrorKind::Limit) {
            next.extend(by_hand(facts));
            let text = format!(
                "what the run has used stays counted, so a resume ends at the same limit: raise it in {}, and start anew",
                facts.source
            );
            row(facts, lines, "Limit", &text);
            next.push(cancel);
            next.push((format!("runbook exec {}", quoted(facts.source)), "anew, once the limit is raised"));
        } else if failed_with(facts, ErrorKind::Drift) {
            next.extend(by_hand(facts));
            let anew = reviewed::planning_again(facts.source, facts.plan, "plan.json");
            next.push((anew, "make a new plan, to be reviewed"));
            // What is held would be found as it is now.
            next.insert(if held { next.len() - 1 } else { next.len() }, cancel);
            next.push((format!("runbook resume {run}"), "go on, once what differs is as it was"));
        } else {
            next.push((format!("runbook resume {run}"), "go on from where it stands"));
            next.push(cancel);
            next.extend(by_hand(facts));
        }
    }
    commands(facts, lines, &next);
}

/// Whether it failed for something that going on does not help by itself: what is not as the reviewed plan says, or a limit.
fn failed_with(facts: &Facts<'_>, kind: ErrorKind) -> bool {
    let failed = facts.state.steps.values().filter(|step| step.status == StepStatus::Failed);
    failed.filter_map(|step| step.error.as_ref()).chain(&facts.state.error).any(|error| error.kind == kind)
}

/// What a person says who has put back what the run could not.
fn by_hand(facts: &Facts<'_>) -> Vec<(String, &'static str)> {
    let stuck = facts.state.open_obligations().filter(|(_, one)| one.stuck.is_some());
    stuck
        .map(|(_, one)| {
            let answer = format!("runbook answer {} {} done", facts.run, one.obligation.step);
            (answer, "say that you have put it back by hand")
        })
        .collect()
}

/// One command a line, never broken so that it can be copied; what they do only where there is room for all.
fn commands(facts: &Facts<'_>, lines: &mut Vec<String>, commands: &[(String, &str)]) {
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let longest = commands.iter().map(|(_, about)| measure_text_width(about)).max().unwrap_or(0);
    let room = facts.width.is_none_or(|columns| INDENT + width + 3 + longest < columns);
    for (at, (command, about)) in commands.iter().enumerate() {
        let label = format!("{:<9}", if at == 0 { "Next" } else { "" });
        let label = format::paint(Style::new().bold(), &label);
        let about = if room { about } else { "" };
        lines.push(format!("  {label} {command:<width$}   {about}").trim_end().to_owned());
    }
}
