//! Step kind `redis-info`: which Redis server it is, and how many keys it holds.

use std::collections::BTreeMap;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connections::redis::Redis;
use crate::kind::{Context, End, Step};
use crate::redis_flush::{Keyspace, Scope};
use crate::retry::patiently;
use crate::sql::Amount;

/// Asks a Redis server which one it is, and counts the keys of the database of a connection, or of every database of its server. The step fails when
/// there are not as many as there should be.
///
/// `run_id` is what the server calls itself since it was started: two addresses that lead to the same `run_id` lead to the same server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisInfo {
    /// The name of a connection of type `redis`.
    pub connection: String,
    /// Whose keys are counted. Default `database`.
    #[serde(default)]
    pub scope: Scope,
    /// What the server must call itself, such as the `run_id` that a step before this one found.
    #[serde(default)]
    pub run_id: Option<String>,
    /// How many keys there must be in all: a number, or `min` and `max`.
    #[serde(default)]
    pub expect: Option<Amount>,
}

/// What there is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// The database of the connection, with its server.
    pub server: String,
    /// The number of that database.
    pub database: i64,
    /// What the server calls itself, 40 hex digits; none when the user may not ask.
    pub run_id: Option<String>,
    /// How many keys there are in all.
    pub keys: u64,
    /// The same by the number of the database; those without a key are left out.
    pub by_database: BTreeMap<String, u64>,
}

#[async_trait]
impl Step for RedisInfo {
    const NAME: &'static str = "redis-info";
    const SUMMARY: &'static str = "Says which Redis server it is, and counts the keys of its databases";
    const EXAMPLE: &'static str = "\
id: cache_empty
uses: redis-info
with:
  connection: cache
  scope: all
  expect: 0
";
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        let redis = cx.resources.connection::<Redis>(&self.connection)?;
        let run_id = cx.unless_abandoned(patiently(|| redis.run_id())).await?;
        let server = redis.describe().to_owned();
        if let Some(wanted) = self.run_id.filter(|wanted| run_id.as_ref() != Some(wanted)) {
            let is = run_id.as_deref().unwrap_or("one that does not say which it is");
            return Err(StepError::gate(format!(
                "the server of {server} is {is}, and {wanted} was expected"
            ))
            .with_help("it was started again since, or the address leads to another server now"));
        }
        let keys = cx.unless_abandoned(patiently(|| Keyspace::count(&redis, self.scope))).await?;
        let (sum, by_database) = (keys.sum(), keys.named());
        if let Some(amount) = self.expect.filter(|amount| !amount.holds(sum)) {
            let held: Vec<String> =
                by_database.iter().map(|(number, keys)| format!("{keys} in database {number}")).collect();
            let held = if held.is_empty() { String::new() } else { format!(" ({})", held.join(", ")) };
            return Err(StepError::gate(format!(
                "there are {sum} keys at {server}{held} where {amount} were expected"
            ))
            .with_help("find out who writes there, then resume"));
        }
        Ok(End::Done(Outputs { server, database: redis.database(), run_id, keys: sum, by_database }))
    }
}
