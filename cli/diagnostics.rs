//! Shows an author's mistakes: the place, the line, a caret, what to write instead.

pub mod formats;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use runbook_engine::diagnostic::{Diagnostic, Severity};

use crate::find::Source;
use crate::format;

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
    for one in &shown {
        eprintln!("{}\n", render(source, one, format::colours()));
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

fn render(source: &Source, one: &Diagnostic, colours: bool) -> String {
    let level = match one.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let bound = |span: &std::ops::Range<usize>| within(&source.text, span);
    let mut snippet = Snippet::source(source.text.as_str())
        .path(source.name.as_str())
        .annotation(AnnotationKind::Primary.span(bound(&one.span)).label(one.label.as_str()));
    for label in &one.labels {
        snippet =
            snippet.annotation(AnnotationKind::Context.span(bound(&label.span)).label(label.text.as_str()));
    }
    let mut group = level.primary_title(one.message.as_str()).id(one.code).element(snippet);
    if let Some(help) = &one.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// A span that the text has, on character boundaries.
fn within(text: &str, span: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// The line and the column, both from 1, of a byte in the text; columns count characters.
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..within(text, &(at..at)).start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
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
        let shown = render(&source, &one, false);
        assert!(shown.contains("error[RB0102]: unknown step `snapshott`"), "{shown}");
        assert!(shown.contains("a.yaml:4:13"), "{shown}");
        assert!(shown.contains("^^^^^^^^^ no step has this id"), "{shown}");
        assert!(shown.contains("did you mean `snapshot`?"), "{shown}");
        assert_eq!(position(&source.text, at), (4, 13));
    }

    #[test]
    fn a_span_outside_the_text_is_shown_at_its_end() {
        let source =
            Source { path: "a.yaml".into(), name: "a.yaml".to_owned(), text: "é".to_owned(), broken: None };
        let shown = render(&source, &Diagnostic::warning("RB0001", 1..90, "odd"), false);
        assert!(shown.contains("warning[RB0001]: odd"), "{shown}");
    }
}
