//! Step kind `backup`: a dump of a PostgreSQL database in a file, of which it is known that it can be restored.

mod contents;
mod copy;
mod definitions;
mod dump;
mod names;
mod probe;
mod program;
mod restorable;
mod restore;
mod rows;
mod take;
mod tidy;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::contents::Contents;
pub use self::copy::{Copied, CopyTo};
pub use self::definitions::Definitions;
use self::take::Work;
use crate::kind::{Context, End, Step, read_now, would};

/// Dumps a PostgreSQL database into a file (`pg_dump --format=custom`), or looks at one that is there. Either way the step ends well only when all of the file can
/// be read and it holds every table of the database; with `probe`, when it was restored as well.
///
/// `take` counts the rows of every table in the very state that is dumped, with a digest of them, and holds a probe to their number. The tables of an extension count nowhere, since `create extension` makes them: what
/// others wrote into them is in the dump where the extension has it so, and nothing is held to it. The file is for its owner alone, whole or not there, and never
/// written over what is there. Beside it is a program that brings it back, `FILE.restore.sh`. With `copy` a second one is in S3, where the loss of this machine does not reach it. `check` is the gate before something that can not be taken back: it refuses a file that is older than `max_age`, by
/// the time that stands in it, that is of another database, that lacks a table that the database has now, or that has no row at all while the database has some.
///
/// Cancelled in the middle of it, the run takes away what is unfinished: the file, the database of the probe, and the parts of a copy.
///
/// It needs `pg_dump` and `pg_restore` of the server's version or a newer one, and what it says to restore the file needs `psql`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The name of a connection of type `postgres`: the database.
    pub connection: String,
    /// What is done. Default `take`.
    #[serde(default)]
    pub mode: Mode,
    /// The file, absolute. Its folder has to be there.
    pub file: PathBuf,
    /// How old the file of `check` may be. Default `24h`.
    #[serde(default = "a_day")]
    pub max_age: Duration,
    /// The id of a step `backup` with mode `take`. When any table of the database holds other rows than when that step counted them, or anything is
    /// defined otherwise, `check` fails and names it: tables with their columns, constraints, indexes, triggers, rules and policies, views, functions, types,
    /// extensions, and sequences with their last values. Privileges, owners and comments are not looked at. Default: nobody looks.
    #[serde(default)]
    pub unchanged_since: Option<String>,
    /// The name of a connection of type `postgres`, on whose server the file is restored into a database made for it, `runbook_probe_…`, which is dropped
    /// afterwards. Its user may create databases. Default: nothing is restored.
    #[serde(default)]
    pub probe: Option<String>,
    /// Where a copy of the file is kept, in S3. `take` sends the file there when it is whole and probed, in parts where it is large, and reads all of it back;
    /// `check` reads it too. Default: there is no copy.
    #[serde(default)]
    pub copy: Option<CopyTo>,
    /// The folder with `pg_dump` and `pg_restore`. Default: they are looked for in `PATH`.
    #[serde(default)]
    pub programs: Option<PathBuf>,
}

fn a_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

/// What is done about a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is made.
    #[default]
    Take,
    /// One that is there is held to what it must be.
    Check,
}

/// What is known of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The file.
    pub file: PathBuf,
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When the dump was begun, RFC 3339.
    pub dumped_at: String,
    /// The tables it holds, `schema.table`; a name with a dot or a quote in it is quoted.
    pub tables: Vec<String>,
    /// How many rows each table holds, where they were counted: by `take`, and by a probe.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, u64>,
    /// What each table holds, as a number that every change of a row changes, where `take` counted them. What has to be unchanged since is held to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
    /// What is defined in each schema, where `take` looked at it. What has to be unchanged since is held to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<BTreeMap<String, Definitions>>,
    /// Whether it was restored.
    pub probed: bool,
    /// Its copy in S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Copied>,
    /// What to type to have what was dumped in place of what is there, all of it or nothing: the database is put aside and made anew. Who is connected to it is
    /// disconnected; the user has to own it and may create databases. The password is asked for, or in `~/.pgpass`. It runs the program that `take` wrote
    /// beside the file, `FILE.restore.sh`, and is one long line where that is not there.
    pub restore: String,
    /// What is in that program, for when it was lost: a shell runs it as a file beside the backup.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub restore_program: String,
}

#[async_trait]
impl Step for Backup {
    const NAME: &'static str = "backup";
    const SUMMARY: &'static str =
        "Dump a PostgreSQL database into a file, or hold a backup to being one that can be restored";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/dumped_at"];
    const TIDIES: bool = true;
    const BACKUP_OUTPUTS: Option<(&'static str, &'static str)> = Some(("/file", "/restore"));
    const EXAMPLE: &'static str = "\
id: backup
uses: backup
with:
  connection: database
  file: /var/backups/hub-before-reset.dump
  probe: scratch_server
";
    type Outputs = Outputs;

    fn effect(with: &Value) -> Effect {
        let checks = with.get("mode").and_then(Value::as_str) == Some("check");
        let probes = with.get("probe").is_some_and(|probe| !probe.is_null());
        if checks && !probes { Effect::READ } else { Effect::WRITE }
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        if effect == Effect::READ {
            return read_now(self, cx).await;
        }
        let work = Work::begin(&self, cx)?;
        let probed = if self.probe.is_some() { ", and restore it into a database made for that" } else { "" };
        let (place, file) = (work.place(), self.file.display());
        if self.mode == Mode::Check {
            work.check().await?;
            return Ok(would(format!("look at the backup {file} of {place}{probed}")));
        }
        work.is_free().await?;
        let copied = work.copy_is_free().await?;
        Ok(would(format!("dump {place} into {file}{probed}{copied}")))
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        cx.checkpoint()?;
        let work = Work::begin(&self, cx)?;
        match self.mode {
            Mode::Take => work.take().await,
            Mode::Check => work.checked().await,
        }
        .map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        tidy::tidy(&self, cx).await
    }
}
