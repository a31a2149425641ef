//! The loop with a scripted world: what it records, what it starts, and what it never leaves behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::artifact::Artifacts;
use runbook_engine::drive::{DriveError, Driver, Finish, Halt, LiveHub, Purpose, SystemClock};
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::event::{Answer, Closed, Event, EventKind, Obligation, Question};
use runbook_engine::kinds::{Effect, Repeat};
use runbook_engine::plan::{Plan, PlannedStep, Retry};
use runbook_engine::redact::Redactor;
use runbook_engine::state::{ObligationPhase, RunState, RunStatus, StepStatus};
use runbook_engine::step::{Executor, Intent, Release, Settlement, StepCall, StepContext, StepEnd};
use runbook_engine::store::memory::MemoryStore;
use runbook_engine::store::{Fence, Store, StoreError, Write};
use serde_json::json;
use tokio::sync::watch;

mod common;

use common::{Blind, Nobody, new_run};

/// The scripted world: the kind of a step says what it does, and everything done is written down.
#[derive(Default)]
struct World {
    done: Mutex<Vec<String>>,
    value: Mutex<String>,
}

impl World {
    fn note(&self, what: impl Into<String>) {
        self.done.lock().unwrap().push(what.into());
    }

    fn count(&self, what: &str) -> usize {
        self.done.lock().unwrap().iter().filter(|one| *one == what).count()
    }

    fn value(&self) -> String {
        self.value.lock().unwrap().clone()
    }

    fn set(&self, value: &str) {
        *self.value.lock().unwrap() = value.to_owned();
    }
}

struct Scripted(Arc<World>);

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
            "slow" => {
                for number in 0..200_u64 {
                    cx.checkpoint()?;
                    let intent = Intent { what: json!(number), items: 1, charged_items: 1, charged_bytes: 0 };
                    let batch = cx.ledger.intend(intent).await?;
                    tokio::time::sleep(StdDuration::from_millis(20)).await;
                    world.note(format!("batch {number}"));
                    let settlement = Settlement { cursor: json!(number), done: 1, ..Settlement::default() };
                    cx.ledger.settle(batch.number, settlement).await?;
                }
                Ok(StepEnd::Done(json!({})))
            }
            "freeze" => {
                let obligation = Obligation {
                    step: call.id.clone(),
                    target: "the gateway".to_owned(),
                    label: "the gateway".to_owned(),
                    original: json!(world.value()),
                    replacement: json!("0"),
                    max_hold: Duration::from_millis(call.with["max_hold_ms"].as_u64().unwrap_or(60_000)),
                };
                let id = cx.obligations.open(obligation).await?;
                world.set("0");
                cx.obligations.applied(&id).await?;
                Ok(StepEnd::Done(json!({})))
            }
            "unfreeze" => {
                let released = cx.obligations.release("freeze").await?;
                Ok(StepEnd::Done(json!({ "released": released.len() })))
            }
            "ask" if cx.answers.is_empty() => Ok(StepEnd::Ask(Question::Phrase {
                message: "go on?".to_owned(),
                phrase: "YES".to_owned(),
                facts: Vec::new(),
            })),
            _ => Ok(StepEnd::Done(json!({ "step": call.id }))),
        }
    }

    async fn release(
        &self,
        _: StepCall,
        obligation: &Obligation,
        _: bool,
        _: StepContext,
    ) -> Result<Release, StepError> {
        let original = obligation.original.as_str().unwrap_or_default();
        match self.0.value() {
            present if present == "0" || present == original => {
                self.0.set(original);
                Ok(Release::Restored)
            }
            present => Ok(Release::Foreign(present)),
        }
    }
}

fn step(id: &str, uses: &str, needs: &[&str]) -> PlannedStep {
    let effect = if uses == "once" { Effect::WRITE_ONCE } else { Effect::WRITE };
    PlannedStep {
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        retry: Retry { max_attempts: 4, delay: Duration::from_millis(1), ..Retry::default() },
        ..common::step(id, uses, json!({}), effect)
    }
}

fn plan(steps: Vec<PlannedStep>) -> Plan {
    Plan { finally: vec![step("report", "anything", &[])], ..common::plan(steps) }
}

struct Bench {
    store: Arc<dyn Store>,
    world: Arc<World>,
    halt: watch::Sender<Halt>,
}

impl Bench {
    fn new() -> Self {
        let world = Arc::new(World::default());
        world.set("25");
        Self { store: Arc::new(MemoryStore::default()), world, halt: watch::channel(Halt::No).0 }
    }

    async fn create(&self, id: &str, plan: &Plan) {
        self.store.create(new_run(id, plan)).await.unwrap();
    }

    fn driver(&self) -> Driver {
        let redactor = Redactor::default();
        Driver {
            store: Arc::clone(&self.store),
            executor: Arc::new(Scripted(Arc::clone(&self.world))),
            people: Arc::new(Nobody),
            observer: Box::new(Blind),
            live: LiveHub::new(redactor.clone()),
            artifacts: Artifacts::new(std::env::temp_dir(), redactor.clone()),
            scratch: std::env::temp_dir(),
            redactor,
            secrets: BTreeMap::new(),
            owner: "me@here:1".to_owned(),
            clock: Arc::new(SystemClock),
            halt: self.halt.subscribe(),
        }
    }

    async fn drive(&self, id: &str, purpose: Purpose) -> Result<Finish, DriveError> {
        let drive = self.driver().drive(id, purpose);
        tokio::time::timeout(StdDuration::from_secs(30), drive).await.expect("the loop ends")
    }

    async fn run(&self, id: &str, plan: &Plan) -> RunState {
        self.create(id, plan).await;
        ended(self.drive(id, Purpose::GoOn).await.unwrap())
    }
}

fn ended(finish: Finish) -> RunState {
    match finish {
        Finish::Ended(state) => state,
        other => panic!("{other:?}"),
    }
}

fn status(state: &RunState, id: &str) -> StepStatus {
    state.step(id).unwrap().status
}

#[tokio::test]
async fn steps_run_in_order_and_transient_failures_are_retried() {
    let bench = Bench::new();
    let plan = plan(vec![step("a", "flaky", &[]), step("b", "anything", &["a"])]);
    let state = bench.run("r", &plan).await;
    assert_eq!(state.status, RunStatus::Succeeded);
    assert_eq!(state.step("a").unwrap().attempt, 3);
    assert_eq!(*bench.world.done.lock().unwrap(), ["a", "a", "a", "b", "report"]);
}

#[tokio::test]
async fn a_gate_stops_the_run_and_a_resume_goes_on_from_there() {
    let bench = Bench::new();
    let plan =
        plan(vec![step("a", "anything", &[]), step("b", "gate", &["a"]), step("c", "anything", &["b"])]);
    let state = bench.run("r", &plan).await;
    assert_eq!(state.status, RunStatus::Failed);
    assert_eq!(status(&state, "c"), StepStatus::Pending);
    assert_eq!(bench.world.count("report"), 1);
    let state = ended(bench.drive("r", Purpose::Resume).await.unwrap());
    assert_eq!(state.status, RunStatus::Succeeded);
    assert_eq!((bench.world.count("a"), bench.world.count("c"), bench.world.count("report")), (1, 1, 2));
    let again = bench.drive("r", Purpose::Resume).await;
    assert!(matches!(again, Err(DriveError::Refused(_))), "a run that succeeded is over: {again:?}");
}

#[tokio::test]
async fn an_unknown_outcome_of_a_step_that_may_not_be_repeated_asks_a_person() {
    for (text, status_then, times) in [
        ("done", RunStatus::Succeeded, 1),
        ("retry", RunStatus::Succeeded, 2),
        ("abort", RunStatus::Failed, 1),
    ] {
        let bench = Bench::new();
        let plan = plan(vec![step("a", "once", &[])]);
        bench.create("r", &plan).await;
        let Finish::Waiting(state, asking) = bench.drive("r", Purpose::GoOn).await.unwrap() else {
            panic!("it waits");
        };
        assert_eq!(asking, ["a"]);
        assert_eq!(bench.store.run("r").await.unwrap().unwrap().status, RunStatus::Waiting);
        answer(&*bench.store, &state, "a", text).await;
        let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
        assert_eq!((state.status, bench.world.count("a")), (status_then, times), "{text}");
        assert_eq!(state.step("a").unwrap().answers[0].by, "somebody else");
    }
}

#[tokio::test]
async fn a_resume_asks_for_an_unknown_outcome_that_another_failure_had_hidden() {
    let bench = Bench::new();
    let mut gate = step("gate", "gate", &[]);
    gate.retry.max_attempts = 1;
    let state = bench.run("r", &plan(vec![gate, step("a", "once", &[])])).await;
    assert_eq!((state.status, bench.world.count("a")), (RunStatus::Failed, 1));
    let Finish::Waiting(state, asking) = bench.drive("r", Purpose::Resume).await.unwrap() else {
        panic!("it asks");
    };
    assert_eq!((asking, bench.world.count("a")), (vec!["a".to_owned()], 1), "it is never sent again unasked");
    answer(&*bench.store, &state, "a", "abort").await;
    let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
    assert_eq!(state.status, RunStatus::Failed);
    // What was not known before is not known after an abort either.
    let finish = bench.drive("r", Purpose::Resume).await.unwrap();
    assert!(matches!(finish, Finish::Waiting(..)), "{finish:?}");
    assert_eq!(bench.world.count("a"), 1);
}

#[tokio::test]
async fn a_confirmation_before_the_freeze_was_lost_does_not_count_after_it() {
    let bench = Bench::new();
    let mut freeze = step("freeze", "freeze", &[]);
    freeze.with = json!({ "max_hold_ms": 300 });
    let purge = step("purge", "anything", &["ask"]);
    bench.create("r", &plan(vec![freeze, step("ask", "ask", &["freeze"]), purge])).await;
    let Finish::Waiting(state, _) = bench.drive("r", Purpose::GoOn).await.unwrap() else { panic!("it asks") };
    tokio::time::sleep(StdDuration::from_millis(400)).await;
    answer(&*bench.store, &state, "ask", "YES").await;
    let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
    assert_eq!((state.status, bench.world.count("purge")), (RunStatus::Failed, 0));
    assert_eq!(bench.world.value(), "25", "it was held too long");
    let finish = bench.drive("r", Purpose::Resume).await.unwrap();
    assert!(matches!(finish, Finish::Waiting(..)), "it asks anew: {finish:?}");
    assert_eq!((bench.world.count("freeze"), bench.world.count("purge")), (2, 0));
}

async fn answer(store: &dyn Store, state: &RunState, step: &str, text: &str) {
    let answer = Answer { text: text.to_owned(), by: "somebody else".to_owned(), at: Timestamp::now() };
    let what = EventKind::Answered { step: step.to_owned(), answer };
    foreign(store, state.seq, what).await.unwrap();
}

async fn foreign(store: &dyn Store, after: u64, what: EventKind) -> Result<(), StoreError> {
    let events = vec![Event { seq: after + 1, at: Timestamp::now(), what }];
    let append = Write::Append { after, events, status: RunStatus::Running };
    store.commit("r", Fence::Foreign, vec![append]).await
}

#[tokio::test]
async fn a_panic_in_a_step_is_a_failure_of_that_step() {
    let bench = Bench::new();
    let state = bench.run("r", &plan(vec![step("a", "panic", &[])])).await;
    assert_eq!(state.step("a").unwrap().error.as_ref().unwrap().kind, ErrorKind::Bug);
    assert_eq!(state.status, RunStatus::Failed);
}

#[tokio::test]
async fn what_was_frozen_is_back_when_the_run_succeeds() {
    for steps in [
        vec![step("freeze", "freeze", &[]), step("b", "anything", &["freeze"])],
        vec![step("freeze", "freeze", &[]), step("unfreeze", "unfreeze", &["freeze"])],
    ] {
        let bench = Bench::new();
        let state = bench.run("r", &plan(steps)).await;
        assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Succeeded, "25"));
        assert!(bench.store.obligations().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_failed_run_holds_its_freeze_until_it_is_cancelled() {
    let bench = Bench::new();
    let mut gate = step("gate", "gate", &["freeze"]);
    gate.retry.max_attempts = 1;
    let plan = plan(vec![step("freeze", "freeze", &[]), gate]);
    let state = bench.run("r", &plan).await;
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Failed, "0"));

    let other = bench.run("other", &plan).await;
    let refused = other.step("freeze").unwrap().error.clone().unwrap();
    assert!(refused.message.contains("already held by run r"), "{refused}");
    assert_eq!(bench.world.value(), "0", "the frozen value never becomes the original");

    let state = ended(bench.drive("r", Purpose::Cancel("me".to_owned())).await.unwrap());
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Cancelled, "25"));
    assert!(bench.store.obligations().await.unwrap().is_empty());
}

#[tokio::test]
async fn somebody_elses_value_is_left_alone_and_said() {
    let bench = Bench::new();
    let mut gate = step("gate", "gate", &["freeze"]);
    gate.retry.max_attempts = 1;
    bench.run("r", &plan(vec![step("freeze", "freeze", &[]), gate])).await;
    bench.world.set("50");
    let state = ended(bench.drive("r", Purpose::Cancel("me".to_owned())).await.unwrap());
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Cancelled, "50"));
    assert!(state.error.unwrap().message.contains("NOT back"));
}

#[tokio::test]
async fn a_freeze_held_too_long_is_lifted_by_whoever_sees_it_and_nothing_goes_on_without_it() {
    let bench = Bench::new();
    let mut freeze = step("freeze", "freeze", &[]);
    freeze.with = json!({ "max_hold_ms": 150 });
    let mut gate = step("gate", "gate", &["freeze"]);
    gate.retry.max_attempts = 1;
    let plan = plan(vec![freeze, gate, step("purge", "anything", &["gate"])]);
    bench.run("r", &plan).await;
    bench.drive("r", Purpose::Reconcile).await.unwrap();
    assert_eq!(bench.world.value(), "0", "it may be held a while yet");
    tokio::time::sleep(StdDuration::from_millis(200)).await;
    let state = ended(bench.drive("r", Purpose::Reconcile).await.unwrap());
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Failed, "25"));
    let closed = state.obligations.values().next().unwrap();
    assert_eq!(closed.phase, ObligationPhase::Closed(Closed::Expired));
    assert_eq!(bench.world.count("purge"), 0);
    // An explicit resume begins again from the freeze.
    let state = ended(bench.drive("r", Purpose::Resume).await.unwrap());
    assert_eq!(
        (state.status, bench.world.count("freeze"), bench.world.count("purge")),
        (RunStatus::Succeeded, 2, 1)
    );
    assert_eq!(bench.world.value(), "25");
}

#[tokio::test]
async fn a_gentle_stop_settles_the_batch_in_flight_and_a_resume_repeats_none() {
    let bench = Bench::new();
    bench.create("r", &plan(vec![step("slow", "slow", &[])])).await;
    let halt = bench.halt.clone();
    tokio::spawn(async move {
        tokio::time::sleep(StdDuration::from_millis(150)).await;
        halt.send_replace(Halt::Gently);
    });
    let Finish::Halted(state) = bench.drive("r", Purpose::GoOn).await.unwrap() else {
        panic!("it is stopped")
    };
    assert_eq!(status(&state, "slow"), StepStatus::Interrupted);
    let ledger = bench.store.ledger("r", "slow").await.unwrap();
    assert!(ledger.done > 0 && ledger.unsettled.is_empty(), "{ledger:?}");
    assert!(bench.store.run("r").await.unwrap().unwrap().owner.is_none(), "nobody has to wait for the lease");
}

#[tokio::test]
async fn cancelling_from_elsewhere_stops_a_running_step_and_ends_the_run() {
    let bench = Bench::new();
    bench.create("r", &plan(vec![step("slow", "slow", &[])])).await;
    let store = Arc::clone(&bench.store);
    tokio::spawn(async move {
        tokio::time::sleep(StdDuration::from_millis(200)).await;
        loop {
            let seq = store.run("r").await.unwrap().unwrap().last_seq;
            let what = EventKind::CancelRequested { by: "somebody else".to_owned() };
            if foreign(&*store, seq, what).await.is_ok() {
                break;
            }
        }
    });
    let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
    assert_eq!(state.status, RunStatus::Cancelled);
    assert_eq!(state.cancel.as_deref(), Some("somebody else"));
    assert!(bench.world.count("batch 199") == 0);
}

#[tokio::test]
async fn an_owner_that_was_replaced_stops_at_its_next_write() {
    let bench = Bench::new();
    bench.create("r", &plan(vec![step("slow", "slow", &[])])).await;
    let store = Arc::clone(&bench.store);
    let thief = tokio::spawn(async move {
        tokio::time::sleep(StdDuration::from_millis(200)).await;
        // The lease of the first owner is over as far as this clock can tell.
        let later = Duration::from_secs(3600).after(Timestamp::now());
        store.claim("r", "thief", later, Duration::from_secs(60).after(later)).await.unwrap();
    });
    let stopped = bench.drive("r", Purpose::GoOn).await;
    thief.await.unwrap();
    assert_eq!(stopped, Err(DriveError::Store(StoreError::Fenced)));
    let before = bench.world.done.lock().unwrap().len();
    tokio::time::sleep(StdDuration::from_millis(100)).await;
    assert_eq!(bench.world.done.lock().unwrap().len(), before, "its steps are gone too");
}

#[tokio::test]
async fn the_budget_is_asked_before_the_batch_and_survives_a_resume() {
    let bench = Bench::new();
    let mut plan = plan(vec![step("slow", "slow", &[])]);
    plan.limits.max_items = Some(5);
    let state = bench.run("r", &plan).await;
    let error = state.step("slow").unwrap().error.clone().unwrap();
    assert_eq!(error.kind, ErrorKind::Limit);
    assert_eq!(bench.world.count("batch 4") + bench.world.count("batch 5"), 1);
    let state = ended(bench.drive("r", Purpose::Resume).await.unwrap());
    assert_eq!(state.step("slow").unwrap().error.clone().unwrap().kind, ErrorKind::Limit);
    let batches = bench.world.done.lock().unwrap().iter().filter(|one| one.starts_with("batch")).count();
    assert_eq!(batches, 5, "a resume does not widen the budget");
}

#[tokio::test]
async fn an_interrupted_step_that_may_not_be_repeated_is_never_repeated_unasked() {
    let bench = Bench::new();
    let mut slow = step("slow", "slow", &[]);
    slow.effect.repeat = Repeat::Once;
    bench.create("r", &plan(vec![slow])).await;
    let first =
        tokio::time::timeout(StdDuration::from_millis(200), bench.driver().drive("r", Purpose::GoOn)).await;
    assert!(first.is_err(), "the process is gone in the middle");
    // Its lease is still alive, so nobody else may enter.
    let busy = bench.drive("r", Purpose::GoOn).await;
    assert!(matches!(busy, Err(DriveError::Store(StoreError::Busy { .. }))), "{busy:?}");
    let later = Duration::from_secs(3600).after(Timestamp::now());
    let epoch = bench.store.claim("r", "reaper", later, later).await.unwrap();
    bench.store.commit("r", Fence::Owner(epoch), vec![Write::Leave]).await.unwrap();
    let done = bench.world.count("slow");
    let Finish::Waiting(_, asking) = bench.drive("r", Purpose::GoOn).await.unwrap() else {
        panic!("it asks")
    };
    assert_eq!((asking, bench.world.count("slow")), (vec!["slow".to_owned()], done));
}
