//! What is encoded in base64 and wrapped into lines, as `base64` and mail do it, also where the ends of lines are escaped as in JSON.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::AhoCorasick;

/// No line but the first and the last is shorter, in bytes.
const SHORTEST_LINE: usize = 32;

/// Finds the encoded forms of secrets where the ends of lines are in them.
pub struct Wrapped {
    /// Absent when there is nothing to find.
    automaton: Option<AhoCorasick>,
    /// The length of the longest form in bytes, without ends of lines.
    longest: usize,
}

/// The longest end of a line: escaped in a string inside of a string, in bytes.
const LONGEST_BREAK: usize = 10;

/// How long a form of `length` bytes is at most with the ends of lines in it.
fn with_breaks(length: usize) -> usize {
    length + LONGEST_BREAK * (length / SHORTEST_LINE + 1)
}

fn is_encoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte)
}

impl Wrapped {
    /// Finds these forms.
    pub fn new(forms: &BTreeSet<Vec<u8>>) -> Self {
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Self { automaton: super::automaton(forms), longest }
    }

    /// The length of the longest place in bytes.
    pub fn longest(&self) -> usize {
        if self.automaton.is_some() { with_breaks(self.longest) } else { 0 }
    }

    /// The places that have ends of lines in them, by their ends. Whether there is one at some place depends on the bytes there alone.
    pub fn find(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let Some(automaton) = &self.automaton else { return Vec::new() };
        let breaks = breaks(bytes);
        let (Some(first), Some(last)) = (breaks.first(), breaks.last()) else { return Vec::new() };
        // Nothing further from an end of line can be found here.
        let (from, to) =
            (first.start.saturating_sub(self.longest()), (last.end + self.longest()).min(bytes.len()));
        let (mut joined, mut origin, mut at) = (Vec::new(), Vec::new(), from);
        for gap in breaks.iter().cloned().chain(std::iter::once(to..to)) {
            joined.extend_from_slice(&bytes[at..gap.start]);
            origin.extend(at..gap.start);
            at = gap.end;
        }
        let places = automaton.find_overlapping_iter(&joined).map(|found| {
            let place = origin[found.start()]..origin[found.end() - 1] + 1;
            (place, found.range().len())
        });
        places
            .filter(|(place, length)| (*length + 1..=with_breaks(*length)).contains(&place.len()))
            .map(|(place, _)| place)
            .collect()
    }
}

/// The ends of lines between two encoded bytes.
fn breaks(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        let start = match byte {
            b'\n' if at > 0 && bytes[at - 1] == b'\r' => at - 1,
            b'\n' => at,
            b'n' => match before_escaped(bytes, at) {
                Some(start) => start.checked_sub(1).and_then(|r| before_escaped(bytes, r)).unwrap_or(start),
                None => continue,
            },
            _ => continue,
        };
        let before = start.checked_sub(1).is_some_and(|before| is_encoded(bytes[before]));
        let after = bytes.get(at + 1).is_some_and(|after| is_encoded(*after));
        if before && after && at + 1 - start <= LONGEST_BREAK {
            found.push(start..at + 1);
        }
    }
    found
}

/// Where the backslashes begin that make an escape of the letter at `at`, `n` or `r`; none when there are none.
fn before_escaped(bytes: &[u8], at: usize) -> Option<usize> {
    let slashes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
    (slashes > 0 && matches!(bytes[at], b'n' | b'r')).then(|| at - slashes)
}
