//! Values of a query, as texts of PromQL.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::error::StepError;

use crate::text::Text;

/// The query with `$NAME` replaced by the value of that name, quoted. What stands in quotes in the query is left as it is.
pub(super) fn bind(query: &str, values: &BTreeMap<String, Text>) -> Result<String, StepError> {
    let mut bound = String::with_capacity(query.len());
    let mut used = BTreeSet::new();
    let mut quote = None;
    let mut rest = query.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', Some('"' | '\'')) => {
                bound.push(c);
                bound.extend(rest.next());
                continue;
            }
            (_, Some(open)) if c == open => quote = None,
            ('"' | '\'' | '`', None) => quote = Some(c),
            ('$', None) => {
                let mut name = String::new();
                while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                let value = values.get(&name).ok_or_else(|| {
                    StepError::invalid(format!("the query names `${name}`, and `values` has no such name"))
                })?;
                bound.push_str(&quoted(value.as_str()));
                used.insert(name);
                continue;
            }
            _ => {}
        }
        bound.push(c);
    }
    match values.keys().find(|name| !used.contains(*name)) {
        Some(name) => Err(StepError::invalid(format!("the query does not use `${name}` of `values`"))
            .with_help("in quotes it stands for itself: write `bucket=$bucket`, without quotes")),
        None => Ok(bound),
    }
}

/// A text of PromQL, which escapes as Go does.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_whatever_they_hold() {
        let values = |all: &[(&str, &str)]| {
            all.iter()
                .map(|(name, value)| ((*name).to_owned(), Text::from(*value)))
                .collect::<BTreeMap<_, _>>()
        };
        let bound =
            bind("up{job=$job, a=~\"$b'\", c='\\'$'}", &values(&[("job", "a\"} or vector(0) \\ \n\t")]));
        assert_eq!(bound.unwrap(), r#"up{job="a\"} or vector(0) \\ \n\u0009", a=~"$b'", c='\'$'}"#);
        for (query, given, wrong) in [
            ("up{job=$jop}", values(&[("job", "x")]), "`$jop`"),
            ("up{job=\"$job\"}", values(&[("job", "x")]), "does not use `$job`"),
            ("up$", values(&[]), "`$`"),
        ] {
            let error = bind(query, &given).unwrap_err();
            assert!(error.message.contains(wrong), "{error:?}");
        }
    }
}
