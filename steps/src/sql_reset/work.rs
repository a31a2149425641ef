//! One attempt of `sql-reset`.

use std::sync::Arc;

use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::saved::Foresight;

use super::bound::{Bound, bound};
use super::files::File;
use super::survey::Survey;
use super::{Mode, ResetOutputs, SqlReset, by_steps, files, mysql, outlived, postgres, sqlite};
use crate::backup::Contents;
use crate::connections::sql::error::waited_for_a_lock;
use crate::connections::sql::sqlite::schema_change;
use crate::connections::sql::{Begin, Database, Dialect, Failure, Session};
use crate::had;
use crate::kind::{Context, would};
use crate::sql::settle::{Announced, Settling, Unsure};
use crate::sql::stopping::{Ending, until_stopped};

/// One attempt.
pub(super) struct Work<'a> {
    step: &'a SqlReset,
    pub(super) cx: &'a Context,
    pub(super) database: Arc<Database>,
    files: Vec<File>,
}

impl<'a> Work<'a> {
    /// Reads the files.
    pub async fn begin(step: &'a SqlReset, cx: &'a Context) -> Result<Self, StepError> {
        let database = cx.resources.connection::<Database>(&step.connection)?;
        if step.schema.is_some() && database.dialect() != Dialect::Postgres {
            return Err(StepError::invalid("`schema` is for PostgreSQL: elsewhere it is the whole database"));
        }
        if step.unchanged_since.is_some() && database.dialect() != Dialect::Postgres {
            return Err(StepError::invalid(
                "`unchanged_since` is for PostgreSQL, of which `backup` makes backups",
            ));
        }
        if step.mode == Mode::Rehearse && database.dialect() == Dialect::MySql {
            return Err(StepError::invalid(
                "`mode: rehearse` is not for MySQL, where what was dropped is not taken back",
            ));
        }
        if step.files.0.is_empty() {
            return Err(StepError::invalid("`files` is empty"));
        }
        let files = files::read(&step.files.0, database.dialect()).await?;
        Ok(Self { step, cx, database, files })
    }

    fn schema(&self) -> &str {
        self.step.schema.as_deref().unwrap_or("public")
    }

    /// What it would do, by reads alone.
    pub async fn foreseen(&self) -> Result<Foresight, StepError> {
        let mut session = self.database.begin(Begin::ReadOnly).await?;
        let before = self.survey(&mut *session).await?;
        let bound = self.bound(&mut *session, &before).await?;
        let lost = self.lost(&mut *session).await?;
        session.rollback().await?;
        session.finish().await;
        self.step.expect_before.judge(&before, "before")?;
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| format!("{} (sha256 {})", file.outputs.path, file.outputs.sha256))
            .collect();
        let (tables, rows) = (before.tables.len(), before.rows);
        let place = self.database.describe();
        let digest = bound.digest();
        let held = if bound.contents {
            "held to every row"
        } else if self.database.dialect() == Dialect::MySql {
            "held to the number of rows of each table, since MySQL is not read for more"
        } else {
            "held to the number of rows of each table, since there are too many to read them all"
        };
        let lost = lost.map(|lost| format!("; {lost}")).unwrap_or_default();
        let does = format!(
            "drop {tables} tables with {rows} rows at {place}, {held} (digest {digest}), then run {}{lost}",
            files.join(", ")
        );
        if self.step.mode == Mode::Rehearse {
            return Ok(Foresight {
                binds: bound.facts,
                ..would(format!("{does}; then take all of it back"))
            });
        }
        Ok(Foresight { items: rows, binds: bound.facts, ..would(does) })
    }

    async fn bound(&self, session: &mut dyn Session, before: &Survey) -> Result<Bound, Failure> {
        bound(session, self.database.dialect(), self.schema(), before, &self.files, self.cx).await
    }

    /// What goes with the schema and does not come back by itself, in words. Refused when others are fed from it.
    async fn lost(&self, session: &mut dyn Session) -> Result<Option<String>, StepError> {
        match self.database.dialect() {
            Dialect::Postgres => {}
            Dialect::MySql => return mysql::stands_alone(session).await.map(|()| None),
            Dialect::Sqlite => return Ok(None),
        }
        postgres::unpublished(session, self.schema()).await?;
        let roles = postgres::granted(session, self.schema()).await?;
        Ok((!roles.is_empty()).then(|| {
            format!(
                "what {} may do with what is in the schema is gone with it, unless the files grant it again",
                roles.join(", ")
            )
        }))
    }

    pub async fn run(self) -> Result<ResetOutputs, StepError> {
        if self.database.dialect() == Dialect::MySql {
            by_steps::run(&self).await
        } else {
            self.at_once().await
        }
    }

    /// All of it but the commit, in whose place it is taken back. It leaves nothing behind, so a rehearsal that was cut off is none.
    pub async fn rehearsed(self) -> Result<ResetOutputs, StepError> {
        outlived::end_all(self.step, self.cx).await.map_err(may_be_retried)?;
        // As with the reset, the connection is given to nobody else.
        let mut session = self.database.open().await?;
        let backend = session.backend().await?;
        outlived::record(self.cx, &self.database, backend.as_deref()).await?;
        let prepared = self.prepared(&mut *session);
        let outputs = match until_stopped(self.cx, &self.database, backend.as_deref(), prepared).await {
            Ending::ByItself(prepared) => prepared?.0,
            Ending::Stopped(_) => return Err(StepError::interrupted()),
        };
        session.rollback().await?;
        Ok(ResetOutputs { dropped_tables: 0, dropped_rows: 0, ..outputs })
    }

    async fn survey(&self, session: &mut dyn Session) -> Result<Survey, Failure> {
        match self.database.dialect() {
            Dialect::Postgres => postgres::survey(session, self.schema()).await,
            Dialect::MySql => mysql::survey(session).await,
            Dialect::Sqlite => sqlite::survey(session).await,
        }
    }

    pub(super) fn settling(&self) -> Settling<'_> {
        settling(self.cx, &self.database)
    }

    pub(super) async fn run_files(&self, session: &mut dyn Session) -> Result<(), StepError> {
        for file in &self.files {
            let ran = session.script(&file.text).await;
            ran.map_err(|failure| failure.during(&file.outputs.path))?;
        }
        Ok(())
    }

    pub(super) fn outputs(&self, before: Survey, after: Survey) -> ResetOutputs {
        ResetOutputs {
            dropped_tables: before.tables.len() as u64,
            dropped_rows: before.rows,
            before,
            after,
            files: self.files.iter().map(|file| file.outputs.clone()).collect(),
        }
    }

    /// In one transaction, which is announced when all is done but the commit.
    async fn at_once(&self) -> Result<ResetOutputs, StepError> {
        let series = had::series(self.cx).await?;
        outlived::end_all(self.step, self.cx).await.map_err(may_be_retried)?;
        if let Some(outputs) = self.settling().earlier(series).await? {
            return Ok(outputs);
        }
        // Given up, the connection is closed and the database rolls back.
        let mut session = self.database.open().await?;
        let backend = session.backend().await?;
        outlived::record(self.cx, &self.database, backend.as_deref()).await?;
        let prepared = self.prepared(&mut *session);
        let (outputs, transaction) =
            match until_stopped(self.cx, &self.database, backend.as_deref(), prepared).await {
                Ending::ByItself(prepared) => prepared?,
                Ending::Stopped(_) => return Err(StepError::interrupted()),
            };
        let items = outputs.before.rows;
        let mut announced =
            Announced { series, items, transaction: Some(transaction), backend: None, outputs };
        let batch = self.settling().announce(&mut announced).await?;
        let committed = crash::around("sql-reset: commit", session.commit()).await;
        // The files may have changed the settings of this connection: nobody else gets it.
        drop(session);
        match committed {
            Ok(()) => {
                self.settling().took_effect(batch, &announced).await?;
                Ok(announced.outputs)
            }
            Err(failure) if failure.error.outcome == Outcome::Unknown => {
                self.settling().after_loss(batch, announced, *failure.error).await
            }
            Err(failure) => {
                self.settling().had_no_effect(batch, &failure.error).await?;
                Err(*failure.error)
            }
        }
    }

    /// Everything but the commit. Whoever holds a lock that was not had in time is named.
    async fn prepared(&self, session: &mut dyn Session) -> Result<(ResetOutputs, String), StepError> {
        match self.made_anew(session).await {
            Err(error) if waited_for_a_lock(&error) => {
                Err(postgres::held_by(session, self.schema(), error).await)
            }
            made => made,
        }
    }

    async fn made_anew(&self, session: &mut dyn Session) -> Result<(ResetOutputs, String), StepError> {
        if self.database.dialect() == Dialect::Sqlite {
            // Inside of a transaction it could not be switched.
            session.script("pragma foreign_keys = off").await?;
            session.begin(Begin::Write).await?;
            let version = sqlite::version(session).await?;
            let before = self.before(session).await?;
            sqlite::clear(session).await?;
            self.run_files(session).await?;
            // Only outside of a transaction one can be begun.
            if session.script("begin").await.is_ok() {
                return Err(self.committed());
            }
            sqlite::check(session).await?;
            let after = self.after(session).await?;
            let transaction = schema_change(version, sqlite::version(session).await?);
            return Ok((self.outputs(before, after), transaction));
        }
        let then = match &self.step.unchanged_since {
            Some(step) => Some(Contents::found_by(step, self.cx).await?),
            None => None,
        };
        if let Some(then) = &then {
            // Of a large one that takes a while, in which nobody is to be locked out.
            then.is_kept().await?;
        }
        session.begin(Begin::Write).await?;
        postgres::lock(session, self.schema()).await?;
        if let Some(then) = then {
            then.judge(session, Some(self.schema())).await?;
        }
        let before = self.before(session).await?;
        if let Some(lost) = self.lost(session).await? {
            self.cx.live.say(&lost);
        }
        let transaction = session.transaction().await?.unwrap_or_default();
        postgres::clear(session, self.schema()).await?;
        self.run_files(session).await?;
        if session.transaction().await?.unwrap_or_default() != transaction {
            return Err(self.committed());
        }
        // What is looked at no sooner than with the commit would be refused there, and not by a rehearsal.
        session.script("set constraints all immediate").await?;
        let after = self.after(session).await?;
        Ok((self.outputs(before, after), transaction))
    }

    /// The error when the files have ended the transaction by themselves.
    fn committed(&self) -> StepError {
        let files: Vec<String> = self.files.iter().map(|file| file.outputs.path.clone()).collect();
        let message = format!(
            "{} ended the transaction: WHAT WAS DROPPED IS GONE, and can not be taken back by this step",
            files.join(", ")
        );
        StepError::refused(message).with_help(
            "look at what is there, restore it from its backup, and take what commits out of the file",
        )
    }

    pub(super) async fn before(&self, session: &mut dyn Session) -> Result<Survey, StepError> {
        let before = self.survey(session).await?;
        self.step.expect_before.judge(&before, "before")?;
        if self.cx.history.plan.reviewed.is_some() {
            self.bound(session, &before).await?.judge(self.cx)?;
        }
        Ok(before)
    }

    pub(super) async fn after(&self, session: &mut dyn Session) -> Result<Survey, StepError> {
        let after = self.survey(session).await?;
        self.step.expect.judge(&after, "after")?;
        Ok(after)
    }
}

fn settling<'a>(cx: &'a Context, database: &'a Database) -> Settling<'a> {
    Settling { cx, database, check: None, unsure: Unsure::WhenReopened }
}

/// Records of a reset in one transaction that a cancel cut off whether it was committed, where the database can tell.
pub(super) async fn conclude(step: &SqlReset, cx: &Context) -> Result<(), StepError> {
    if cx.ledger.view().await?.unsettled.is_empty() {
        return Ok(());
    }
    let database = cx.resources.connection::<Database>(&step.connection);
    let database = database.map_err(|error| had::not_looked("the reset", error))?;
    settling(cx, &database).conclude::<ResetOutputs>().await
}

/// What is still at work on the server is over in a while.
fn may_be_retried(error: StepError) -> StepError {
    let kind = if error.kind == ErrorKind::Refused { ErrorKind::Transient } else { error.kind };
    StepError { kind, ..error }
}
