//! A plan over many objects: its memory does not follow their number. `OBJECTS=1000000` tries as many as the claim is about, and prints
//! what the digest costs beside the listing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::place::Place;

/// A store whose documents are made when they are asked for, so that the listing costs next to nothing and all that is measured is ours.
async fn store(objects: u64) -> String {
    let capabilities =
        json!({ "corpus": true, "documents": ["get", "delete"], "query": ["sort", "filters"] });
    let query = move |Json(asked): Json<Value>| async move {
        let (offset, limit) = (asked["offset"].as_u64().unwrap_or(0), asked["limit"].as_u64().unwrap_or(1));
        let from = offset.min(objects.saturating_sub(1));
        let documents: Vec<Value> = (from..objects.min(from + limit))
            .map(|at| json!({ "id": format!("object-{at:08}"), "size": at % 5000, "owner": format!("user-{}", at % 97) }))
            .collect();
        Json(json!({ "total": objects, "documents": documents }))
    };
    let app = Router::new()
        .route("/capabilities", get(move || async move { Json(capabilities) }))
        .route("/corpora/c/collections/d/query", post(query));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

/// `VmHWM` of a plan, in KiB, and how long it took.
fn planned(place: &Place, file: &str) -> (u64, Duration) {
    let begun = Instant::now();
    let mut child =
        place.command(&["plan", file]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let (mut peak, pid) = (0, child.id());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let told = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{file}: {:?}", place.run(&["plan", file]).err);
    (peak, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_a_plan_does_not_follow_the_number_of_objects() {
    let objects = std::env::var("OBJECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let mut peaks = Vec::new();
    for objects in [3_000, objects] {
        let place = Place::new();
        let head = format!(
            "connections: {{ store: {{ type: fountainstore, url: \"{}\" }} }}\n\
             collections: {{ all: {{ type: fountainstore-documents, connection: store, corpus: c, collection: d, key: id }} }}\n\
             limits: {{ max_items: 10000000 }}\n\
             steps:\n  - {{ id: list, uses: snapshot, with: {{ collection: all, page_size: 1000 }} }}\n",
            store(objects).await
        );
        place.runbook("listed", &head);
        let purge = "  - { id: sure, uses: confirm-prompt, with: { message: m, phrases: [GO] } }\n  \
                     - { id: purge, uses: delete-batch, with: { collections: all, keys: \"${{ steps.list.outputs.manifest }}\" } }\n  \
                     - { id: gone, uses: count, with: { collections: all, expect: 0 } }\n";
        place.runbook("digested", &format!("{head}{purge}"));
        let measured = tokio::task::spawn_blocking(move || {
            (planned(&place, "listed.yaml"), planned(&place, "digested.yaml"))
        });
        let ((_, listing), (peak, both)) = measured.await.unwrap();
        let digest = both.saturating_sub(listing);
        println!("{objects} objects: listing {listing:.2?}, digest {digest:.2?}, peak {peak} KiB");
        peaks.push(peak);
    }
    assert!(peaks[1] * 10 <= peaks[0] * 13, "{peaks:?} KiB");
}
