//! `freeze` by requests to a server that does not say plainly what became of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use runbook_engine::drive::{DriveError, Purpose};
use runbook_engine::error::ErrorKind;
use runbook_engine::plan::PlannedStep;
use runbook_engine::state::{ObligationPhase, RunState, RunStatus};
use runbook_engine::store::Store;
use serde_json::{Value, json};

use crate::driven::{Driven, error, step};
use crate::server::Server;

/// What the server does about the next request that changes its value: what it answers, and when it acts.
type Next = (StatusCode, Duration);

struct Setting {
    value: Mutex<Value>,
    next: Mutex<Vec<Next>>,
    asked: Mutex<usize>,
}

async fn set(State(setting): State<Arc<Setting>>, Json(body): Json<Value>) -> StatusCode {
    *setting.asked.lock().unwrap() += 1;
    let next = setting.next.lock().unwrap().pop();
    let (status, later) = next.unwrap_or((StatusCode::NO_CONTENT, Duration::ZERO));
    let act = async move {
        tokio::time::sleep(later).await;
        *setting.value.lock().unwrap() = body["max"].clone();
    };
    if later.is_zero() {
        act.await;
    } else {
        drop(tokio::spawn(act));
    }
    status
}

async fn read(State(setting): State<Arc<Setting>>) -> Json<Value> {
    Json(json!({"max": setting.value.lock().unwrap().clone()}))
}

struct Bench {
    setting: Arc<Setting>,
    driven: Driven,
    _server: Server,
}

impl Bench {
    async fn new(next: &[Next]) -> Self {
        let next = next.iter().rev().copied().collect::<Vec<_>>().into();
        let setting = Arc::new(Setting { value: json!(25).into(), next, asked: Mutex::default() });
        let server =
            Server::start(Router::new().route("/", get(read).put(set)).with_state(setting.clone())).await;
        let connection = json!({"type": "http", "url": server.url, "timeout": "300ms"});
        Self { setting, driven: Driven::new(&json!({"api": connection}), &json!({})), _server: server }
    }

    fn value(&self) -> Value {
        self.setting.value.lock().unwrap().clone()
    }
}

fn freeze(release: &Value, settle: &str) -> PlannedStep {
    let way = json!({
        "connection": "api",
        "target": "limit",
        "read": {"path": "/", "field": "/max"},
        "apply": {"path": "/", "json": {"max": "$VALUE"}},
        "release": {"path": "/", "json": release},
        "value": 0,
    });
    step("freeze", "freeze", json!({"http": way, "settle": settle}))
}

fn original() -> Value {
    json!({"max": "$ORIGINAL"})
}

fn only(state: &RunState) -> (&str, &ObligationPhase) {
    let (id, one) = state.obligations.iter().next().unwrap();
    (id, &one.phase)
}

#[tokio::test]
async fn what_a_busy_server_does_later_is_waited_out() {
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::REQUEST_TIMEOUT] {
        let bench = Bench::new(&[(status, Duration::from_secs(2))]).await;
        let mut twice = freeze(&original(), "4s");
        twice.retry.max_attempts = 2;
        twice.retry.delay = "10ms".parse().unwrap();
        let thaw = PlannedStep {
            needs: vec!["freeze".to_owned()],
            ..step("thaw", "unfreeze", json!({"freeze": "freeze"}))
        };
        let state = bench.driven.run("r", vec![twice, thaw]).await;
        assert_eq!((state.status, bench.value()), (RunStatus::Succeeded, json!(25)), "{status}");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(bench.value(), 25, "{status}: it came when the freeze was said to be lifted");
    }
}

#[tokio::test]
async fn what_was_taken_and_not_seen_yet_is_waited_out_after_a_crash() {
    let bench = Bench::new(&[(StatusCode::ACCEPTED, Duration::from_secs(2))]).await;
    bench.driven.create("r", vec![freeze(&original(), "4s")]).await;
    let begun = std::time::Instant::now();
    let some_time =
        || *bench.setting.asked.lock().unwrap() == 1 && begun.elapsed() > Duration::from_millis(600);
    bench.driven.crash("r", Purpose::GoOn, some_time).await;
    let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!((state.status, bench.value()), (RunStatus::Cancelled, json!(25)));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(bench.value(), 25, "it came when the freeze was said to be lifted");
}

#[tokio::test]
async fn a_person_can_not_say_that_it_is_back_while_a_change_may_come() {
    let bench = Bench::new(&[(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(2))]).await;
    let state = bench.driven.run("r", vec![freeze(&original(), "3s")]).await;
    assert_eq!(error(&state, "freeze").kind, ErrorKind::Transient);
    let hand =
        |abandon| Purpose::ByHand { obligation: only(&state).0.to_owned(), by: "ada".to_owned(), abandon };
    match bench.driven.drive("r", hand(false)).await {
        Err(DriveError::Refused(why)) => assert!(why.contains("may still come"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.driven.store.obligations().await.unwrap().len(), 1);
    // When it has come, it is there, and is put back; and nothing is left to come.
    let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!((state.status, bench.value()), (RunStatus::Cancelled, json!(25)));
}

#[tokio::test]
async fn a_value_that_the_run_may_have_made_itself_is_not_said_to_be_somebody_elses() {
    let bench = Bench::new(&[]).await;
    let frozen = freeze(&json!({"max": 30}), "300ms");
    let thaw = PlannedStep {
        needs: vec!["freeze".to_owned()],
        ..step("thaw", "unfreeze", json!({"freeze": "freeze"}))
    };
    let state = bench.driven.run("r", vec![frozen, thaw]).await;
    assert_eq!((state.status, bench.value()), (RunStatus::Failed, json!(30)));
    assert_eq!(*only(&state).1, ObligationPhase::Releasing, "it is held on");
    let failed = error(&state, "thaw").to_string();
    assert!(failed.contains("reads 30") && !failed.contains("somebody else to"), "{failed}");
    assert_eq!(bench.driven.store.obligations().await.unwrap().len(), 1);

    // A person puts it right, and says so.
    *bench.setting.value.lock().unwrap() = json!(25);
    let hand =
        Purpose::ByHand { obligation: only(&state).0.to_owned(), by: "ada".to_owned(), abandon: false };
    bench.driven.drive("r", hand).await.unwrap();
    assert_eq!(bench.driven.store.obligations().await.unwrap(), []);
}

#[tokio::test]
async fn a_name_that_would_be_sent_as_it_is_written_is_refused_before_anything_is_changed() {
    for release in [json!({"max": "was $ORIGINAL"}), json!({"$VALUE": 1}), json!([["x", "max=$ORIGINAL"]])] {
        let bench = Bench::new(&[]).await;
        let state = bench.driven.run("r", vec![freeze(&release, "1s")]).await;
        let failed = error(&state, "freeze");
        assert!(failed.kind == ErrorKind::Invalid && failed.message.contains("as it is written"), "{failed}");
        assert_eq!((bench.value(), *bench.setting.asked.lock().unwrap()), (json!(25), 0));
    }
}

#[tokio::test]
async fn a_number_that_could_not_be_put_back_as_it_is_is_refused_before_anything_is_changed() {
    let large = get(|| async { r#"{"max": 9007199254740993.5}"# });
    let changed = Arc::new(Mutex::new(0));
    let counted = changed.clone();
    let put = large.put(move || async move { *counted.lock().unwrap() += 1 });
    let server = Server::start(Router::new().route("/", put)).await;
    let driven = Driven::new(&json!({"api": {"type": "http", "url": server.url}}), &json!({}));
    let state = driven.run("r", vec![freeze(&original(), "1s")]).await;
    let failed = error(&state, "freeze");
    assert!(failed.message.contains("the number 9007199254740993.5"), "{failed}");
    assert_eq!(driven.store.obligations().await.unwrap(), []);
    assert_eq!(*changed.lock().unwrap(), 0);
}

#[tokio::test]
async fn one_name_is_frozen_once_whatever_address_it_has_and_a_scope_tells_values_apart() {
    let bench = Bench::new(&[]).await;
    let first = freeze(&original(), "4s");
    let changed = |member: &str, value: Value| {
        let mut second = PlannedStep { id: "second".to_owned(), ..freeze(&original(), "4s") };
        second.with["http"]["value"] = json!(1);
        second.with["http"][member] = value;
        second
    };
    // Another address of the same server.
    let other = changed("read", json!({"path": "/?spelled=otherwise", "field": "/max"}));
    let state = bench.driven.run("r", vec![first.clone(), other]).await;
    assert_eq!(error(&state, "second").kind, ErrorKind::Busy);
    bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!(bench.value(), 25);

    let mut other = changed("scope", json!("another tenant"));
    other.with["http"]["target"] = json!("limit of another tenant");
    let state = bench.driven.run("s", vec![first, other]).await;
    assert!(state.obligations.len() == 2, "{:?}", error(&state, "second"));
}

#[tokio::test]
async fn one_value_is_frozen_once_whatever_it_is_called() {
    let bench = Bench::new(&[]).await;
    let first = freeze(&original(), "4s");
    let mut second = PlannedStep { id: "second".to_owned(), ..freeze(&original(), "4s") };
    second.with["http"]["target"] = json!("another name");
    // Another value than that of the first: it does not look as if it were frozen.
    second.with["http"]["value"] = json!(1);
    let state = bench.driven.run("r", vec![first, second]).await;
    let refused = error(&state, "second");
    assert!(refused.message.contains("already held by run r"), "{refused:?}");
    assert_eq!(bench.value(), 0);
    let held = bench.driven.store.obligations().await.unwrap();
    assert_eq!(held.len(), 1);
    assert!(held[0].obligation.target.ends_with("/#/max"), "{}", held[0].obligation.target);
    let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!((state.status, bench.value()), (RunStatus::Cancelled, json!(25)));
}
