//! Ctrl-C and its relatives: the first asks the run to stop after the batch in flight, the second stops it now.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use runbook_engine::drive::Halt;
use runbook_engine::store::Store;
use rustix::process::{getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
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

    /// Listens to SIGINT, SIGTERM and SIGHUP from now on, except to those that whoever started this process had it ignore (`nohup`, a
    /// shell's `&`); `tell` is called each time. A third one ends this process where it stands, as a crash would.
    pub fn listen(&self, tell: impl Fn(Halt) + Send + 'static) -> Outcome<()> {
        let mut interrupt = heard(SignalKind::interrupt())?;
        let mut terminate = heard(SignalKind::terminate())?;
        let mut hangup = heard(SignalKind::hangup())?;
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let cause = tokio::select! {
                    () = next(&mut interrupt) => Exit::Interrupted,
                    () = next(&mut terminate) => Exit::Terminated,
                    () = next(&mut hangup) => Exit::HungUp,
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

/// Stops this process when the terminal asks for it (Ctrl-Z), but never in the middle of a write, which would keep every other run from
/// writing.
pub fn stop_between_writes(store: Arc<dyn Store>) -> Outcome<()> {
    let mut asked = heard(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?;
    tokio::spawn(async move {
        loop {
            next(&mut asked).await;
            let _still = store.still().await;
            let _ = kill_process(getpid(), rustix::process::Signal::STOP);
            // It is the whole process that is stopped, a moment after this thread has asked for that.
            tokio::time::sleep(SETTLED).await;
        }
    });
    Ok(())
}

/// By when a process has stopped that was sent a signal to.
const SETTLED: Duration = Duration::from_millis(100);

/// The next signal; none ever comes of one that is not heard.
async fn next(heard: &mut Option<Signal>) {
    let came = match heard {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Listens to a signal, unless it was to be ignored from the start.
fn heard(kind: SignalKind) -> Outcome<Option<Signal>> {
    let failed =
        |error: std::io::Error| Failure::new(Exit::Bug, format!("signals can not be watched: {error}"));
    let heard = ignored() & (1 << (kind.as_raw_value() - 1)) == 0;
    heard.then(|| signal(kind).map_err(failed)).transpose()
}

/// The signals that this process ignores since it was started, a bit each from the lowest; none where that can not be seen. What is
/// listened to once is not ignored any more.
fn ignored() -> u64 {
    static AT_FIRST: OnceLock<u64> = OnceLock::new();
    *AT_FIRST.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    })
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
