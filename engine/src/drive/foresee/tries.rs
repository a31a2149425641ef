//! The attempts of a step that is foreseen: bounded and repeated as those of a run are.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::{Walk, masked};
use crate::decide::too_long;
use crate::drive::GRACE;
use crate::duration::Duration;
use crate::error::{ErrorKind, StepError};
use crate::plan::PlannedStep;
use crate::retry;
use crate::saved::Foresight;
use crate::state::StepState;
use crate::step::StepCall;

impl Walk {
    /// What the last attempt came to, and how many there were; an error of kind interrupted when it was stopped.
    pub(super) async fn tries(
        &self,
        step: &PlannedStep,
        call: &StepCall,
    ) -> Result<(Result<Foresight, StepError>, u32), StepError> {
        let mut state = StepState::default();
        loop {
            state.attempt += 1;
            state.first_started_at.get_or_insert_with(Timestamp::now);
            let error = match self.attempt(step, call.clone(), state.attempt).await {
                Ok(seen) => return Ok((Ok(seen), state.attempt)),
                Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
                Err(error) => masked(&self.with.redactor, error),
            };
            state.failures += 1;
            state.ended_at = Some(Timestamp::now());
            state.error = Some(error.clone());
            let Some(at) = retry::next_attempt(&step.retry, &state, self.with.run.seed) else {
                return Ok((Err(error), state.attempt));
            };
            let wait = Duration(at.duration_since(Timestamp::now()).try_into().unwrap_or_default());
            let (attempt, of) = (state.attempt, step.retry.max_attempts);
            self.with
                .live
                .step(&step.id)
                .say(&format!("attempt {attempt} of {of}: {error}; again in {wait}"));
            tokio::select! {
                () = tokio::time::sleep(wait.0) => {}
                () = self.with.stop.cancelled() => return Err(StepError::interrupted()),
            }
        }
    }

    async fn attempt(
        &self,
        step: &PlannedStep,
        call: StepCall,
        attempt: u32,
    ) -> Result<Foresight, StepError> {
        let stop = self.with.stop.child_token();
        let executor = Arc::clone(&self.with.executor);
        let mut flight = executor.foresee(call, self.context(step, attempt, stop.clone()));
        let Some(timeout) = step.timeout else { return flight.await };
        tokio::select! {
            seen = &mut flight => return seen,
            () = tokio::time::sleep(timeout.0) => stop.cancel(),
        }
        // What it has begun, such as a program, has a moment to end.
        let _ = tokio::time::timeout(GRACE.0, flight).await;
        Err(too_long(ErrorKind::Timeout, "its timeout", timeout))
    }

    /// What expressions see of a step that failed for good.
    pub(super) fn failed(&mut self, step: &PlannedStep, attempts: u32) {
        let at = self.with.run.created_at.to_string();
        let facts = json!({ "status": "failed", "attempts": attempts, "started_at": at, "ended_at": at });
        self.known.insert(step.id.clone(), facts);
        self.failing.insert(step.id.clone());
    }
}
