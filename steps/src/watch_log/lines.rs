//! Splits what is read of a log into whole lines of bounded length.

/// The longest line that is looked at, in bytes; a longer one is given as a text that says so.
pub(super) const LONGEST: usize = 1024 * 1024;

/// The beginning of a line whose end has not been read yet.
#[derive(Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Gives every line that ends in these bytes, without its end. Empty lines are left out.
    pub(super) fn push(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            if self.partial.len() + text.len() > LONGEST {
                self.too_long = true;
                self.partial.clear();
            } else if !self.too_long {
                self.partial.extend_from_slice(text);
            }
            if ends {
                self.end(take);
            }
        }
    }

    /// Gives the last line, which may have no end.
    pub(super) fn end(&mut self, take: &mut impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.too_long) {
            take(b"(a line that is too long)");
        } else if !line.trim_ascii().is_empty() {
            take(&line);
        }
    }

    /// Drops what was read of the last line.
    pub(super) fn clear(&mut self) {
        self.partial.clear();
        self.too_long = false;
    }
}
