//! Step kind `sql-reset`: a schema dropped and made anew from files.

mod bound;
mod by_steps;
mod files;
mod mysql;
mod outlived;
mod postgres;
mod sqlite;
mod survey;
mod work;

use std::path::PathBuf;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::survey::{Survey, Wanted};
use self::work::Work;
use crate::kind::{Context, End, Step};
use crate::one_or_many::OneOrMany;

/// Drops everything in a schema and makes it anew from SQL files. The tables and their rows are counted before; the limits are asked for as
/// many items as there are rows.
///
/// PostgreSQL and SQLite do it in one transaction: what fails leaves everything as it was. In PostgreSQL `schema` is dropped and created; its
/// owner, its privileges, its comment and the extensions in it are kept (their tables count neither here nor for `backup`: they are made anew with
/// them, without what others wrote into them), and it is refused when anything outside would be dropped with it. In
/// SQLite it is the whole file. MySQL has no such transaction: there everything in the database of the connection is dropped, a table
/// `runbook_reset` stands in it until the reset is recorded, and a reset that was interrupted goes on where that table says so. It is
/// refused when a foreign key or a view in another database of the server stands on what would be dropped, and the user of the connection can see that.
///
/// A run that was started with a reviewed plan drops only what the plan saw: the same tables with the same numbers of rows, the same enums and
/// the same files, and in PostgreSQL and SQLite the same rows, when there are no more than 100,000 of them. They are compared right before the
/// drop, in its transaction; in MySQL, before the first drop.
///
/// `mode: rehearse` does all of that, is held to the same, and takes it back: what would refuse the reset, such as a file with a mistake in it or a row
/// that came after the backup, is known before something else is done that can not be taken back. Nobody gets at the tables meanwhile. Not for
/// MySQL.
///
/// When it is stopped, what the server is at work on for it is ended there. A server goes on for a process that was killed, and keeps its locks:
/// PostgreSQL is told to end that by `resume` and by `cancel`, and who holds a lock that is not had in `lock_timeout` is named. In MySQL the database is in the middle of the reset then, and to resume begins with the
/// drop again.
///
/// After a crash the database tells whether the reset was committed, and it is not done twice. Files hold plain SQL: no commands of `psql`, no
/// `copy … from stdin` (`pg_dump --inserts` writes none), nothing that begins or ends a transaction.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlReset {
    /// The name of a connection of type `postgres`, `mysql` or `sqlite`.
    pub connection: String,
    /// What is done. Default `reset`.
    #[serde(default)]
    pub mode: Mode,
    /// The schema of PostgreSQL. Default `public`.
    #[serde(default)]
    pub schema: Option<String>,
    /// The SQL files, or one, in the order in which they are run; from the folder that runbook was started in when not absolute.
    pub files: OneOrMany<PathBuf>,
    /// What must be there before. When it is not, nothing is dropped.
    #[serde(default)]
    pub expect_before: Wanted,
    /// The id of a step `backup` of this run. When any table of the schema holds other rows than when that step counted them, or anything in it is
    /// defined otherwise (as of `unchanged_since` of `backup`), nothing is dropped: it is
    /// looked at in the transaction that drops them, when nobody else can write any more. Nor is anything dropped when the file of that backup is not there
    /// as it was made, at every attempt. PostgreSQL only.
    #[serde(default)]
    pub unchanged_since: Option<String>,
    /// What must be there after. When it is not, the reset fails, and is rolled back where the database can.
    #[serde(default)]
    pub expect: Wanted,
}

/// What is done about a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is dropped and made anew.
    #[default]
    Reset,
    /// The same in a transaction that is rolled back.
    Rehearse,
}

/// What was reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResetOutputs {
    /// How many tables were dropped; 0 of a rehearsal.
    #[serde(default)]
    pub dropped_tables: u64,
    /// How many rows were in them; 0 of a rehearsal.
    #[serde(default)]
    pub dropped_rows: u64,
    /// What was there before.
    pub before: Survey,
    /// What is there after; of a rehearsal, what would be.
    pub after: Survey,
    /// The files that were run.
    pub files: Vec<FileOutputs>,
}

/// A file that was run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileOutputs {
    /// Its path.
    pub path: String,
    /// The SHA-256 of its content.
    pub sha256: String,
    /// How many statements it holds.
    pub statements: u64,
}

#[async_trait]
impl Step for SqlReset {
    const NAME: &'static str = "sql-reset";
    const SUMMARY: &'static str =
        "Drops a schema of a SQL database and makes it anew from files, in one transaction";
    const EXAMPLE: &'static str = "\
id: wipe
uses: sql-reset
with:
  connection: database
  files: [schema.sql, roles.sql]
  expect: { tables: [Ring, RingRole], enums: [RingVisibility], rows: 0 }
";
    const TIDIES: bool = true;
    type Outputs = ResetOutputs;

    fn effect(with: &Value) -> Effect {
        match with.get("mode").and_then(Value::as_str) {
            Some("rehearse") => Effect::WRITE,
            _ => Effect::DESTROY,
        }
    }

    async fn foresee(self, _: Effect, cx: &Context) -> Result<Foresight, StepError> {
        let work = Work::begin(&self, cx).await?;
        work.foreseen().await
    }

    async fn run(self, cx: &Context) -> Result<End<ResetOutputs>, StepError> {
        cx.checkpoint()?;
        let work = Work::begin(&self, cx).await?;
        match self.mode {
            Mode::Reset => work.run().await,
            Mode::Rehearse => work.rehearsed().await,
        }
        .map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        outlived::end_all(&self, cx).await?;
        let settings = cx.history.plan.connections.get(&self.connection);
        if settings.and_then(|settings| settings.get("type")).is_some_and(|kind| kind == "mysql") {
            by_steps::left(&self, cx).await
        } else {
            work::conclude(&self, cx).await
        }
    }
}
