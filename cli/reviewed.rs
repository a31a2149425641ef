//! Saved plans: written, read, and held against the world before a run is started with one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use runbook_engine::artifact::Artifacts;
use runbook_engine::inputs::{Given, resolve_inputs};
use runbook_engine::plan::{Drift, Plan, Reviewed};
use runbook_engine::saved::{self, Foreseen, Moved, SAVED_PLAN_VERSION, SavedPlan, What};
use runbook_engine::shell::quoted;
use runbook_steps::catalog::CATALOG;
use runbook_steps::keyset::difference;
use runbook_steps::kind::SystemIs;
use runbook_steps::resources::{in_words, there};
use runbook_steps::text::of_value;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};
use crate::find::{self, Source};
use crate::planning::{self, World};
use crate::report::describe::one_line;
use crate::{format, inputs};

/// The one key of a saved plan that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a saved plan, as it was made.
pub fn load(file: &Path) -> Outcome<SavedPlan> {
    let wrong = |why: String| Failure::usage(format!("{}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let Versioned { version } =
        serde_json::from_str(&text).map_err(|error| wrong(format!("this is no saved plan: {error}")))?;
    if version > SAVED_PLAN_VERSION {
        return Err(wrong(format!("a later program made it (version {version})")));
    }
    let saved: SavedPlan =
        serde_json::from_str(&text).map_err(|error| wrong(format!("this is no saved plan: {error}")))?;
    if !saved.is_intact() {
        return Err(Failure::new(
            Exit::Drift,
            format!("{}: the plan was edited after it was made", file.display()),
        )
        .help("nothing was done; make a new plan"));
    }
    Ok(saved)
}

/// Refuses a file that no plan can be saved in.
pub fn can_save(file: &Path) -> Outcome<()> {
    // A pipe would be waited for, and a link be replaced by a file.
    if let Ok(there) = fs::symlink_metadata(file)
        && !there.is_file()
    {
        return Err(Failure::usage(format!("{} is no file that a plan can be saved in", file.display()))
            .help("name another one; `--json` prints the plan"));
    }
    // Nothing but an earlier plan is written over.
    if file.exists()
        && fs::read_to_string(file)
            .ok()
            .and_then(|text| serde_json::from_str::<SavedPlan>(&text).ok())
            .is_none()
    {
        return Err(Failure::usage(format!(
            "{} is there and is no saved plan; it was left alone",
            file.display()
        ))
        .help("name another file"));
    }
    Ok(())
}

/// Writes a plan, and the sets of items that it names beside it.
pub async fn save(file: &Path, saved: &SavedPlan, world: &World) -> Outcome<()> {
    can_save(file)?;
    let sets = planning::sets_beside(file);
    for set in saved.steps.iter().flat_map(|step| &step.touches) {
        sets.adopt(&world.artifacts, &set.items).await?;
    }
    let failed = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(format!(".new-{}", std::process::id()));
    let written = || {
        let text = serde_json::to_string_pretty(saved)?;
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        fs::rename(&fresh, file)
    };
    written().map_err(failed)?;
    // The sets of a plan that was here before are nobody's any more.
    let kept: Vec<_> = saved.steps.iter().flat_map(|step| &step.touches).map(|set| &set.items).collect();
    sets.keep_only(&kept).await.map_err(failed)
}

/// Refuses a plan whose sets are not what it says.
pub async fn whole(file: &Path, saved: &SavedPlan) -> Outcome<()> {
    let sets = planning::sets_beside(file);
    for set in saved.steps.iter().flat_map(|step| &step.touches) {
        if let Err(error) = sets.open(&set.items).await {
            let path = sets.path(&set.items).map_or(String::new(), |path| format!(": {}", path.display()));
            return Err(Failure::new(Exit::Drift, format!("the plan is not whole{path}: {error}"))
                .help(
                    "nothing was done; put the folder .sets of this plan back beside it as it was saved, or",
                )
                .help(anew(&saved.source_name, &saved.plan, &file.display().to_string())));
        }
    }
    Ok(())
}

/// What to type for a new plan of a definition, with the inputs of an earlier one.
pub fn anew(source: &str, plan: &Plan, file: &str) -> String {
    format!("{}   to make a new plan, and have it reviewed", planning_again(source, plan, file))
}

/// The command that plans again with the same inputs.
pub fn planning_again(source: &str, plan: &Plan, file: &str) -> String {
    let given = plan.inputs.iter().filter(|(_, value)| !value.is_null());
    let given: String = given
        .map(|(name, value)| format!(" -i {}", quoted(&format!("{name}={}", of_value(value)))))
        .collect();
    format!("runbook plan {}{given} -o {}", quoted(source), quoted(file))
}

/// Where a saved plan's definition is read from again: the file that is named, else the one that it came from.
pub fn source(file: &Path, saved: &SavedPlan, named: Option<&str>) -> Outcome<Source> {
    if let Some(named) = named {
        return find::runbook(named);
    }
    find::runbook(&saved.source_name).map_err(|failure| {
        let moved =
            format!("runbook exec FILE --plan {}   if it was moved", quoted(&file.display().to_string()));
        Failure { exit: Exit::Drift, ..failure }.help("nothing was done; name the file").help(moved)
    })
}

/// The plan that the definition makes now with the inputs of the saved one, but for those that are given anew.
pub fn again(saved: &SavedPlan, source: &Source, anew: Vec<(String, Given)>) -> Outcome<Plan> {
    let (runbook, found) = inputs::compile(source);
    let drifted = |why: &str| {
        Failure::new(Exit::Drift, format!("{}: {why}", source.name)).help("nothing was done; make a new plan")
    };
    let Some(runbook) = runbook else {
        crate::diagnostics::print(source, &found);
        return Err(drifted("the definition has changed, and has mistakes now"));
    };
    let given_now: Vec<String> = anew.iter().map(|(name, _)| name.clone()).collect();
    let known = |name: &String| runbook.inputs.iter().any(|input| input.name.value == *name);
    let given: Vec<(String, Given)> = saved
        .plan
        .inputs
        .iter()
        .filter(|(name, value)| known(name) && !value.is_null())
        .filter(|(name, _)| !anew.iter().any(|(other, _)| other == *name))
        .map(|(name, value)| (name.clone(), Given::Value(value.clone())))
        .collect();
    let given: Vec<(String, Given)> = given.into_iter().chain(anew).collect();
    let values = resolve_inputs(&runbook, &given).map_err(|errors| {
        // Who gives a wrong input now is told so; one of the plan that does not fit any more is a change.
        let (wrong, stale): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|error| given_now.contains(&error.input));
        if !wrong.is_empty() {
            return inputs::wrong(wrong);
        }
        stale.into_iter().fold(drifted("the inputs of the plan do not fit it any more"), |failure, error| {
            failure.help(error.message)
        })
    })?;
    let plan = runbook.plan(values, &CATALOG).map_err(|found| {
        crate::diagnostics::print(source, &found);
        drifted("the definition has changed, and the inputs of the plan lead to mistakes now")
    })?;
    Ok(Plan { folder: saved.plan.folder.clone(), ..plan })
}

/// Refuses a plan that has expired.
pub fn in_time(file: &Path, saved: &SavedPlan, now: Timestamp) -> Outcome<()> {
    if now < saved.expires_at {
        return Ok(());
    }
    let ago = format::ago(saved.expires_at, now);
    Err(Failure::new(Exit::Drift, format!("the plan expired {ago}")).help("nothing was done").help(anew(
        &saved.source_name,
        &saved.plan,
        &file.display().to_string(),
    )))
}

/// Everything that is not as the plan says, with the first items that differ.
pub async fn moved(file: &Path, saved: &SavedPlan, world: &World) -> Outcome<Vec<Moved>> {
    let subset = saved.plan.drift == Drift::Subset;
    let mut moved = saved::foreseen(saved, &in_words(&world.systems), &world.steps, !subset);
    for (step, words) in items(saved, &planning::sets_beside(file), &world.steps, &world.artifacts).await? {
        if subset {
            eprintln!("{step}: not as in the plan: {words}; only what is in the plan will be touched");
        } else {
            add(&mut moved, step, words);
        }
    }
    Ok(moved)
}

/// What differs between two saved plans, with the first items that differ.
pub async fn differing(
    (before, before_file): (&SavedPlan, &Path),
    (after, after_file): (&SavedPlan, &Path),
) -> Outcome<Vec<Moved>> {
    let mut moved = saved::definitions(&before.plan, &after.plan, &CATALOG);
    moved.extend(saved::foreseen(before, &after.systems, &after.steps, true));
    let (here, there) = (planning::sets_beside(after_file), planning::sets_beside(before_file));
    for (step, words) in items(before, &there, &after.steps, &here).await? {
        add(&mut moved, step, words);
    }
    Ok(moved)
}

/// The steps whose items are not those of the plan, each with the first items that differ.
async fn items(
    saved: &SavedPlan,
    there: &Artifacts,
    now: &[Foreseen],
    here: &Artifacts,
) -> Outcome<Vec<(String, String)>> {
    let mut found = Vec::new();
    for after in now {
        let Some(before) = saved.step(&after.step) else { continue };
        for (old, new) in before.touches.iter().zip(&after.touches) {
            if old.items.sha256 == new.items.sha256 {
                continue;
            }
            let against = difference((here, &new.items), (there, &old.items)).await?;
            found.extend(against.words().map(|words| (after.step.clone(), words)));
        }
    }
    Ok(found)
}

/// Says of a step which of its items differ.
fn add(moved: &mut Vec<Moved>, step: String, words: String) {
    match moved.iter_mut().find(|one| one.what == What::Target && one.name == step) {
        Some(one) => one.how = format!("{}: {words}", one.how),
        None => moved.push(Moved { what: What::Target, name: step, how: words }),
    }
}

/// One thing that moved, on one line.
pub fn line(moved: &Moved) -> String {
    one_line(&format!("{} `{}`: {}", moved.what.word(), moved.name, moved.how))
}

/// A difference as data.
pub fn data(moved: &Moved) -> Value {
    json!({ "what": moved.what.word(), "name": moved.name, "how": moved.how })
}

/// The failure that names all of it.
pub fn refused(file: &Path, saved: &SavedPlan, moved: Vec<Moved>) -> Failure {
    Failure::new(Exit::Drift, "what was planned is not what is there; nothing was done")
        .moved(moved)
        .help(anew(&saved.source_name, &saved.plan, &file.display().to_string()))
}

/// What a run keeps of the plan it is started with, and of the systems it was compared with.
pub fn kept(saved: &SavedPlan, by: &str, systems: BTreeMap<String, SystemIs>) -> Reviewed {
    let (promised, asks) = saved.promised();
    Reviewed {
        id: saved.id.clone(),
        made_by: saved.made_by.clone(),
        made_at: saved.made_at,
        seen_by: by.to_owned(),
        expires_at: saved.expires_at,
        systems: there(systems),
        sets: saved.sets(),
        settings: saved.settings(),
        binds: saved.binds(),
        skipped: saved.skipped(),
        promised,
        asks,
    }
}
