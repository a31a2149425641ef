//! `watch-log` on a file that grows, is rotated, or never comes.

use std::io::Write as _;
use std::time::Duration;

use runbook_engine::error::ErrorKind;
use serde_json::{Value, json};

use crate::common::{Bench, planned};

async fn bench(more: Value) -> Bench {
    let mut bench = Bench::new(vec![planned("watch", "watch-log", json!({}))], json!({}), json!({})).await;
    let mut with = json!({
        "path": bench.folder.path().join("gateway.log"),
        "interval": "20ms",
        "timeout": "300ms",
        "expect": [
            { "match": { "kind": "attachmentUploadSucceeded" }, "at_least": 2 },
            { "match": { "kind": "attachmentDownloadSucceeded", "status": 200 } },
        ],
    });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    if with["expect"] == json!([]) {
        with.as_object_mut().unwrap().remove("expect");
    }
    let mut plan = (*bench.plan).clone();
    plan.steps = vec![planned("watch", "watch-log", with)];
    bench.plan = plan.into();
    bench
}

fn append(bench: &Bench, text: &str) {
    let path = bench.folder.path().join("gateway.log");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

const UP: &str = "{\"kind\":\"attachmentUploadSucceeded\",\"timestamp\":\"2026-02-01T12:00:00Z\"}\n";
const DOWN: &str = "{\"kind\":\"attachmentDownloadSucceeded\",\"status\":200}\n";

#[tokio::test]
async fn what_is_written_while_it_watches_counts_across_a_rotation() {
    let bench = bench(json!({ "timeout": "10s" })).await;
    append(&bench, UP);
    append(&bench, "starting up, not JSON\n");
    let writer = async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        let path = bench.folder.path().join("gateway.log");
        std::fs::rename(&path, path.with_extension("1")).unwrap();
        append(&bench, UP);
        append(&bench, &DOWN[..20]);
        tokio::time::sleep(Duration::from_millis(80)).await;
        append(&bench, &DOWN[20..]);
    };
    let (outputs, ()) = tokio::join!(bench.enter("watch"), writer);
    let outputs = outputs.unwrap();
    assert_eq!(outputs["counts"], json!([2, 1]));
    assert_eq!((&outputs["lines_read"], &outputs["non_json"]), (&json!(4), &json!(1)));
    assert!(outputs["waited_ms"].as_u64().unwrap() >= 100);
    assert_eq!(bench.records(&outputs["matched"]).len(), 3);
}

#[tokio::test]
async fn a_timeout_says_what_was_seen() {
    let bench = bench(json!({ "since": "2026-02-01T00:00:00Z" })).await;
    append(&bench, UP);
    append(&bench, DOWN);
    let error = bench.enter("watch").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    for part in ["after 300ms", "attachmentUploadSucceeded\"}: 1 of 2 seen", "0 of 1 seen"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(error.help.unwrap().contains("2 lines were read"));
}

#[tokio::test]
async fn a_file_that_never_comes_is_named() {
    let bench = bench(json!({})).await;
    let error = bench.enter("watch").await.unwrap_err();
    assert!(error.help.unwrap().ends_with("gateway.log is not there"));
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let bench = bench(json!({ "timeout": "1h" })).await;
    let cx = bench.context("watch");
    let stop = cx.stop.clone();
    let stopper = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.cancel();
    };
    let (result, ()) = tokio::join!(bench.enter_with(cx, None), stopper);
    assert_eq!(result.unwrap_err().kind, ErrorKind::Interrupted);
}

/// A log that `sh` prints; it writes its process id, and that of a child of it, to the file `pids`.
async fn printed(script: &str, more: Value) -> Bench {
    let mut more = more;
    let folder = bench(json!({})).await.folder;
    let script = format!("cd {}; {script}", folder.path().display());
    more["path"] = Value::Null;
    more["command"] =
        json!({ "argv": ["sh", "-c", script], "env": { "UP": UP.trim(), "DOWN": DOWN.trim() } });
    let mut bench = bench(more).await;
    bench.folder = folder;
    bench
}

const PIDS: &str = "sleep 60 & echo $$ $! > pids";

/// How many of the processes in the file `pids` are alive.
fn alive(bench: &Bench) -> usize {
    let pids = std::fs::read_to_string(bench.folder.path().join("pids")).unwrap_or_default();
    let state = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    pids.split_whitespace().map(state).filter(|stat| !stat.is_empty() && !stat.contains(") Z ")).count()
}

#[tokio::test]
async fn a_program_that_prints_the_log_is_ended_when_everything_was_seen() {
    let script = format!(
        "{PIDS}; echo 'not JSON'; echo \"$UP\"; echo \"$UP\"; printf '%.20s' \"$DOWN\"; sleep 0.1; printf '%s\\n' \"${{DOWN#????????????????????}}\"; wait"
    );
    let bench = printed(&script, json!({ "timeout": "30s" })).await;
    let outputs = bench.enter("watch").await.unwrap();
    assert_eq!(outputs["counts"], json!([2, 1]));
    assert_eq!((&outputs["lines_read"], &outputs["non_json"]), (&json!(4), &json!(1)));
    assert_eq!(bench.records(&outputs["matched"]).len(), 3);
    crate::driven::until(|| alive(&bench) == 0).await;
}

#[tokio::test]
async fn a_program_is_ended_when_the_time_is_over_even_when_it_ignores_that() {
    let bench = printed(&format!("trap '' TERM; {PIDS}; echo \"$UP\"; wait"), json!({})).await;
    let error = bench.enter("watch").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.starts_with("after 300ms: ") && error.message.contains("1 of 2 seen"), "{error}");
    assert!(error.help.unwrap().starts_with("1 lines were read"));
    crate::driven::until(|| alive(&bench) == 0).await;
}

#[tokio::test]
async fn a_program_that_ends_early_is_an_error_that_says_how() {
    let bench = printed("echo \"$UP\"; echo pods \"gateway\" not found >&2; exit 3", json!({})).await;
    let error = bench.enter("watch").await.unwrap_err();
    assert_eq!(
        (error.kind, &error.causes[..]),
        (ErrorKind::Refused, &["pods gateway not found".to_owned()][..])
    );
    assert!(error.message.starts_with("`sh` exited with 3 before everything was seen: "), "{error}");
    let bench = printed("echo \"$UP\"; echo \"$UP\"", json!({})).await;
    let error = bench.enter("watch").await.unwrap_err();
    assert!(error.message.contains("`sh` exited with 0") && error.message.contains("2 of 2 seen"), "{error}");
    assert_eq!(error.kind, ErrorKind::Gate);
    let all = "echo \"$UP\"; echo \"$UP\"; printf %s \"$DOWN\"; exit 1";
    let outputs = printed(all, json!({})).await.enter("watch").await.unwrap();
    assert_eq!(outputs["counts"], json!([2, 1]), "what was seen was seen, however it ended");
    let mut bench = printed("true", json!({})).await;
    let mut plan = (*bench.plan).clone();
    plan.steps[0].with["command"] = json!({ "argv": ["/no/such/program"] });
    bench.plan = plan.into();
    let error = bench.enter("watch").await.unwrap_err();
    assert!(error.message.contains("can not be started"), "{error}");
}

#[tokio::test]
async fn a_program_is_ended_when_the_run_stops() {
    let bench = printed(&format!("{PIDS}; wait"), json!({ "timeout": "1h" })).await;
    let cx = bench.context("watch");
    let stop = cx.stop.clone();
    let stopper = async {
        crate::driven::until(|| alive(&bench) == 2).await;
        stop.cancel();
    };
    let (result, ()) = tokio::join!(bench.enter_with(cx, None), stopper);
    assert_eq!(result.unwrap_err().kind, ErrorKind::Interrupted);
    crate::driven::until(|| alive(&bench) == 0).await;
}

#[tokio::test]
async fn what_a_program_prints_of_secrets_is_not_kept() {
    let log = "echo '{\"kind\":\"attachmentUploadSucceeded\",\"path\":\"/a?client_secret=s3cr3t%2Bvalue\"}'";
    let expect = json!([{ "match": { "kind": "attachmentUploadSucceeded" } }]);
    let bench = printed(&format!("{log}; sleep 60"), json!({ "timeout": "30s", "expect": expect })).await;
    bench.redactor.learn("s3cr3t+value");
    let outputs = bench.enter("watch").await.unwrap();
    let kept = bench.text(&outputs["matched"]);
    assert!(kept.contains("client_secret=") && !kept.contains("s3cr3t"), "{kept}");
}

const FALLBACK: &str = "falling back to local chat attachment storage";

/// What must not be there, and nothing that is waited for.
fn forbidding(more: Value) -> Value {
    let mut with =
        json!({ "expect": [], "forbid": [{ "contains": FALLBACK }, { "match": { "level": "ERROR" } }] });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with
}

#[tokio::test]
async fn what_is_forbidden_fails_it_at_once_and_is_shown() {
    let record = format!("{{\"level\":\"WARN\",\"fields\":{{\"message\":\"{FALLBACK} (set it)\"}}}}\n");
    for line in [
        record.as_str(),
        "{\"level\":\"ERROR\",\"path\":\"/a?key=s3cr3t%2Bvalue\"}\n",
        "x WARN falling back to local chat attachment storage\n",
    ] {
        for more in [json!({ "timeout": "1h" }), forbidding(json!({}))] {
            let mut more = more;
            more["forbid"] = forbidding(json!({}))["forbid"].clone();
            let bench = bench(more).await;
            bench.redactor.learn("s3cr3t+value");
            append(&bench, &format!("{UP}{line}{DOWN}"));
            let error = bench.enter("watch").await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Gate, "{error}");
            let told = error.message.strip_prefix("the log shows what must not be there: ").unwrap();
            assert!(!told.is_empty() && line.starts_with(&told[..10]) && !told.contains("s3cr3t"), "{told}");
        }
    }
    // A program that would go on is ended.
    let script = format!("{PIDS}; echo \"$UP\"; echo '{FALLBACK}'; wait");
    let bench = printed(&script, forbidding(json!({ "timeout": "1h" }))).await;
    let error = bench.enter("watch").await.unwrap_err();
    assert!(error.message.ends_with(FALLBACK), "{error}");
    crate::driven::until(|| alive(&bench) == 0).await;
}

#[tokio::test]
async fn with_nothing_to_wait_for_a_log_is_read_to_its_end() {
    let bench = bench(forbidding(json!({ "since": "2026-02-01T12:00:00Z", "timeout": "1h" }))).await;
    let old = UP.replace("2026", "2025").replace("Succeeded", FALLBACK);
    append(&bench, &format!("{old}{UP}"));
    let outputs = bench.enter("watch").await.unwrap();
    assert_eq!(
        (&outputs["lines_read"], &outputs["too_old"], &outputs["counts"]),
        (&json!(2), &json!(1), &json!([]))
    );
    let script = "echo \"$UP\"; echo 'a line of text'";
    let outputs = printed(script, forbidding(json!({}))).await.enter("watch").await.unwrap();
    assert_eq!((&outputs["lines_read"], &outputs["non_json"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn a_log_that_says_nothing_or_does_not_end_proves_nothing() {
    let nothing = "no line counts, and a log that says nothing proves nothing";
    let old = bench(forbidding(json!({ "since": "2027-01-01T00:00:00Z" }))).await;
    append(&old, UP);
    let error = old.enter("watch").await.unwrap_err();
    assert!(
        error.message.contains(nothing) && error.help.unwrap().contains("1 too old"),
        "{}",
        error.message
    );
    for (script, told) in [
        ("true", nothing),
        ("echo \"$UP\"; exit 1", "`sh` exited with 1 before the end of the log"),
        (
            "echo \"$UP\"; sleep 60",
            "`sh` did not end within 300ms, and without `expect` a log is read to its end",
        ),
    ] {
        let error = printed(script, forbidding(json!({}))).await.enter("watch").await.unwrap_err();
        assert!(error.message.contains(told), "{error}");
    }
}
