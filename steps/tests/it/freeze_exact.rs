//! `freeze`: values that could not be put back exactly, changes that come late, and files that have more than one name.

use std::fs;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use runbook_engine::drive::Purpose;
use runbook_engine::error::ErrorKind;
use runbook_engine::plan::PlannedStep;
use runbook_engine::state::RunStatus;
use runbook_engine::store::Store;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::{Value, json};

use crate::driven::{Driven, error, outputs, step, text};
use crate::server::Server;

/// A freeze of what is in the file `value`, by commands; `apply` is a script.
fn by_command(driven: &Driven, apply: &str) -> PlannedStep {
    let at = driven.folder.path();
    let script = |text: &str| json!(["sh", "-c", format!("cd {} && {text}", at.display())]);
    let way = json!({
        "target": "switch",
        "read": script("cat value"),
        "apply": script(apply),
        "release": script("printf %s \"$RUNBOOK_ORIGINAL\" > value && echo up > service"),
        "value": "off",
    });
    step("freeze", "freeze", json!({"command": way}))
}

const APPLY: &str = "printf %s \"$RUNBOOK_VALUE\" > value";

#[tokio::test]
async fn a_value_that_can_not_be_put_back_exactly_is_refused_and_left_alone() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("secret", b"topsecretvalue5", "holds a secret"),
        ("with a secret in it", b"key=topsecretvalue5", "holds a secret"),
        ("short secret", b"on", "holds a secret"),
        ("no text", b"a\xff\xfeb", "not UTF-8"),
        ("nul", b"a\0b", "a NUL byte"),
    ];
    for (id, value, why) in cases {
        let mut driven = Driven::new(&json!({}), &json!({}));
        driven.secrets = vec!["topsecretvalue5".to_owned(), "on".to_owned()];
        fs::write(driven.path("value"), value).unwrap();
        let state = driven.run("r", vec![by_command(&driven, APPLY)]).await;
        let failed = error(&state, "freeze");
        assert_eq!(failed.kind, ErrorKind::Refused, "{id}: {failed}");
        assert!(failed.message.contains(why), "{id}: {failed}");
        assert!(!format!("{failed:?}").contains("topsecretvalue5"), "{id}: {failed:?}");
        assert_eq!(fs::read(driven.path("value")).unwrap(), value, "{id}");
        assert_eq!(driven.store.obligations().await.unwrap(), [], "{id}");
    }
}

#[tokio::test]
async fn a_secret_that_is_not_the_value_keeps_nobody_from_freezing() {
    let mut driven = Driven::new(&json!({}), &json!({}));
    driven.secrets = vec!["topsecretvalue5".to_owned()];
    fs::write(driven.path("value"), "on\n").unwrap();
    let state = driven.run("r", vec![by_command(&driven, APPLY)]).await;
    assert_eq!(outputs(&state, "freeze")["original"], "on");
    assert_eq!(text(&driven.path("value")), "on");
}

#[tokio::test]
async fn a_change_that_failed_half_way_is_released_although_the_value_is_the_original() {
    let driven = Driven::new(&json!({}), &json!({}));
    fs::write(driven.path("value"), "on").unwrap();
    let freeze = by_command(&driven, "echo down > service && exit 3");
    let state = driven.run("r", vec![freeze]).await;
    assert_eq!((state.status, text(&driven.path("service"))), (RunStatus::Failed, "down\n".to_owned()));
    let state = driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    assert_eq!(
        (text(&driven.path("service")), text(&driven.path("value"))),
        ("up\n".to_owned(), "on".to_owned())
    );
}

/// A setting, and every value that was asked for.
struct Slow {
    limit: Mutex<Value>,
    asked: Mutex<Vec<Value>>,
}

/// Acts on what freezes two seconds late, whether anybody still waits for the answer or not.
async fn set(State(slow): State<Arc<Slow>>, Json(body): Json<Value>) -> StatusCode {
    slow.asked.lock().unwrap().push(body["max"].clone());
    let acted = tokio::spawn(async move {
        if body["max"] == 0 {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        *slow.limit.lock().unwrap() = body["max"].clone();
    });
    acted.await.unwrap();
    StatusCode::NO_CONTENT
}

async fn setting(State(slow): State<Arc<Slow>>) -> Json<Value> {
    Json(json!({"max": slow.limit.lock().unwrap().clone()}))
}

#[tokio::test]
async fn a_change_that_comes_late_is_waited_out_before_the_freeze_is_said_to_be_lifted() {
    let slow = Arc::new(Slow { limit: json!(25).into(), asked: Mutex::default() });
    let server =
        Server::start(Router::new().route("/", get(setting).put(set)).with_state(slow.clone())).await;
    let connection = json!({"type": "http", "url": server.url, "timeout": "300ms"});
    let driven = Driven::new(&json!({"api": connection}), &json!({}));
    let way = json!({
        "connection": "api",
        "target": "limit",
        "read": {"path": "/", "field": "/max"},
        "apply": {"path": "/", "json": {"max": "$VALUE"}},
        "release": {"path": "/", "json": {"max": "$ORIGINAL"}},
        "value": 0,
    });
    let freeze = step("freeze", "freeze", json!({"http": way, "settle": "8s"}));
    let state = driven.run("r", vec![freeze.clone()]).await;
    assert!(error(&state, "freeze").message.contains("no answer in time"), "{state:?}");
    assert_eq!(*slow.limit.lock().unwrap(), 25, "it came too early for this test");
    let state = driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    assert_eq!(*slow.limit.lock().unwrap(), 25);
    let asked = slow.asked.lock().unwrap().clone();
    assert_eq!(asked, [json!(0), json!(25), json!(25)], "at once, and when it had come");
    assert_eq!(driven.store.obligations().await.unwrap(), []);

    // One that never comes is waited for as long as it may take, and no longer.
    driven.create("s", vec![PlannedStep { with: with_settle(&freeze, "3s"), ..freeze.clone() }]).await;
    slow.asked.lock().unwrap().clear();
    driven.crash("s", Purpose::GoOn, || slow.asked.lock().unwrap().len() == 1).await;
    let state = driven.ended("s", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!((state.status, slow.limit.lock().unwrap().clone()), (RunStatus::Cancelled, json!(25)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(*slow.limit.lock().unwrap(), 25, "it came when the freeze was said to be lifted");
}

fn with_settle(freeze: &PlannedStep, settle: &str) -> Value {
    let mut with = freeze.with.clone();
    with["settle"] = json!(settle);
    with
}

fn by_file(driven: &Driven, name: &str) -> PlannedStep {
    let file = json!({"path": driven.path(name), "variable": "MAX_MB", "value": "0"});
    step("freeze", "freeze", json!({"env_file": file}))
}

#[tokio::test]
async fn a_file_with_several_names_is_refused_and_keeps_them() {
    use std::os::unix::fs::MetadataExt as _;
    let driven = Driven::new(&json!({}), &json!({}));
    fs::write(driven.path("a.env"), "MAX_MB=25\n").unwrap();
    fs::hard_link(driven.path("a.env"), driven.path("b.env")).unwrap();
    let state = driven.run("r", vec![by_file(&driven, "b.env")]).await;
    let failed = error(&state, "freeze");
    assert_eq!(failed.kind, ErrorKind::Gate);
    assert!(failed.message.contains("2 names (hard links)"), "{failed}");
    assert_eq!(fs::metadata(driven.path("a.env")).unwrap().nlink(), 2);
    assert_eq!(driven.store.obligations().await.unwrap(), []);
}

#[tokio::test]
async fn extended_attributes_stay() {
    let driven = Driven::new(&json!({}), &json!({}));
    let path = driven.path("a.env");
    fs::write(&path, "MAX_MB=25\n").unwrap();
    if setxattr(&path, "user.note", b"keep", XattrFlags::empty()).is_err() {
        eprintln!("the folder for temporary files keeps no attributes: nothing to see");
        return;
    }
    let state = driven.run("r", vec![by_file(&driven, "a.env")]).await;
    assert_eq!(outputs(&state, "freeze")["original"], "25");
    let mut value = [0; 16];
    let length = getxattr(&path, "user.note", &mut value[..]).unwrap();
    assert_eq!((&value[..length], text(&path)), (&b"keep"[..], "MAX_MB=25\n".to_owned()));
}
