//! Step kind `sql`: statements on a SQL database.

mod expect;
pub(crate) mod settle;
pub(crate) mod stopping;
mod work;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::expect::{Amount, Expect};
use self::work::Work;

use crate::connections::sql::scan::only_reads;
use crate::effect::{Declared, declared};
use crate::had;
use crate::kind::{Context, End, Step, read_now};

/// Runs statements on a SQL database, in one transaction. Values are bound as `parameters` (`$1` in PostgreSQL, `?` in MySQL and SQLite), never
/// pasted into the text.
///
/// Statements that only read (`select` and the like) run in a transaction that the database holds to it. What others do stands in
/// `effect`; without it nobody knows, and the step counts as able to do anything. Of a transaction that destroys, the limits are asked
/// before it is committed, for as many rows as it changed, unless `effect.items` says how many items they are.
///
/// A reviewed plan binds the statements with their parameters, and not the rows: what is changed is what matches when they run. Where the rows
/// have to be those that somebody looked at, take a `snapshot` of `sql-rows` and `delete-batch`; `expect.affected` bounds how many they are.
///
/// When the process is killed, or the connection is lost, while a transaction is being committed, nobody here knows whether it was. With
/// `repeat: repeatable`, PostgreSQL is asked what became of it; any database is asked by `check`. Otherwise a person is asked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// The name of a connection of type `postgres`, `mysql` or `sqlite`.
    pub connection: String,
    /// The statement.
    #[serde(default)]
    pub statement: Option<String>,
    /// The values of its parameters, in order. May hold secrets.
    #[serde(default)]
    pub parameters: Vec<Value>,
    /// What must hold of it.
    #[serde(default)]
    pub expect: Expect,
    /// Several statements in place of one, in order, all of them in the same transaction.
    #[serde(default)]
    pub statements: Vec<Part>,
    /// Whether they run in a transaction. Default: yes. A statement that can not (`vacuum`, `create index concurrently`) stands alone.
    #[serde(default = "yes")]
    pub transaction: bool,
    /// What the statements do to the world.
    #[serde(default)]
    pub effect: Option<Declared>,
    /// A statement that only reads and tells, after a crash, whether the transaction was committed: it was when what is expected holds.
    #[serde(default)]
    pub check: Option<Part>,
    /// How many rows the outputs keep of each statement. Default 100.
    #[serde(default = "default_max_rows")]
    #[schemars(range(max = 1000))]
    pub max_rows: u64,
}

/// One statement.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The statement.
    pub statement: String,
    /// The values of its parameters, in order. May hold secrets.
    #[serde(default)]
    pub parameters: Vec<Value>,
    /// What must hold of it. Of a `check` the default is that it gives a row.
    #[serde(default)]
    pub expect: Option<Expect>,
}

fn yes() -> bool {
    true
}

fn default_max_rows() -> u64 {
    100
}

/// What the statements came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SqlOutputs {
    /// The first rows of the last statement, each a mapping from column to value. A number with more digits than 64 bits hold is a text.
    pub rows: Vec<Map<String, Value>>,
    /// The columns of the last statement.
    pub columns: Vec<String>,
    /// How many rows the last statement gave, kept or not.
    pub row_count: u64,
    /// How many rows all statements together changed.
    pub affected: u64,
    /// Each statement by itself.
    pub statements: Vec<PartOutputs>,
}

/// What one statement came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartOutputs {
    /// Its first rows.
    pub rows: Vec<Map<String, Value>>,
    /// How many rows it gave.
    pub row_count: u64,
    /// How many rows it changed.
    pub affected: u64,
}

#[async_trait]
impl Step for Sql {
    const NAME: &'static str = "sql";
    const SUMMARY: &'static str =
        "Runs statements on a SQL database, with bound parameters and in one transaction";
    const EXAMPLE: &'static str = "\
id: forget_errors
uses: sql
with:
  connection: database
  statement: update images set error = null where status = $1 and updated_at < $2
  parameters: [ready, \"${{ inputs.before }}\"]
  expect: { affected: { max: 100 } }
  effect: { class: write, repeat: repeatable }
";
    const SECRET_FIELDS: &'static [&'static str] =
        &["/parameters/*", "/statements/*/parameters/*", "/check/parameters/*"];
    const CODE_FIELDS: &'static [&'static str] =
        &["/statement", "/statements/*/statement", "/check/statement"];
    const SHOWN_FIELDS: &'static [&'static str] = &["/statement", "/parameters", "/statements"];
    const TIDIES: bool = true;
    type Outputs = SqlOutputs;

    fn effect(with: &Value) -> Effect {
        let settles = with.get("check").is_some_and(|check| !check.is_null());
        let effect = match declared(with) {
            Some(effect) => effect,
            None if with.get("effect").is_none_or(Value::is_null) && settings_only_read(with) => Effect::READ,
            None => Effect::UNDETERMINED,
        };
        if settles { Effect { repeat: Repeat::Repeatable, ..effect } } else { effect }
    }

    fn counts(with: &Value) -> bool {
        let items = with.pointer("/effect/items").is_some_and(|items| !items.is_null());
        items || with.get("transaction").is_none_or(|flag| *flag == Value::Bool(true))
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        if effect.class == Class::Read {
            return read_now(self, cx).await;
        }
        Ok(Work::new(&self, cx)?.foreseen())
    }

    async fn run(self, cx: &Context) -> Result<End<SqlOutputs>, StepError> {
        cx.checkpoint()?;
        Work::new(&self, cx)?.run().await.map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        if cx.ledger.view().await?.unsettled.is_empty() {
            return Ok(());
        }
        Work::new(&self, cx).map_err(|error| had::not_looked("its last attempt", error))?.conclude().await
    }
}

impl Sql {
    /// The statements, one or several.
    fn parts(&self) -> Result<Vec<Part>, StepError> {
        match (&self.statement, self.statements.as_slice()) {
            (Some(statement), []) => Ok(vec![Part {
                statement: statement.clone(),
                parameters: self.parameters.clone(),
                expect: Some(self.expect.clone()),
            }]),
            (None, [_, ..]) if self.parameters.is_empty() => Ok(self.statements.clone()),
            (None, [_, ..]) => Err(StepError::invalid(
                "`parameters` belong to `statement`; each of `statements` has its own",
            )),
            _ => Err(StepError::invalid("either `statement` or `statements` says what to run")),
        }
    }

    /// What it does to the world, as far as it is known.
    fn known_effect(&self, parts: &[Part]) -> Effect {
        match self.effect {
            Some(declared) => declared.effect(),
            None if parts.iter().all(|part| only_reads(&part.statement)) => Effect::READ,
            None => Effect::UNDETERMINED,
        }
    }
}

/// Whether settings as authored hold statements that only read.
fn settings_only_read(with: &Value) -> bool {
    let mut texts: Vec<Option<&str>> = with.get("statement").map(Value::as_str).into_iter().collect();
    for part in with.get("statements").and_then(Value::as_array).into_iter().flatten() {
        texts.push(part.get("statement").and_then(Value::as_str));
    }
    !texts.is_empty() && texts.iter().all(|text| text.is_some_and(only_reads))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_effect_follows_from_the_text_when_it_only_reads() {
        let of = |statement: &str| Sql::effect(&json!({ "connection": "db", "statement": statement }));
        assert_eq!(of("select 1"), Effect::READ);
        assert_eq!(of("delete from t"), Effect::UNDETERMINED);
        assert_eq!(of("select 1; delete from t"), Effect::UNDETERMINED);
        // What no transaction that can not write holds back.
        assert_eq!(of("select pg_catalog.Pg_Terminate_Backend(7)"), Effect::UNDETERMINED);
        assert_eq!(of("select pg_stat_reset_shared('wal')"), Effect::UNDETERMINED);
        // What is a comment to one database is executed by another.
        assert_eq!(of("select 1 /*! into outfile '/tmp/x' */"), Effect::UNDETERMINED);
        let several = json!({ "statements": [{ "statement": "select 1" }, { "statement": "drop table t" }] });
        assert_eq!(Sql::effect(&several), Effect::UNDETERMINED);
        assert_eq!(
            Sql::effect(&json!({ "statement": "select 1", "effect": "${{ inputs.e }}" })),
            Effect::UNDETERMINED
        );
    }

    #[test]
    fn a_check_makes_it_repeatable() {
        let with = json!({
            "statement": "delete from t", "check": { "statement": "select 1" },
            "effect": { "class": "destroy", "repeat": "once" },
        });
        assert_eq!(Sql::effect(&with), Effect::DESTROY);
    }
}
