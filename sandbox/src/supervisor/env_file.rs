//! A service's environment file: `NAME=value` lines as an init system reads them.

/// The variables of a file. Blank lines, comments and lines without `=` set nothing; the last line for a
/// name wins.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(parse_line).collect()
}

/// The text with a variable set by a line at its end, or without it; its other lines stay.
pub(super) fn set(text: &str, variable: &str, value: Option<&str>) -> String {
    let others = |line: &&str| parse_line(line).is_none_or(|(name, _)| name != variable);
    let mut lines: Vec<String> = text.lines().filter(others).map(str::to_owned).collect();
    // Single quotes: what is set may hold others, such as a name in brackets.
    lines.extend(value.map(|value| format!("{variable}='{value}'")));
    lines.join("\n") + "\n"
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
        let other = set(&set(text, "MODEL", Some("a # b=c")), "OFF", None);
        assert!(
            parse(&other).contains(&("MODEL".to_owned(), "a # b=c".to_owned())) && !other.contains("OFF")
        );
        assert_eq!(
            parse("A=\nB=#x\nnonsense\n=1\nC = a # b"),
            [("A".into(), String::new()), ("B".into(), String::new()), ("C".into(), "a".into()),]
        );
    }
}
