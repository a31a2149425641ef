//! A run in memory, in which one step after the other is entered as the engine would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use runbook_engine::artifact::{Artifact, Artifacts};
use runbook_engine::drive::obligations::Request;
use runbook_engine::drive::{LEASE, LiveHub};
use runbook_engine::error::StepError;
use runbook_engine::event::{Answer, Event, EventKind};
use runbook_engine::kinds::Effect;
use runbook_engine::plan::{Plan, PlannedStep, Reviewed};
use runbook_engine::redact::Redactor;
use runbook_engine::saved::Foresight;
use runbook_engine::state::RunStatus;
use runbook_engine::step::{History, Lazy, Ledger, Obligations, RunInfo, StepContext, StepEnd};
use runbook_engine::store::memory::MemoryStore;
use runbook_engine::store::{Fence, Store, Write};
use runbook_steps::catalog;
use runbook_steps::kind::{Context, Vault};
use runbook_steps::resources::Resources;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The run's id.
pub const RUN: &str = "run-1";

/// A run with its steps, its systems and a folder of its own.
pub struct Bench {
    /// Its store.
    pub store: Arc<MemoryStore>,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Where it keeps artifacts; tests may use it too.
    pub folder: tempfile::TempDir,
    /// What it learnt of secrets.
    pub redactor: Redactor,
    /// The vault of its connections, which outlives a crash.
    pub vault: Arc<Memory>,
    /// What its steps ask of the loop.
    _requests: mpsc::Receiver<Request>,
    resources: Arc<Resources>,
    to_loop: mpsc::Sender<Request>,
    live: LiveHub,
    epoch: u64,
}

/// A vault in memory.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<String, String>>);

impl Vault for Memory {
    fn keep(&self, name: &str, value: &str) {
        self.0.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.lock().unwrap().get(name).cloned()
    }
}

/// A planned step without anything special.
pub fn planned(id: &str, uses: &str, with: Value) -> PlannedStep {
    let effect = catalog::step(uses).map_or(Effect::READ, |entry| (entry.info.effect)(&with));
    crate::engine::step(id, uses, with, effect)
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

impl Bench {
    /// A run of these steps on these connections and collections, claimed and under way.
    pub async fn new(steps: Vec<PlannedStep>, connections: Value, collections: Value) -> Self {
        let (connections, collections) = (object(connections), object(collections));
        let plan = Arc::new(Plan {
            runbook: "bench".to_owned(),
            connections,
            collections,
            ..crate::engine::plan(steps)
        });
        let store = Arc::new(MemoryStore::new());
        store.create(crate::engine::new_run(RUN, &plan)).await.unwrap();
        let (redactor, vault) = (Redactor::default(), Arc::new(Memory::default()));
        let (to_loop, requests) = mpsc::channel(16);
        let mut bench = Self {
            store,
            live: LiveHub::new(redactor.clone()),
            resources: open(&plan, &redactor, &vault),
            plan,
            folder: tempfile::tempdir().unwrap(),
            redactor,
            vault,
            _requests: requests,
            to_loop,
            epoch: 0,
        };
        bench.claim().await;
        bench
    }

    async fn claim(&mut self) {
        let now = Timestamp::now();
        self.epoch = self.store.claim(RUN, "ada@bench", now, LEASE.after(now)).await.unwrap();
        self.record(EventKind::RunClaimed { epoch: self.epoch, owner: "ada@bench".to_owned() }).await;
    }

    /// What a crash leaves: the store, the vault and the artifacts, but no connection and no session in memory.
    pub fn reopen_resources(&mut self) {
        self.resources = open(&self.plan, &self.redactor, &self.vault);
    }

    /// Adds an event to the run.
    pub async fn record(&self, what: EventKind) {
        let after = self.store.run(RUN).await.unwrap().unwrap().last_seq;
        let event = Event { seq: after + 1, at: Timestamp::now(), what };
        let write = Write::Append { after, events: vec![event], status: RunStatus::Running };
        self.store.commit(RUN, Fence::Owner(self.epoch), vec![write]).await.unwrap();
    }

    /// The context of a step.
    pub fn context(&self, step: &str) -> Context {
        let limits = self.plan.step(step).map(|step| step.limits.clone()).unwrap_or_default();
        let store: Arc<dyn Store> = self.store.clone();
        let engine = StepContext {
            run: RunInfo {
                id: RUN.to_owned(),
                runbook: self.plan.runbook.clone(),
                created_at: Timestamp::now(),
                by: "ada".to_owned(),
                seed: 42,
            },
            step: step.to_owned(),
            attempt: 1,
            answers: Vec::new(),
            ledger: Ledger::new(store.clone(), RUN, step, self.epoch, self.plan.limits.clone(), limits),
            obligations: Obligations::new(step, self.to_loop.clone()),
            artifacts: self.artifacts(),
            scratch: self.folder.path().join("scratch"),
            live: self.live.step(step),
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
            redactor: self.redactor.clone(),
            history: History { plan: self.plan.clone(), store, run: RUN.to_owned() },
        };
        Context { engine, resources: self.resources.clone(), lazy: Lazy::default() }
    }

    /// Where artifacts are.
    pub fn artifacts(&self) -> Artifacts {
        Artifacts::new(self.folder.path().join("artifacts"), self.redactor.clone())
    }

    /// What a step would do, as a plan finds it.
    pub async fn foresee(&self, step: &str) -> Result<Foresight, StepError> {
        let planned = self.plan.step(step).unwrap();
        let entry = catalog::step(&planned.uses).unwrap();
        (entry.foresee)(planned.with.clone(), (entry.info.effect)(&planned.with), self.context(step)).await
    }

    /// Makes the run one that was started with a reviewed plan, which bound this for a step.
    pub fn review(&mut self, step: &str, binds: &BTreeMap<String, String>) {
        let reviewed = Reviewed {
            id: "0".repeat(64),
            made_by: String::new(),
            made_at: Timestamp::now(),
            seen_by: String::new(),
            expires_at: Timestamp::now(),
            systems: BTreeMap::new(),
            sets: BTreeMap::new(),
            settings: BTreeMap::new(),
            binds: [(step.to_owned(), binds.clone())].into(),
            skipped: BTreeSet::new(),
            promised: BTreeSet::new(),
            asks: BTreeSet::new(),
        };
        self.plan = Arc::new(Plan { reviewed: Some(reviewed), ..Plan::clone(&self.plan) });
    }

    /// Enters a step once: its outputs, or why it failed.
    pub async fn enter(&self, step: &str) -> Result<Value, StepError> {
        self.enter_with(self.context(step), None).await
    }

    /// Enters a step in this context, with another `with` when one is given.
    pub async fn enter_with(&self, cx: Context, with: Option<Value>) -> Result<Value, StepError> {
        let step = self.plan.step(&cx.step).unwrap().clone();
        let entry = catalog::step(&step.uses).unwrap();
        match (entry.run)(with.unwrap_or(step.with), cx).await? {
            StepEnd::Done(outputs) => Ok(outputs),
            StepEnd::Ask(question) => panic!("asks {question:?}"),
        }
    }

    /// What a cancel does about a step that was cut off.
    pub async fn tidy(&self, step: &str) -> Result<(), StepError> {
        self.tidy_with(step, self.plan.step(step).unwrap().with.clone()).await
    }

    /// The same with another `with`.
    pub async fn tidy_with(&self, step: &str, with: Value) -> Result<(), StepError> {
        let entry = catalog::step(&self.plan.step(step).unwrap().uses).unwrap();
        (entry.tidy)(with, self.context(step)).await
    }

    /// Enters a step, and records its start and its end as the engine does.
    pub async fn run(&self, step: &str, attempt: u32) -> Result<Value, StepError> {
        self.record(EventKind::StepStarted { step: step.to_owned(), attempt }).await;
        let result = self.enter(step).await;
        let step = step.to_owned();
        self.record(match result.clone() {
            Ok(outputs) => EventKind::StepSucceeded { step, outputs },
            Err(error) => EventKind::StepFailed { step, error },
        })
        .await;
        result
    }

    /// Reopens a step that has ended, as an explicit resume does.
    pub async fn reopen(&self, step: &str) {
        let reason = "resumed".to_owned();
        self.record(EventKind::StepReopened { step: step.to_owned(), reason }).await;
    }

    /// The text of an artifact that outputs name.
    pub fn text(&self, artifact: &Value) -> String {
        let artifact: Artifact = serde_json::from_value(artifact.clone()).unwrap();
        std::fs::read_to_string(self.artifacts().path(&artifact).unwrap()).unwrap()
    }

    /// The records of an artifact that outputs name.
    pub fn records(&self, artifact: &Value) -> Vec<Value> {
        self.text(artifact).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Writes an artifact of one record a line.
    pub fn artifact(&self, name: &str, records: &[Value]) -> Value {
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        let artifact = Artifact {
            sha256: runbook_steps::digest::sha256(text.as_bytes()),
            name: name.to_owned(),
            bytes: text.len() as u64,
            lines: Some(records.len() as u64),
        };
        let path = self.artifacts().path(&artifact).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        json!(artifact)
    }
}

/// An answer of ada.
pub fn answer(text: &str) -> Answer {
    Answer { text: text.to_owned(), by: "ada".to_owned(), at: Timestamp::now() }
}

fn open(plan: &Plan, redactor: &Redactor, vault: &Arc<Memory>) -> Arc<Resources> {
    let vault: Arc<dyn Vault> = vault.clone();
    Arc::new(Resources::open(&plan.connections, &plan.collections, redactor, &vault).unwrap())
}
