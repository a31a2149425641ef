//! The loop with a scripted world: what it records, what it starts, and what it never leaves behind.

mod bench;
mod clock;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/driver.rs"]
mod driver;
mod freeze;
mod prompt;

use std::sync::Arc;
use std::time::Duration as StdDuration;

use jiff::Timestamp;
use runbook_engine::drive::{DriveError, Driver, Finish, Halt, Purpose};
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, Outcome};
use runbook_engine::event::EventKind;
use runbook_engine::kinds::{Effect, Repeat};
use runbook_engine::redact::Redactor;
use runbook_engine::state::{RunStatus, StepStatus};
use runbook_engine::store::{Fence, StoreError, Write};

use crate::bench::*;

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
async fn what_only_reads_has_no_unknown_outcome() {
    let bench = Bench::new();
    let mut look = step("a", "once", &[]);
    look.effect = Effect::READ;
    look.retry.max_attempts = 1;
    let state = bench.run("r", &plan(vec![look])).await;
    assert_eq!(state.step("a").unwrap().error.as_ref().unwrap().outcome, Outcome::Failed);
    assert_eq!(state.status, RunStatus::Failed, "nobody is asked");
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
async fn a_panic_in_a_step_is_a_failure_of_that_step() {
    let bench = Bench::new();
    let state = bench.run("r", &plan(vec![step("a", "panic", &[])])).await;
    assert_eq!(state.step("a").unwrap().error.as_ref().unwrap().kind, ErrorKind::Bug);
    assert_eq!(state.status, RunStatus::Failed);
}

#[tokio::test]
async fn a_panic_that_holds_a_secret_is_recorded_without_it() {
    let bench = Bench::new();
    bench.create("r", &plan(vec![step("a", "panic", &[])])).await;
    let redactor = Redactor::new(["step panics".to_owned()]);
    let driver = Driver { redactor, ..bench.driver() };
    let state = ended(driver.drive("r", Purpose::GoOn).await.unwrap());
    let error = state.step("a").unwrap().error.clone().unwrap();
    assert!(error.causes.iter().any(|cause| cause.contains("panicked with message")), "{error:?}");
    let events = serde_json::to_string(&bench.store.events("r", 0).await.unwrap()).unwrap();
    assert!(!events.contains("step panics") && events.contains("a [REDACTED]"), "{events}");
}

#[tokio::test]
async fn what_an_error_says_and_advises_is_recorded_without_secrets() {
    let bench = Bench::new();
    let mut confides = step("a", "confides", &[]);
    confides.retry.max_attempts = 1;
    bench.create("r", &plan(vec![confides])).await;
    let driver = Driver { redactor: Redactor::new(["hunter2".to_owned()]), ..bench.driver() };
    let state = ended(driver.drive("r", Purpose::GoOn).await.unwrap());
    let error = state.step("a").unwrap().error.clone().unwrap();
    assert_eq!(
        (error.message.as_str(), error.help.as_deref()),
        ("it is not [REDACTED]", Some("type [REDACTED] instead"))
    );
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
