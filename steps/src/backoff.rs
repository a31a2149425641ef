//! Waiting between attempts inside a step.

use std::time::Duration;

use runbook_engine::error::StepError;
use runbook_engine::step::StepContext;

/// `first · 2^(attempt-1)`, at most `most`: the wait after attempt number `attempt` (from 1).
pub fn exponential(first: Duration, attempt: u32, most: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1))).min(most)
}

/// Waits, unless the step is told to stop.
pub async fn pause(cx: &StepContext, wait: Duration) -> Result<(), StepError> {
    tokio::select! {
        () = tokio::time::sleep(wait) => cx.checkpoint(),
        () = cx.stop.cancelled() => Err(StepError::interrupted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound() {
        let waits = [1, 2, 3, 4, 40]
            .map(|attempt| exponential(Duration::from_secs(1), attempt, Duration::from_secs(5)).as_secs());
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }
}
