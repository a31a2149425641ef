//! One attempt of `sql-reset`.

use std::sync::Arc;

use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::saved::Foresight;
use serde::Deserialize as _;

use super::bound::{Bound, bound};
use super::files::File;
use super::survey::Survey;
use super::{ResetOutputs, SqlReset, files, mysql, postgres, sqlite};
use crate::backup::Contents;
use crate::connections::sql::sqlite::schema_change;
use crate::connections::sql::{Begin, Database, Dialect, Failure, Session};
use crate::had;
use crate::kind::{Context, would};
use crate::sql::settle::{Announced, Settling, Unsure};
use crate::sql::stopping::{Ending, until_stopped};

/// One attempt.
pub(super) struct Work<'a> {
    step: &'a SqlReset,
    cx: &'a Context,
    database: Arc<Database>,
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
        Ok(Foresight { items: rows, binds: bound.facts, ..would(does) })
    }

    async fn bound(&self, session: &mut dyn Session, before: &Survey) -> Result<Bound, Failure> {
        bound(session, self.database.dialect(), self.schema(), before, &self.files, self.cx).await
    }

    /// What goes with the schema and does not come back by itself, in words. Refused when others are fed from it.
    async fn lost(&self, session: &mut dyn Session) -> Result<Option<String>, StepError> {
        if self.database.dialect() != Dialect::Postgres {
            return Ok(None);
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
        if self.database.dialect() == Dialect::MySql { self.by_steps().await } else { self.at_once().await }
    }

    async fn survey(&self, session: &mut dyn Session) -> Result<Survey, Failure> {
        match self.database.dialect() {
            Dialect::Postgres => postgres::survey(session, self.schema()).await,
            Dialect::MySql => mysql::survey(session).await,
            Dialect::Sqlite => sqlite::survey(session).await,
        }
    }

    fn settling(&self) -> Settling<'_> {
        Settling { cx: self.cx, database: &self.database, check: None, unsure: Unsure::WhenReopened }
    }

    async fn run_files(&self, session: &mut dyn Session) -> Result<(), StepError> {
        for file in &self.files {
            let ran = session.script(&file.text).await;
            ran.map_err(|failure| failure.during(&file.outputs.path))?;
        }
        Ok(())
    }

    fn outputs(&self, before: Survey, after: Survey) -> ResetOutputs {
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
        if let Some(outputs) = self.settling().earlier(series).await? {
            return Ok(outputs);
        }
        // Given up, the connection is closed and the database rolls back.
        let mut session = self.database.open().await?;
        let backend = session.backend().await?;
        let prepared = self.prepared(&mut *session);
        let (outputs, transaction) =
            match until_stopped(self.cx, &self.database, backend.as_deref(), prepared).await {
                Ending::ByItself(prepared) => prepared?,
                Ending::Stopped(_) => return Err(StepError::interrupted()),
            };
        let items = outputs.before.rows;
        let announced = Announced { series, items, transaction: Some(transaction), backend: None, outputs };
        let batch = self.settling().announce(&announced).await?;
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

    /// Everything but the commit.
    async fn prepared(&self, session: &mut dyn Session) -> Result<(ResetOutputs, String), StepError> {
        if self.database.dialect() == Dialect::Sqlite {
            // Inside of a transaction it could not be switched.
            session.script("pragma foreign_keys = off").await?;
            session.begin(Begin::Write).await?;
            let version = sqlite::version(session).await?;
            let before = self.before(session).await?;
            sqlite::clear(session).await?;
            self.run_files(session).await?;
            sqlite::check(session).await?;
            let after = self.after(session).await?;
            let transaction = schema_change(version, sqlite::version(session).await?);
            return Ok((self.outputs(before, after), transaction));
        }
        session.begin(Begin::Write).await?;
        postgres::lock(session, self.schema()).await?;
        if let Some(step) = &self.step.unchanged_since {
            let then = Contents::found_by(step, self.cx).await?;
            then.judge(session, Some(self.schema())).await?;
        }
        let before = self.before(session).await?;
        if let Some(lost) = self.lost(session).await? {
            self.cx.live.say(&lost);
        }
        postgres::clear(session, self.schema()).await?;
        self.run_files(session).await?;
        let after = self.after(session).await?;
        let transaction = session.transaction().await?.unwrap_or_default();
        Ok((self.outputs(before, after), transaction))
    }

    async fn before(&self, session: &mut dyn Session) -> Result<Survey, StepError> {
        let before = self.survey(session).await?;
        self.step.expect_before.judge(&before, "before")?;
        if self.cx.history.plan.reviewed.is_some() {
            self.bound(session, &before).await?.judge(self.cx)?;
        }
        Ok(before)
    }

    async fn after(&self, session: &mut dyn Session) -> Result<Survey, StepError> {
        let after = self.survey(session).await?;
        self.step.expect.judge(&after, "after")?;
        Ok(after)
    }

    /// Statement by statement, with a mark in the database from before the first drop until the end is recorded.
    async fn by_steps(&self) -> Result<ResetOutputs, StepError> {
        let series = had::series(self.cx).await?;
        let view = self.cx.ledger.view().await?;
        let mut session = self.database.open().await?;
        mysql::lock(&mut *session, self.cx).await?;
        let mark = mysql::marked(&mut *session).await?;
        let ours = (self.cx.run.id.clone(), self.cx.step.clone());
        if let Some((run, step)) = mark.as_ref().filter(|mark| **mark != ours) {
            let message = format!("the database is in the middle of a reset, by step `{step}` of run {run}");
            return Err(
                StepError::refused(message).with_help(format!("resume that run: `runbook resume {run}`"))
            );
        }
        if let Some(outputs) = had::outputs::<ResetOutputs>(&view, series) {
            mysql::unmark(&mut *session).await?;
            return Ok(outputs);
        }
        let (batch, mut announced) = match view.unsettled.into_iter().next() {
            Some(batch) => {
                let announced = Announced::<ResetOutputs>::deserialize(&batch.what).map_err(|error| {
                    StepError::new(ErrorKind::Bug, format!("the ledger is unreadable: {error}"))
                })?;
                (batch.number, announced)
            }
            None => {
                let before = self.before(&mut *session).await?;
                let items = before.rows;
                let outputs = self.outputs(before, Survey::default());
                let announced = Announced { series, items, transaction: None, backend: None, outputs };
                (self.settling().announce(&announced).await?, announced)
            }
        };
        if mark.is_none() {
            crash::around("sql-reset: mark", mysql::mark(&mut *session, &ours.0, &ours.1)).await?;
        }
        crash::around("sql-reset: drop", mysql::clear(&mut *session)).await?;
        crash::around("sql-reset: files", self.run_files(&mut *session)).await?;
        announced.outputs.after = self.after(&mut *session).await?;
        announced.series = series;
        self.settling().took_effect(batch, &announced).await?;
        crash::around("sql-reset: unmark", mysql::unmark(&mut *session)).await?;
        Ok(announced.outputs)
    }
}
