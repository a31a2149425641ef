//! Time that never goes backwards: the clock of a machine may be set back while a run goes on.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;

use super::Clock;

/// The time of another clock. When that clock is set back, time goes on from where it was, at the pace of the machine, until the clock
/// has caught up: a wait, a limit or a longest hold that was begun before is then neither begun anew nor prolonged.
pub(super) struct Steady {
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(Timestamp, Instant)>>,
}

impl Steady {
    /// Time that goes on from the clock's present time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: Mutex::new(None) }
    }

    /// What the clock itself says: what other processes compare with their own.
    pub fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    /// Takes note that it was this time once, as the run's own record says.
    pub fn not_before(&self, at: Timestamp) {
        let now = self.now();
        if at > now {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, Instant::now()));
        }
    }

    /// The time of the run.
    pub fn now(&self) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, here) = (self.clock.now(), Instant::now());
        let now = match *last {
            Some((then, at)) if wall < then => crate::duration::Duration(here - at).after(then),
            _ => wall,
        };
        *last = Some((now, here));
        now
    }
}
