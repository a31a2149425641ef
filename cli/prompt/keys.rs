//! The keys that a person presses, one by one, until nobody wants to know them any more.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use console::{Key, Term};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, OptionalActions, Termios};

/// How long it takes at most to notice that a question was withdrawn, in nanoseconds.
const LOOK: i64 = 100_000_000;

/// The keyboard of the terminal that stdin is. Keys come as they are pressed and are not shown; dropping it sets the terminal as it was.
pub struct Keys<'a> {
    term: &'a Term,
    withdrawn: &'a AtomicBool,
    before: Termios,
}

impl<'a> Keys<'a> {
    /// Listens until `withdrawn`.
    pub fn new(term: &'a Term, withdrawn: &'a AtomicBool) -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // What is printed still goes to the beginning of the next line.
        raw.output_modes = before.output_modes;
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { term, withdrawn, before })
    }

    /// The terminal.
    pub fn term(&self) -> &Term {
        self.term
    }

    /// The next key; none once the question is withdrawn. The end of the input is Ctrl-D.
    pub fn next(&self) -> io::Result<Option<Key>> {
        loop {
            if self.withdrawn.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let stdin = io::stdin();
            let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
            let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK };
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        match self.term.read_key_raw() {
            Ok(key) => Ok(Some(key)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(Key::Char('\x04'))),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        // A terminal that has gone away needs nothing.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
