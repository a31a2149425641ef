//! Confirming: the exact phrase by a person, or nothing.

use runbook_engine::state::{RunStatus, StepStatus};
use runbook_sandbox::Options;

use crate::bench::{Bench, PHRASE};

fn small() -> Options {
    Options { attachments: 12, restore: 2, ..Options::default() }
}

#[tokio::test]
async fn without_a_terminal_it_waits_and_a_wrong_phrase_changes_nothing() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, before) = bench.newest().await.unwrap();
    for wrong in ["reset chatkit", "RESET CHATKIT ", "yes", ""] {
        bench.expect(2, &["answer", &id, wrong]).await;
    }
    let (_, after) = bench.newest().await.unwrap();
    assert_eq!(before, after, "a wrong phrase is not even recorded");
    assert_eq!(after.step("confirm").unwrap().status, StepStatus::Asking);
    assert_eq!(bench.deletes().await.len(), 0);
    bench.expect(5, &["resume", &id]).await;
    assert_eq!(bench.deletes().await.len(), 0, "a resume is no answer");
    bench.expect(0, &["answer", &id, PHRASE]).await;
    let (_, state) = bench.newest().await.unwrap();
    bench.assert_reset(&state).await;
    let answer = &state.step("confirm").unwrap().answers[0];
    assert!(answer.text == PHRASE && answer.by.contains('@'), "{answer:?}");
}

#[tokio::test]
async fn a_second_run_is_refused_while_the_first_is_unfinished() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, _) = bench.newest().await.unwrap();
    let said = bench.expect(8, &["exec", "reset-chatkit"]).await;
    assert!(said.contains(&id) && said.contains("cancel"), "{said}");
    // Another lock key, the same environment file: the obligation itself refuses.
    let said = bench.expect(8, &["exec", "reset-chatkit", "-i", "environment=other"]).await;
    assert!(said.contains("already held by run"), "{said}");
    assert_ne!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before, "the first freeze stands");
    bench.expect(6, &["cancel", &id]).await;
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
    assert_eq!(bench.deletes().await.len(), 0);
}

#[tokio::test]
async fn every_command_tells_of_a_freeze_that_is_held() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, _) = bench.newest().await.unwrap();
    for command in [&["runs"][..], &["show"], &["steps"], &["check", "runbooks/reset-chatkit.yaml"]] {
        let said = bench.expect(0, command).await;
        assert!(said.contains("CHATKIT_ATTACHMENT_MAX_MB") && said.contains(&id), "{command:?}:\n{said}");
    }
    bench.expect(6, &["cancel"]).await;
    let said = bench.expect(0, &["runs"]).await;
    assert!(!said.contains("CHATKIT_ATTACHMENT_MAX_MB"), "{said}");
    let (_, state) = bench.newest().await.unwrap();
    assert_eq!(state.status, RunStatus::Cancelled);
}
