//! A variable's line in an env file, byte for byte: everything of `env_file` that needs no I/O.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::way::Side;

/// What an env file holds of one variable, enough to put it back exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// The whole line without its line break; absent when the file does not set the variable.
    pub line: Option<String>,
    /// Whether the file ends with a line break (or is empty), which an appended line would change.
    pub final_newline: bool,
}

/// Why a line can not be understood or changed. No text of the file is quoted: it may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    /// The name can not be one of a variable.
    #[error("`{0}` is not the name of a variable")]
    Name(String),
    /// It is set more than once, and which one counts depends on who reads the file.
    #[error("`{variable}` is set more than once, on lines {first} and {second}")]
    Twice {
        /// The variable.
        variable: String,
        /// The first line, from 1.
        first: usize,
        /// The second line.
        second: usize,
    },
    /// The line, or its value, has a form that can not be changed safely.
    #[error("line {line} sets `{variable}` {why}")]
    Form {
        /// The variable.
        variable: String,
        /// The line, from 1.
        line: usize,
        /// Why not, as a fragment.
        why: &'static str,
    },
    /// The new value can not be written there.
    #[error("the value for `{variable}` {why}")]
    Value {
        /// The variable.
        variable: String,
        /// Why not, as a fragment.
        why: &'static str,
    },
    /// The line is not there any more.
    #[error("`{0}` is not set any more")]
    Gone(String),
}

/// A line taken apart: `head + value + tail` is the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts<'a> {
    name: &'a str,
    /// Up to the value, with `export` and an opening quote.
    head: &'a str,
    value: &'a str,
    /// From the closing quote, with a comment.
    tail: &'a str,
    quote: Option<char>,
    /// Whether an opening quote is not closed on this line.
    open: bool,
}

/// Where a variable's line is, without its line break.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    range: Range<usize>,
    number: usize,
}

/// What the file holds of the variable.
pub(super) fn read(content: &[u8], variable: &str) -> Result<Line, LineError> {
    let line = match find(content, variable)? {
        Some(place) => Some(checked(content, variable, &place)?.to_owned()),
        None => None,
    };
    Ok(Line { line, final_newline: content.is_empty() || content.ends_with(b"\n") })
}

/// The value on a line, as it is written: quotes taken off, nothing else interpreted.
pub(super) fn value(line: &str) -> &str {
    parts(line).map_or("", |parts| parts.value)
}

/// The file with the variable set to `new`; nothing else differs.
pub(super) fn set(content: &[u8], variable: &str, new: &str) -> Result<Vec<u8>, LineError> {
    if let Some(place) = find(content, variable)? {
        let line = checked(content, variable, &place)?;
        return Ok(replaced(content, place.range, frozen_line(Some(line), variable, new)?.as_bytes()));
    }
    let eol: &[u8] = if content.windows(2).any(|pair| pair == b"\r\n") { b"\r\n" } else { b"\n" };
    let mut out = content.to_vec();
    if !content.is_empty() && !content.ends_with(b"\n") {
        out.extend_from_slice(eol);
    }
    out.extend_from_slice(frozen_line(None, variable, new)?.as_bytes());
    out.extend_from_slice(eol);
    Ok(out)
}

/// The file with the variable's line as it was; what was changed elsewhere in the file stays.
pub(super) fn restore(content: &[u8], variable: &str, original: &Line) -> Result<Vec<u8>, LineError> {
    let place = find(content, variable)?.ok_or_else(|| LineError::Gone(variable.to_owned()))?;
    if let Some(line) = &original.line {
        return Ok(replaced(content, place.range, line.as_bytes()));
    }
    let after = &content[place.range.end..];
    let eol = [&b"\r\n"[..], b"\n"].into_iter().find(|eol| after.starts_with(eol)).map_or(0, <[u8]>::len);
    let mut out = replaced(content, place.range.start..place.range.end + eol, b"");
    // The line break that was added so that the variable got a line of its own.
    if !original.final_newline && place.range.start == out.len() {
        for eol in [&b"\r\n"[..], b"\n"] {
            if out.ends_with(eol) {
                out.truncate(out.len() - eol.len());
                break;
            }
        }
    }
    Ok(out)
}

/// Whose value is there. Only the exact line that [`set`] makes of the original is ours: any other was written by somebody.
pub(super) fn side(present: &Line, original: &Line, variable: &str, new: &str) -> Side {
    if present.line == original.line {
        return Side::Original;
    }
    let ours = frozen_line(original.line.as_deref(), variable, new).ok();
    if present.line.is_some() && present.line == ours { Side::Ours } else { Side::Foreign }
}

/// The line that sets the variable to `new`, in the form of the original one.
pub(super) fn frozen_line(original: Option<&str>, variable: &str, new: &str) -> Result<String, LineError> {
    let bad = |why| LineError::Value { variable: variable.to_owned(), why };
    if new.chars().any(char::is_control) {
        return Err(bad("holds a control character"));
    }
    match original {
        Some(line) => changed(line, new).map_err(bad),
        None => plain(new).map(|()| format!("{variable}={new}")).map_err(bad),
    }
}

fn replaced(content: &[u8], range: Range<usize>, with: &[u8]) -> Vec<u8> {
    [&content[..range.start], with, &content[range.end..]].concat()
}

fn changed(line: &str, new: &str) -> Result<String, &'static str> {
    let parts = parts(line).ok_or("can not be put into its line")?;
    match parts.quote {
        None => plain(new)?,
        Some('\'') if new.contains('\'') => return Err("holds the quote that its line uses"),
        Some('"') if new.contains(['"', '\\', '$', '`']) => {
            return Err("holds a character that means something in double quotes");
        }
        Some(_) => {}
    }
    Ok(format!("{}{new}{}", parts.head, parts.tail))
}

fn plain(new: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+,=".contains(c);
    if new.chars().all(plain) {
        Ok(())
    } else {
        Err("holds a character that would need quotes, and the variable's line has none")
    }
}

/// The variable's line, when it has a form whose value can be replaced.
fn checked<'a>(content: &'a [u8], variable: &str, place: &Place) -> Result<&'a str, LineError> {
    let bad = |why| LineError::Form { variable: variable.to_owned(), line: place.number, why };
    let line =
        std::str::from_utf8(&content[place.range.clone()]).map_err(|_| bad("in bytes that are not UTF-8"))?;
    let parts = parts(line).ok_or_else(|| bad("in an unknown form"))?;
    if parts.open || (parts.quote.is_none() && parts.value.ends_with('\\')) {
        return Err(bad("to a value that goes on on the next line"));
    }
    let rest =
        parts.quote.map_or("", |quote| parts.tail.strip_prefix(quote).unwrap_or_default()).trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err(bad("and has more after the closing quote"));
    }
    if parts.quote.is_none() && parts.value.contains(';') {
        return Err(bad("and holds a `;`, after which another command may stand"));
    }
    if parts.head.contains("+=") {
        return Err(bad("by adding to it (`+=`)"));
    }
    Ok(line)
}

fn find(content: &[u8], variable: &str) -> Result<Option<Place>, LineError> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !variable.starts_with(first) || !variable.chars().all(|c| first(c) || c.is_ascii_digit()) {
        return Err(LineError::Name(variable.to_owned()));
    }
    let lines = lines(content);
    let mut found: Option<Place> = None;
    // The end of a value in quotes that began on an earlier line.
    let mut inside = 0;
    for (index, range) in lines.iter().enumerate() {
        let text = String::from_utf8_lossy(&content[range.clone()]);
        let Some(parts) = parts(&text) else { continue };
        if parts.name == variable {
            let number = index + 1;
            if index < inside {
                let why = "inside of a value that goes over several lines";
                return Err(LineError::Form { variable: variable.to_owned(), line: number, why });
            }
            if let Some(earlier) = found {
                let (variable, first) = (variable.to_owned(), earlier.number);
                return Err(LineError::Twice { variable, first, second: number });
            }
            found = Some(Place { range: range.clone(), number });
        }
        if let Some(quote) = parts.quote.filter(|_| parts.open && index >= inside) {
            let closes = |range: &Range<usize>| content[range.clone()].contains(&(quote as u8));
            if let Some(ahead) = lines[index + 1..].iter().position(closes) {
                inside = index + ahead + 2;
            }
        }
    }
    Ok(found)
}

/// Each line without its line break.
fn lines(content: &[u8]) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut lines = Vec::new();
    for piece in content.split_inclusive(|byte| *byte == b'\n') {
        let text = piece.strip_suffix(b"\n").map_or(piece, |text| text.strip_suffix(b"\r").unwrap_or(text));
        lines.push(start..start + text.len());
        start += piece.len();
    }
    lines
}

fn parts(line: &str) -> Option<Parts<'_>> {
    let (left, right) = line.split_once('=')?;
    let word = left.trim_start_matches('\u{feff}').trim();
    let word = match word.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => word,
    };
    let name = word.strip_suffix('+').unwrap_or(word);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let blank = right.len() - right.trim_start().len();
    let begin = left.len() + 1 + blank;
    if let Some(quote) = right.trim_start().chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let start = begin + 1;
        let end = closing(&line[start..], quote).map(|at| start + at);
        let stop = end.unwrap_or(line.len());
        let (head, value, tail) = (&line[..start], &line[start..stop], &line[stop..]);
        return Some(Parts { name, head, value, tail, quote: Some(quote), open: end.is_none() });
    }
    let comment = right
        .char_indices()
        .zip(right.chars().skip(1))
        .find(|((_, before), at)| before.is_whitespace() && *at == '#')
        .map_or(right.len(), |((index, before), _)| index + before.len_utf8());
    let value = right[..comment].trim();
    let start = if value.is_empty() { left.len() + 1 } else { begin };
    let stop = start + value.len();
    Some(Parts { name, head: &line[..start], value, tail: &line[stop..], quote: None, open: false })
}

/// Where the quote is closed; a backslash takes the next character along in double quotes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, c)| {
        if escaped {
            escaped = false;
            return None;
        }
        escaped = quote == '"' && c == '\\';
        (c == quote).then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: &str = "MAX_MB";

    fn round_trip(content: &[u8], frozen: &[u8]) {
        let original = read(content, MAX).unwrap();
        let changed = set(content, MAX, "0.1").unwrap();
        assert_eq!(String::from_utf8_lossy(&changed), String::from_utf8_lossy(frozen));
        let present = read(&changed, MAX).unwrap();
        assert_eq!(side(&present, &original, MAX, "0.1"), Side::Ours);
        assert_eq!(side(&original, &original, MAX, "0.1"), Side::Original);
        assert_eq!(value(present.line.as_deref().unwrap()), "0.1");
        assert_eq!(restore(&changed, MAX, &original).unwrap(), content);
    }

    #[test]
    fn a_line_comes_back_byte_for_byte() {
        for (before, after) in [
            ("A=1\nMAX_MB=25\nB=2\n", "A=1\nMAX_MB=0.1\nB=2\n"),
            ("MAX_MB=25", "MAX_MB=0.1"),
            (
                "A=1\r\nexport  MAX_MB=\"25\"  # keep\r\nB=2\r\n",
                "A=1\r\nexport  MAX_MB=\"0.1\"  # keep\r\nB=2\r\n",
            ),
            ("  MAX_MB='25'\n", "  MAX_MB='0.1'\n"),
            ("MAX_MB= 25 # twenty-five\n", "MAX_MB= 0.1 # twenty-five\n"),
            ("MAX_MB = 25\n", "MAX_MB = 0.1\n"),
            ("MAX_MB=\n", "MAX_MB=0.1\n"),
            ("MAX_MB=  # default\n", "MAX_MB=0.1  # default\n"),
            ("MAX_MB=\"\"\n", "MAX_MB=\"0.1\"\n"),
            ("MAX_MB=\"2\\\"5\"\n", "MAX_MB=\"0.1\"\n"),
            ("MAX_MB=a#b\t\n", "MAX_MB=0.1\t\n"),
            ("MAX_MB=${DEFAULT:-25}\n", "MAX_MB=0.1\n"),
            ("\u{feff}MAX_MB=25\n", "\u{feff}MAX_MB=0.1\n"),
            ("#MAX_MB=3\nXMAX_MB=4\nMAX_MB=25\n", "#MAX_MB=3\nXMAX_MB=4\nMAX_MB=0.1\n"),
            ("KEY=\"one\nMIX=2\nthree\"\nMAX_MB=25\n", "KEY=\"one\nMIX=2\nthree\"\nMAX_MB=0.1\n"),
            ("MSG='tis\nMAX_MB=25\n", "MSG='tis\nMAX_MB=0.1\n"),
        ] {
            round_trip(before.as_bytes(), after.as_bytes());
        }
        round_trip(b"A=\xff\xfe\nMAX_MB=25\n", b"A=\xff\xfe\nMAX_MB=0.1\n");
    }

    #[test]
    fn a_variable_that_was_not_set_is_not_set_again() {
        for (before, after) in [
            ("", "MAX_MB=0.1\n"),
            ("A=1\n", "A=1\nMAX_MB=0.1\n"),
            ("A=1", "A=1\nMAX_MB=0.1\n"),
            ("A=1\r\nB=2", "A=1\r\nB=2\r\nMAX_MB=0.1\r\n"),
            ("A=1\n\n\n", "A=1\n\n\nMAX_MB=0.1\n"),
        ] {
            round_trip(before.as_bytes(), after.as_bytes());
        }
    }

    #[test]
    fn what_was_edited_elsewhere_meanwhile_stays() {
        let original = read(b"A=1\nMAX_MB=25 # mb\nB=2", MAX).unwrap();
        let edited = b"A=9\nNEW=1\nMAX_MB=0.1 # mb\nB=2\nC=3\n";
        assert_eq!(restore(edited, MAX, &original).unwrap(), b"A=9\nNEW=1\nMAX_MB=25 # mb\nB=2\nC=3\n");
        let unset = read(b"A=1", MAX).unwrap();
        assert_eq!(restore(b"A=1\nMAX_MB=0.1\nC=3\n", MAX, &unset).unwrap(), b"A=1\nC=3\n");
        let present = read(edited, MAX).unwrap();
        assert_eq!(side(&present, &original, MAX, "0.1"), Side::Ours);
    }

    #[test]
    fn somebody_elses_line_is_foreign() {
        let original = read(b"MAX_MB=25\n", MAX).unwrap();
        for content in
            ["MAX_MB=30\n", "MAX_MB=\"0.1\"\n", "MAX_MB=0.1 # by hand\n", "A=1\n", "export MAX_MB=25\n"]
        {
            let present = read(content.as_bytes(), MAX).unwrap();
            assert_eq!(side(&present, &original, MAX, "0.1"), Side::Foreign, "{content}");
        }
        let unset = read(b"", MAX).unwrap();
        assert_eq!(side(&read(b"MAX_MB=7\n", MAX).unwrap(), &unset, MAX, "0.1"), Side::Foreign);
    }

    #[test]
    fn what_can_not_be_put_back_safely_is_refused() {
        for content in [
            "MAX_MB=1\nA=2\nexport MAX_MB=3\n",
            "MAX_MB=\"25\nB=\"\n",
            "MAX_MB=25\\\nB=2\n",
            "MAX_MB=25; OTHER=2\n",
            "MAX_MB=\"25\"; OTHER=2\n",
            "MAX_MB+=5\n",
            "KEY=\"one\nMAX_MB=25\nthree\"\n",
        ] {
            assert!(read(content.as_bytes(), MAX).is_err(), "{content}");
        }
        assert!(read(b"MAX_MB=\xff\n", MAX).is_err());
        assert!(matches!(read(b"", "MAX-MB"), Err(LineError::Name(_))));
        for (content, value) in [
            ("MAX_MB=25\n", "1 2"),
            ("MAX_MB=25\n", "1\nB=2"),
            ("MAX_MB=25\n", "$(reboot)"),
            ("", "a;b"),
            ("MAX_MB=\"25\"\n", "$HOME"),
            ("MAX_MB='25'\n", "it's"),
        ] {
            assert!(set(content.as_bytes(), MAX, value).is_err(), "{content} {value}");
        }
    }

    #[test]
    fn no_error_quotes_the_file() {
        let content = b"SECRET=hunter2\nMAX_MB=hunter2; x\n";
        assert!(!read(content, MAX).unwrap_err().to_string().contains("hunter2"));
    }
}
