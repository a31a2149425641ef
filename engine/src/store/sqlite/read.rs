//! Reading. A row that can not be understood is an error of its run alone.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::sqlite::{Sqlite, SqlitePool, SqliteRow};
use sqlx::{FromRow, Row};

use super::{failed, stored, sums};
use crate::event::{Event, Obligation};
use crate::state::RunStatus;
use crate::store::{BatchRow, LedgerRow, OpenObligation, RunRow, SettledRow, StoreError};

/// The statement that reads the batches of a step.
macro_rules! batches {
    ($which:literal) => {
        concat!(
            "select batch, intent, items, cursor, outcome, done, already, failed, intent_sum, settled_sum \
             from batches where run = ? and step = ? ",
            $which
        )
    };
}

type Batch =
    (i64, String, i64, Option<String>, Option<String>, i64, i64, i64, Option<String>, Option<String>);

pub async fn run(pool: &SqlitePool, run: &str) -> Result<Option<RunRow>, StoreError> {
    let row = sqlx::query(
        "select id, runbook, created_at, plan, definition, source_name, seed, lock_key, status, last_seq, epoch, owner, \
         lease_until, sum from runs where id = ?",
    )
    .bind(run)
    .fetch_optional(pool)
    .await
    .map_err(|error| failed(&error))?;
    row.map(|row| {
        let kept: Option<String> = row.try_get("sum").map_err(|error| failed(&error))?;
        let row = decode_run(run, &row)?;
        sums::check(run, "its plan", kept.as_deref(), &[&row.plan, &row.definition])?;
        Ok(row)
    })
    .transpose()
}

/// A run whose row can not be understood is left out, so that it does not hide the others; asking for it by its id says what
/// is wrong with it.
pub async fn runs(pool: &SqlitePool, limit: usize) -> Result<Vec<RunRow>, StoreError> {
    let rows = sqlx::query(
        "select id, runbook, created_at, '' as plan, '' as definition, source_name, seed, lock_key, status, last_seq, \
         epoch, owner, lease_until from runs order by created_at desc, number desc limit ?",
    )
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
    .map_err(|error| failed(&error))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let id: String = row.try_get("id").unwrap_or_default();
        match decode_run(&id, &row) {
            Ok(row) => found.push(row),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    Ok(found)
}

pub async fn events(pool: &SqlitePool, run: &str, after: u64) -> Result<Vec<Event>, StoreError> {
    let broken = |error: sqlx::Error| failed(&error);
    // One transaction, so that the row and the events are of one moment.
    let mut reading = pool.begin().await.map_err(broken)?;
    let last: Option<i64> = sqlx::query_scalar("select last_seq from runs where id = ?")
        .bind(run)
        .fetch_optional(&mut *reading)
        .await
        .map_err(broken)?;
    let rows: Vec<(i64, String, Option<String>)> =
        sqlx::query_as("select seq, body, sum from events where run = ? and seq > ? order by seq")
            .bind(run)
            .bind(stored(after))
            .fetch_all(&mut *reading)
            .await
            .map_err(broken)?;
    reading.commit().await.map_err(broken)?;
    let (first, count) = (stored(after) + 1, rows.len());
    let events: Vec<Event> = rows
        .into_iter()
        .zip(first..)
        .map(|((seq, body, sum), expected)| {
            sums::check(run, &format!("event {seq}"), sum.as_deref(), &[&body])?;
            let event: Event = json(run, &body)?;
            match stored(event.seq) {
                number if number != seq => Err(corrupt(run, format!("event {seq} is another one"))),
                _ if seq != expected => Err(corrupt(run, format!("event {expected} is missing"))),
                _ => Ok(event),
            }
        })
        .collect::<Result<_, _>>()?;
    let there = first - 1 + stored(count as u64);
    match last {
        Some(last) if last != there && last.max(there) > stored(after) => {
            Err(corrupt(run, format!("its row says that it has {last} events, and there are {there}")))
        }
        _ => Ok(events),
    }
}

pub async fn ledger(pool: &SqlitePool, run: &str, step: &str) -> Result<LedgerRow, StoreError> {
    let broken = |error: sqlx::Error| failed(&error);
    // One transaction, so that the parts are of one moment.
    let mut reading = pool.begin().await.map_err(broken)?;
    let unsettled: Vec<Batch> = sqlx::query_as(batches!("and outcome is null order by batch"))
        .bind(run)
        .bind(step)
        .fetch_all(&mut *reading)
        .await
        .map_err(broken)?;
    let first_unsettled = unsettled.first().map_or(i64::MAX, |row| row.0);
    let before: Option<Batch> =
        sqlx::query_as(batches!("and batch < ? and outcome is not null order by batch desc limit 1"))
            .bind(run)
            .bind(step)
            .bind(first_unsettled)
            .fetch_optional(&mut *reading)
            .await
            .map_err(broken)?;
    let (last, done, already, failures): (i64, i64, i64, i64) = sqlx::query_as(
        "select coalesce(max(batch), 0), coalesce(sum(done), 0), coalesce(sum(already), 0), coalesce(sum(failed), 0) \
         from batches where run = ? and step = ?",
    )
    .bind(run)
    .bind(step)
    .fetch_one(&mut *reading)
    .await
    .map_err(broken)?;
    reading.commit().await.map_err(broken)?;
    let before = before.map(|row| decode_batch(run, step, row)).transpose()?;
    Ok(LedgerRow {
        cursor: before.and_then(|batch| batch.settled).map(|settled| settled.cursor),
        last_batch: number(run, last)?,
        unsettled: unsettled.into_iter().map(|row| decode_batch(run, step, row)).collect::<Result<_, _>>()?,
        done: number(run, done)?,
        already: number(run, already)?,
        failed: number(run, failures)?,
    })
}

pub async fn batches(
    pool: &SqlitePool,
    run: &str,
    step: &str,
    after: u64,
    limit: usize,
    failed_only: bool,
) -> Result<Vec<BatchRow>, StoreError> {
    let statement = if failed_only {
        batches!("and batch > ? and failed > 0 order by batch limit ?")
    } else {
        batches!("and batch > ? order by batch limit ?")
    };
    let rows: Vec<Batch> = sqlx::query_as(statement)
        .bind(run)
        .bind(step)
        .bind(stored(after))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await
        .map_err(|error| failed(&error))?;
    rows.into_iter().map(|row| decode_batch(run, step, row)).collect()
}

pub async fn applied(pool: &SqlitePool, plan: &str) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar("select id from runs where applies = ?")
        .bind(plan)
        .fetch_optional(pool)
        .await
        .map_err(|error| failed(&error))
}

pub async fn recall(
    pool: &SqlitePool,
    run: &str,
    step: &str,
    name: &str,
) -> Result<Option<Value>, StoreError> {
    let value: Option<(String, Option<String>)> =
        sqlx::query_as("select value, sum from facts where run = ? and step = ? and name = ?")
            .bind(run)
            .bind(step)
            .bind(name)
            .fetch_optional(pool)
            .await
            .map_err(|error| failed(&error))?;
    value
        .map(|(value, sum)| {
            sums::check(
                run,
                &format!("what step `{step}` remembers as `{name}`"),
                sum.as_deref(),
                &[&value],
            )?;
            json(run, &value)
        })
        .transpose()
}

pub async fn counter<'e>(
    executor: impl sqlx::Executor<'e, Database = Sqlite>,
    run: &str,
    counter: &str,
) -> Result<u64, StoreError> {
    let amount: Option<(i64, Option<String>)> =
        sqlx::query_as("select amount, sum from counters where run = ? and counter = ?")
            .bind(run)
            .bind(counter)
            .fetch_optional(executor)
            .await
            .map_err(|error| failed(&error))?;
    let Some((amount, sum)) = amount else { return Ok(0) };
    sums::check(run, &format!("the counter `{counter}`"), sum.as_deref(), &[&amount.to_string()])?;
    number(run, amount)
}

/// An obligation whose record can not be understood is shown all the same, without its values: something is being held, and
/// its target is in columns of their own.
pub async fn obligations(pool: &SqlitePool) -> Result<Vec<OpenObligation>, StoreError> {
    type Columns = (String, String, String, String, String, String, String, String, Option<String>);
    let rows: Vec<Columns> = sqlx::query_as(
        "select run, id, target, label, step, body, opened_at, hold_until, sum from obligations order by opened_at, number",
    )
    .fetch_all(pool)
    .await
    .map_err(|error| failed(&error))?;
    let open = rows.into_iter().map(|(run, id, target, label, step, body, opened_at, hold_until, sum)| {
        let texts = [&*body, &*opened_at, &*hold_until];
        let whole = sums::check(&run, &format!("the record of {label}"), sum.as_deref(), &texts);
        let is_whole = whole.is_ok();
        let obligation = whole.and_then(|()| json(&run, &body)).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            let label = format!("{label} (its record can not be read)");
            let (original, replacement) = (Value::Null, Value::Null);
            Obligation {
                step,
                target,
                label,
                original,
                replacement,
                max_hold: crate::duration::Duration::from_secs(0),
            }
        });
        // A time that can not be read, or is not as it was written, counts as long past: the obligation is due.
        let past = |text: &str| time(&run, text).ok().filter(|_| is_whole).unwrap_or(Timestamp::UNIX_EPOCH);
        let (opened_at, hold_until) = (past(&opened_at), past(&hold_until));
        OpenObligation { run, id, obligation, opened_at, hold_until }
    });
    Ok(open.collect())
}

fn decode_run(run: &str, row: &SqliteRow) -> Result<RunRow, StoreError> {
    type Columns = (
        String,
        String,
        String,
        String,
        String,
        String,
        i64,
        Option<String>,
        String,
        i64,
        i64,
        Option<String>,
        Option<String>,
    );
    let (
        id,
        runbook,
        created_at,
        plan,
        definition,
        source_name,
        seed,
        lock,
        status,
        last_seq,
        epoch,
        owner,
        until,
    ) = Columns::from_row(row).map_err(|error| corrupt(run, super::chain(&error)))?;
    Ok(RunRow {
        runbook,
        created_at: time(run, &created_at)?,
        plan,
        definition,
        source_name,
        seed: seed.cast_unsigned(),
        lock,
        status: status_named(&status).ok_or_else(|| corrupt(run, format!("`{status}` is no status")))?,
        last_seq: number(run, last_seq)?,
        epoch: number(run, epoch)?,
        owner,
        lease_until: until.map(|until| time(run, &until)).transpose()?,
        id,
    })
}

fn status_named(name: &str) -> Option<RunStatus> {
    use RunStatus::{Cancelled, Failed, Running, Succeeded, Waiting};
    [Running, Waiting, Failed, Cancelled, Succeeded].into_iter().find(|status| status.name() == name)
}

fn decode_batch(run: &str, step: &str, row: Batch) -> Result<BatchRow, StoreError> {
    let (batch, intent, items, cursor, outcome, done, already, failed, intent_sum, settled_sum) = row;
    let what = format!("batch {batch} of step `{step}`");
    sums::check(run, &what, intent_sum.as_deref(), &[&intent])?;
    if let (Some(cursor), Some(outcome)) = (&cursor, &outcome) {
        let numbers = sums::numbers(done, already, failed);
        sums::check(run, &what, settled_sum.as_deref(), &[cursor, outcome, &numbers])?;
    }
    let settled = match (cursor, outcome) {
        (Some(cursor), Some(outcome)) => Some(SettledRow {
            cursor: json(run, &cursor)?,
            outcome: json(run, &outcome)?,
            done: number(run, done)?,
            already: number(run, already)?,
            failed: number(run, failed)?,
        }),
        _ => None,
    };
    Ok(BatchRow {
        step: step.to_owned(),
        batch: number(run, batch)?,
        intent: json(run, &intent)?,
        items: number(run, items)?,
        settled,
    })
}

pub fn corrupt(run: &str, reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt { run: run.to_owned(), reason: reason.into() }
}

pub fn number(run: &str, stored: i64) -> Result<u64, StoreError> {
    u64::try_from(stored).map_err(|_| corrupt(run, format!("{stored} is below zero")))
}

pub fn time(run: &str, text: &str) -> Result<Timestamp, StoreError> {
    text.parse().map_err(|error| corrupt(run, format!("`{text}` is no time: {error}")))
}

fn json<T: DeserializeOwned>(run: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(run, error.to_string()))
}

/// What the database itself finds damaged; none when it is whole. An index that has lost a row hides what is in its table.
pub async fn damage(pool: &SqlitePool) -> Result<Option<String>, StoreError> {
    let found: String = sqlx::query_scalar("pragma integrity_check(1)")
        .fetch_one(pool)
        .await
        .map_err(|error| failed(&error))?;
    Ok((found != "ok").then_some(found))
}
