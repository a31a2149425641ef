//! Runs that left a folder and that the database does not have: it was lost, emptied or exchanged. What they held may still be held,
//! and nobody but a person can put it back then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use runbook_engine::event::{Closed, EventKind, Obligation, ObligationChange, RunOutcome};
use runbook_engine::state::RunStatus;
use runbook_engine::store::{RunRow, Store};

use crate::app::State;
use crate::behind;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::log;
use crate::state::Location;

/// How many are told one by one.
const MOST: usize = 20;

/// A run of which only the log is left.
struct Lost {
    run: String,
    log: PathBuf,
    ended: bool,
    held: Vec<Obligation>,
    /// The lock that it took and the plan that it applies.
    created_with: (Option<String>, Option<String>),
}

/// Says on stderr which runs have a log and are not in the store, or not as a whole; nothing when all are. Whether one of them may still
/// hold something that the store does not know of.
pub async fn tell(location: &Location, store: &dyn Store) -> bool {
    // The folders are looked at first: the row of a run is there before its log.
    let logged = logged(location);
    if logged.is_empty() {
        return false;
    }
    // A command must not fail for this; a store that is broken says so by itself.
    let Ok(rows) = store.runs(usize::MAX).await else { return false };
    let behind = behind::tell(location, store, &rows).await;
    let lost = absent(store, &rows, logged).await;
    if lost.is_empty() {
        return behind;
    }
    format::warn(&format!(
        "{} does not have {} that {} here: it is new, was exchanged, or lost what was in it",
        location.database().display(),
        if lost.len() == 1 { "1 run".to_owned() } else { format!("{} runs", lost.len()) },
        if lost.len() == 1 { "was recorded" } else { "were recorded" },
    ));
    lines(location, &lost).iter().for_each(|line| eprintln!("  {line}"));
    let folder = location.folder().join("runs");
    eprintln!(
        "  put the right database back; or, when nothing is left to do for a run, move its folder out of {}",
        folder.display()
    );
    behind || lost.iter().any(|run| !read(location, run).held.is_empty())
}

/// What the logs say of every run that has one, for when the database says nothing.
pub fn of_all(location: &Location) -> Vec<String> {
    lines(location, &logged(location))
}

/// What a run holds, as far as its log knows, and the log; none when it has none that can be read.
pub fn held(location: &Location, run: &str) -> Option<(PathBuf, Vec<Obligation>)> {
    let log = location.log(run);
    log.is_file().then(|| (log, read(location, run).held))
}

/// The targets that runs may hold of which only their logs know, with those runs.
pub async fn held_elsewhere(location: &Location, store: &dyn Store) -> Outcome<BTreeMap<String, String>> {
    let logged = logged(location);
    let rows = store.runs(usize::MAX).await?;
    let mut all = BTreeMap::new();
    for run in absent(store, &rows, logged).await {
        all.extend(read(location, &run).held.into_iter().map(|held| (held.target, run.clone())));
    }
    for behind in behind::all(location, store, &rows).await {
        all.extend(behind.targets().map(|target| (target.to_owned(), behind.run().to_owned())));
    }
    Ok(all)
}

/// The refusal of a lock that a run holds, or of a plan that one applied, of which only its log knows; none when no log says so.
pub async fn taken(state: &State, lock: Option<&str>, applies: Option<&str>) -> Outcome<Option<Failure>> {
    if lock.or(applies).is_none() {
        return Ok(None);
    }
    let logged = logged(&state.location);
    let rows = state.store.runs(usize::MAX).await?;
    let mut unknown = absent(&*state.store, &rows, logged).await;
    // One that had failed without holding anything may have taken its lock again since.
    let failed = rows.iter().filter(|row| row.status == RunStatus::Failed);
    let later = behind::all(&state.location, &*state.store, failed).await;
    unknown.extend(later.iter().map(|behind| behind.run().to_owned()));
    let same = |one: Option<&str>, other: Option<&str>| one.is_some() && one == other;
    for one in unknown.iter().map(|run| read(&state.location, run)) {
        let (its_lock, its_plan) = &one.created_with;
        let says = if same(applies, its_plan.as_deref()) {
            format!("this plan was applied by run {}, and is not applied again", one.run)
        } else if same(lock, its_lock.as_deref()) && !one.ended {
            format!("run {} holds the lock `{}`", one.run, lock.unwrap_or_default())
        } else {
            continue;
        };
        let way = if same(applies, its_plan.as_deref()) {
            "or make a new plan, of what is there now".to_owned()
        } else {
            let folder = state.location.folder().join("runs");
            format!("or, when nothing is left to do for it, move its folder out of {}", folder.display())
        };
        let only = format!(
            "only its log says so, {}: {} does not know of it; nothing was done",
            one.log.display(),
            state.location.database().display()
        );
        let failure = Failure::new(Exit::Busy, says).help(only);
        let failure = failure.help(behind::PUT_BACK).help(way);
        return Ok(Some(failure));
    }
    Ok(None)
}

/// Those of the runs that the store does not have; a row that can not be read is there.
async fn absent(store: &dyn Store, rows: &[RunRow], mut runs: Vec<String>) -> Vec<String> {
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    runs.retain(|run| !known.contains(run.as_str()));
    let mut absent = Vec::new();
    for run in runs {
        if matches!(store.run(&run).await, Ok(None)) {
            absent.push(run);
        }
    }
    absent
}

/// The runs that have a log, in the order of their names.
fn logged(location: &Location) -> Vec<String> {
    let Ok(folders) = fs::read_dir(location.folder().join("runs")) else { return Vec::new() };
    let names = folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut runs: Vec<String> = names.filter(|run| location.log(run).is_file()).collect();
    runs.sort();
    runs
}

fn lines(location: &Location, runs: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut lost, mut quiet): (Vec<Lost>, Vec<Lost>) =
        runs.iter().map(|run| read(location, run)).partition(|one| !one.held.is_empty() || !one.ended);
    // What may be held comes first.
    lost.sort_by_key(|one| one.held.is_empty());
    lost.append(&mut quiet);
    for one in lost.iter().take(MOST) {
        let stands = if one.ended { "it had ended" } else { "it had NOT ended" };
        lines.push(format!("{}  {stands}; its log: {}", one.run, one.log.display()));
        lines.extend(one.held.iter().map(|held| format!("  {}", behind::held_line(held))));
    }
    if lost.len() > MOST {
        lines.push(format!("and {} more", lost.len() - MOST));
    }
    lines
}

fn read(location: &Location, run: &str) -> Lost {
    let log = location.log(run);
    let (mut held, mut ended, mut created_with) = (BTreeMap::new(), false, (None, None));
    let words = ["\"run-created\"", "\"obligation\"", "\"run-ended\"", "\"step-reopened\""];
    // A log that can not be read says nothing of an end.
    for record in log::with(&log, &words).unwrap_or_default() {
        match record.what {
            Some(EventKind::Obligation { id, change: ObligationChange::Opened(obligation) }) => {
                held.insert(id, *obligation);
            }
            Some(EventKind::Obligation { id, change: ObligationChange::Closed { how } })
                if !matches!(how, Closed::Foreign { .. }) =>
            {
                held.remove(&id);
            }
            Some(EventKind::RunEnded { outcome, .. }) => {
                ended = outcome != RunOutcome::Failed || held.is_empty();
            }
            Some(EventKind::StepReopened { .. }) => ended = false,
            Some(EventKind::RunCreated { lock, applies, .. }) => created_with = (lock, applies),
            _ => {}
        }
    }
    Lost { run: run.to_owned(), log, ended, held: held.into_values().collect(), created_with }
}
