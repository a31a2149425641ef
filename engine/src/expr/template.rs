//! Finds the `${{ … }}` in a text. Nothing else in it means anything: `{% %}`, `{# #}` and `{{ }}` stay as they are.

use std::ops::Range;

/// What opens an expression.
pub const OPEN: &str = "${{";
/// What closes it.
pub const CLOSE: &str = "}}";

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Text that stands for itself.
    Plain(&'a str),
    /// The source between `${{` and `}}`, blanks included, and the byte at which it begins in the text.
    Expr(&'a str, usize),
}

/// An expression that is opened and never closed: the bytes from `${{` to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclosed(pub Range<usize>);

/// Whether the text holds an expression.
pub fn is_template(text: &str) -> bool {
    text.contains(OPEN)
}

/// The pieces of a text in their order; empty for an empty text.
pub fn split(text: &str) -> Result<Vec<Part<'_>>, Unclosed> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(OPEN) {
        let open = at + found;
        if open > at {
            parts.push(Part::Plain(&text[at..open]));
        }
        let start = open + OPEN.len();
        let end = close(text, start).ok_or(Unclosed(open..text.len()))?;
        parts.push(Part::Expr(&text[start..end], start));
        at = end + CLOSE.len();
    }
    if at < text.len() {
        parts.push(Part::Plain(&text[at..]));
    }
    Ok(parts)
}

/// The source of a text that is exactly one expression, with the byte at which it begins.
pub fn whole(text: &str) -> Option<(&str, usize)> {
    match split(text).ok()?.as_slice() {
        [Part::Expr(source, start)] => Some((source, *start)),
        _ => None,
    }
}

/// Where the `}}` of the expression that begins at `start` is: not in a string, not the end of a map in it.
fn close(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut quote) = (start, 0_usize, None);
    while let Some(&byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_expressions_only() {
        assert_eq!(
            split("a ${{ x }}{{ y }}{% z %}${{w}}").unwrap(),
            [Part::Plain("a "), Part::Expr(" x ", 5), Part::Plain("{{ y }}{% z %}"), Part::Expr("w", 27)]
        );
        assert_eq!(split("").unwrap(), []);
    }

    #[test]
    fn the_end_is_not_in_a_string_nor_in_a_map() {
        assert_eq!(whole("${{ '}}' }}"), Some((" '}}' ", 3)));
        assert_eq!(whole(r#"${{ "\"}}" }}"#), Some((r#" "\"}}" "#, 3)));
        assert_eq!(whole("${{ {'a': {'b': 1}} }}"), Some((" {'a': {'b': 1}} ", 3)));
        assert_eq!(whole("${{ a }} "), None);
        assert_eq!(split("x ${{ a }"), Err(Unclosed(2..9)));
    }
}
