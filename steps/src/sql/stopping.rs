//! Work on a session that is stopped on the server too: a connection that is dropped does not end what the server does for it.

use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::connections::sql::Database;
use crate::kind::Context;

/// How long what was stopped may take to end.
const WAITED: u32 = 10;

/// How a piece of work ended.
pub(crate) enum Ending<T> {
    /// By itself.
    ByItself(T),
    /// The step was stopped or ran out of time, and the server was told so: what the work came to all the same, when it ended soon.
    Stopped(Option<T>),
}

/// Waits for work on the connection that the server calls `backend`, until the step is stopped.
pub(crate) async fn until_stopped<T>(
    cx: &Context,
    database: &Database,
    backend: Option<&str>,
    work: impl Future<Output = T>,
) -> Ending<T> {
    until(&cx.abandon, database, backend, work).await
}

/// The same, until `stop` fires.
pub(crate) async fn until<T>(
    stop: &CancellationToken,
    database: &Database,
    backend: Option<&str>,
    work: impl Future<Output = T>,
) -> Ending<T> {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return Ending::ByItself(done),
        () = stop.cancelled() => {}
    }
    let Some(backend) = backend else { return Ending::Stopped(None) };
    let second = Duration::from_secs(1);
    for _ in 0..WAITED {
        // Told again and again, because between two statements nobody hears it.
        let told = async {
            let _ = tokio::time::timeout(second, database.interrupt(backend)).await;
            tokio::time::sleep(second).await;
        };
        tokio::select! {
            done = &mut work => return Ending::Stopped(Some(done)),
            () = told => {}
        }
    }
    Ending::Stopped(None)
}
