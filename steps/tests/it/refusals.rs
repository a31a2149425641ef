//! What the world says no with: `Retry-After` is obeyed, a lasting no is not asked again, and half a listing is no listing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use jiff::{SignedDuration, Timestamp};
use runbook_engine::duration::Duration as Spell;
use runbook_engine::error::ErrorKind;
use runbook_engine::plan::{PlannedStep, Retry};
use runbook_engine::state::RunStatus;
use runbook_sandbox::admin::FaultAction;
use runbook_sandbox::{Chatkit, Server as Of};
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::driven::{Driven, error, step};
use crate::fountain::{collections, connections, docs, fault, start};
use crate::server::Server;

/// When each request came in, and what is answered to the next ones, with `Retry-After`; 200 when there are no more.
#[derive(Default)]
struct Door {
    knocks: Vec<Instant>,
    answers: Vec<(u16, Option<String>)>,
}

type Shared = Arc<Mutex<Door>>;

async fn answer(State(door): State<Shared>) -> Response {
    let mut door = door.lock().unwrap();
    door.knocks.push(Instant::now());
    if door.answers.is_empty() {
        return "{}".into_response();
    }
    let (status, after) = door.answers.remove(0);
    let status = StatusCode::from_u16(status).unwrap();
    match after {
        Some(after) => (status, [("retry-after", after)]).into_response(),
        None => status.into_response(),
    }
}

async fn door(answers: &[(u16, Option<String>)]) -> (Server, Shared) {
    let door = Shared::default();
    door.lock().unwrap().answers = answers.to_vec();
    let server = Server::start(Router::new().route("/x", any(answer)).with_state(door.clone())).await;
    (server, door)
}

/// The waits between the requests, in milliseconds.
fn waits(door: &Shared) -> Vec<u128> {
    door.lock().unwrap().knocks.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect()
}

/// A date so many seconds from now, as HTTP writes it.
fn date(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn request(server: &Server, more: &Value) -> (Driven, PlannedStep) {
    let driven = Driven::new(&json!({ "api": { "type": "http", "url": server.url } }), &json!({}));
    let mut with = json!({ "connection": "api", "path": "/x" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let retry = Retry { max_attempts: 4, delay: Spell::from_millis(1), ..Retry::default() };
    (driven, PlannedStep { retry, ..step("x", "http", with) })
}

#[tokio::test]
async fn a_request_waits_as_long_as_the_server_asks_in_seconds_and_as_a_date() {
    for dated in [false, true] {
        let after = if dated { date(3) } else { "1".to_owned() };
        let (server, door) = door(&[(429, Some(after.clone())), (503, Some("1".to_owned()))]).await;
        let (driven, step) = request(&server, &json!({}));
        assert_eq!(driven.run("r", vec![step]).await.status, RunStatus::Succeeded);
        let waits = waits(&door);
        assert!(
            waits.len() == 2 && waits.iter().all(|wait| (1000..4000).contains(wait)),
            "{after}: {waits:?}"
        );
    }
}

#[tokio::test]
async fn a_notification_waits_as_long_as_the_receiver_asks_in_seconds_and_as_a_date() {
    for dated in [false, true] {
        let after = if dated { date(3) } else { "1".to_owned() };
        let (server, door) = door(&[(503, Some(after.clone()))]).await;
        let with = json!({ "url": format!("{}/x", server.url), "message": "m", "delay": "1ms" });
        let bench = Bench::new(vec![planned("tell", "notify", with)], json!({}), json!({})).await;
        assert_eq!(bench.enter("tell").await.unwrap()["delivered"], true);
        let waits = waits(&door);
        assert!(waits.len() == 1 && (1000..4000).contains(&waits[0]), "{after}: {waits:?}");
    }
}

#[tokio::test]
async fn a_lasting_no_is_not_asked_again() {
    for status in [400, 401, 403, 404, 501] {
        let again = [(status, Some("1".to_owned())), (status, None), (status, None)];
        for method in ["GET", "PUT", "POST"] {
            let (server, door) = door(&again).await;
            let (driven, step) = request(&server, &json!({ "method": method }));
            let state = driven.run("r", vec![step]).await;
            assert_eq!(error(&state, "x").kind, ErrorKind::Refused, "{method} {status}");
            assert_eq!(door.lock().unwrap().knocks.len(), 1, "{method} {status}");
        }
        let (server, door) = door(&again).await;
        let with = json!({ "url": format!("{}/x", server.url), "message": "m", "delay": "1ms" });
        let bench = Bench::new(vec![planned("tell", "notify", with)], json!({}), json!({})).await;
        let _ = bench.enter("tell").await;
        assert_eq!(door.lock().unwrap().knocks.len(), 1, "notify {status}");
    }
}

/// A bench that deletes these documents in batches of five.
async fn purge(chatkit: &Chatkit, ids: &[String]) -> Bench {
    let records: Vec<_> = ids.iter().map(|id| json!({ "key": id, "record": {} })).collect();
    let draft = Bench::new(Vec::new(), json!({}), json!({})).await;
    let keys = draft.artifact("ids.jsonl", &records);
    let with = json!({ "collections": "metadata", "keys": keys, "batch_size": 5 });
    let bench =
        Bench::new(vec![planned("purge", "delete-batch", with)], connections(chatkit), collections()).await;
    bench.artifact("ids.jsonl", &records);
    bench
}

/// How many deletes of each document the store saw.
async fn deletes(chatkit: &Chatkit, id: &str) -> usize {
    let seen = chatkit.requests(Of::Store).await.unwrap();
    seen.iter().filter(|request| request.method == "DELETE" && request.path.ends_with(id)).count()
}

#[tokio::test]
async fn only_the_keys_of_a_batch_that_failed_are_tried_again_and_a_lasting_no_is_none_of_them() {
    let chatkit = start(10, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let bench = purge(&chatkit, &ids).await;
    let of = |id: &str| format!("{}{id}", docs("attachment-metadata"));
    let no = |status| FaultAction { status: Some(status), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &of(&ids[2]), 0, 1000, no(422)).await;
    let begun = Instant::now();
    let failed = bench.enter("purge").await.unwrap_err();
    assert!(failed.message.starts_with("1 of 10 keys could not be deleted in one pass"), "{failed}");
    assert!(begun.elapsed() < Duration::from_secs(2), "it waited for what can not get better");
    for id in &ids {
        assert_eq!(deletes(&chatkit, id).await, 1, "{id}");
    }
    // Reopened, what failed is tried again, and nothing else.
    chatkit.clear_faults(Of::Store).await.unwrap();
    assert_eq!(bench.enter("purge").await.unwrap()["deleted"]["metadata"], json!(10));
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(deletes(&chatkit, id).await, if at == 2 { 2 } else { 1 }, "{id}");
    }
}

#[tokio::test]
async fn a_lasting_no_beside_one_that_may_pass_is_not_asked_again_either() {
    let chatkit = start(10, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let bench = purge(&chatkit, &ids).await;
    let of = |id: &str| format!("{}{id}", docs("attachment-metadata"));
    let no = |status| FaultAction { status: Some(status), ..FaultAction::default() };
    fault(&chatkit, "DELETE", &of(&ids[1]), 0, 1000, no(422)).await;
    // A pass tries what may pass three times.
    fault(&chatkit, "DELETE", &of(&ids[2]), 0, 4, no(503)).await;
    let failed = bench.enter("purge").await.unwrap_err();
    assert!(failed.message.starts_with("1 of 10 keys could not be deleted in 2 passes"), "{failed}");
    assert!(failed.message.contains("422"), "{failed}");
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(deletes(&chatkit, id).await, if at == 2 { 5 } else { 1 }, "{id}");
    }
    // Whoever enters it again may have mended it: it is asked once more, and once only.
    assert!(bench.enter("purge").await.is_err());
    assert_eq!(deletes(&chatkit, &ids[1]).await, 2);
    chatkit.clear_faults(Of::Store).await.unwrap();
    assert_eq!(bench.enter("purge").await.unwrap()["deleted"]["metadata"], json!(10));
    assert_eq!(deletes(&chatkit, &ids[1]).await, 3);
}

#[tokio::test]
async fn a_store_is_asked_again_only_when_it_said_so() {
    let chatkit = start(5, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let bench = purge(&chatkit, &ids).await;
    let busy = FaultAction { status: Some(429), retry_after: Some(2), ..FaultAction::default() };
    let one = format!("{}{}", docs("attachment-metadata"), ids[0]);
    fault(&chatkit, "DELETE", &one, 0, 1, busy).await;
    let begun = Instant::now();
    assert_eq!(bench.enter("purge").await.unwrap()["failed"], json!(0));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(deletes(&chatkit, &ids[0]).await, 2);
}

#[tokio::test]
async fn a_listing_that_fails_half_way_or_is_empty_where_there_were_items_is_not_taken_for_the_truth() {
    let chatkit = start(12, 0).await;
    let ids = chatkit.doc_ids("attachment-metadata").await.unwrap();
    let with = json!({ "collection": "metadata", "page_size": 4 });
    let count = planned("c", "count", json!({ "collections": "metadata", "expect": 0 }));
    let bench =
        Bench::new(vec![planned("s", "snapshot", with), count], connections(&chatkit), collections()).await;
    let query = "/corpora/chatkit/collections/attachment-metadata/query";
    for status in [500, 403] {
        let broken = FaultAction { status: Some(status), ..FaultAction::default() };
        fault(&chatkit, "POST", query, 1, 1000, broken.clone()).await;
        assert!(bench.enter("s").await.is_err(), "the first page is no snapshot: {status}");
        chatkit.clear_faults(Of::Store).await.unwrap();
        fault(&chatkit, "POST", query, 0, 1000, broken).await;
        assert!(bench.enter("c").await.is_err(), "what can not be counted is not 0: {status}");
        let purge = purge(&chatkit, &ids).await;
        let failed = purge.enter("purge").await.unwrap_err();
        assert!(failed.message.contains("can not be counted before the first delete"), "{failed}");
        chatkit.clear_faults(Of::Store).await.unwrap();
    }
    assert_eq!(chatkit.doc_ids("attachment-metadata").await.unwrap(), ids, "nothing was deleted");
}
