//! A service's environment file: `NAME=value` lines as an init system reads them.

/// The variables of a file. Blank lines, comments and lines without `=` set nothing; the last line for a
/// name wins.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(valid) {
        return None;
    }
    Some((name.to_owned(), parse_value(value.trim())))
}

/// A quoted value ends at its closing quote, an unquoted one at ` #`.
fn parse_value(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner.to_owned();
        }
    }
    let end = if value.starts_with('#') { Some(0) } else { value.find(" #").or_else(|| value.find("\t#")) };
    value[..end.unwrap_or(value.len())].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_prefixes_are_understood() {
        let text = "# A gateway.\n\nMAX_MB=25\nexport RESPONDER=\"echo\"   # no model\nMODEL='gpt-4o-mini'\n  \
            TTL_HOURS=24 # a day\n\n#MAX_MB=100\nTYPES=\"image/png, text/plain\"\t\nOFF=1";
        let pairs = [
            ("MAX_MB", "25"),
            ("RESPONDER", "echo"),
            ("MODEL", "gpt-4o-mini"),
            ("TTL_HOURS", "24"),
            ("TYPES", "image/png, text/plain"),
            ("OFF", "1"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), pairs);
        assert_eq!(
            parse("A=\nB=#x\nnonsense\n=1\nC = a # b"),
            [("A".into(), String::new()), ("B".into(), String::new()), ("C".into(), "a".into()),]
        );
    }
}
