//! A run driven by the real loop over a store in memory, with crashes of the loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration as StdDuration, Instant};

use jiff::{SignedDuration, Timestamp};
use runbook_engine::artifact::Artifacts;
use runbook_engine::drive::{Clock, DriveError, Driver, Finish, Halt, LiveHub, Purpose};
use runbook_engine::error::StepError;
use runbook_engine::plan::{Plan, PlannedStep};
use runbook_engine::redact::Redactor;
use runbook_engine::state::RunState;
use runbook_engine::store::Store;
use runbook_engine::store::memory::MemoryStore;
use runbook_steps::executor::CatalogExecutor;
use runbook_steps::kind::{NoVault, Vault};
use runbook_steps::resources::Resources;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::common::planned;
use crate::engine::{Blind, Nobody, new_run, plan};

/// A clock that can be set forward, so that nobody waits for a lease.
#[derive(Default)]
struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// Runs in one store, on systems that they share.
pub struct Driven {
    /// A folder of the test.
    pub folder: tempfile::TempDir,
    /// The store.
    pub store: Arc<MemoryStore>,
    /// What nobody may see.
    pub secrets: Vec<String>,
    /// Stops what is driven.
    pub halt: watch::Sender<Halt>,
    connections: Map<String, Value>,
    collections: Map<String, Value>,
    clock: Arc<Ahead>,
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

impl Driven {
    /// Runs on these connections and collections.
    pub fn new(connections: &Value, collections: &Value) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            store: Arc::new(MemoryStore::new()),
            secrets: Vec::new(),
            halt: watch::channel(Halt::No).0,
            connections: object(connections),
            collections: object(collections),
            clock: Arc::default(),
        }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Creates a run of these steps, each of which needs the one before it.
    pub async fn create(&self, id: &str, steps: Vec<PlannedStep>) {
        self.create_with_finally(id, steps, Vec::new()).await;
    }

    /// Creates a run of these steps, with final steps.
    pub async fn create_with_finally(&self, id: &str, steps: Vec<PlannedStep>, finally: Vec<PlannedStep>) {
        let mut steps = steps;
        for index in 1..steps.len() {
            steps[index].needs = vec![steps[index - 1].id.clone()];
        }
        let plan = Plan {
            connections: self.connections.clone(),
            collections: self.collections.clone(),
            finally,
            ..plan(steps)
        };
        self.store.create(new_run(id, &plan)).await.unwrap();
    }

    fn driver(&self) -> Driver {
        let redactor = Redactor::new(self.secrets.iter().cloned());
        let vault: Arc<dyn Vault> = Arc::new(NoVault);
        let resources = Resources::open(&self.connections, &self.collections, &redactor, &vault).unwrap();
        Driver {
            store: self.store.clone(),
            executor: Arc::new(CatalogExecutor::new(resources)),
            people: Arc::new(Nobody),
            observer: Box::new(Blind),
            live: LiveHub::new(redactor.clone()),
            artifacts: Artifacts::new(self.path("artifacts"), redactor.clone()),
            scratch: self.path("scratch"),
            redactor,
            secrets: BTreeMap::new(),
            owner: "ada@driven:1".to_owned(),
            clock: self.clock.clone(),
            halt: self.halt.subscribe(),
            elsewhere: Default::default(),
        }
    }

    /// Drives a run as far as it goes.
    pub async fn drive(&self, id: &str, purpose: Purpose) -> Result<Finish, DriveError> {
        let drive = self.driver().drive(id, purpose);
        tokio::time::timeout(StdDuration::from_secs(60), drive).await.expect("the loop ends")
    }

    /// Drives a run that must end.
    pub async fn ended(&self, id: &str, purpose: Purpose) -> RunState {
        match self.drive(id, purpose).await.unwrap() {
            Finish::Ended(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// Creates a run of these steps and drives it to its end.
    pub async fn run(&self, id: &str, steps: Vec<PlannedStep>) -> RunState {
        self.create(id, steps).await;
        self.ended(id, Purpose::GoOn).await
    }

    /// Drives a run until `when`, and then kills the loop where it stands. The lease of the dead is over afterwards.
    pub async fn crash(&self, id: &str, purpose: Purpose, when: impl Fn() -> bool) {
        let (driver, id) = (self.driver(), id.to_owned());
        let task = tokio::spawn(async move { driver.drive(&id, purpose).await });
        until(|| when() || task.is_finished()).await;
        assert!(!task.is_finished(), "it was over before the crash");
        task.abort();
        let _ = task.await;
        self.clock.0.fetch_add(60, Ordering::SeqCst);
    }
}

/// Waits until it is so.
pub async fn until(so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < StdDuration::from_secs(30), "it never came to be");
        tokio::time::sleep(StdDuration::from_millis(5)).await;
    }
}

/// A planned step.
pub fn step(id: &str, uses: &str, with: Value) -> PlannedStep {
    planned(id, uses, with)
}

/// The outputs of a step.
pub fn outputs<'a>(state: &'a RunState, id: &str) -> &'a Value {
    let step = state.step(id).unwrap();
    step.outputs().unwrap_or_else(|| panic!("{id}: {:?} {:?}", step.status, step.error))
}

/// Why a step failed.
pub fn error<'a>(state: &'a RunState, id: &str) -> &'a StepError {
    let step = state.step(id).unwrap();
    step.error.as_ref().unwrap_or_else(|| panic!("{id}: {:?} {:?}", step.status, step.outputs()))
}

/// A file's text; empty when there is none.
pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
