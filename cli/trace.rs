//! What the program says of itself, for those who look for the cause of something: `RUNBOOK_LOG=debug`, or any filter of tracing.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::redacted_panic;

static SCREEN: OnceLock<MultiProgress> = OnceLock::new();

/// From now on lines are written above what this screen draws, and not into it.
pub fn draw_above(screen: &MultiProgress) {
    let _ = SCREEN.set(screen.clone());
}

/// Writes to stderr what the filter lets through: warnings, unless `RUNBOOK_LOG` says otherwise.
pub fn install() {
    let filter = EnvFilter::try_from_env("RUNBOOK_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(Stderr);
    // The first to be installed wins; there is none before.
    let _ = subscriber.try_init();
}

struct Stderr;

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = redacted_panic::masked(&String::from_utf8_lossy(line));
        // Nobody may be listening any more. The subscriber would complain of that on the same stderr, and panic when it can not.
        let put = || drop(io::stderr().write_all(text.as_bytes()));
        match SCREEN.get() {
            Some(screen) => screen.suspend(put),
            None => put(),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().flush();
        Ok(())
    }
}
