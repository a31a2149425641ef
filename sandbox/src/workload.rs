//! A workload of a Kubernetes cluster in which nothing acts on objects, with what its controller would do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::kubernetes::KubernetesServer;

/// A Deployment or StatefulSet whose status follows its number of replicas while its controller works. It has no pods but those that
/// are made by hand.
pub struct Workload {
    server: Arc<KubernetesServer>,
    /// Its kind, in lower case and plural.
    plural: &'static str,
    namespace: String,
    name: String,
    works: Arc<AtomicBool>,
    controller: JoinHandle<()>,
}

impl Workload {
    /// Makes a workload with this number of replicas, and its namespace where it is not there. Waits until the controller has seen it.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn create(
        server: &Arc<KubernetesServer>,
        kind: &str,
        namespace: &str,
        name: &str,
        replicas: u32,
    ) -> Result<Self> {
        let plural = if kind == "Deployment" { "deployments" } else { "statefulsets" };
        let body = json!({ "metadata": { "name": namespace } });
        // It may be there.
        let _ = server.call("POST", "/api/v1/namespaces", Some(&body)).await;
        let body = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name },
            "spec": {
                "replicas": replicas, "serviceName": name,
                "selector": { "matchLabels": { "app": name } },
                "template": {
                    "metadata": { "labels": { "app": name } },
                    "spec": { "containers": [{ "name": "main", "image": "example/gateway:1" }] },
                },
            },
        });
        server.call("POST", &format!("/apis/apps/v1/namespaces/{namespace}/{plural}"), Some(&body)).await?;
        let works = Arc::new(AtomicBool::new(true));
        let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}/{name}");
        let controller = tokio::spawn(controller(Arc::clone(server), path, Arc::clone(&works)));
        let server = Arc::clone(server);
        let workload = Self {
            server,
            plural,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            works,
            controller,
        };
        while workload.object().await?["status"]["observedGeneration"].is_null() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(workload)
    }

    /// Lets the controller work, or not.
    pub fn works(&self, works: bool) {
        self.works.store(works, Ordering::SeqCst);
    }

    /// The object.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn object(&self) -> Result<Value> {
        self.server.call("GET", &self.path(), None).await
    }

    /// How many replicas are wanted.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn replicas(&self) -> Result<i64> {
        Ok(self.object().await?["spec"]["replicas"].as_i64().unwrap_or_default())
    }

    /// Scales it as somebody else would.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn scale(&self, replicas: u32) -> Result<()> {
        let body = json!({ "spec": { "replicas": replicas } });
        self.server.call("PATCH", &self.path(), Some(&body)).await.map(drop)
    }

    /// Makes a pod of it, which ends when it is deleted.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn pod(&self, name: &str) -> Result<()> {
        let body = json!({
            "metadata": { "name": name, "labels": { "app": self.name } },
            "spec": { "containers": [{ "name": "main", "image": "example/gateway:1" }] },
        });
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        self.server.call("POST", &path, Some(&body)).await.map(drop)
    }

    /// Deletes a pod of it.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn end(&self, pod: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", self.namespace);
        self.server.call("DELETE", &path, None).await.map(drop)
    }

    /// Waits until this many replicas are wanted.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wanted(&self, replicas: i64) -> Result<()> {
        let begun = Instant::now();
        while self.replicas().await? != replicas {
            ensure!(begun.elapsed() < Duration::from_secs(30), "it never was scaled to {replicas}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Where the object is.
    pub fn path(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/{}/{}", self.namespace, self.plural, self.name)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

/// Says that there are as many pods as are wanted.
async fn controller(server: Arc<KubernetesServer>, path: String, works: Arc<AtomicBool>) {
    loop {
        if works.load(Ordering::SeqCst)
            && let Ok(object) = server.call("GET", &path, None).await
        {
            let (generation, replicas) = (&object["metadata"]["generation"], &object["spec"]["replicas"]);
            let status = json!({ "observedGeneration": generation, "replicas": replicas });
            let body = json!({ "status": status });
            if object["status"]["observedGeneration"] != *generation {
                // It is tried again.
                let _ = server.call("PATCH", &format!("{path}/status"), Some(&body)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
