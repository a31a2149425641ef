//! Each trap of the procedure, set on purpose: the run stops at the right gate, and nothing is harmed.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::bench::{Bench, PHRASES, restore_in, run_in};

/// A run that has failed and can be resumed keeps its lock until it is cancelled.
async fn cancel(bench: &Bench, said: &str) {
    bench.expect(6, &["cancel", &run_in(said)]).await;
}

/// Fails unless the reset is refused before anybody is asked, in these words, with everything as it was.
async fn refused(bench: &Bench, inputs: &[&str], told: &str) {
    let said = bench.exec(4, inputs).await;
    assert!(said.contains(told), "{told}:\n{said}");
    assert!(!said.contains("asked confirm"), "nobody is asked:\n{said}");
    bench.assert_untouched().await;
    cancel(bench, &said).await;
}

fn openssl(script: &str) -> String {
    let run = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(run.stdout).unwrap()
}

#[tokio::test]
async fn wrong_inputs_and_missing_variables_are_refused_before_anything() {
    let mut bench = Bench::start().await;
    for wrong in [
        "environment=test",
        "ring_hub_url=http://hub.example",
        "instance_did=hub.example",
        "root_ring_slug=The Spool",
        "redis_scope=some",
    ] {
        bench.exec(2, &[wrong]).await;
    }
    for variable in ["DATABASE_URL", "RING_HUB_PRIVATE_KEY", "REDIS_URL"] {
        bench.differs = vec![(variable, String::new())];
        let said = bench.exec(2, &[]).await;
        assert!(said.contains(variable), "{said}");
    }
    bench.differs.clear();
    // There is no way to answer beforehand.
    for flag in ["--yes", "--confirm=confirm=DELETE ALL DATA"] {
        bench.expect(2, &["exec", "reset-production", "-i", "environment=staging", flag]).await;
    }
    assert!(bench.newest().await.is_none());
    bench.assert_untouched().await;
}

#[tokio::test]
async fn production_without_the_proof_of_staging_is_refused() {
    let bench = Bench::start().await;
    refused(&bench, &["environment=production"], "no staging_report").await;
    let report = bench.path("report.json");
    let path = format!("staging_report={}", report.display());
    for (text, told) in [
        (
            r#"{"runbook": "reset-production", "inputs": {"environment": "staging"}, "verdict": "FAIL", "date": "2026-01-01T00:00:00Z"}"#,
            "FAIL",
        ),
        (
            r#"{"runbook": "reset-production", "inputs": {"environment": "production"}, "verdict": "PASS", "date": "2026-01-01T00:00:00Z"}"#,
            "environment",
        ),
    ] {
        std::fs::write(&report, text).unwrap();
        refused(&bench, &["environment=production", &path], told).await;
    }
    std::fs::remove_file(&report).unwrap();
    refused(&bench, &["environment=production", &path], "report.json").await;
}

#[tokio::test]
async fn a_key_that_the_hub_could_not_load_is_told_before_the_prompts() {
    let mut bench = Bench::start().await;
    let pem = openssl("openssl genpkey -algorithm Ed25519");
    let der = openssl("openssl genpkey -algorithm Ed25519 -outform DER | base64 -w0");
    let other = STANDARD.encode(&pem);
    for (key, told) in [
        (pem.trim_end(), "PEM as it stands"),
        (&der, "Base64 of DER"),
        ("hunter2hunter2", "no PEM"),
        // A key of the right form that is not the hub's.
        (&other, "another RING_HUB_PRIVATE_KEY"),
    ] {
        bench.differs = vec![("RING_HUB_PRIVATE_KEY", key.to_owned())];
        refused(&bench, &[], told).await;
    }
}

#[tokio::test]
async fn a_hub_that_runs_with_something_else_is_told_before_the_prompts() {
    let bench = Bench::start().await;
    let sandbox = runbook_sandbox::sandbox_binary().unwrap();
    let set = async |variable: &str, value: &str| {
        let mut command = Command::new(&sandbox);
        command.args(["set", "--control", bench.kit.control_url(), "hub-api", variable]);
        if !value.is_empty() {
            command.arg(value);
        }
        assert!(command.status().unwrap().success());
        bench.kit.order("restart", "hub-api").await.unwrap();
    };
    for (variable, value, inputs, told) in [
        // What the script never hands into the container.
        ("ROOT_RING_SLUG", "", &["root_ring_slug=root"][..], "would look for another root ring"),
        ("INSTANCE_DID", "did:web:localhost:3000", &[], "owned by somebody else"),
        ("RING_HUB_URL", "", &[], "badges would name another address"),
        ("NODE_ENV", "development", &[], "is this the hub that is meant"),
        ("RING_HUB_PRIVATE_KEY", "", &[], "or with none"),
    ] {
        let name = bench.kit.env().get(variable).cloned();
        set(variable, value).await;
        refused(&bench, inputs, told).await;
        set(variable, name.as_deref().unwrap_or("production")).await;
    }
    // A hub that does not run can not be asked.
    bench.kit.order("stop", "hub-api").await.unwrap();
    let said = bench.exec(4, &[]).await;
    assert!(said.contains("the hub-api is not running"), "{said}");
    bench.kit.order("start", "hub-api").await.unwrap();
    bench.assert_untouched().await;
}

#[tokio::test]
async fn a_database_that_is_not_the_hubs_is_not_wiped() {
    let mut bench = Bench::start().await;
    bench.execute("create database other").await;
    let url = bench.kit.var("DATABASE_URL").replace("/app?", "/other?");
    bench.differs = vec![("DATABASE_URL", url)];
    refused(&bench, &[], "the hub uses another database").await;
}

#[tokio::test]
async fn schema_files_that_are_not_there_or_lack_a_table_wipe_nothing() {
    let bench = Bench::start().await;
    let schema = bench.path("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    std::fs::remove_file(&schema).unwrap();
    refused(&bench, &[], "schema.sql").await;
    // As the migrations leave it.
    let (before, rest) = text.split_once("create table \"Invitation\"").unwrap();
    let (_, after) = rest.split_once(";\n").unwrap();
    std::fs::write(&schema, format!("{before}{after}")).unwrap();
    let said = bench.exec(5, &[]).await;
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("Invitation") && said.contains("may have been wiped"), "{said}");
    assert_eq!(bench.texts(r#"select count(*)::text from "Invitation""#).await, ["1"]);
    // The way back is no harm either where it was not needed.
    let (code, typed) = bench.type_line(&restore_in(&said)).await;
    assert_eq!(code, 0, "{typed}");
    cancel(&bench, &said).await;
    assert_eq!(bench.texts(r#"select count(*)::text from "Invitation""#).await, ["1"]);
    assert_eq!(bench.hub("/trp/rings/spool").await.1["name"], "Ring 1");
}

#[tokio::test]
async fn phrases_in_other_words_or_another_order_are_no_answers() {
    let bench = Bench::start().await;
    let said = bench.exec(5, &[]).await;
    let run = run_in(&said);
    for wrong in ["delete all data", "DELETE ALL DATA ", PHRASES[1], PHRASES[2], "yes", ""] {
        bench.expect(2, &["answer", &run, wrong]).await;
    }
    bench.expect(5, &["answer", &run, PHRASES[0]]).await;
    for wrong in [PHRASES[0], PHRASES[2]] {
        bench.expect(2, &["answer", &run, wrong]).await;
    }
    // A resume is no answer.
    bench.expect(5, &["resume", &run]).await;
    bench.assert_untouched().await;
    bench.expect(6, &["cancel", &run]).await;
    bench.assert_untouched().await;
}

#[tokio::test]
async fn a_hub_that_is_started_meanwhile_stops_the_reset_before_anything_is_gone() {
    let bench = Bench::start().await;
    let said = bench.exec(5, &[]).await;
    let run = run_in(&said);
    for phrase in &PHRASES[..2] {
        bench.expect(5, &["answer", &run, phrase]).await;
    }
    let answer = tokio::spawn(bench.command(&["answer", &run, PHRASES[2]]).output());
    // As soon as the backup is being written, something that heals hubs starts it.
    while std::fs::read_dir(bench.path("backups")).unwrap().next().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    bench.kit.order("start", "hub-api").await.unwrap();
    let output = answer.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    bench.assert_untouched().await;
    bench.expect(6, &["cancel", &run]).await;
    bench.assert_untouched().await;
}

#[tokio::test]
async fn a_key_that_gets_lost_on_the_way_is_found_by_the_badge() {
    let bench = Bench::start().await;
    let said = bench.exec(5, &[]).await;
    // The hub that runs has it still; the one that is started will not.
    let file = bench.kit.var("HUB_ENV_FILE").to_owned();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("RING_HUB_PRIVATE_KEY=", "RING_HUB_KEY=")).unwrap();
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("got no badge") && said.contains("To go back, type `"), "{said}");
    std::fs::write(&file, text).unwrap();
    cancel(&bench, &said).await;
}
