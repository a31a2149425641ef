//! Step kind `redis-flush`: a database of a Redis server emptied, or all of them.

mod keyspace;
mod work;

use std::collections::BTreeMap;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::keyspace::Keyspace;
use self::work::Work;
use crate::had;
use crate::kind::{Context, End, Step, would};

/// Empties the database of a connection, or every database of its server. Keys are counted before and after; the limits are asked for as many items as
/// there are before, and the step fails when keys are there again right after: something still writes then.
///
/// The flush leaves a key of its own, `runbook:flushed:…`, in the database of the connection in the same transaction. It stands there until the flush is
/// recorded, so after a crash the server tells whether it happened, and nothing is flushed twice.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisFlush {
    /// The name of a connection of type `redis`.
    pub connection: String,
    /// What is emptied. Default `database`.
    #[serde(default)]
    pub scope: Scope,
    /// What is done when keys are there again right after the flush. Default `fail`.
    #[serde(default)]
    pub came_back: CameBack,
}

/// What is emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The database of the connection.
    #[default]
    Database,
    /// Every database of the server, whoever uses them.
    All,
}

/// What is done when keys are there again right after a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CameBack {
    /// The step fails.
    #[default]
    Fail,
    /// It is said, and counted in the outputs.
    Report,
}

/// What was flushed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The database of the connection, with its server.
    pub server: String,
    /// What was emptied.
    pub scope: Scope,
    /// Whether anything had to be flushed.
    pub flushed: bool,
    /// How many keys there were before.
    pub keys_before: u64,
    /// How many keys there are after: those that came back.
    pub keys_after: u64,
    /// The same before, by the number of the database; those without a key are left out.
    pub before: BTreeMap<String, u64>,
    /// The same after.
    pub after: BTreeMap<String, u64>,
}

#[async_trait]
impl Step for RedisFlush {
    const NAME: &'static str = "redis-flush";
    const SUMMARY: &'static str =
        "Empties a database of a Redis server, or all of them, counted before and after";
    const EXAMPLE: &'static str = "\
id: clear_cache
uses: redis-flush
with:
  connection: cache
";
    type Outputs = Outputs;
    const TIDIES: bool = true;

    fn effect(_: &Value) -> Effect {
        Effect::DESTROY
    }

    async fn foresee(self, _: Effect, cx: &Context) -> Result<Foresight, StepError> {
        let work = Work::begin(&self, cx)?;
        let keys = work.count().await?.sum();
        // How many is not said in words, which a plan is held to: a cache is never the same twice.
        let does = format!(
            "flush {}; the plan binds which one, and not its keys: whatever is there goes",
            work.place()
        );
        Ok(Foresight { items: keys, population: Some((work.place(), keys)), ..would(does) })
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        cx.checkpoint()?;
        Work::begin(&self, cx)?.run().await.map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        let unknown = |error| had::not_looked("its last flush", error);
        let work = Work::begin(&self, cx).map_err(unknown)?;
        work.conclude().await.map_err(unknown)
    }
}
