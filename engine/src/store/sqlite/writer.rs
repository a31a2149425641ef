//! The task that writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{failed, schema, write};
use crate::crash;
use crate::store::holder::{self, Holder};
use crate::store::{Fence, NewRun, StoreError, Write};

/// How many writes share one transaction at most.
const GROUP: usize = 128;

/// A change that is asked for.
#[derive(Debug)]
pub enum Job {
    /// Create a run.
    Create(Box<NewRun>),
    /// Take a run over.
    Claim { run: String, owner: String, now: Timestamp, until: Timestamp },
    /// Change a run.
    Commit { run: String, fence: Fence, writes: Vec<Write> },
}

/// A change and who waits for it: a claim is answered with its epoch, the others with 0.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub job: Job,
    /// Where to answer. Nobody may be listening any more.
    pub reply: oneshot::Sender<Result<u64, StoreError>>,
}

/// How long a process that was stopped in the middle of a write is waited for.
const STOPPED: Duration = Duration::from_secs(15 * 60);

/// Works until nobody can ask any more and everything asked is answered.
pub async fn work(
    path: PathBuf,
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    mut queue: mpsc::Receiver<Request>,
    writing: Arc<Mutex<()>>,
) {
    let mut connection = Some(connection);
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let (jobs, replies): (Vec<_>, Vec<_>) =
            group.drain(..).map(|Request { job, reply }| (job, reply)).unzip();
        let begun = Instant::now();
        let results = loop {
            let still = writing.lock().await;
            let error = match attempt(&options, &mut connection, &jobs).await {
                Ok(results) => break results,
                Err(error) => error,
            };
            drop(still);
            if begun.elapsed() < STOPPED && schema::is_busy(&error) && waits(&path, connection.as_mut()).await
            {
                continue;
            }
            // Whatever the connection was in the middle of ends with it.
            connection = None;
            break vec![Err(failed(&error)); replies.len()];
        };
        for (reply, result) in replies.into_iter().zip(results) {
            let _ = reply.send(result);
        }
    }
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the state database did not close cleanly; what was written is safe");
    }
}

/// Whether it is worth while to wait for whoever has the database: a process that was stopped goes on when somebody wakes it. Not while
/// something is overdue, which a person has to be told.
async fn waits(path: &Path, connection: Option<&mut SqliteConnection>) -> bool {
    let Some(Holder { pid, .. }) = holder::writing(path).filter(|holder| holder.stopped) else {
        return false;
    };
    let Some(connection) = connection else { return false };
    let overdue: Result<Option<i64>, _> =
        sqlx::query_scalar("select 1 from obligations where hold_until <= ? limit 1")
            .bind(format!("{:.9}", Timestamp::now()))
            .fetch_optional(connection)
            .await;
    let waits = matches!(overdue, Ok(None));
    if waits {
        tracing::warn!(
            "process {pid} has {} for itself and was stopped; this one waits: kill -CONT {pid} lets it go on",
            path.display()
        );
    }
    waits
}

/// One result for each job, all of them durable; or an error, and none of them happened.
async fn attempt(
    options: &SqliteConnectOptions,
    connection: &mut Option<SqliteConnection>,
    jobs: &[Job],
) -> Result<Vec<Result<u64, StoreError>>, sqlx::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(options.connect().await?),
    };
    commit_group(connection, jobs).await
}

async fn commit_group(
    connection: &mut SqliteConnection,
    jobs: &[Job],
) -> Result<Vec<Result<u64, StoreError>>, sqlx::Error> {
    let counts = jobs.iter().any(|job| !is_renewal(job));
    if counts {
        crash::point("store: transaction");
    }
    // Reading first and asking for the write lock later could be refused for what another process wrote in between.
    let mut group = connection.begin_with("begin immediate").await?;
    let mut results = Vec::with_capacity(jobs.len());
    for job in jobs {
        let mut savepoint = group.begin().await?;
        let result = perform(&mut savepoint, job).await;
        match result {
            Ok(_) => savepoint.commit().await,
            // When the database itself has given the whole transaction up, there is no savepoint to go back to: this
            // fails, and so does the group.
            Err(_) => savepoint.rollback().await,
        }?;
        results.push(result);
    }
    group.commit().await?;
    if counts {
        crash::point("store: committed");
    }
    Ok(results)
}

/// Whether it only extends a lease, which goes by time.
fn is_renewal(job: &Job) -> bool {
    matches!(job, Job::Commit { writes, .. } if writes.iter().all(|write| matches!(write, Write::Renew { .. })))
}

async fn perform(connection: &mut SqliteConnection, job: &Job) -> Result<u64, StoreError> {
    match job {
        Job::Create(run) => write::create(connection, run).await.map(|()| 0),
        Job::Claim { run, owner, now, until } => write::claim(connection, run, owner, *now, *until).await,
        Job::Commit { run, fence, writes } => {
            write::commit(connection, run, *fence, writes).await.map(|()| 0)
        }
    }
}
