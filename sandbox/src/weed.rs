//! A real S3 store: SeaweedFS on free ports, its data in a folder that goes with it, stopped with the test that started it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::crypto;
use crate::database::mortal;
use crate::free_port;
use crate::installed::installed;
use crate::presign::Bucket;

/// The keys that the store knows.
pub const ACCESS_KEY: &str = "runbook-test";
/// The secret that belongs to it.
pub const SECRET_KEY: &str = "runbook-test-secret";

/// How long a store may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running store.
pub struct Weed {
    child: Child,
    folder: tempfile::TempDir,
    /// Where it answers.
    pub url: String,
}

/// A port that is free, with the one ten thousand above it, which SeaweedFS takes too.
fn port() -> u16 {
    loop {
        let port = 20_000 + u16::from_le_bytes(crypto::random()) % 12_000;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// Where the program is: where tests/run puts it, or on the PATH.
fn program() -> PathBuf {
    let installed = installed("seaweedfs-4.48").join("bin/weed");
    if installed.exists() { installed } else { PathBuf::from("weed") }
}

impl Weed {
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// When there is no such program, or it does not answer.
    pub async fn start() -> Result<Self> {
        free_port::start("address already in use", Self::try_start).await
    }

    async fn try_start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("runbook-s3-").tempdir()?;
        let rights = json!({ "identities": [{
            "name": "admin",
            "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }] });
        fs::write(folder.path().join("s3.json"), rights.to_string())?;
        let ports: Vec<u16> = (0..6).map(|_| port()).collect();
        let mut command = mortal(&program());
        // Where it is not told, it keeps logs in the folder for temporary files, and leaves them there.
        command.arg("-logdir=.");
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=500"]);
        command.args(["-master.volumeSizeLimitMB=64", "-dir=data", "-s3.config=s3.json"]);
        // What tests start tells nobody of itself.
        command.arg("-master.telemetry=false");
        let names =
            ["master.port", "volume.port", "filer.port", "s3.port", "s3.port.lance", "s3.port.iceberg"];
        command.args(names.iter().zip(&ports).map(|(name, port)| format!("-{name}={port}")));
        fs::create_dir(folder.path().join("data"))?;
        let log = fs::File::create(folder.path().join("log"))?;
        let command = command.current_dir(folder.path()).stdin(Stdio::null()).stdout(log.try_clone()?);
        let child = command.stderr(log).spawn();
        let child = child.context("`weed` of SeaweedFS can not be started: install it, as tests/run does")?;
        let mut weed = Self { child, url: format!("http://127.0.0.1:{}", ports[3]), folder };
        weed.answers().await?;
        Ok(weed)
    }

    async fn answers(&mut self) -> Result<()> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let begun = Instant::now();
        loop {
            // Without a signature nothing is listed: that it says so is enough.
            let answer = http.get(&self.url).send().await;
            if answer.is_ok_and(|answer| answer.status() == 403) {
                return Ok(());
            }
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("SeaweedFS does not answer: {log}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// When the store does not make it.
    pub async fn make_bucket(&self, name: &str) -> Result<()> {
        self.put(name, "", Vec::new()).await.context("the bucket is not made")
    }

    /// Puts an object into a bucket.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn put(&self, name: &str, key: &str, content: Vec<u8>) -> Result<()> {
        let bucket = Bucket {
            endpoint: self.url.parse()?,
            name: name.to_owned(),
            region: "us-east-1".to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
        };
        let http = reqwest::Client::builder().no_proxy().build()?;
        let answer = http.put(bucket.presigned("PUT", key, &[], 60)?).body(content).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// The settings of a connection to one of its buckets.
    pub fn bucket(&self, name: &str) -> Value {
        json!({ "type": "s3", "bucket": name, "endpoint": self.url, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY })
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
