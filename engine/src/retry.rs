//! When a failed attempt is followed by another.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::ErrorKind;
use crate::plan::{Backoff, Retry};
use crate::state::StepState;

/// When the next attempt starts; none when the failure is for good.
pub fn next_attempt(retry: &Retry, state: &StepState, seed: u64) -> Option<Timestamp> {
    let (error, failed_at) = (state.error.as_ref()?, state.ended_at?);
    if state.failures >= retry.max_attempts || !retries(retry, error.kind) {
        return None;
    }
    let asked = Duration::from_millis(error.retry_after_ms.unwrap_or(0));
    let wait = delay(retry, state.failures, seed).max(asked);
    let at = crate::duration::Duration(wait).after(failed_at);
    match (retry.max_duration, state.first_started_at) {
        (Some(longest), Some(first)) if at > longest.after(first) => None,
        _ => Some(at),
    }
}

fn retries(retry: &Retry, kind: ErrorKind) -> bool {
    // Whatever the runbook says, these can not get better by doing the same again.
    let never = matches!(
        kind,
        ErrorKind::Limit | ErrorKind::Cancelled | ErrorKind::Store | ErrorKind::Bug | ErrorKind::Invalid
    );
    let listed = if retry.on.is_empty() { kind.retryable() } else { retry.on.contains(&kind) };
    !never && listed && !retry.except.contains(&kind)
}

/// The wait after the `failures`-th failed attempt. The jitter is drawn from the run's seed, so that a decision made twice is the
/// same.
fn delay(retry: &Retry, failures: u32, seed: u64) -> Duration {
    let base = retry.delay.0.as_secs_f64();
    let grown = match retry.backoff {
        Backoff::Constant => base,
        Backoff::Exponential => {
            base * retry.factor.max(1.0).powi(i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX))
        }
    };
    let capped = grown.min(retry.max_delay.0.as_secs_f64());
    let lot =
        f64::from(u32::try_from(mix(seed ^ u64::from(failures)) >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    let jittered = capped * (1.0 - retry.jitter.clamp(0.0, 1.0) * lot);
    Duration::try_from_secs_f64(jittered).unwrap_or(retry.max_delay.0)
}

/// SplitMix64 (Steele, Lea, Flood 2014): spreads neighbouring numbers.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
