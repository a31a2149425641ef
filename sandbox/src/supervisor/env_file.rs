//! The gateway's environment file: `NAME=value` lines as an init system reads them.

use std::path::Path;

use anyhow::Context;

/// The file at the start. Its oddities are meant: who edits it must leave every other byte as it is.
const INITIAL: &str = "\
# ChatKit gateway. Read once, when the gateway starts.

CHATKIT_ATTACHMENT_MAX_MB=25
export CHATKIT_RESPONDER=\"echo\"   # no model in this environment
CHATKIT_DEFAULT_MODEL='gpt-4o-mini'
  CHATKIT_ATTACHMENT_TTL_HOURS=24 # a day

#CHATKIT_ATTACHMENT_MAX_MB=100
CHATKIT_ATTACHMENT_ALLOWED_MIME_TYPES=\"image/png, image/jpeg image/webp,image/gif,\
application/pdf text/plain,application/json,application/octet-stream\"\t
GATEWAY_DISABLE_RATELIMIT=1";

/// Writes the file that a sandbox begins with.
pub(super) fn write_initial(path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, INITIAL).with_context(|| format!("cannot write {}", path.display()))
}

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
        let vars = parse(INITIAL);
        let value = |name: &str| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("CHATKIT_ATTACHMENT_MAX_MB"), Some("25"));
        assert_eq!(value("CHATKIT_RESPONDER"), Some("echo"));
        assert_eq!(value("CHATKIT_DEFAULT_MODEL"), Some("gpt-4o-mini"));
        assert_eq!(value("CHATKIT_ATTACHMENT_TTL_HOURS"), Some("24"));
        assert_eq!(value("GATEWAY_DISABLE_RATELIMIT"), Some("1"));
        assert_eq!(vars.len(), 6);
        assert_eq!(
            parse("A=\nB=#x\nnonsense\n=1\nC = a # b"),
            [("A".into(), String::new()), ("B".into(), String::new()), ("C".into(), "a".into()),]
        );
    }
}
