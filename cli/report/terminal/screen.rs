//! What is drawn, so that it stays in shape when the terminal is made wider or narrower.
//!
//! indicatif fills every line up to the width and lets the terminal break them apart. A terminal that reflows takes such lines for one long
//! paragraph, and what was drawn before a change of the width is found nowhere again. Here each line ends where its text ends, and how many
//! rows there are to clear is counted with the width of the moment.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use console::{Term, measure_text_width};
use indicatif::TermLike;

/// The terminal that is drawn on.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    term: Term,
    /// Whether the terminal breaks lines anew when its width changes, and does not cut them off.
    reflows: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The columns of each line of the last drawing.
    drawn: Vec<usize>,
    /// How many of them are to be cleared before the next.
    clear: usize,
    /// Whether this drawing has begun to write.
    begun: bool,
    /// Whether what comes next only fills up the line that was written, and is left out.
    filler: bool,
    /// Whether the cursor is still behind the last line.
    behind: bool,
    out: String,
}

impl Screen {
    /// On stderr.
    pub(super) fn new() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        // These cut lines off: xterm, GNU screen, and the console of Linux.
        let cuts =
            set("XTERM_VERSION") || set("STY") || std::env::var("TERM").is_ok_and(|term| term == "linux");
        Self { term: Term::stderr(), reflows: !cuts, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn columns(&self) -> usize {
        self.term.size_checked().map_or(80, |(_, columns)| usize::from(columns)).max(1)
    }
}

impl State {
    /// Clears what is to be cleared of the last drawing, on a terminal of this width.
    fn begin(&mut self, columns: usize, reflows: bool) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let kept = self.drawn.len().saturating_sub(self.clear);
        let rows = |width: &usize| if reflows { width.div_ceil(columns).max(1) } else { 1 };
        let rows: usize = self.drawn[kept..].iter().map(rows).sum();
        if rows > 1 {
            self.out.push_str(&format!("\x1b[{}A", rows - 1));
        }
        if rows > 0 {
            self.out.push_str("\r\x1b[J");
            self.behind = false;
        }
        self.drawn.clear();
    }

    fn write(&mut self, text: &str) {
        self.filler = !self.filler;
        if !self.filler {
            return;
        }
        if std::mem::replace(&mut self.behind, true) {
            self.out.push_str("\r\n");
        }
        self.out.push_str(text);
        self.drawn.push(measure_text_width(text));
    }

    /// What goes to the terminal now.
    fn end(&mut self) -> String {
        // With nothing below, whoever writes next begins a line of its own.
        if self.drawn.is_empty() && std::mem::replace(&mut self.behind, false) {
            self.out.push_str("\r\n");
        }
        (self.clear, self.begun, self.filler) = (0, false, false);
        std::mem::take(&mut self.out)
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        u16::try_from(self.columns()).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    // Where the cursor is to go follows from what is cleared.
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)?;
        self.write_str("")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin(self.columns(), self.reflows);
        state.write(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.state().clear += 1;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.begin(self.columns(), self.reflows);
        let out = state.end();
        if out.is_empty() {
            return Ok(());
        }
        self.term.write_str(&out)?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One drawing over `clear` lines of the last one, as indicatif makes it.
    fn draw(state: &mut State, columns: usize, clear: usize, lines: &[&str]) -> String {
        state.clear = clear;
        state.begin(columns, true);
        for line in lines {
            state.write(line);
            state.write("      ");
        }
        state.end()
    }

    #[test]
    fn lines_end_where_their_text_ends() {
        let mut state = State::default();
        assert_eq!(draw(&mut state, 40, 0, &["said", "", "foot"]), "said\r\n\r\nfoot");
        assert_eq!(draw(&mut state, 40, 2, &["", "foot"]), "\x1b[1A\r\x1b[J\r\nfoot");
        assert_eq!(draw(&mut state, 40, 2, &[]), "\x1b[1A\r\x1b[J");
        assert_eq!(draw(&mut state, 40, 0, &["printed"]), "printed");
        assert_eq!(draw(&mut state, 40, 0, &["more"]), "\r\nmore");
        assert_eq!(draw(&mut state, 40, 0, &[]), "\r\n");
    }

    #[test]
    fn what_the_terminal_broke_anew_is_cleared_in_full() {
        let mut state = State::default();
        let long = "x".repeat(39);
        draw(&mut state, 40, 0, &["above", &long, "foot"]);
        // The long line takes two rows at 20 columns; what was printed above the live lines stays.
        assert_eq!(draw(&mut state, 20, 2, &["a", "b"]), "\x1b[2A\r\x1b[Ja\r\nb");
    }
}
