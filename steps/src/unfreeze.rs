//! `unfreeze`: puts back what a `freeze` step changed.

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::error::StepError;
use runbook_engine::event::{Closed, EventKind, Obligation, ObligationChange};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use runbook_engine::state::ObligationPhase;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::freeze::original_text;
use crate::kind::{Context, End, Step, would};

/// Puts back what a `freeze` step changed, and proves it by reading. A value that somebody else put there meanwhile is left alone,
/// and the step fails.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unfreeze {
    /// The id of the `freeze` step.
    freeze: String,
    /// Whether it is fine when nothing is frozen (any more). Default: false, which makes that a failure: what ran since then may
    /// have run on a system that was not frozen.
    #[serde(default)]
    if_open: bool,
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct UnfreezeOutputs {
    /// What was frozen; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The value that is back, for people; absent when nothing was frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
    /// How it ended.
    pub how: How,
    /// When.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub unfrozen_at: Timestamp,
}

/// How a freeze ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The original value was put back.
    Restored,
    /// The original value had never been changed.
    Untouched,
    /// Somebody else had put the original value back before: what ran since then may have run on a system that was not frozen.
    Undone,
    /// It could not be put back by a run; a person did it and said so.
    ByHand,
    /// Nothing was frozen.
    NotOpen,
}

/// The fact that this step has begun to release.
const BEGUN: &str = "release begun";

fn tells_undone(event: &EventKind) -> bool {
    matches!(event, EventKind::Obligation { change: ObligationChange::Closed { how: Closed::Undone }, .. })
}

#[async_trait]
impl Step for Unfreeze {
    const NAME: &'static str = "unfreeze";
    const SUMMARY: &'static str = "Puts back what a freeze step changed";
    const EXAMPLE: &'static str = "\
- id: unfreeze_uploads
  uses: unfreeze
  with: { freeze: freeze_uploads }
";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/unfrozen_at"];
    type Outputs = UnfreezeOutputs;

    fn effect(_: &Value) -> Effect {
        Effect::WRITE
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        Ok(would(format!("put back what `{}` changed", self.freeze)))
    }

    async fn run(self, cx: &Context) -> Result<End<UnfreezeOutputs>, StepError> {
        cx.checkpoint()?;
        let begun = cx.ledger.recall(BEGUN).await?.is_some();
        if !begun && self.is_open(cx).await? {
            cx.ledger.remember(BEGUN, json!(true)).await?;
        }
        let mut closed: Vec<(Obligation, Closed)> = cx
            .obligations
            .release(&self.freeze)
            .await?
            .into_iter()
            .map(|released| (released.obligation, released.how))
            .collect();
        // A crash may have come between the release and the end of this step.
        if closed.is_empty() && begun {
            closed = self.closed(cx).await?;
        }
        if let Some((obligation, Closed::Undone)) = closed.first() {
            self.undone(cx, obligation).await?;
        }
        self.outputs(closed).map(End::Done)
    }
}

impl Unfreeze {
    async fn is_open(&self, cx: &Context) -> Result<bool, StepError> {
        let state = cx.history.state().await?;
        Ok(state.open_obligations().any(|(_, one)| one.obligation.step == self.freeze))
    }

    /// The last obligation of the freeze step, which is over.
    async fn closed(&self, cx: &Context) -> Result<Vec<(Obligation, Closed)>, StepError> {
        let state = cx.history.state().await?;
        let last = state
            .obligations
            .into_values()
            .filter(|one| one.obligation.step == self.freeze)
            .max_by_key(|one| one.opened_at);
        Ok(match last.map(|one| (one.obligation, one.phase)) {
            Some((obligation, ObligationPhase::Closed(how))) => vec![(obligation, how)],
            _ => Vec::new(),
        })
    }

    /// Fails the first time, so that a person looks; a run that is resumed after that goes on.
    async fn undone(&self, cx: &Context, obligation: &Obligation) -> Result<(), StepError> {
        let events = cx.history.store.events(&cx.history.run, 0).await.map_err(|error| error.for_step())?;
        let mut later = events.iter().skip_while(|event| !tells_undone(&event.what));
        if later.any(|event| matches!(&event.what, EventKind::StepFailed { step, .. } if *step == cx.step)) {
            return Ok(());
        }
        let message = format!(
            "somebody else had put {} back to {} before the run did: what ran since may have run on a system that was not frozen",
            obligation.label,
            original_text(obligation)
        );
        Err(StepError::gate(message).with_help(
            "it is back now; look at what was written meanwhile, then `runbook resume` goes on after it",
        ))
    }

    fn outputs(&self, closed: Vec<(Obligation, Closed)>) -> Result<UnfreezeOutputs, StepError> {
        let unfrozen_at = Timestamp::now();
        let Some((obligation, how)) = closed.into_iter().next() else {
            if self.if_open {
                return Ok(UnfreezeOutputs { target: None, restored: None, how: How::NotOpen, unfrozen_at });
            }
            let message = format!("`{}` holds nothing frozen", self.freeze);
            return Err(StepError::gate(message).with_help(
                "it was lifted already, or never in force: what ran since then may have run on a system that was not frozen",
            ));
        };
        let restored = original_text(&obligation);
        let how = match how {
            Closed::Restored => How::Restored,
            Closed::Untouched => How::Untouched,
            Closed::Undone => How::Undone,
            Closed::ByHand { .. } => How::ByHand,
            Closed::Foreign { present } => {
                let message = format!(
                    "{} was changed by somebody else to {present}: it was left alone and is NOT back at {restored}",
                    obligation.label
                );
                return Err(
                    StepError::gate(message).with_help("find out who changed it and what it should be")
                );
            }
            Closed::Expired => {
                let message = format!(
                    "{} was put back to {restored} because it had been held for {}",
                    obligation.label, obligation.max_hold
                );
                return Err(StepError::gate(message));
            }
        };
        Ok(UnfreezeOutputs { target: Some(obligation.target), restored: Some(restored), how, unfrozen_at })
    }
}
