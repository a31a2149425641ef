//! The API as a workload of a cluster, which is read and changed by `kubectl` when no input says otherwise.

use std::fs;

use runbook_sandbox::workload::Workload;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::site::Site;
use crate::{Bench, PHRASE, run_in};

const KUBECTL: &str = include_str!("kubectl.sh");
/// The inputs that say nothing of commands.
const BY_ITSELF: [&str; 2] = ["running_command=ABSENT", "log_command=ABSENT"];

/// Whether there is a `kubectl`.
fn is_there() -> bool {
    let found = std::process::Command::new("kubectl").args(["version", "--client"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("LEFT OUT: there is no kubectl");
    }
    found
}

/// The API of a site as a workload, which says that attachments are kept on its own disk. It wants no pod, so that its rollout is over
/// when its controller has seen it; two are there all the same, of which one is being ended and was started in the wrong way.
async fn workload(bench: &Bench, cluster: &Cluster, site: &Site, environment: &str) -> Workload {
    let namespace = format!("chat-{environment}");
    let api = Workload::create(&cluster.server, "Deployment", &namespace, "gotong-api", 0).await.unwrap();
    let variable = |(name, value): (&str, String)| json!({ "name": name, "value": value });
    let input = |name: &str| {
        let inputs = site.inputs(bench);
        let found = inputs.iter().find_map(|input| input.strip_prefix(name)?.strip_prefix('='));
        found.unwrap().to_owned()
    };
    let variables: Vec<Value> = [
        ("CHAT_ATTACHMENT_STORAGE_BACKEND", "local".to_owned()),
        ("S3_ENDPOINT", input("s3_endpoint")),
        ("S3_BUCKET", input("bucket")),
        ("S3_SECRET_KEY", "in the clear".to_owned()),
        ("APP_ENV", environment.to_uppercase()),
    ]
    .into_iter()
    .map(variable)
    .collect();
    let container = json!({ "name": "main", "image": "example/api:1", "env": variables });
    let body = json!({ "spec": { "template": { "spec": { "containers": [container] } } } });
    cluster.server.call("PATCH", &api.path(), Some(&body)).await.unwrap();
    for pod in ["new", "old"] {
        api.pod(pod).await.unwrap();
    }
    let held = json!({ "metadata": { "finalizers": ["example.com/held"] } });
    let old = format!("/api/v1/namespaces/{namespace}/pods/old");
    cluster.server.call("PATCH", &old, Some(&held)).await.unwrap();
    api.end("old").await.unwrap();
    api
}

/// What a workload hands to its API as the backend, and when it was last told to be started anew.
async fn told(api: &Workload) -> (String, Option<String>) {
    let template = &api.object().await.unwrap()["spec"]["template"];
    let variables = template["spec"]["containers"][0]["env"].as_array().unwrap();
    let backend = variables.iter().find(|one| one["name"] == "CHAT_ATTACHMENT_STORAGE_BACKEND").unwrap();
    let at = &template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"];
    (backend["value"].as_str().unwrap().to_owned(), at.as_str().map(str::to_owned))
}

#[tokio::test]
async fn in_a_cluster_its_workload_is_set_and_in_production_after_the_approval() {
    if !is_there() {
        return;
    }
    let Some((bench, cluster)) = Bench::with_cluster().await else { return };
    bench.program("kubectl", KUBECTL);
    fs::write(bench.path("bin/new.log"), "2026-02-01T12:00:00Z  INFO storage is ready\n").unwrap();
    fs::write(bench.path("bin/old.log"), "falling back to local chat attachment storage\n").unwrap();
    let (staging, production) = (bench.site("staging").await, bench.site("production").await);
    let api = workload(&bench, &cluster, &staging, "staging").await;
    let of_staging = [&BY_ITSELF[..], &["api_namespace=chat-staging"]].concat();

    let run = run_in(&bench.exec(&staging, 5, &of_staging).await);
    let said = bench.expect("ada", 5, &["answer", &run, PHRASE]).await;
    assert!(said.contains("RESTART THE API"), "{said}");
    assert_eq!(told(&api).await, ("local".to_owned(), None));
    let said = bench.expect("ada", 0, &["answer", &run, "RESTART THE API"]).await;
    // To set it starts new pods: nothing is restarted besides.
    assert_eq!(told(&api).await, ("s3".to_owned(), None), "{said}");
    let (proof, report) = bench.report("staging");
    assert_eq!(report["verdict"], "PASS");
    let report = report.to_string();
    assert!(!report.contains("in the clear") && !report.contains("of the pod"), "{report}");

    // Pods that do not run with what the workload says are restarted.
    fs::write(bench.path("bin/stale"), "local\n").unwrap();
    let run = run_in(&bench.exec(&staging, 5, &of_staging).await);
    bench.expect("ada", 0, &["answer", &run, "RESTART THE API"]).await;
    let (backend, restarted) = told(&api).await;
    assert!(backend == "s3" && restarted.is_some(), "{backend} {restarted:?}");

    // What is started anew and falls back is told by its log.
    fs::write(bench.path("bin/new.log"), "WARN falling back to local chat attachment storage (x)\n").unwrap();
    let said = bench.exec(&staging, 4, &of_staging).await;
    assert!(
        said.contains("must not be there: WARN falling back to local chat attachment storage (x)"),
        "{said}"
    );
    bench.cancel(&said).await;
    fs::write(bench.path("bin/new.log"), "{\"level\":\"INFO\"}\n").unwrap();

    let api = workload(&bench, &cluster, &production, "production").await;
    let proof = format!("staging_report={}", proof.display());
    let of_production = [&BY_ITSELF[..], &["api_namespace=chat-production", &proof]].concat();
    let run = run_in(&bench.exec(&production, 5, &of_production).await);
    for phrase in [PHRASE, "RESTART THE API"] {
        bench.expect("ada", 5, &["answer", &run, phrase]).await;
    }
    let shown = bench.expect("ada", 0, &["show", &run, "--json"]).await;
    assert!(shown.contains("set to s3 and restarted, was CHAT_ATTACHMENT_STORAGE_BACKEND=local"), "{shown}");
    assert_eq!(told(&api).await, ("local".to_owned(), None), "nothing is changed before the approval");
    bench.expect("bob", 0, &["answer", &run, "approve"]).await;
    assert_eq!(told(&api).await, ("s3".to_owned(), None));
    let called = fs::read_to_string(bench.path("bin/kubectl.called")).unwrap();
    // The recipes look only.
    let here = |line: &str| {
        line.contains("--context staging")
            || line.contains("--context production")
            || line.starts_with("config ")
    };
    assert!(called.lines().all(here), "never the current context: {called}");
}

#[tokio::test]
async fn without_a_cluster_and_without_commands_it_is_said_what_is_missing() {
    let bench = Bench::start().await;
    let site = bench.site("sandbox").await;
    let said = bench.exec(&site, 4, &BY_ITSELF).await;
    assert!(said.contains("give running_command and the commands that stand beside it"), "{said}");
}
