//! A transaction in the ledger: announced before it is committed, and settled after a crash by whoever can tell what became of it.

use std::time::Duration;

use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::{Batch, Intent, Settlement};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::work::single;
use super::{Expect, Part};
use crate::connections::sql::{Begin, Database, Dialect, Fate};
use crate::effect::uncharged;
use crate::had;
use crate::kind::Context;

/// How often the server is asked about a transaction that is not over, a second apart.
const LOOKS: u32 = 30;

/// What the ledger says of a transaction before it is committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Announced<T> {
    /// How often the step had been reopened.
    pub series: u32,
    /// How many items it destroys.
    pub items: u64,
    /// What the server calls it, where it can be asked.
    pub transaction: Option<String>,
    /// What the server calls the connection, where the statement is announced before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// What the step comes to when it is committed.
    pub outputs: T,
}

/// What is done about a transaction of which nothing can tell what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsure {
    /// It is done again: the author declared that it may be, or a person said so.
    Again,
    /// The same, unless it was still at work when that was said: then it is not known what the word was about.
    AgainWhenOver,
    /// It is done again when the step was reopened since, and the step fails otherwise.
    WhenReopened,
}

/// What was announced.
fn announced<T: DeserializeOwned>(batch: &Batch) -> Result<Announced<T>, StepError> {
    Announced::<T>::deserialize(&batch.what)
        .map_err(|error| StepError::new(ErrorKind::Bug, format!("the ledger is unreadable: {error}")))
}

/// The ledger of a step that commits transactions.
#[derive(Clone, Copy)]
pub(crate) struct Settling<'a> {
    /// The step's context.
    pub cx: &'a Context,
    /// Where the transactions are.
    pub database: &'a Database,
    /// What tells whether one was committed.
    pub check: Option<&'a Part>,
    /// What is done when nothing tells.
    pub unsure: Unsure,
}

impl Settling<'_> {
    /// What an earlier attempt came to, if one had its effect; what a killed process left open is settled first.
    pub async fn earlier<T: Serialize + DeserializeOwned>(
        &self,
        series: u32,
    ) -> Result<Option<T>, StepError> {
        let view = self.cx.ledger.view().await?;
        if let Some(outputs) = had::outputs(&view, series) {
            return Ok(Some(outputs));
        }
        for batch in view.unsettled {
            if let Some(outputs) = self.settle_open(&batch, series).await? {
                return Ok(Some(outputs));
            }
        }
        Ok(None)
    }

    async fn settle_open<T: Serialize + DeserializeOwned>(
        &self,
        batch: &Batch,
        series: u32,
    ) -> Result<Option<T>, StepError> {
        let announced = announced::<T>(batch)?;
        let was_at_work = match &announced.backend {
            Some(backend) => self.over(backend).await?,
            None => false,
        };
        match self.happened(announced.transaction.as_deref()).await? {
            Some(true) => {
                let announced = Announced { series, ..announced };
                self.took_effect(batch.number, &announced).await?;
                return Ok(Some(announced.outputs));
            }
            None if self.unsure == Unsure::WhenReopened && announced.series == series => {
                let message = "nothing tells whether the transaction of the last attempt was committed";
                return Err(
                    StepError::gate(message).with_help("look at the database; to resume does it again")
                );
            }
            None if was_at_work && self.unsure == Unsure::AgainWhenOver => {
                let message = "the statement of the last attempt was still at work on the server when it was to be done again; it is over now, and was not done again";
                return Err(StepError::gate(message)
                    .unknown()
                    .with_help("look whether it had its effect, then answer; a `check` in the step would find out by itself"));
            }
            Some(false) | None => {}
        }
        let outcome = json!({ "repeated": true });
        self.cx.ledger.settle(batch.number, Settlement { outcome, ..Settlement::default() }).await?;
        Ok(None)
    }

    /// Records what became of what a cancel cut off, where anything can tell. Nothing is done again then.
    pub async fn conclude<T: Serialize + DeserializeOwned>(&self) -> Result<(), StepError> {
        for batch in self.cx.ledger.view().await?.unsettled {
            let announced = announced::<T>(&batch)?;
            let place = self.database.describe();
            let unknown = |error| had::not_looked(&format!("the last attempt at {place}"), error);
            if let Some(backend) = &announced.backend
                && self.database.is_at_work(backend).await.map_err(|failure| unknown(failure.into()))?
            {
                let (id, end) = self.ending(backend);
                let message = format!("the server is still at work on it, as connection {id}");
                let help = format!("wait for its end, or end it by `{end}`, then cancel again");
                return Err(unknown(StepError::transient(message).with_help(help)));
            }
            let became = match self.happened(announced.transaction.as_deref()).await.map_err(unknown)? {
                Some(true) => {
                    self.took_effect(batch.number, &announced).await?;
                    "took effect"
                }
                Some(false) => {
                    self.had_no_effect(batch.number, &StepError::interrupted()).await?;
                    "took no effect"
                }
                None => continue,
            };
            self.cx.live.say(&format!("the last attempt was cut off at {place}: it {became}"));
        }
        Ok(())
    }

    /// Announces a transaction, after the limits were asked for what it destroys, and gives it the name by which the server can be asked after a crash.
    pub async fn announce<T: Serialize>(&self, announced: &mut Announced<T>) -> Result<u64, StepError> {
        if let Some(transaction) = announced.transaction.take() {
            announced.transaction = self.database.kept(&transaction).await?;
        }
        let announced = &*announced;
        let what = serde_json::to_value(announced)
            .map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))?;
        let items = announced.items;
        let charged_items = if items == 0 { 0 } else { uncharged(items, self.cx).await? };
        let what = self.cx.redactor.value(&what);
        let intent = Intent { what, items, charged_items, charged_bytes: 0 };
        Ok(self.cx.ledger.intend(intent).await?.number)
    }

    /// The connection was lost in the middle of it: asks at once, and leaves it open when nobody can tell.
    pub async fn after_loss<T: Serialize>(
        &self,
        batch: u64,
        announced: Announced<T>,
        error: StepError,
    ) -> Result<T, StepError> {
        match self.happened(announced.transaction.as_deref()).await {
            Ok(Some(true)) => {
                self.took_effect(batch, &announced).await?;
                Ok(announced.outputs)
            }
            Ok(Some(false)) => {
                self.had_no_effect(batch, &error).await?;
                let message = "the connection was lost while committing, and nothing was committed";
                Err(StepError { causes: vec![error.message], ..StepError::transient(message) })
            }
            Ok(None) => Err(error.with_help(
                "look whether it was committed, then answer; a `check` in the step would find out by itself",
            )),
            Err(_) => Err(error),
        }
    }

    /// Records that it had its effect.
    pub async fn took_effect<T: Serialize>(
        &self,
        batch: u64,
        announced: &Announced<T>,
    ) -> Result<(), StepError> {
        let outputs = self.cx.redactor.value(&json!(announced.outputs));
        let settlement = had::settlement(&outputs, announced.series, json!({ "committed": true }))?;
        self.cx.ledger.settle(batch, Settlement { done: announced.items, ..settlement }).await
    }

    /// Records that it took effect, and not the one that was expected.
    pub async fn was_unexpected(&self, batch: u64, items: u64, error: &StepError) -> Result<(), StepError> {
        let outcome = self.cx.redactor.value(&json!({ "unexpected": error.message }));
        self.cx.ledger.settle(batch, Settlement { outcome, done: items, ..Settlement::default() }).await
    }

    /// Records that it had no effect.
    pub async fn had_no_effect(&self, batch: u64, error: &StepError) -> Result<(), StepError> {
        let outcome = json!({ "failed": error.message, "causes": error.causes });
        let outcome: Value = self.cx.redactor.value(&outcome);
        self.cx.ledger.settle(batch, Settlement { outcome, ..Settlement::default() }).await
    }

    /// Waits until a connection of an earlier attempt is not at work any more; whether it was.
    async fn over(&self, backend: &str) -> Result<bool, StepError> {
        for look in 0..LOOKS {
            if !self.database.is_at_work(backend).await? {
                return Ok(look > 0);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.cx.checkpoint()?;
        }
        let (id, end) = self.ending(backend);
        let message = format!(
            "the statement of the last attempt is still at work on the server, as connection {id}: it was not done again"
        );
        Err(StepError::transient(message)
            .unknown()
            .with_help(format!("wait for its end, or end it by `{end}`, then resume")))
    }

    /// What the server calls a connection, and the statement that ends it.
    fn ending<'b>(&self, backend: &'b str) -> (&'b str, String) {
        let id = backend.split(' ').next().unwrap_or_default();
        let end = match self.database.dialect() {
            Dialect::MySql => format!("kill {id}"),
            _ => format!("select pg_terminate_backend({id})"),
        };
        (id, end)
    }

    /// Whether it had its effect; nothing when nobody can tell.
    async fn happened(&self, transaction: Option<&str>) -> Result<Option<bool>, StepError> {
        let Some(transaction) = transaction else { return self.checked().await };
        for _ in 0..LOOKS {
            match self.database.fate(transaction).await? {
                Fate::Committed => return Ok(Some(true)),
                Fate::RolledBack => return Ok(Some(false)),
                Fate::Unknown => return self.checked().await,
                Fate::Open => tokio::time::sleep(Duration::from_secs(1)).await,
            }
            self.cx.checkpoint()?;
        }
        Err(StepError::transient("the transaction of the last attempt is not over"))
    }

    /// What the author's `check` says.
    async fn checked(&self) -> Result<Option<bool>, StepError> {
        let Some(check) = self.check else { return Ok(None) };
        let statement = single(&check.statement, self.database.dialect())?;
        let mut session = self.database.begin(Begin::ReadOnly).await?;
        let answer = session.run(&statement, &check.parameters, 100).await?;
        session.rollback().await?;
        session.finish().await;
        let a_row = Expect::rows_at_least(1);
        Ok(Some(check.expect.as_ref().unwrap_or(&a_row).wrong(&answer).is_none()))
    }
}
