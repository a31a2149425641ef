//! Changes that a freeze asked another system for and that nobody saw come about: a slow server, or a proxy before it, may still make them
//! when the freeze has long been lifted. A release waits them out.

use std::time::Duration as StdDuration;

use runbook_engine::duration::Duration;
use runbook_engine::error::{Outcome, StepError};
use runbook_engine::step::{Batch, Intent, Settlement};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Freeze;
use super::way::{Side, Way};
use crate::in_flight;
use crate::kind::Context;

/// The member that tells such an announcement from those of the probe.
const CHANGE: &str = "freezes";

/// How often a value is looked at that may still change.
const PAUSE: StdDuration = StdDuration::from_millis(250);

/// What may still come about.
pub(super) struct Late {
    batches: Vec<Batch>,
    /// Whether it is the only change that is asked for since, so that nothing else can have made it.
    alone: bool,
}

impl Late {
    /// What was asked for, and neither refused nor seen.
    pub(super) async fn of(cx: &Context) -> Result<Self, StepError> {
        let view = cx.ledger.view().await?;
        let change = |batch: &Batch| batch.what.get(CHANGE).is_some();
        let batches: Vec<Batch> = view.unsettled.into_iter().filter(change).collect();
        let alone = batches.len() == 1 && batches[0].number == view.last;
        Ok(Self { batches, alone })
    }

    /// The one change that may be under way was seen to be made: nothing is left to come. Where there are several, nobody knows which it was.
    pub(super) async fn came(&mut self, cx: &Context) -> Result<(), StepError> {
        if self.alone { self.over(json!({ "made": true }), cx).await } else { Ok(()) }
    }

    async fn over(&mut self, outcome: Value, cx: &Context) -> Result<(), StepError> {
        for batch in std::mem::take(&mut self.batches) {
            let settlement = Settlement { outcome: outcome.clone(), ..Settlement::default() };
            cx.ledger.settle(batch.number, settlement).await?;
        }
        Ok(())
    }
}

/// A change that was asked for, and was not seen yet.
pub(super) struct Announced(Option<u64>);

impl Announced {
    /// The change was seen to be made: it is not under way any more.
    pub(super) async fn arrived(self, cx: &Context) -> Result<(), StepError> {
        self.over(json!({ "made": true }), cx).await
    }

    async fn over(&self, outcome: Value, cx: &Context) -> Result<(), StepError> {
        let Some(batch) = self.0 else { return Ok(()) };
        cx.ledger.settle(batch, Settlement { outcome, ..Settlement::default() }).await?;
        Ok(())
    }
}

impl Freeze {
    /// How long a change may be under way, when it is made by another system.
    fn takes(&self, way: &dyn Way, cx: &Context) -> Result<Option<StdDuration>, StepError> {
        Ok(way.call_takes(cx)?.map(|takes| takes.max(self.settle.0)))
    }

    /// Puts the replacement there. Until [`Announced::arrived`] it counts as under way, unless it was refused for good: a server that answers that it
    /// is busy, or will see to it, may do so later.
    pub(super) async fn applied(
        &self,
        way: &dyn Way,
        cx: &Context,
        original: &Value,
    ) -> Result<Announced, StepError> {
        let Some(takes) = self.takes(way, cx)? else {
            return way.apply(cx, original).await.map(|()| Announced(None));
        };
        let what = in_flight::announced(json!({ CHANGE: way.target() }), takes);
        let intent = Intent { what: cx.redactor.value(&what), items: 0, charged_items: 0, charged_bytes: 0 };
        let announced = Announced(Some(cx.ledger.intend(intent).await?.number));
        let applied = way.apply(cx, original).await;
        if applied.as_ref().is_err_and(|error| error.outcome != Outcome::Unknown) {
            announced.over(json!({ "refused": true }), cx).await?;
            return applied.map(|()| Announced(None));
        }
        applied.map(|()| announced)
    }

    /// Why the original that is read does not prove that the freeze is lifted: a change may still come.
    pub(super) async fn may_come(&self, way: &dyn Way, cx: &Context) -> Result<Option<StepError>, StepError> {
        let left = self.left(way, &Late::of(cx).await?, cx)?;
        Ok((!left.is_zero()).then(|| {
            let label = way.label();
            let left = Duration::from_secs(left.as_secs() + 1);
            StepError::transient(format!(
                "{label} is at its original value, but a change of it that was asked for may still come, for {left}"
            ))
        }))
    }

    fn left(&self, way: &dyn Way, late: &Late, cx: &Context) -> Result<StdDuration, StepError> {
        let takes = self.takes(way, cx)?.unwrap_or_default();
        let left = late.batches.iter().map(|batch| in_flight::left(&batch.what, takes)).max();
        Ok(left.unwrap_or_default())
    }

    /// Watches that the original stays until nothing can be under way any more, and puts it back when something came; somebody else's
    /// value, when one is found.
    pub(super) async fn outlast(
        &self,
        way: &dyn Way,
        late: &mut Late,
        cx: &Context,
        original: &Value,
    ) -> Result<Option<String>, StepError> {
        if late.batches.is_empty() {
            return Ok(None);
        }
        let left = self.left(way, late, cx)?;
        if !left.is_zero() {
            cx.live.say(&format!(
                "{}: the change that was asked for was not seen and may still come: watching for {} that it stays at its original value",
                way.label(),
                Duration::from_secs(left.as_secs() + 1)
            ));
        }
        let watched = self.watch(way, late, cx, original, Instant::now() + left).await;
        watched.map_err(|error| {
            let help = "the change that was asked for was not seen and may still come, so that it can not be said to be lifted";
            StepError { help: error.help.or_else(|| Some(help.to_owned())), ..error }
        })
    }

    async fn watch(
        &self,
        way: &dyn Way,
        late: &mut Late,
        cx: &Context,
        original: &Value,
        end: Instant,
    ) -> Result<Option<String>, StepError> {
        while !late.batches.is_empty() {
            let begun = Instant::now();
            let present = match way.read(cx).await {
                // A server that is coming up, or a proxy before it, may answer anything.
                Err(_) if begun < end => {
                    tokio::time::sleep_until((begun + PAUSE).min(end)).await;
                    continue;
                }
                present => present?,
            };
            match way.side(&present, original) {
                Side::Foreign => return Ok(Some(way.text(&present))),
                Side::Ours => {
                    cx.live.say(&format!("{}: the change came late; putting it back", way.label()));
                    way.put_back(cx, original).await?;
                    way.restart(cx).await?;
                    self.seen(way, cx, original, Side::Original).await?;
                    late.came(cx).await?;
                }
                Side::Original if begun >= end => late.over(json!({ "waited_out": true }), cx).await?,
                Side::Original => tokio::time::sleep_until((begun + PAUSE).min(end)).await,
            }
        }
        Ok(None)
    }
}
