//! `freeze` and `unfreeze`, with real files, restart commands and a gateway that reads its limit when it is restarted.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Json;
use axum::Router;
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use runbook_engine::drive::Purpose;
use runbook_engine::error::ErrorKind;
use runbook_engine::plan::PlannedStep;
use runbook_engine::state::{RunState, RunStatus, StepStatus};
use runbook_engine::store::Store;
use serde_json::{Value, json};

use crate::driven::{Driven, error, outputs, step, text};
use crate::server::Server;

const FILE: &str = "# gateway\nSECRET=hunter2\nexport MAX_MB=\"25\"  # megabytes\nLAST='x'";

/// A gateway that takes files up to the limit in the file that its restart copies.
struct Gateway {
    running: PathBuf,
    uploads: AtomicU32,
    requests: AtomicU32,
    /// How many requests are answered with 503 first.
    starting: AtomicU32,
    /// How many requests are answered with 401 first.
    forgetful: AtomicU32,
    limit: std::sync::Mutex<Value>,
}

fn take_one(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn upload(State(gateway): State<Arc<Gateway>>, mut form: Multipart) -> Response {
    gateway.requests.fetch_add(1, Ordering::SeqCst);
    let mut size = 0;
    while let Some(field) = form.next_field().await.unwrap() {
        if field.name() == Some("file") {
            assert!(field.file_name().unwrap().starts_with("probe-r-"), "{:?}", field.file_name());
            size = field.bytes().await.unwrap().len();
        }
    }
    if take_one(&gateway.starting) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if take_one(&gateway.forgetful) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"code": "invalid_secret"}))).into_response();
    }
    let value =
        text(&gateway.running).lines().find_map(|line| line.split_once("MAX_MB=")).map(|(_, value)| {
            value.trim_start_matches(['"']).split(['"', ' ']).next().unwrap_or_default().to_owned()
        });
    let limit =
        value.and_then(|value| value.parse::<f64>().ok()).filter(|limit| *limit > 0.0).unwrap_or(25.0);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    if size as f64 > limit * 1_048_576.0 {
        let body = json!({"code": "attachment_too_large", "error": "attachments cannot exceed 0 KB"});
        return (StatusCode::PAYLOAD_TOO_LARGE, Json(body)).into_response();
    }
    gateway.uploads.fetch_add(1, Ordering::SeqCst);
    (StatusCode::CREATED, Json(json!({"attachment_id": "a1"}))).into_response()
}

async fn setting(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(json!({"settings": {"max": gateway.limit.lock().unwrap().clone()}}))
}

async fn set(State(gateway): State<Arc<Gateway>>, Json(body): Json<Value>) -> StatusCode {
    *gateway.limit.lock().unwrap() = body["max"].clone();
    StatusCode::NO_CONTENT
}

struct Bench {
    driven: Driven,
    gateway: Arc<Gateway>,
    _server: Server,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Arc::new(Gateway {
            running: folder.path().join("running.env"),
            uploads: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            starting: AtomicU32::new(0),
            forgetful: AtomicU32::new(0),
            limit: json!({"mb": 25}).into(),
        });
        let routes = Router::new()
            .route("/upload", post(upload))
            .route("/settings", get(setting).put(set))
            .with_state(gateway.clone());
        let server = Server::start(routes).await;
        let mut driven = Driven::new(&json!({"gateway": {"type": "http", "url": server.url}}), &json!({}));
        driven.folder = folder;
        fs::write(driven.path("gateway.env"), FILE).unwrap();
        fs::copy(driven.path("gateway.env"), driven.path("running.env")).unwrap();
        Self { driven, gateway, _server: server }
    }

    /// A freeze by the file. The restart copies the file, notes it, waits while there is `hold`, and
    /// fails while there is `broken` (nothing was restarted) or `late` (it was).
    fn freeze(&self, value: &str, probe: bool) -> PlannedStep {
        let folder = self.driven.folder.path().display();
        let script = format!(
            "cd {folder} && echo x >> restarts && while [ -e hold ]; do sleep 0.01; done && \
             if [ -e broken ]; then echo no such unit >&2; exit 5; fi && cp gateway.env running.env && \
             if [ -e late ]; then echo slow start >&2; exit 6; fi"
        );
        let mut with = json!({
            "env_file": {
                "path": self.driven.path("gateway.env"),
                "variable": "MAX_MB",
                "value": value,
                "restart": {"argv": ["sh", "-c", script], "timeout": "20s"},
            },
            "settle": "2s",
        });
        if probe {
            with["probe"] = json!({
                "connection": "gateway",
                "path": "/upload",
                "multipart": {"file_name": "probe.txt", "content_type": "text/plain", "bytes": 200_000},
                "expect": [{"status": 413, "contains": "attachment_too_large"}],
            });
        }
        step("freeze", "freeze", with)
    }

    fn file(&self) -> String {
        text(&self.driven.path("gateway.env"))
    }

    fn running(&self) -> String {
        text(&self.driven.path("running.env"))
    }

    fn restarts(&self) -> usize {
        text(&self.driven.path("restarts")).lines().count()
    }

    fn touch(&self, name: &str) {
        fs::write(self.driven.path(name), "").unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.driven.path(name)).unwrap();
    }

    /// Everything is as it was, and nobody holds anything.
    async fn untouched(&self) {
        assert_eq!(self.file(), FILE);
        assert_eq!(self.running(), FILE);
        assert_eq!(self.driven.store.obligations().await.unwrap(), []);
    }
}

fn unfreeze() -> PlannedStep {
    step("unfreeze", "unfreeze", json!({"freeze": "freeze"}))
}

fn failing() -> PlannedStep {
    step("fail", "command", json!({"argv": ["false"]}))
}

fn status(state: &RunState, id: &str) -> StepStatus {
    state.step(id).unwrap().status
}

#[tokio::test]
async fn a_proven_freeze_is_lifted_byte_for_byte() {
    let bench = Bench::new().await;
    let frozen = bench.driven.path("frozen.env");
    let look = step("look", "command", json!({"argv": ["cp", bench.driven.path("gateway.env"), frozen]}));
    let steps = vec![bench.freeze("0.0000001", true), look, unfreeze()];
    let state = bench.driven.run("r", steps).await;
    let out = outputs(&state, "freeze");
    assert_eq!(out["original"], "25");
    assert_eq!(out["replacement"], "0.0000001");
    assert_eq!(out["proven"], true);
    assert_eq!(
        out["probe"],
        json!({
            "status": 413,
            "code": "attachment_too_large",
            "message": "attachments cannot exceed 0 KB",
        })
    );
    assert!(out["target"].as_str().unwrap().ends_with("gateway.env#MAX_MB"));
    assert_eq!(text(&frozen), FILE.replace("\"25\"", "\"0.0000001\""));
    let out = outputs(&state, "unfreeze");
    assert_eq!((&out["restored"], &out["how"]), (&json!("25"), &json!("restored")));
    bench.untouched().await;
    assert_eq!(bench.restarts(), 2);
    let events = bench.driven.store.events("r", 0).await.unwrap();
    assert!(!serde_json::to_string(&events).unwrap().contains("hunter2"), "other variables are not recorded");
}

#[tokio::test]
async fn a_freeze_that_does_not_freeze_is_lifted_and_fails() {
    let bench = Bench::new().await;
    let state = bench.driven.run("r", vec![bench.freeze("0", true), unfreeze()]).await;
    let error = error(&state, "freeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("not effective") && error.message.contains("201"), "{error}");
    let help = error.help.as_ref().unwrap();
    assert!(help.contains("0.0000001") && help.contains("back at its original value"), "{help}");
    assert!(error.causes[0].contains("still there"), "without `undo` a person must know: {:?}", error.causes);
    assert_eq!(status(&state, "unfreeze"), StepStatus::Pending);
    bench.untouched().await;
    assert_eq!(bench.restarts(), 2);
}

#[tokio::test]
async fn a_frozen_value_never_becomes_the_original() {
    let bench = Bench::new().await;
    let frozen = FILE.replace("25", "0.1");
    fs::write(bench.driven.path("gateway.env"), &frozen).unwrap();
    let state = bench.driven.run("r", vec![bench.freeze("0.1", true)]).await;
    let error = error(&state, "freeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.ends_with("is already 0.1"), "{error}");
    assert_eq!((bench.file(), bench.restarts()), (frozen, 0));
    assert_eq!(bench.driven.store.obligations().await.unwrap(), []);
}

#[tokio::test]
async fn what_can_not_be_read_or_written_is_refused_before_anything_happens() {
    let bench = Bench::new().await;
    let freeze = |value: &str| bench.freeze(value, false);
    let state = bench.driven.run("value", vec![freeze("$HOME")]).await;
    assert_eq!(error(&state, "freeze").kind, ErrorKind::Refused);
    bench.untouched().await;
    let twice = format!("{FILE}\nMAX_MB=3\n");
    fs::write(bench.driven.path("gateway.env"), &twice).unwrap();
    let state = bench.driven.run("twice", vec![freeze("0.1")]).await;
    let message = &error(&state, "freeze").message;
    assert!(message.contains("nothing was changed") && message.contains("more than once"), "{message}");
    bench.remove("gateway.env");
    let state = bench.driven.run("gone", vec![freeze("0.1")]).await;
    assert_eq!(error(&state, "freeze").kind, ErrorKind::Refused);
    assert_eq!(bench.restarts(), 0);
    assert_eq!(bench.driven.store.obligations().await.unwrap(), []);
}

#[tokio::test]
async fn a_crash_between_the_write_and_the_restart_is_made_good() {
    for cancel in [true, false] {
        let bench = Bench::new().await;
        bench.touch("hold");
        bench.driven.create("r", vec![bench.freeze("0.1", true), unfreeze()]).await;
        bench.driven.crash("r", Purpose::GoOn, || bench.restarts() == 1).await;
        assert_eq!((bench.file(), bench.running()), (FILE.replace("25", "0.1"), FILE.to_owned()));
        bench.remove("hold");
        if cancel {
            let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
            assert_eq!(state.status, RunStatus::Cancelled);
            assert_eq!(bench.restarts(), 2, "what was written may have been read");
        } else {
            let state = bench.driven.ended("r", Purpose::GoOn).await;
            assert_eq!(outputs(&state, "freeze")["original"], "25", "and not what was found on the way back");
            assert_eq!(outputs(&state, "freeze")["proven"], true);
            assert_eq!(outputs(&state, "unfreeze")["restored"], "25");
        }
        bench.untouched().await;
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_the_release_is_made_good() {
    let bench = Bench::new().await;
    // The restart of the release begins, and does not end.
    let hold = step("hold", "command", json!({"argv": ["touch", bench.driven.path("hold")]}));
    bench.driven.create("r", vec![bench.freeze("0.1", false), hold, unfreeze()]).await;
    bench.driven.crash("r", Purpose::GoOn, || bench.restarts() == 2).await;
    assert_eq!((bench.file(), bench.running()), (FILE.to_owned(), FILE.replace("25", "0.1")));
    bench.remove("hold");
    let state = bench.driven.ended("r", Purpose::GoOn).await;
    assert_eq!(state.status, RunStatus::Succeeded, "{state:?}");
    assert_eq!(bench.restarts(), 3, "the original was in the file, but nobody knew whether it had been read");
    bench.untouched().await;
}

#[tokio::test]
async fn a_failing_restart_says_what_to_do_and_is_tried_again_on_release() {
    let bench = Bench::new().await;
    bench.touch("late");
    let state = bench.driven.run("r", vec![bench.freeze("0.1", true)]).await;
    let failed = error(&state, "freeze");
    assert_eq!(failed.kind, ErrorKind::Transient);
    assert_eq!(failed.causes, ["slow start"]);
    assert!(failed.help.as_ref().unwrap().contains("by hand"), "{failed:?}");
    let frozen = FILE.replace("25", "0.1");
    assert_eq!((bench.file(), bench.running()), (frozen.clone(), frozen));
    bench.remove("late");
    bench.touch("broken");
    // The first attempt of the release puts the value back and fails to restart; the second must not take that for untouched.
    let (state, ()) = tokio::join!(bench.driven.ended("r", Purpose::Cancel("ada".to_owned())), async {
        crate::driven::until(|| bench.restarts() > 1).await;
        crate::driven::until(|| bench.file() == FILE).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        bench.remove("broken");
    });
    assert_eq!(state.status, RunStatus::Cancelled);
    assert_eq!(bench.restarts(), 3);
    bench.untouched().await;
}

#[tokio::test]
async fn somebody_elses_value_is_left_alone_and_said_loudly() {
    let bench = Bench::new().await;
    let edit = "sed -i 's/0.1/40/' gateway.env";
    let edit =
        step("edit", "command", json!({"argv": ["sh", "-c", edit], "cwd": bench.driven.folder.path()}));
    let state = bench.driven.run("r", vec![bench.freeze("0.1", false), edit, unfreeze()]).await;
    let error = error(&state, "unfreeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("to 40") && error.message.contains("NOT back at 25"), "{error}");
    assert_eq!((bench.file(), bench.restarts()), (FILE.replace("25", "40"), 1));
    assert_eq!(state.status, RunStatus::Failed);
}

#[tokio::test]
async fn other_lines_may_be_edited_while_it_is_frozen() {
    let bench = Bench::new().await;
    let edit = "printf '\\nNEW=1\\n' >> gateway.env";
    let edit =
        step("edit", "command", json!({"argv": ["sh", "-c", edit], "cwd": bench.driven.folder.path()}));
    let state = bench.driven.run("r", vec![bench.freeze("0.1", false), edit, unfreeze()]).await;
    assert_eq!(state.status, RunStatus::Succeeded);
    assert_eq!(bench.file(), format!("{FILE}\nNEW=1\n"));
}

#[tokio::test]
async fn a_target_under_a_freeze_can_not_be_frozen_by_another_run() {
    let bench = Bench::new().await;
    let state = bench.driven.run("r", vec![bench.freeze("0.1", false), failing()]).await;
    assert_eq!(state.status, RunStatus::Failed);
    let state = bench.driven.run("s", vec![bench.freeze("0.2", false)]).await;
    assert_eq!(error(&state, "freeze").kind, ErrorKind::Busy);
    assert!(error(&state, "freeze").message.contains("already held by run r"), "{state:?}");
    assert_eq!(bench.file(), FILE.replace("25", "0.1"));
    bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    bench.untouched().await;
}

#[tokio::test]
async fn a_system_that_is_starting_gets_time_and_one_that_never_answers_does_not() {
    let bench = Bench::new().await;
    bench.gateway.starting.store(2, Ordering::SeqCst);
    let state = bench.driven.run("r", vec![bench.freeze("0.1", true), unfreeze()]).await;
    assert_eq!(outputs(&state, "freeze")["proven"], true);
    assert_eq!(bench.gateway.requests.load(Ordering::SeqCst), 3);
    bench.gateway.starting.store(1000, Ordering::SeqCst);
    let bench = Bench::new().await;
    bench.gateway.starting.store(1000, Ordering::SeqCst);
    let state = bench.driven.run("r", vec![bench.freeze("0.1", true), unfreeze()]).await;
    let error = error(&state, "freeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("503"), "{error}");
    bench.untouched().await;
}

#[tokio::test]
async fn a_probe_without_a_right_is_no_proof() {
    let bench = Bench::new().await;
    bench.gateway.forgetful.store(1, Ordering::SeqCst);
    let state = bench.driven.run("r", vec![bench.freeze("0.1", true), unfreeze()]).await;
    assert_eq!(outputs(&state, "freeze")["proven"], true, "once more, with a new session, is fine");
    let bench = Bench::new().await;
    bench.gateway.forgetful.store(1000, Ordering::SeqCst);
    let state = bench.driven.run("r", vec![bench.freeze("0.1", true), unfreeze()]).await;
    let error = error(&state, "freeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("401 (invalid_secret)"), "{error}");
    assert_eq!(bench.gateway.requests.load(Ordering::SeqCst), 2);
    bench.untouched().await;
}

#[tokio::test]
async fn a_run_that_ends_without_an_unfreeze_lifts_it_all_the_same() {
    let bench = Bench::new().await;
    let state = bench.driven.run("r", vec![bench.freeze("0.1", true)]).await;
    assert_eq!(state.status, RunStatus::Succeeded);
    bench.untouched().await;
    let state =
        bench.driven.run("s", vec![step("unfreeze", "unfreeze", json!({"freeze": "unfreeze"}))]).await;
    assert_eq!(error(&state, "unfreeze").kind, ErrorKind::Gate);
    let optional = json!({"freeze": "unfreeze", "if_open": true});
    let state = bench.driven.run("t", vec![step("unfreeze", "unfreeze", optional)]).await;
    assert_eq!(outputs(&state, "unfreeze")["how"], "not-open");
}

#[tokio::test]
async fn commands_read_apply_and_release_a_value() {
    let bench = Bench::new().await;
    let value = bench.driven.path("replicas");
    fs::write(&value, "  3\n").unwrap();
    let way = json!({
        "target": "gateway replicas",
        "read": ["cat", value],
        "apply": ["sh", "-c", "printf %s \"$RUNBOOK_VALUE\" > \"$0\"", value],
        "release": ["sh", "-c", "printf %s \"$RUNBOOK_ORIGINAL\" > \"$0\"", value],
        "value": 0,
    });
    let freeze = step("freeze", "freeze", json!({"command": way}));
    let look = step("look", "command", json!({"argv": ["cat", value]}));
    let state = bench.driven.run("r", vec![freeze.clone(), look, unfreeze()]).await;
    assert_eq!(outputs(&state, "look")["stdout"], "0");
    assert_eq!(outputs(&state, "freeze")["proven"], false);
    assert_eq!(outputs(&state, "unfreeze")["restored"], "3");
    assert_eq!(text(&value), "3");
    fs::write(&value, "0\n").unwrap();
    let state = bench.driven.run("s", vec![freeze]).await;
    assert_eq!(error(&state, "freeze").kind, ErrorKind::Gate);
}

#[tokio::test]
async fn requests_read_apply_and_release_a_value_with_its_type() {
    let bench = Bench::new().await;
    let way = json!({
        "connection": "gateway",
        "target": "gateway limit",
        "read": {"path": "/settings", "field": "/settings/max"},
        "apply": {"path": "/settings", "json": {"max": "$VALUE"}},
        "release": {"path": "/settings", "json": {"max": "$ORIGINAL"}},
        "value": {"mb": 0},
    });
    let limit = || bench.gateway.limit.lock().unwrap().clone();
    let freeze = step("freeze", "freeze", json!({"http": way}));
    let state = bench.driven.run("r", vec![freeze.clone(), failing()]).await;
    assert_eq!(state.status, RunStatus::Failed);
    assert_eq!(limit(), json!({"mb": 0}));
    bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!(limit(), json!({"mb": 25}));
    let both = json!({"http": freeze.with["http"], "command": {
        "target": "x", "read": ["x"], "apply": ["x"], "release": ["x"], "value": 1,
    }});
    let state = bench.driven.run("both", vec![step("freeze", "freeze", both)]).await;
    assert_eq!(error(&state, "freeze").kind, ErrorKind::Invalid);
}
