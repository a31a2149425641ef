//! Objects of an S3 store: counted, made to expire, saved, confirmed, and deleted in batches.

use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
};
use runbook_sandbox::weed::Weed;
use runbook_steps::connections::s3::S3;
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// How many objects are deleted; in batches of 3.
const OBJECTS: u64 = 7;

/// The store of this process.
static STORE: OnceLock<Value> = OnceLock::new();

struct Storage {
    place: Place,
    bucket: Bucket,
}

fn rule(id: &str, prefix: &str, days: i32) -> LifecycleRule {
    let rule = LifecycleRule::builder().id(id).status(ExpirationStatus::Enabled);
    rule.filter(LifecycleRuleFilter::builder().prefix(prefix).build())
        .expiration(LifecycleExpiration::builder().days(days).build())
        .build()
        .unwrap()
}

/// Writes what is there in the beginning: the objects, one beside them, and a rule of somebody else.
async fn fill(s3: &S3) {
    let client = s3.client().await;
    let names = (0..OBJECTS).map(|at| format!("in/{at}")).chain(["other/kept".to_owned()]);
    for name in names {
        let put = client.put_object().bucket(s3.bucket()).key(&name);
        put.body(format!("content of {name}").into_bytes().into()).send().await.unwrap();
    }
    let rules =
        BucketLifecycleConfiguration::builder().rules(rule("foreign", "other/", 400)).build().unwrap();
    let put = client.put_bucket_lifecycle_configuration().bucket(s3.bucket());
    put.lifecycle_configuration(rules).send().await.unwrap();
}

fn make() -> Box<dyn World> {
    let bucket = Bucket::make(STORE.get().unwrap());
    RUNTIME.block_on(fill(&bucket.s3));
    let place = Place::new();
    std::fs::create_dir(place.path("kept")).unwrap();
    let text = format!(
        r#"connections:
  bucket: {}
  kept: {{ type: directory, path: "{}" }}
collections:
  objects: {{ type: s3-objects, connection: bucket, prefix: in/ }}
limits: {{ max_items: {OBJECTS}, max_percent: 100, max_errors: 0 }}
lock: storage
steps:
  - {{ id: held, uses: s3-inventory, with: {{ collections: objects, last: {{ connection: kept, file: inventory.json }} }} }}
  - {{ id: expire, uses: s3-lifecycle, with: {{ connection: bucket, mode: apply, prefix: in/, expire_days: 45 }} }}
  - {{ id: expires, uses: s3-lifecycle, with: {{ connection: bucket, mode: verify, prefix: in/, expire_days: 45 }} }}
  - {{ id: listed, uses: snapshot, with: {{ collection: objects }} }}
  - {{ id: confirm, uses: confirm-prompt, with: {{ message: Delete them?, phrases: [DELETE] }} }}
  - id: purge
    uses: delete-batch
    with: {{ collections: [objects], keys: "${{{{ steps.listed.outputs.manifest }}}}", batch_size: 3 }}
  - {{ id: after, uses: count, with: {{ collections: [objects], expect: 0 }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        bucket.settings,
        place.path("kept").display(),
    );
    place.runbook("storage", &text);
    Box::new(Storage { place, bucket })
}

impl World for Storage {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "storage.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![
            (self.place.path("").display().to_string(), "WORLD/".to_owned()),
            (self.bucket.name.clone(), "BUCKET".to_owned()),
        ]
    }

    /// What is listed holds times. What was done already is found so after a crash.
    fn is_drawn(&self, member: &str) -> bool {
        let found = ["rules_before", "prefix_rules_before", "added", "compared", "growth_bytes"];
        ["sha256", "bytes", "objects_before", "bytes_before"].iter().chain(&found).any(|name| *name == member)
    }

    fn picture(&self) -> Value {
        RUNTIME.block_on(async {
            let keys = self.bucket.keys().await;
            let client = self.bucket.s3.client().await;
            let rules = client.get_bucket_lifecycle_configuration().bucket(&self.bucket.name).send();
            let rules = rules.await.unwrap();
            let rules: Vec<Value> = rules
                .rules()
                .iter()
                .map(|rule| {
                    let prefix = rule.filter().and_then(LifecycleRuleFilter::prefix);
                    json!([prefix, rule.expiration().and_then(LifecycleExpiration::days)])
                })
                .collect();
            let inventory = std::fs::read_to_string(self.place.path("kept/inventory.json")).is_ok();
            json!({ "keys": keys, "rules": rules, "inventory": inventory })
        })
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        let now = self.picture();
        let mut wrong = Vec::new();
        if !now["rules"].as_array().unwrap().contains(&json!(["other/", 400])) {
            wrong.push(format!("the rule of somebody else is gone: {}", now["rules"]));
        }
        if !now["keys"].as_array().unwrap().contains(&json!("other/kept")) {
            wrong.push(format!("what is beside the objects is gone: {}", now["keys"]));
        }
        wrong
    }
}

#[test]
fn objects_go_once_and_the_rules_of_others_stay_whatever_crashes() {
    // Started by this thread, with which it ends.
    let weed = RUNTIME.block_on(Weed::start()).unwrap();
    STORE.get_or_init(|| weed.bucket(""));
    explore(&Case { name: "storage of S3", recovery: Recovery::Resume, make, stride: 5, second_stride: 0 });
}
