//! When the state store fails: what is recorded, what is not safe, and what to type once the store can be written again.

use jiff::Timestamp;
use runbook_engine::plan::Plan;
use runbook_engine::state::RunState;
use runbook_engine::store::{self, RunRow, load_state};
use runbook_steps::freeze;

use crate::app::State;
use crate::exit::Failure;
use crate::format;
use crate::lost;
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
        now: Timestamp::now(),
        partly: summary::partly(&*state.store, run, &stands).await.unwrap_or_default(),
        width: format::width(),
    };
    summary::lines(&facts).iter().for_each(|line| eprintln!("{line}"));
    eprintln!();
    let failure = failure
        .help("this process stopped at once and does nothing more; what is recorded is said above")
        .help("what was under way and is not recorded is found out by the next resume or cancel");
    let held = stands.open_obligations().count();
    let failure = if held == 0 { failure } else { failure.help("what is HELD above is NOT safe until then") };
    failure
        .help(format!("make {} writable again (df -h, free space), then", state.location.folder().display()))
        .help(match stands.cancel {
            Some(_) => format!("runbook cancel {run}"),
            None => format!("runbook resume {run}   or   runbook cancel {run}"),
        })
}

/// The store could not be opened: what is known to be held all the same, from the database where it can be read, from the logs where
/// it can not.
pub async fn unopened(location: &Location, failure: Failure) -> Failure {
    let failure = failure.help("nothing was done");
    let open = match store::open_to_read(location.database()).await {
        Ok((store, _)) => store.obligations().await.ok(),
        Err(_) => None,
    };
    match open {
        Some(open) => open.iter().fold(failure, |failure, one| {
            let original = freeze::original_text(&one.obligation);
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
