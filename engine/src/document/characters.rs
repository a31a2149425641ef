//! Characters that make a text mean something else than what its reader sees.

use std::ops::Range;

use crate::check::codes;
use crate::diagnostic::Diagnostic;

/// The most that are told one by one.
const MAX_TOLD: usize = 20;

/// Every hidden character of a text, comments included.
pub(super) fn hidden(text: &str) -> Vec<Diagnostic> {
    let mut before = None;
    let mut found = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let after = characters.peek().map(|(_, next)| *next);
        // The mark at the very beginning only says that this is UTF-8.
        let mark = at == 0 && character == '\u{feff}';
        if let Some(why) = why(character, before, after).filter(|_| !mark) {
            found.push(problem(at..at + character.len_utf8(), character, why));
            if found.len() == MAX_TOLD {
                break;
            }
        }
        before = Some(character);
    }
    found
}

fn why(character: char, before: Option<char>, after: Option<char>) -> Option<&'static str> {
    match character {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => {
            Some("turns the direction of writing, so that this line is shown otherwise than it is")
        }
        // Scripts and pictures that need a joiner have letters beyond ASCII beside it.
        '\u{200c}' | '\u{200d}' => {
            let joins = |beside: Option<char>| beside.is_some_and(|c| !c.is_ascii() && !c.is_whitespace());
            (!joins(before) || !joins(after)).then_some("has no width and joins nothing here")
        }
        '\u{200b}'
        | '\u{2060}'..='\u{2064}'
        | '\u{feff}'
        | '\u{ad}'
        | '\u{180e}'
        | '\u{e0000}'..='\u{e007f}' => Some("has no width, so that nobody sees it"),
        _ => None,
    }
}

fn problem(span: Range<usize>, character: char, why: &str) -> Diagnostic {
    let code = u32::from(character);
    Diagnostic::error(codes::CHARACTER, span, format!("the character U+{code:04X} {why}"))
        .label("here")
        .help("take it away; where it is really meant, write its escape in double quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_told_and_what_joins_is_not() {
        let told = |text: &str| hidden(text).len();
        assert_eq!(told("a\u{202e}b # \u{2066}"), 2);
        assert_eq!(told("\u{feff}a: b"), 0);
        assert_eq!(told("a\u{feff}b"), 1);
        assert_eq!(told("lo\u{200d}ok"), 1);
        assert_eq!(told("\u{1f468}\u{200d}\u{1f4bb} \u{645}\u{6cc}\u{200c}\u{62e}"), 0);
        assert_eq!(told(&"\u{200b}".repeat(90)), MAX_TOLD);
    }
}
