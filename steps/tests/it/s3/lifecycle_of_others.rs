//! `s3-lifecycle` in a bucket whose lifecycle says more than S3's own types do.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Response};
use runbook_engine::error::{ErrorKind, StepError};
use serde_json::{Value, json};

use super::proxy::{First, Proxy};
use crate::common::{Bench, planned};

const LEAST: &str = "x-amz-transition-default-minimum-object-size";

/// The lifecycle of a bucket as a store keeps it: the rules as they were sent, and the size that goes with them.
struct Kept {
    text: Mutex<String>,
    least: Mutex<Option<String>>,
    writes: Mutex<u32>,
}

impl First for Kept {
    fn answer<'a>(
        &'a self,
        head: &'a Parts,
        body: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send + 'a>> {
        let mut answer = Response::builder().status(200);
        if head.method == Method::PUT {
            *self.writes.lock().unwrap() += 1;
            *self.text.lock().unwrap() = String::from_utf8(body.to_vec()).unwrap();
            // A lifecycle that is written without the size has the store's own.
            let least =
                head.headers.get(LEAST).map_or("all_storage_classes_128K", |value| value.to_str().unwrap());
            *self.least.lock().unwrap() = Some(least.to_owned());
            return Box::pin(async move { Some(answer.body(Body::empty()).unwrap()) });
        }
        if let Some(least) = &*self.least.lock().unwrap() {
            answer = answer.header(LEAST, least);
        }
        let text = self.text.lock().unwrap().clone();
        Box::pin(async move { Some(answer.body(Body::from(text)).unwrap()) })
    }
}

fn kept(rules: &str) -> Arc<Kept> {
    let text = format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>");
    Arc::new(Kept { text: Mutex::new(text), least: Mutex::default(), writes: Mutex::default() })
}

async fn run(kept: &Arc<Kept>, mode: &str) -> Result<Value, StepError> {
    let proxy = Proxy::after(Some(Arc::clone(kept) as Arc<dyn First>), "http://127.0.0.1:1").await;
    let with = json!({ "connection": "bucket", "mode": mode, "prefix": "chat/staging/", "expire_days": 45 });
    let bucket = json!({
        "type": "s3", "bucket": "rules", "endpoint": proxy.url, "access_key": "key", "secret_key": "secret",
    });
    let step = planned("rule", "s3-lifecycle", with);
    Bench::new(vec![step], json!({ "bucket": bucket }), json!({})).await.enter("rule").await
}

fn rule(id: &str, prefix: &str, does: &str) -> String {
    format!(
        "<Rule><ID>{id}</ID><Filter><Prefix>{prefix}</Prefix></Filter><Status>Enabled</Status>{does}</Rule>"
    )
}

fn expires(days: u32) -> String {
    format!("<Expiration><Days>{days}</Days></Expiration>")
}

#[tokio::test]
async fn what_would_be_lost_is_named_and_nothing_is_written() {
    for (does, element) in [
        (
            "<Expiration><Days>7</Days><ExpiredObjectAllVersions>true</ExpiredObjectAllVersions></Expiration>",
            "`Expiration/ExpiredObjectAllVersions`",
        ),
        ("<DelMarkerExpiration><Days>7</Days></DelMarkerExpiration>", "`DelMarkerExpiration`"),
    ] {
        let store = kept(&rule("logs", "logs/", does));
        for mode in ["plan", "apply"] {
            let error = run(&store, mode).await.unwrap_err();
            let told = &error.message;
            assert!(error.kind == ErrorKind::Refused && told.contains(element), "{error:?}");
            assert!(told.contains("rule `logs`") && told.contains("nothing was written"), "{told}");
        }
        assert_eq!(*store.writes.lock().unwrap(), 0);
        // Where nothing has to be written nothing can be lost.
        let store =
            kept(&format!("{}{}", rule("logs", "logs/", does), rule("ours", "chat/staging/", &expires(45))));
        run(&store, "apply").await.unwrap();
        assert_eq!(*store.writes.lock().unwrap(), 0);
    }
}

#[tokio::test]
async fn the_size_from_which_objects_are_moved_stays() {
    let store = kept(&rule("logs", "logs/", &expires(7)));
    *store.least.lock().unwrap() = Some("varies_by_storage_class".to_owned());
    run(&store, "apply").await.unwrap();
    assert_eq!(*store.writes.lock().unwrap(), 1);
    assert_eq!(store.least.lock().unwrap().as_deref(), Some("varies_by_storage_class"));
}

#[tokio::test]
async fn rules_of_the_same_prefix_that_do_something_else_stay() {
    let marker = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
    let store = kept(&format!(
        "{}{}",
        rule("markers", "chat/staging/", marker),
        rule("old", "chat/staging/", &expires(30))
    ));
    let done = run(&store, "apply").await.unwrap();
    assert_eq!((&done["removed"], &done["rules_after"]), (&json!(1), &json!(2)));
    assert!(store.text.lock().unwrap().contains("<ID>markers</ID>"));
    run(&store, "verify").await.unwrap();
}

#[tokio::test]
async fn a_rule_that_expires_the_same_sooner_is_found_before_anything_is_written() {
    let parts = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
    let date = "<Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration>";
    for other in [
        rule("both", "chat/staging/", &format!("{}{parts}", expires(7))),
        rule("wide", "chat/", &expires(7)),
        rule("all", "", &expires(7)),
        rule("dated", "chat/staging/", date),
    ] {
        let store = kept(&other);
        for mode in ["plan", "apply"] {
            let error = run(&store, mode).await.unwrap_err();
            assert!(
                error.kind == ErrorKind::Refused && error.message.contains("nothing was written"),
                "{error:?}"
            );
        }
        assert_eq!(*store.writes.lock().unwrap(), 0);
        let store = kept(&format!("{other}{}", rule("ours", "chat/staging/", &expires(45))));
        let error = run(&store, "verify").await.unwrap_err();
        assert!(error.kind == ErrorKind::Gate && error.message.contains("45"), "{error:?}");
    }
}
