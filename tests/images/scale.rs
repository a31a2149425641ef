//! Many images, with faults planted in them, reconciled by a process that is killed again and again. `OBJECTS=1000000` tries as many as the
//! claim is about, and prints how long it took and how much memory.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use crate::oracle::{Planted, all, listed, oracle, planted};
use crate::proxy::Fault;
use crate::{Bench, LATER, ORIGINAL, PHRASE, STAGED, id};

/// How often each half, the search and the marking, is killed.
const KILLS: u32 = 3;

/// The most memory that a process may have taken at any time, in KiB, however many rows there are: a few hundred bytes kept of each of 1,000,000 are more.
const MOST_MEMORY: u64 = 180 * 1024;

/// How many pages of a listing are one batch.
const PAGES: u64 = 100;

/// Rows and objects, one for each row but where one is planted to be lost.
async fn plant(bench: &Bench, count: u64) {
    bench.execute(LATER).await;
    bench.execute("alter table images add column n bigint").await;
    let url = format!("{}/real-staging/uploads/", bench.proxy.url);
    bench
        .execute(&format!(
            "insert into images (id, n, project_id, original_url, status, created_at, updated_at) \
             select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, n, 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', \
               '{url}' || n || '.jpg', 'ready', '2025-06-01', '2025-06-02' from generate_series(0, {count} - 1) n"
        ))
        .await;
    for (wanted, set) in [
        (Planted::StagedLost, "staged_url = 's3://real-staging/staged/' || n || '.jpg'"),
        (Planted::Elsewhere, "original_url = 'https://cdn.example.com/' || n"),
        (Planted::Nothing, "original_url = null, staged_url = null"),
        (Planted::InError, "status = 'error', error = 'its own words'"),
        (Planted::Deleted, "deleted_at = now()"),
    ] {
        bench.execute(&format!("update images set {set} where n in ({})", listed(count, wanted))).await;
    }
    let keys = all(count, |one| one != Planted::OriginalLost).map(|number| match planted(number) {
        Planted::Renamed => format!("uploads/{number}.jpeg"),
        _ => format!("uploads/{number}.jpg"),
    });
    stream::iter(keys).for_each_concurrent(64, async |key| bench.put(&key).await).await;
    for number in 0..count {
        let fault = match planted(number) {
            Planted::Refused => Fault::Status(403),
            Planted::Broken => Fault::Status(500),
            Planted::Slow => Fault::Slow(Duration::from_millis(300)),
            _ => continue,
        };
        bench.proxy.fault(&format!("uploads/{number}.jpg"), fault);
    }
}

/// What became of a command: its exit code, or none when it was killed first; what it said; the most memory it held, in KiB; how often
/// it looked for an object, and listed.
struct Ran {
    code: Option<i32>,
    said: String,
    peak: u64,
    asked: (u64, u64),
}

/// Runs `runbook`, and kills it after so many requests to the store unless it ended.
async fn run(bench: &Bench, arguments: &[&str], kill: Option<u64>) -> Ran {
    bench.proxy.counted();
    let mut asked = (0, 0);
    let (out, err) = (bench.folder.path().join("out"), bench.folder.path().join("err"));
    let [stdout, stderr] = [&out, &err].map(|path| Stdio::from(std::fs::File::create(path).unwrap()));
    let mut child = bench.command(arguments).stdout(stdout).stderr(stderr).spawn().unwrap();
    let status_of = format!("/proc/{}/status", child.id().unwrap());
    let mut peak = 0;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        let status = std::fs::read_to_string(&status_of).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let held = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(held.unwrap_or(0));
        let (looks, lists) = bench.proxy.counted();
        asked = (asked.0 + looks, asked.1 + lists);
        if kill.is_some_and(|after| asked.0 + asked.1 >= after) {
            child.kill().await.unwrap();
            break None;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let (looks, lists) = bench.proxy.counted();
    asked = (asked.0 + looks, asked.1 + lists);
    let said = [out, err].map(|path| std::fs::read_to_string(path).unwrap());
    Ran { code, said: said.concat(), peak, asked }
}

/// The status and the text that each image has to end with.
fn expected(count: u64, touched: &[u64]) -> BTreeMap<String, (String, Option<String>)> {
    let one = |number: u64| {
        let found = |text: &str| ("error".to_owned(), Some(text.to_owned()));
        let end = match planted(number) {
            Planted::InError => found("its own words"),
            Planted::StagedLost => found(STAGED),
            _ if oracle(number, true) == Some("missing") && !touched.contains(&number) => found(ORIGINAL),
            _ => ("ready".to_owned(), None),
        };
        (id(number), end)
    };
    (0..count).map(one).collect()
}

#[tokio::test]
async fn images_are_found_and_marked_once_however_often_the_process_is_killed() {
    let wanted = std::env::var("OBJECTS").ok().and_then(|text| text.parse().ok());
    let count: u64 = wanted.unwrap_or(1200);
    let bench = Bench::start(0).await;
    plant(&bench, count).await;
    let (endpoint, archive) = (format!("s3_endpoint={}", bench.proxy.url), bench.archive());
    let unresolvable = format!("max_unresolvable={count}");
    let mut exec = vec!["exec", "reconcile-images"];
    let batch = if wanted.is_some() { "batch_size=1000" } else { "batch_size=20" };
    for input in [
        "mode=dry-run",
        "database=app",
        "known_key=known",
        "created_before=2026-01-01T00:00:00Z",
        "max_missing_percent=100",
        batch,
        &endpoint,
        &archive,
        &unresolvable,
    ] {
        exec.extend(["-i", input]);
    }

    // Undisturbed, for how long it takes and how often it asks the store.
    let begun = Instant::now();
    let whole = run(&bench, &exec, None).await;
    let took = begun.elapsed();
    assert_eq!(whole.code, Some(0), "{}", whole.said);
    let undisturbed = whole.asked;

    // The search, killed on its way.
    exec[3] = "mode=apply";
    let (mut next, mut peak, mut killed, mut again) = (exec.clone(), whole.peak, 0, (0, 0));
    let begun = Instant::now();
    let ran = loop {
        let kill = (killed < KILLS).then(|| (undisturbed.0 + undisturbed.1) / 6);
        let ran = run(&bench, &next, kill).await;
        peak = peak.max(ran.peak);
        again = (again.0 + ran.asked.0, again.1 + ran.asked.1);
        if ran.code.is_some() {
            break ran;
        }
        (killed, next) = (killed + 1, vec!["resume"]);
    };
    assert_eq!((ran.code, killed), (Some(5), KILLS), "{}", ran.said);
    let searched = begun.elapsed();
    // What was listed is not listed again, but for the batch in flight of each of the two passes.
    let more = again.1.saturating_sub(undisturbed.1);
    let most = u64::from(KILLS) * (PAGES.min(undisturbed.1) + 2);
    assert!(more <= most, "{undisturbed:?} undisturbed, {again:?} killed");

    // Some change while the question is open. Then the marking, killed on its way.
    let touched: Vec<u64> = all(count, |one| one == Planted::OriginalLost).step_by(5).collect();
    let numbers: Vec<String> = touched.iter().map(u64::to_string).collect();
    bench.execute(&format!("update images set cost_usd = 3 where n in ({})", numbers.join(","))).await;
    let marking = Instant::now();
    let run_id = crate::run_in(&ran.said);
    let (mut next, mut kills) = (vec!["answer", &run_id, PHRASE], 0);
    let lost = expected(count, &touched).values().filter(|(status, _)| status == "error").count() as u64;
    let ran = loop {
        let ran = run(&bench, &next, (kills < KILLS).then_some(lost / 6)).await;
        peak = peak.max(ran.peak);
        match ran.code {
            None => (kills, next) = (kills + 1, vec!["resume", &run_id]),
            Some(5) => next = vec!["answer", &run_id, PHRASE],
            Some(_) => break ran,
        }
    };
    assert!(ran.code == Some(0) && kills > 0, "{kills} kills, {}", ran.said);
    let marked = bench.images().await;
    let expected = expected(count, &touched);
    let differs = expected.iter().find(|(id, end)| marked.get(*id) != Some(*end));
    assert_eq!((marked.len(), differs), (expected.len(), None));
    // Each was changed once: what the rollback would put back is what it was before.
    let prior = bench.folder.path().join(format!("archive/{run_id}.jsonl"));
    let prior = std::fs::read_to_string(prior).unwrap();
    let statuses = prior.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wrong = statuses.filter(|line| !line.to_string().contains("\"ready\"")).count();
    assert_eq!(wrong, 0, "a prior state is no prior state");
    assert!(peak > 0 && peak < MOST_MEMORY, "{count} rows took {peak} KiB");
    if wanted.is_some() {
        println!(
            "reconcile | {count} rows | {:.1} s undisturbed, {:.1} s with {killed} kills, {:.1} s to mark {} with {kills} | \
             {undisturbed:?} looks and listings, {again:?} killed | peak {} MiB",
            took.as_secs_f64(),
            searched.as_secs_f64(),
            marking.elapsed().as_secs_f64(),
            prior.lines().count(),
            peak / 1024,
        );
    }
}
