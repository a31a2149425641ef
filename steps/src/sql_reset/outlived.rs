//! A reset on PostgreSQL whose process was killed: the server goes on with the statement that it is at work on, and keeps every lock, until it has
//! something to say and finds nobody there. So the connection is recorded before anything is done by it, and ended by whoever comes next.

use std::collections::BTreeMap;
use std::time::Duration;

use runbook_engine::error::{ErrorKind, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::SqlReset;
use crate::connections::sql::{Database, psql};
use crate::kind::Context;

/// How often it is looked whether a connection has ended, and how long in between.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// The connection of an attempt.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    /// What the server calls it: its process and when that began.
    backend: String,
    /// How the server was reached, without a password.
    server: BTreeMap<String, String>,
}

impl Begun {
    fn process(&self) -> &str {
        self.backend.split(' ').next().unwrap_or_default()
    }

    /// What is still there, and what ends it.
    fn told(&self, place: &str, why: &str, kind: ErrorKind) -> StepError {
        let process = self.process();
        let began = self.backend.split(' ').nth(1).unwrap_or_default();
        let message = format!(
            "connection {process} of {place} may still be at work on the reset: it keeps its locks until its files are at their end, and all of it is taken back then ({why})"
        );
        let statement = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid = {process} and extract(epoch from backend_start) = {began}"
        );
        StepError::new(kind, message).with_help(format!("type  {}", psql::line(&self.server, &statement)))
    }
}

fn name(number: u32) -> String {
    format!("backend {number}")
}

/// The connections of all attempts so far.
async fn recorded(cx: &Context) -> Result<Vec<Begun>, StepError> {
    let mut all = Vec::new();
    for number in 1.. {
        let Some(fact) = cx.ledger.recall(&name(number)).await? else { break };
        let begun = Begun::deserialize(fact)
            .map_err(|error| StepError::new(ErrorKind::Bug, format!("the ledger is unreadable: {error}")))?;
        all.push(begun);
    }
    Ok(all)
}

/// Records the connection of this attempt, before anything is done by it.
pub(super) async fn record(
    cx: &Context,
    database: &Database,
    backend: Option<&str>,
) -> Result<(), StepError> {
    let Some((backend, env)) = backend.zip(database.environment()) else { return Ok(()) };
    let server = psql::reached(&env).into_iter().map(|(name, value)| (name, cx.redactor.text(&value)));
    let begun = Begun { backend: backend.to_owned(), server: server.collect() };
    let number = u32::try_from(recorded(cx).await?.len()).unwrap_or(u32::MAX).saturating_add(1);
    cx.ledger.remember(&name(number), json!(begun)).await.map(drop)
}

/// Ends what the server still does for attempts that were killed. The error says what is still there.
pub(super) async fn end_all(step: &SqlReset, cx: &Context) -> Result<(), StepError> {
    for begun in recorded(cx).await? {
        match cx.resources.connection::<Database>(&step.connection) {
            Ok(database) => ended(&begun, cx, &database).await?,
            Err(error) => {
                let place = psql::place(&begun.server).unwrap_or_default();
                return Err(begun.told(&place, &error.message, ErrorKind::Transient));
            }
        }
    }
    Ok(())
}

/// Sees to it that a connection of an earlier attempt is over: ended on the server, and waited for.
async fn ended(begun: &Begun, cx: &Context, database: &Database) -> Result<(), StepError> {
    let place = database.describe();
    // Nobody has said no then, so that the next one may try again.
    let unknown = |why: &str| begun.told(&place, why, ErrorKind::Transient);
    let mut refused = None;
    for look in 0..LOOKS {
        let there = database.has(&begun.backend).await.map_err(|failure| unknown(&failure.error.message))?;
        if !there {
            if look > 0 {
                let process = begun.process();
                cx.live.say(&format!(
                    "ended connection {process} of {place}, which was still at work for an earlier attempt"
                ));
            }
            return Ok(());
        }
        cx.checkpoint()?;
        if look == 0
            && let Err(failure) = database.end(&begun.backend).await
        {
            if failure.lost {
                return Err(unknown(&failure.error.message));
            }
            refused = Some(failure.error.message);
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let why = refused.unwrap_or_else(|| "it was told to end".to_owned());
    Err(begun.told(&place, &why, ErrorKind::Refused))
}
