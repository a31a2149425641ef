//! What to type next.

use console::{Style, measure_text_width};
use runbook_engine::event::Question;

use super::{Facts, INDENT, asking, describe, row};
use crate::format;

/// The commands that fit how the run stands; none when it has ended for good.
pub(super) fn rows(facts: &Facts<'_>, lines: &mut Vec<String>) {
    let (state, run) = (facts.state, facts.run);
    if state.status.is_final() {
        return;
    }
    if facts.owned {
        commands(facts, lines, &[(format!("runbook logs {run} -f"), "watch it")]);
        return;
    }
    let held = state.open_obligations().next().is_some();
    let cancel =
        (format!("runbook cancel {run}"), if held { "put everything back, and end it" } else { "end it" });
    let mut next = Vec::new();
    for (step, question) in asking(facts) {
        let answer = match question {
            Question::Phrase { phrase, .. } => format!("'{}'", phrase.replace('\'', r"'\''")),
            Question::Settle { .. } => "done|retry|abort".to_owned(),
        };
        row(facts, lines, "Asks", &format!("{step}: {}", describe::question_line(question)));
        next.push((format!("runbook answer {run} {step} {answer}"), ""));
    }
    if state.cancel.is_some() {
        // Who asked for the end does not go on.
        next.push(cancel);
        next.extend(by_hand(facts));
        next.push((format!("runbook show {run}"), "look at it"));
    } else {
        next.extend(by_hand(facts));
        next.push((format!("runbook resume {run}"), "go on from where it stands"));
        next.push(cancel);
    }
    commands(facts, lines, &next);
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
