//! The documents in a SQLite file. One connection writes, several read; every write records its effect in
//! the same transaction.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use super::query::Query;
use crate::admin::Effect;

/// Members that queries usually sort by. They have columns of their own with an index, so that paging through
/// a large collection does not read and sort all of it for every page.
const COLUMNS: [&str; 2] = ["storedAt", "attachmentId"];

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS corpora (id TEXT PRIMARY KEY, metadata TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS collections (
        id INTEGER PRIMARY KEY, corpus TEXT NOT NULL, name TEXT NOT NULL, total INTEGER NOT NULL DEFAULT 0,
        UNIQUE (corpus, name));
    CREATE TABLE IF NOT EXISTS documents (
        collection INTEGER NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
        storedAt TEXT, attachmentId TEXT, PRIMARY KEY (collection, id));
    CREATE TABLE IF NOT EXISTS effects (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, op TEXT NOT NULL, corpus TEXT NOT NULL, collection TEXT, id TEXT,
        existed INTEGER NOT NULL);";

/// The store's data.
#[derive(Clone)]
pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// What a query found.
pub(crate) struct Found {
    /// How many documents match, whatever the page.
    pub(crate) total: i64,
    /// The documents of the page, as JSON text with commas in between.
    pub(crate) documents: String,
}

/// A document or collection name within a corpus.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) corpus: &'a str,
    pub(crate) collection: &'a str,
}

impl Database {
    /// Opens or makes the file, with its tables and indexes.
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Self> {
        // A killed process loses nothing without synchronous writes; only a power cut could, and then the
        // sandbox is gone anyway.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off)
            .pragma("cache_size", "-65536");
        let context = || format!("cannot open {}", path.display());
        let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
        let writer = pool.connect_with(options.clone()).await.with_context(context)?;
        sqlx::raw_sql(TABLES).execute(&writer).await.with_context(context)?;
        create_indexes(&mut *writer.acquire().await?).await.with_context(context)?;
        let pool = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false);
        let readers = pool.connect_with(options.pragma("query_only", "ON")).await.with_context(context)?;
        Ok(Self { writer, readers })
    }

    pub(crate) async fn corpora(&self, limit: i64, offset: i64) -> sqlx::Result<(i64, Vec<String>)> {
        let total = sqlx::query_scalar("SELECT count(*) FROM corpora").fetch_one(&self.readers).await?;
        let page = sqlx::query_scalar("SELECT id FROM corpora ORDER BY id LIMIT ? OFFSET ?")
            .bind(limit)
            .bind(offset)
            .fetch_all(&self.readers)
            .await?;
        Ok((total, page))
    }

    /// The metadata of a corpus, if there is one.
    pub(crate) async fn corpus(&self, corpus: &str) -> sqlx::Result<Option<Value>> {
        let metadata: Option<String> = sqlx::query_scalar("SELECT metadata FROM corpora WHERE id = ?")
            .bind(corpus)
            .fetch_optional(&self.readers)
            .await?;
        Ok(metadata.map(|text| serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// Makes a corpus, or replaces the metadata of the one that is there.
    pub(crate) async fn create_corpus(&self, corpus: &str, metadata: &Value) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        let existed = corpus_exists(&mut tx, corpus).await?;
        sqlx::query("INSERT OR REPLACE INTO corpora (id, metadata) VALUES (?, ?)")
            .bind(corpus)
            .bind(metadata.to_string())
            .execute(&mut *tx)
            .await?;
        record(&mut tx, "create_corpus", corpus, None, None, existed).await?;
        tx.commit().await
    }

    /// Deletes a corpus with everything in it; `false` when there is none.
    pub(crate) async fn delete_corpus(&self, corpus: &str) -> sqlx::Result<bool> {
        let mut tx = self.begin().await?;
        if !corpus_exists(&mut tx, corpus).await? {
            return Ok(false);
        }
        for sql in [
            "DELETE FROM documents WHERE collection IN (SELECT id FROM collections WHERE corpus = ?)",
            "DELETE FROM collections WHERE corpus = ?",
            "DELETE FROM corpora WHERE id = ?",
        ] {
            sqlx::query(sql).bind(corpus).execute(&mut *tx).await?;
        }
        record(&mut tx, "delete_corpus", corpus, None, None, true).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The collections of a corpus with their totals; `None` when there is no such corpus.
    pub(crate) async fn collections(&self, corpus: &str) -> sqlx::Result<Option<Vec<(String, i64)>>> {
        if self.corpus(corpus).await?.is_none() {
            return Ok(None);
        }
        sqlx::query_as("SELECT name, total FROM collections WHERE corpus = ? ORDER BY name")
            .bind(corpus)
            .fetch_all(&self.readers)
            .await
            .map(Some)
    }

    /// One document as JSON text.
    pub(crate) async fn document(&self, place: Place<'_>, id: &str) -> sqlx::Result<Option<String>> {
        sqlx::query_scalar(
            "SELECT body FROM documents JOIN collections ON collections.id = documents.collection
             WHERE corpus = ? AND name = ? AND documents.id = ?",
        )
        .bind(place.corpus)
        .bind(place.collection)
        .bind(id)
        .fetch_optional(&self.readers)
        .await
    }

    /// Stores a document; says whether one was there before, `None` when there is no such corpus.
    pub(crate) async fn put(&self, place: Place<'_>, id: &str, body: &str) -> sqlx::Result<Option<bool>> {
        let mut tx = self.begin().await?;
        if !corpus_exists(&mut tx, place.corpus).await? {
            return Ok(None);
        }
        let collection = ensure_collection(&mut tx, place).await?;
        let existed = sqlx::query_scalar("SELECT 1 FROM documents WHERE collection = ? AND id = ?")
            .bind(collection)
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?
            .is_some_and(|one: i64| one == 1);
        sqlx::query(
            "INSERT OR REPLACE INTO documents (collection, id, body, storedAt, attachmentId) VALUES
             (?1, ?2, ?3, CAST(json_extract(?3, '$.storedAt') AS TEXT), CAST(json_extract(?3, '$.attachmentId') AS TEXT))",
        )
            .bind(collection)
            .bind(id)
            .bind(body)
            .execute(&mut *tx)
            .await?;
        if !existed {
            change_total(&mut tx, collection, 1).await?;
        }
        record(&mut tx, "put", place.corpus, Some(place.collection), Some(id), existed).await?;
        tx.commit().await?;
        Ok(Some(existed))
    }

    /// Deletes a document; says whether it was there, `None` when there is no such corpus.
    pub(crate) async fn delete(&self, place: Place<'_>, id: &str) -> sqlx::Result<Option<bool>> {
        let mut tx = self.begin().await?;
        if !corpus_exists(&mut tx, place.corpus).await? {
            return Ok(None);
        }
        let collection = ensure_collection(&mut tx, place).await?;
        let existed = sqlx::query("DELETE FROM documents WHERE collection = ? AND id = ?")
            .bind(collection)
            .bind(id)
            .execute(&mut *tx)
            .await?
            .rows_affected()
            > 0;
        if existed {
            change_total(&mut tx, collection, -1).await?;
        }
        record(&mut tx, "delete", place.corpus, Some(place.collection), Some(id), existed).await?;
        tx.commit().await?;
        Ok(Some(existed))
    }

    /// Runs a query; `None` when there is no such corpus.
    pub(crate) async fn query(&self, place: Place<'_>, query: &Query) -> sqlx::Result<Option<Found>> {
        let mut tx = self.readers.begin().await?;
        if !corpus_exists(&mut tx, place.corpus).await? {
            return Ok(None);
        }
        let collection: Option<(i64, i64)> =
            sqlx::query_as("SELECT id, total FROM collections WHERE corpus = ? AND name = ?")
                .bind(place.corpus)
                .bind(place.collection)
                .fetch_optional(&mut *tx)
                .await?;
        let Some((collection, all)) = collection else {
            return Ok(Some(Found { total: 0, documents: String::new() }));
        };
        let (conditions, values) = query.conditions();
        let total = if values.is_empty() {
            all
        } else {
            let sql = format!("SELECT count(*) FROM documents WHERE collection = ?{conditions}");
            let mut count = sqlx::query_scalar(AssertSqlSafe(sql)).bind(collection);
            for value in &values {
                count = count.bind(value.as_str());
            }
            count.fetch_one(&mut *tx).await?
        };
        let order = query.order();
        // One row for the whole page: many small rows would cost more than their content.
        let sql = format!(
            "SELECT coalesce(group_concat(body, ','), '') FROM (SELECT body FROM documents
             WHERE collection = ?{conditions} ORDER BY {order} LIMIT ? OFFSET ?)"
        );
        let mut page = sqlx::query_scalar(AssertSqlSafe(sql)).bind(collection);
        for value in &values {
            page = page.bind(value.as_str());
        }
        let (limit, offset) = query.page(total);
        let documents = page.bind(limit).bind(offset).fetch_one(&mut *tx).await?;
        Ok(Some(Found { total, documents }))
    }

    /// The write effects with a greater number than `after`, in order.
    pub(crate) async fn effects(&self, after: u64) -> sqlx::Result<Vec<Effect>> {
        type Row = (i64, String, String, Option<String>, Option<String>, bool);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT seq, op, corpus, collection, id, existed FROM effects WHERE seq > ? ORDER BY seq",
        )
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        let effect = |(seq, op, corpus, collection, id, existed): Row| Effect {
            seq: seq.unsigned_abs(),
            op,
            corpus,
            collection,
            id,
            existed,
        };
        Ok(rows.into_iter().map(effect).collect())
    }

    async fn begin(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }
}

/// Makes a new file for bulk loading: fast, without the indexes, and no good after a crash.
pub(crate) async fn create_for_loading(path: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .locking_mode(SqliteLockingMode::Exclusive)
        .pragma("cache_size", "-262144")
        .pragma("temp_store", "MEMORY");
    let mut connection =
        options.connect().await.with_context(|| format!("cannot make {}", path.display()))?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    Ok(connection)
}

/// Makes the indexes; on loaded documents that is faster than to keep them while loading.
pub(crate) async fn create_indexes(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    for column in COLUMNS {
        let sql =
            format!("CREATE INDEX IF NOT EXISTS documents_{column} ON documents (collection, {column}, id)");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The SQL of a document's member as text: the store compares strings, whatever the member's type.
///
/// `field` must have passed [`super::query::is_field`].
pub(crate) fn text_of(field: &str) -> String {
    if COLUMNS.contains(&field) {
        field.into()
    } else {
        format!("CAST(json_extract(body, '$.{field}') AS TEXT)")
    }
}

async fn corpus_exists(tx: &mut Transaction<'_, Sqlite>, corpus: &str) -> sqlx::Result<bool> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM corpora WHERE id = ?")
        .bind(corpus)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(found.is_some())
}

async fn ensure_collection(tx: &mut Transaction<'_, Sqlite>, place: Place<'_>) -> sqlx::Result<i64> {
    sqlx::query("INSERT INTO collections (corpus, name) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(place.corpus)
        .bind(place.collection)
        .execute(&mut **tx)
        .await?;
    sqlx::query_scalar("SELECT id FROM collections WHERE corpus = ? AND name = ?")
        .bind(place.corpus)
        .bind(place.collection)
        .fetch_one(&mut **tx)
        .await
}

async fn change_total(tx: &mut Transaction<'_, Sqlite>, collection: i64, by: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE collections SET total = total + ? WHERE id = ?")
        .bind(by)
        .bind(collection)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn record(
    tx: &mut Transaction<'_, Sqlite>,
    op: &str,
    corpus: &str,
    collection: Option<&str>,
    id: Option<&str>,
    existed: bool,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO effects (op, corpus, collection, id, existed) VALUES (?, ?, ?, ?, ?)")
        .bind(op)
        .bind(corpus)
        .bind(collection)
        .bind(id)
        .bind(existed)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
