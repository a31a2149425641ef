//! What a reviewed plan lets a step do, asked right before it begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DriveError;
use super::run::Loop;
use crate::error::{ErrorKind, StepError};
use crate::expr;
use crate::kinds::Class;
use crate::plan::{Drift, PlannedStep, Reviewed};
use crate::saved;
use crate::scope;
use crate::state::StepStatus;
use crate::step::Executor;

/// The systems that a plan is about.
pub(super) struct PlannedSystems {
    plan: String,
    systems: BTreeMap<String, String>,
}

impl PlannedSystems {
    /// Of kind drift when one of them is another one now.
    pub(super) async fn same(&self, executor: &dyn Executor) -> Result<(), StepError> {
        let moved = saved::systems(&self.systems, &executor.systems().await?);
        let words: Vec<String> = moved.iter().map(|one| format!("`{}`: {}", one.name, one.how)).collect();
        if words.is_empty() {
            return Ok(());
        }
        let what = format!("the reviewed plan {} is about other systems: {}", self.plan, words.join("; "));
        Err(refused(what, "put them back as they were and resume, or cancel the run and make a new plan"))
    }
}

impl Loop {
    /// The systems that have to be the planned ones before this step begins: any that changes something may reach any of them.
    pub(super) fn systems_of(&self, step: &PlannedStep) -> Option<PlannedSystems> {
        let reviewed = self.owner.plan.reviewed.as_ref().filter(|_| step.effect.class != Class::Read)?;
        Some(PlannedSystems { plan: reviewed.short_id().to_owned(), systems: reviewed.systems.clone() })
    }

    /// Why the reviewed plan does not let a step run. One that has a set of items holds itself to that.
    pub(super) async fn unplanned(
        &mut self,
        step: &PlannedStep,
        scope: &expr::Scope,
    ) -> Result<Option<StepError>, DriveError> {
        let plan = Arc::clone(&self.owner.plan);
        let Some(reviewed) = plan.reviewed.as_ref() else { return Ok(None) };
        let reads = step.effect.class == Class::Read;
        // What is asked about items may be another thing when they may be fewer.
        if reads && (plan.drift == Drift::Subset || !reviewed.settings.contains_key(&step.id)) {
            return Ok(None);
        }
        if step.effect.class.may_destroy() && self.late(step, reviewed).await? {
            let until = reviewed.expires_at.strftime("%Y-%m-%d %H:%M:%S UTC");
            let what = format!("the reviewed plan {} expired at {until}", reviewed.short_id());
            let help =
                "cancel the run, make a new plan and have it reviewed; `plan --expires` gives it more time";
            return Ok(Some(refused(what, help)));
        }
        let id = reviewed.short_id();
        if step.effect.class.may_destroy()
            && let Some(missing) = self.left_out(reviewed, step)
        {
            let what = format!("{missing}, and the reviewed plan {id} says that it is done before");
            return Ok(Some(refused(what, "cancel the run, make a new plan and have it reviewed")));
        }
        if reviewed.sets.contains_key(&step.id) {
            return Ok(None);
        }
        let what = match reviewed.settings.get(&step.id) {
            Some(planned) => {
                let now = scope::settings_digest(&plan, step, &|uses| self.executor.kind(uses), scope);
                match scope::settings_words(planned, &now.unwrap_or_default()) {
                    Some(words) => format!("{words} than in the reviewed plan {id}"),
                    None => return Ok(None),
                }
            }
            None if reviewed.skipped.contains(&step.id) => {
                format!("the reviewed plan {id} says that it is skipped")
            }
            None if step.effect.class.may_destroy() => {
                format!("the reviewed plan {id} does not say what it would do")
            }
            None => return Ok(None),
        };
        Ok(Some(refused(what, "cancel the run, make a new plan and have it reviewed")))
    }

    /// What the plan promised beside what this step destroys, and was not kept: a step that was skipped, that is not as it was planned, or
    /// that asked and has no answer. One that only failed, while the run goes on all the same, is what its author allows.
    fn left_out(&self, reviewed: &Reviewed, step: &PlannedStep) -> Option<String> {
        let plan = &self.owner.plan;
        let last = plan.finally.iter().any(|one| one.id == step.id);
        reviewed.promised.iter().filter(|id| **id != step.id).find_map(|id| {
            let stands = self.owner.state.step(id)?;
            let drifted = stands.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Drift);
            let before = last && plan.steps.iter().any(|one| one.id == *id);
            let asks = reviewed.asks.contains(id);
            match stands.status {
                StepStatus::Skipped => Some(format!("`{id}` was skipped")),
                StepStatus::Failed if drifted => Some(format!("`{id}` is not as it was planned")),
                StepStatus::Failed if asks => Some(format!("`{id}` asked, and has failed")),
                StepStatus::Succeeded => None,
                _ if before && asks => Some(format!("what `{id}` asks was not answered")),
                _ => None,
            }
        })
    }

    /// Whether the plan's time is over for a step that destroys. One that has begun with its set goes on: every item that is left is held
    /// to what was reviewed, and stopping half-way makes nothing safer. Of others it is not known how far they came.
    async fn late(&mut self, step: &PlannedStep, reviewed: &Reviewed) -> Result<bool, DriveError> {
        if self.owner.clock.now() < reviewed.expires_at {
            return Ok(false);
        }
        let ledger = self.owner.store.ledger(&self.owner.run, &step.id).await?;
        Ok(!reviewed.sets.contains_key(&step.id) || ledger.last_batch == 0)
    }
}

fn refused(what: impl std::fmt::Display, help: &str) -> StepError {
    StepError::new(ErrorKind::Drift, format!("not begun: {what}"))
        .with_help(format!("nothing of this step was done; {help}"))
}
