//! `runbook exec`.

use std::path::Path;

use jiff::Timestamp;
use runbook_engine::drive::Purpose;
use runbook_engine::event::{Event, EventKind};
use runbook_engine::plan::Plan;
use runbook_engine::saved::definitions;
use runbook_engine::store::{NewRun, RunRow, StoreError};
use runbook_steps::catalog::CATALOG;

use crate::app::{App, State};
use crate::args::Exec;
use crate::banner;
use crate::confirm::Confirmed;
use crate::exit::{Exit, Failure, Outcome};
use crate::find::{self, Source};
use crate::inputs;
use crate::lost;
use crate::planning;
use crate::report;
use crate::reviewed;
use crate::session::{self, Needs, Prepared};
use crate::state::stands;

/// The letters of a run id's last part: none that is taken for another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Creates a run and drives it.
pub async fn run(app: &App, args: &Exec) -> Outcome {
    if let Some(file) = &args.plan {
        return applied(app, args, file).await;
    }
    let source = find::runbook(args.runbook.as_deref().unwrap_or_default())?;
    let plan = inputs::plan(&source, &args.inputs)?;
    if args.dry_run {
        return super::plan::dry_run(app, &source, plan).await;
    }
    let state = app.state().await?;
    banner::show(&state, None).await;
    start(&state, app.json, source, plan, Confirmed::default()).await
}

/// The same with a plan that somebody looked at: nothing is done when anything is not as it says.
async fn applied(app: &App, args: &Exec, file: &Path) -> Outcome {
    // The run works in the folder that the plan was made in.
    let file =
        &std::path::absolute(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let saved = reviewed::load(file)?;
    reviewed::in_time(file, &saved, Timestamp::now())?;
    let by = args.seen_by.clone().unwrap_or_else(session::person);
    if by.trim().is_empty() || by.chars().any(char::is_control) {
        return Err(Failure::usage("`--as` needs a name, without control characters"));
    }
    let confirmed = Confirmed::of(&args.confirm, &by, &saved)?;
    reviewed::whole(file, &saved).await?;
    let source = reviewed::source(file, &saved, args.runbook.as_deref())?;
    let plan = reviewed::again(&saved, &source, inputs::given_anew(&args.inputs)?)?;
    let state = app.state().await?;
    banner::show(&state, None).await;
    if let Some(run) = state.store.applied(&saved.id).await? {
        return Err(StoreError::Applied { run }.into());
    }
    let moved = definitions(&saved.plan, &plan, &CATALOG);
    if !moved.is_empty() {
        return Err(reviewed::refused(file, &saved, moved));
    }
    let world = planning::read(&state.location, plan.clone(), Some(&saved)).await?;
    if let Some((step, error)) = world.unreached(&saved) {
        return Err(Failure::new(Exit::Failed, format!("`{step}` could not be looked at: {error}"))
            .help("nothing was done, and the plan stands: apply it again when that answers"));
    }
    let moved = reviewed::moved(file, &saved, &world).await?;
    if !moved.is_empty() {
        return Err(reviewed::refused(file, &saved, moved));
    }
    let sets = planning::sets_beside(file);
    for artifact in saved.sets().values() {
        state.location.artifacts().adopt(&sets, artifact).await?;
    }
    let plan = Plan { reviewed: Some(reviewed::kept(&saved, &by, world.systems.clone())), ..plan };
    drop(world);
    start(&state, app.json, source, plan, confirmed).await
}

async fn start(state: &State, json: bool, source: Source, plan: Plan, confirmed: Confirmed) -> Outcome {
    let now = Timestamp::now();
    let id = run_id(&plan.runbook, now, draw()?);
    let prepared = Prepared::new(state, &id, plan.clone(), Needs::All).await?.confirmed(confirmed);
    let plan = Plan { places: prepared.places(&id), ..plan };
    let row = create(state, &id, &plan, source, now, json).await?;
    session::announce(&id, false);
    session::drive(state, &row, prepared, Purpose::GoOn, json).await
}

fn draw() -> Outcome<u64> {
    getrandom::u64().map_err(|error| Failure::new(Exit::Bug, format!("no random numbers: {error}")))
}

/// `reset-chatkit-20261121-0226-x7k2`: what, when (UTC), and four letters against two at the same minute.
fn run_id(runbook: &str, now: Timestamp, lot: u64) -> String {
    let letters = (0..4).map(|at| char::from(LETTERS[(lot >> (at * 5)) as usize % LETTERS.len()]));
    format!("{runbook}-{}-{}", now.strftime("%Y%m%d-%H%M"), letters.collect::<String>())
}

async fn create(
    state: &State,
    id: &str,
    plan: &Plan,
    source: Source,
    now: Timestamp,
    json: bool,
) -> Outcome<RunRow> {
    let (lock, applies) = (plan.lock.clone(), plan.reviewed.as_ref().map(|plan| plan.id.clone()));
    if let Some(refused) = lost::taken(state, lock.as_deref(), applies.as_deref()).await? {
        return Err(refused);
    }
    let what = EventKind::RunCreated { by: session::person(), lock: lock.clone(), applies: applies.clone() };
    let first = Event { seq: 1, at: now, what };
    let text = serde_json::to_string(plan)
        .map_err(|error| Failure::new(Exit::Bug, format!("the plan can not be written: {error}")))?;
    let new = NewRun {
        id: id.to_owned(),
        runbook: plan.runbook.clone(),
        plan: text,
        definition: source.text,
        source_name: source.path.display().to_string(),
        seed: draw()?,
        lock,
        applies,
        first: first.clone(),
    };
    match state.store.create(new).await {
        Ok(()) => {}
        Err(StoreError::Locked { key, run }) => return Err(locked(state, &key, &run).await),
        Err(error @ StoreError::Applied { .. }) => return Err(error.into()),
        Err(error) => {
            return Err(Failure::from(error).help("the run was not created, and nothing was done"));
        }
    }
    if json {
        report::print_event(id, &first);
    }
    let row = state.store.run(id).await?;
    row.ok_or_else(|| StoreError::NoSuchRun(id.to_owned()).into())
}

/// Another unfinished run has the lock: which, how it stands, and what to type.
async fn locked(state: &State, key: &str, run: &str) -> Failure {
    let failure = Failure::new(Exit::Busy, format!("run {run} holds the lock `{key}`; nothing was done"));
    let unreadable = |failure| Failure { unreadable: Some(run.to_owned()), ..failure };
    let row = match state.store.run(run).await {
        Ok(Some(row)) => row,
        Ok(None) => return failure,
        Err(_) => return unreadable(failure),
    };
    if let Err(Failure { unreadable: Some(_), message, .. }) = session::load(state, &row).await {
        return unreadable(failure.help(message));
    }
    if let Some((owner, _)) = session::live_owner(state, &row) {
        return failure
            .help(format!("it is running, by {owner}"))
            .help(format!("runbook logs {run} -f   to watch it"));
    }
    failure
        .help(format!("it is {}", stands(&row, false)))
        .help(format!("runbook show {run}     what it did"))
        .help(format!("runbook resume {run}   go on with it"))
        .help(format!("runbook cancel {run}   put back what it changed for its own time, and end it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_says_what_and_when() {
        let now = "2026-11-21T02:26:59Z".parse().unwrap();
        assert_eq!(run_id("reset-chatkit", now, 0), "reset-chatkit-20261121-0226-aaaa");
        let id = run_id("reset-chatkit", now, u64::MAX);
        assert!(id.ends_with("-9999"), "{id}");
    }
}
