//! A scripted world, and a loop on it.

use std::sync::{Arc, Mutex};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::drive::{Clock, DriveError, Driver, Finish, Halt, Purpose};
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::event::{Answer, Event, EventKind, Obligation, Question};
use runbook_engine::kinds::Effect;
use runbook_engine::plan::{Plan, PlannedStep, Retry};
use runbook_engine::state::{RunState, RunStatus, StepStatus};
use runbook_engine::step::{
    Executor, Found, Hold, Intent, Look, Release, Settlement, StepCall, StepContext, StepEnd,
};
use runbook_engine::store::memory::MemoryStore;
use runbook_engine::store::{Fence, Store, StoreError, Write};
use serde_json::json;
use tokio::sync::watch;

use crate::common::{self, new_run};
use crate::driver::driver;

/// The scripted world: the kind of a step says what it does, and everything done is written down.
#[derive(Default)]
pub struct World {
    pub done: Mutex<Vec<String>>,
    value: Mutex<String>,
}

impl World {
    pub fn note(&self, what: impl Into<String>) {
        self.done.lock().unwrap().push(what.into());
    }

    pub fn count(&self, what: &str) -> usize {
        self.done.lock().unwrap().iter().filter(|one| *one == what).count()
    }

    pub fn value(&self) -> String {
        self.value.lock().unwrap().clone()
    }

    pub fn set(&self, value: &str) {
        *self.value.lock().unwrap() = value.to_owned();
    }
}

pub struct Scripted(Arc<World>);

#[async_trait]
impl Executor for Scripted {
    async fn run(&self, call: StepCall, cx: StepContext) -> Result<StepEnd, StepError> {
        let world = &self.0;
        world.note(call.id.clone());
        match call.uses.as_str() {
            "flaky" if cx.attempt < 3 => Err(StepError::transient("not yet")),
            "gate" if cx.attempt < 2 => Err(StepError::gate("closed")),
            "once" if cx.attempt < 2 => Err(StepError::transient("no answer").unknown()),
            "panic" => panic!("a step panics"),
            "confides" => Err(StepError::gate("it is not hunter2").with_help("type hunter2 instead")),
            "slow" | "purge" => {
                let batches = call.with["batches"].as_u64().unwrap_or(200);
                for number in 0..batches {
                    cx.checkpoint()?;
                    let intent = Intent { what: json!(number), items: 1, charged_items: 1, charged_bytes: 0 };
                    let batch = cx.ledger.intend(intent).await?;
                    tokio::time::sleep(StdDuration::from_millis(call.with["ms"].as_u64().unwrap_or(20)))
                        .await;
                    world.note(format!("batch {number}"));
                    let settlement = Settlement { cursor: json!(number), done: 1, ..Settlement::default() };
                    cx.ledger.settle(batch.number, settlement).await?;
                }
                Ok(StepEnd::Done(json!({})))
            }
            "freeze" => {
                let obligation = Obligation {
                    step: call.id.clone(),
                    target: call.with["target"].as_str().unwrap_or("the gateway").to_owned(),
                    label: "the gateway".to_owned(),
                    original: call.with.get("original").cloned().unwrap_or_else(|| json!(world.value())),
                    replacement: json!("0"),
                    max_hold: Duration::from_millis(call.with["max_hold_ms"].as_u64().unwrap_or(60_000)),
                };
                let id = cx.obligations.open(obligation).await?;
                if call.with["fails_at_once"] == true {
                    return Err(StepError::gate("somebody was faster"));
                }
                world.set("0");
                cx.obligations.applied(&id).await?;
                Ok(StepEnd::Done(json!({})))
            }
            // It hears no stop.
            "deaf" => {
                tokio::time::sleep(StdDuration::from_millis(call.with["ms"].as_u64().unwrap_or(0))).await;
                Ok(StepEnd::Done(json!({})))
            }
            "unfreeze" => {
                let of = call.with["freeze"].as_str().unwrap_or("freeze");
                let released = cx.obligations.release(of).await?;
                Ok(StepEnd::Done(json!({ "released": released.len() })))
            }
            "ask" if cx.answers.is_empty() => Ok(asks("YES")),
            "ask twice" if cx.answers.len() < 2 => Ok(asks(["ONE", "TWO"][cx.answers.len()])),
            _ => Ok(StepEnd::Done(json!({ "step": call.id }))),
        }
    }

    async fn release(
        &self,
        _: StepCall,
        obligation: &Obligation,
        hold: Hold,
        _: StepContext,
    ) -> Result<Release, StepError> {
        self.0.note(format!("release of {hold:?}"));
        match self.0.value().as_str() {
            "stuck" => return Err(StepError::refused("the restart fails")),
            "busy" => {
                self.0.set("0");
                return Err(StepError::transient("no answer"));
            }
            _ => {}
        }
        let original = obligation.original.as_str().unwrap_or_default();
        match self.0.value() {
            present if present == "0" || present == original => {
                self.0.set(original);
                Ok(Release::Restored)
            }
            present => Ok(Release::Foreign(present)),
        }
    }

    async fn inspect(
        &self,
        _: StepCall,
        obligation: &Obligation,
        _: Look,
        _: StepContext,
    ) -> Result<Found, StepError> {
        self.0.note("look");
        let original = obligation.original.as_str().unwrap_or_default();
        Ok(match self.0.value().as_str() {
            "0" => Found::InForce,
            "stuck" => Found::Ineffective("nothing heeds it".to_owned()),
            present if present == original => Found::Original,
            present => Found::Foreign(present.to_owned()),
        })
    }
}

fn asks(phrase: &str) -> StepEnd {
    let (message, phrase) = ("go on?".to_owned(), phrase.to_owned());
    StepEnd::Ask(Question::Phrase { message, phrase, terminal: false, facts: Vec::new() })
}

pub fn step(id: &str, uses: &str, needs: &[&str]) -> PlannedStep {
    let effect = match uses {
        "once" => Effect::WRITE_ONCE,
        "purge" => Effect::DESTROY,
        _ => Effect::WRITE,
    };
    PlannedStep {
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        retry: Retry { max_attempts: 4, delay: Duration::from_millis(1), ..Retry::default() },
        ..common::step(id, uses, json!({}), effect)
    }
}

pub fn plan(steps: Vec<PlannedStep>) -> Plan {
    Plan { finally: vec![step("report", "anything", &[])], ..common::plan(steps) }
}

/// The time of the system, and what a test adds to it.
#[derive(Default)]
pub struct Ahead(pub Mutex<StdDuration>);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::now() + *self.0.lock().unwrap()
    }
}

pub struct Bench {
    pub store: Arc<dyn Store>,
    pub world: Arc<World>,
    pub halt: watch::Sender<Halt>,
    pub clock: Arc<Ahead>,
}

impl Bench {
    pub fn new() -> Self {
        let world = Arc::new(World::default());
        world.set("25");
        Self {
            store: Arc::new(MemoryStore::default()),
            world,
            halt: watch::channel(Halt::No).0,
            clock: Arc::default(),
        }
    }

    pub async fn create(&self, id: &str, plan: &Plan) {
        self.store.create(new_run(id, plan)).await.unwrap();
    }

    pub fn driver(&self) -> Driver {
        let executor = Scripted(Arc::clone(&self.world));
        driver(&self.store, executor, "me@here:1", Arc::clone(&self.clock) as _, self.halt.subscribe())
    }

    /// Nobody owns the run any more, as it is some time after its process died.
    pub async fn die(&self, id: &str) {
        let epoch = self.store.run(id).await.unwrap().unwrap().epoch;
        self.store.commit(id, Fence::Owner(epoch), vec![Write::Leave]).await.unwrap();
    }

    pub async fn drive(&self, id: &str, purpose: Purpose) -> Result<Finish, DriveError> {
        let drive = self.driver().drive(id, purpose);
        tokio::time::timeout(StdDuration::from_secs(30), drive).await.expect("the loop ends")
    }

    pub async fn run(&self, id: &str, plan: &Plan) -> RunState {
        self.create(id, plan).await;
        ended(self.drive(id, Purpose::GoOn).await.unwrap())
    }
}

pub fn ended(finish: Finish) -> RunState {
    match finish {
        Finish::Ended(state) => state,
        other => panic!("{other:?}"),
    }
}

pub fn status(state: &RunState, id: &str) -> StepStatus {
    state.step(id).unwrap().status
}

pub async fn answer(store: &dyn Store, state: &RunState, step: &str, text: &str) {
    answered(store, state.seq, step, text).await.unwrap();
}

/// Answers in the place of somebody else, when nothing was recorded after this event.
pub async fn answered(store: &dyn Store, after: u64, step: &str, text: &str) -> Result<(), StoreError> {
    let answer = Answer { text: text.to_owned(), by: "somebody else".to_owned(), at: Timestamp::now() };
    let what = EventKind::Answered { step: step.to_owned(), answer };
    foreign(store, after, what).await
}

pub async fn foreign(store: &dyn Store, after: u64, what: EventKind) -> Result<(), StoreError> {
    let events = vec![Event { seq: after + 1, at: Timestamp::now(), what }];
    let append = Write::Append { after, events, status: RunStatus::Running };
    store.commit("r", Fence::Foreign, vec![append]).await
}
