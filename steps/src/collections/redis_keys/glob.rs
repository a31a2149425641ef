//! The patterns of Redis, as its server reads them.

/// One part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Any bytes, or none.
    Any,
    /// One byte out of these ranges, or with `not` one that is in none of them.
    One { not: bool, ranges: Vec<(u8, u8)> },
}

/// A pattern: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before what is meant as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Part>);

impl Glob {
    pub(super) fn parse(pattern: &str) -> Self {
        let (bytes, mut at, mut parts) = (pattern.as_bytes(), 0, Vec::new());
        let exactly = |byte| Part::One { not: false, ranges: vec![(byte, byte)] };
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'*' if parts.last() == Some(&Part::Any) => {}
                b'*' => parts.push(Part::Any),
                b'?' => parts.push(Part::One { not: true, ranges: Vec::new() }),
                b'[' => parts.push(class(bytes, &mut at)),
                b'\\' if at < bytes.len() => {
                    parts.push(exactly(bytes[at]));
                    at += 1;
                }
                byte => parts.push(exactly(*byte)),
            }
        }
        Self(parts)
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        // One row of a table over the name: quick for any pattern, where backtracking would not be.
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        for part in &self.0 {
            let mut next = vec![false; name.len() + 1];
            for end in 0..=name.len() {
                next[end] = match part {
                    Part::Any => reached[end] || (end > 0 && next[end - 1]),
                    Part::One { not, ranges } => {
                        end > 0
                            && reached[end - 1]
                            && ranges.iter().any(|(from, to)| (*from..=*to).contains(&name[end - 1])) != *not
                    }
                };
            }
            reached = next;
        }
        reached[name.len()]
    }
}

/// What stands between `[` and `]`; `at` is behind the `[`, and behind the `]` afterwards. One that is not closed goes to the end.
fn class(bytes: &[u8], at: &mut usize) -> Part {
    let not = bytes.get(*at) == Some(&b'^');
    *at += usize::from(not);
    let mut ranges = Vec::new();
    while let Some(&byte) = bytes.get(*at) {
        match (byte, bytes.get(*at + 1), bytes.get(*at + 2)) {
            (b'\\', Some(&escaped), _) => {
                ranges.push((escaped, escaped));
                *at += 2;
            }
            (b']', ..) => {
                *at += 1;
                break;
            }
            (from, Some(b'-'), Some(&to)) => {
                ranges.push((from.min(to), from.max(to)));
                *at += 3;
            }
            (byte, ..) => {
                ranges.push((byte, byte));
                *at += 1;
            }
        }
    }
    Part::One { not, ranges }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_and_what_does_not() {
        for (pattern, fits, fails) in [
            ("*", &["", "a", "did:x"][..], &[][..]),
            ("did:*", &["did:", "did:web:a"], &["did", "xdid:"]),
            ("h?llo", &["hello", "h\nllo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hallo", "hello"], &["hillo"]),
            ("h[^e]llo", &["hallo"], &["hello", "hllo"]),
            ("h[a-c]*o", &["hao", "hcxxo"], &["hdo", "ha"]),
            ("h[c-a]", &["hb"], &["hd"]),
            (r"a\*b", &["a*b"], &["axb"]),
            (r"[\]]x", &["]x"], &["\\x"]),
            ("[abc", &["a", "c"], &["d", "[abc"]),
            ("**a**", &["a", "xay"], &["x", ""]),
            ("a\\", &["a\\"], &["a"]),
        ] {
            let glob = Glob::parse(pattern);
            assert!(fits.iter().all(|name| glob.matches(name.as_bytes())), "{pattern}");
            assert!(!fails.iter().any(|name| glob.matches(name.as_bytes())), "{pattern}");
        }
    }
}
