//! Places at which a test may kill the process. Without the cargo feature `crash-points` there is nothing here but empty functions.
//!
//! With it, every point that is passed has a number, from 1 in each process. `RUNBOOK_CRASH_AT=N` aborts the process at point N: no
//! destructor runs, as after `kill -9`. `RUNBOOK_CRASH_LOG=FILE` gets a line with number and name for each point, so that a test can
//! find out how many there are. Nothing that goes by time alone, such as extending a lease, has a point.

/// A place in the code.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn point(_name: &'static str) {}

/// An effect on the world, with a place before and one after it.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub async fn around<T>(_name: &'static str, effect: impl Future<Output = T>) -> T {
    effect.await
}

#[cfg(feature = "crash-points")]
pub use self::armed::{around, point};

#[cfg(feature = "crash-points")]
mod armed {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::time::Duration;

    /// How long the rest of the process goes on after the point was reached: as in a real crash no thread waits for another, so what
    /// was allowed to happen too early has happened.
    const REST: Duration = Duration::from_millis(5);

    struct Armed {
        at: Option<u64>,
        log: Option<PathBuf>,
    }

    static ARMED: LazyLock<Armed> = LazyLock::new(|| Armed {
        at: std::env::var("RUNBOOK_CRASH_AT").ok().and_then(|text| text.parse().ok()),
        log: std::env::var_os("RUNBOOK_CRASH_LOG").map(PathBuf::from),
    });

    static PASSED: Mutex<u64> = Mutex::new(0);

    /// A place in the code.
    pub fn point(name: &'static str) {
        reached("at", name);
    }

    /// An effect on the world, with a place before and one after it.
    pub async fn around<T>(name: &'static str, effect: impl Future<Output = T>) -> T {
        reached("before", name);
        let result = effect.await;
        reached("after", name);
        result
    }

    fn reached(place: &str, name: &str) {
        let Armed { at, log } = &*ARMED;
        if at.is_none() && log.is_none() {
            return;
        }
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        *passed += 1;
        if let Some(log) = log
            && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(log)
        {
            // A test that misses the line says so.
            let _ = writeln!(file, "{passed} {place} {name}");
        }
        if *at == Some(*passed) {
            drop(passed);
            std::thread::sleep(REST);
            std::process::abort();
        }
    }
}
