//! A reset of a database that commits every change of a schema by itself: statement by statement, with a mark in the database from before the
//! first drop until the end is recorded.

use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use serde::Deserialize as _;

use super::survey::Survey;
use super::work::Work;
use super::{ResetOutputs, SqlReset, mysql};
use crate::connections::sql::{Database, Failure};
use crate::had;
use crate::kind::Context;
use crate::sql::settle::Announced;
use crate::sql::stopping::{Ending, until};

pub(super) async fn run(work: &Work<'_>) -> Result<ResetOutputs, StepError> {
    let cx = work.cx;
    let series = had::series(cx).await?;
    let view = cx.ledger.view().await?;
    let mut session = work.database.open().await?;
    let backend = session.backend().await?;
    mysql::lock(&mut *session, cx).await?;
    let mark = mysql::marked(&mut *session).await?;
    let ours = (cx.run.id.clone(), cx.step.clone());
    if let Some((run, step)) = mark.as_ref().filter(|mark| **mark != ours) {
        let message = format!("the database is in the middle of a reset, by step `{step}` of run {run}");
        return Err(StepError::refused(message).with_help(format!(
            "resume that run: `runbook resume {run}`. When it was cancelled, nobody finishes that reset: `drop table {}`, then begin anew",
            mysql::MARK
        )));
    }
    if let Some(outputs) = had::outputs::<ResetOutputs>(&view, series) {
        mysql::unmark(&mut *session).await?;
        return Ok(outputs);
    }
    let mut begun = view.unsettled.into_iter().next();
    if mark.is_none()
        && let Some(batch) = begun.take()
    {
        // Nothing was dropped yet, so that all is judged once more.
        work.settling().had_no_effect(batch.number, &StepError::interrupted()).await?;
    }
    let (batch, mut announced) = match begun {
        Some(batch) => {
            let mut announced = Announced::<ResetOutputs>::deserialize(&batch.what).map_err(|error| {
                StepError::new(ErrorKind::Bug, format!("the ledger is unreadable: {error}"))
            })?;
            let now = work.outputs(Survey::default(), Survey::default());
            // A file that failed may be mended, but not behind a review.
            if cx.history.plan.reviewed.is_some() {
                same_files(&now, &announced.outputs)?;
            }
            announced.outputs.files = now.files;
            (batch.number, announced)
        }
        None => {
            mysql::stands_alone(&mut *session).await?;
            let before = work.before(&mut *session).await?;
            let items = before.rows;
            let outputs = work.outputs(before, Survey::default());
            let mut announced = Announced { series, items, transaction: None, backend: None, outputs };
            (work.settling().announce(&mut announced).await?, announced)
        }
    };
    if mark.is_none() {
        crash::around("sql-reset: mark", mysql::mark(&mut *session, &ours.0, &ours.1)).await?;
    }
    let made = async {
        crash::around("sql-reset: drop", mysql::clear(&mut *session)).await?;
        crash::around("sql-reset: files", work.run_files(&mut *session)).await?;
        work.after(&mut *session).await
    };
    // Whoever asks to stop gently need not wait for the end of the files: the next attempt begins with the drop again, however far this one was.
    announced.outputs.after = match until(&cx.stop, &work.database, backend.as_deref(), made).await {
        // What was done before anybody said to stop is done.
        Ending::ByItself(made) | Ending::Stopped(Some(made @ Ok(_))) => made?,
        Ending::Stopped(Some(Err(error))) => {
            cx.live.say(&format!(
                "stopped in the middle of the reset ({error}); the database has the table {}",
                mysql::MARK
            ));
            return Err(StepError::interrupted());
        }
        Ending::Stopped(None) => {
            let id = backend.unwrap_or_default();
            let message =
                format!("the reset was told to end and is still at work on the server, as connection {id}");
            return Err(StepError { message, ..StepError::interrupted() }.unknown());
        }
    };
    announced.series = series;
    work.settling().took_effect(batch, &announced).await?;
    crash::around("sql-reset: unmark", mysql::unmark(&mut *session)).await?;
    Ok(announced.outputs)
}

/// Fails when a reset that was begun would be finished with other files.
fn same_files(now: &ResetOutputs, begun: &ResetOutputs) -> Result<(), StepError> {
    if now.files == begun.files {
        return Ok(());
    }
    let files: Vec<String> =
        begun.files.iter().map(|file| format!("{} (SHA-256 {})", file.path, file.sha256)).collect();
    Err(StepError::refused(format!(
        "the reset was begun with other files than are there now: {}; what was in the database is dropped",
        files.join(", ")
    ))
    .with_help("put those files back, then resume; or restore the database from its backup"))
}

/// Fails when the database is in the middle of a reset of this step, which nobody finishes any more. Of one that is recorded only the mark is left, which
/// is removed.
pub(super) async fn left(step: &SqlReset, cx: &Context) -> Result<(), StepError> {
    let view = cx.ledger.view().await?;
    if view.unsettled.is_empty() && view.cursor.is_none() {
        return Ok(());
    }
    // Nobody has looked then, so that the next cancel may.
    let unknown = |place: &str, why: &str| {
        let message =
            format!("whether the database at {place} is in the middle of the reset is not known ({why})");
        StepError::transient(message).with_help(format!("the table `{}` there says so", mysql::MARK))
    };
    let database = match cx.resources.connection::<Database>(&step.connection) {
        Ok(database) => database,
        Err(error) => {
            let known = cx.history.plan.places.get(&step.connection);
            return Err(unknown(known.map_or("its place", |place| &place.words), &error.message));
        }
    };
    let place = database.describe();
    let looked = async {
        let mut session = database.open().await?;
        let mark = mysql::marked(&mut *session).await?;
        let at_work = mysql::holder(&mut *session).await?;
        Ok::<_, Failure>((session, mark, at_work))
    };
    let (mut session, mark, at_work) =
        looked.await.map_err(|failure| unknown(&place, &failure.error.message))?;
    let ours = mark == Some((cx.run.id.clone(), cx.step.clone()));
    if view.unsettled.is_empty() {
        if ours {
            mysql::unmark(&mut *session).await.map_err(|failure| {
                let message = format!(
                    "the reset of the database at {place} is done, and the table `{}` stands in it still: nobody else may reset it ({})",
                    mysql::MARK, failure.error.message
                );
                StepError::refused(message).with_help(format!("type `drop table {}` there", mysql::MARK))
            })?;
            cx.live.say(&format!("removed the table `{}` of the reset from {place}", mysql::MARK));
        }
        session.finish().await;
        return Ok(());
    }
    session.finish().await;
    if let Some(connection) = at_work {
        let message = format!(
            "connection {connection} of {place} is still at work on the reset: it drops and makes tables until its files are at their end"
        );
        return Err(StepError::refused(message).with_help(format!(
            "end it there before anything else: `kill {connection}`; then restore the database from its backup, or reset it by a new run, and type `drop table {}` before that",
            mysql::MARK
        )));
    }
    if !ours {
        return Ok(());
    }
    let message = format!(
        "the database at {place} is in the middle of the reset: what was in it is dropped, and not all that the files make is there"
    );
    Err(StepError::refused(message).with_help(format!(
        "restore it from its backup, or reset it by a new run; before that, type `drop table {}` there: the table says that nobody else may",
        mysql::MARK
    )))
}
