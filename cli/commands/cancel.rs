//! `runbook cancel`.

use runbook_engine::drive::Purpose;
use runbook_engine::event::EventKind;
use runbook_engine::plan::Plan;
use runbook_engine::store::{RunRow, decode_plan};

use super::abandon;
use super::wait::{self, Watched};
use crate::app::{App, State};
use crate::args::Cancel;
use crate::banner;
use crate::exit::{Exit, Failure, Outcome};
use crate::session::{self, Needs, Prepared, Stalled};
use crate::state::{self, Prefer};

/// Ends the run, in the process that works on it or in this one.
pub async fn run(app: &App, args: &Cancel) -> Outcome {
    let state = app.state().await?;
    if let Some(named) = args.run.as_deref().filter(|_| args.abandon) {
        return abandon::run(app, &state, named, args.confirm.as_deref()).await;
    }
    let row = match &args.run {
        Some(named) => state::run_named(&state, named, Prefer::Unfinished).await?,
        None => state::only_unfinished(&state).await?,
    };
    banner::show(&state, Some(&row.id)).await;
    if row.status.is_final() {
        return Err(Failure::usage(format!("run {} {} already", row.id, row.status.said())));
    }
    let plan = decode_plan(&row)?;
    let by = session::person();
    if let Some((owner, _)) =
        session::live_owner(&state, &row).filter(|_| session::stalled(&state, &row).is_none())
    {
        eprintln!("{owner} works on {}: asking it to cancel, and waiting for it", row.id);
        let request = |_: &_| Ok(EventKind::CancelRequested { by: by.clone() });
        let event = wait::append(&state, &row.id, &plan, app.json, request).await?;
        match wait::watch(&state, &row.id, &plan, event.seq, app.json).await? {
            Watched::Ended(stands) => {
                session::tell(&state, &row.id, &plan, &stands).await?;
                return Ok(Exit::of_run(&stands));
            }
            Watched::Left => {
                session::gone(&state, &row.id).await.map_err(|failure| {
                    failure.help("the cancel is recorded: it is done when that process goes on")
                })?;
                eprintln!("{owner} is gone: this process cancels the run");
            }
            Watched::Stuck => {
                let message =
                    format!("run {} was asked to cancel, and {owner} does not get on with it", row.id);
                let help = format!("when that process has ended, type  runbook cancel {}", row.id);
                return Err(Failure::new(Exit::Busy, message).help(help));
            }
        }
    }
    if let Some(stalled) = session::stalled(&state, &row) {
        return Err(recorded(app, &state, &row, &plan, &by, &stalled).await?);
    }
    let prepared = Prepared::new(&state, &row.id, plan, Needs::WhatThereIs).await?;
    session::drive(&state, &row, prepared, Purpose::Cancel(by), app.json).await
}

/// Leaves the cancel for a process that holds the run and does not go on, once.
async fn recorded(
    app: &App,
    state: &State,
    row: &RunRow,
    plan: &Plan,
    by: &str,
    stalled: &Stalled,
) -> Outcome<Failure> {
    let (_, stands) = session::load(state, row).await?;
    if stands.cancel.is_none() {
        let request = |_: &_| Ok(EventKind::CancelRequested { by: by.to_owned() });
        wait::append(state, &row.id, plan, app.json, request).await?;
    }
    let failure = Failure::new(
        Exit::Busy,
        format!("run {} is held by {}, which is alive or stopped", row.id, stalled.owner),
    );
    Ok(stalled
        .told(failure)
        .help("the cancel is recorded: it is done when that process goes on")
        .help(format!("when that process has ended, type  runbook cancel {}", row.id)))
}
