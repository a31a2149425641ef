//! Ctrl-C and its relatives: the first asks the run to stop after the batch in flight, the second stops it now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use runbook_engine::drive::Halt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure, Outcome};
use crate::prompt;

/// Asks a run to stop, and knows what for.
#[derive(Clone)]
pub struct Stopper {
    halt: watch::Sender<Halt>,
    cause: Arc<AtomicU8>,
}

impl Stopper {
    /// One that nobody has asked yet.
    pub fn new() -> Self {
        Self { halt: watch::channel(Halt::No).0, cause: Arc::new(AtomicU8::new(0)) }
    }

    /// What the run watches.
    pub fn watch(&self) -> watch::Receiver<Halt> {
        self.halt.subscribe()
    }

    /// Somebody asks, for the first or a further time; how urgent it is now.
    pub fn ask(&self, cause: Exit) -> Halt {
        let _ = self.cause.compare_exchange(0, cause as u8, Ordering::SeqCst, Ordering::SeqCst);
        let mut now = Halt::No;
        self.halt.send_modify(|halt| {
            *halt = if *halt == Halt::No { Halt::Gently } else { Halt::Now };
            now = *halt;
        });
        now
    }

    /// The exit code of a run that was stopped.
    pub fn exit(&self) -> Exit {
        match self.cause.load(Ordering::SeqCst) {
            code if code == Exit::Terminated as u8 => Exit::Terminated,
            code if code == Exit::HungUp as u8 => Exit::HungUp,
            _ => Exit::Interrupted,
        }
    }

    /// Listens to SIGINT, SIGTERM and SIGHUP from now on; `tell` is called each time. A third one ends this process where it stands,
    /// as a crash would.
    pub fn listen(&self, tell: impl Fn(Halt) + Send + 'static) -> Outcome<()> {
        let failed =
            |error: std::io::Error| Failure::new(Exit::Bug, format!("signals can not be watched: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let cause = tokio::select! {
                    Some(()) = interrupt.recv() => Exit::Interrupted,
                    Some(()) = terminate.recv() => Exit::Terminated,
                    Some(()) = hangup.recv() => Exit::HungUp,
                    else => return,
                };
                if *this.halt.borrow() == Halt::Now {
                    prompt::restore_terminal();
                    std::process::exit(this.exit().code());
                }
                tell(this.ask(cause));
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_request_is_more_urgent_and_the_first_cause_counts() {
        let stopper = Stopper::new();
        let halt = stopper.watch();
        assert_eq!(stopper.ask(Exit::Terminated), Halt::Gently);
        assert_eq!(stopper.ask(Exit::Interrupted), Halt::Now);
        assert_eq!(*halt.borrow(), Halt::Now);
        assert_eq!(stopper.exit(), Exit::Terminated);
    }
}
