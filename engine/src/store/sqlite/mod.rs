//! Runs in one SQLite file, shared by all processes of a machine. One task writes: it takes whatever is waiting, applies it in
//! one transaction and answers when that is on the disk, so that commits of many steps share the wait. Reading has its own
//! connections.

mod read;
mod reading;
mod schema;
mod sums;
mod write;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{BatchRow, Fence, LedgerRow, NewRun, OpenObligation, RunRow, Store, StoreError, Write};
use crate::event::Event;
use reading::Reading;
use writer::{Job, Request};

/// How many writes may wait; one more has to wait outside.
const QUEUE: usize = 256;

/// How many reads go on at one time.
const READERS: u32 = 4;

/// Keeps runs in a SQLite file.
///
/// Every method may be dropped at any point: a write that had been handed to the writer happens as a whole, one that had not
/// does not happen at all.
#[derive(Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    /// Absent once the store is closed, and when it is only read.
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    only_read: bool,
    writer: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    /// Held while something is written.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl SqliteStore {
    /// Opens the file, which is made when it is missing (0600, its folders 0700), and brings its tables up to date.
    /// [`StoreError::Io`] when that fails, or when the file was made by a later version of this program.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        schema::make_file(path).await?;
        let options = schema::options(path);
        let connection = schema::prepare(&options).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.clone().pragma("query_only", "on"))
            .await
            .map_err(|error| failed(&error))?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let writing = Arc::default();
        let work = writer::work(path.to_owned(), options, connection, queue, Arc::clone(&writing));
        let writer = tokio::spawn(work);
        Ok(Self {
            readers,
            requests: Mutex::new(Some(requests)),
            only_read: false,
            writer: tokio::sync::Mutex::new(Some(writer)),
            writing,
        })
    }

    /// Opens the file to read it, also where nothing can be written; with what to keep in mind about what is read, if it could not be
    /// read as always. None when there is no file. Its tables are brought up to date where that is needed.
    pub async fn open_to_read(path: &Path) -> Result<Option<(Self, Option<String>)>, StoreError> {
        if !schema::is_there(path)? {
            return Ok(None);
        }
        let Some(Reading { pool, caveat }) = reading::open(path).await? else {
            return Self::open(path).await.map(|store| Some((store, None)));
        };
        let writer = tokio::sync::Mutex::default();
        let (requests, writing) = (Mutex::default(), Arc::default());
        let store = Self { readers: pool, requests, only_read: true, writer, writing };
        Ok(Some((store, caveat)))
    }

    async fn ask(&self, job: Job) -> Result<u64, StoreError> {
        let reason = if self.only_read { "it was opened only to be read" } else { "it is closed" };
        let closed = || StoreError::Io(reason.to_owned());
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (reply, answer) = oneshot::channel();
        requests.ok_or_else(closed)?.send(Request { job, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| StoreError::Io("its writer stopped before it answered".to_owned()))?
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, run: NewRun) -> Result<(), StoreError> {
        self.ask(Job::Create(Box::new(run))).await.map(drop)
    }

    async fn claim(
        &self,
        run: &str,
        owner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<u64, StoreError> {
        self.ask(Job::Claim { run: run.to_owned(), owner: owner.to_owned(), now, until }).await
    }

    async fn commit(&self, run: &str, fence: Fence, writes: Vec<Write>) -> Result<(), StoreError> {
        self.ask(Job::Commit { run: run.to_owned(), fence, writes }).await.map(drop)
    }

    async fn run(&self, run: &str) -> Result<Option<RunRow>, StoreError> {
        read::run(&self.readers, run).await
    }

    async fn runs(&self, limit: usize) -> Result<Vec<RunRow>, StoreError> {
        read::runs(&self.readers, limit).await
    }

    async fn events(&self, run: &str, after: u64) -> Result<Vec<Event>, StoreError> {
        read::events(&self.readers, run, after).await
    }

    async fn ledger(&self, run: &str, step: &str) -> Result<LedgerRow, StoreError> {
        read::ledger(&self.readers, run, step).await
    }

    async fn batches(
        &self,
        run: &str,
        step: &str,
        after: u64,
        limit: usize,
        failed_only: bool,
    ) -> Result<Vec<BatchRow>, StoreError> {
        read::batches(&self.readers, run, step, after, limit, failed_only).await
    }

    async fn applied(&self, plan: &str) -> Result<Option<String>, StoreError> {
        read::applied(&self.readers, plan).await
    }

    async fn recall(&self, run: &str, step: &str, name: &str) -> Result<Option<Value>, StoreError> {
        read::recall(&self.readers, run, step, name).await
    }

    async fn counter(&self, run: &str, counter: &str) -> Result<u64, StoreError> {
        read::counter(&self.readers, run, counter).await
    }

    async fn damage(&self) -> Result<Option<String>, StoreError> {
        read::damage(&self.readers).await
    }

    async fn obligations(&self) -> Result<Vec<OpenObligation>, StoreError> {
        read::obligations(&self.readers).await
    }

    async fn still(&self) -> Option<OwnedMutexGuard<()>> {
        Some(Arc::clone(&self.writing).lock_owned().await)
    }

    async fn close(&self) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(requests);
        if let Some(writer) = self.writer.lock().await.take() {
            // It ends when everything that had been handed to it is answered. A panic in it has left its callers without
            // an answer, which they took for a failure.
            let _ = writer.await;
        }
        self.readers.close().await;
    }
}

/// An error of the database, with its causes.
fn failed(error: &sqlx::Error) -> StoreError {
    StoreError::Io(chain(error))
}

/// The error's text and that of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// A number as the database keeps it.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
