//! The reset as a plan: read without a write, looked at, and applied to exactly what it says.

use runbook_sandbox::{Options, Server};
use serde_json::Value;

use crate::bench::{Bench, PHRASE, text};

fn options() -> Options {
    Options { attachments: 40, orphans: 3, restore: 4, ..Options::default() }
}

/// Everything there is in the stores and the files of the sandbox.
async fn world(bench: &Bench) -> Vec<String> {
    let mut all = Vec::new();
    for collection in ["attachments", "attachment-metadata", "threads"] {
        let documents = bench.kit.documents(collection).await.unwrap_or_default();
        all.extend(documents.iter().map(|one| format!("{collection} {one}")));
    }
    all.sort();
    all.push(String::from_utf8(std::fs::read(bench.kit.env_file()).unwrap()).unwrap());
    all.push(format!("{:?}", bench.kit.effects().await.unwrap().len()));
    all
}

async fn plan(bench: &Bench, more: &[&str]) -> String {
    let file = bench.state.path().join("plan.json").display().to_string();
    bench.expect(0, &[&["plan", "reset-chatkit", "-o", &file], more].concat()).await;
    file
}

#[tokio::test]
async fn a_plan_of_the_reset_only_reads() {
    let bench = Bench::start(&options()).await;
    let before = world(&bench).await;
    let asked = [Server::Gateway, Server::Store];
    let mut from = Vec::new();
    for server in asked {
        from.push(bench.kit.requests(server).await.unwrap().len());
    }
    let file = plan(&bench, &[]).await;
    for (server, from) in asked.into_iter().zip(from) {
        let requests = bench.kit.requests(server).await.unwrap();
        let new: Vec<_> =
            requests.iter().skip(from).filter(|one| !one.path.starts_with("/__sandbox")).collect();
        assert!(!new.is_empty(), "it did look");
        for one in new {
            let reads = one.method == "GET" || (one.method == "POST" && one.path.ends_with("/query"));
            assert!(reads, "{} {} is no read", one.method, one.path);
        }
    }
    assert_eq!(world(&bench).await, before);
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let step =
        |id: &str| saved["steps"].as_array().unwrap().iter().find(|step| step["step"] == id).unwrap().clone();
    let touched = step("purge")["touches"][0]["count"].clone();
    assert_eq!(touched, Value::from(43), "orphan blobs included");
    assert_eq!(step("confirm")["asks"][0]["data"]["phrase"], Value::from(PHRASE));
    assert_eq!(step("verify")["standing"]["type"], Value::from("after"));
    assert!(step("freeze")["does"].as_str().unwrap().contains("from 25 to 0.0000001"));
    let key = bench.kit.api_key();
    assert!(!std::fs::read_to_string(&file).unwrap().contains(key), "a secret is in the plan");
}

#[tokio::test]
async fn the_reset_is_applied_as_planned() {
    let bench = Bench::start(&options()).await;
    let file = plan(&bench, &[]).await;
    let confirm = format!("confirm={PHRASE}");
    // One document more, and nothing is done.
    let extra = serde_json::json!({ "attachmentId": "late", "storedAt": "2026-01-01T00:00:00Z" });
    bench.put("attachment-metadata", "late", &extra).await;
    let before = world(&bench).await;
    let said = bench.expect(9, &["exec", "--plan", &file, "--confirm", &confirm]).await;
    assert!(said.contains("`purge`") && said.contains("1 new (late)"), "{said}");
    assert_eq!(world(&bench).await, before);
    assert!(bench.newest().await.is_none(), "there is no run");
    bench.delete("attachment-metadata", "late").await;
    // A blob that is another one, although the metadata gives its key.
    let blob = bench.kit.documents("attachments").await.unwrap().remove(0);
    let key = text(&blob, "attachmentId");
    let mut other = blob.clone();
    other["fileName"] = Value::from("another.bin");
    bench.put("attachments", &key, &other).await;
    let said = bench.expect(9, &["exec", "--plan", &file, "--confirm", &confirm]).await;
    assert!(said.contains("`purge`") && said.contains(&format!("1 changed ({key})")), "{said}");
    bench.put("attachments", &key, &blob).await;
    bench.expect(0, &["exec", "--plan", &file, "--confirm", &confirm, "--as", "ada"]).await;
    let (_, state) = bench.newest().await.unwrap();
    bench.assert_reset(&state).await;
    let guard = state.step("purge").unwrap().outputs().unwrap()["guard"].clone();
    assert_eq!(guard, serde_json::json!({ "blobs": "reads", "metadata": "reads" }));
    let said = bench.expect(9, &["exec", "--plan", &file]).await;
    assert!(said.contains("applied already"), "{said}");
}
