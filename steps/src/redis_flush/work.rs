//! One attempt of `redis-flush`.

use std::sync::Arc;

use redis::{cmd, pipe};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::step::{Intent, Settlement};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keyspace::Keyspace;
use super::{CameBack, Outputs, RedisFlush, Scope};
use crate::connections::redis::{Redis, failed};
use crate::effect::uncharged;
use crate::had;
use crate::kind::Context;
use crate::retry::patiently;

/// What the ledger says of a flush before it is sent.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Announced {
    before: Outputs,
}

fn announced(what: &Value) -> Result<Announced, StepError> {
    Announced::deserialize(what)
        .map_err(|error| StepError::new(ErrorKind::Bug, format!("the ledger is unreadable: {error}")))
}

/// One attempt.
pub(super) struct Work<'a> {
    step: &'a RedisFlush,
    cx: &'a Context,
    redis: Arc<Redis>,
    /// The key that stands for a flush which is not recorded yet.
    mark: String,
}

impl<'a> Work<'a> {
    pub(super) fn begin(step: &'a RedisFlush, cx: &'a Context) -> Result<Self, StepError> {
        let redis = cx.resources.connection::<Redis>(&step.connection)?;
        let mark = format!("runbook:flushed:{}:{}", cx.run.id, cx.step);
        Ok(Self { step, cx, redis, mark })
    }

    /// What is flushed, in words.
    pub(super) fn place(&self) -> String {
        match self.step.scope {
            Scope::Database => format!("the database {}", self.redis.describe()),
            Scope::All => format!("every database of the server of {}", self.redis.describe()),
        }
    }

    /// How many keys there are.
    pub(super) async fn count(&self) -> Result<Keyspace, StepError> {
        let counting = patiently(|| Keyspace::count(&self.redis, self.step.scope));
        self.cx.unless_abandoned(counting).await
    }

    pub(super) async fn run(self) -> Result<Outputs, StepError> {
        let series = had::series(self.cx).await?;
        let view = self.cx.ledger.view().await?;
        let marked = self.marked().await?;
        if let Some(outputs) = had::outputs::<Outputs>(&view, series) {
            self.unmark(marked).await?;
            return Ok(outputs);
        }
        for batch in view.unsettled {
            if self.happened(batch.number, marked).await? {
                self.cx.live.say("the flush of the last attempt had happened");
                return self.took_effect(batch.number, announced(&batch.what)?.before, series, marked).await;
            }
            let outcome = json!({ "repeated": true });
            self.cx.ledger.settle(batch.number, Settlement { outcome, ..Settlement::default() }).await?;
        }
        // It stands for a flush that is recorded, and that this one comes after.
        self.unmark(marked).await?;
        self.flush(series).await
    }

    /// Records what became of a flush that a cancel cut off, and takes its mark away. Nothing more is flushed.
    pub(super) async fn conclude(self) -> Result<(), StepError> {
        let view = self.cx.ledger.view().await?;
        if view.unsettled.is_empty() && view.totals.done == 0 {
            return Ok(());
        }
        let marked = self.marked().await?;
        for batch in view.unsettled {
            let flushed = if self.happened(batch.number, marked).await? { batch.items } else { 0 };
            let what = if flushed == 0 { "had not happened" } else { "had happened" };
            self.cx.live.say(&format!("the flush of {} was cut off: it {what}", self.place()));
            let outcome = json!({ "flushed": flushed, "cut_off": true });
            let cursor = view.cursor.clone().unwrap_or_default();
            let settlement = Settlement { cursor, outcome, done: flushed, ..Settlement::default() };
            self.cx.ledger.settle(batch.number, settlement).await?;
        }
        self.unmark(marked).await
    }

    /// Whether an announced flush took effect. An empty database needs none, whoever emptied it.
    async fn happened(&self, batch: u64, marked: Option<u64>) -> Result<bool, StepError> {
        Ok(marked == Some(batch) || self.count().await?.sum() == 0)
    }

    async fn flush(&self, series: u32) -> Result<Outputs, StepError> {
        let before = self.count().await?;
        let keys = before.sum();
        let outputs = Outputs {
            server: self.redis.describe().to_owned(),
            scope: self.step.scope,
            flushed: keys > 0,
            keys_before: keys,
            before: before.named(),
            ..Outputs::default()
        };
        if keys == 0 {
            return Ok(outputs);
        }
        self.cx.ledger.measure(keys, &self.place()).await?;
        let announced = Announced { before: outputs };
        let intent = Intent {
            what: json!(announced),
            items: keys,
            charged_items: uncharged(keys, self.cx).await?,
            charged_bytes: 0,
        };
        self.cx.checkpoint()?;
        let batch = self.cx.ledger.intend(intent).await?.number;
        match crash::around("redis-flush: flush", self.send(batch)).await {
            Ok(()) => self.took_effect(batch, announced.before, series, Some(batch)).await,
            // Whoever enters next asks the server whether it happened.
            Err(error) if error.outcome == Outcome::Unknown => Err(error),
            Err(error) => {
                let outcome = self.cx.redactor.value(&json!({ "failed": error.message }));
                self.cx.ledger.settle(batch, Settlement { outcome, ..Settlement::default() }).await?;
                Err(error)
            }
        }
    }

    /// Flushes and leaves the mark, at once, and never a second time.
    async fn send(&self, batch: u64) -> Result<(), StepError> {
        let what = format!("flushing {}", self.place());
        let mut commands = pipe();
        commands.atomic();
        commands.cmd(if self.step.scope == Scope::All { "FLUSHALL" } else { "FLUSHDB" }).arg("ASYNC");
        commands.cmd("SET").arg(&self.mark).arg(batch);
        let mut answers = self.redis.ask_all(&what, &mut commands).await?.into_iter();
        match answers.next() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(failed(&what, &error)),
            None => Err(StepError::transient(format!("{what}: no answer")).unknown()),
        }
    }

    /// Counts what came back, and records the end.
    async fn took_effect(
        &self,
        batch: u64,
        before: Outputs,
        series: u32,
        marked: Option<u64>,
    ) -> Result<Outputs, StepError> {
        let mut after = self.count().await?;
        if marked.is_some() {
            after = after.less_one(self.redis.database());
        }
        let (keys, items) = (after.sum(), before.keys_before);
        let outputs = Outputs { keys_after: keys, after: after.named(), ..before };
        let again =
            format!("{keys} keys are there again right after {} was flushed of {items}", self.place());
        if keys > 0 && self.step.came_back == CameBack::Fail {
            let outcome = json!({ "unexpected": again });
            self.cx
                .ledger
                .settle(batch, Settlement { outcome, done: items, ..Settlement::default() })
                .await?;
            self.unmark(marked).await?;
            return Err(StepError::gate(format!("{again}: something still writes to it")).with_help(
                "stop what writes, then resume: what is there by then is counted and flushed again",
            ));
        }
        if keys > 0 {
            self.cx.live.say(&again);
        }
        let settlement = had::settlement(&outputs, series, json!({ "flushed": items }))?;
        self.cx.ledger.settle(batch, Settlement { done: items, ..settlement }).await?;
        self.unmark(marked).await?;
        Ok(outputs)
    }

    /// The number of the batch whose flush left the mark that is there.
    async fn marked(&self) -> Result<Option<u64>, StepError> {
        let what = "looking whether it was flushed";
        let look = async || {
            let answer = self.redis.ask(what, cmd("GET").arg(&self.mark)).await?;
            redis::from_redis_value(answer).map_err(|error| failed(what, &error.into()))
        };
        self.cx.unless_abandoned(patiently(look)).await
    }

    async fn unmark(&self, marked: Option<u64>) -> Result<(), StepError> {
        if marked.is_none() {
            return Ok(());
        }
        let remove =
            async || self.redis.ask("removing the mark of the flush", cmd("DEL").arg(&self.mark)).await;
        crash::around("redis-flush: unmark", patiently(remove)).await.map(drop)
    }
}
