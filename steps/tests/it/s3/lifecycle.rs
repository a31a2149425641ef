//! `s3-lifecycle` against a real store.

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, ExpirationStatus, LifecycleExpiration,
    LifecycleRule, LifecycleRuleFilter,
};
use runbook_engine::error::{ErrorKind, StepError};
use runbook_steps::connections::s3::S3;
use serde_json::{Value, json};

use super::{keep_versions, make, set_versioning};
use crate::common::{Bench, planned};
use runbook_sandbox::weed::Weed;

/// A run with one step of this mode.
async fn bench(weed: &Weed, mode: &str, more: Value) -> Bench {
    let mut with = json!({ "connection": "bucket", "mode": mode, "prefix": "chat/staging/" });
    for (key, value) in more.as_object().unwrap() {
        with[key] = value.clone();
    }
    let step = planned("rule", "s3-lifecycle", with);
    Bench::new(vec![step], json!({ "bucket": weed.bucket("rules") }), json!({})).await
}

/// What it comes to.
async fn run(weed: &Weed, mode: &str, more: Value) -> Result<Value, StepError> {
    bench(weed, mode, more).await.enter("rule").await
}

fn rule(id: &str, prefix: &str, days: i32) -> LifecycleRule {
    LifecycleRule::builder()
        .id(id)
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
        .expiration(LifecycleExpiration::builder().days(days).build())
        .build()
        .unwrap()
}

async fn set(s3: &S3, rules: Vec<LifecycleRule>) {
    let whole = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().unwrap();
    let client = s3.client().await;
    let request = client.put_bucket_lifecycle_configuration().bucket("rules").lifecycle_configuration(whole);
    request.send().await.unwrap();
}

async fn ids(s3: &S3) -> Vec<String> {
    let found = s3.client().await.get_bucket_lifecycle_configuration().bucket("rules").send().await;
    let mut ids: Vec<_> = found.unwrap().rules().iter().map(|rule| rule.id().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_rule_is_made_so_beside_those_of_others() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "rules").await;
    let error = run(&weed, "verify", json!({ "expire_days": 45 })).await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("no rule expires it"), "{error:?}");

    // A bucket without any lifecycle.
    let planned = run(&weed, "plan", json!({ "expire_days": 45 })).await.unwrap();
    assert_eq!(
        (&planned["rules_before"], &planned["added"], &planned["rules_after"]),
        (&json!(0), &json!(true), &json!(1))
    );
    assert!(run(&weed, "verify", json!({})).await.is_err(), "a plan changes nothing");
    run(&weed, "apply", json!({ "expire_days": 45 })).await.unwrap();
    assert_eq!(ids(&s3).await, ["expire-chat-staging"]);
    let again = run(&weed, "apply", json!({ "expire_days": 45 })).await.unwrap();
    assert_eq!((&again["added"], &again["removed"]), (&json!(false), &json!(0)));
    assert_eq!((&again["keeps"], again.get("leaves")), (&json!("nothing"), None));

    // One with rules of others, two of the prefix, and one that only looks like it.
    let all = vec![
        rule("other", "logs/", 7),
        rule("a", "chat/staging/", 30),
        rule("b", "chat/staging/", 60),
        rule("near", "chat/stag", 90),
    ];
    set(&s3, all).await;
    let error = run(&weed, "verify", json!({ "expire_days": 45 })).await.unwrap_err();
    assert!(error.message.contains("after 30 days, and 45 are expected"), "{error:?}");
    let done = run(&weed, "apply", json!({ "expire_days": 45, "id": "ours" })).await.unwrap();
    assert_eq!(
        (&done["rules_before"], &done["prefix_rules_before"], &done["removed"]),
        (&json!(4), &json!(2), &json!(2))
    );
    assert_eq!(ids(&s3).await, ["near", "other", "ours"]);
    run(&weed, "verify", json!({ "expire_days": 45, "prefix": ["chat/staging/", "logs/"] }))
        .await
        .unwrap_err();
    run(&weed, "verify", json!({ "prefix": ["chat/staging/", "logs/"] })).await.unwrap();

    // A plan binds the rules that go, and what has become so already is no drift.
    set(&s3, vec![rule("a", "chat/staging/", 30)]).await;
    let days = json!({ "expire_days": 20, "id": "ours" });
    let mut reviewed = bench(&weed, "apply", days).await;
    let seen = reviewed.foresee("rule").await.unwrap().binds;
    reviewed.review("rule", &seen);
    set(&s3, vec![rule("a", "chat/staging/", 31), rule("b", "chat/staging/", 32)]).await;
    let error = reviewed.enter("rule").await.unwrap_err();
    assert!(error.kind == ErrorKind::Drift && error.message.contains("rule 2 to be removed"), "{error:?}");
    assert_eq!(ids(&s3).await, ["a", "b"]);
    set(&s3, vec![rule("a", "chat/staging/", 30)]).await;
    reviewed.enter("rule").await.unwrap();
    reviewed.enter("rule").await.unwrap();
    assert_eq!(ids(&s3).await, ["ours"]);
    set(
        &s3,
        vec![rule("near", "chat/stag", 90), rule("other", "logs/", 7), rule("ours", "chat/staging/", 45)],
    )
    .await;

    // What would expire more than it says.
    let error = run(&weed, "apply", json!({ "expire_days": 45, "prefix": "chat/prod" })).await.unwrap_err();
    assert!(error.help.unwrap().contains("write `chat/prod/`"));
    assert!(run(&weed, "apply", json!({ "prefix": "chat/prod/" })).await.is_err());
    assert_eq!(ids(&s3).await, ["near", "other", "ours"]);
}

#[tokio::test]
async fn the_rule_is_kept_as_s3_takes_it_and_compared_with_a_file() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "rules").await;
    set(&s3, vec![rule("other", "logs/", 7)]).await;
    let folder = tempfile::tempdir().unwrap();
    let (kept, file) = (folder.path().join("kept/rule.json"), folder.path().join("lifecycle.json"));
    let done = run(&weed, "apply", json!({ "expire_days": 45, "keep": kept })).await.unwrap();
    let text = std::fs::read_to_string(&kept).unwrap();
    let ours = json!({
        "ID": "expire-chat-staging", "Status": "Enabled",
        "Filter": { "Prefix": "chat/staging/" }, "Expiration": { "Days": 45 },
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "Rules": [ours] }), "ours alone");
    let digest = runbook_steps::digest::sha256(text.as_bytes());
    assert_eq!(done["kept"], json!({ "path": kept, "sha256": digest }));
    let error = run(&weed, "verify", json!({ "keep": kept })).await.unwrap_err();
    assert!(error.message.contains("`keep` goes with the mode `apply`"), "{error}");

    // What was kept is what a checkout may hold, beside others.
    std::fs::copy(&kept, &file).unwrap();
    let compared = async |mode: &str, days: i32| {
        run(&weed, mode, json!({ "expire_days": days, "compare": file }))
            .await
            .map(|done| done["discrepancies"].clone())
    };
    assert_eq!(compared("verify", 45).await.unwrap(), json!([]));
    let told = compared("plan", 50).await.unwrap();
    let told = told[0].as_str().unwrap();
    assert!(
        told.contains("says that `chat/staging/` expires after 45 days, and the bucket after 50 days"),
        "{told}"
    );
    for (whole, says) in [
        (
            json!({ "Rules": [{ "Status": "Disabled", "Filter": { "Prefix": "chat/staging/" }, "Expiration": { "Days": 45 } }] }),
            "expires never",
        ),
        (json!({ "Rules": [] }), "expires never"),
    ] {
        std::fs::write(&file, whole.to_string()).unwrap();
        let told = compared("verify", 45).await.unwrap();
        assert!(told[0].as_str().unwrap().contains(says), "{told}");
    }
    for wrong in ["{}", "rules:"] {
        std::fs::write(&file, wrong).unwrap();
        let error = compared("verify", 45).await.unwrap_err();
        assert!(error.message.contains("can not be compared"), "{error}");
    }
}

#[tokio::test]
async fn what_expires_of_a_bucket_with_versions_is_said_to_stay() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "rules").await;
    keep_versions(&s3).await;
    for mode in ["plan", "apply"] {
        let outputs = run(&weed, mode, json!({ "expire_days": 45 })).await.unwrap();
        assert_eq!(outputs["keeps"], json!("versions"));
        let leaves = outputs["leaves"].as_str().unwrap();
        assert!(leaves.contains("each expiry leaves a delete marker"), "{leaves}");
    }
    let foreseen = bench(&weed, "apply", json!({ "expire_days": 45 })).await.foresee("rule").await.unwrap();
    assert!(foreseen.does.contains("stays as an older version"), "{}", foreseen.does);
    set_versioning(&s3, BucketVersioningStatus::Suspended).await;
    let outputs = run(&weed, "verify", json!({})).await.unwrap();
    assert_eq!(outputs["keeps"], json!("older-versions"));
}
