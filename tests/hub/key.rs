//! `runbooks/make-badge-key.yaml`: the key that a reset wants the hub to have.

use std::os::unix::fs::PermissionsExt as _;

use crate::bench::{Bench, run_in};

/// A hub that runs without a key, and the start of a command line that gives it one.
async fn keyless(bench: &Bench) -> Vec<String> {
    let file = bench.kit.var("HUB_ENV_FILE");
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("RING_HUB_PRIVATE_KEY")).collect();
    std::fs::write(file, lines.join("\n") + "\n").unwrap();
    bench.kit.order("restart", "hub-api").await.unwrap();
    ["exec", "make-badge-key", "--inputs", bench.kit.var("HUB_KEY_INPUTS")].map(str::to_owned).into()
}

#[tokio::test]
async fn a_hub_without_a_key_gets_one_that_a_reset_takes() {
    let mut bench = Bench::start().await;
    let exec = keyless(&bench).await;
    let exec: Vec<&str> = exec.iter().map(String::as_str).collect();
    let file = bench.path("badge-key");
    // A plan of it only reads.
    let environment = || std::fs::read(bench.kit.var("HUB_ENV_FILE")).unwrap();
    let before = environment();
    let said = bench.expect(0, &[&["plan"][..], &exec[1..]].concat()).await;
    assert!(said.contains("SET THE KEY") && !file.exists() && environment() == before, "{said}");
    bench.assert_untouched().await;
    let said = bench.expect(5, &exec).await;
    assert!(!file.exists(), "nothing is made before the answer");
    let said = bench.expect(0, &["answer", &run_in(&said), "SET THE KEY"]).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let same = "base64 -d badge-key | openssl pkey -pubout | cmp - badge-key.pub";
    let (code, typed) = bench.type_line(&format!("cd {} && {same}", bench.kit.dir().display())).await;
    assert_eq!(code, 0, "{typed}");
    let key = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(!said.contains(&key), "{said}");
    assert!(std::fs::read_to_string(bench.kit.var("HUB_ENV_FILE")).unwrap().contains(&key));
    bench.differs = vec![("RING_HUB_PRIVATE_KEY", key)];
    let said = bench.exec(5, &[]).await;
    bench.confirm(0, &said).await;
    bench.assert_reset().await;
}

#[tokio::test]
async fn a_key_that_is_there_or_does_not_arrive_is_told() {
    let bench = Bench::start().await;
    let inputs = ["--inputs", bench.kit.var("HUB_KEY_INPUTS")];
    let exec = [&["exec", "make-badge-key"][..], &inputs].concat();
    let said = bench.expect(4, &exec).await;
    assert!(said.contains("set replace"), "{said}");
    bench.expect(6, &["cancel", &run_in(&said)]).await;
    assert!(!bench.path("badge-key").exists());
    // A restart that does not read the environment anew, as that of docker compose.
    let exec = [&exec[..], &["-i", "replace=true", "-i", "apply_command=[\"true\"]"]].concat();
    let said = bench.expect(5, &exec).await;
    let said = bench.expect(4, &["answer", &run_in(&said), "SET THE KEY"]).await;
    assert!(said.contains("does not run with the key"), "{said}");
    // Once it is restarted for real, the same run goes on, and makes no other key.
    let before = std::fs::read(bench.path("badge-key")).unwrap();
    bench.kit.order("restart", "hub-api").await.unwrap();
    bench.expect(0, &["resume", &run_in(&said)]).await;
    assert_eq!(std::fs::read(bench.path("badge-key")).unwrap(), before);
}
