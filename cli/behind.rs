//! Runs of which the log knows more than the database: an older copy of it was put back. What it does not know of was done all the same,
//! and would be done a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use runbook_engine::event::{EventKind, Obligation, ObligationChange};
use runbook_engine::store::{RunRow, Store, StoreError};

use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::log::{self, Record};
use crate::report::describe;
use crate::state::Location;

/// How many events are told one by one.
const MOST: usize = 12;

/// The way out that loses nothing.
pub const PUT_BACK: &str = "put the newest copy of the database back, then try again";

/// What of a run only its log knows.
pub struct Behind {
    run: String,
    /// The number of the last event that the database has.
    stored: u64,
    /// What happened, one line each.
    happened: Vec<String>,
    /// What it has frozen and not given back since.
    held: Vec<Obligation>,
    /// What it gave back, by the ids of the obligations.
    given_back: BTreeSet<String>,
    /// Whether anything of it is more than who took the run up and what was asked.
    matters: bool,
}

/// What only the log of this run knows; none when the database knows as much. That stays so until the run has ended, whatever is recorded
/// after an older copy was put back.
pub async fn of(location: &Location, store: &dyn Store, run: &str) -> Outcome<Option<Behind>> {
    let path = location.log(run);
    let failed = |error: io::Error| {
        Failure::new(Exit::Store, format!("the log of run {run}, {}: {error}", path.display()))
    };
    // The log first: an event is in the database before it is there. One that can not be opened is told where it is written.
    let Ok(Some(logged)) = log::last_event(&path) else { return Ok(None) };
    let row = store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
    let stored = row.last_seq;
    if logged <= stored && log::with(&path, &["\"put_back_to\""]).map_err(failed)?.is_empty() {
        return Ok(None);
    }
    let records = log::read(&path).map_err(failed)?;
    let lost = lost(&records, stored);
    Ok((!lost.is_empty()).then(|| Behind::new(run, stored, &lost)))
}

/// The events of a log that the database does not have, when it has those up to number `stored`.
fn lost(records: &[Record], stored: u64) -> Vec<&Record> {
    let after = |record: &Record, number: u64| record.seq.is_some_and(|seq| seq > number);
    let (mut had, mut lost): (Vec<&Record>, Vec<&Record>) = (Vec::new(), Vec::new());
    for record in records {
        match record.put_back_to {
            Some(number) => lost.extend(had.extract_if(.., |record| after(record, number))),
            None if record.what.is_some() => had.push(record),
            None => {}
        }
    }
    lost.extend(had.into_iter().filter(|record| after(record, stored)));
    lost
}

/// Says on stderr of which of these runs only the log knows everything. Whether one of them may hold something that the database does
/// not know of.
pub async fn tell(location: &Location, store: &dyn Store, rows: &[RunRow]) -> bool {
    let all = all(location, store, rows).await;
    all.iter().for_each(|behind| behind.warn(location));
    all.iter().any(Behind::holds)
}

/// Those of these runs that have not ended and of which only the log knows everything.
pub async fn all(
    location: &Location,
    store: &dyn Store,
    rows: impl IntoIterator<Item = &RunRow>,
) -> Vec<Behind> {
    let mut all = Vec::new();
    for row in rows.into_iter().filter(|row| !row.status.is_final()) {
        // A command must not fail for this; what is broken says so by itself.
        if let Ok(Some(behind)) = of(location, store, &row.id).await
            && behind.matters()
        {
            all.push(behind);
        }
    }
    all
}

/// What may still be held, and what its original value is.
pub fn held_line(held: &Obligation) -> String {
    let original = describe::original(held);
    format!("MAY STILL BE HELD: {}; its original value is {original}", held.label)
}

impl Behind {
    fn new(run: &str, stored: u64, lost: &[&Record]) -> Self {
        let mut held = BTreeMap::new();
        let (mut happened, mut given_back, mut matters) = (Vec::new(), BTreeSet::new(), false);
        for record in lost {
            let Some(what) = &record.what else { continue };
            match what {
                EventKind::Obligation { id, change: ObligationChange::Opened(obligation) } => {
                    held.insert(id.clone(), (**obligation).clone());
                }
                EventKind::Obligation { id, change: ObligationChange::Closed { .. } } => {
                    let before = held.remove(id).is_none();
                    given_back.extend(before.then(|| id.clone()));
                }
                _ => {}
            }
            matters |= !matches!(what, EventKind::RunClaimed { .. } | EventKind::Asked { .. });
            let step = describe::step(what).map(|step| format!(" {step}")).unwrap_or_default();
            happened.push(format!("{}  {}{step}", format::utc(record.at), describe::kind(what)));
        }
        Self {
            run: run.to_owned(),
            stored,
            happened,
            held: held.into_values().collect(),
            given_back,
            matters,
        }
    }

    fn says(&self, location: &Location) -> String {
        let (run, events) = (&self.run, self.happened.len());
        let database = location.database().display();
        let events = if events == 1 { "1 event".to_owned() } else { format!("{events} events") };
        format!("{database} does not have {events} of run {run} that its log has: an older copy was put back")
    }

    /// The refusal to go on with it.
    pub fn refused(self, location: &Location) -> Failure {
        let failure = Failure::new(Exit::Store, self.says(location))
            .help("nothing was done: what the database does not know of would be done a second time")
            .help(format!("only its log knows, {}:", location.log(&self.run).display()));
        let more = self.happened.len().saturating_sub(MOST);
        let mut lines: Vec<String> = self.happened.into_iter().skip(more).collect();
        if more > 0 {
            lines.insert(0, format!("{more} more, then"));
        }
        lines.extend(self.held.iter().map(held_line));
        let failure = lines.into_iter().fold(failure, |failure, line| failure.help(format!("  {line}")));
        failure.help(PUT_BACK).help(format!(
            "or put right by hand what has to be, and end the run:  runbook cancel {}{}",
            self.run,
            if self.held.is_empty() { "" } else { " --abandon" }
        ))
    }

    /// The refusal to end it, which would be the last that is heard of what it may hold.
    pub fn not_ended(self, location: &Location) -> Failure {
        let failure = Failure::new(Exit::Store, self.says(location));
        let told = self.held.iter().fold(failure, |failure, held| failure.help(held_line(held)));
        told.help("nothing was done").help(PUT_BACK).help(format!(
            "or put that back by hand, and end the run in the database alone:  runbook cancel {} --abandon",
            self.run
        ))
    }

    /// The refusal to put back what its log says is back: somebody else may hold it by now. None when nothing of that is open in the store.
    pub async fn untouchable(&self, location: &Location, store: &dyn Store) -> Outcome<Option<Failure>> {
        let mut open = store.obligations().await?;
        open.retain(|one| one.run == self.run && self.given_back.contains(&one.id));
        if open.is_empty() {
            return Ok(None);
        }
        let failure = Failure::new(Exit::Store, self.says(location));
        let told = open.iter().fold(failure, |failure, one| {
            let label = &one.obligation.label;
            failure.help(format!("its log says that {label} was given back: it is not touched a second time"))
        });
        Ok(Some(told.help("nothing was done").help(PUT_BACK).help(format!(
            "or look at what it was about, and end the run in the database alone:  runbook cancel {} --abandon",
            self.run
        ))))
    }

    /// Says it on stderr, with what may still be held.
    pub fn warn(&self, location: &Location) {
        format::warn(&self.says(location));
        self.held.iter().for_each(|held| eprintln!("  {}", held_line(held)));
    }

    /// Whether anything was done that could be done a second time. A process that only took the run up, such as one that failed on a damaged
    /// database before a whole one was put back, did nothing.
    pub fn matters(&self) -> bool {
        self.matters
    }

    /// Which run it is.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The targets that it may hold and that the database does not know of.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.held.iter().map(|held| held.target.as_str())
    }

    /// Whether it may hold something that the database does not know of.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// What the log keeps of it.
    pub fn note(&self) -> String {
        format!(
            "the database knew the events to {} alone: what comes from here on is numbered from there",
            self.stored
        )
    }

    /// The number of the last event that the database has.
    pub fn stored(&self) -> u64 {
        self.stored
    }
}
