//! What a process prints: bounded, without secrets, its lines said live.

use runbook_engine::redact::Redactor;
use runbook_engine::step::StepContext;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::shortened;

/// How many bytes of each stream are kept, from its end.
pub const KEPT: usize = 64 * 1024;
/// Kept beyond [`KEPT`] until secrets are replaced, so that none is cut in two where the kept part begins.
const SLACK: usize = 8 * 1024;
/// The longest line that is looked at as a whole; what is beyond is not shown live.
const LINE: usize = 16 * 1024;
/// The longest line that is shown live, in characters.
const SHOWN: usize = 2_000;
/// The end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The text, without secrets; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether something before it was dropped.
    pub cut: bool,
}

impl Kept {
    pub(super) fn last_line(&self) -> Option<String> {
        let line = self.text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(shortened(line, 300))
    }
}

/// The end of a stream, with secrets still in it.
#[derive(Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Doubled, so that a long stream is moved once in a while rather than at every piece.
        if self.bytes.len() > 2 * (KEPT + SLACK) {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let extra = self.bytes.len().saturating_sub(KEPT + SLACK);
        if extra > 0 {
            self.bytes.drain(..extra);
            self.cut = true;
        }
    }

    pub(super) fn kept(mut self, redactor: &Redactor) -> Kept {
        self.trim();
        let text = redactor.text(&String::from_utf8_lossy(&self.bytes));
        let start = text.ceil_char_boundary(text.len().saturating_sub(KEPT));
        let cut = self.cut || start > 0;
        Kept { text: text[start..].to_owned(), cut }
    }
}

/// Takes pieces of a stream, as they come.
pub type Hear<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// Who is told what comes, as it comes.
pub(super) enum Listener<'a> {
    /// Whoever watches the run.
    Live,
    /// Somebody who takes it as it is, with secrets still in it.
    By(Hear<'a>),
    /// Nobody.
    Nobody,
}

/// Reads a stream to its end.
pub(super) async fn pump(
    stream: Option<impl AsyncRead + Unpin>,
    tail: &mut Tail,
    cx: &StepContext,
    mut listener: Listener<'_>,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 8192];
    let mut lines = Lines::default();
    let say = |lines: &str| {
        cx.redactor.text(lines).lines().for_each(|line| cx.live.say(&shortened(line, SHOWN)));
    };
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        tail.push(&buffer[..count]);
        match &mut listener {
            Listener::By(hear) => hear(&buffer[..count]),
            Listener::Live => lines.push(&buffer[..count], say),
            Listener::Nobody => {}
        }
    }
    lines.finish(say);
}

/// How many bytes of base64 a line ends with that may go on in the next one.
const WRAPPED: usize = 32;

/// Splits a stream into lines of bounded length. A line that may go on in the next one, as wrapped base64 does, is given out together
/// with it, so that a secret in both is found.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    open: String,
    skipping: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut say: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            if !self.skipping {
                let room = LINE.saturating_sub(self.line.len());
                self.line.extend_from_slice(&text[..text.len().min(room)]);
                self.skipping = text.len() > room;
            }
            if ends {
                self.end_line();
                if !self.goes_on() {
                    self.give_out(&mut say);
                }
            }
        }
    }

    fn finish(&mut self, mut say: impl FnMut(&str)) {
        self.end_line();
        self.give_out(&mut say);
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if !line.trim().is_empty() {
            self.open.push_str(line.trim_end());
            self.open.push('\n');
        }
        self.line.clear();
        self.skipping = false;
    }

    fn goes_on(&self) -> bool {
        let encoded = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        let last = self.open.trim_end().bytes().rev().take(WRAPPED);
        self.open.len() < LINE
            && last.clone().count() == WRAPPED
            && last.into_iter().all(|byte| encoded(&byte))
    }

    fn give_out(&mut self, say: &mut impl FnMut(&str)) {
        if !self.open.is_empty() {
            say(self.open.trim_end());
            self.open.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_says_what_it_dropped() {
        let mut tail = Tail::default();
        for number in 0..100_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        assert!(tail.bytes.capacity() <= 8 * (KEPT + SLACK));
        let kept = tail.kept(&Redactor::default());
        assert!(kept.cut && kept.text.len() <= KEPT && kept.text.ends_with("line 99999\n"));
        let mut short = Tail::default();
        short.push("ß".as_bytes());
        assert_eq!(short.kept(&Redactor::default()), Kept { text: "ß".to_owned(), cut: false });
    }

    #[test]
    fn lines_are_bounded_and_survive_any_piece_edge() {
        let mut said = Vec::new();
        let mut lines = Lines::default();
        for piece in ["on", "e\r\n\ntw", "o\n", &"x".repeat(LINE + 10), "tail\nthree"] {
            lines.push(piece.as_bytes(), |line| said.push(line.to_owned()));
        }
        lines.finish(|line| said.push(line.to_owned()));
        assert_eq!(said, ["one", "two", &"x".repeat(LINE), "three"]);
    }

    #[test]
    fn lines_of_wrapped_base64_are_given_out_together() {
        let (mut said, mut lines) = (Vec::new(), Lines::default());
        let encoded = "QUJD".repeat(19);
        lines.push(format!("key:\n{encoded}\n{encoded}\nQQ==\nnext\n{encoded}").as_bytes(), |text| {
            said.push(text.to_owned());
        });
        assert_eq!(said, ["key:", &format!("{encoded}\n{encoded}\nQQ=="), "next"]);
        lines.finish(|text| said.push(text.to_owned()));
        assert_eq!(said[3], encoded);
    }
}
