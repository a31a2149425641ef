//! What is frozen is put back, and nothing is destroyed on a freeze that does not hold.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use runbook_engine::drive::{DriveError, Finish, Purpose};
use runbook_engine::event::{Closed, Question};
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::plan::{OnFailure, Plan, PlannedStep};
use runbook_engine::state::{ObligationPhase, RunStatus, StepStatus};
use runbook_engine::store::StoreError;
use serde_json::json;

use crate::bench::*;
use crate::common::new_run;

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
async fn a_failed_run_keeps_its_lock_key_as_long_as_it_holds_anything() {
    let bench = Bench::new();
    let mut gate = step("gate", "gate", &[]);
    gate.retry.max_attempts = 1;
    let free = Plan { lock: Some("key".to_owned()), ..plan(vec![gate.clone()]) };
    assert_eq!(bench.run("nothing held", &free).await.status, RunStatus::Failed);
    gate.needs = vec!["freeze".to_owned()];
    let holds = Plan { lock: free.lock.clone(), ..plan(vec![step("freeze", "freeze", &[]), gate]) };
    assert_eq!(bench.run("r", &holds).await.status, RunStatus::Failed);
    let refused = bench.store.create(new_run("next", &free)).await;
    assert_eq!(refused, Err(StoreError::Locked { key: "key".to_owned(), run: "r".to_owned() }));
    ended(bench.drive("r", Purpose::Cancel("me".to_owned())).await.unwrap());
    assert_eq!(bench.run("next", &free).await.status, RunStatus::Failed);
}

#[tokio::test]
async fn somebody_elses_value_is_left_alone_and_said() {
    let bench = failed_and_holding().await;
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
async fn a_run_whose_last_step_outlived_the_freeze_has_failed() {
    for (freeze_ms, last_ms, thaws, status) in [
        (300, 600, false, RunStatus::Failed),
        (60_000, 10, false, RunStatus::Succeeded),
        (300, 10, true, RunStatus::Succeeded),
    ] {
        let bench = Bench::new();
        let mut freeze = step("freeze", "freeze", &[]);
        freeze.with = json!({ "max_hold_ms": freeze_ms });
        let mut steps = vec![freeze, step("last", "deaf", &["freeze"])];
        steps[1].with = json!({ "ms": last_ms });
        if thaws {
            // What comes after the freeze was let go of in time stands on nothing.
            let mut later = step("later", "deaf", &["thaw"]);
            later.with = json!({ "ms": 500 });
            steps.extend([step("thaw", "unfreeze", &["last"]), later]);
        }
        let state = bench.run("r", &plan(steps)).await;
        assert_eq!((state.status, bench.world.value().as_str()), (status, "25"), "{freeze_ms} {last_ms}");
        // The step itself did what it does.
        assert_eq!(state.step("last").unwrap().status, StepStatus::Succeeded);
        assert!(bench.store.obligations().await.unwrap().is_empty());
        if status == RunStatus::Failed {
            let error = state.error.clone().unwrap();
            assert!(error.message.contains("was not held until the run was done with it"), "{error}");
            assert!(error.message.contains("max_hold"), "{error}");
            // To resume freezes again, and does again what stood on it.
            let again = ended(bench.drive("r", Purpose::Resume).await.unwrap());
            assert_eq!(again.status, RunStatus::Failed, "it is as slow as before");
            assert_eq!((bench.world.count("freeze"), bench.world.count("last")), (2, 2));
        }
    }
}

#[tokio::test]
async fn whatever_was_put_back_at_the_end_is_frozen_again_for_what_stands_on_it() {
    let bench = Bench::new();
    let mut work = step("work", "deaf", &["short", "long"]);
    work.with = json!({ "ms": 500 });
    let steps = vec![
        frozen("short", &[], 200),
        frozen("long", &[], 60_000),
        work,
        step("purge", "purge", &["work"]),
        frozen("apart", &[], 60_000),
    ];
    let state = bench.run("r", &plan(steps)).await;
    // One freeze is lost, so the run that can not go on holds none of them.
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Failed, "25"));
    assert!(state.open_obligations().next().is_none());
    let again = ended(bench.drive("r", Purpose::Resume).await.unwrap());
    assert_eq!((again.status, bench.world.count("purge")), (RunStatus::Failed, 0), "it is as slow as before");
    let frozen = ["short", "long", "apart"].map(|id| bench.world.count(id));
    assert_eq!(frozen, [2, 2, 1], "what nothing more stands on stays as it is");
}

#[tokio::test]
async fn a_run_that_was_cancelled_and_holds_on_is_only_ended_by_a_resume() {
    let bench = failed_and_holding().await;
    bench.world.set("stuck");
    let state = ended(bench.drive("r", Purpose::Cancel("me".to_owned())).await.unwrap());
    assert_eq!(state.status, RunStatus::Failed);
    bench.world.set("0");
    let state = ended(bench.drive("r", Purpose::Resume).await.unwrap());
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Cancelled, "25"));
    assert_eq!(["freeze", "gate"].map(|id| bench.world.count(id)), [1, 1]);
    assert_eq!(status(&state, "freeze"), StepStatus::Succeeded, "what was done is told as done");
}

/// A run `r` that failed after its freeze, and holds it.
async fn failed_and_holding() -> Bench {
    let bench = Bench::new();
    let mut gate = step("gate", "gate", &["freeze"]);
    gate.retry.max_attempts = 1;
    bench.run("r", &plan(vec![step("freeze", "freeze", &[]), gate])).await;
    bench
}

/// A freeze of its own target, held at most for so long.
fn frozen(id: &str, needs: &[&str], max_hold_ms: u64) -> PlannedStep {
    let mut freeze = step(id, "freeze", needs);
    freeze.with = json!({ "target": id, "original": "25", "max_hold_ms": max_hold_ms });
    freeze
}

fn thaws(id: &str, freeze: &str, needs: &[&str]) -> PlannedStep {
    let mut thaw = step(id, "unfreeze", needs);
    thaw.with = json!({ "freeze": freeze });
    thaw
}

#[tokio::test]
async fn a_step_that_runs_once_more_after_its_freeze_was_lifted_runs_on_a_new_one() {
    let bench = Bench::new();
    let mut purge = step("purge", "gate", &["freeze"]);
    (purge.effect, purge.on_failure, purge.retry.max_attempts) = (Effect::DESTROY, OnFailure::Continue, 1);
    let mut later = step("later", "gate", &["thaw"]);
    later.retry.max_attempts = 1;
    let steps = vec![frozen("freeze", &[], 60_000), purge, thaws("thaw", "freeze", &["purge"]), later];
    let state = bench.run("r", &plan(steps)).await;
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Failed, "25"));
    let again = ended(bench.drive("r", Purpose::Resume).await.unwrap());
    assert_eq!(again.status, RunStatus::Succeeded);
    let done = bench.world.done.lock().unwrap().clone();
    assert_eq!(["freeze", "purge", "thaw", "later"].map(|id| bench.world.count(id)), [2; 4], "{done:?}");
    let last = |id: &str| done.iter().rposition(|one| one == id);
    assert!(last("freeze") < last("purge") && last("purge") < last("thaw"), "{done:?}");
}

#[tokio::test]
async fn what_succeeded_and_may_not_be_repeated_is_done_again_only_when_a_person_says_so() {
    for (text, pays) in [("done", 1), ("retry", 2)] {
        let bench = Bench::new();
        let mut pay = step("pay", "anything", &["freeze"]);
        pay.effect.repeat = Repeat::Once;
        let mut purge = step("purge", "gate", &["pay"]);
        (purge.effect, purge.on_failure, purge.retry.max_attempts) =
            (Effect::DESTROY, OnFailure::Continue, 1);
        let mut later = step("later", "gate", &["thaw"]);
        later.retry.max_attempts = 1;
        let steps =
            vec![frozen("freeze", &[], 60_000), pay, purge, thaws("thaw", "freeze", &["purge"]), later];
        assert_eq!(bench.run("r", &plan(steps)).await.status, RunStatus::Failed);
        let asks = |finish: Finish| {
            let Finish::Waiting(state, _) = finish else { panic!("it asks, and does not {finish:?}") };
            let pay = state.step("pay").unwrap();
            assert_eq!((pay.status, bench.world.count("pay")), (StepStatus::Asking, 1));
            let question = pay.question.clone().unwrap();
            assert!(matches!(question, Question::Settle { succeeded: true, .. }), "{question:?}");
            state
        };
        let state = asks(bench.drive("r", Purpose::Resume).await.unwrap());
        assert_eq!(bench.world.value(), "0", "it is frozen before anybody is asked");
        answer(&*bench.store, &state, "pay", "abort").await;
        let aborted = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
        assert_eq!(aborted.status, RunStatus::Failed);
        let state = asks(bench.drive("r", Purpose::Resume).await.unwrap());
        answer(&*bench.store, &state, "pay", text).await;
        let end = ended(bench.drive("r", Purpose::Resume).await.unwrap());
        assert_eq!((end.status, bench.world.count("pay")), (RunStatus::Succeeded, pays), "{text}: {end:?}");
        assert_eq!(end.step("pay").unwrap().outputs(), Some(&json!({ "step": "pay" })), "{text}");
        assert_eq!(["freeze", "purge", "thaw"].map(|id| bench.world.count(id)), [2; 3]);
    }
}

#[tokio::test]
async fn what_one_freeze_lost_is_not_done_again_on_half_of_the_others() {
    let bench = Bench::new();
    let mut slow = step("slow", "deaf", &["thaw"]);
    slow.with = json!({ "ms": 600 });
    let steps = vec![
        frozen("first", &[], 60_000),
        frozen("second", &[], 300),
        step("purge", "anything", &["first", "second"]),
        thaws("thaw", "first", &["purge"]),
        slow,
        step("last", "anything", &["slow"]),
    ];
    assert_eq!(bench.run("r", &plan(steps)).await.status, RunStatus::Failed);
    bench.drive("r", Purpose::Resume).await.unwrap();
    let counts = ["first", "second", "purge", "thaw", "last"].map(|id| bench.world.count(id));
    assert_eq!(counts, [2, 2, 2, 2, 0]);
}

#[tokio::test]
async fn what_destroys_is_stopped_before_its_freeze_is_lifted_in_time() {
    let bench = Bench::new();
    let mut purge = step("purge", "purge", &["freeze"]);
    purge.with = json!({ "batches": 50, "ms": 200 });
    let state = bench.run("r", &plan(vec![frozen("freeze", &[], 300), purge])).await;
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Failed, "25"));
    let done = bench.world.done.lock().unwrap().clone();
    let last = done.iter().rposition(|one| one.starts_with("batch")).unwrap();
    let released = done.iter().position(|one| one.starts_with("release")).unwrap();
    assert!(last < released, "{done:?}");
}

#[tokio::test]
async fn what_is_frozen_at_the_end_is_not_put_back_while_that_is_done() {
    let bench = Bench::new();
    let mut late = plan(vec![step("work", "anything", &[])]);
    late.finally.insert(0, frozen("freeze", &[], 60_000));
    let state = bench.run("r", &late).await;
    assert_eq!((state.status, bench.world.value().as_str()), (RunStatus::Succeeded, "25"));
    assert_eq!((bench.world.count("release of Applied"), bench.world.count("release of Opened")), (1, 0));
}

#[tokio::test]
async fn a_question_about_an_outcome_outlives_the_freeze_and_so_does_its_answer() {
    for (text, pays) in [("done", 1), ("retry", 2)] {
        for answered_first in [false, true] {
            let bench = Bench::new();
            let mut pay = step("pay", "once", &["freeze"]);
            pay.effect = Effect { class: Class::Destroy, repeat: Repeat::Once };
            bench.create("r", &plan(vec![frozen("freeze", &[], 300), pay])).await;
            let Finish::Waiting(state, _) = bench.drive("r", Purpose::GoOn).await.unwrap() else {
                panic!("it asks")
            };
            tokio::time::sleep(StdDuration::from_millis(400)).await;
            let asks = |finish: Finish| match finish {
                Finish::Waiting(state, _) | Finish::Ended(state) => state,
                other => panic!("{other:?}"),
            };
            let mut now = state;
            if answered_first {
                answer(&*bench.store, &now, "pay", text).await;
                bench.drive("r", Purpose::GoOn).await.unwrap();
                assert_eq!(bench.world.count("pay"), 1, "the freeze is lost");
            } else {
                bench.drive("r", Purpose::GoOn).await.unwrap();
                now = asks(bench.drive("r", Purpose::Resume).await.unwrap());
                assert_eq!(status(&now, "pay"), StepStatus::Asking);
                answer(&*bench.store, &now, "pay", text).await;
            }
            let end = ended(bench.drive("r", Purpose::Resume).await.unwrap());
            assert_eq!(end.status, RunStatus::Succeeded, "{text} {answered_first}: {end:?}");
            assert_eq!((bench.world.count("pay"), bench.world.count("freeze")), (pays, 2), "{text}");
        }
    }
}

#[tokio::test]
async fn what_was_never_changed_stays_so_through_every_try_to_release_it() {
    for (fails_at_once, first, later) in [(true, "Opened", "Opened"), (false, "Applied", "Releasing")] {
        let bench = Bench::new();
        let mut freeze = step("freeze", "freeze", &[]);
        freeze.with = json!({ "fails_at_once": fails_at_once });
        freeze.retry.max_attempts = 1;
        let plan = plan(vec![freeze, step("ask", "ask", &["freeze"])]);
        bench.create("r", &plan).await;
        bench.world.set(if fails_at_once { "stuck" } else { "25" });
        bench.drive("r", Purpose::GoOn).await.unwrap();
        // One process can not release it; the next one needs a second try.
        bench.world.set("stuck");
        bench.drive("r", Purpose::Cancel("me".to_owned())).await.unwrap();
        bench.world.set("busy");
        bench.drive("r", Purpose::Cancel("me".to_owned())).await.unwrap();
        let begun = bench.world.count(&format!("release of {first}"));
        let again = bench.world.count(&format!("release of {later}"));
        let all = bench.world.done.lock().unwrap().clone();
        assert!(begun > 0 && again >= 2, "{all:?}");
        assert!(fails_at_once || begun == 1, "{all:?}");
        let other = if fails_at_once { "release of Releasing" } else { "release of Opened" };
        assert_eq!(bench.world.count(other), 0, "{all:?}");
    }
}

fn frozen_purge(batches: u64) -> Plan {
    let mut purge = step("purge", "purge", &["ask"]);
    purge.with = json!({ "batches": batches });
    plan(vec![step("freeze", "freeze", &[]), step("ask", "ask", &["freeze"]), purge])
}

#[tokio::test]
async fn a_freeze_that_somebody_undid_while_the_run_waited_stops_it_before_anything_is_destroyed() {
    for (present, back) in [("25", "25"), ("50", "50")] {
        let bench = Bench::new();
        bench.create("r", &frozen_purge(1)).await;
        let Finish::Waiting(state, _) = bench.drive("r", Purpose::GoOn).await.unwrap() else {
            panic!("it asks")
        };
        bench.world.set(present);
        answer(&*bench.store, &state, "ask", "YES").await;
        let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
        assert_eq!((state.status, bench.world.count("purge")), (RunStatus::Failed, 0));
        let error = state.step("purge").unwrap().error.clone().unwrap();
        assert!(error.message.starts_with("not begun: somebody"), "{error}");
        assert_eq!(bench.world.value(), back);
        assert!(state.obligations.values().all(|one| one.lost.is_some() && !one.is_open()));
        // An explicit resume freezes anew and asks anew.
        bench.world.set("25");
        let finish = bench.drive("r", Purpose::Resume).await.unwrap();
        let Finish::Waiting(state, _) = finish else { panic!("it asks anew: {finish:?}") };
        assert_eq!((bench.world.count("freeze"), bench.world.count("purge")), (2, 0));
        answer(&*bench.store, &state, "ask", "YES").await;
        let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
        assert_eq!((state.status, bench.world.count("purge")), (RunStatus::Succeeded, 1));
    }
}

#[tokio::test]
async fn a_freeze_is_looked_at_while_a_step_destroys() {
    let bench = Bench::new();
    bench.create("r", &frozen_purge(200)).await;
    let Finish::Waiting(state, _) = bench.drive("r", Purpose::GoOn).await.unwrap() else { panic!("it asks") };
    answer(&*bench.store, &state, "ask", "YES").await;
    let (world, clock) = (Arc::clone(&bench.world), Arc::clone(&bench.clock));
    tokio::spawn(async move {
        while world.count("batch 3") == 0 {
            tokio::time::sleep(StdDuration::from_millis(5)).await;
        }
        world.set("25");
        *clock.0.lock().unwrap() += StdDuration::from_secs(31);
    });
    let state = ended(bench.drive("r", Purpose::GoOn).await.unwrap());
    assert_eq!((state.status, bench.world.count("look")), (RunStatus::Failed, 2));
    assert!(bench.world.count("batch 199") == 0, "it stopped on the way");
    assert_eq!(status(&state, "purge"), StepStatus::Interrupted);
    assert!(state.error.unwrap().message.contains("not held until the run was done with it"));
}

#[tokio::test]
async fn a_person_may_put_back_by_hand_what_the_run_can_not() {
    let bench = failed_and_holding().await;
    bench.world.set("stuck");
    let state = ended(bench.drive("r", Purpose::Cancel("me".to_owned())).await.unwrap());
    assert_eq!(state.status, RunStatus::Failed, "it can not be put back");
    let (id, one) = state.open_obligations().next().unwrap();
    assert!(one.stuck.as_ref().unwrap().message.contains("restart"), "{one:?}");
    let by_hand = || Purpose::ByHand { obligation: id.to_owned(), by: "me".to_owned(), abandon: false };
    let refused = bench.drive("r", by_hand()).await;
    assert!(matches!(&refused, Err(DriveError::Refused(why)) if why.contains("still has")), "{refused:?}");
    assert_eq!(bench.store.obligations().await.unwrap().len(), 1);
    bench.world.set("25");
    let state = ended(bench.drive("r", by_hand()).await.unwrap());
    assert_eq!(state.status, RunStatus::Cancelled, "the cancelling goes on");
    let how = Closed::ByHand { by: "me".to_owned(), other: None };
    assert_eq!(state.obligations[id].phase, ObligationPhase::Closed(how));
    assert!(bench.store.obligations().await.unwrap().is_empty());
}
