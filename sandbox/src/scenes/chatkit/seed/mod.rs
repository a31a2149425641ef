//! Fills a new store with attachments, straight into its file: over HTTP, very many would take too long.

mod content;
mod random;

use std::{path::Path, sync::mpsc, thread};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Sqlite, Transaction};

use super::Args;
use crate::{
    crypto,
    gateway::{BLOBS, CORPUS, METADATA},
    store::database::{create_for_loading, create_indexes},
    time,
};
use content::Attachment;
use random::Random;

/// Rows of one INSERT statement.
const BATCH_ROWS: usize = 250;
/// Bytes after which a batch is sent although it has fewer rows.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The attachments were stored in this time before the start.
const SPREAD: SignedDuration = SignedDuration::from_hours(6);

/// What was seeded, as far as others must know.
pub(super) struct Seeded {
    /// Attachments to restore: of every media type and of different sizes.
    pub(super) restore_ids: Vec<String>,
}

/// Where a row goes.
#[derive(Clone, Copy)]
enum Collection {
    Blobs = 1,
    Metadata = 2,
    Threads = 3,
}

struct Row {
    collection: Collection,
    id: String,
    body: String,
    /// For attachments.
    stored_at: Option<String>,
}

/// Seeds the store's file.
pub(super) async fn fill(path: &Path, args: &Args) -> anyhow::Result<Seeded> {
    let mut connection = create_for_loading(path).await?;
    let mut tx = connection.begin().await?;
    create_collections(&mut tx).await?;

    // One thread makes the rows while another writes them; few batches wait in between.
    let (sender, receiver) = mpsc::sync_channel::<Vec<Row>>(4);
    let recipe = Recipe {
        attachments: args.attachments,
        orphans: args.orphans,
        restore: args.restore,
        seed: args.seed,
        tiny: args.tiny,
    };
    let maker = thread::spawn(move || recipe.make(&sender));
    while let Ok(rows) = tokio::task::block_in_place(|| receiver.recv()) {
        insert(&mut tx, rows).await?;
    }
    let seeded = maker.join().map_err(|_| anyhow::anyhow!("making the attachments failed"))?;

    sqlx::query(
        "UPDATE collections SET total = (SELECT count(*) FROM documents WHERE collection = collections.id)",
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    create_indexes(&mut connection).await?;
    connection.close().await?;
    Ok(seeded)
}

async fn create_collections(tx: &mut Transaction<'_, Sqlite>) -> anyhow::Result<()> {
    let metadata = json!({ "purpose": "chatkit-uploads", "collection": BLOBS }).to_string();
    sqlx::query("INSERT INTO corpora (id, metadata) VALUES (?, ?)")
        .bind(CORPUS)
        .bind(metadata)
        .execute(&mut **tx)
        .await?;
    let collections =
        [(Collection::Blobs, BLOBS), (Collection::Metadata, METADATA), (Collection::Threads, "threads")];
    for (collection, name) in collections {
        sqlx::query("INSERT INTO collections (id, corpus, name) VALUES (?, ?, ?)")
            .bind(collection as i64)
            .bind(CORPUS)
            .bind(name)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn insert(tx: &mut Transaction<'_, Sqlite>, rows: Vec<Row>) -> sqlx::Result<()> {
    let values = vec!["(?,?,?,?,?)"; rows.len()].join(",");
    let sql = format!("INSERT INTO documents (collection, id, body, storedAt, attachmentId) VALUES {values}");
    let mut statement = sqlx::query(AssertSqlSafe(sql));
    for Row { collection, id, body, stored_at } in rows {
        let attachment_id = stored_at.is_some().then(|| id.clone());
        statement = statement.bind(collection as i64).bind(id).bind(body).bind(stored_at).bind(attachment_id);
    }
    statement.execute(&mut **tx).await?;
    Ok(())
}

struct Recipe {
    attachments: usize,
    orphans: usize,
    restore: usize,
    seed: u64,
    tiny: bool,
}

impl Recipe {
    /// Makes the rows and sends them in batches; ends early when nobody receives them any more.
    fn make(&self, sender: &mpsc::SyncSender<Vec<Row>>) -> Seeded {
        let mut random = Random::new(self.seed);
        let mut batch = Batch { sender, rows: Vec::new(), bytes: 0 };
        let threads = [crypto::uuid_from(random.bytes()), crypto::uuid_from(random.bytes())];
        for thread in &threads {
            let body = thread_body(thread, &mut random);
            batch.add(Row { collection: Collection::Threads, id: thread.clone(), body, stored_at: None });
        }
        let sessions: Vec<String> = (0..8).map(|_| crypto::uuid_from(random.bytes())).collect();
        let mut clock = Clock::new(self.attachments + self.orphans);
        let mut candidates = Vec::new();
        for index in 0..self.attachments + self.orphans {
            let attachment = Attachment {
                id: crypto::uuid_from(random.bytes()),
                session: random.pick(&sessions),
                thread: (random.below(3) == 0).then(|| random.pick(&threads)),
                stored_at: clock.next(&mut random),
                kind: index % content::KINDS.len(),
                number: index,
                tiny: self.tiny,
            };
            let (metadata, blob) = attachment.documents(&mut random);
            let (id, stored_at) = (attachment.id.clone(), Some(attachment.stored_at.clone()));
            // Orphans are the last ones: contents without a description.
            if index < self.attachments {
                if candidates.len() < 64 * content::KINDS.len() {
                    candidates.push((attachment.kind, id.clone()));
                }
                batch.add(Row {
                    collection: Collection::Metadata,
                    id: id.clone(),
                    body: metadata,
                    stored_at: stored_at.clone(),
                });
            }
            if !batch.add(Row { collection: Collection::Blobs, id, body: blob, stored_at }) {
                break;
            }
        }
        batch.send();
        Seeded { restore_ids: choose(candidates, self.restore, &mut random) }
    }
}

/// Takes from every media type in turn, so that all occur, and their sizes differ.
fn choose(mut candidates: Vec<(usize, String)>, wanted: usize, random: &mut Random) -> Vec<String> {
    let mut chosen = Vec::new();
    for kind in (0..content::KINDS.len()).cycle() {
        if chosen.len() == wanted || candidates.is_empty() {
            return chosen;
        }
        let of_kind: Vec<usize> =
            (0..candidates.len()).filter(|index| candidates[*index].0 == kind).collect();
        if !of_kind.is_empty() {
            chosen.push(candidates.swap_remove(random.pick(&of_kind)).1);
        }
    }
    chosen
}

fn thread_body(id: &str, random: &mut Random) -> String {
    let title = ["Onboarding questions", "Invoice of March", "Photos of the stage"][random.below(3)];
    let at = time::millis(Timestamp::now() - SPREAD);
    json!({ "id": id, "title": title, "createdAt": at, "updatedAt": at, "messages": [] }).to_string()
}

/// Times from [`SPREAD`] ago to shortly before now, growing, about every eighth one equal to the one before.
struct Clock {
    at: Timestamp,
    step: SignedDuration,
    text: String,
}

impl Clock {
    fn new(count: usize) -> Self {
        let steps = i32::try_from(count.max(1)).unwrap_or(i32::MAX);
        let step = (SPREAD - SignedDuration::from_mins(5)) / steps;
        let at = Timestamp::now() - SPREAD;
        Self { text: time::millis(at), at, step }
    }

    fn next(&mut self, random: &mut Random) -> String {
        self.at += self.step;
        if random.below(8) != 0 {
            self.text = time::millis(self.at);
        }
        self.text.clone()
    }
}

struct Batch<'a> {
    sender: &'a mpsc::SyncSender<Vec<Row>>,
    rows: Vec<Row>,
    bytes: usize,
}

impl Batch<'_> {
    /// `false` when nobody receives batches any more.
    fn add(&mut self, row: Row) -> bool {
        self.bytes += row.body.len();
        self.rows.push(row);
        if self.rows.len() < BATCH_ROWS && self.bytes < BATCH_BYTES {
            return true;
        }
        self.send()
    }

    fn send(&mut self) -> bool {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        rows.is_empty() || self.sender.send(rows).is_ok()
    }
}
