//! `runbook reconcile`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use runbook_engine::drive::Purpose;
use runbook_engine::store::{StoreError, decode_plan};

use crate::app::{App, State};
use crate::banner;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::session::{self, Needs, Prepared};

/// Puts back what is overdue; one run that can not be dealt with does not stop the others.
pub async fn run(app: &App) -> Outcome {
    let state = app.state().await?;
    let now = Timestamp::now();
    let open = state.store.obligations().await?;
    let overdue: BTreeSet<String> =
        open.into_iter().filter(|one| one.hold_until <= now).map(|one| one.run).collect();
    if overdue.is_empty() {
        banner::show(&*state.store, None).await;
        eprintln!("nothing is overdue");
        return Ok(Exit::Succeeded);
    }
    let mut worst = Exit::Succeeded;
    for run in overdue {
        match release(app, &state, &run).await {
            Ok(true) => {}
            Ok(false) => worst = Exit::Failed,
            Err(failure) => {
                format::failure(&failure);
                worst = if failure.exit == Exit::Busy { worst } else { Exit::Failed };
            }
        }
    }
    banner::show(&*state.store, None).await;
    Ok(worst)
}

/// Whether nothing of the run is overdue any more.
async fn release(app: &App, state: &State, run: &str) -> Outcome<bool> {
    let row = state.store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
    if let Some((owner, until)) = session::live_owner(state, &row).await? {
        // Its own process puts it back.
        return Err(session::busy(run, &owner, until));
    }
    let prepared = Prepared::new(state, run, decode_plan(&row)?, Needs::WhatThereIs)?;
    session::drive(state, &row, prepared, Purpose::Reconcile, app.json)
        .await
        .map_err(|failure| Failure { message: format!("run {run}: {}", failure.message), ..failure })?;
    let now = Timestamp::now();
    let open = state.store.obligations().await?;
    Ok(!open.iter().any(|one| one.run == run && one.hold_until <= now))
}
