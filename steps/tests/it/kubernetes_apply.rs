//! `kubernetes-apply`, against a real API server.

use std::fs;
use std::time::{Duration, Instant};

use runbook_engine::error::{ErrorKind, StepError};
use runbook_sandbox::kubernetes::{ADMIN, KubernetesServer, NOBODY, prometheus_rules};
use serde_json::{Value, json};

use crate::common::{Bench, planned};

/// The alerts.
const RULE: &str = "
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: { name: gotong-chat-attachment-lifecycle, labels: { gotong.monitoring.domain: chat-attachment } }
spec:
  groups:
    - name: chat-attachment
      interval: 30s
      rules:
        - { alert: GotongChatAttachmentUploadP95LatencyWarning, expr: 'max(x) > 0.75', for: 15m, labels: { severity: warning } }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: limits, namespace: monitoring }
data: { days: '45' }
";

struct Cluster {
    server: KubernetesServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// A run with one step of this mode.
    async fn bench(&self, mode: &str, manifest: &str, more: Value) -> Bench {
        let file = self.folder.path().join("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        let mut with = json!({ "connection": "cluster", "mode": mode, "files": file });
        let mut connection = json!({ "type": "kubernetes", "server": self.server.url(), "token": ADMIN, "ca_file": self.server.authorities() });
        for (name, value) in more.as_object().unwrap() {
            let into = if matches!(name.as_str(), "token" | "server") { &mut connection } else { &mut with };
            into[name] = value.clone();
        }
        let step = planned("it", "kubernetes-apply", with);
        Bench::new(vec![step], json!({ "cluster": connection }), json!({})).await
    }

    /// What it comes to.
    async fn run(&self, mode: &str, manifest: &str, more: Value) -> Result<Value, StepError> {
        self.bench(mode, manifest, more).await.enter("it").await
    }

    async fn gate(&self, mode: &str, manifest: &str, more: Value, told: &str) {
        let error = self.run(mode, manifest, more).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Gate | ErrorKind::Refused | ErrorKind::Invalid), "{error:?}");
        assert!(error.message.contains(told), "{}", error.message);
    }
}

#[tokio::test]
async fn manifests_are_planned_applied_and_verified_by_the_server_itself() {
    let Some(server) = KubernetesServer::start().await.unwrap() else {
        // Building it takes ten minutes, so it is not part of every run of the tests.
        eprintln!("LEFT OUT: there is no kube-apiserver; tests/kubernetes builds it");
        return;
    };
    let cluster = Cluster { server, folder: tempfile::tempdir().unwrap() };
    let monitoring = json!({ "namespace": "monitoring" });
    cluster.gate("plan", RULE, monitoring.clone(), "PrometheusRule").await;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "monitoring" } });
    let before = format!("{}\n---\n{namespace}\n", prometheus_rules());
    let made = cluster.run("apply", &before, json!({})).await.unwrap();
    assert_eq!((&made["created"], &made["unchanged"]), (&json!(2), &json!(0)), "{made}");

    // A plan and a look change nothing. It takes a moment until a new kind is served.
    let until = Instant::now() + Duration::from_secs(30);
    let planned = loop {
        match cluster.run("plan", RULE, monitoring.clone()).await {
            Ok(planned) => break planned,
            Err(error) => assert!(Instant::now() < until, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((&planned["created"], &planned["objects"][0]["action"]), (&json!(2), &json!("create")));
    cluster
        .gate(
            "verify",
            RULE,
            monitoring.clone(),
            "there is no PrometheusRule monitoring/gotong-chat-attachment-lifecycle",
        )
        .await;

    let made = cluster.run("apply", RULE, monitoring.clone()).await.unwrap();
    assert_eq!(made["created"], 2);
    cluster.run("verify", RULE, monitoring.clone()).await.unwrap();
    let again = cluster.run("apply", RULE, monitoring.clone()).await.unwrap();
    assert_eq!(
        (&again["created"], &again["changed"], &again["unchanged"]),
        (&json!(0), &json!(0), &json!(2))
    );

    // Another value: told by where it is, and made so.
    let other = RULE.replace("0.75", "0.5").replace("'45'", "'30'");
    let planned = cluster.run("plan", &other, monitoring.clone()).await.unwrap();
    assert_eq!(planned["changed"], 2);
    assert_eq!(planned["objects"][0]["fields"], json!(["/spec/groups/0/rules/0/expr"]));
    assert_eq!(planned["objects"][1]["fields"], json!(["/data/days"]));
    cluster.gate("verify", &other, monitoring.clone(), "is another at /data/days").await;
    cluster.run("apply", &other, monitoring.clone()).await.unwrap();
    cluster.run("verify", &other, monitoring.clone()).await.unwrap();

    // Somebody else sets a field: a conflict names them, and nothing is taken over unasked.
    let theirs = json!({ "namespace": "monitoring", "field_manager": "helm", "force": true });
    cluster.run("apply", RULE, theirs).await.unwrap();
    cluster.gate("apply", &other, monitoring.clone(), "helm").await;
    cluster.run("verify", RULE, json!({ "namespace": "monitoring", "field_manager": "helm" })).await.unwrap();
    cluster.run("apply", &other, json!({ "namespace": "monitoring", "force": true })).await.unwrap();

    bound(&cluster).await;
    refusals(&cluster).await;
}

/// A manifest that was changed after a plan of it was reviewed is not applied.
async fn bound(cluster: &Cluster) {
    let monitoring = json!({ "namespace": "monitoring", "force": true });
    let mut reviewed = cluster.bench("apply", &RULE.replace("'45'", "'60'"), monitoring.clone()).await;
    let seen = reviewed.foresee("it").await.unwrap().binds;
    assert_eq!(seen.len(), 1, "{seen:?}");
    reviewed.review("it", &seen);
    let file = cluster.folder.path().join("manifest.yaml");
    let planned = fs::read_to_string(&file).unwrap();
    fs::write(&file, planned.replace("'60'", "'1'")).unwrap();
    let error = reviewed.enter("it").await.unwrap_err();
    assert!(error.kind == ErrorKind::Drift && error.message.contains("manifest.yaml"), "{error:?}");
    cluster.gate("verify", &planned, monitoring, "is another at /data/days").await;
    reviewed.enter("it").await.unwrap();
}

async fn refusals(cluster: &Cluster) {
    let monitoring = json!({ "namespace": "monitoring" });
    cluster.gate("apply", RULE, json!({}), "names no namespace").await;
    cluster.gate("apply", RULE, json!({ "namespace": "default" }), "is of the namespace monitoring").await;
    cluster.gate("apply", RULE, json!({ "namespace": "monitoring", "token": NOBODY }), "status 403").await;
    cluster.gate("apply", RULE, json!({ "namespace": "monitoring", "token": "wrong" }), "status 401").await;
    cluster.gate("apply", &RULE.replace("ConfigMap", "ConfigMop"), monitoring.clone(), "ConfigMop").await;
    cluster
        .gate(
            "apply",
            &RULE.replace("days: '45'", "'bad key!': x"),
            json!({ "namespace": "monitoring", "force": true }),
            "ConfigMap monitoring/limits",
        )
        .await;
    let away = json!({ "namespace": "monitoring", "server": "https://127.0.0.1:1" });
    assert_eq!(cluster.run("plan", RULE, away).await.unwrap_err().kind, ErrorKind::Transient);
}
