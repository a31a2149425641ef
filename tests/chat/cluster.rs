//! The cluster whose Prometheus gets the alerts, and what an application brings for it.

use std::fs;
use std::sync::Arc;

use runbook_sandbox::application::{self, monitoring};
use runbook_sandbox::kubernetes::KubernetesServer;
use serde_json::{Value, json};

use crate::Bench;

/// A cluster with a namespace for each environment.
pub struct Cluster {
    /// Its API.
    pub server: Arc<KubernetesServer>,
}

impl Cluster {
    /// Starts it; none where its server was never built.
    pub async fn start() -> Option<Self> {
        let Some(server) = application::cluster(&["staging", "production"]).await.unwrap() else {
            eprintln!("LEFT OUT: there is no kube-apiserver; tests/kubernetes builds it");
            return None;
        };
        Some(Self { server: Arc::new(server) })
    }

    /// Writes what leads to it, and the alerts.
    pub fn introduce(&self, bench: &Bench) {
        let kubeconfig = self.server.kubeconfig(&["staging", "production"]);
        let mut kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
        // What a person worked with last.
        kubeconfig["current-context"] = json!("production");
        fs::write(bench.path("kubeconfig"), kubeconfig.to_string()).unwrap();
        application::check_out(&bench.path("app")).unwrap();
    }

    /// The condition of the alert that is there in an environment; nothing when it is not.
    pub async fn alert(&self, environment: &str) -> Value {
        let found = self.server.call("GET", &alerts(environment), None).await.unwrap_or_default();
        found.pointer("/spec/groups/0/rules/0/expr").cloned().unwrap_or_default()
    }

    /// Sets the alert as somebody else.
    pub async fn meddle(&self, environment: &str, expr: &str) {
        let rule = json!({ "alert": "GotongChatAttachmentUploadP95LatencyWarning", "expr": expr });
        let spec = json!({ "groups": [{ "name": "chat-attachment", "rules": [rule] }] });
        let path = format!("{}?fieldManager=helm", alerts(environment));
        self.server.call("PATCH", &path, Some(&json!({ "spec": spec }))).await.unwrap();
    }
}

fn alerts(environment: &str) -> String {
    let namespace = monitoring(environment);
    format!(
        "/apis/monitoring.coreos.com/v1/namespaces/{namespace}/prometheusrules/gotong-chat-attachment-lifecycle"
    )
}
