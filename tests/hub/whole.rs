//! The procedure from its first step to its last.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use runbook_engine::state::StepStatus;
use serde_json::Value;

use crate::bench::{Bench, PHRASES, ROWS, run_in};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The report in JSON.
fn report(bench: &Bench, run: &str) -> PathBuf {
    bench.path("reports").join(format!("{run}.json"))
}

#[tokio::test]
async fn production_is_reset_after_staging_once_all_three_phrases_are_given() {
    let bench = Bench::start_with(&["--host", "staging.example"]).await;
    let key = bench.kit.var("RING_HUB_PRIVATE_KEY").to_owned();
    let password = bench.kit.var("DATABASE_URL").split([':', '@']).nth(2).unwrap().to_owned();
    assert_eq!(password.len(), 24);
    let said = bench.exec(5, &[]).await;
    assert!(said.contains("runbook answer"), "the next command is told:\n{said}");
    let run = run_in(&said);
    for phrase in &PHRASES[..2] {
        bench.answer(5, &run, &[phrase]).await;
        bench.assert_untouched().await;
    }
    let said = bench.answer(0, &run, &PHRASES[2..]).await;
    assert!(said.contains("dropped tables 14, dropped rows 328"), "{said}");
    bench.assert_reset().await;
    // The hub has no DID document: an open item, that is told and stops nothing.
    assert!(said.contains("did.json: status 404"), "{said}");
    let (_, state) = bench.newest().await.unwrap();
    assert_eq!(state.step("did_document").unwrap().status, StepStatus::Failed);
    let outputs = |step: &str| state.step(step).unwrap().outputs().unwrap().clone();
    assert_eq!(
        outputs("flush")["before"],
        serde_json::json!({ "0": 1, "1": 1 }),
        "all databases are emptied"
    );
    assert_eq!(outputs("wipe")["before"]["rows"], ROWS.iter().map(|(_, rows)| rows).sum::<i64>());
    let backup = outputs("backup");
    assert!(backup["probed"] == true, "{backup}");
    let mode = std::fs::metadata(backup["file"].as_str().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(report(&bench, &run)).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["verdict"], "PASS", "{json}");
    let place = bench.kit.var("REDIS_URL").strip_prefix("redis://").unwrap();
    let emptied = format!("{place}, database 0; it held 2 keys in all its databases");
    let open = ["OPEN: /.well-known/did.json", "OPEN: /users/HASH/did.json"];
    for told in [&emptied, "baseline before the next", open[0], open[1], ".dump.restore.sh`"] {
        assert!(text.contains(told), "{told}:\n{text}");
    }

    production_after(&report(&bench, &run), json).await;

    // Neither the password nor the key is anywhere.
    for file in [files(&bench.path("state")), files(&bench.path("reports"))].concat() {
        let bytes = std::fs::read(&file).unwrap();
        for secret in [&password, &key] {
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there && !said.contains(secret.as_str()), "{} holds a secret", file.display());
        }
    }
}

/// Another hub, with the report of staging: that of another one, of long ago, or of half a reset is no proof. Asked anew, and all of it again.
async fn production_after(staging: &Path, report: Value) {
    let bench = Bench::start().await;
    let forged = bench.path("forged.json");
    let own = bench.kit.var("RING_HUB_URL");
    let server = bench.redis_server().await;
    for (pointer, value, told) in [
        ("/inputs/ring_hub_url", own, "must be another"),
        ("/inputs/instance_did", bench.kit.var("INSTANCE_DID"), "must be another"),
        ("/notes/Redis server", &server, "must be another"),
        ("/reported_at", "2026-01-01T00:00:00Z", "it is too old"),
        ("/steps/wipe/status", "failed", "`/steps/wipe/status` is failed"),
        ("/verdict", "FAIL", "it says FAIL"),
    ] {
        let mut report = report.clone();
        let steps = report["steps"].as_array_mut().unwrap();
        match pointer.strip_prefix("/steps/wipe/") {
            Some(field) => steps.iter_mut().find(|step| step["id"] == "wipe").unwrap()[field] = value.into(),
            None => *report.pointer_mut(pointer).unwrap() = value.into(),
        }
        std::fs::write(&forged, report.to_string()).unwrap();
        let evidence = format!("staging_report={}", forged.display());
        let said = bench.exec(4, &["environment=production", &evidence]).await;
        assert!(said.contains(told), "{told}:\n{said}");
        bench.expect(6, &["cancel", &run_in(&said)]).await;
    }
    bench.assert_untouched().await;
    let evidence = format!("staging_report={}", staging.display());
    let said = bench.exec(5, &["environment=production", &evidence]).await;
    bench.confirm(0, &said).await;
    bench.assert_reset().await;
    assert_eq!(bench.newest().await.unwrap().1.step("staging").unwrap().status, StepStatus::Succeeded);
}

#[tokio::test]
async fn a_hub_with_a_did_document_leaves_nothing_open() {
    let bench = Bench::start_with(&["--did-document"]).await;
    let user = "/users/5f3c/did.json";
    let said = bench.exec(5, &["root_ring_name=The Root", &format!("user_document={user}")]).await;
    let run = run_in(&said);
    let said = bench.confirm(0, &said).await;
    bench.assert_reset().await;
    let (_, state) = bench.newest().await.unwrap();
    for step in ["did_document", "user_document"] {
        assert_eq!(state.step(step).unwrap().status, StepStatus::Succeeded, "{said}");
    }
    let text = std::fs::read_to_string(report(&bench, &run)).unwrap();
    assert!(text.contains(&format!("that of a user too, {user}")) && !text.contains("OPEN: "), "{text}");
    assert_eq!(bench.hub("/trp/rings/spool").await.1["name"], "The Root");
    // Who may do what is in the words that the hub looks for.
    let roles = r#"select name || ' ' || (permissions ? 'moderate_posts') || ' ' || (permissions ? 'submit_posts') from "RingRole" order by 1"#;
    assert_eq!(bench.texts(roles).await, ["member false true", "moderator true true", "owner true true"]);
}

#[tokio::test]
async fn a_plan_of_the_reset_touches_nothing_and_binds_it() {
    let bench = Bench::start().await;
    let plan = bench.path("plan.json").display().to_string();
    let planned = ["plan", "reset-production", "-i", "environment=staging", "-o", &plan];
    let said = bench.expect(0, &planned).await;
    assert!(!said.contains("stops there"), "{said}");
    for told in ["drop 14 tables with 328 rows", "from running to stopped", "DELETE ALL DATA"] {
        assert!(said.contains(told), "{told}:\n{said}");
    }
    bench.assert_untouched().await;
    let said = bench.expect(5, &["exec", "--plan", &plan]).await;
    bench.confirm(0, &said).await;
    bench.assert_reset().await;

    let bench = Bench::start().await;
    let plan = bench.path("plan.json").display().to_string();
    bench.expect(0, &["plan", "reset-production", "-i", "environment=staging", "-o", &plan]).await;
    bench.execute(r#"update "Ring" set name = 'Renamed' where id = 'ring-2'"#).await;
    let said = bench.expect(9, &["exec", "--plan", &plan]).await;
    assert!(said.contains("target of `wipe`"), "{said}");
    bench.assert_untouched().await;
}
