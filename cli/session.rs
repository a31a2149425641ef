//! Everything between a stored run and the loop that drives it: shared by every command that makes a run go on or end.

mod bound;
mod checks;
mod ownership;
mod recorder;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use runbook_engine::drive::{DriveError, Driver, Finish, Halt, LiveHub, Purpose, SystemClock};
use runbook_engine::plan::{Place, Plan};
use runbook_engine::redact::Redactor;
use runbook_engine::state::RunState;
use runbook_engine::store::{RunRow, StoreError, decode_plan, load_state};
use runbook_steps::executor::CatalogExecutor;
use runbook_steps::kind::Vault;
use runbook_steps::process::end_orphans;
use runbook_steps::resources::Resources;
use runbook_steps::vault::SealedVault;

use self::recorder::{Last, Pump, Recorder};
use crate::app::State;
use crate::behind::{self, Behind};
use crate::confirm::{Confirmed, Foretold};
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::log::RunLog;
use crate::lost;
use crate::prompt::AtTerminal;
use crate::redacted_panic;
use crate::report::summary::{self, Facts};
use crate::report::{STUCK, Subject, Views};
use crate::secrets::{self, Secrets};
use crate::signals::{Stopper, stop_between_writes};
use crate::trouble;

pub use self::bound::in_time;
pub use self::checks::decodes;
pub use self::ownership::{Stalled, busy, gone, live_owner, owner, person, stalled, take};

/// Whether everything a run needs must be there before it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// All of it, or nothing is done.
    All,
    /// What is missing is told and left out: putting things back must not fail for something it does not need.
    WhatThereIs,
}

/// The systems and secrets of a run, ready to be used.
pub struct Prepared {
    systems: Systems,
    vault: Arc<SealedVault>,
    confirmed: Confirmed,
}

impl Prepared {
    /// Checks the plan against this program, reads the secrets and opens the systems. They are those of the reviewed plan, if the run was
    /// started with one; nothing else is asked of them.
    pub async fn new(state: &State, run: &str, plan: Plan, needs: Needs) -> Outcome<Self> {
        let vault = Arc::new(SealedVault::for_run(state.location.folder(), run));
        let shared: Arc<dyn Vault> = Arc::clone(&vault) as _;
        let mut systems = Systems::open(plan, needs, &shared)?;
        bound::same_places(run, &mut systems, needs)?;
        bound::same_systems(run, &systems, needs).await?;
        Ok(Self { systems, vault, confirmed: Confirmed::default() })
    }

    /// Where the connections lead, for a run that is created.
    pub fn places(&self, run: &str) -> BTreeMap<String, Place> {
        self.systems.places(run)
    }

    /// The same, with answers that were given beforehand.
    #[must_use]
    pub fn confirmed(self, confirmed: Confirmed) -> Self {
        Self { confirmed, ..self }
    }
}

/// What a plan works on.
pub struct Systems {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The secrets, by name.
    pub secrets: BTreeMap<String, String>,
    /// Replaces them.
    pub redactor: Redactor,
    /// The connections and collections.
    pub resources: Resources,
}

impl Systems {
    /// Checks the plan against this program, reads the secrets and opens the systems; reaches none of them.
    pub fn open(plan: Plan, needs: Needs, vault: &Arc<dyn Vault>) -> Outcome<Self> {
        let problems = decodes(&plan);
        if !problems.is_empty() {
            complain(needs, Exit::Invalid, "this program can not run what the runbook asks for", problems)?;
        }
        if let Some(folder) = &plan.folder {
            enter(folder, needs)?;
        }
        let Secrets { values, missing } = secrets::read(&plan.secrets);
        if !missing.is_empty() {
            let lines = missing.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
            complain(needs, Exit::Usage, "secrets are missing", lines)?;
        }
        let redactor = Redactor::new(values.values().cloned());
        redacted_panic::protect(&redactor);
        let resources = checks::resources(&plan, &values, needs, &redactor, vault)?;
        Ok(Self { plan: Arc::new(plan), secrets: values, redactor, resources })
    }

    fn places(&self, run: &str) -> BTreeMap<String, Place> {
        let all = self.resources.places().into_iter();
        all.map(|(name, place)| (name, Place::new(run, &place, &self.redactor))).collect()
    }
}

/// Works from here on where the run was started, so that relative paths and programs are the same ones.
fn enter(folder: &str, needs: Needs) -> Outcome<()> {
    let here = std::env::current_dir().unwrap_or_default();
    if here == Path::new(folder) {
        return Ok(());
    }
    match std::env::set_current_dir(folder) {
        Ok(()) => {
            eprintln!("the run works in {folder}, where it was started");
            Ok(())
        }
        Err(error) => {
            let lines = vec![
                format!("{folder}: {error}"),
                "relative paths and programs of the runbook are not looked for elsewhere: what needs one fails".to_owned(),
            ];
            complain(needs, Exit::Usage, "the folder that the run was started in can not be entered", lines)?;
            leave_every_folder()
        }
    }
}

/// A folder of the system in which there is nothing that a relative path could mean, and in which nothing can be made.
const NOWHERE: &str = "/proc/self/fdinfo";

/// Works from here on where relative paths lead to nothing, rather than to what happens to have their name here.
fn leave_every_folder() -> Outcome<()> {
    std::env::set_current_dir(NOWHERE).map_err(|error| {
        let message = format!("{NOWHERE} can not be entered: {error}");
        Failure::new(Exit::Usage, message)
            .help("nothing was done; relative paths would mean something else here")
    })
}

/// Fails, or only warns.
fn complain(needs: Needs, exit: Exit, message: &str, lines: Vec<String>) -> Outcome<()> {
    if needs == Needs::WhatThereIs {
        format::warn(message);
        lines.iter().for_each(|line| eprintln!("  {line}"));
        return Ok(());
    }
    Err(lines.into_iter().fold(Failure::new(exit, message), Failure::help))
}

/// The plan and the state of a stored run.
pub async fn load(state: &State, row: &RunRow) -> Outcome<(Plan, RunState)> {
    let plan = decode_plan(row)?;
    let stands = load_state(&*state.store, &row.id, &plan).await?;
    Ok((plan, stands))
}

/// Takes the run up for a purpose, shows it, and tells what came of it, also when the store fails on the way.
pub async fn drive(state: &State, row: &RunRow, prepared: Prepared, purpose: Purpose, json: bool) -> Outcome {
    let plan = Arc::clone(&prepared.systems.plan);
    undamaged(state, &purpose).await?;
    let behind = not_behind(state, &row.id, &purpose).await?;
    let last = Last::new(load_state(&*state.store, &row.id, &plan).await?);
    let outcome = match work(state, row, prepared, purpose, json, &last).await {
        Err(failure) if failure.exit == Exit::Store => {
            Err(trouble::during(state, row, &plan, last.state(), failure).await)
        }
        outcome => outcome,
    };
    match behind {
        // What the database does not know of was not put back.
        Some(behind) if behind.holds() => {
            behind.warn(&state.location);
            outcome.map(|_| Exit::Failed)
        }
        _ => outcome,
    }
}

/// What of the run only its log knows: an error before it goes on, a warning where it is only put back.
async fn not_behind(state: &State, run: &str, purpose: &Purpose) -> Outcome<Option<Behind>> {
    let Some(behind) = behind::of(&state.location, &*state.store, run).await?.filter(Behind::matters) else {
        return Ok(None);
    };
    if !only_puts_back(purpose) {
        return Err(behind.refused(&state.location));
    }
    if let Some(failure) = behind.untouchable(&state.location, &*state.store).await? {
        return Err(failure);
    }
    // The end of the run would be the end of the alarm.
    if matches!(purpose, Purpose::Cancel(_)) && behind.holds() {
        return Err(behind.not_ended(&state.location));
    }
    behind.warn(&state.location);
    Ok(Some(behind))
}

/// Fails before a run goes on in a database that finds itself damaged: what an index has lost is not seen, and would be done again.
async fn undamaged(state: &State, purpose: &Purpose) -> Outcome<()> {
    let Some(found) = state.store.damage().await? else { return Ok(()) };
    let message = format!("{} is damaged: {found}", state.location.database().display());
    if only_puts_back(purpose) {
        format::warn(&message);
        return Ok(());
    }
    Err(Failure::new(Exit::Store, message)
        .help("nothing was done: what is not found in it any more would be done a second time")
        .help(format!(
            "put a good copy back; or keep a copy of it, and try `sqlite3 '{}' reindex` where only an index is named",
            state.location.database().display()
        )))
}

/// Whether nothing is done but putting back, and ending.
fn only_puts_back(purpose: &Purpose) -> bool {
    matches!(purpose, Purpose::Cancel(_) | Purpose::Abandon(_) | Purpose::Reconcile)
}

/// Refuses a run of which only the log knows everything, for what is recorded before it is driven.
pub async fn whole(state: &State, run: &str) -> Outcome<()> {
    not_behind(state, run, &Purpose::GoOn).await.map(drop)
}

/// Whether steps may run, and not only what is held be put back.
fn goes_on(purpose: &Purpose) -> bool {
    matches!(purpose, Purpose::GoOn | Purpose::Resume)
}

async fn work(
    state: &State,
    row: &RunRow,
    prepared: Prepared,
    purpose: Purpose,
    json: bool,
    last: &Last,
) -> Outcome {
    let run = row.id.clone();
    let Prepared { systems, vault, confirmed } = prepared;
    let held = take(state, &run).await?;
    if purpose == Purpose::GoOn
        && let Some(exit) = over(state, &run, &systems.plan).await?
    {
        return Ok(exit);
    }
    let scratch = state.location.run_folder(&run).map_err(|error| folder_failed(&run, &error))?;
    let artifacts = state.location.artifacts_of(&run, &systems.redactor);
    let artifacts = artifacts.map_err(|error| folder_failed(&run, &error))?;
    let log = open_log(state, &run, &systems.redactor, &purpose).await?;
    let live = LiveHub::new(systems.redactor.clone());
    let subject =
        Subject { run: run.clone(), plan: Arc::clone(&systems.plan), seed: row.seed, live: live.clone() };
    let (views, stopper) = (Views::new(&subject, json), Stopper::new());
    let begun = last.state();
    views.each(move |view| view.begin(&begun));
    let told = views.clone();
    stopper.listen(move |halt| {
        told.each(move |view| {
            view.stopping();
            view.say(stopping(halt));
        });
    })?;
    stop_between_writes(Arc::clone(&state.store))?;
    let people = Arc::new(AtTerminal::new(views.clone(), stopper.clone(), person()));
    let recorder = Recorder::new(views.clone(), Arc::clone(&log), Arc::clone(&people), last.clone());
    let pump = Pump::start(live.clone(), views.clone(), log);
    let mut stop = stopper.watch();
    let ended = tokio::select! {
        ended = end_orphans(&scratch, &live) => ended,
        // What is left of them then is ended by whoever comes next.
        _ = stop.wait_for(|halt| *halt > Halt::No) => Ok(()),
    };
    if let Err(error) = ended {
        pump.stop().await;
        views.shown(|view| view.end(), Some(STUCK)).await;
        return Err(folder_failed(&run, &error));
    }
    let driver = Driver {
        store: Arc::clone(&state.store),
        executor: Arc::new(CatalogExecutor::new(systems.resources)),
        people: Arc::new(Foretold::new(people, confirmed, &systems.plan)),
        observer: Box::new(recorder),
        live,
        artifacts,
        scratch,
        redactor: systems.redactor,
        secrets: systems.secrets,
        owner: owner(),
        clock: Arc::new(SystemClock),
        halt: stopper.watch(),
        elsewhere: lost::held_elsewhere(&state.location, &*state.store).await?,
    };
    let finish = driver.drive(&run, purpose).await;
    if let Ok(Finish::Ended(stands)) = &finish
        && stands.status.is_final()
        && let Err(error) = vault.forget()
    {
        let text = format!("what the connections obtained could not be removed: {error}");
        views.each(move |view| view.say(&text));
    }
    pump.stop().await;
    // Nobody waits for those who look.
    drop(held);
    views.shown(|view| view.end(), Some(STUCK)).await;
    conclude(state, &run, &systems.plan, finish, &stopper).await
}

/// Tells how the run ended, when another process has brought it to its end before this one could take it up.
async fn over(state: &State, run: &str, plan: &Plan) -> Outcome<Option<Exit>> {
    let stands = load_state(&*state.store, run, plan).await?;
    if !stands.status.is_final() {
        return Ok(None);
    }
    tell(state, run, plan, &stands).await?;
    Ok(Some(Exit::of_run(&stands)))
}

fn stopping(halt: Halt) -> &'static str {
    match halt {
        Halt::Now => "stopping now",
        _ => {
            "stopping at the next safe place, which a program that runs is told to come to (SIGTERM); press Ctrl-C again to stop now"
        }
    }
}

fn folder_failed(run: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Store, format!("the folder of run {run}: {error}"))
}

/// The run's log, with every event that is not in it yet. What puts back goes on without one that can not be written: it is kept for
/// people, and the store has the events.
async fn open_log(
    state: &State,
    run: &str,
    redactor: &Redactor,
    purpose: &Purpose,
) -> Outcome<Arc<Mutex<RunLog>>> {
    let (path, events) = (state.location.log(run), state.store.events(run, 0).await?);
    let behind = behind::of(&state.location, &*state.store, run).await?;
    let opened = RunLog::open(&path, redactor.clone()).and_then(|mut log| {
        if let Some(behind) = behind {
            log.put_back(behind.stored(), &behind.note())?;
        }
        events.iter().try_for_each(|event| log.event(event))?;
        Ok(log)
    });
    let log = match opened {
        Ok(log) => log,
        Err(error) if goes_on(purpose) => {
            let failure =
                Failure::new(Exit::Store, format!("the log of run {run}, {}: {error}", path.display()));
            return Err(failure
                .help("move away what is there, or make it writable; without a log the run is only put back and ended"));
        }
        Err(error) => {
            format::warn(&format!("the log of run {run}, {}, is not written: {error}", path.display()));
            RunLog::nowhere()
        }
    };
    Ok(Arc::new(Mutex::new(log)))
}

async fn conclude(
    state: &State,
    run: &str,
    plan: &Plan,
    finish: Result<Finish, DriveError>,
    stopper: &Stopper,
) -> Outcome {
    let (stands, exit) = match finish {
        Ok(Finish::Ended(stands)) => {
            let exit = Exit::of_run(&stands);
            (stands, exit)
        }
        Ok(Finish::Waiting(stands, _)) => (stands, Exit::Waiting),
        Ok(Finish::Halted(stands)) => (stands, stopper.exit()),
        Err(error) => {
            let failure = Failure::from(error);
            // What to type when the store has failed is told with what is not safe.
            return Err(match failure.exit {
                Exit::Store | Exit::Usage => failure,
                _ => failure.help(format!("runbook resume {run}   goes on from where it stands")),
            });
        }
    };
    tell(state, run, plan, &stands).await?;
    Ok(exit)
}

/// Sums up on stderr how a run stands.
pub async fn tell(state: &State, run: &str, plan: &Plan, stands: &RunState) -> Outcome<()> {
    let row = state.store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
    let facts = Facts {
        run,
        plan,
        state: stands,
        source: &row.source_name,
        location: &state.location,
        owned: false,
        stalled: None,
        now: Timestamp::now(),
        ledgers: summary::ledgers(&*state.store, run, stands).await?,
        width: format::width(),
    };
    summary::lines(&facts).iter().for_each(|line| eprintln!("{line}"));
    Ok(())
}

/// Says before anything else how to come back to this run.
pub fn announce(run: &str, cancelled: bool) {
    let word = if cancelled { "cancel" } else { "resume" };
    eprintln!("run {run}\n  if it is stopped: runbook {word} {run}\n");
}
