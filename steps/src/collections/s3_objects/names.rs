//! Names of objects that XML can not hold. A store writes U+FFFD in place of each such character, unless it is asked to write names as in a URL; and
//! not every store writes them so in the same way, so that the two listings are held against each other.

use runbook_engine::error::StepError;

/// What stands for a character that can not be told.
const REPLACEMENT: char = '\u{fffd}';

/// Whether a name may be another one than it looks.
pub(super) fn is_mangled(name: &str) -> bool {
    name.contains(REPLACEMENT)
}

/// Whether XML can hold a name, in a request as in an answer.
pub(super) fn fits_into_xml(name: &str) -> bool {
    name.chars().all(|c| as_in_xml(c) == c)
}

/// The names of a page, from what a listing says of them plainly and encoded.
pub(super) fn true_names(plain: &[String], encoded: &[String]) -> Result<Vec<String>, StepError> {
    if plain.len() != encoded.len() {
        return Err(changed());
    }
    plain.iter().zip(encoded).map(|(plain, encoded)| true_name(plain, encoded)).collect()
}

/// Where a listing goes on, from what it says of that plainly. A store that gives the last name of the page for it means the true one.
pub(super) fn goes_on(plain: Option<&str>, names: &[String]) -> Result<Option<String>, StepError> {
    let Some(plain) = plain.filter(|plain| is_mangled(plain)) else { return Ok(plain.map(str::to_owned)) };
    let last = names.iter().rev().find(|name| name.chars().map(as_in_xml).eq(plain.chars()));
    last.cloned().map(Some).ok_or_else(|| {
        StepError::refused(
            "the listing goes on at a name with a character that XML can not hold, and does not tell which",
        )
    })
}

fn true_name(plain: &str, encoded: &str) -> Result<String, StepError> {
    if is_mangled(encoded) {
        return Err(StepError::refused(format!(
            "the name `{plain}` in the listing holds a character that XML can not, and the store does not encode it: the object can not be told"
        )));
    }
    // A plus is a space to some stores, and a plus to others.
    let spaces = encoded.replace('+', "%20");
    let decoded =
        [&spaces, encoded].map(|text| percent_encoding::percent_decode_str(text).decode_utf8().ok());
    let same = |name: &str| name.chars().map(as_in_xml).eq(plain.chars());
    let found = decoded.into_iter().flatten().find(|name| same(name)).map(std::borrow::Cow::into_owned);
    found.ok_or_else(changed)
}

/// What is left of a character in XML.
fn as_in_xml(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'.. => c,
        _ => REPLACEMENT,
    }
}

fn changed() -> StepError {
    StepError::transient("the listing changed while its names were asked for in another form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_whatever_a_plus_is_to_the_store() {
        for (plain, encoded, name) in [
            ("a\u{fffd}b", "a%01b", Some("a\u{1}b")),
            ("a\u{fffd}b c+d", "a%01b+c%2Bd", Some("a\u{1}b c+d")),
            ("a\u{fffd}b c+d", "a%01b%20c+d", Some("a\u{1}b c+d")),
            ("a\u{fffd}b", "a%EF%BF%BDb", Some("a\u{fffd}b")),
            ("é/a%2Fb", "%C3%A9/a%252Fb", Some("é/a%2Fb")),
            ("plain", "plain", Some("plain")),
            ("a\u{fffd}b", "other", None),
            ("a\u{fffd}b", "a%FFb", None),
            ("a\u{fffd}b", "a\u{fffd}b", None),
        ] {
            assert_eq!(true_name(plain, encoded).ok().as_deref(), name, "{plain}");
        }
        assert!(true_names(&["a".to_owned()], &[]).is_err());
        let names = ["a\u{1}".to_owned(), "a\u{2}".to_owned()];
        assert_eq!(goes_on(Some("a\u{fffd}"), &names).unwrap().as_deref(), Some("a\u{2}"));
        assert!(goes_on(Some("b\u{fffd}"), &names).is_err());
        assert_eq!(goes_on(Some("t=="), &names).unwrap().as_deref(), Some("t=="));
    }
}
