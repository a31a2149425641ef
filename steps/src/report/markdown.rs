//! The report as Markdown, to be read at night: the verdict, the counts, what to do; then the rest.

use std::fmt::Write as _;

use runbook_engine::state::StepStatus;
use serde_json::Value;

use super::Section;
use super::facts::{Facts, StepFacts};
use super::shown::{length, line, short, time};

/// Writes one section.
type Write = fn(&mut String, &Facts);

/// The whole report.
pub(super) fn render(facts: &Facts, include: Option<&[Section]>) -> String {
    let mut out = String::new();
    header(&mut out, facts);
    if !facts.reasons.is_empty() {
        what_to_do(&mut out, facts);
    }
    let sections: [(Section, Write); 8] = [
        (Section::Findings, findings),
        (Section::Destroyed, destroyed),
        (Section::Held, held),
        (Section::Steps, steps),
        (Section::Answers, answers),
        (Section::Outputs, outputs),
        (Section::Inputs, inputs),
        (Section::Notes, notes),
    ];
    for (section, write) in sections {
        if include.is_none_or(|wanted| wanted.contains(&section)) {
            write(&mut out, facts);
        }
    }
    out
}

/// A text in a table or a list: on one line, without what Markdown would take for its own. What stands between two backticks is code, and can be
/// copied as it is.
fn cell(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // The last of an odd number of backticks is one by itself.
    let paired = (parts.len() - 1) / 2 * 2;
    let mut out = String::with_capacity(text.len());
    for (at, part) in parts.iter().enumerate() {
        match part {
            part if at % 2 == 1 && at < paired && !part.trim().is_empty() => out.push_str(&code(part)),
            part if at > paired => out.push_str(&plain(&format!("`{part}"))),
            part => out.push_str(&plain(part)),
        }
    }
    out
}

/// A text without what Markdown would take for its own.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Inside a word it is nothing but itself, and a name must be readable as it is.
            '_' if out.ends_with(|before: char| before.is_alphanumeric() || before == '_') => out.push(c),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A text as code, which shows it exactly.
fn code(text: &str) -> String {
    let line = short(text, usize::MAX).replace('|', "\\|");
    let fence = "`".repeat(if line.contains('`') { 2 } else { 1 });
    let space = if line.starts_with('`') || line.ends_with('`') { " " } else { "" };
    if line.is_empty() { "(empty)".to_owned() } else { format!("{fence}{space}{line}{space}{fence}") }
}

fn row(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn table(out: &mut String, heads: &[&str]) {
    row(out, &heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>());
    row(out, &heads.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
}

fn heading(out: &mut String, text: &str) {
    let _ = write!(out, "\n## {text}\n\n");
}

fn header(out: &mut String, facts: &Facts) {
    let _ = write!(out, "# {}: {}\n\n", cell(&facts.title), facts.verdict);
    if !facts.description.is_empty() {
        let _ = write!(out, "{}\n\n", cell(&facts.description));
    }
    table(out, &["", ""]);
    let mut fact = |name: &str, value: String| row(out, &[name.to_owned(), value]);
    let counts = &facts.counts;
    fact("Verdict", format!("**{}**", facts.verdict));
    let mut steps = format!("{} succeeded", counts.succeeded);
    for (count, word) in [(counts.failed, "failed"), (counts.skipped, "skipped"), (counts.not_run, "not run")]
    {
        if count > 0 {
            let _ = write!(steps, ", **{count} {word}**");
        }
    }
    fact("Steps", format!("{steps}, of {}", counts.steps));
    if facts.destroying().next().is_some() {
        fact(
            "Destroyed",
            format!("**{}** items, {} were gone already", counts.destroyed, counts.already_gone),
        );
    }
    if counts.failed_items > 0 {
        fact("Failed items", format!("**{}**", counts.failed_items));
    }
    for held in &facts.held {
        fact("Held", format!("{} for {}: {}", cell(&held.label), length(held.held_ms), cell(&held.how)));
    }
    let from = facts.started_at.unwrap_or(facts.created_at);
    fact("Time", format!("{} to {} ({})", time(from), time(facts.reported_at), length(facts.took_ms)));
    fact("Run", format!("{} of {}", code(&facts.run), code(&facts.runbook)));
    fact("Asked for by", format!("{}, {}", cell(&facts.by), time(facts.created_at)));
    if let Some(plan) = &facts.plan {
        let (by, seen) = (cell(&plan.made_by), cell(&plan.seen_by));
        fact(
            "With the plan",
            format!("{}, made by {by}, {}; seen by {seen}", code(&plan.id), time(plan.made_at)),
        );
    }
    if facts.claims > 1 {
        fact("Processes", format!("{}: it was taken up again after a stop or a crash", facts.claims));
    }
    fact("Definition", format!("SHA-256 {}", code(&facts.definition)));
}

fn what_to_do(out: &mut String, facts: &Facts) {
    heading(out, "What to do now");
    let reasons: Vec<String> = facts.reasons.iter().map(|reason| cell(reason)).collect();
    let _ = writeln!(out, "It is no PASS because {}.\n", reasons.join("; "));
    for step in facts.steps.iter().filter(|step| step.status == StepStatus::Failed) {
        let Some(error) = &step.error else { continue };
        let _ = writeln!(out, "- **Failed**: {}: {}", cell(&step.label()), cell(&error.message));
        for cause in &error.causes {
            let _ = writeln!(out, "  - because {}", cell(cause));
        }
        if let Some(help) = &error.help {
            let _ = writeln!(out, "  - {}", cell(help));
        }
    }
    let named = |wanted: fn(&StepFacts) -> bool| {
        let names: Vec<String> =
            facts.steps.iter().filter(|step| wanted(step)).map(|step| code(&step.id)).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let _ = writeln!(out, "- **Done**: {}", named(|step| step.status == StepStatus::Succeeded));
    let _ = writeln!(out, "- **Not done**: {}", named(|step| step.status == StepStatus::Pending));
    let _ = write!(out, "\nWhat to type next:\n\n");
    for (command, what) in &facts.next {
        let _ = writeln!(out, "- {}: {}", code(command), cell(what));
    }
}

fn findings(out: &mut String, facts: &Facts) {
    heading(out, "Failures and discrepancies");
    if facts.findings.is_empty() {
        out.push_str("None.\n");
    }
    for finding in &facts.findings {
        let _ = writeln!(out, "- {}", cell(finding));
    }
}

fn destroyed(out: &mut String, facts: &Facts) {
    if facts.destroying().next().is_none() {
        return;
    }
    heading(out, "Destroyed");
    table(out, &["Step", "Destroyed", "Gone already", "Failed", "In detail"]);
    for step in facts.destroying() {
        let detail: Vec<String> = step
            .outputs
            .iter()
            .filter(|(_, value)| value.is_number())
            .map(|(name, value)| format!("{} {value}", cell(name)))
            .collect();
        let number = |count: u64| count.to_string();
        let cells = [number(step.done), number(step.already), number(step.failed), detail.join(", ")];
        row(out, &[vec![cell(&step.label())], cells.to_vec()].concat());
    }
}

fn held(out: &mut String, facts: &Facts) {
    if facts.held.is_empty() {
        return;
    }
    heading(out, "Held and put back");
    table(out, &["What", "Original", "Held at", "From", "For", "How it ended"]);
    for one in &facts.held {
        row(
            out,
            &[
                cell(&one.label),
                code(&line(&one.original)),
                code(&line(&one.replacement)),
                time(one.opened_at),
                length(one.held_ms),
                cell(&one.how),
            ],
        );
    }
}

fn steps(out: &mut String, facts: &Facts) {
    heading(out, "Steps");
    table(out, &["Step", "Kind", "Status", "Attempts", "Started", "Took"]);
    for step in &facts.steps {
        let none = || "-".to_owned();
        row(
            out,
            &[
                cell(&step.label()),
                cell(&step.uses),
                status(step.status).to_owned(),
                step.attempts.to_string(),
                step.first_started_at.map_or_else(none, time),
                step.took_ms.map_or_else(none, length),
            ],
        );
    }
}

fn status(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending => "not run",
        StepStatus::Running => "running",
        StepStatus::Asking => "waits for an answer",
        StepStatus::Answered => "answered",
        StepStatus::Interrupted => "interrupted",
        StepStatus::Succeeded => "succeeded",
        StepStatus::Failed => "**failed**",
        StepStatus::Skipped => "skipped",
    }
}

fn answers(out: &mut String, facts: &Facts) {
    if facts.answers.is_empty() {
        return;
    }
    heading(out, "Answers");
    table(out, &["Step", "Answer", "By", "At"]);
    for answer in &facts.answers {
        row(out, &[cell(&answer.step), code(&short(&answer.text, 200)), cell(&answer.by), time(answer.at)]);
    }
}

fn outputs(out: &mut String, facts: &Facts) {
    heading(out, "Outputs");
    table(out, &["Step", "Output", "Value"]);
    for step in &facts.steps {
        for (name, value) in &step.outputs {
            row(out, &[cell(&step.id), cell(name), cell(&line(value))]);
        }
    }
}

fn inputs(out: &mut String, facts: &Facts) {
    if facts.inputs.is_empty() {
        return;
    }
    heading(out, "Inputs");
    table(out, &["Input", "Value"]);
    for (name, value) in &facts.inputs {
        row(out, &[cell(name), code(&line(value))]);
    }
}

fn notes(out: &mut String, facts: &Facts) {
    if facts.notes.is_empty() {
        return;
    }
    heading(out, "Notes");
    for (label, value) in &facts.notes {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(out, "- **{}**: {}", cell(label), cell(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_can_not_break_the_table() {
        assert_eq!(cell("a|b\nc <x> *y*"), r"a\|b c &lt;x> \*y\*");
        assert_eq!(code("a|b`c"), r"``a\|b`c``");
        assert_eq!(cell("type `sh /a_b/*.sh`, or `x_*"), r"type `sh /a_b/*.sh`, or \`x_\*");
        assert_eq!(cell("*a* `one` and `two`"), r"\*a\* `one` and `two`");
        assert_eq!(code(""), "(empty)");
    }
}
