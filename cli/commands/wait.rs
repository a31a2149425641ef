//! Reaching a run that another process works on: one event appended to its record, then watching what comes of it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use runbook_engine::event::{Event, EventKind};
use runbook_engine::plan::Plan;
use runbook_engine::state::{RunState, RunStatus};
use runbook_engine::store::{Fence, StoreError, Write, load_state};

use crate::app::State;
use crate::exit::{Failure, Outcome};
use crate::report::{self, describe};
use crate::session;

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long nothing may happen before the watching ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of the run that was watched.
pub enum Watched {
    /// It ended.
    Ended(Box<RunState>),
    /// The process that worked on it is gone, and it has not ended.
    Left,
    /// Nothing happened for a long time.
    Stuck,
}

/// Adds one event to the run's record, made from the state it really follows.
pub async fn append(
    state: &State,
    run: &str,
    plan: &Plan,
    json: bool,
    make: impl Fn(&RunState) -> Outcome<EventKind>,
) -> Outcome<Event> {
    loop {
        let mut stands = load_state(&*state.store, run, plan).await?;
        let after = stands.seq;
        let event = Event { seq: after + 1, at: Timestamp::now(), what: make(&stands)? };
        stands.apply(plan, &event).map_err(|illegal| Failure::usage(illegal.to_string()))?;
        let write = Write::Append { after, events: vec![event.clone()], status: stands.status };
        match state.store.commit(run, Fence::Foreign, vec![write]).await {
            Ok(()) => {
                show(run, &stands, &event, json);
                return Ok(event);
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn show(run: &str, stands: &RunState, event: &Event, json: bool) {
    if json {
        report::print_event(run, event);
    } else {
        let what = &event.what;
        let detail = describe::detail(what, stands);
        eprintln!("{}", report::plain_line(event.at, describe::kind(what), describe::step(what), &detail));
    }
}

/// Shows the events after number `after` until the run ends or its process is gone.
pub async fn watch(state: &State, run: &str, plan: &Plan, after: u64, json: bool) -> Outcome<Watched> {
    let (mut seen, mut moved) = (after, Instant::now());
    loop {
        let row = state.store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
        let owner = session::live_owner(state, &row);
        let stands = load_state(&*state.store, run, plan).await?;
        for event in state.store.events(run, seen).await? {
            seen = event.seq;
            moved = Instant::now();
            show(run, &stands, &event, json);
        }
        if stands.status.is_final() || (stands.status == RunStatus::Failed && owner.is_none()) {
            return Ok(Watched::Ended(Box::new(stands)));
        }
        if owner.is_none() {
            return Ok(Watched::Left);
        }
        if moved.elapsed() > PATIENCE {
            return Ok(Watched::Stuck);
        }
        tokio::time::sleep(LOOK).await;
    }
}
