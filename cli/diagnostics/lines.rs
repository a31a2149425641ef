//! Where the lines of a text begin, found once: a file of megabytes may have a thousand mistakes.

use std::ops::Range;

/// The lines of a text.
pub struct Lines<'a> {
    text: &'a str,
    /// The byte at which each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Looks through the whole text.
    pub fn of(text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The line and the column, both from 1, of a byte in the text; columns count characters.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let at = self.within(&(at..at)).start;
        let line = self.line(at);
        (line + 1, self.text[self.starts[line]..at].chars().count() + 1)
    }

    /// A span that the text has, on character boundaries.
    pub fn within(&self, span: &Range<usize>) -> Range<usize> {
        let floor = |mut at: usize| {
            at = at.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start);
        start..floor(span.end).max(start)
    }

    /// The whole lines from the first to the last that these spans touch: the number of the first, from 1, and their bytes.
    pub fn around(&self, spans: impl Iterator<Item = Range<usize>>) -> (usize, Range<usize>) {
        let (from, to) =
            spans.fold((usize::MAX, 0), |(from, to), span| (from.min(span.start), to.max(span.end)));
        let (first, last) = (self.line(from.min(to)), self.line(to));
        let end = self.starts.get(last + 1).copied().unwrap_or(self.text.len());
        (first + 1, self.starts[first]..end)
    }

    /// The place of the line that holds a byte, from 0.
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_has_a_line_and_a_column_in_characters() {
        let lines = Lines::of("a\né: b\n");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(1), (1, 2));
        assert_eq!(lines.position(2), (2, 1));
        assert_eq!(lines.position(3), (2, 1), "inside a character");
        assert_eq!(lines.position(6), (2, 4));
        assert_eq!(lines.position(8), (3, 1));
        assert_eq!(lines.position(90), (3, 1), "outside the text");
        assert_eq!(Lines::of("").position(0), (1, 1));
    }

    #[test]
    fn spans_lie_in_whole_lines() {
        let lines = Lines::of("one\ntwo\nthree\nfour");
        assert_eq!(lines.around([5..6, 9..10].into_iter()), (2, 4..14));
        assert_eq!(lines.around(std::iter::once(18..18)), (4, 14..18));
        assert_eq!(lines.around(std::iter::once(0..0)), (1, 0..4));
    }
}
