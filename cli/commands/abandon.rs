//! `runbook cancel --abandon`: the way out of a run whose record can not be read, or is an older one than its log, and of one that was cancelled and can
//! not take away what its steps left behind.

use jiff::Timestamp;
use runbook_engine::drive::{LEASE, Purpose};
use runbook_engine::event::Question;
use runbook_engine::plan::Plan;
use runbook_engine::redact::Redactor;
use runbook_engine::state::RunState;
use runbook_engine::store::{Fence, RunRow, Write};

use crate::app::{App, State};
use crate::behind;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::log::RunLog;
use crate::prompt::{self, Reply};
use crate::session::{self, Needs, Prepared};
use crate::state::{self, Prefer};
use crate::trouble;

/// Ends the run, after a person has typed its id; in its row alone where it can not be read. Refused for any other run: its own cancel puts things back.
pub async fn run(app: &App, state: &State, named: &str, confirm: Option<&str>) -> Outcome {
    let (run, row) = found(state, named).await?;
    if let Some(row) = &row
        && let Some((plan, stands)) = untidy(state, row).await?
    {
        return leave(app, state, row, plan, &stands, confirm).await;
    }
    let held = trouble::holdings(&state.location, &*state.store, &run).await;
    let holds = !held.is_empty();
    held.iter().for_each(|line| eprintln!("{line}"));
    let message = "Nothing is put back: what the run holds is given up as it is.";
    let facts = held.iter().map(|line| ("Holds".to_owned(), line.clone())).collect();
    if !confirmed(&run, message, facts, confirm)? {
        eprintln!("nothing was done");
        return Ok(Exit::Usage);
    }
    let _held = session::take(state, &run).await?;
    let by = session::person();
    note(
        state,
        &run,
        &format!(
            "{by} gives this run up, whose record can not be read or is an older one: {}",
            held.join("; ")
        ),
    );
    let now = Timestamp::now();
    let epoch = state.store.claim(&run, &session::owner(), now, LEASE.after(now)).await?;
    state.store.commit(&run, Fence::Owner(epoch), vec![Write::Abandon]).await?;
    eprintln!("run {run} has ended: it gave up its lock and what it held, and put nothing back");
    Ok(if holds { Exit::Failed } else { Exit::Cancelled })
}

/// Ends a run that was cancelled, and leaves what its steps left behind as it is.
async fn leave(
    app: &App,
    state: &State,
    row: &RunRow,
    plan: Plan,
    stands: &RunState,
    confirm: Option<&str>,
) -> Outcome {
    let lines = stands.error.iter().flat_map(|error| {
        let first = std::iter::once(error.message.clone());
        first.chain(error.causes.iter().cloned()).chain(error.help.clone())
    });
    let left: Vec<String> = lines.collect();
    left.iter().for_each(|line| eprintln!("{line}"));
    let message = "What the steps of the run left behind stays as it is.";
    let facts = left.into_iter().map(|line| ("Left".to_owned(), line)).collect();
    if !confirmed(&row.id, message, facts, confirm)? {
        eprintln!("nothing was done");
        return Ok(Exit::Usage);
    }
    let prepared = Prepared::new(state, &row.id, plan, Needs::WhatThereIs).await?;
    session::drive(state, row, prepared, Purpose::Abandon(session::person()), app.json).await
}

/// The run, and its row if that can be read.
async fn found(state: &State, named: &str) -> Outcome<(String, Option<RunRow>)> {
    match state::run_named(state, named, Prefer::Unfinished).await {
        Ok(row) => Ok((row.id.clone(), Some(row))),
        Err(Failure { unreadable: Some(run), .. }) => Ok((run, None)),
        Err(failure) => Err(failure),
    }
}

/// What is known of a run that was cancelled and stays open because it could not tidy up; nothing of one that can not be read.
async fn untidy(state: &State, row: &RunRow) -> Outcome<Option<(Plan, RunState)>> {
    if row.status.is_final() {
        return Err(Failure::usage(format!("run {} {} already", row.id, row.status.said())));
    }
    if let Some((owner, until)) = session::live_owner(state, row) {
        return Err(session::busy(&row.id, &owner, until));
    }
    if behind::of(&state.location, &*state.store, &row.id).await?.is_some_and(|behind| behind.matters()) {
        return Ok(None);
    }
    match session::load(state, row).await {
        Err(Failure { unreadable: Some(_), .. }) => Ok(None),
        Err(failure) => Err(failure),
        Ok((plan, stands)) if stands.is_untidy() => Ok(Some((plan, stands))),
        Ok(_) => Err(Failure::usage(format!("run {} can be read: it is not given up", row.id)).help(
            format!("runbook cancel {}   puts back what it changed for its own time, and ends it", row.id),
        )),
    }
}

/// Whether a person has typed the run's id.
fn confirmed(run: &str, message: &str, facts: Vec<(String, String)>, given: Option<&str>) -> Outcome<bool> {
    if let Some(given) = given {
        return if given == run {
            Ok(true)
        } else {
            Err(Failure::usage(format!("`--confirm {given}` is not the run's id; nothing was done"))
                .help(format!("it is  {run}")))
        };
    }
    if !prompt::attended() {
        return Err(Failure::usage("there is no terminal to ask on; nothing was done")
            .help(format!("runbook cancel {run} --abandon --confirm {run}")));
    }
    let question =
        Question::Phrase { message: message.to_owned(), phrase: run.to_owned(), terminal: false, facts };
    Ok(matches!(prompt::ask("abandon", &question), Reply::Text(text) if text == run))
}

/// Says in the log who gave the run up. One that can not be written is in nobody's way.
fn note(state: &State, run: &str, text: &str) {
    let noted =
        RunLog::open(&state.location.log(run), Redactor::default()).and_then(|mut log| log.note(text));
    if let Err(error) = noted {
        format::warn(&format!("the log of run {run} can not be written: {error}"));
    }
}
