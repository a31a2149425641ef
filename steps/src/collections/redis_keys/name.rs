//! The names of keys as texts. A name is any bytes; one that is UTF-8 stands as it is, but for its backslashes.

use runbook_engine::error::StepError;

/// A name as a text: `\\` for a backslash and `\xff` for a byte that is no UTF-8. No two names come to the same text.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The name that a text stands for.
pub(super) fn read(text: &str) -> Result<Vec<u8>, StepError> {
    let (mut name, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((plain, escaped)) = rest.split_once('\\') {
        name.extend_from_slice(plain.as_bytes());
        let hex = escaped.strip_prefix('x').and_then(|digits| digits.get(..2));
        rest = match (escaped.strip_prefix('\\'), hex.map(|digits| u8::from_str_radix(digits, 16))) {
            (Some(rest), _) => {
                name.push(b'\\');
                rest
            }
            (None, Some(Ok(byte))) => {
                name.push(byte);
                &escaped[3..]
            }
            _ => {
                let message =
                    format!("`{text}` names no key: a backslash stands before neither `\\` nor `xff`");
                return Err(StepError::invalid(message));
            }
        };
    }
    name.extend_from_slice(rest.as_bytes());
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for (name, text) in [
            (&b"did:web:a"[..], "did:web:a"),
            ("schl\u{fc}ssel\n".as_bytes(), "schl\u{fc}ssel\n"),
            (b"a\\xff", "a\\\\xff"),
            (b"a\xff\xfe", "a\\xff\\xfe"),
            (b"", ""),
            (b"\\", "\\\\"),
        ] {
            assert_eq!(shown(name), text);
            assert_eq!(read(text).unwrap(), name);
        }
        assert!(read("a\\b").is_err() && read("\\").is_err() && read("\\xé").is_err());
    }
}
