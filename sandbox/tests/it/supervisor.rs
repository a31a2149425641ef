use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use runbook_sandbox::{Options, Server};
use serde_json::Value;

use crate::client::{SANDBOX, Sandbox, few};

fn sandbox(arguments: &[&str]) -> Output {
    let flags = ["chatkit", "--attachments", "3", "--tiny", "--restore", "2"];
    Command::new(SANDBOX).args(flags).args(arguments).output().unwrap()
}

fn alive(pid: u64) -> bool {
    // A zombie still has its entry, but has ended.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pids(state: &Value) -> [u64; 2] {
    ["gateway", "store"].map(|name| state[name]["pid"].as_u64().unwrap())
}

#[test]
fn the_command_gets_the_environment_and_gives_the_exit_code() {
    let script = "cat \"$RUNBOOK_INPUTS\"; echo \"$SANDBOX_DIR\" >&2; exit 7";
    let output = sandbox(&["--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7));
    let inputs: Value = serde_yaml::from_slice(&output.stdout).unwrap();
    assert_eq!(inputs["environment"], "sandbox");
    assert_eq!(inputs["restore_ids"].as_array().unwrap().len(), 2);
    assert_eq!(inputs["restart_command"][1], "restart");
    let time = |name: &str| inputs[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("window_start") < jiff::Timestamp::now());
    assert!(time("window_end").duration_since(jiff::Timestamp::now()).as_mins() > 170);
    let dir = String::from_utf8(output.stderr).unwrap();
    assert!(!Path::new(dir.trim()).exists(), "a temporary directory is removed: {dir}");

    assert_eq!(sandbox(&["--", "sh", "-c", "kill -KILL $$"]).status.code(), Some(128 + 9));
    assert_eq!(sandbox(&["--", "/no/such/program"]).status.code(), Some(127));
    assert_eq!(sandbox(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn a_given_directory_is_kept_and_must_be_empty() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("kept");
    let dir = dir.to_str().unwrap();
    let output = sandbox(&["--dir", dir, "--ready-json", "--", "true"]);
    assert!(output.status.success());
    let ready: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(ready["CHATKIT_LOG"], format!("{dir}/gateway.log"));
    for name in ["store.db", "gateway.env", "gateway.log", "gateway.err", "inputs.yaml", "archive"] {
        assert!(Path::new(dir).join(name).exists(), "{name}");
    }
    let again = sandbox(&["--dir", dir, "--", "true"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"));
}

#[test]
fn a_signal_reaches_the_command_and_the_sandbox_outlives_it() {
    for (signal, code) in [("TERM", 41), ("INT", 42)] {
        let script = "trap 'sleep 0.3; curl -sf \"$FOUNTAINSTORE_URL/health\" >/dev/null && exit 41' TERM
            trap 'sleep 0.3; exit 42' INT
            echo up; while :; do sleep 0.05; done";
        let mut child = Command::new(SANDBOX)
            .args(["chatkit", "--attachments", "1", "--tiny", "--", "bash", "-c", script])
            // Not the terminal's foreground group, where the sandbox leaves SIGINT to the terminal.
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
}

#[tokio::test]
async fn nothing_lingers_when_the_supervisor_is_killed() {
    let sandbox = Sandbox::few().await;
    let servers = pids(&sandbox.state().await.unwrap());
    assert!(servers.iter().all(|pid| alive(*pid)));
    let supervisor = sandbox.pid().unwrap().to_string();
    assert!(Command::new("kill").args(["-KILL", &supervisor]).status().unwrap().success());
    wait_until("a server still runs", || servers.iter().all(|pid| !alive(*pid)));
}

#[tokio::test]
async fn the_end_of_standard_input_ends_everything_in_order() {
    let sandbox = Sandbox::few().await;
    let servers = pids(&sandbox.state().await.unwrap());
    sandbox.into_chatkit().stop().await.unwrap();
    assert!(servers.iter().all(|pid| !alive(*pid)));
}

#[tokio::test]
async fn a_restart_keeps_port_and_log_and_takes_a_new_process() {
    let sandbox = Sandbox::few().await;
    let secret = sandbox.secret().await;
    sandbox.upload(&secret, "text/plain", b"one").await;
    let before = sandbox.state().await.unwrap();
    let output = tokio::process::Command::new(SANDBOX)
        .args(["restart", "--control", sandbox.control_url(), "gateway"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let after = sandbox.state().await.unwrap();
    assert_ne!(after["gateway"]["pid"], before["gateway"]["pid"]);
    assert_eq!(after["gateway"]["restarts"], 1);
    assert_eq!(after["store"], before["store"]);
    let secret = sandbox.secret().await;
    sandbox.upload(&secret, "text/plain", b"two").await;
    assert_eq!(sandbox.events().await.unwrap().len(), 2, "the log goes on where it was");

    sandbox.kill(Server::Gateway).await.unwrap();
    assert_eq!(sandbox.state().await.unwrap()["gateway"]["up"], false);
    sandbox.restart(Server::Gateway).await.unwrap();
    assert_eq!(sandbox.state().await.unwrap()["gateway"]["up"], true);

    let nobody = Command::new(SANDBOX).args(["restart", "--control", "http://127.0.0.1:9", "store"]).output();
    assert_eq!(nobody.unwrap().status.code(), Some(1));
}

#[tokio::test]
async fn a_gateway_that_cannot_start_fails_the_restart() {
    let sandbox = Sandbox::few().await;
    std::fs::remove_file(sandbox.env_file()).unwrap();
    let error = sandbox.restart(Server::Gateway).await.unwrap_err().to_string();
    assert!(error.contains("gateway.env"), "{error}");
}

#[tokio::test]
async fn the_seed_decides_the_contents_and_they_are_as_varied_as_real_ones() {
    let options = Options { attachments: 120, orphans: 4, restore: 9, tiny: false, ..few() };
    let (one, two) = tokio::join!(Sandbox::start(&options), Sandbox::start(&options));
    let ids = one.doc_ids("attachments").await.unwrap();
    assert_eq!(ids, two.doc_ids("attachments").await.unwrap());
    let metadata = one.documents("attachment-metadata").await.unwrap();
    assert_eq!((ids.len(), metadata.len()), (124, 120));
    assert_eq!(one.documents("threads").await.unwrap().len(), 2);

    let distinct = |name: &str| metadata.iter().map(|d| d[name].to_string()).collect::<BTreeSet<_>>().len();
    assert_eq!(distinct("mimeType"), 8);
    let times = distinct("storedAt");
    assert!((80..120).contains(&times), "several attachments were stored at the same time: {times}");
    let threaded = metadata.iter().filter(|d| d.get("threadId").is_some()).count();
    assert!((20..60).contains(&threaded), "{threaded}");
    let sizes: Vec<u64> = metadata.iter().map(|d| d["sizeBytes"].as_u64().unwrap()).collect();
    assert!(*sizes.iter().min().unwrap() < 100 && *sizes.iter().max().unwrap() > 100_000);
    assert!(metadata.iter().any(|d| !d["fileName"].as_str().unwrap().is_ascii()));
    let oldest = metadata.iter().map(|d| d["storedAt"].as_str().unwrap()).min().unwrap();
    let age = jiff::Timestamp::now().duration_since(oldest.parse().unwrap());
    assert!(age.as_hours() < 24, "younger than the time to live, or the cleanup would take it: {age}");

    let inputs: Value = serde_yaml::from_str(&std::fs::read_to_string(one.inputs()).unwrap()).unwrap();
    let restore: Vec<&str> =
        inputs["restore_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(restore.iter().collect::<BTreeSet<_>>().len(), 9);
    let kinds: BTreeSet<_> = metadata
        .iter()
        .filter(|d| restore.contains(&d["attachmentId"].as_str().unwrap()))
        .map(|d| d["mimeType"].to_string())
        .collect();
    assert_eq!(kinds.len(), 8);
}
