//! Reads the world for a plan: what a run would do now.

mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use runbook_engine::artifact::Artifacts;
use runbook_engine::drive::live::LiveHub;
use runbook_engine::drive::{Foreseer, Halt};
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::plan::{Drift, Plan};
use runbook_engine::redact::Redactor;
use runbook_engine::saved::{Foreseen, SavedPlan, Standing};
use runbook_engine::step::RunInfo;
use runbook_steps::executor::CatalogExecutor;
use runbook_steps::kind::{NoVault, SystemIs, Vault};
use tokio_util::sync::CancellationToken;

pub use self::place::sweep;

use self::place::Place;
use crate::exit::{Failure, Outcome};
use crate::format;
use crate::report::describe;
use crate::session::{self, Needs, Systems};
use crate::signals::Stopper;
use crate::state::Location;

/// What the world is like for a plan.
pub struct World {
    /// The plan, with the folder it works in.
    pub plan: Arc<Plan>,
    /// Which system each connection and each collection is.
    pub systems: BTreeMap<String, SystemIs>,
    /// What each step would do.
    pub steps: Vec<Foreseen>,
    /// When it was read.
    pub at: Timestamp,
    /// The sets of items.
    pub artifacts: Artifacts,
    _place: Place,
}

impl World {
    /// The first step that failed only because a system did not answer, and did not when the plan was made.
    pub fn unreached(&self, saved: &SavedPlan) -> Option<(&str, &StepError)> {
        self.steps.iter().find_map(|now| match &now.standing {
            Standing::Fails(error) if error.kind == ErrorKind::Transient => {
                let failed =
                    saved.step(&now.step).is_some_and(|then| matches!(then.standing, Standing::Fails(_)));
                (!failed).then_some((now.step.as_str(), error))
            }
            _ => None,
        })
    }
}

/// Reads everything that the plan would read, and changes nothing; `against` is the saved plan that it will be held against.
pub async fn read(location: &Location, plan: Plan, against: Option<&SavedPlan>) -> Outcome<World> {
    let vault: Arc<dyn Vault> = Arc::new(NoVault);
    let systems = Systems::open(plan, Needs::All, &vault)?;
    let at = Timestamp::now();
    systems.resources.only_read();
    let identities = systems.resources.identities_with_content().await?;
    let place = Place::make(location).await?;
    let artifacts = Artifacts::new(place.path(), systems.redactor.clone());
    let (live, stop, stopper) =
        (LiveHub::new(systems.redactor.clone()), CancellationToken::new(), Stopper::new());
    let told = stop.clone();
    stopper.listen(move |_| told.cancel())?;
    let foreseer = Foreseer {
        plan: Arc::clone(&systems.plan),
        executor: Arc::new(CatalogExecutor::new(systems.resources)),
        live: live.clone(),
        artifacts: artifacts.clone(),
        scratch: place.path().to_owned(),
        redactor: systems.redactor,
        secrets: systems.secrets,
        run: imagined(&systems.plan, at),
        against: against.cloned(),
        // Of a set that may differ only what is in the plan would be touched, and that was held against the limits when it was made.
        limits: against.is_none_or(|saved| saved.plan.drift == Drift::Refuse),
        stop,
    };
    let mut halt = stopper.watch();
    let shown = Shown::new(&systems.plan, live);
    let steps = tokio::select! {
        steps = foreseer.foresee() => steps,
        () = shown.draw() => Ok(Vec::new()),
        // What does not stop by itself is dropped: it only reads.
        _ = halt.wait_for(|halt| *halt == Halt::Now) => Ok(Vec::new()),
    };
    if *halt.borrow() > Halt::No {
        return Err(Failure::new(stopper.exit(), "stopped; nothing was changed"));
    }
    Ok(World { plan: systems.plan, systems: identities, steps: steps?, at, artifacts, _place: place })
}

/// What expressions see of a run that is not there.
fn imagined(plan: &Plan, at: Timestamp) -> RunInfo {
    RunInfo {
        id: "RUN".to_owned(),
        runbook: plan.runbook.clone(),
        created_at: at,
        by: session::person(),
        seed: 0,
    }
}

/// What is being read, on the last line of a terminal.
struct Shown {
    steps: Vec<String>,
    live: LiveHub,
}

impl Shown {
    fn new(plan: &Plan, live: LiveHub) -> Self {
        Self { steps: plan.all_steps().map(|step| step.id.clone()).collect(), live }
    }

    /// Draws until it is dropped.
    async fn draw(&self) {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::term(Term::stderr(), 12));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let cleared = Cleared(bar.clone());
        let mut lines = self.live.lines();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let latest = self.steps.iter().rev().find_map(|step| Some((step, self.live.progress(step)?)));
                    if let Some((step, progress)) = latest {
                        let total = progress.total.map_or_else(String::new, |total| format!(" of {}", format::count(total)));
                        let done = format::count(progress.done);
                        cleared.0.set_message(format!("reading for {step}: {done}{total} {}", progress.unit));
                    } else {
                        cleared.0.set_message("reading");
                    }
                    cleared.0.tick();
                }
                Ok(line) = lines.recv() => cleared.0.suspend(|| eprintln!("{}: {}", line.step, describe::one_line(&line.text))),
            }
        }
    }
}

/// Leaves no line behind.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A plan's own folder of sets, beside its file.
pub fn sets_beside(file: &Path) -> Artifacts {
    let mut name = file.as_os_str().to_owned();
    name.push(".sets");
    Artifacts::new(PathBuf::from(name), Redactor::default())
}
