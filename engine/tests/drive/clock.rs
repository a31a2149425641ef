//! The clock of the machine is set back an hour, and forth, while a run goes on.

use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use jiff::{SignedDuration, Timestamp};
use runbook_engine::drive::{Clock, Finish, Purpose};
use runbook_engine::duration::Duration;
use runbook_engine::error::ErrorKind;
use runbook_engine::plan::Plan;
use runbook_engine::state::{RunState, RunStatus, StepStatus};
use serde_json::json;

use crate::bench::*;

const HOUR: StdDuration = StdDuration::from_secs(3600);

/// A bench whose clock can be set back.
fn bench() -> Bench {
    let bench = Bench::new();
    *bench.clock.0.lock().unwrap() = 2 * HOUR;
    bench
}

/// Sets the clock back an hour once this has happened in the world.
fn set_back(bench: &Bench, when: &'static str) {
    let (world, clock) = (Arc::clone(&bench.world), Arc::clone(&bench.clock));
    tokio::spawn(async move {
        while world.count(when) == 0 {
            tokio::time::sleep(StdDuration::from_millis(2)).await;
        }
        *clock.0.lock().unwrap() = HOUR;
    });
}

async fn run(bench: &Bench, plan: &Plan) -> (RunState, StdDuration) {
    let begun = Instant::now();
    let state = bench.run("r", plan).await;
    (state, begun.elapsed())
}

#[tokio::test]
async fn a_retry_waits_its_delay_and_no_hour() {
    let bench = bench();
    let mut flaky = step("flaky", "flaky", &[]);
    flaky.retry.delay = Duration::from_millis(300);
    flaky.retry.jitter = 0.0;
    flaky.retry.backoff = runbook_engine::plan::Backoff::Constant;
    set_back(&bench, "flaky");
    let (state, took) = run(&bench, &plan(vec![flaky])).await;
    assert_eq!((state.status, bench.world.count("flaky")), (RunStatus::Succeeded, 3));
    assert!((600..5000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn a_retry_of_a_dead_process_waits_its_delay_and_no_hour() {
    let bench = bench();
    let mut flaky = step("flaky", "flaky", &[]);
    flaky.retry.delay = Duration::from_millis(1500);
    flaky.retry.jitter = 0.0;
    bench.create("r", &plan(vec![flaky])).await;
    let dies =
        tokio::time::timeout(StdDuration::from_millis(300), bench.driver().drive("r", Purpose::GoOn)).await;
    assert!(dies.is_err() && bench.world.count("flaky") == 1);
    bench.die("r").await;
    *bench.clock.0.lock().unwrap() = HOUR;
    let begun = Instant::now();
    let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
    assert_eq!((state.status, bench.world.count("flaky")), (RunStatus::Succeeded, 3));
    assert!((1000..20_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_freeze_is_not_held_longer_than_it_may() {
    let bench = bench();
    let mut freeze = step("freeze", "freeze", &[]);
    freeze.with = json!({ "max_hold_ms": 800 });
    set_back(&bench, "batch 3");
    let (state, took) = run(&bench, &plan(vec![freeze, step("slow", "slow", &["freeze"])])).await;
    assert_eq!((state.status, status(&state, "slow")), (RunStatus::Failed, StepStatus::Interrupted));
    assert_eq!(bench.world.value(), "25");
    assert!((800..3000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn neither_a_run_nor_a_step_takes_longer_than_it_may() {
    for of_the_run in [true, false] {
        let bench = bench();
        let mut slow = step("slow", "slow", &[]);
        let longest = Some(Duration::from_millis(800));
        let mut plan = plan(Vec::new());
        if of_the_run {
            plan.limits.max_duration = longest;
        } else {
            slow.limits.max_duration = longest;
        }
        plan.steps = vec![slow];
        set_back(&bench, "batch 3");
        let (state, took) = run(&bench, &plan).await;
        let error = state.error.clone().or_else(|| state.step("slow").unwrap().error.clone()).unwrap();
        assert_eq!((state.status, error.kind), (RunStatus::Failed, ErrorKind::Limit), "{of_the_run}");
        assert!((800..3000).contains(&took.as_millis()), "{took:?}");
    }
}

#[tokio::test]
async fn a_lease_follows_the_clock_back_and_forth_and_no_event_is_before_another() {
    let bench = bench();
    let mut slow = step("slow", "slow", &[]);
    slow.with = json!({ "batches": 320 });
    bench.create("r", &plan(vec![slow])).await;
    set_back(&bench, "batch 3");
    let (store, clock, world) =
        (Arc::clone(&bench.store), Arc::clone(&bench.clock), Arc::clone(&bench.world));
    let watch = tokio::spawn(async move {
        let lease = async || {
            let row = store.run("r").await.unwrap().unwrap();
            row.lease_until.unwrap().duration_since(clock.now())
        };
        while world.count("batch 10") == 0 {
            tokio::time::sleep(StdDuration::from_millis(5)).await;
        }
        let before = lease().await;
        // Longer than a lease waits to be extended.
        tokio::time::sleep(StdDuration::from_millis(5600)).await;
        let after = lease().await;
        *clock.0.lock().unwrap() = 4 * HOUR;
        tokio::time::sleep(StdDuration::from_millis(700)).await;
        (before, after, lease().await)
    });
    let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
    assert_eq!(state.status, RunStatus::Succeeded);
    let (before, after, forth) = watch.await.unwrap();
    let most = SignedDuration::from_secs(16);
    assert!(before > most, "the clock was set back");
    assert!(after < most && after.is_positive(), "whoever comes after a crash waits no hour: {after}");
    assert!(forth < most && forth.is_positive(), "it is extended at once: {forth}");
    let times: Vec<Timestamp> =
        bench.store.events("r", 0).await.unwrap().iter().skip(1).map(|event| event.at).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn a_run_that_waits_for_a_person_goes_on_under_an_earlier_clock() {
    let bench = bench();
    let steps = vec![
        step("freeze", "freeze", &[]),
        step("ask", "ask", &["freeze"]),
        step("purge", "purge", &["ask"]),
    ];
    let mut plan = plan(steps);
    plan.steps[2].with = json!({ "batches": 3 });
    bench.create("r", &plan).await;
    let Finish::Waiting(state, _) = bench.drive("r", Purpose::GoOn).await.unwrap() else { panic!("it asks") };
    *bench.clock.0.lock().unwrap() = HOUR;
    answer(&*bench.store, &state, "ask", "YES").await;
    let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
    assert_eq!((state.status, bench.world.count("batch 2")), (RunStatus::Succeeded, 1));
    assert_eq!(bench.world.value(), "25");
}
