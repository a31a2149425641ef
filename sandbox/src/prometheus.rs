//! A real Prometheus server, started on a free port with a folder of its own, and stopped with the test that started it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::database::mortal;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server that looks at its targets four times a second.
pub struct PrometheusServer {
    port: u16,
    folder: tempfile::TempDir,
    child: Child,
}

impl PrometheusServer {
    /// Starts a server that reads `/metrics` of each of these targets, which are given as a job and `HOST:PORT`, and waits until it has.
    ///
    /// # Errors
    /// When there is no such program, or it does not become ready.
    pub async fn start(targets: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("runbook-prometheus-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let jobs: Vec<_> = targets
            .iter()
            .map(|(job, target)| json!({ "job_name": job, "static_configs": [{ "targets": [target] }] }))
            .collect();
        let config = json!({
            "global": { "scrape_interval": "250ms", "scrape_timeout": "250ms" },
            "scrape_configs": jobs,
        });
        // JSON is YAML too.
        fs::write(folder.path().join("prometheus.yml"), config.to_string())?;
        let mut command = mortal(Path::new("prometheus"));
        command.current_dir(folder.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let log = fs::File::create(folder.path().join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.context("prometheus can not be started: install it, as tests/run does")?;
        let mut server = Self { port, folder, child };
        // It takes up its targets a few seconds after it is ready.
        let looked = format!("{}/api/v1/query?query=count(up)+==+{}", server.url(), targets.len());
        server.answers(&format!("{}/-/ready", server.url()), "").await?;
        if !targets.is_empty() {
            server.answers(&looked, "\"value\"").await?;
        }
        Ok(server)
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until a request is answered with this text.
    async fn answers(&mut self, url: &str, text: &str) -> Result<()> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let begun = Instant::now();
        loop {
            if let Ok(answer) = http.get(url).send().await
                && answer.status().is_success()
                && answer.text().await?.contains(text)
            {
                return Ok(());
            }
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("the server does not answer {url} as it should: {log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
