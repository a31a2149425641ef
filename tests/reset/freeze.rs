//! The freeze is always lifted, to the exact original, and never over somebody else's value.

use runbook_engine::state::RunStatus;
use runbook_sandbox::{Options, Server};

use crate::bench::{Bench, PHRASE};

fn small() -> Options {
    Options { attachments: 12, restore: 2, ..Options::default() }
}

#[tokio::test]
async fn zero_does_not_freeze_and_the_run_stops_there_leaving_nothing() {
    let bench = Bench::start(&small()).await;
    let said = bench.expect(4, &["exec", "reset-chatkit", "-i", "freeze_value=0"]).await;
    assert!(said.contains("not effective") || said.contains("NOT effective"), "{said}");
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
    let mut ids = bench.kit.doc_ids("attachments").await.unwrap();
    ids.extend(bench.kit.doc_ids("attachment-metadata").await.unwrap());
    let now = ids.into_iter().collect();
    assert_eq!(bench.ids_before, now, "the probe's attachment is gone, and nothing else");
}

#[tokio::test]
async fn a_restart_command_that_can_not_start_is_refused_before_anything_changes() {
    let bench = Bench::start(&small()).await;
    let said = bench.expect(3, &["exec", "reset-chatkit", "-i", "restart_command=[]"]).await;
    assert!(said.contains("the list is empty"), "{said}");
    assert!(bench.newest().await.is_none(), "not even a run was made");
    let said = bench.expect(4, &["exec", "reset-chatkit", "-i", "restart_command=[/nonexistent]"]).await;
    assert!(said.contains("can not be started"), "{said}");
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
    bench.expect(6, &["cancel"]).await;
}

#[tokio::test]
async fn kill_during_the_freeze_and_cancel_puts_the_original_back() {
    let bench = Bench::start(&small()).await;
    let mut child = bench.spawn(&["exec", "reset-chatkit"]);
    while std::fs::read(bench.kit.env_file()).unwrap() == bench.env_before {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    bench.kill(&mut child).await;
    assert_ne!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
    let (id, _) = bench.newest().await.unwrap();
    let said = bench.expect(6, &["cancel", &id]).await;
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before, "{said}");
    // The gateway runs with it again: an upload goes through.
    let state = bench.newest().await.unwrap().1;
    assert_eq!(state.status, RunStatus::Cancelled);
    assert_eq!(state.open_obligations().count(), 0);
    assert_eq!(bench.deletes().await.len(), 0);
}

#[tokio::test]
async fn a_value_that_somebody_else_set_meanwhile_is_left_alone_and_said_loudly() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let text = std::fs::read_to_string(bench.kit.env_file()).unwrap();
    let changed = text.replace("0.0000001", "7");
    assert_ne!(text, changed);
    std::fs::write(bench.kit.env_file(), &changed).unwrap();
    let said = bench.expect(4, &["cancel"]).await;
    assert_eq!(std::fs::read_to_string(bench.kit.env_file()).unwrap(), changed);
    assert!(said.contains("NOT back"), "{said}");
}

#[tokio::test]
async fn a_freeze_held_too_long_is_lifted_by_reconcile() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit", "-i", "max_hold=3s"]).await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    bench.expect(0, &["reconcile"]).await;
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
    assert_eq!(bench.deletes().await.len(), 0);
}

#[tokio::test]
async fn a_freeze_that_somebody_undid_while_the_run_waited_is_found_before_the_purge() {
    let bench = Bench::start(&small()).await;
    bench.expect(5, &["exec", "reset-chatkit"]).await;
    let (id, _) = bench.newest().await.unwrap();
    let frozen = std::fs::read(bench.kit.env_file()).unwrap();
    std::fs::write(bench.kit.env_file(), &bench.env_before).unwrap();
    let said = bench.expect(4, &["answer", &id, PHRASE]).await;
    assert!(said.contains("somebody put the original value of"), "{said}");
    assert_eq!(bench.deletes().await.len(), 0);
    assert_eq!(std::fs::read(bench.kit.env_file()).unwrap(), bench.env_before);
    // The value alone proves nothing: here the file says frozen, and the gateway does not know it.
    bench.expect(5, &["resume", &id]).await;
    std::fs::write(bench.kit.env_file(), &bench.env_before).unwrap();
    bench.kit.restart(Server::Gateway).await.unwrap();
    std::fs::write(bench.kit.env_file(), &frozen).unwrap();
    let said = bench.expect(4, &["answer", &id, PHRASE]).await;
    assert!(said.contains("not effective"), "{said}");
    assert_eq!(bench.deletes().await.len(), 0);
    let mut ids = bench.kit.doc_ids("attachments").await.unwrap();
    ids.extend(bench.kit.doc_ids("attachment-metadata").await.unwrap());
    assert_eq!(bench.ids_before, ids.into_iter().collect(), "what the probe made is gone again");
    // Resumed and confirmed anew, it goes through.
    let state = bench.finish().await;
    bench.assert_reset(&state).await;
}
