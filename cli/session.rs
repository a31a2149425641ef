//! Everything between a stored run and the loop that drives it: shared by every command that makes a run go on or end.

mod bound;
mod checks;
mod recorder;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use runbook_engine::drive::{DriveError, Driver, Finish, Halt, LiveHub, Purpose, SystemClock};
use runbook_engine::plan::Plan;
use runbook_engine::redact::Redactor;
use runbook_engine::state::RunState;
use runbook_engine::store::{Fence, RunRow, StoreError, Write, decode_plan, load_state};
use runbook_steps::executor::CatalogExecutor;
use runbook_steps::kind::Vault;
use runbook_steps::process::end_orphans;
use runbook_steps::resources::Resources;
use runbook_steps::vault::SealedVault;

use self::recorder::{Last, Pump, Recorder};
use crate::app::State;
use crate::confirm::{Confirmed, Foretold};
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::log::RunLog;
use crate::prompt::AtTerminal;
use crate::redacted_panic;
use crate::report::summary::{self, Facts};
use crate::report::{Subject, Views};
use crate::secrets::{self, Secrets};
use crate::signals::Stopper;
use crate::trouble;

pub use self::bound::in_time;
pub use self::checks::decodes;

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
        let systems = Systems::open(plan, needs, &shared)?;
        bound::same_systems(run, &systems, needs).await?;
        Ok(Self { systems, vault, confirmed: Confirmed::default() })
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
                "relative paths would mean something else here".to_owned(),
            ];
            complain(needs, Exit::Usage, "the folder that the run was started in can not be entered", lines)
        }
    }
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

/// Who this process is: user, host, process id.
pub fn owner() -> String {
    format!("{}:{}", person(), std::process::id())
}

/// Who uses it: user and host.
pub fn person() -> String {
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", host())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Which process works on the run, and until when its lease lasts. One of this machine that has died is found out at once, without
/// waiting for its lease to end. Every command asks this, so that all tell the same; nothing is changed.
pub fn live_owner(state: &State, row: &RunRow) -> Option<(String, Timestamp)> {
    let (owner, until) = row.live_owner(Timestamp::now())?;
    let died = is_here(owner) && matches!(state.location.is_held(&row.id), Ok(false));
    (!died).then(|| (owner.to_owned(), until))
}

fn is_here(owner: &str) -> bool {
    let at = owner.rsplit_once(':').and_then(|(who, _)| who.rsplit_once('@')).map(|(_, at)| at);
    at == Some(&*host())
}

/// Makes a process of this machine that has died leave the run, so that its lease is in nobody's way. Only whoever holds the run's mark
/// may say that it has died.
async fn dismiss(state: &State, run: &str) -> Outcome<()> {
    let row = state.store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
    if row.live_owner(Timestamp::now()).is_none_or(|(owner, _)| !is_here(owner)) {
        return Ok(());
    }
    match state.store.commit(run, Fence::Owner(row.epoch), vec![Write::Leave]).await {
        Ok(()) | Err(StoreError::Fenced) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The refusal while another process works on the run.
pub fn busy(run: &str, owner: &str, until: Timestamp) -> Failure {
    Failure::new(Exit::Busy, format!("run {run} is owned by {owner} until {}", format::utc(until)))
        .help("the time is extended while that process lives; then the run can be taken over")
        .help(format!("runbook logs {run} -f   to watch it"))
        .help(format!("runbook cancel {run}    to end it"))
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
    let last = Last::new(load_state(&*state.store, &row.id, &plan).await?);
    match work(state, row, prepared, purpose, json, &last).await {
        Err(failure) if failure.exit == Exit::Store => {
            Err(trouble::during(state, row, &plan, last.state(), failure).await)
        }
        outcome => outcome,
    }
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
    let held = hold(state, row).await?;
    dismiss(state, &run).await?;
    if purpose == Purpose::GoOn
        && let Some(exit) = over(state, &run, &systems.plan).await?
    {
        return Ok(exit);
    }
    let scratch = state.location.run_folder(&run).map_err(|error| folder_failed(&run, &error))?;
    let artifacts = state.location.artifacts_of(&run, &systems.redactor);
    let artifacts = artifacts.map_err(|error| folder_failed(&run, &error))?;
    let log = open_log(state, &run, &systems.redactor).await?;
    let live = LiveHub::new(systems.redactor.clone());
    let subject =
        Subject { run: run.clone(), plan: Arc::clone(&systems.plan), seed: row.seed, live: live.clone() };
    let (views, stopper) = (Views::new(&subject, json), Stopper::new());
    views.each(|view| view.begin(&last.state()));
    let told = views.clone();
    stopper.listen(move |halt| {
        told.each(|view| {
            view.stopping();
            view.say(stopping(halt));
        });
    })?;
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
        views.each(|view| view.end());
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
    };
    let finish = driver.drive(&run, purpose).await;
    if let Ok(Finish::Ended(stands)) = &finish
        && stands.status.is_final()
        && let Err(error) = vault.forget()
    {
        views.each(|view| view.say(&format!("what the connections obtained could not be removed: {error}")));
    }
    pump.stop().await;
    views.each(|view| view.end());
    drop(held);
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
        _ => "stopping at the next safe place; press Ctrl-C again to stop now",
    }
}

fn folder_failed(run: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Store, format!("the folder of run {run}: {error}"))
}

/// How long another process may hold the mark of a run only to look at it, in tenths of a second.
const GLANCE: u32 = 20;

/// Marks the run as this process's own. A process that lives holds it to its end, even one that was stopped and let its lease lapse:
/// it may wake up in the middle of an effect, so nobody works beside it.
async fn hold(state: &State, row: &RunRow) -> Outcome<File> {
    for _ in 0..GLANCE {
        let held = state.location.hold(&row.id).map_err(|error| folder_failed(&row.id, &error))?;
        if let Some(held) = held {
            return Ok(held);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let owner = row.owner.as_deref().unwrap_or("a process of this machine");
    Err(Failure::new(Exit::Busy, format!("run {} is held by {owner}, which is alive or stopped", row.id))
        .help("let that process go on, or end it for good (kill -9), and try again"))
}

/// Succeeds when the process that worked on the run has ended, and was not only stopped until its lease lapsed.
pub async fn gone(state: &State, row: &RunRow) -> Outcome<()> {
    hold(state, row).await.map(drop)
}

/// The run's log, with every event that is not in it yet.
async fn open_log(state: &State, run: &str, redactor: &Redactor) -> Outcome<Arc<Mutex<RunLog>>> {
    let failed = |error| Failure::new(Exit::Store, format!("the log of run {run}: {error}"));
    let mut log = RunLog::open(&state.location.log(run), redactor.clone()).map_err(failed)?;
    for event in state.store.events(run, 0).await? {
        log.event(&event).map_err(failed)?;
    }
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
        now: Timestamp::now(),
        partly: summary::partly(&*state.store, run, stands).await?,
        width: format::width(),
    };
    summary::lines(&facts).iter().for_each(|line| eprintln!("{line}"));
    Ok(())
}

/// Says before anything else how to come back to this run.
pub fn announce(run: &str) {
    eprintln!("run {run}\n  if it is stopped: runbook resume {run}\n");
}
