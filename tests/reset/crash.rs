//! `kill -9` at random moments. `CRASHES=100 cargo nextest run --test reset crash` tries more than the few of every run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runbook_engine::store::sqlite::SqliteStore;
use runbook_engine::store::{BatchRow, Store as _};
use runbook_sandbox::{Options, Server};
use serde_json::json;

use crate::bench::{Bench, PHRASE};

const BATCH: u32 = 10;

fn options() -> Options {
    Options { attachments: 60, orphans: 2, restore: 5, ..Options::default() }
}

fn crashes() -> u64 {
    std::env::var("CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

/// SplitMix64, so that a trial can be repeated by its number.
fn lot(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// How often a session was opened after uploads had begun: the one they were in was lost, because the process died between a
/// refresh, which makes the old secret void, and the answer with the new one. Nobody can read what is in a lost session.
async fn lost_sessions(bench: &Bench) -> usize {
    let requests = bench.kit.requests(Server::Gateway).await.unwrap();
    let begun = requests.iter().skip_while(|one| one.path != "/chatkit/upload" || one.status != Some(201));
    begun.filter(|one| one.path == "/chatkit/session" && one.status == Some(201)).count()
}

/// What crashes may repeat: the batches in flight, once per crash; and every upload of a session that one of them lost.
async fn assert_little_was_repeated(bench: &Bench, crashes: u32) {
    let repeated: u32 = bench.deletes().await.values().map(|times| times - 1).sum();
    assert!(repeated <= crashes * BATCH * 2, "{repeated} deletes were repeated in {crashes} crashes");
    let uploaded = bench.puts("attachments").await;
    let lost = lost_sessions(bench).await;
    assert!(lost <= crashes as usize, "{lost} sessions were lost in {crashes} crashes");
    let most = bench.keep.len() * (1 + lost) + crashes as usize;
    assert!(
        uploaded <= most,
        "{uploaded} uploads for {} attachments, {crashes} crashes and {lost} lost sessions",
        bench.keep.len()
    );
}

#[tokio::test]
async fn killed_at_random_moments_the_end_is_the_same() {
    // How long the two halves of an undisturbed run take, to spread the moments over all of it.
    let bench = Bench::start(&options()).await;
    let batch = format!("batch_size={BATCH}");
    let begin = Instant::now();
    bench.expect(5, &["exec", "reset-chatkit", "-i", &batch]).await;
    let first = begin.elapsed();
    let (id, _) = bench.newest().await.unwrap();
    let begin = Instant::now();
    bench.expect(0, &["answer", &id, PHRASE]).await;
    let second = begin.elapsed();
    drop(bench);
    let mut killed = 0;
    for trial in 0..crashes() {
        let all = u64::try_from((first + second).as_millis()).unwrap();
        let moment = Duration::from_millis(lot(trial) % all);
        let bench = Bench::start(&options()).await;
        println!("trial {trial}: killed after {moment:?} of {first:?} + {second:?}");
        let exec = ["exec", "reset-chatkit", "-i", &batch];
        let mut child = if moment < first {
            let child = bench.spawn(&exec);
            tokio::time::sleep(moment).await;
            child
        } else {
            bench.expect(5, &exec).await;
            let (id, _) = bench.newest().await.unwrap();
            let child = bench.spawn(&["answer", &id, PHRASE]);
            tokio::time::sleep(moment - first).await;
            child
        };
        killed += u64::from(bench.kill(&mut child).await);
        let state = bench.finish().await;
        bench.assert_reset(&state).await;
        assert_little_was_repeated(&bench, 1).await;
    }
    println!("{killed} of {} were killed", crashes());
    assert!(killed * 4 >= crashes(), "most ended before they were killed");
}

/// What became of each key of the batches of the purge, one character for each of its two collections.
async fn became(bench: &Bench) -> BTreeMap<String, String> {
    let store = SqliteStore::open(&bench.database()).await.unwrap();
    let (id, _) = bench.newest().await.unwrap();
    assert_eq!(store.ledger(&id, "purge").await.unwrap().unsettled, []);
    let batches = store.batches(&id, "purge", 0, 1000, false).await.unwrap();
    store.close().await;
    let outcome = |batch: BatchRow| batch.settled.unwrap().outcome["ids"].clone();
    batches
        .into_iter()
        .flat_map(|batch| serde_json::from_value::<BTreeMap<_, _>>(outcome(batch)).unwrap())
        .collect()
}

#[tokio::test]
async fn a_cancel_after_a_crash_finds_out_what_the_last_batch_deleted_and_deletes_no_more() {
    let bench = Bench::start(&options()).await;
    bench.expect(5, &["exec", "reset-chatkit", "-i", &format!("batch_size={BATCH}")]).await;
    let (id, _) = bench.newest().await.unwrap();
    // In the second batch: some are gone from one collection and not from the other.
    let fault = json!({ "method": "DELETE", "path_prefix": "/corpora", "after": 35, "times": 50, "action": { "cut_after_effect": true } });
    bench.kit.fault(Server::Store, &serde_json::from_value(fault).unwrap()).await.unwrap();
    let mut child = bench.spawn(&["answer", &id, PHRASE]);
    loop {
        let requests = bench.kit.requests(Server::Store).await.unwrap();
        if requests.iter().any(|one| one.method == "DELETE" && one.status.is_none()) {
            break;
        }
        assert!(child.try_wait().unwrap().is_none(), "it was over before the crash");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bench.kill(&mut child).await;
    // As long as nobody can look, the run stays open.
    let refused =
        json!({ "method": "GET", "path_prefix": "/corpora", "times": 1000, "action": { "status": 503 } });
    bench.kit.fault(Server::Store, &serde_json::from_value(refused).unwrap()).await.unwrap();
    let said = bench.expect(4, &["cancel", &id]).await;
    assert!(said.contains("whether its last batch"), "{said}");
    bench.kit.clear_faults(Server::Store).await.unwrap();
    let deletes = bench.deletes().await;
    bench.expect(6, &["cancel", &id]).await;
    assert_eq!(bench.deletes().await, deletes, "a cancel deletes nothing");
    let became = became(&bench).await;
    let there = [
        bench.kit.doc_ids("attachments").await.unwrap(),
        bench.kit.doc_ids("attachment-metadata").await.unwrap(),
    ];
    assert!(became.len() >= 10 && there.iter().all(|there| !there.is_empty()), "{became:?}");
    for (key, codes) in became {
        for (at, code) in codes.chars().enumerate() {
            assert_eq!(there[at].contains(&key), matches!(code, 'f' | '-'), "{key}: {codes}");
        }
    }
}

#[tokio::test]
async fn killed_between_an_effect_and_its_record_the_world_settles_it() {
    // Each fault does the effect and drops the connection; the process dies before it can find out.
    let faults = [
        (
            Server::Store,
            json!({ "method": "DELETE", "path_prefix": "/corpora", "after": 30, "times": 50, "action": { "cut_after_effect": true } }),
            "DELETE",
        ),
        (
            Server::Gateway,
            json!({ "method": "POST", "path_prefix": "/chatkit/upload", "after": 2, "times": 50, "action": { "cut_after_effect": true } }),
            "POST",
        ),
        // All is uploaded; the refresh before the links are checked makes the old secret void.
        (
            Server::Gateway,
            json!({ "method": "POST", "path_prefix": "/chatkit/session/refresh", "times": 50, "action": { "cut_after_effect": true } }),
            "POST",
        ),
    ];
    for (at, (server, fault, method)) in faults.into_iter().enumerate() {
        let path = fault["path_prefix"].as_str().unwrap();
        // Enough to restore that the fault is set before the last of it.
        let bench = Bench::start(&Options { restore: 20, ..options() }).await;
        bench.expect(5, &["exec", "reset-chatkit", "-i", &format!("batch_size={BATCH}")]).await;
        let (id, _) = bench.newest().await.unwrap();
        if server == Server::Store {
            bench.kit.fault(server, &serde_json::from_value(fault.clone()).unwrap()).await.unwrap();
        }
        let mut child = bench.spawn(&["answer", &id, PHRASE]);
        let mut set = server == Server::Store;
        loop {
            // Lifting the freeze restarts the gateway, which forgets its faults.
            let lifted = std::fs::read(bench.kit.env_file()).unwrap() == bench.env_before;
            if !set && lifted && bench.puts("attachments").await > 0 {
                bench.kit.fault(server, &serde_json::from_value(fault.clone()).unwrap()).await.unwrap();
                set = true;
            }
            let requests = bench.kit.requests(server).await.unwrap_or_default();
            let mut faulty = requests.iter().filter(|one| one.path.starts_with(path) && one.method == method);
            if set && faulty.any(|one| one.status.is_none()) {
                break;
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.kill(&mut child).await;
        bench.kit.clear_faults(server).await.unwrap();
        let state = bench.finish().await;
        bench.assert_reset(&state).await;
        assert_little_was_repeated(&bench, 2).await;
        assert!(
            at != 2 || lost_sessions(&bench).await > 0,
            "the refresh was cut before the links were checked"
        );
    }
}

#[tokio::test]
async fn a_second_crash_inside_the_resume_changes_nothing() {
    for trial in 0..crashes() / 2 {
        let bench = Bench::start(&options()).await;
        bench.expect(5, &["exec", "reset-chatkit", "-i", &format!("batch_size={BATCH}")]).await;
        let (id, _) = bench.newest().await.unwrap();
        let mut child = bench.spawn(&["answer", &id, PHRASE]);
        tokio::time::sleep(Duration::from_millis(lot(trial) % 1500)).await;
        bench.kill(&mut child).await;
        let mut child = bench.spawn(&["resume", &id]);
        tokio::time::sleep(Duration::from_millis(lot(trial + 1000) % 1500)).await;
        bench.kill(&mut child).await;
        let state = bench.finish().await;
        bench.assert_reset(&state).await;
        assert_little_was_repeated(&bench, 2).await;
    }
}

#[tokio::test]
async fn the_first_interrupt_finishes_the_batch_and_says_how_to_go_on() {
    for twice in [false, true] {
        let bench = Bench::start(&options()).await;
        bench.expect(5, &["exec", "reset-chatkit", "-i", &format!("batch_size={BATCH}")]).await;
        let (id, _) = bench.newest().await.unwrap();
        let slow = json!({ "method": "DELETE", "path_prefix": "/corpora", "times": 10000, "action": { "delay_ms": 60 } });
        bench.kit.fault(Server::Store, &serde_json::from_value(slow).unwrap()).await.unwrap();
        let child = bench.command(&["answer", &id, PHRASE]).spawn().unwrap();
        while bench.deletes().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let pid = child.id().unwrap().to_string();
        for _ in 0..(1 + u32::from(twice)) {
            let sent = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
            assert!(sent.success());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains(&format!("runbook resume {id}")), "{said}");
        if !twice {
            let seen = bench.deletes().await;
            assert!(seen.len() % BATCH as usize == 0, "whole batches were deleted: {}", seen.len());
        }
        bench.kit.clear_faults(Server::Store).await.unwrap();
        let state = bench.finish().await;
        bench.assert_reset(&state).await;
        let most = if twice { 1 } else { 0 };
        assert_little_was_repeated(&bench, most).await;
    }
}
