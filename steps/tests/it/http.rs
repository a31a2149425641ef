//! `http`, against a real server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use runbook_engine::drive::{Finish, Purpose};
use runbook_engine::duration::Duration as Spell;
use runbook_engine::error::{ErrorKind, Outcome};
use runbook_engine::plan::{Limits, PlannedStep, Retry};
use runbook_engine::state::RunStatus;
use runbook_engine::store::Store;
use serde_json::{Value, json};

use crate::driven::{Driven, error, outputs, step};
use crate::server::Server;

#[derive(Default)]
struct Counts {
    /// How often the effect was had.
    effects: AtomicU32,
    /// How many requests came that are acted on late.
    taken: AtomicU32,
    /// How many answers get lost.
    lost: AtomicU32,
    /// What is answered instead, once.
    status: AtomicU32,
    /// How often whoever looks at the state is told to come later.
    busy: AtomicU32,
}

/// Acts late, whether anybody still waits for the answer or not.
async fn act_late(State(counts): State<Arc<Counts>>) -> Response {
    counts.taken.fetch_add(1, Ordering::SeqCst);
    let acted = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        counts.effects.fetch_add(1, Ordering::SeqCst);
    });
    acted.await.unwrap();
    StatusCode::CREATED.into_response()
}

/// Acts, and answers that it is broken, as a proxy does that did not wait.
async fn act_and_break(State(counts): State<Arc<Counts>>) -> StatusCode {
    counts.effects.fetch_add(1, Ordering::SeqCst);
    StatusCode::BAD_GATEWAY
}

async fn act(State(counts): State<Arc<Counts>>) -> Response {
    let status = counts.status.swap(0, Ordering::SeqCst);
    if status != 0 {
        return StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap().into_response();
    }
    counts.effects.fetch_add(1, Ordering::SeqCst);
    if counts.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    (StatusCode::CREATED, Json(json!({"id": 7}))).into_response()
}

async fn state(State(counts): State<Arc<Counts>>) -> Response {
    if counts.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({"effects": counts.effects.load(Ordering::SeqCst)})).into_response()
}

async fn echo(Query(query): Query<HashMap<String, String>>, headers: HeaderMap, body: String) -> Response {
    let of = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = json!({"query": query, "type": of("content-type"), "x": of("x-test"), "body": body});
    ([(header::ETAG, "\"abc\"")], Json(seen)).into_response()
}

struct Bench {
    driven: Driven,
    counts: Arc<Counts>,
    _server: Server,
}

impl Bench {
    async fn new() -> Self {
        Self::with_timeout("400ms").await
    }

    async fn with_timeout(timeout: &str) -> Self {
        let counts = Arc::new(Counts::default());
        let routes = Router::new()
            .route("/act", post(act).put(act))
            .route("/late", post(act_late))
            .route("/state", get(state))
            .route("/echo", get(echo).post(echo))
            .route("/broken", post(act_and_break))
            .route("/closed", get(|| async { StatusCode::UNAUTHORIZED }))
            .route("/away", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/echo")]) }))
            .with_state(counts.clone());
        let server = Server::start(routes).await;
        let connection = json!({"type": "http", "url": server.url, "timeout": timeout});
        Self { driven: Driven::new(&json!({"api": connection}), &json!({})), counts, _server: server }
    }

    fn effects(&self) -> u32 {
        self.counts.effects.load(Ordering::SeqCst)
    }
}

fn request(mut with: Value) -> PlannedStep {
    with["connection"] = json!("api");
    let retry = Retry { max_attempts: 3, delay: Spell::from_millis(1), ..Retry::default() };
    PlannedStep { retry, ..step("x", "http", with) }
}

#[tokio::test]
async fn queries_headers_and_bodies_arrive() {
    let bench = Bench::new().await;
    let with = json!({"path": "/echo", "query": {"q": "a&b=ü", "n": 5}, "headers": {"X-Test": "yes"}});
    let state = bench.driven.run("get", vec![request(with)]).await;
    let out = outputs(&state, "x");
    assert_eq!(out["status"], 200);
    assert_eq!(out["headers"]["etag"], "\"abc\"");
    assert_eq!((&out["json"]["query"], &out["json"]["x"]), (&json!({"q": "a&b=ü", "n": "5"}), &json!("yes")));
    for (body, kind, text) in [
        (json!({"json": {"a": [1]}}), "application/json", "{\"a\":[1]}"),
        (json!({"form": {"a": "1 &", "b": 2}}), "application/x-www-form-urlencoded", "a=1+%26&b=2"),
        (json!({"text": "hello"}), "text/plain; charset=utf-8", "hello"),
        (json!({"text": "a,b", "headers": {"content-type": "text/csv"}}), "text/csv", "a,b"),
    ] {
        let mut with = json!({"path": "/echo", "method": "POST"});
        with.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let state = bench.driven.run(text, vec![request(with)]).await;
        let out = &outputs(&state, "x")["json"];
        assert_eq!((&out["type"], &out["body"]), (&json!(kind), &json!(text)));
    }
}

#[tokio::test]
async fn the_answer_must_be_as_expected() {
    let bench = Bench::new().await;
    for (id, expect, kind) in [
        ("status", json!({"status": [204]}), Some(ErrorKind::Gate)),
        ("json", json!({"json": {"/effects": 1}}), Some(ErrorKind::Gate)),
        ("nothing there", json!({"json": {"/no": 1}}), Some(ErrorKind::Gate)),
        ("text", json!({"contains": "nothing"}), Some(ErrorKind::Gate)),
        ("all", json!({"status": [200], "json": {"/effects": 0}, "contains": "eff"}), None),
    ] {
        let state = bench.driven.run(id, vec![request(json!({"path": "/state", "expect": expect}))]).await;
        assert_eq!(state.step("x").unwrap().error.as_ref().map(|error| error.kind), kind, "{id}");
    }
    let state = bench.driven.run("404", vec![request(json!({"path": "/no"}))]).await;
    assert_eq!(error(&state, "x").kind, ErrorKind::Refused);
    let wanted = json!({"path": "/no", "expect": {"status": [404]}});
    let state = bench.driven.run("wanted", vec![request(wanted)]).await;
    assert_eq!(outputs(&state, "x")["status"], 404);
    let state = bench.driven.run("redirect", vec![request(json!({"path": "/away"}))]).await;
    assert_eq!(error(&state, "x").kind, ErrorKind::Refused, "redirects are not followed");
}

#[tokio::test]
async fn a_lost_answer_of_a_post_asks_a_person_and_is_not_sent_again() {
    let bench = Bench::new().await;
    bench.counts.lost.store(1, Ordering::SeqCst);
    bench.driven.create("r", vec![request(json!({"path": "/act", "method": "POST"}))]).await;
    let Finish::Waiting(state, asking) = bench.driven.drive("r", Purpose::GoOn).await.unwrap() else {
        panic!()
    };
    assert_eq!((asking, bench.effects()), (vec!["x".to_owned()], 1));
    assert_eq!(error(&state, "x").outcome, Outcome::Unknown);
}

#[tokio::test]
async fn a_check_settles_a_lost_answer() {
    let bench = Bench::new().await;
    bench.counts.lost.store(1, Ordering::SeqCst);
    let check = json!({"path": "/state", "expect": {"json": {"/effects": 1}}});
    let with = json!({"path": "/act", "method": "POST", "check": check});
    let state = bench.driven.run("r", vec![request(with)]).await;
    let out = outputs(&state, "x");
    assert_eq!((&out["settled_by_check"], &out["json"]["effects"]), (&json!(true), &json!(1)));
    assert_eq!((bench.effects(), state.step("x").unwrap().attempt), (1, 2));
}

#[tokio::test]
async fn a_check_tells_a_cancel_what_became_of_a_request() {
    for (effects, done) in [(1, 1), (99, 0)] {
        let bench = Bench::with_timeout("2s").await;
        let check = json!({"path": "/state", "expect": {"json": {"/effects": effects}}});
        let with = json!({"path": "/late", "method": "POST", "check": check});
        bench.driven.create("r", vec![request(with)]).await;
        bench.driven.crash("r", Purpose::GoOn, || bench.counts.taken.load(Ordering::SeqCst) == 1).await;
        let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
        assert_eq!((state.status, state.error), (RunStatus::Cancelled, None));
        let ledger = bench.driven.store.ledger("r", "x").await.unwrap();
        assert_eq!(ledger.already, done);
        assert!(bench.driven.store.batches("r", "x", 0, 9, false).await.unwrap()[0].settled.is_some());
        assert_eq!(bench.counts.taken.load(Ordering::SeqCst), 1, "nothing is sent by a cancel");
    }
}

#[tokio::test]
async fn a_check_that_may_not_look_or_can_not_tell_yet_settles_nothing() {
    for (path, timeout, why) in [
        ("/closed", "2s", "status 401, which does not tell"),
        ("/away", "2s", "status 302, which does not tell"),
        ("/state", "10m", "it may still be under way for at most"),
    ] {
        let bench = Bench::with_timeout(timeout).await;
        let check = json!({"path": path, "expect": {"json": {"/effects": 99}}});
        let with = json!({"path": "/late", "method": "POST", "check": check});
        bench.driven.create("r", vec![request(with)]).await;
        bench.driven.crash("r", Purpose::GoOn, || bench.counts.taken.load(Ordering::SeqCst) == 1).await;
        let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
        let error = state.error.unwrap();
        assert_eq!(state.status, RunStatus::Failed, "it stays open for another cancel: {error:?}");
        assert!(error.message.contains(why) && error.message.contains("is not known"), "{error:?}");
        assert!(bench.driven.store.batches("r", "x", 0, 9, false).await.unwrap()[0].settled.is_none());
    }
    // Nor is it sent again by a run that goes on.
    let bench = Bench::with_timeout("2s").await;
    let with = json!({"path": "/late", "method": "POST", "check": {"path": "/closed"}});
    bench.driven.create("r", vec![request(with)]).await;
    bench.driven.crash("r", Purpose::GoOn, || bench.counts.taken.load(Ordering::SeqCst) == 1).await;
    let state = bench.driven.ended("r", Purpose::GoOn).await;
    let error = state.step("x").unwrap().error.clone().unwrap();
    assert!(error.message.contains("status 401"), "{error:?}");
    assert_eq!(bench.counts.taken.load(Ordering::SeqCst), 1, "it was sent again");
}

#[tokio::test]
async fn a_check_that_gets_no_answer_says_nothing_and_is_made_again() {
    let bench = Bench::new().await;
    bench.counts.lost.store(1, Ordering::SeqCst);
    bench.counts.busy.store(1, Ordering::SeqCst);
    let check = json!({"path": "/state", "expect": {"json": {"/effects": 1}}});
    let with = json!({"path": "/act", "method": "POST", "check": check});
    let state = bench.driven.run("r", vec![request(with)]).await;
    assert_eq!(outputs(&state, "x")["settled_by_check"], true);
    assert_eq!((bench.effects(), state.step("x").unwrap().attempt), (1, 3));
}

#[tokio::test]
async fn a_check_that_finds_nothing_says_nothing_while_the_request_may_be_under_way() {
    let bench = Bench::with_timeout("6s").await;
    let check = json!({"path": "/state", "expect": {"json": {"/effects": 1}}});
    let with = json!({"path": "/late", "method": "POST", "check": check});
    bench.driven.create("r", vec![request(with)]).await;
    bench.driven.crash("r", Purpose::GoOn, || bench.counts.taken.load(Ordering::SeqCst) == 1).await;
    assert_eq!(bench.effects(), 0, "it was acted on before the crash");
    let state = bench.driven.ended("r", Purpose::GoOn).await;
    assert_eq!(outputs(&state, "x")["settled_by_check"], true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.effects(), bench.counts.taken.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_check_that_finds_nothing_sends_it_again() {
    let bench = Bench::new().await;
    bench.counts.lost.store(1, Ordering::SeqCst);
    let check = json!({"path": "/state", "expect": {"json": {"/effects": 99}}});
    let with = json!({"path": "/act", "method": "POST", "check": check});
    let state = bench.driven.run("r", vec![request(with)]).await;
    assert_eq!(outputs(&state, "x")["settled_by_check"], false);
    assert_eq!(bench.effects(), 2);
}

#[tokio::test]
async fn a_put_is_sent_again_and_a_crash_loses_nothing() {
    let bench = Bench::new().await;
    bench.counts.lost.store(1, Ordering::SeqCst);
    bench.driven.create("r", vec![request(json!({"path": "/act", "method": "PUT"}))]).await;
    bench.driven.crash("r", Purpose::GoOn, || bench.effects() == 1).await;
    let state = bench.driven.ended("r", Purpose::GoOn).await;
    assert_eq!(outputs(&state, "x")["json"], json!({"id": 7}));
    assert_eq!(bench.effects(), 2);
}

#[tokio::test]
async fn a_servers_error_leaves_open_whether_a_post_happened() {
    let bench = Bench::new().await;
    bench.counts.status.store(500, Ordering::SeqCst);
    bench.driven.create("r", vec![request(json!({"path": "/act", "method": "POST"}))]).await;
    assert!(matches!(bench.driven.drive("r", Purpose::GoOn).await.unwrap(), Finish::Waiting(..)));
    bench.counts.status.store(409, Ordering::SeqCst);
    let state = bench.driven.run("s", vec![request(json!({"path": "/act", "method": "POST"}))]).await;
    assert_eq!(error(&state, "x").outcome, Outcome::Failed);
    bench.counts.status.store(503, Ordering::SeqCst);
    let state = bench.driven.run("t", vec![request(json!({"path": "/act", "method": "PUT"}))]).await;
    assert_eq!((&outputs(&state, "x")["status"], bench.effects()), (&json!(201), 1));
}

#[tokio::test]
async fn a_servers_error_is_followed_by_the_check_and_not_by_the_request() {
    let bench = Bench::new().await;
    let check = json!({"path": "/state", "expect": {"json": {"/effects": 1}}});
    let with = json!({"path": "/broken", "method": "POST", "check": check});
    let state = bench.driven.run("r", vec![request(with)]).await;
    assert_eq!((&outputs(&state, "x")["settled_by_check"], bench.effects()), (&json!(true), 1));
}

#[tokio::test]
async fn what_is_reopened_is_sent_again() {
    let bench = Bench::new().await;
    let last = PlannedStep { id: "y".to_owned(), ..request(json!({"path": "/act", "method": "PUT"})) };
    bench.driven.create_with_finally("r", vec![request(json!({"path": "/no"}))], vec![last]).await;
    let state = bench.driven.ended("r", Purpose::GoOn).await;
    assert_eq!((&outputs(&state, "y")["status"], bench.effects()), (&json!(201), 1));
    let state = bench.driven.ended("r", Purpose::Resume).await;
    assert_eq!((&outputs(&state, "y")["status"], bench.effects()), (&json!(201), 2));
}

#[tokio::test]
async fn a_post_that_was_taken_with_another_answer_than_expected_asks_a_person() {
    let bench = Bench::new().await;
    for (id, expect) in [("body", json!({"json": {"/id": 8}})), ("status", json!({"status": [204]}))] {
        let before = bench.effects();
        let with = |method: &str| json!({"path": "/act", "method": method, "expect": expect});
        bench.driven.create(id, vec![request(with("POST"))]).await;
        let Finish::Waiting(state, asking) = bench.driven.drive(id, Purpose::GoOn).await.unwrap() else {
            panic!("{id}")
        };
        assert_eq!((asking, bench.effects()), (vec!["x".to_owned()], before + 1), "{id}");
        assert_eq!(
            (error(&state, "x").kind, error(&state, "x").outcome),
            (ErrorKind::Gate, Outcome::Unknown)
        );
        let state = bench.driven.run(&format!("{id} put"), vec![request(with("PUT"))]).await;
        assert_eq!(error(&state, "x").outcome, Outcome::Failed, "what may be repeated needs nobody");
    }
}

/// A request that destroys so many items, and may be repeated.
fn destroying(items: &Value, most: u64) -> PlannedStep {
    let effect = json!({ "class": "destroy", "repeat": "repeatable", "items": items });
    let limits = Limits { max_items: Some(most), ..Limits::default() };
    PlannedStep { limits, ..request(json!({ "path": "/act", "method": "PUT", "effect": effect })) }
}

#[tokio::test]
async fn only_the_first_sending_of_what_destroys_is_charged() {
    let bench = Bench::new().await;
    for (id, items, charged) in [("one", json!(null), 1), ("many", json!(40), 40)] {
        let before = bench.effects();
        // The first answer is an error, the second is lost with the process, the third arrives.
        bench.counts.status.store(503, Ordering::SeqCst);
        bench.counts.lost.store(1, Ordering::SeqCst);
        bench.driven.create(id, vec![destroying(&items, charged)]).await;
        bench.driven.crash(id, Purpose::GoOn, || bench.effects() == before + 1).await;
        let state = bench.driven.ended(id, Purpose::GoOn).await;
        assert_eq!((&outputs(&state, "x")["status"], bench.effects()), (&json!(201), before + 2));
        let store = &bench.driven.store;
        assert_eq!(store.counter(id, "run:items").await.unwrap(), charged, "{id}");
        let ledger = store.ledger(id, "x").await.unwrap();
        assert_eq!((ledger.last_batch, ledger.done), (3, charged), "{id}");
    }
    let before = bench.effects();
    let state = bench.driven.run("too many", vec![destroying(&json!(41), 40)]).await;
    assert_eq!((error(&state, "x").kind, bench.effects()), (ErrorKind::Limit, before));
}
