//! The session of an `http` connection against a real gateway.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runbook_engine::error::ErrorKind;
use runbook_sandbox::{Chatkit, Options, Server, sandbox_binary};
use runbook_steps::connections::http::http_of;
use runbook_steps::kind::Vault;
use serde_json::{Value, json};

use crate::common::{Bench, planned};
use crate::fountain::{collections, connections};

/// Lets the time pass at which the session that the vault keeps is to be refreshed; how long before its end that is.
fn pass_refresh_time(bench: &Bench) -> SignedDuration {
    let mut kept: Value = serde_json::from_str(&bench.vault.get("session:gateway").unwrap()).unwrap();
    let time = |name: &str| kept[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let before = time("ends").duration_since(time("refresh_from"));
    kept["refresh_from"] = json!(Timestamp::now());
    bench.vault.keep("session:gateway", &kept.to_string());
    before
}

#[tokio::test]
async fn a_session_is_opened_once_refreshed_and_found_again_after_a_crash() {
    let options = Options {
        attachments: 1,
        orphans: 0,
        restore: 1,
        session_ttl: Duration::from_secs(900),
        ..Options::default()
    };
    let chatkit = Chatkit::start(&sandbox_binary().unwrap(), &options).await.unwrap();
    let steps = vec![planned("s", "count", json!({ "collections": "blobs" }))];
    let mut bench = Bench::new(steps, connections(&chatkit), collections()).await;
    let http = http_of(&bench.context("s").resources, "gateway").unwrap();
    let session = http.session().unwrap();
    let first = session.get().await.unwrap();
    assert_eq!(session.get().await.unwrap(), first);
    assert!(!format!("{first:?} {http:?}").contains(&first.secret));
    assert!(!bench.redactor.text(&format!("a {} b", first.secret)).contains(&first.secret));

    let second = session.refresh().await.unwrap();
    assert_eq!(second.id, first.id);
    assert_ne!(second.secret, first.secret);

    bench.reopen_resources();
    let http = http_of(&bench.context("s").resources, "gateway").unwrap();
    let session = http.session().unwrap();
    assert_eq!(session.get().await.unwrap(), second);

    // Less than a third of its life is left: the same session with another secret.
    let before = pass_refresh_time(&bench);
    assert!((299..=301).contains(&before.as_secs()), "{before}");
    bench.reopen_resources();
    let http = http_of(&bench.context("s").resources, "gateway").unwrap();
    let session = http.session().unwrap();
    let third = session.get().await.unwrap();
    assert_eq!(third.id, first.id);
    assert_ne!(third.secret, second.secret);

    // A gateway that was restarted knows no session.
    chatkit.restart(Server::Gateway).await.unwrap();
    assert_eq!(session.refresh().await.unwrap_err().kind, ErrorKind::Refused);
    session.forget().await;
    let fresh = session.get().await.unwrap();
    assert_ne!(fresh.id, first.id);
    chatkit.kill(Server::Gateway).await.unwrap();
    let error = session.refresh().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    assert!(!format!("{error:?}").contains(&fresh.secret));
}
