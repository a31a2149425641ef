//! What can be seen of settings before anything runs, and is refused again when expressions have values.

use runbook_engine::error::ErrorKind;
use runbook_steps::catalog;
use serde_json::{Value, json};

use crate::common::{Bench, planned};

fn found(kind: &str, with: &Value) -> Vec<String> {
    let problems = (catalog::step(kind).unwrap().info.check)(with);
    problems.into_iter().map(|one| format!("{:?} {}: {}", one.fault, one.pointer, one.message)).collect()
}

/// Settings that no type refuses and that can not be, with what is said of them.
fn wrong() -> Vec<(&'static str, Value, &'static str)> {
    let (file, http) = (json!({ "path": "/f" }), json!({ "connection": "c", "path": "/" }));
    let post = json!({ "connection": "c", "path": "/", "form": {}, "json": 1 });
    vec![
        (
            "wait-for",
            json!({ "timeout": "1s" }),
            "Missing : exactly one of `http`, `tcp`, `file`, `duration`, `until` is needed, and none is there",
        ),
        (
            "wait-for",
            json!({ "http": http, "duration": "1s" }),
            "Key /duration: `duration` can not stand beside `http`",
        ),
        (
            "wait-for",
            json!({ "duration": "1s", "file": file }),
            "Key /file: `file` can not stand beside `duration`",
        ),
        (
            "freeze",
            json!({ "max_hold": "1h" }),
            "Missing : exactly one of `env_file`, `command`, `http`, `kubernetes` is needed, and none is there",
        ),
        ("assert", json!({ "message": "m" }), "Missing : at least one of `that`, `window` is needed"),
        ("http", post, "Key /json: `json` can not stand beside `form`"),
        (
            "notify",
            json!({ "message": "m" }),
            "Missing : exactly one of `url`, `connection` is needed, and none is there",
        ),
        (
            "notify",
            json!({ "connection": "c" }),
            "Key /connection: `connection` goes with `path`, which is missing",
        ),
        (
            "notify",
            json!({ "url": "http://h/", "payload": 1, "message": "m" }),
            "Key /message: `message` can not stand beside `payload`",
        ),
        (
            "notify",
            json!({ "url": "http://h/", "max_attempts": 6 }),
            "Value /max_attempts: 6 is not at most 5",
        ),
        (
            "snapshot",
            json!({ "collection": "c", "page_size": 1001 }),
            "Value /page_size: 1001 is not at most 1000",
        ),
        ("command", json!({ "argv": [] }), "Value /argv: the list is empty"),
        ("watch-log", json!({ "path": "/l", "expect": [] }), "Value /expect: the list is empty"),
        (
            "watch-log",
            json!({ "path": "/l", "command": { "argv": ["tail"] }, "expect": [{ "match": {} }] }),
            "Key /command: `command` can not stand beside `path`",
        ),
    ]
}

#[test]
fn what_no_type_refuses_is_found_before_the_run() {
    for (kind, with, said) in wrong() {
        assert_eq!(found(kind, &with), [said], "{kind} {with}");
    }
}

#[test]
fn an_expression_may_come_to_nothing() {
    let x = "${{ inputs.x }}";
    for (kind, with) in [
        ("wait-for", json!({ "http": x, "duration": x })),
        ("wait-for", json!({ "http": x, "duration": "1s" })),
        ("freeze", json!({ "env_file": x, "command": x })),
        ("assert", json!({ "that": x })),
        ("http", json!({ "connection": "c", "path": x, "json": x, "form": x })),
        ("notify", json!({ "url": x, "connection": x, "path": x, "max_attempts": x })),
        ("snapshot", json!({ "collection": "c", "page_size": x })),
    ] {
        assert_eq!(found(kind, &with), [""; 0], "{kind} {with}");
    }
}

#[tokio::test]
async fn what_expressions_came_to_is_refused_before_anything_is_done() {
    for (kind, with, said) in wrong() {
        let bench = Bench::new(vec![planned("x", kind, with.clone())], json!({}), json!({})).await;
        let error = bench.enter("x").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{kind} {with}: {error}");
        let (_, message) = said.split_once(": ").unwrap();
        assert!(error.message.ends_with(message), "{kind} {with}: {error}");
    }
}
