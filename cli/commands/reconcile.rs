//! `runbook reconcile`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use runbook_engine::drive::Purpose;
use runbook_engine::event::Closed;
use runbook_engine::state::ObligationPhase;
use runbook_engine::store::{OpenObligation, StoreError, decode_plan};
use serde_json::{Value, json};

use crate::app::{App, State};
use crate::banner;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::session::{self, Needs, Prepared};
use crate::trouble;

/// How long a process may take to put back what has just become overdue.
const MOMENT: Duration = Duration::from_secs(10);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Puts back what is overdue; one run that can not be dealt with does not stop the others.
pub async fn run(app: &App) -> Outcome {
    let state = app.state().await?;
    let now = Timestamp::now();
    let mut overdue = state.store.obligations().await?;
    overdue.retain(|one| one.hold_until <= now);
    overdue.sort_by(|a, b| a.run.cmp(&b.run));
    let (mut worst, mut told) = (Exit::Succeeded, Vec::new());
    for of_run in overdue.chunk_by(|a, b| a.run == b.run) {
        let failure = match release(&state, &of_run[0].run).await.err() {
            Some(failure) if failure.exit == Exit::Busy => waited(&state, of_run, failure).await,
            other => other,
        };
        for one in of_run {
            let (outcome, back) = outcome(&state, one, failure.as_ref()).await;
            let busy = failure.as_ref().is_some_and(|failure| failure.exit == Exit::Busy);
            worst = match worst {
                worst if back => worst,
                Exit::Succeeded if busy => Exit::Busy,
                Exit::Busy if busy => Exit::Busy,
                _ => Exit::Failed,
            };
            told.push(outcome);
        }
        if let Some(failure) = failure {
            format::failure(&trouble::unreadable(&state.location, failure).await);
        }
    }
    banner::after_reconcile(&state).await;
    if state.lost {
        eprintln!(
            "what the runs above may still hold that the database does not have is for a person to put back"
        );
        worst = Exit::Failed;
    } else if told.is_empty() {
        eprintln!("nothing is overdue");
    }
    if app.json {
        super::print_json(&Value::Array(told))?;
    }
    Ok(worst)
}

/// The process that works on the run puts back what is overdue by itself, and is given a moment for it: what is in the way when it has
/// not by then.
async fn waited(state: &State, of_run: &[OpenObligation], failure: Failure) -> Option<Failure> {
    let begun = Instant::now();
    loop {
        let open = state.store.obligations().await.ok()?;
        if !of_run.iter().any(|one| open.iter().any(|other| (&other.run, &other.id) == (&one.run, &one.id))) {
            return None;
        }
        let row = state.store.run(&of_run[0].run).await.ok().flatten()?;
        if let Some(stalled) = session::stalled(state, &row) {
            let message = format!("run {}: {}, and what it holds is overdue", row.id, stalled.says());
            let failure = stalled.told(Failure::new(Exit::Busy, message));
            return Some(failure.help("then  runbook reconcile"));
        }
        if begun.elapsed() >= MOMENT {
            let help = "what it holds is overdue: if that process is stuck, end it (kill -9), then  runbook reconcile";
            return Some(failure.help(help));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes the run up only to put back what is overdue in it. What it says goes to stderr: stdout carries one document.
async fn release(state: &State, run: &str) -> Outcome {
    let row = state.store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
    if let Some((owner, until)) = session::live_owner(state, &row) {
        return Err(session::busy(run, &owner, until));
    }
    let prepared = Prepared::new(state, run, decode_plan(&row)?, Needs::WhatThereIs).await?;
    session::drive(state, &row, prepared, Purpose::Reconcile, false)
        .await
        .map_err(|failure| Failure { message: format!("run {run}: {}", failure.message), ..failure })
}

/// What became of one that was overdue, and whether its original value is there as it should be.
async fn outcome(state: &State, one: &OpenObligation, failure: Option<&Failure>) -> (Value, bool) {
    let (word, present) = match closed(state, one).await {
        Some(Closed::Restored | Closed::Expired) => ("put-back", None),
        Some(Closed::Untouched) => ("never-changed", None),
        Some(Closed::Undone) => ("undone-by-others", None),
        Some(Closed::ByHand { other, .. }) => ("by-hand", other),
        Some(Closed::Foreign { present }) => ("left-alone", Some(present)),
        None if failure.is_some_and(|failure| failure.exit == Exit::Busy) => ("busy", None),
        None => ("still-held", None),
    };
    let document = json!({
        "run": one.run,
        "obligation": one.id,
        "label": one.obligation.label,
        "outcome": word,
        "present": present,
        "error": failure.map(|failure| failure.message.as_str()),
    });
    if word == "undone-by-others" {
        // Nobody can tell it from the value of another system that the environment of this process leads to.
        eprintln!(
            "{} is at its original value, and no run had put it back: look whether this is the system that was frozen, and at what was written to it since",
            one.obligation.label
        );
    }
    (document, matches!(word, "put-back" | "never-changed" | "by-hand"))
}

/// How it was closed; none while it is open, or when that can not be found out.
async fn closed(state: &State, one: &OpenObligation) -> Option<Closed> {
    let row = state.store.run(&one.run).await.ok()??;
    let (_, stands) = session::load(state, &row).await.ok()?;
    match &stands.obligations.get(&one.id)?.phase {
        ObligationPhase::Closed(how) => Some(how.clone()),
        _ => None,
    }
}
