//! When the state store fails: what is recorded, what is not safe, and what to type once the store can be written again.

use jiff::Timestamp;
use runbook_engine::event::Obligation;
use runbook_engine::plan::Plan;
use runbook_engine::state::RunState;
use runbook_engine::store::holder::{self, Holder};
use runbook_engine::store::{self, RunRow, Store, load_state};

use crate::app::State;
use crate::exit::Failure;
use crate::format;
use crate::lost;
use crate::report::describe;
use crate::report::summary::{self, Facts};
use crate::state::Location;

/// The store failed while this process worked on a run that stood like `last` as far as is known here. Sums up on stderr what is
/// recorded and what is still held.
pub async fn during(state: &State, row: &RunRow, plan: &Plan, last: RunState, failure: Failure) -> Failure {
    let run = row.id.as_str();
    // A disk that takes nothing more can often be read all the same.
    let stands = load_state(&*state.store, run, plan).await.ok().filter(|read| read.seq >= last.seq);
    let stands = stands.unwrap_or(last);
    let facts = Facts {
        run,
        plan,
        state: &stands,
        source: &row.source_name,
        location: &state.location,
        owned: false,
        stalled: None,
        now: Timestamp::now(),
        ledgers: summary::ledgers(&*state.store, run, &stands).await.unwrap_or_default(),
        width: format::width(),
    };
    summary::lines(&facts).iter().for_each(|line| eprintln!("{line}"));
    eprintln!();
    let failure = failure
        .help("this process stopped at once and does nothing more; what is recorded is said above")
        .help("what was under way and is not recorded is found out by the next resume or cancel");
    let held = stands.open_obligations().count();
    let failure = if held == 0 { failure } else { failure.help("what is HELD above is NOT safe until then") };
    let in_the_way = in_the_way(&state.location, &failure.message);
    failure.help(format!("{in_the_way}, then")).help(match stands.cancel {
        Some(_) => format!("runbook cancel {run}"),
        None => format!("runbook resume {run}   or   runbook cancel {run}"),
    })
}

/// What a person does about a store that can not be written.
fn in_the_way(location: &Location, message: &str) -> String {
    if let Some(Holder { pid, stopped }) = holder::writing(location.database()) {
        let ways = if stopped {
            "was stopped: let it go on (kill -CONT PID) or"
        } else {
            "does not let it go: wait for it, or"
        };
        let ways = ways.replace("PID", &pid.to_string());
        return format!("process {pid} has the database for itself and {ways} end it (kill -9 {pid})");
    }
    if message.contains("database is locked") {
        return format!(
            "another process had {} for itself for too long: wait until it has ended",
            location.database().display()
        );
    }
    format!("make {} writable again (df -h, free space)", location.folder().display())
}

/// The store could not be opened: what is known to be held all the same, from the database where it can be read, from the logs where
/// it can not.
pub async fn unopened(location: &Location, failure: Failure) -> Failure {
    let failure = failure.help("nothing was done");
    let failure = if failure.message.contains("database is locked") {
        let in_the_way = in_the_way(location, &failure.message);
        failure.help(format!("{in_the_way}, then try again"))
    } else {
        failure
    };
    let open = match store::open_to_read(location.database()).await {
        Ok((store, _)) => store.obligations().await.ok(),
        Err(_) => None,
    };
    match open {
        Some(open) => open.iter().fold(failure, |failure, one| {
            let original = describe::original(&one.obligation);
            failure.help(format!(
                "NOT SAFE: {}, held by {}; its original value is {original}",
                one.obligation.label, one.run
            ))
        }),
        None => {
            let failure = failure.help(format!(
                "{} was left as it is: put a good copy back, or move it away (with its -wal) to begin anew",
                location.database().display()
            ));
            let lines = lost::of_all(location);
            if lines.is_empty() {
                return failure;
            }
            lines.into_iter().fold(failure.help("what the logs say of the runs:"), Failure::help)
        }
    }
}

/// The same failure; of a run whose record can not be read with what is known of it all the same: what it holds, from the rows and from
/// its log, and how a person gets out of it.
pub async fn unreadable(location: &Location, failure: Failure) -> Failure {
    let Some(run) = failure.unreadable.clone() else { return failure };
    let Ok((store, _)) = store::open_to_read(location.database()).await else { return failure };
    let row = store.run(&run).await.ok().flatten();
    let failure = failure.help("the others are not touched by this, and nothing was done");
    if row.as_ref().is_some_and(|row| row.status.is_final()) {
        return failure
            .help(format!("run {run} has ended, and holds nothing; its log, {}", logged(location, &run)));
    }
    let failure = holdings(location, &*store, &run).await.into_iter().fold(failure, Failure::help);
    let failure = match row.and_then(|row| row.lock) {
        Some(key) => failure.help(format!("it keeps the lock `{key}`")),
        None => failure,
    };
    failure
        .help(format!("its log, {}", logged(location, &run)))
        .help("look at what it did, and put right by hand what has to be; then")
        .help(format!(
            "runbook cancel {run} --abandon   makes it give up what it holds and its lock, and ends it"
        ))
}

fn logged(location: &Location, run: &str) -> String {
    let path = location.log(run);
    if path.is_file() {
        format!("to be read: {}", path.display())
    } else {
        format!("{}, is missing", path.display())
    }
}

/// What a run holds, by the row of each obligation and by its log, which may know what the row does not.
pub async fn holdings(location: &Location, store: &dyn Store, run: &str) -> Vec<String> {
    let mut rows = store.obligations().await.unwrap_or_default();
    rows.retain(|one| one.run == run);
    let logged = lost::held(location, run).map(|(_, held)| held).unwrap_or_default();
    let told = |held: &Obligation| {
        format!("NOT SAFE: {}; its original value is {}", held.label, describe::original(held))
    };
    let mut lines: Vec<String> = rows.iter().map(|one| told(&one.obligation)).collect();
    for held in logged {
        let line = told(&held);
        if !lines.contains(&line) {
            lines.push(format!("its log says: {line}"));
        }
    }
    if lines.is_empty() {
        lines.push(format!("run {run} holds nothing"));
    }
    lines
}
