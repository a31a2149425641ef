//! Redaction of bytes that come in pieces.

use super::{MASK, Redactor};

/// What is held back is looked through again with every piece. When it is longer than this, in bytes, pieces are gathered until
/// they are as long, so that a large secret and many small pieces do not make that expensive.
const MUCH: usize = 2048;

/// Gives back the bytes without secrets, a little later than they come: it holds back as many as could be the beginning of a
/// secret's form. The result is the same however the bytes are cut into pieces.
#[derive(Debug)]
pub struct StreamRedactor {
    redactor: Redactor,
    /// What is held back.
    held: Vec<u8>,
    /// How much of the beginning of `held` belongs to a place whose mask has been given out.
    masked: usize,
    /// Whether anything was given out.
    begun: bool,
    found: bool,
}

impl StreamRedactor {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { redactor, held: Vec::new(), masked: 0, begun: false, found: false }
    }

    /// Takes bytes in and gives out those that are settled.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let finder = self.redactor.finder();
        let mut keep = finder.longest.saturating_sub(1);
        if !self.begun {
            // Enough to see whether a short secret is all there is.
            keep = keep.max(finder.short.iter().map(|secret| secret.len() + 2).max().unwrap_or(0));
        }
        self.held.extend_from_slice(bytes);
        if keep > MUCH && self.held.len() < 2 * keep {
            return Vec::new();
        }
        self.give(self.held.len().saturating_sub(keep))
    }

    /// Gives out the rest. The redactor can be used again, for other bytes.
    pub fn finish(&mut self) -> Vec<u8> {
        if !self.begun && self.redactor.finder().is_short(&self.held) {
            self.found = true;
            self.held.clear();
            return MASK.into();
        }
        let rest = self.give(self.held.len());
        self.begun = false;
        self.masked = 0;
        rest
    }

    /// Whether there was any form of a secret in what was looked through so far: what was given out, at least.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Gives out the first `end` bytes that are held, masked. Every place that begins there also ends in what is held.
    fn give(&mut self, end: usize) -> Vec<u8> {
        let places = self.redactor.finder().find(&self.held, self.masked);
        self.found |= places.iter().any(|place| place.start > 0 || place.end > self.masked);
        let mut clean = Vec::with_capacity(end);
        let (mut from, mut next_masked) = (0, 0);
        for place in places.into_iter().take_while(|place| place.start < end) {
            clean.extend_from_slice(&self.held[from..place.start]);
            // The mask of a place that goes on from before is out already.
            if place.start > 0 || self.masked == 0 {
                clean.extend_from_slice(MASK.as_bytes());
            }
            next_masked = place.end.saturating_sub(end);
            from = place.end.min(end);
        }
        if end == 0 {
            next_masked = self.masked;
        }
        clean.extend_from_slice(&self.held[from..end]);
        self.begun |= end > 0;
        self.held.drain(..end);
        self.masked = next_masked;
        clean
    }
}
