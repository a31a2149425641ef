//! Shows an author's mistakes: the place, the line, a caret, what to write instead.

pub mod formats;
mod lines;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use runbook_engine::diagnostic::{Diagnostic, Severity};

use crate::find::Source;
use crate::format;
use crate::report::describe::wrap;
use lines::Lines;

/// The most that are shown to a person at one time.
const MAX_SHOWN: usize = 100;

/// Whether any of them keeps the runbook from running.
pub fn fatal(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|one| one.severity == Severity::Error)
}

/// Prints all of them on stderr, and how many there are.
pub fn print(source: &Source, diagnostics: &[Diagnostic]) {
    // Errors first, when there are more than anybody reads.
    let mut shown: Vec<&Diagnostic> = diagnostics.iter().collect();
    if shown.len() > MAX_SHOWN {
        shown.sort_by_key(|one| std::cmp::Reverse(one.severity));
        shown.truncate(MAX_SHOWN);
    }
    let lines = Lines::of(&source.text);
    for one in &shown {
        eprintln!("{}\n", render(source, &lines, one, format::colours()));
    }
    if shown.len() < diagnostics.len() {
        let more = diagnostics.len() - shown.len();
        eprintln!("{}: {more} more are not shown; `runbook check --json` lists them all", source.name);
    }
    let count = |severity| diagnostics.iter().filter(|one| one.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if errors + warnings > 0 {
        eprintln!("{}: {}, {}", source.name, number(errors, "error"), number(warnings, "warning"));
    }
}

fn number(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn render(source: &Source, lines: &Lines<'_>, one: &Diagnostic, colours: bool) -> String {
    let level = match one.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let spans = || std::iter::once(&one.span).chain(one.labels.iter().map(|label| &label.span));
    let (first, shown) = lines.around(spans().map(|span| lines.within(span)));
    let bound = |span: &std::ops::Range<usize>| {
        let span = lines.within(span);
        span.start - shown.start..span.end - shown.start
    };
    let mut snippet = Snippet::source(&source.text[shown.clone()])
        .line_start(first)
        .path(source.name.as_str())
        .annotation(AnnotationKind::Primary.span(bound(&one.span)).label(one.label.as_str()));
    for label in &one.labels {
        snippet =
            snippet.annotation(AnnotationKind::Context.span(bound(&label.span)).label(label.text.as_str()));
    }
    let width = format::width().unwrap_or(WIDTH);
    let title = broken(&one.message, width.saturating_sub("warning[RB0000]: ".len()));
    let help = one.help.as_deref().map(|help| broken(help, width.saturating_sub(12)));
    let mut group = level.primary_title(title.as_str()).id(one.code).element(snippet);
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(width).render(&[group])
}

/// As wide as a line of a diagnostic is shown where nobody says how wide the terminal is.
const WIDTH: usize = 140;

/// Text in lines as wide as the terminal; as it is where there is none.
fn broken(text: &str, width: usize) -> String {
    if format::width().is_none() {
        return text.to_owned();
    }
    let lines: Vec<String> = text.lines().flat_map(|line| wrap(line, width)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_place_the_caret_and_the_help() {
        let text = "runbook: a\nsteps:\n  - id: é\n    needs: [snapshott]\n".to_owned();
        let at = text.find("snapshott").unwrap();
        let source = Source { path: "a.yaml".into(), name: "a.yaml".to_owned(), text, broken: None };
        let one = Diagnostic::error("RB0102", at..at + 9, "unknown step `snapshott`")
            .label("no step has this id")
            .help("did you mean `snapshot`?");
        let shown = render(&source, &Lines::of(&source.text), &one, false);
        assert!(shown.contains("error[RB0102]: unknown step `snapshott`"), "{shown}");
        assert!(shown.contains("a.yaml:4:13"), "{shown}");
        assert!(shown.contains("^^^^^^^^^ no step has this id"), "{shown}");
        assert!(shown.contains("did you mean `snapshot`?"), "{shown}");
    }

    #[test]
    fn a_span_outside_the_text_is_shown_at_its_end() {
        let source =
            Source { path: "a.yaml".into(), name: "a.yaml".to_owned(), text: "é".to_owned(), broken: None };
        let one = Diagnostic::warning("RB0001", 1..90, "odd");
        let shown = render(&source, &Lines::of(&source.text), &one, false);
        assert!(shown.contains("warning[RB0001]: odd"), "{shown}");
    }
}
