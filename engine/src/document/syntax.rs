//! What is wrong with a text that is no YAML, as its author would say it.

use std::ops::Range;

use crate::check::codes;
use crate::diagnostic::Diagnostic;

/// The mistake at which reading stopped. The parser says where it could not go on; the cause is looked for in that line and the one
/// before.
pub(super) fn problem(text: &str, span: Range<usize>, why: &str) -> Diagnostic {
    let at = line_start(text, span.start);
    let line = line(text, at);
    let before = text[..at].trim_end();
    let previous_at = line_start(text, before.len());
    let previous = self::line(text, previous_at);
    let error = |span: Range<usize>, why: &str| {
        Diagnostic::error(codes::SYNTAX, span, format!("this is no YAML: {why}"))
    };
    for (at, line) in
        [(at, line), (at + line.len() + 1, self::line(text, at + line.len() + 1)), (previous_at, previous)]
    {
        let blank = line.len() - line.trim_start().len();
        if let Some((tab, odd)) = line[..blank].char_indices().find(|(_, c)| *c != ' ') {
            let (what, help) = match odd {
                '\t' => ("a tab", "indent with blanks; YAML allows no tabs there"),
                _ => ("a blank of another kind", "delete it and type a plain blank"),
            };
            let span = at + tab..at + tab + odd.len_utf8();
            return error(span, &format!("the line is indented with {what}")).help(help);
        }
    }
    let diagnostic = error(span.clone(), why);
    if why.contains("quoted scalar") {
        // The quote that was opened is what a person looks for.
        if let Some(open) = open_quote(text, span.start) {
            return error(open..open + 1, why)
                .label("this quote is not closed")
                .also(span, "reading stopped here")
                .help("close the quote at the end of the value");
        }
    }
    if line.contains("${{") {
        return diagnostic.help("put quotes around a value with `${{ }}` in it when it stands in `{ }` or `[ ]` or holds `: ` or ` #`");
    }
    if why.contains("mapping values are not allowed") {
        let content = line.trim_start().trim_start_matches("- ");
        let second =
            content.find(": ").is_some_and(|colon| span.start > at + (line.len() - content.len()) + colon);
        return if second {
            diagnostic.help("put quotes around a value with `: ` in it")
        } else {
            diagnostic.help("this line is indented deeper than the one above, which has its value already")
        };
    }
    if why.contains("did not find expected") || why.contains("block") {
        return diagnostic.help("the lines of one map or list begin in the same column");
    }
    diagnostic
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |at| at + 1)
}

fn line(text: &str, start: usize) -> &str {
    text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default()
}

/// The last quote before a place that begins a value and is not closed on its line.
fn open_quote(text: &str, at: usize) -> Option<usize> {
    let mut end = at;
    while end > 0 {
        let start = line_start(text, end - 1);
        let line = text[start..end].trim_end();
        for quote in ['"', '\''] {
            if line.matches(quote).count() % 2 == 1 {
                return line.rfind(quote).map(|at| start + at);
            }
        }
        end = start;
    }
    None
}
