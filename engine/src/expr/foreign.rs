//! Operators of other languages in an expression that can not be read, and what is written instead.

use std::ops::Range;

/// Such an operator: its spelling, and what to say.
const OPERATORS: &[(&str, &str)] = &[
    ("===", "write `==`"),
    ("!==", "write `!=`"),
    ("&&", "write `and`"),
    ("||", "write `or`"),
    ("??", "write `value | default(other)`"),
    ("=~", "there are no regular expressions here: give the input a `pattern`"),
];

/// The first operator that is another language's, outside of quotes: its bytes, what is wrong and what to write.
pub(super) fn find(source: &str) -> Option<(Range<usize>, String, &'static str)> {
    let bytes = source.as_bytes();
    let (mut at, mut quote) = (0, None);
    while let Some(&byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, _) => {
                if let Some((operator, help)) = here(source.get(at..).unwrap_or_default(), &source[..at]) {
                    let message = format!("`{operator}` is no operator here");
                    return Some((at..at + operator.len(), message, help));
                }
            }
        }
        at += source.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
    }
    None
}

/// A duration that is written without quotes: its bytes.
pub(super) fn duration(source: &str) -> Option<Range<usize>> {
    let starts = |at: usize| {
        !source[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '\'' | '"'))
    };
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    source.char_indices().filter(|(at, first)| first.is_ascii_digit() && starts(*at)).find_map(|(at, _)| {
        let rest = &source[at..];
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        word.parse::<crate::duration::Duration>().is_ok().then(|| at..at + word.len())
    })
}

fn here<'t>(rest: &'t str, before: &str) -> Option<(&'t str, &'static str)> {
    if let Some((operator, help)) = OPERATORS.iter().find(|(operator, _)| rest.starts_with(operator)) {
        return Some((&rest[..operator.len()], help));
    }
    let mut after = rest.chars();
    match (after.next()?, after.next()) {
        ('!', next) if next != Some('=') => Some((&rest[..1], "write `not`")),
        ('?', _) => Some((&rest[..1], "write `this if condition else that`")),
        // A name before it within brackets is an argument, as in `round(precision=1)`.
        ('=', next)
            if next != Some('=') && !before.ends_with(['=', '!', '<', '>']) && !before.contains('(') =>
        {
            Some((&rest[..1], "write `==`"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_without_quotes_are_known() {
        let found = |source: &str| duration(source).map(|range| source[range].to_owned());
        assert_eq!(found("a > 24h").as_deref(), Some("24h"));
        assert_eq!(found("1h30m + 2").as_deref(), Some("1h30m"));
        assert_eq!(found("a1h + 2 '24h' x.5m 7 hours"), None);
    }

    #[test]
    fn operators_of_other_languages_are_known_outside_of_quotes() {
        let found = |source: &str| find(source).map(|(range, ..)| source[range].to_owned());
        for (source, operator) in [
            ("a && b", Some("&&")),
            ("a == '&&' || b", Some("||")),
            ("!a", Some("!")),
            ("a ? b : c", Some("?")),
            ("a === b", Some("===")),
            ("a = b", Some("=")),
            ("a == b and c != d", None),
            ("a >= b and c <= d", None),
            ("'a && b' in c", None),
            ("a | round(precision=1) +", None),
        ] {
            assert_eq!(found(source).as_deref(), operator, "{source}");
        }
    }
}
