//! Patience with transient failures inside one batch. Between attempts of a whole step it is the engine that waits.

use std::time::Duration;

use runbook_engine::error::{ErrorKind, StepError};

/// How often one call is tried.
const TRIES: u32 = 3;

/// The wait after the first failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The longest wait here. A server that asks for more is not called again before: the error with what it asked for goes to whoever
/// can wait that long.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How much of its patience a call still has.
pub struct Patience {
    tries: u32,
    wait: Duration,
}

impl Default for Patience {
    /// All of it: three tries.
    fn default() -> Self {
        Self { tries: TRIES, wait: FIRST_WAIT }
    }
}

impl Patience {
    /// Waits after a try that failed so, as long as the server asked for when it did. False, at once, when it is not to be tried again: the
    /// failure is none that passes, the tries are used up, or the server asked for more than half a minute.
    pub async fn allows(&mut self, failure: &StepError) -> bool {
        self.tries = self.tries.saturating_sub(1);
        let asked = asked(failure);
        if failure.kind != ErrorKind::Transient || self.tries == 0 || asked > LONGEST_WAIT {
            return false;
        }
        tokio::time::sleep(asked.max(self.wait)).await;
        self.wait *= 2;
        true
    }
}

/// Calls `call` until it succeeds, fails other than transiently, or has been tried three times. Waits between tries, as long as the
/// server asked for when it did, and not at all when that is longer than half a minute. Only for calls that may be repeated.
pub async fn patiently<T, F: Future<Output = Result<T, StepError>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, StepError> {
    let mut patience = Patience::default();
    loop {
        match call().await {
            Err(error) if patience.allows(&error).await => {}
            end => return end,
        }
    }
}

/// How long the server asked to wait; nothing when it did not.
pub fn asked(error: &StepError) -> Duration {
    error.retry_after_ms.map_or(Duration::ZERO, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn transient_failures_are_tried_again_and_others_are_not() {
        let calls = Cell::new(0);
        let mut short = StepError::transient("busy");
        short.retry_after_ms = Some(1);
        let end = run(patiently(async || {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(short.clone()) } else { Ok(calls.get()) }
        }));
        assert_eq!(end, Ok(3));
        calls.set(0);
        let end: Result<(), _> = run(patiently(async || {
            calls.set(calls.get() + 1);
            Err(StepError::refused("no"))
        }));
        assert!(end.is_err());
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn a_server_that_asks_for_a_long_wait_is_not_called_before_it_is_over() {
        let calls = Cell::new(0);
        let mut long = StepError::transient("busy");
        long.retry_after_ms = Some(60_000);
        let end: Result<(), _> = run(patiently(async || {
            calls.set(calls.get() + 1);
            Err(long.clone())
        }));
        assert_eq!((end.unwrap_err().retry_after_ms, calls.get()), (Some(60_000), 1));
    }
}
