//! The forms in which a secret can appear.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Lines of a secret that are shorter are not looked for on their own: they may be ordinary words.
const SHORTEST_LINE: usize = 8;

/// Forms of fewer bytes are not looked for: they are found in anything.
const SHORTEST_FORM: usize = 4;

/// Encoded forms of fewer bytes are not looked for across the ends of lines.
const SHORTEST_WRAPPED: usize = 12;

/// The forms of secrets.
#[derive(Default)]
pub struct Forms {
    /// All of them.
    pub all: BTreeSet<Vec<u8>>,
    /// Those in base64, which programs wrap: they are looked for across the ends of lines too.
    pub wrapped: BTreeSet<Vec<u8>>,
}

/// Adds every form of `secret` and of its lines.
pub fn add(secret: &str, forms: &mut Forms) {
    add_one(secret, forms);
    add_one(secret.trim(), forms);
    let lines = secret.lines().map(str::trim);
    for line in lines.filter(|line| line.chars().count() >= SHORTEST_LINE) {
        add_one(line, forms);
    }
}

fn add_one(secret: &str, forms: &mut Forms) {
    base64_forms(secret.as_bytes(), &mut |form: String| {
        if form.len() >= SHORTEST_WRAPPED {
            forms.wrapped.insert(form.clone().into_bytes());
        }
        if form.len() >= SHORTEST_FORM {
            forms.all.insert(form.into_bytes());
        }
    });
    let mut keep = |form: String| {
        if form.len() >= SHORTEST_FORM {
            forms.all.insert(form.into_bytes());
        }
    };
    keep(secret.to_owned());
    keep(hex(secret.as_bytes(), false));
    keep(hex(secret.as_bytes(), true));
    percent_forms(secret.as_bytes(), &mut keep);
    json_forms(secret, &mut keep);
    shell_forms(secret, &mut keep);
    backslash_forms(secret, &mut keep);
    markup_forms(secret, &mut keep);
}

/// The whole encoding, with and without padding, and for each place a secret can have in a longer text that was encoded (`user:`
/// before it, say) the characters that depend on the secret alone.
fn base64_forms(secret: &[u8], keep: &mut impl FnMut(String)) {
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        let whole = engine.encode(secret);
        let padding = "=".repeat((4 - whole.len() % 4) % 4);
        keep(format!("{whole}{padding}"));
        keep(whole);
        for before in 0..3_usize {
            let mut shifted = vec![0; before];
            shifted.extend_from_slice(secret);
            let encoded = engine.encode(&shifted);
            // Six bits a character: leave out those that have bits of what is before or after.
            let (start, end) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
            keep(encoded.get(start..end).unwrap_or_default().to_owned());
        }
    }
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can not fail.
        let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        text
    })
}

/// What the encoders in use leave as it is, apart from letters and digits: nothing (and not even those); nothing; RFC 3986;
/// `encodeURIComponent`; forms; `encodeURI`; the path, query and user parts of URLs in the WHATWG's standard.
const LEFT_AS_IT_IS: [Option<&[u8]>; 9] = [
    None,
    Some(b""),
    Some(b"-._~"),
    Some(b"-._~!*'()"),
    Some(b"-._*"),
    Some(b"-._~!*'();/?:@&=+$,#"),
    Some(b"-._~!*'();/:@&=+$,%|\\[]^"),
    Some(b"-._~!*();/?:@&=+$,%|\\[]^`{}'"),
    Some(b"-._~!*'()&+$,%"),
];

fn percent_forms(secret: &[u8], keep: &mut impl FnMut(String)) {
    let mut once = BTreeSet::new();
    for left in LEFT_AS_IT_IS {
        for (upper, plus) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut form = String::new();
            for &byte in secret {
                let _ = match byte {
                    b' ' if plus => write!(form, "+"),
                    _ if left.is_some_and(|left| byte.is_ascii_alphanumeric() || left.contains(&byte)) => {
                        write!(form, "{}", char::from(byte))
                    }
                    _ if upper => write!(form, "%{byte:02X}"),
                    _ => write!(form, "%{byte:02x}"),
                };
            }
            once.insert(form);
        }
    }
    for form in once {
        // As a part of what is encoded again.
        for (upper, all) in [(true, true), (false, true), (true, false)] {
            keep(encoded_again(&form, upper, all));
        }
        keep(form);
    }
}

/// An encoded form encoded once more: all that RFC 3986 reserves, or the percent signs alone.
fn encoded_again(form: &str, upper: bool, all: bool) -> String {
    let mut again = String::new();
    for byte in form.bytes() {
        let _ = match byte {
            b'%' => write!(again, "%25"),
            _ if !all || byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                write!(again, "{}", char::from(byte))
            }
            _ if upper => write!(again, "%{byte:02X}"),
            _ => write!(again, "%{byte:02x}"),
        };
    }
    again
}

/// What of JSON's optional escapes an encoder makes use of.
#[derive(Clone, Copy)]
struct JsonStyle {
    /// `\/`
    slash: bool,
    /// `\u…` beyond ASCII
    ascii: bool,
    /// `\u…` for `<`, `>`, `&` and Unicode's line separators
    html: bool,
    /// `\u00AB` and not `\u00ab`
    upper: bool,
    /// `\u0008` and `\u000c` for `\b` and `\f`
    long: bool,
}

fn json_forms(secret: &str, keep: &mut impl FnMut(String)) {
    let styles = (0..32_u8).map(|bits| {
        let has = |bit: u8| bits & (1 << bit) != 0;
        JsonStyle { slash: has(0), ascii: has(1), html: has(2), upper: has(3), long: has(4) }
    });
    let once: BTreeSet<String> = styles.clone().map(|style| json(secret, style)).collect();
    for once in once {
        // JSON text inside of a JSON string, which another program may have written.
        styles.clone().for_each(|style| keep(json(&once, style)));
        keep(once);
    }
}

fn json(text: &str, style: JsonStyle) -> String {
    let mut form = String::new();
    let mut units = [0; 2];
    for c in text.chars() {
        let short = match c {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            '\u{8}' if !style.long => Some("\\b"),
            '\u{c}' if !style.long => Some("\\f"),
            '/' if style.slash => Some("\\/"),
            _ => None,
        };
        if let Some(short) = short {
            form.push_str(short);
        } else if c < ' '
            || (style.ascii && !c.is_ascii())
            || (style.html && "<>&\u{2028}\u{2029}".contains(c))
        {
            for unit in c.encode_utf16(&mut units) {
                let _ =
                    if style.upper { write!(form, "\\u{unit:04X}") } else { write!(form, "\\u{unit:04x}") };
            }
        } else {
            form.push(c);
        }
    }
    form
}

/// What bash's `printf %q` leaves as it is, apart from letters and digits.
const PLAIN_IN_SHELL: &str = "_@%+=:./-";

/// As shells and programs that talk to them quote a word: in single quotes with what stands for one of them (`set -x`, `shlex`), in double
/// quotes, and with a backslash before each sign (`printf %q`).
fn shell_forms(secret: &str, keep: &mut impl FnMut(String)) {
    for quote in [r"'\''", r#"'"'"'"#, r"'\\''", "''"] {
        keep(secret.replace('\'', quote));
    }
    for history in [false, true] {
        let escaped = |c: char| "\"\\$`".contains(c) || (history && c == '!');
        keep(behind_backslashes(secret, |_, c| escaped(c)));
    }
    for (comma, anywhere) in [(false, false), (false, true), (true, false), (true, true)] {
        let escaped = |at: usize, c: char| match c {
            ',' => comma,
            '#' | '~' => anywhere || at == 0,
            _ => c.is_ascii() && !c.is_ascii_alphanumeric() && !PLAIN_IN_SHELL.contains(c),
        };
        keep(behind_backslashes(secret, escaped));
    }
}

fn behind_backslashes(text: &str, escaped: impl Fn(usize, char) -> bool) -> String {
    let mut form = String::new();
    for (at, c) in text.chars().enumerate() {
        if escaped(at, c) {
            form.push('\\');
        }
        form.push(c);
    }
    form
}

/// As programming languages and `$'...'` of shells write a text between quotes: with `\'`, with `\"`, or with both, and control
/// characters by a letter, in hexadecimal or in octal.
fn backslash_forms(secret: &str, keep: &mut impl FnMut(String)) {
    for quotes in ["'", "\"", "'\"", ""] {
        for octal in [false, true] {
            let mut form = String::new();
            for c in secret.chars() {
                let _ = match c {
                    '\n' => write!(form, "\\n"),
                    '\r' => write!(form, "\\r"),
                    '\t' => write!(form, "\\t"),
                    '\\' => write!(form, "\\\\"),
                    _ if quotes.contains(c) => write!(form, "\\{c}"),
                    _ if c.is_ascii_control() && octal => write!(form, "\\{:03o}", u32::from(c)),
                    _ if c.is_ascii_control() => write!(form, "\\x{:02x}", u32::from(c)),
                    _ => write!(form, "{c}"),
                };
            }
            keep(form);
        }
    }
}

/// As HTML and XML write a text, in attributes too.
fn markup_forms(secret: &str, keep: &mut impl FnMut(String)) {
    for double in ["\"", "&quot;", "&#34;", "&#x22;"] {
        for single in ["'", "&#39;", "&#039;", "&#x27;", "&apos;"] {
            for greater in [">", "&gt;"] {
                let form = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', greater);
                keep(form.replace('"', double).replace('\'', single));
            }
        }
    }
}
