//! A batch of requests, one for each key: a few at once, and no more of them once a failure concerns every key.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};
use runbook_engine::error::{Outcome, StepError};

use crate::collections::KeyOutcome;

/// How many requests of a batch are under way at once.
const CONCURRENCY: usize = 8;

/// After how many keys in a row that could not reach the store the rest of a batch is not tried.
const UNREACHABLE: usize = CONCURRENCY;

/// Why one key of a batch did not succeed.
pub(super) enum Failure {
    /// It concerns this key.
    Key(StepError),
    /// The store was not reached.
    Unreachable(StepError),
    /// It would be the same for every key.
    Batch(StepError),
    /// It was not tried, because of the failure of another key.
    Untried,
}

/// Runs a batch, a few at once, and stops trying when a failure concerns every key.
pub(super) async fn batch<T, F>(items: &[T], one: impl Fn(usize) -> F) -> Result<Vec<KeyOutcome>, StepError>
where
    F: Future<Output = Result<KeyOutcome, Failure>>,
{
    let (stop, lost) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (one, stop, lost) = (&one, &stop, &lost);
    let ends: Vec<_> = stream::iter(0..items.len())
        .map(|at| async move {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Untried);
            }
            let end = one(at).await;
            match &end {
                Err(Failure::Batch(_)) => stop.store(true, Ordering::Relaxed),
                Err(Failure::Unreachable(_)) if lost.fetch_add(1, Ordering::Relaxed) + 1 >= UNREACHABLE => {
                    stop.store(true, Ordering::Relaxed);
                }
                Err(Failure::Unreachable(_)) => {}
                _ => lost.store(0, Ordering::Relaxed),
            }
            end
        })
        .buffered(CONCURRENCY)
        .collect()
        .await;
    outcomes(ends)
}

fn outcomes(ends: Vec<Result<KeyOutcome, Failure>>) -> Result<Vec<KeyOutcome>, StepError> {
    let none_reached = ends.iter().all(|end| matches!(end, Err(Failure::Unreachable(_) | Failure::Untried)));
    let mut cause = None;
    for end in &ends {
        match end {
            Err(Failure::Batch(error)) => return Err(error.clone()),
            Err(Failure::Unreachable(error)) => {
                // One call whose outcome is unknown makes that of the whole unknown.
                let unknown = error.outcome == Outcome::Unknown;
                if cause.is_none() || unknown {
                    cause = Some(error.clone());
                }
            }
            _ => {}
        }
    }
    if let Some(error) = cause.clone().filter(|_| none_reached) {
        return Err(error);
    }
    let untried = || match &cause {
        Some(error) => error.clone(),
        None => StepError::transient("not tried"),
    };
    let outcome = |end| match end {
        Ok(outcome) => outcome,
        Err(Failure::Key(error) | Failure::Unreachable(error) | Failure::Batch(error)) => {
            KeyOutcome::Failed(error)
        }
        Err(Failure::Untried) => KeyOutcome::Failed(untried()),
    };
    Ok(ends.into_iter().map(outcome).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> StepError {
        StepError::transient("no connection")
    }

    #[test]
    fn a_batch_that_reached_nobody_fails_as_a_whole() {
        let ends = vec![Err(Failure::Unreachable(lost())), Err(Failure::Untried)];
        assert_eq!(outcomes(ends), Err(lost()));
        let ends = vec![Ok(KeyOutcome::Done), Err(Failure::Unreachable(lost())), Err(Failure::Untried)];
        let failed = KeyOutcome::Failed(lost());
        assert_eq!(outcomes(ends), Ok(vec![KeyOutcome::Done, failed.clone(), failed]));
    }

    #[test]
    fn what_concerns_every_key_fails_the_batch() {
        let refused = StepError::refused("the server does not support `documents.delete`");
        let ends = vec![Ok(KeyOutcome::Done), Err(Failure::Batch(refused.clone())), Err(Failure::Untried)];
        assert_eq!(outcomes(ends), Err(refused));
    }
}
