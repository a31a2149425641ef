//! A real S3 store for one test: SeaweedFS on free ports, its data in a folder that goes with it.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

/// The keys that the store knows.
pub const ACCESS_KEY: &str = "runbook-test";
/// The secret that belongs to it.
pub const SECRET_KEY: &str = "runbook-test-secret";

/// A running store.
pub struct Weed {
    child: Child,
    _folder: tempfile::TempDir,
    /// Where it answers.
    pub url: String,
}

/// A port that is free, with the one ten thousand above it, which SeaweedFS takes too.
fn port() -> u16 {
    loop {
        let mut drawn = [0; 2];
        getrandom::fill(&mut drawn).unwrap();
        let port = 20_000 + u16::from_le_bytes(drawn) % 12_000;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// Where the program is: on the PATH, or where tests/run puts it.
fn program() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
    let installed = cache.join("runbook/seaweedfs-4.48/bin/weed");
    if installed.exists() { installed } else { PathBuf::from("weed") }
}

impl Weed {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rights = json!({ "identities": [{
            "name": "admin",
            "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }] });
        std::fs::write(folder.path().join("s3.json"), rights.to_string()).unwrap();
        let ports: Vec<u16> = (0..6).map(|_| port()).collect();
        let mut command = Command::new(program());
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=50"]);
        command.args(["-master.volumeSizeLimitMB=64", "-dir=data", "-s3.config=s3.json"]);
        let names =
            ["master.port", "volume.port", "filer.port", "s3.port", "s3.port.lance", "s3.port.iceberg"];
        command.args(names.iter().zip(&ports).map(|(name, port)| format!("-{name}={port}")));
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("`weed` of SeaweedFS, which tests/run installs: {error}"));
        let weed = Self { child, url: format!("http://127.0.0.1:{}", ports[3]), _folder: folder };
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            // Without a signature nothing is listed: that it says so is enough.
            let answer = reqwest::get(&weed.url).await;
            if answer.is_ok_and(|answer| answer.status() == 403) {
                return weed;
            }
            assert!(Instant::now() < until, "SeaweedFS does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
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
