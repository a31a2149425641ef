//! One attempt of `sql`.

use std::sync::Arc;

use runbook_engine::crash;
use runbook_engine::error::{Outcome, StepError};
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::saved::Foresight;
use serde_json::{Map, Value};

use super::expect::Amount;
use super::settle::{Announced, Settling, Unsure};
use super::stopping::{Ending, until_stopped};
use super::{Expect, Part, PartOutputs, Sql, SqlOutputs};
use crate::connections::sql::scan::{Statement, only_reads, statements};
use crate::connections::sql::{Answer, Begin, Database, Dialect, Session};
use crate::had;
use crate::kind::{Context, would};
use crate::text::in_brief;

/// How many bytes the rows of the outputs may have together.
const MOST_BYTES: usize = 256 * 1024;

/// How much of a statement is shown, in characters.
const SHOWN: usize = 120;

/// One attempt.
pub(super) struct Work<'a> {
    step: &'a Sql,
    cx: &'a Context,
    database: Arc<Database>,
    parts: Vec<Part>,
    effect: Effect,
}

impl<'a> Work<'a> {
    /// Checks what can be checked without the database.
    pub fn new(step: &'a Sql, cx: &'a Context) -> Result<Self, StepError> {
        let database = cx.resources.connection::<Database>(&step.connection)?;
        let parts = step.parts()?;
        let effect = step.known_effect(&parts);
        if !step.transaction && (parts.len() > 1 || effect.class == Class::Read) {
            let message = "`transaction: false` is for one statement that can not stand in a transaction";
            return Err(StepError::invalid(message));
        }
        for part in &parts {
            let statement = single(&part.statement, database.dialect())?;
            if statement.controls_transaction() {
                let message = format!("`{}` begins or ends a transaction", statement.verb().to_lowercase());
                return Err(StepError::invalid(message)
                    .with_help("leave it out: the statements of a step run in one transaction"));
            }
            let commits = database.dialect() == Dialect::MySql && statement.commits_in_mysql();
            if step.transaction && commits && effect.class != Class::Read {
                let verb = statement.verb().to_lowercase();
                return Err(StepError::invalid(format!("MySQL commits by itself at `{verb}`"))
                    .with_help("give it a step of its own, with `transaction: false`"));
            }
        }
        Ok(Self { step, cx, database, parts, effect })
    }

    /// What it would do, without doing any of it: which rows that concerns is known when it runs, and no sooner.
    pub fn foreseen(&self) -> Foresight {
        let shown: Vec<String> = self.parts.iter().map(|part| self.shown(part)).collect();
        let place = self.database.describe();
        let verb = if self.effect.class == Class::Write { "changes" } else { "deletes or changes" };
        let bound = match self.at_most() {
            Some(1) => ", at most 1 row".to_owned(),
            Some(most) => format!(", at most {most} rows"),
            None => String::new(),
        };
        let does = format!(
            "run {} on {place}; the plan binds the statement and not its rows: it {verb} whatever matches when it runs{bound}",
            shown.join(", then ")
        );
        Foresight { items: self.foreseen_items(), at_least: self.at_least(), ..would(does) }
    }

    /// A statement in short with the values of its parameters, for people. What is secret is replaced before anything is cut.
    fn shown(&self, part: &Part) -> String {
        let redacted = self.cx.redactor.text(&part.statement);
        let text = redacted.split_whitespace().collect::<Vec<_>>().join(" ");
        let statement = match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("`{}…`", &text[..end]),
            None => format!("`{text}`"),
        };
        let value = |value: &Value| in_brief(&self.cx.redactor.value(value).to_string());
        let values: Vec<String> = part.parameters.iter().map(value).collect();
        if values.is_empty() { statement } else { format!("{statement} with {}", values.join(", ")) }
    }

    /// The most rows that it changes, where every statement that changes some says so; with more it fails.
    fn at_most(&self) -> Option<u64> {
        let writing = self.parts.iter().filter(|part| !only_reads(&part.statement));
        let most: Option<Vec<u64>> = writing.map(|part| part.expect.as_ref()?.affected?.most()).collect();
        most.filter(|most| !most.is_empty()).map(|most| most.into_iter().fold(0, u64::saturating_add))
    }

    /// The least rows that it changes, where nothing else says how many items it counts as and there is a most of them.
    fn at_least(&self) -> Option<u64> {
        self.step.effect.filter(|declared| declared.class == Class::Destroy && declared.items.is_none())?;
        self.at_most()?;
        let affected = self.parts.iter().filter_map(|part| part.expect.as_ref()?.affected);
        Some(affected.map(Amount::least).fold(0, u64::saturating_add))
    }

    /// How many items it counts as beforehand: what it declares, or the most that it and the limits let it come to, or one.
    fn foreseen_items(&self) -> u64 {
        let bounded = || {
            let plan = &self.cx.history.plan;
            let of_step = plan.step(&self.cx.step).and_then(|step| step.limits.max_items);
            self.at_most()
                .map_or(1, |most| [of_step, plan.limits.max_items].into_iter().flatten().fold(most, u64::min))
        };
        match self.step.effect {
            Some(declared) if declared.class == Class::Destroy => declared.items.unwrap_or_else(bounded),
            _ => 0,
        }
    }

    pub async fn run(self) -> Result<SqlOutputs, StepError> {
        if self.effect.class == Class::Read {
            return self.read().await;
        }
        let series = had::series(self.cx).await?;
        if let Some(outputs) = self.settling().earlier(series).await? {
            return Ok(outputs);
        }
        if self.step.transaction { self.transact(series).await } else { self.run_alone(series).await }
    }

    /// Records what became of what a cancel cut off.
    pub(super) async fn conclude(self) -> Result<(), StepError> {
        self.settling().conclude::<SqlOutputs>().await
    }

    fn settling(&self) -> Settling<'_> {
        let check = self.step.check.as_ref();
        let once = self.effect.repeat == Repeat::Once;
        let unsure = if once { Unsure::AgainWhenOver } else { Unsure::Again };
        Settling { cx: self.cx, database: &self.database, check, unsure }
    }

    async fn read(&self) -> Result<SqlOutputs, StepError> {
        let (mut session, backend) = self.begun(Begin::ReadOnly).await?;
        let reading = self.statements(&mut *session);
        let outputs = match until_stopped(self.cx, &self.database, backend.as_deref(), reading).await {
            Ending::ByItself(outputs) => outputs?,
            Ending::Stopped(_) => return Err(StepError::interrupted()),
        };
        session.rollback().await?;
        session.finish().await;
        Ok(outputs)
    }

    /// A session in a transaction, and what the server calls it.
    async fn begun(&self, how: Begin) -> Result<(Box<dyn Session>, Option<String>), StepError> {
        let begun = async {
            let mut session = self.database.open().await?;
            let backend = session.backend().await?;
            session.begin(how).await?;
            Ok::<_, StepError>((session, backend))
        };
        tokio::select! {
            begun = begun => begun,
            () = self.cx.abandon.cancelled() => Err(StepError::interrupted()),
        }
    }

    /// All statements in one transaction. It is announced when all is done but the commit: before, nothing has an effect.
    async fn transact(&self, series: u32) -> Result<SqlOutputs, StepError> {
        let (mut session, backend) = self.begun(Begin::Write).await?;
        let prepared = async {
            let outputs = self.statements(&mut *session).await?;
            let transaction = session.transaction().await?;
            Ok::<_, StepError>((outputs, transaction))
        };
        // Given up, the connection is closed and the database rolls back.
        let (outputs, transaction) =
            match until_stopped(self.cx, &self.database, backend.as_deref(), prepared).await {
                Ending::ByItself(prepared) => prepared?,
                Ending::Stopped(_) => return Err(StepError::interrupted()),
            };
        let items = self.destroyed(outputs.affected);
        let mut announced = Announced { series, items, transaction, backend: None, outputs };
        let batch = self.settling().announce(&mut announced).await?;
        match crash::around("sql: commit", session.commit()).await {
            Ok(()) => {
                session.finish().await;
                self.settling().took_effect(batch, &announced).await?;
                Ok(announced.outputs)
            }
            Err(failure) if failure.error.outcome == Outcome::Unknown => {
                drop(session);
                self.settling().after_loss(batch, announced, *failure.error).await
            }
            Err(failure) => {
                self.settling().had_no_effect(batch, &failure.error).await?;
                Err(*failure.error)
            }
        }
    }

    /// One statement as it stands. It is announced before.
    async fn run_alone(&self, series: u32) -> Result<SqlOutputs, StepError> {
        let mut session = self.database.open().await?;
        let backend = session.backend().await?;
        let items = self.destroyed(1);
        let outputs = SqlOutputs::default();
        let mut announced = Announced { series, items, transaction: None, backend: backend.clone(), outputs };
        let batch = self.settling().announce(&mut announced).await?;
        let Some(part) = self.parts.first() else { return Ok(announced.outputs) };
        let statement = single(&part.statement, self.database.dialect())?;
        let keep = usize::try_from(self.step.max_rows).unwrap_or(usize::MAX);
        let running = crash::around("sql: statement", session.run(&statement, &part.parameters, keep));
        let (ran, stopped) = match backend {
            // SQLite has nobody who could be told: it ends when it ends.
            None => (running.await, false),
            Some(backend) => match until_stopped(self.cx, &self.database, Some(&backend), running).await {
                Ending::ByItself(ran) => (ran, false),
                Ending::Stopped(Some(ran)) => (ran, true),
                Ending::Stopped(None) => {
                    let id = backend.split(' ').next().unwrap_or_default();
                    let message = format!(
                        "the statement was told to end and is still at work on the server, as connection {id}"
                    );
                    return Err(StepError { message, ..StepError::interrupted() }.unknown());
                }
            },
        };
        match ran {
            Ok(answer) => {
                session.finish().await;
                let judged = judge(&statement, part.expect.as_ref(), &answer);
                match judged.and_then(|()| self::outputs(&[answer])) {
                    Ok(outputs) => announced.outputs = outputs,
                    Err(error) => {
                        self.settling().was_unexpected(batch, items, &error).await?;
                        return Err(error);
                    }
                }
                self.settling().took_effect(batch, &announced).await?;
                Ok(announced.outputs)
            }
            Err(failure) if failure.lost => {
                drop(session);
                self.settling().after_loss(batch, announced, failure.error.unknown()).await
            }
            Err(failure) => {
                self.settling().had_no_effect(batch, &failure.error).await?;
                Err(if stopped { StepError::interrupted() } else { *failure.error })
            }
        }
    }

    /// How many items are destroyed, when so many rows are changed.
    fn destroyed(&self, affected: u64) -> u64 {
        match self.step.effect {
            Some(declared) if declared.class == Class::Destroy => declared.items.unwrap_or(affected),
            _ => 0,
        }
    }

    async fn statements(&self, session: &mut dyn Session) -> Result<SqlOutputs, StepError> {
        let keep = usize::try_from(self.step.max_rows).unwrap_or(usize::MAX);
        let mut answers = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let statement = single(&part.statement, self.database.dialect())?;
            let answer = session.run(&statement, &part.parameters, keep).await?;
            judge(&statement, part.expect.as_ref(), &answer)?;
            answers.push(answer);
        }
        outputs(&answers)
    }
}

/// The one statement of a text.
pub(crate) fn single(sql: &str, dialect: Dialect) -> Result<Statement<'_>, StepError> {
    let mut found = statements(sql, dialect);
    match (found.pop(), found.len()) {
        (Some(statement), 0) => Ok(statement),
        (None, _) => Err(StepError::invalid("a statement is empty")),
        (_, more) => Err(StepError::invalid(format!("a `statement` holds {} statements", more + 1))
            .with_help("list them under `statements`")),
    }
}

/// Fails when an answer is not as expected.
fn judge(statement: &Statement<'_>, expect: Option<&Expect>, answer: &Answer) -> Result<(), StepError> {
    match expect.and_then(|expect| expect.wrong(answer)) {
        Some(wrong) => {
            let told = expect.and_then(|expect| expect.message.as_ref());
            let verb = statement.verb().to_lowercase();
            let what = told.map_or_else(
                || format!("the `{verb}` is not as expected: {wrong}"),
                |told| format!("{told} ({wrong})"),
            );
            Err(StepError::gate(what))
        }
        None => Ok(()),
    }
}

/// Answers as outputs.
fn outputs(answers: &[Answer]) -> Result<SqlOutputs, StepError> {
    for answer in answers {
        let twice = answer.columns.iter().enumerate().find(|(at, name)| answer.columns[..*at].contains(name));
        if let Some((_, name)) = twice {
            return Err(StepError::invalid(format!("the statement gives two columns `{name}`")).with_help(
                "name one of them otherwise, with `as`: a row of the outputs has one value of a name",
            ));
        }
    }
    let row = |answer: &Answer, row: &Vec<Value>| -> Map<String, Value> {
        answer.columns.iter().cloned().zip(row.iter().cloned()).collect()
    };
    let part = |answer: &Answer| PartOutputs {
        rows: answer.rows.iter().map(|values| row(answer, values)).collect(),
        row_count: answer.total,
        affected: answer.affected,
    };
    let statements: Vec<PartOutputs> = answers.iter().map(part).collect();
    let last = statements.last().cloned().unwrap_or_default();
    let outputs = SqlOutputs {
        rows: last.rows,
        columns: answers.last().map(|answer| answer.columns.clone()).unwrap_or_default(),
        row_count: last.row_count,
        affected: statements.iter().map(|one| one.affected).sum(),
        statements,
    };
    let bytes = serde_json::to_vec(&outputs.statements).map_or(0, |bytes| bytes.len());
    if bytes > MOST_BYTES {
        let message = format!("the rows hold {bytes} bytes, and the outputs of a step at most {MOST_BYTES}");
        return Err(StepError::refused(message).with_help(
            "select fewer columns, keep fewer rows (`max_rows`), or take a `snapshot` of the table",
        ));
    }
    Ok(outputs)
}
