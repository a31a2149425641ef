//! `runbook plan`.

use std::path::Path;

use jiff::Timestamp;
use runbook_engine::duration::Duration;
use runbook_engine::plan::Plan;
use runbook_engine::saved::{Foreseen, SAVED_PLAN_VERSION, SavedPlan};
use runbook_engine::state::StepStatus;
use runbook_engine::store::{Store, decode_plan, load_state};
use runbook_steps::resources::in_words;
use serde_json::json;

use crate::app::App;
use crate::args::{Plan as Args, PlanCommand};
use crate::banner;
use crate::exit::{Exit, Failure, Outcome};
use crate::find::{self, Source};
use crate::planning::{self, World};
use crate::report::{describe, planned};
use crate::state::Location;
use crate::{format, inputs, reviewed, session};

/// How many runs are looked through for how long steps took.
const RUNS: usize = 50;

/// Makes a plan, or shows saved ones.
pub async fn run(app: &App, args: &Args) -> Outcome {
    match &args.what {
        Some(PlanCommand::Show { file }) => show(app, file).await,
        Some(PlanCommand::Diff { before, after }) => diff(app, before, after).await,
        None => {
            let source = find::runbook(args.runbook.as_deref().unwrap_or_default())?;
            let expires: Duration = args.expires.parse().map_err(|error| {
                Failure::usage(format!("`--expires {}`: {error}", args.expires)).help("such as 30m or 24h")
            })?;
            if expires.0.is_zero() {
                return Err(Failure::usage(format!(
                    "`--expires {}`: the plan would have expired when it is saved",
                    args.expires
                ))
                .help("such as 30m or 24h"));
            }
            let plan = inputs::plan(&source, &args.inputs)?;
            make(app, &source, plan, expires, args.output.as_deref()).await
        }
    }
}

/// Shows what `exec` would do.
pub async fn dry_run(app: &App, source: &Source, plan: Plan) -> Outcome {
    make(app, source, plan, Duration::from_secs(0), None).await
}

async fn make(app: &App, source: &Source, plan: Plan, expires: Duration, output: Option<&Path>) -> Outcome {
    // Before all of the world is read.
    output.map_or(Ok(()), reviewed::can_save)?;
    let location: Location = app.location()?;
    let state = app.state_if_there().await;
    if let Some(state) = &state {
        banner::show(state, None).await;
    }
    let mut world = planning::read(&location, plan, None).await?;
    if let Some(state) = &state {
        took(&*state.store, &world.plan.runbook, &mut world.steps).await;
    }
    for step in &mut world.steps {
        if let Some(outputs) = step.outputs.take().filter(|_| step.does.is_empty()) {
            step.does = describe::facts(&outputs);
        }
    }
    let saved = saved(source, &world, expires);
    let failed = saved.fails_at();
    if let Some(file) = output.filter(|_| failed.is_none()) {
        reviewed::save(file, &saved, &world).await?;
    }
    if app.json {
        super::print_json(&json!(saved))?;
    } else {
        super::print(&planned::lines(&saved, format::look_of_stdout()).join("\n"))?;
    }
    if let Some(step) = failed {
        let failure =
            Failure::new(Exit::Failed, format!("a run would fail at `{}`; nothing was changed", step.step));
        return Err(match output {
            Some(_) => failure.help("the plan was not saved"),
            None => failure,
        });
    }
    if let Some(file) = output {
        let unbound = saved.unbound();
        if !unbound.is_empty() {
            format::warn(&format!(
                "what {} would destroy is known only later: a run that is started with this plan stops there",
                unbound.join(", ")
            ));
        }
        let writes = saved.unbound_writes();
        if !writes.is_empty() {
            format::warn(&format!(
                "what {} would change is known only later, and is not held to this plan",
                writes.join(", ")
            ));
        }
        let file = file.display();
        eprintln!("saved in {file}, until {}", format::clock(saved.expires_at, Timestamp::now()));
        eprintln!("  runbook plan show {file}     to look at it");
        eprintln!("  runbook exec --plan {file}   to do it");
    }
    Ok(Exit::Succeeded)
}

fn saved(source: &Source, world: &World, expires: Duration) -> SavedPlan {
    SavedPlan {
        version: SAVED_PLAN_VERSION,
        id: String::new(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: world.at,
        made_by: session::person(),
        expires_at: expires.after(world.at),
        source_name: source.path.display().to_string(),
        source: source.text.clone(),
        plan: Plan::clone(&world.plan),
        systems: in_words(&world.systems),
        steps: world.steps.clone(),
    }
    .sealed()
}

/// How long each step took in the newest run in which it succeeded.
async fn took(store: &dyn Store, runbook: &str, steps: &mut [Foreseen]) {
    let rows = store.runs(RUNS).await.unwrap_or_default();
    for row in rows.into_iter().filter(|row| row.runbook == runbook) {
        let Ok(Some(row)) = store.run(&row.id).await else { continue };
        let Ok(plan) = decode_plan(&row) else { continue };
        let Ok(state) = load_state(store, &row.id, &plan).await else { continue };
        for step in steps.iter_mut().filter(|step| step.last_took_ms.is_none()) {
            let Some(found) = state.step(&step.step) else { continue };
            if let (StepStatus::Succeeded, Some(start), Some(end)) =
                (found.status, found.started_at, found.ended_at)
            {
                let length = format::between(start, end).as_millis();
                step.last_took_ms = u64::try_from(length).ok();
            }
        }
        if steps.iter().all(|step| step.last_took_ms.is_some()) {
            return;
        }
    }
}

async fn show(app: &App, file: &Path) -> Outcome {
    let saved = reviewed::load(file)?;
    if app.json {
        return super::print_json(&json!(saved));
    }
    super::print(&planned::lines(&saved, format::look_of_stdout()).join("\n"))?;
    if let Some(state) = app.state_if_there().await
        && let Some(run) = state.store.applied(&saved.id).await?
    {
        eprintln!("it was applied by run {run}; a plan is applied once");
    } else if saved.expires_at <= Timestamp::now() {
        eprintln!("it expired {}, and can not be applied", format::ago(saved.expires_at, Timestamp::now()));
    }
    Ok(Exit::Succeeded)
}

async fn diff(app: &App, before: &Path, after: &Path) -> Outcome {
    let (old, new) = (reviewed::load(before)?, reviewed::load(after)?);
    reviewed::whole(before, &old).await?;
    reviewed::whole(after, &new).await?;
    let moved = reviewed::differing((&old, before), (&new, after)).await?;
    if app.json {
        super::print_json(&json!(moved.iter().map(reviewed::data).collect::<Vec<_>>()))?;
    } else if moved.is_empty() {
        super::print("the plans do the same")?;
    } else {
        super::print(&moved.iter().map(reviewed::line).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(if moved.is_empty() { Exit::Succeeded } else { Exit::Drift })
}
