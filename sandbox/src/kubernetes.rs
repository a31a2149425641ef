//! A real Kubernetes API server with its etcd, started on free ports with a folder of its own, and stopped with the test that started it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::database::mortal;
use crate::free_port;
use crate::installed::installed;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// The token that may do everything.
pub const ADMIN: &str = "admintoken";
/// The token that may do nothing.
pub const NOBODY: &str = "nobodytoken";

/// A running API server without anything that acts on its objects.
pub struct KubernetesServer {
    port: u16,
    folder: tempfile::TempDir,
    children: Vec<Child>,
}

/// What makes rules of Prometheus known to a cluster.
pub fn prometheus_rules() -> Value {
    let names = json!({
        "kind": "PrometheusRule", "listKind": "PrometheusRuleList", "plural": "prometheusrules", "singular": "prometheusrule",
    });
    let schema =
        json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let version = json!({ "name": "v1", "served": true, "storage": true, "schema": schema });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "prometheusrules.monitoring.coreos.com" },
        "spec": { "group": "monitoring.coreos.com", "scope": "Namespaced", "names": names, "versions": [version] },
    })
}

/// Where tests/kubernetes puts the program that it builds.
fn program() -> PathBuf {
    installed("kubernetes-1.20.2").join("bin/kube-apiserver")
}

fn port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl KubernetesServer {
    /// Whether there is one to start.
    pub fn is_built() -> bool {
        program().exists()
    }

    /// Starts a server. None where it was never built, which tests/kubernetes does.
    ///
    /// # Errors
    /// When it is there and does not become ready.
    pub async fn start() -> Result<Option<Self>> {
        if !Self::is_built() {
            return Ok(None);
        }
        free_port::start("address already in use", Self::try_start).await.map(Some)
    }

    async fn try_start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("runbook-kubernetes-").tempdir()?;
        let (clients, peers, api) = (port()?, port()?, port()?);
        let mut server = Self { port: api, folder, children: Vec::new() };
        server.keys()?;
        let at = format!("http://127.0.0.1:{clients}");
        let mut etcd = mortal(Path::new("etcd"));
        etcd.args(["--data-dir=etcd", "--unsafe-no-fsync", "--log-level=error"]);
        etcd.args([format!("--listen-client-urls={at}"), format!("--advertise-client-urls={at}")]);
        etcd.arg(format!("--listen-peer-urls=http://127.0.0.1:{peers}"));
        server.run(etcd, "etcd.log")?;
        let mut command = mortal(&program());
        command.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--cert-dir=certs"]);
        command.args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--token-auth-file=tokens.csv",
        ]);
        command.args(["--service-account-signing-key-file=sa.key", "--service-account-key-file=sa.pub"]);
        command.args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"]);
        command.args(["--disable-admission-plugins=ServiceAccount"]);
        command.args([format!("--etcd-servers={at}"), format!("--secure-port={api}")]);
        server.run(command, "api.log")?;
        server.answers().await?;
        Ok(server)
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The certificates of the authority that vouches for it, PEM.
    pub fn authorities(&self) -> PathBuf {
        self.folder.path().join("certs/apiserver.crt")
    }

    /// What tokens are signed with, and whose tokens there are.
    fn keys(&self) -> Result<()> {
        let run = |arguments: &[&str]| -> Result<()> {
            let output = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        run(&["genrsa", "-out", "sa.key", "2048"])?;
        run(&["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
        let tokens = format!("{ADMIN},admin,1,\"system:masters\"\n{NOBODY},nobody,2\n");
        Ok(fs::write(self.folder.path().join("tokens.csv"), tokens)?)
    }

    fn run(&mut self, mut command: Command, log: &str) -> Result<()> {
        let log = fs::File::create(self.folder.path().join(log))?;
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let shown = format!("{:?}", command.get_args().nth(1).unwrap_or_default());
        self.children.push(command.spawn().with_context(|| format!("{shown} can not be started"))?);
        Ok(())
    }

    async fn answers(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.is_ready().await.is_ok_and(|ready| ready) {
                return Ok(());
            }
            let ended = self.children.iter_mut().any(|child| matches!(child.try_wait(), Ok(Some(_))));
            if ended || begun.elapsed() > PATIENCE {
                let log = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
                bail!("the API server does not become ready: {}\n{}", log("etcd.log"), log("api.log"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the server answers to whoever may do everything. A body is an object for POST, and a merge patch for PATCH.
    ///
    /// # Errors
    /// When there is no answer, or no success.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.request(method, path)?;
        if let Some(body) = body {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", kind).body(body.to_string());
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{method} {path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Makes rules of Prometheus known, and waits until they are served.
    ///
    /// # Errors
    /// When the server does not take them.
    pub async fn serve_prometheus_rules(&self) -> Result<()> {
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.call("POST", definitions, Some(&prometheus_rules())).await?;
        let begun = Instant::now();
        while let Err(error) = self.call("GET", "/apis/monitoring.coreos.com/v1/prometheusrules", None).await
        {
            ensure!(begun.elapsed() < PATIENCE, "rules of Prometheus are not served: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// A kubeconfig for whoever may do everything, with these contexts.
    pub fn kubeconfig(&self, contexts: &[&str]) -> String {
        let context = |name: &&str| json!({ "name": name, "context": { "cluster": "it", "user": "it" } });
        let contexts: Vec<Value> = contexts.iter().map(context).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "it",
                "cluster": { "server": self.url(), "certificate-authority": self.authorities() },
            }],
            "users": [{ "name": "it", "user": { "token": ADMIN } }],
            "contexts": contexts,
        })
        .to_string()
    }

    fn request(&self, method: &str, path: &str) -> Result<reqwest::RequestBuilder> {
        let mut http = reqwest::Client::builder().no_proxy();
        for certificate in reqwest::Certificate::from_pem_bundle(&fs::read(self.authorities())?)? {
            http = http.add_root_certificate(certificate);
        }
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        Ok(http.build()?.request(method, format!("{}{path}", self.url())).bearer_auth(ADMIN))
    }

    async fn is_ready(&self) -> Result<bool> {
        Ok(self.request("GET", "/readyz")?.send().await?.status().is_success())
    }
}

impl Drop for KubernetesServer {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
