//! What steps that were cut off left behind is taken away when the run is cancelled, and what became of their last batch is found out: no later attempt of
//! theirs does it any more.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::owner::Owner;
use super::run::Loop;
use super::{DriveError, Halt};
use crate::error::StepError;
use crate::event::{EventKind, RunOutcome};
use crate::plan::PlannedStep;
use crate::scope;

/// How long the tidying of one step may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What became of what the steps left behind.
#[derive(Default)]
pub(super) struct Tidied {
    /// What could not be taken away, in words.
    left: Vec<StepError>,
    /// Whether taking it away may work in a moment, or with other secrets: it was not even tried, or nobody answered.
    again: bool,
}

impl Tidied {
    /// How a run ends that is cancelled, and that had this error anyway. It stays open while a second cancel may take away what the first could not.
    pub(super) fn ended(self, error: Option<StepError>) -> EventKind {
        let outcome = if self.again { RunOutcome::Failed } else { RunOutcome::Cancelled };
        EventKind::RunEnded { outcome, error: with_left(error, self.left) }
    }
}

impl Loop {
    /// Tidies up after every step that began and is not done. `None` when the process is told to stop meanwhile: the run has not ended then, and the
    /// next cancel tidies up.
    pub(super) async fn tidied(&mut self) -> Result<Option<Tidied>, DriveError> {
        let state = &self.owner.state;
        let cut_off = |step: &&PlannedStep| {
            self.executor.tidies(&step.uses)
                && state.step(&step.id).is_some_and(|state| state.attempt > 0 && !state.is_over())
        };
        let steps: Vec<PlannedStep> = self.owner.plan.all_steps().filter(cut_off).cloned().collect();
        let mut all = Tidied::default();
        for step in steps {
            let scope = scope::of_release(&self.owner.plan, &self.owner.state, &self.info, &self.secrets);
            let call = match self.call(&step, &scope) {
                Ok(call) => call,
                // A secret of its settings is missing now.
                Err(error) => {
                    all.again = true;
                    all.left.push(self.left_by(&step, error));
                    continue;
                }
            };
            let executor = Arc::clone(&self.executor);
            let attempt = self.owner.state.step(&step.id).map_or(1, |state| state.attempt);
            let cx = self.context(&step, attempt, CancellationToken::new());
            let mut tidying = Box::pin(async move {
                let tidying = async { executor.tidy(call, cx).await };
                let late =
                    |_| Err(StepError::transient(format!("it took longer than {} s", LONGEST.as_secs())));
                tokio::time::timeout(LONGEST, tidying).await.unwrap_or_else(late)
            });
            let tidied = loop {
                tokio::select! {
                    tidied = &mut tidying => break tidied,
                    () = tokio::time::sleep(Owner::poll()) => self.owner.renew().await?,
                }
                if *self.halt.borrow() > Halt::No {
                    return Ok(None);
                }
            };
            if let Err(error) = tidied {
                all.again |= error.kind.retryable();
                all.left.push(self.left_by(&step, error));
            }
        }
        Ok(Some(all))
    }

    fn left_by(&self, step: &PlannedStep, error: StepError) -> StepError {
        let message = format!("what `{}` left open was not settled: {}", step.id, error.message);
        self.masked(StepError { message, ..error })
    }
}

/// The error that a cancelled run ends with: what it had anyway, and what is left behind.
fn with_left(error: Option<StepError>, left: Vec<StepError>) -> Option<StepError> {
    error.into_iter().chain(left).reduce(|mut first, next| {
        first.causes.push(next.message);
        first.help = match (first.help, next.help) {
            (Some(one), Some(other)) => Some(format!("{one}; {other}")),
            (one, other) => one.or(other),
        };
        first
    })
}
