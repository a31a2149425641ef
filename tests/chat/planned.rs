//! A plan of the procedure: reads and nothing else.

use std::fs;

use crate::Bench;

#[tokio::test]
async fn a_plan_only_reads() {
    let Some((bench, cluster)) = Bench::with_cluster().await else { return };
    let site = bench.site("staging").await;
    site.set_rules(&[("logs/", 7), ("chat-attachments/staging/", 60)]).await;
    let inputs = site.inputs(&bench);
    let mut plan = vec!["plan", "chat-attachment-lifecycle"];
    inputs.iter().for_each(|input| plan.extend(["-i", input]));
    let before = (site.rules().await, site.keys().await, bench.evidence());
    let names = ["app.staging.example", "s3.staging.example", "prometheus.staging.example", "github.example"];
    let asked = || names.iter().flat_map(|name| bench.names.asked(name)).collect::<Vec<_>>();
    let from = asked().len();
    let said = bench.expect("ada", 0, &plan).await;
    assert!(said.contains("nothing was changed") && said.contains(crate::PHRASE), "{said}");
    assert_eq!((site.rules().await, site.keys().await, bench.evidence()), before);
    let asked = asked();
    assert!(asked.len() > from, "it did look");
    // Prometheus takes queries by POST.
    let reads = |line: &&String| {
        line.starts_with("GET ")
            || line.starts_with("HEAD ")
            || line.starts_with("POST http://prometheus.") && line.contains("/api/v1/query")
    };
    let others: Vec<&String> = asked.iter().filter(|line| !reads(line)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(
        said.contains("make PrometheusRule monitoring-staging/gotong-chat-attachment-lifecycle"),
        "{said}"
    );
    assert!(cluster.alert("staging").await.is_null());
    // Of the recipes, the one that only looks.
    let called = bench.called();
    assert!(called.lines().all(|line| line.contains("chat-attachment-alerts-verify")), "{called}");
    let reports = fs::read_dir(bench.path("app/docs/research")).map_or(0, Iterator::count);
    assert_eq!(reports, 0, "no report is written");
}
