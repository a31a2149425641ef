//! Many rows and objects, with faults planted in them, against an oracle. `OBJECTS=1000000` tries as many as the claim is about, and prints how
//! long it took and how much memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::oracle::{Planted, all, listed, oracle, planted};
use super::{Fault, ORIGINAL, STAGED, World, mark, verdicts};

async fn plant(world: &World, count: u64) {
    let url = world.url("uploads/");
    world
        .db
        .execute(&format!(
            "insert into images (id, original_url, staged_url, status) \
             select n, '{url}' || n || '.jpg', 's3://real-staging/staged/' || n || '.jpg', 'ready' from generate_series(0, {count} - 1) n"
        ))
        .await;
    for (wanted, set) in [
        (Planted::Elsewhere, "original_url = 'https://cdn.example.com/' || id"),
        (Planted::Nothing, "original_url = null, staged_url = null"),
        (Planted::InError, "status = 'error', error = 'its own words'"),
        (Planted::Deleted, "deleted_at = now()"),
    ] {
        world.db.execute(&format!("update images set {set} where id in ({})", listed(count, wanted))).await;
    }
    let lost = |one| matches!(one, Planted::OriginalLost | Planted::InError | Planted::Deleted);
    world
        .put(all(count, move |one| !lost(one)).map(|number| match planted(number) {
            Planted::Renamed => format!("uploads/{number}.jpeg"),
            _ => format!("uploads/{number}.jpg"),
        }))
        .await;
    world
        .put(all(count, |one| one != Planted::StagedLost).map(|number| format!("staged/{number}.jpg")))
        .await;
    for number in 0..count {
        let fault = match planted(number) {
            Planted::Refused => Fault::Status(403),
            Planted::Broken => Fault::Status(500),
            Planted::Slow => Fault::Slow(Duration::from_millis(300)),
            _ => continue,
        };
        world.proxy.fault(&format!("uploads/{number}.jpg"), fault);
    }
}

/// The most memory that this process held at any time, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn compare(world_says: &std::collections::BTreeMap<i64, String>, count: u64, listing: bool) {
    for number in 0..count {
        let found = world_says.get(&number.cast_signed()).map(String::as_str);
        assert_eq!(found, oracle(number, listing), "{number}: {:?}", planted(number));
    }
}

#[tokio::test]
async fn every_image_comes_to_the_verdict_of_the_oracle_and_what_changed_meanwhile_is_left() {
    let wanted = std::env::var("OBJECTS").ok().and_then(|text| text.parse().ok());
    let count: u64 = wanted.unwrap_or(3000);
    let world = World::new().await;
    plant(&world, count).await;
    let (began, before) = (Instant::now(), peak());
    let (bench, outputs) = world.report(json!({ "compare": "auto", "concurrency": 16 })).await.unwrap();
    let (heads, lists) = world.proxy.counted();
    assert_eq!(world.proxy.writes(), [] as [String; 0], "a report changes nothing");
    if wanted.is_some() {
        println!(
            "reconcile | {count} rows | {} objects | {:.1} s | {heads} looks, {lists} listings | peak {} MiB, before {before} MiB",
            outputs["references"]["original"]["found"],
            began.elapsed().as_secs_f64(),
            peak(),
        );
    }
    assert_eq!(outputs["compared_by"], "listing", "{heads} looks, {lists} listings");
    compare(&verdicts(&bench, &outputs), count, true);
    if wanted.is_none() {
        let unknown = all(count, |one| matches!(one, Planted::Refused | Planted::Broken)).count();
        let with =
            json!({ "compare": "lookup", "max_unknown": unknown, "concurrency": 16, "batch_size": 100 });
        let (bench, outputs) = world.report(with).await.unwrap();
        compare(&verdicts(&bench, &outputs), count, false);
    }
    marked(&world, &bench, &outputs, count).await;
}

/// Marks all that was found, of which some changed meanwhile, and holds every row against the oracle.
async fn marked(world: &World, reported: &crate::common::Bench, outputs: &Value, count: u64) {
    let touched: Vec<u64> = all(count, |one| one == Planted::OriginalLost).step_by(5).collect();
    let uploaded: Vec<u64> = all(count, |one| one == Planted::Renamed).step_by(4).collect();
    let ids: Vec<String> = touched.iter().map(u64::to_string).collect();
    world.db.execute(&format!("update images set cost_usd = 3 where id in ({})", ids.join(","))).await;
    world.put(uploaded.iter().map(|number| format!("uploads/{number}.jpg"))).await;
    let bench = world.bench(vec![mark(&outputs["findings"], json!({ "concurrency": 16 }))]).await;
    let findings = reported.text(&outputs["findings"]);
    let lines: Vec<Value> = findings.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    bench.artifact("findings.jsonl", &lines);
    let done = bench.enter("mark").await.unwrap();
    let lost =
        all(count, |one| matches!(one, Planted::OriginalLost | Planted::StagedLost | Planted::Renamed));
    let wanted: Vec<u64> =
        lost.filter(|number| !touched.contains(number) && !uploaded.contains(number)).collect();
    assert_eq!(done["updated"], wanted.len(), "{done}");
    assert_eq!(
        (done["changed_since"].as_u64(), done["found_since"].as_u64()),
        (Some(touched.len() as u64), Some(uploaded.len() as u64))
    );
    let statement =
        "select id, error from images where status = 'error' and error <> 'its own words' order by id";
    let marked: Vec<(u64, String)> = world
        .texts(statement)
        .await
        .into_iter()
        .map(|(id, error)| (id.cast_unsigned(), error.unwrap()))
        .collect();
    let text = |number: u64| if planted(number) == Planted::StagedLost { STAGED } else { ORIGINAL };
    let expected: Vec<(u64, String)> =
        wanted.iter().map(|number| (*number, text(*number).to_owned())).collect();
    assert_eq!(marked, expected);
    // Nothing is left to do.
    let (_, again) = world.report(json!({ "compare": "listing" })).await.unwrap();
    assert_eq!(again["missing"], touched.len(), "only what changed meanwhile: {again}");
}
