//! `prometheus-query`, against a real Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_sandbox::prometheus::PrometheusServer;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::server::Server;

/// What is measured: a count that grows, and a value for each of two buckets with a quote in the name of one.
fn metrics(count: &AtomicU64) -> String {
    let count = count.fetch_add(1, Ordering::Relaxed);
    format!(
        "# TYPE requests_total counter\nrequests_total {count}\n# TYPE used gauge\nused{{bucket=\"a\\\"b\"}} 5\nused{{bucket=\"plain\"}} 7\n"
    )
}

async fn query(url: &str, more: Value) -> Result<Value, StepError> {
    let mut with = json!({ "connection": "metrics" });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let step = planned("it", "prometheus-query", with);
    let connections = json!({ "metrics": { "type": "prometheus", "url": url, "timeout": "5s" } });
    Bench::new(vec![step], connections, json!({})).await.enter("it").await
}

/// Asks until it passes.
async fn eventually(url: &str, with: Value) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match query(url, with.clone()).await {
            Ok(outputs) => return outputs,
            Err(error) => assert!(Instant::now() < until, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn values_are_held_to_bounds_and_no_data_is_no_pass() {
    let count = Arc::new(AtomicU64::new(0));
    let target = Server::start(Router::new().route("/metrics", get(async move || metrics(&count)))).await;
    let address = target.url.strip_prefix("http://").unwrap();
    let server = PrometheusServer::start(&[("target", address)]).await.unwrap();
    let url = server.url();

    // Present values: a vector of two series, one of them by a name that would end the text of another language.
    let both =
        eventually(&url, json!({ "query": "used", "expect": { "min": 5, "max": 7, "series": 2 } })).await;
    assert_eq!((&both["series"], &both["samples"]), (&json!(2), &json!(2)));
    assert_eq!((&both["lowest"], &both["highest"]), (&json!(5.0), &json!(7.0)));
    assert_eq!(both["values"][0]["labels"]["job"], "target");
    let one = json!({ "query": "used{bucket=$bucket} + scalar(vector(1))", "values": { "bucket": "a\"b" }, "expect": { "max": 6 } });
    let one = query(&url, one).await.unwrap();
    assert_eq!(one["query"], r#"used{bucket="a\"b"} + scalar(vector(1))"#);
    assert_eq!(one["values"][0]["last"], 6.0);
    query(&url, json!({ "query": "1 + 1", "expect": { "min": 2, "max": 2 } })).await.unwrap();

    // Values over a time.
    let ranged = json!({ "query": "rate(requests_total[1s])", "range": { "last": "3s", "step": "1s" }, "expect": { "min": 0.1, "samples": 2 } });
    let ranged = eventually(&url, ranged).await;
    assert!(ranged["samples"].as_u64().unwrap() >= 2, "{ranged}");
    let long = json!({ "query": "used", "range": { "last": "6h", "step": "60s" }, "expect": { "max": 9, "samples": 360 } });

    for (with, wrong) in [
        (json!({ "query": "used", "expect": { "max": 6 } }), "is 7, and 6 is the most"),
        (json!({ "query": "used", "expect": { "min": 6 } }), r#"bucket="a\"b", instance=""#),
        (json!({ "query": "used", "expect": { "max": 9, "series": 3 } }), "2 series, and 3 are expected"),
        (json!({ "query": "usde", "expect": { "max": 9 } }), "no data: nothing is measured"),
        // A condition gives nothing when all is well, and nothing when nothing is measured.
        (json!({ "query": "used > 100", "expect": { "max": 100 } }), "no data: nothing is measured"),
        (json!({ "query": "used * 0 / 0", "expect": { "max": 9 } }), "no data: a value"),
        (json!({ "query": "used / 0", "expect": { "max": 9 } }), "is inf"),
        (long, "no data all the time"),
    ] {
        let error = query(&url, with.clone()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Gate, "{with}: {error:?}");
        assert!(error.message.contains(wrong), "{with}: {}", error.message);
    }
    for (with, wrong) in [
        (json!({ "query": "used{", "expect": { "max": 9 } }), "bad_data"),
        (json!({ "query": "'text'", "expect": { "max": 9 } }), "gives a string"),
    ] {
        let error = query(&url, with).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error:?}");
        assert!(error.message.contains(wrong) || error.message.contains("parse error"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_not_asked() {
    let routes = Router::new()
        .route("/-/ready", get(async || (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")))
        .route(
            "/api/v1/query",
            get(async || r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#),
        );
    let server = Server::start(routes).await;
    let with = json!({ "query": "1", "expect": { "max": 1 } });
    let error = query(&server.url, with).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(error.message.contains("whether it is ready") && error.message.contains("503"), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_the_server_calls_incomplete_is_no_pass() {
    let answer = r#"{"status":"success","warnings":["a store is down"],"data":{"resultType":"scalar","result":[1,"1"]}}"#;
    let routes =
        Router::new().route("/-/ready", get(async || "")).route("/api/v1/query", get(async move || answer));
    let server = Server::start(routes).await;
    let error = query(&server.url, json!({ "query": "1", "expect": { "max": 1 } })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("incomplete (a store is down)"), "{error:?}");
}
