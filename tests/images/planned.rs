//! A plan of the reconciliation, and of its rollback: reads and nothing else.

use crate::{Bench, PHRASE, id, original, run_in};

impl Bench {
    /// Every row of every table, and every object: what a plan must leave as it is.
    async fn content(&self) -> Vec<String> {
        let mut all = Vec::new();
        for table in ["users", "projects", "images"] {
            let text =
                format!("select md5(coalesce(string_agg(t::text, ' ' order by t::text), '')) from {table} t");
            all.push(self.text(&text).await);
        }
        let client = self.s3.client().await;
        let listed = client.list_objects_v2().bucket("real-staging").send().await.unwrap();
        all.extend(listed.contents().iter().map(|object| format!("{:?} {:?}", object.key(), object.e_tag())));
        all
    }
}

#[tokio::test]
async fn a_plan_of_the_reconciliation_and_of_its_rollback_only_reads() {
    let bench = Bench::start(60).await;
    for number in [1, 3] {
        bench.lose(&original(number)).await;
    }
    let (archive, endpoint) = (bench.archive(), format!("s3_endpoint={}", bench.proxy.url));
    let inputs = [
        archive.as_str(),
        &endpoint,
        "database=app",
        "known_key=known",
        "created_before=2026-01-01T00:00:00Z",
        "mode=apply",
    ];
    let mut plan = vec!["plan", "reconcile-images"];
    inputs.iter().for_each(|input| plan.extend(["-i", input]));
    let before = bench.content().await;
    let writes = bench.proxy.writes().len();
    let said = bench.expect(0, &plan).await;
    assert!(said.contains("nothing was changed") && said.contains(PHRASE), "{said}");
    assert_eq!(bench.content().await, before);
    assert_eq!(bench.proxy.writes()[writes..], [] as [String; 0]);
    assert!(!bench.folder.path().join("archive").exists(), "a plan makes no folder");

    let said = bench.reconcile(5, &[]).await;
    bench.answer(0, &said, PHRASE).await;
    assert_eq!(bench.images().await[&id(1)].0, "error");
    let (before, writes) = (bench.content().await, bench.proxy.writes().len());
    let prior = format!("prior_state={}.jsonl", run_in(&said));
    let rollback = ["plan", "rollback-reconcile-images", "-i", "database=app", "-i", &archive, "-i", &prior];
    let said = bench.expect(0, &rollback).await;
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(bench.content().await, before);
    assert_eq!(bench.proxy.writes()[writes..], [] as [String; 0]);
}
