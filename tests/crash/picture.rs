//! What is compared: how a run stands and what its store holds, without what differs from one undisturbed run to the next.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use runbook_engine::event::{Closed, Question};
use runbook_engine::state::{ObligationPhase, RunState, RunStatus, StepStatus};
use runbook_engine::store::sqlite::SqliteStore;
use runbook_engine::store::{LedgerRow, Store, decode_plan, load_state};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use crate::trial::{Ended, World};

/// For what is async here: the store, and the servers of the worlds.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A run as its store tells.
pub struct Stands {
    /// Its id.
    pub id: String,
    /// The fold of its events.
    pub state: RunState,
    /// What must be the same as in an undisturbed run, by what it is about.
    pub parts: BTreeMap<String, Value>,
    /// How many batches each step announced.
    batches: BTreeMap<String, u64>,
    /// The steps that have batches of which nobody recorded the outcome.
    unsettled: Vec<String>,
    /// Files of artifacts whose name is not the hash of what is in them.
    broken: Vec<String>,
}

/// How the newest run stands. What is looked at is a copy, so that the state is found by the next process as the last one left it.
pub fn look(world: &dyn World, scratch: &Path) -> Option<Stands> {
    let state = world.state();
    if !state.join("state.db").exists() {
        return None;
    }
    let folder = tempfile::tempdir_in(scratch).unwrap();
    for name in ["state.db", "state.db-wal"] {
        if state.join(name).exists() {
            fs::copy(state.join(name), folder.path().join(name)).unwrap();
        }
    }
    RUNTIME.block_on(read(world, &folder.path().join("state.db"), &state))
}

async fn read(world: &dyn World, database: &Path, folder: &Path) -> Option<Stands> {
    let store = SqliteStore::open(database).await.unwrap();
    let rows = store.runs(10).await.unwrap();
    assert!(rows.len() < 2, "there are {} runs", rows.len());
    let Some(row) = rows.into_iter().next() else {
        store.close().await;
        return None;
    };
    let row = store.run(&row.id).await.unwrap().unwrap();
    let plan = decode_plan(&row).unwrap();
    let state = load_state(&store, &row.id, &plan).await.unwrap();
    let mut names = world.names();
    names.push((row.id.clone(), "RUN".to_owned()));
    let mut stands = Stands {
        id: row.id.clone(),
        parts: BTreeMap::new(),
        batches: BTreeMap::new(),
        unsettled: Vec::new(),
        broken: broken(folder),
        state,
    };
    stands.parts.insert("status".to_owned(), json!(stands.state.status));
    let mut counters: Vec<String> = ["items", "bytes", "errors"].map(|what| format!("run:{what}")).into();
    for (id, step) in stands.state.steps.clone() {
        let outputs = step.outputs().map(|outputs| plain(outputs, world, &names)).unwrap_or_default();
        stands.parts.insert(format!("step {id}"), json!({ "status": step.status, "outputs": outputs }));
        let ledger = store.ledger(&row.id, &id).await.unwrap();
        let keys = keys(&store, &row.id, &id).await;
        stands.parts.insert(format!("ledger {id}"), ledger_part(&ledger, keys));
        stands.batches.insert(id.clone(), ledger.last_batch);
        if !ledger.unsettled.is_empty() {
            stands.unsettled.push(id.clone());
        }
        counters.extend(["items", "bytes", "errors"].map(|what| format!("step:{id}:{what}")));
    }
    for counter in counters {
        let amount = store.counter(&row.id, &counter).await.unwrap();
        stands.parts.insert(format!("counter {counter}"), json!(amount));
    }
    let open: Vec<String> = store.obligations().await.unwrap().into_iter().map(|one| one.id).collect();
    stands.parts.insert("open obligations".to_owned(), json!(open));
    store.close().await;
    Some(stands)
}

/// What the batches of a step came to. Done and found done are one: a batch that is done again finds its effect there.
fn ledger_part(ledger: &LedgerRow, keys: Map<String, Value>) -> Value {
    json!({ "there": ledger.done + ledger.already, "failed": ledger.failed, "keys": keys })
}

/// What became of each key of a step that deletes; the last batch that says something of a key counts.
async fn keys(store: &SqliteStore, run: &str, step: &str) -> Map<String, Value> {
    let mut keys = Map::new();
    for row in store.batches(run, step, 0, 10_000, false).await.unwrap() {
        let ids = row.settled.as_ref().and_then(|settled| settled.outcome.get("ids")?.as_object());
        for (key, codes) in ids.into_iter().flatten() {
            keys.insert(key.clone(), codes.clone());
        }
    }
    keys
}

/// The value without times, and with the same names in every world.
fn plain(value: &Value, world: &dyn World, names: &[(String, String)]) -> Value {
    match value {
        Value::String(text) => {
            json!(names.iter().fold(text.clone(), |text, (name, stands_for)| text.replace(name, stands_for)))
        }
        Value::Array(items) => items.iter().map(|item| plain(item, world, names)).collect(),
        Value::Object(members) => {
            let mut plain_members = Map::new();
            for (name, item) in members {
                plain_members.insert(name.clone(), plain(item, world, names));
            }
            plain_members.retain(|name, _| !differs(name) && !world.is_drawn(name));
            // A report tells times and attempts.
            if plain_members
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(|name| name.starts_with("report"))
            {
                plain_members.retain(|name, _| name == "name");
            }
            Value::Object(plain_members)
        }
        other => other.clone(),
    }
}

/// Whether a member of outputs differs between two undisturbed runs, or tells of attempts.
fn differs(name: &str) -> bool {
    name.ends_with("_ms")
        || name.ends_with("_at")
        || matches!(name, "at" | "attempts" | "settled_by_check" | "headers" | "report")
}

/// Whether a part is as it is after an undisturbed run. Of what a batch that was done again found gone nobody knows whether its first try
/// had deleted it (`g`, and `gone_after_crash`): it stands for what was deleted or gone already, and for nothing else.
fn alike(found: &Value, expected: &Value) -> bool {
    let (Value::Object(found), Value::Object(expected)) = (found, expected) else { return found == expected };
    let counts = ["deleted", "already_gone", "gone_after_crash"];
    let tells_gone = expected.contains_key(counts[2]);
    found.len() == expected.len()
        && (!tells_gone || gone_alike(found, expected))
        && expected.iter().all(|(name, value)| match found.get(name) {
            Some(_) if tells_gone && counts.contains(&name.as_str()) => true,
            Some(own) if name == "keys" && value.is_object() => codes_alike(own, value),
            Some(own) => alike(own, value),
            None => false,
        })
}

fn gone_alike(found: &Map<String, Value>, expected: &Map<String, Value>) -> bool {
    let collections = expected["deleted"].as_object().into_iter().flatten();
    collections.map(|(name, _)| name).all(|name| {
        let of = |outputs: &Map<String, Value>, count: &str| outputs[count][name].as_u64().unwrap_or(0);
        let all =
            |outputs| of(outputs, "deleted") + of(outputs, "already_gone") + of(outputs, "gone_after_crash");
        let less = |count| of(found, count) <= of(expected, count);
        all(found) == all(expected) && less("deleted") && less("already_gone")
    })
}

fn codes_alike(found: &Value, expected: &Value) -> bool {
    let (Some(found), Some(expected)) = (found.as_object(), expected.as_object()) else { return false };
    let code = |own: char, other: char| own == other || (own == 'g' && matches!(other, 'd' | 'a'));
    let codes = |own: &str, other: &str| {
        own.len() == other.len() && own.chars().zip(other.chars()).all(|(own, other)| code(own, other))
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found.len() == expected.len()
        && expected
            .iter()
            .all(|(key, other)| found.get(key).is_some_and(|own| codes(&text(own), &text(other))))
}

/// The artifacts whose name is not the hash of what is in them, and what a killed process left half written.
fn broken(folder: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    let half =
        |path: &Path| path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(".new-"));
    broken.extend(files(folder).into_iter().filter(|path| half(path)).map(|path| path.display().to_string()));
    for path in files(&folder.join("artifacts")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hash = Sha256::digest(fs::read(&path).unwrap());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        if name != hash {
            broken.push(name);
        }
    }
    broken
}

/// Every file below a folder, if there is one.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What is not as it is after an undisturbed run, in words.
pub fn differences(world: &dyn World, reference: &Ended, ended: &Ended) -> Vec<String> {
    let mut wrong = ended.wrong.clone();
    let Some(stands) = &ended.stands else { return wrong };
    wrong.extend(always(stands));
    if stands.state.status == RunStatus::Cancelled {
        return wrong;
    }
    if ended.world != reference.world {
        wrong.push(format!("the world: {}\n  instead of {}", ended.world, reference.world));
    }
    let Some(expected) = &reference.stands else { return wrong };
    for (part, value) in &expected.parts {
        let found = stands.parts.get(part).cloned().unwrap_or_default();
        let step = part.split_once(' ').map_or("", |(_, step)| step);
        // A step that a person settled has no outputs, and nobody recorded what became of its batch.
        let by_hand = settled_by_hand(stands, step) && !part.starts_with("counter");
        // More of it was repeated than the batch in flight, so there is more in the ledger.
        let batches = |of: &Stands| of.batches.get(step).copied().unwrap_or(0);
        let again = batches(stands) > batches(expected) + ended.crashed_at.len() as u64;
        let skips = by_hand || (again && part.starts_with("ledger"));
        if !alike(&found, value) && !skips {
            wrong.push(format!("{part}: {found}\n  instead of {value}"));
        }
    }
    for (step, batches) in &expected.batches {
        let more = world.repeatable(step, &ended.crashed_at);
        let found = stands.batches.get(step).copied().unwrap_or(0);
        if !(*batches..=batches + more).contains(&found) {
            wrong.push(format!("`{step}` announced {found} batches and not {batches}"));
        }
    }
    wrong
}

/// What must hold of every run that has ended, whatever became of it.
fn always(stands: &Stands) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, one) in &stands.state.obligations {
        let fine = matches!(&one.phase, ObligationPhase::Closed(Closed::Restored | Closed::Untouched));
        if !fine {
            wrong.push(format!("obligation {id} ended as {:?}", one.phase));
        }
    }
    if stands.parts["open obligations"] != json!([]) {
        wrong.push(format!("open obligations: {}", stands.parts["open obligations"]));
    }
    let open = stands.unsettled.iter().filter(|step| {
        let succeeded = stands.state.steps[*step].status == StepStatus::Succeeded;
        succeeded && !settled_by_hand(stands, step)
    });
    wrong.extend(open.map(|step| format!("`{step}` has batches of unknown outcome")));
    wrong.extend(stands.broken.iter().map(|name| format!("the artifact {name} holds something else")));
    wrong
}

/// Whether a person said of the step that it had taken effect.
fn settled_by_hand(stands: &Stands, step: &str) -> bool {
    let Some(state) = stands.state.steps.get(step) else { return false };
    let settles = !matches!(state.question, Some(Question::Phrase { .. }));
    settles && state.answers.last().is_some_and(|answer| answer.text == "done")
}
