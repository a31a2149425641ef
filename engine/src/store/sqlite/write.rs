//! The changes, inside a transaction that holds the file's write lock: what is read here stays true until it commits.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;

use super::read::{number, time};
use super::sums::{self, sum};
use super::{failed, stored};
use crate::crash;
use crate::event::Event;
use crate::state::RunStatus;
use crate::store::{Charge, Fence, NewRun, StoreError, Write, rules};

/// What of a run's row the changes look at.
struct Head {
    epoch: u64,
    last_seq: u64,
    lock: Option<String>,
    owner: Option<String>,
    lease_until: Option<Timestamp>,
}

pub async fn create(connection: &mut SqliteConnection, new: &NewRun) -> Result<(), StoreError> {
    let present: Option<i64> = sqlx::query_scalar("select number from runs where id = ?")
        .bind(&new.id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| failed(&error))?;
    if present.is_some() {
        return Err(StoreError::Conflict);
    }
    let last_seq = rules::check_append(0, 0, std::slice::from_ref(&new.first))?;
    let applied: Option<String> = sqlx::query_scalar("select id from runs where applies = ?")
        .bind(&new.applies)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| failed(&error))?;
    if let Some(run) = applied {
        return Err(StoreError::Applied { run });
    }
    check_lock(connection, new.lock.as_deref(), &new.id).await?;
    sqlx::query(
        "insert into runs (id, runbook, created_at, plan, definition, source_name, seed, lock_key, applies, status, last_seq, epoch, sum) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
    )
    .bind(&new.id)
    .bind(&new.runbook)
    .bind(stamp(new.first.at))
    .bind(&new.plan)
    .bind(&new.definition)
    .bind(&new.source_name)
    .bind(new.seed.cast_signed())
    .bind(&new.lock)
    .bind(&new.applies)
    .bind(RunStatus::Running.name())
    .bind(stored(last_seq))
    .bind(sum(&[&new.plan, &new.definition]))
    .execute(&mut *connection)
    .await
    .map_err(|error| failed(&error))?;
    take_lock(connection, new.lock.as_deref(), &new.id).await?;
    append(connection, &new.id, std::slice::from_ref(&new.first)).await?;
    crash::point("store: create");
    Ok(())
}

pub async fn claim(
    connection: &mut SqliteConnection,
    run: &str,
    owner: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<u64, StoreError> {
    let head = head(connection, run).await?;
    if let (Some(owner), Some(until)) = (head.owner, head.lease_until.filter(|until| *until > now)) {
        return Err(StoreError::Busy { owner, until });
    }
    check_lock(connection, head.lock.as_deref(), run).await?;
    take_lock(connection, head.lock.as_deref(), run).await?;
    let epoch = head.epoch + 1;
    sqlx::query("update runs set epoch = ?, owner = ?, lease_until = ? where id = ?")
        .bind(stored(epoch))
        .bind(owner)
        .bind(stamp(until))
        .bind(run)
        .execute(&mut *connection)
        .await
        .map_err(|error| failed(&error))?;
    crash::point("store: claim");
    Ok(epoch)
}

pub async fn commit(
    connection: &mut SqliteConnection,
    run: &str,
    fence: Fence,
    writes: &[Write],
) -> Result<(), StoreError> {
    let mut head = head(connection, run).await?;
    rules::check_fence(fence, head.epoch, writes)?;
    for write in writes {
        apply(connection, run, &mut head, write, writes).await?;
        if let Some(name) = point(write) {
            crash::point(name);
        }
    }
    Ok(())
}

/// The name of the point after a write; none for what goes by time.
fn point(write: &Write) -> Option<&'static str> {
    Some(match write {
        Write::Append { .. } => "store: append",
        Write::OpenObligation { .. } => "store: open obligation",
        Write::CloseObligation { .. } => "store: close obligation",
        Write::Intend { .. } => "store: intend",
        Write::Settle { .. } => "store: settle",
        Write::Remember { .. } => "store: remember",
        Write::Renew { .. } => return None,
        Write::Leave => "store: leave",
        Write::Unlock => "store: unlock",
        Write::Abandon => "store: abandon",
    })
}

async fn head(connection: &mut SqliteConnection, run: &str) -> Result<Head, StoreError> {
    type Columns = (i64, i64, Option<String>, Option<String>, Option<String>);
    let row: Option<Columns> =
        sqlx::query_as("select epoch, last_seq, lock_key, owner, lease_until from runs where id = ?")
            .bind(run)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|error| failed(&error))?;
    let Some((epoch, last_seq, lock, owner, lease_until)) = row else {
        return Err(StoreError::NoSuchRun(run.to_owned()));
    };
    let lease_until = lease_until.map(|until| time(run, &until)).transpose()?;
    Ok(Head { epoch: number(run, epoch)?, last_seq: number(run, last_seq)?, lock, owner, lease_until })
}

async fn apply(
    connection: &mut SqliteConnection,
    run: &str,
    head: &mut Head,
    write: &Write,
    all: &[Write],
) -> Result<(), StoreError> {
    let statement = match write {
        Write::Append { after, events, status } => {
            head.last_seq = rules::check_append(head.last_seq, *after, events)?;
            append(connection, run, events).await?;
            sqlx::query("update runs set last_seq = ?, status = ? where id = ?")
                .bind(stored(head.last_seq))
                .bind(status.name())
                .bind(run)
        }
        Write::OpenObligation { .. } => return open_obligation(connection, run, write, all).await,
        Write::CloseObligation { id } => {
            sqlx::query("delete from obligations where run = ? and id = ?").bind(run).bind(id)
        }
        Write::Intend { .. } | Write::Settle { .. } => return batch(connection, run, write).await,
        Write::Remember { step, name, value } => {
            let value = json(value)?;
            let sum = sum(&[&value]);
            sqlx::query(
                "insert into facts (run, step, name, value, sum) values (?, ?, ?, ?, ?) on conflict do nothing",
            )
            .bind(run)
            .bind(step)
            .bind(name)
            .bind(value)
            .bind(sum)
        }
        Write::Abandon => return abandon(connection, run).await,
        // A lease without an owner would say nothing.
        Write::Renew { until } => {
            sqlx::query("update runs set lease_until = ? where id = ? and owner is not null")
                .bind(stamp(*until))
                .bind(run)
        }
        Write::Leave => {
            sqlx::query("update runs set owner = null, lease_until = null where id = ?").bind(run)
        }
        Write::Unlock => {
            sqlx::query("delete from locks where key = ? and run = ?").bind(head.lock.clone()).bind(run)
        }
    };
    statement.execute(&mut *connection).await.map(drop).map_err(|error| failed(&error))
}

async fn append(connection: &mut SqliteConnection, run: &str, events: &[Event]) -> Result<(), StoreError> {
    for event in events {
        let body = json(event)?;
        let sum = sum(&[&body]);
        sqlx::query("insert into events (run, seq, body, sum) values (?, ?, ?, ?)")
            .bind(run)
            .bind(stored(event.seq))
            .bind(body)
            .bind(sum)
            .execute(&mut *connection)
            .await
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}

async fn open_obligation(
    connection: &mut SqliteConnection,
    run: &str,
    write: &Write,
    all: &[Write],
) -> Result<(), StoreError> {
    let Write::OpenObligation { id, obligation, hold_until } = write else { return Ok(()) };
    let in_the_way: Option<(String, String)> =
        sqlx::query_as("select label, run from obligations where target = ? or (run = ? and id = ?) limit 1")
            .bind(&obligation.target)
            .bind(run)
            .bind(id)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|error| failed(&error))?;
    if let Some((label, run)) = in_the_way {
        return Err(StoreError::Held { label, run });
    }
    let body = json(obligation)?;
    let opened_at = stamp(rules::opened_at(all, id, obligation, *hold_until));
    let hold_until = stamp(*hold_until);
    let sum = sum(&[&body, &opened_at, &hold_until]);
    sqlx::query(
        "insert into obligations (run, id, target, label, step, body, opened_at, hold_until, sum) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(run)
    .bind(id)
    .bind(&obligation.target)
    .bind(&obligation.label)
    .bind(&obligation.step)
    .bind(body)
    .bind(opened_at)
    .bind(hold_until)
    .bind(sum)
    .execute(&mut *connection)
    .await
    .map(drop)
    .map_err(|error| failed(&error))
}

/// Announces or settles a batch. A number that is taken, and a batch that is settled or was never announced, change no row.
async fn batch(connection: &mut SqliteConnection, run: &str, write: &Write) -> Result<(), StoreError> {
    let (statement, charges) = match write {
        Write::Intend { batch, charges } => {
            let intent = json(&batch.intent)?;
            let sum = sum(&[&intent]);
            let statement = sqlx::query(
                "insert into batches (run, step, batch, intent, items, intent_sum) values (?, ?, ?, ?, ?, ?) \
                 on conflict do nothing",
            );
            let statement = statement.bind(run).bind(&batch.step).bind(stored(batch.batch));
            (statement.bind(intent).bind(stored(batch.items)).bind(sum), charges)
        }
        Write::Settle { step, batch, cursor, outcome, done, already, failed, charges } => {
            let [cursor, outcome] = [json(cursor)?, json(outcome)?];
            let [done, already, failed] = [*done, *already, *failed].map(stored);
            let sum = sum(&[&cursor, &outcome, &sums::numbers(done, already, failed)]);
            let statement = sqlx::query(
                "update batches set cursor = ?, outcome = ?, done = ?, already = ?, failed = ?, settled_sum = ? \
                 where run = ? and step = ? and batch = ? and outcome is null",
            );
            let statement = statement.bind(cursor).bind(outcome).bind(done).bind(already).bind(failed);
            (statement.bind(sum).bind(run).bind(step).bind(stored(*batch)), charges)
        }
        _ => return Ok(()),
    };
    let changed = statement.execute(&mut *connection).await.map_err(|error| failed(&error))?.rows_affected();
    if changed == 0 {
        return Err(StoreError::Conflict);
    }
    for one in charges {
        charge(connection, run, one).await?;
    }
    Ok(())
}

async fn charge(connection: &mut SqliteConnection, run: &str, charge: &Charge) -> Result<(), StoreError> {
    let present = super::read::counter(&mut *connection, run, &charge.counter).await?;
    let total = rules::check_charge(present, charge)?;
    sqlx::query(
        "insert into counters (run, counter, amount, sum) values (?, ?, ?, ?) \
         on conflict (run, counter) do update set amount = excluded.amount, sum = excluded.sum",
    )
    .bind(run)
    .bind(&charge.counter)
    .bind(stored(total))
    .bind(sum(&[&stored(total).to_string()]))
    .execute(&mut *connection)
    .await
    .map(drop)
    .map_err(|error| failed(&error))
}

async fn abandon(connection: &mut SqliteConnection, run: &str) -> Result<(), StoreError> {
    let ended = "update runs set status = ?, owner = null, lease_until = null where id = ?";
    let ended = sqlx::query(ended).bind(RunStatus::Cancelled.name()).bind(run);
    let held = sqlx::query("delete from obligations where run = ?").bind(run);
    let locked = sqlx::query("delete from locks where run = ?").bind(run);
    for statement in [ended, held, locked] {
        statement.execute(&mut *connection).await.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Refused when another run holds the key and has not ended for good. A status that can not be read counts as not ended.
async fn check_lock(
    connection: &mut SqliteConnection,
    key: Option<&str>,
    run: &str,
) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    let holder: Option<String> = sqlx::query_scalar(
        "select run from locks join runs on runs.id = locks.run \
         where key = ? and run <> ? and status not in (?, ?)",
    )
    .bind(key)
    .bind(run)
    .bind(RunStatus::Cancelled.name())
    .bind(RunStatus::Succeeded.name())
    .fetch_optional(&mut *connection)
    .await
    .map_err(|error| failed(&error))?;
    match holder {
        Some(run) => Err(StoreError::Locked { key: key.to_owned(), run }),
        None => Ok(()),
    }
}

async fn take_lock(
    connection: &mut SqliteConnection,
    key: Option<&str>,
    run: &str,
) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    sqlx::query(
        "insert into locks (key, run) values (?, ?) on conflict (key) do update set run = excluded.run",
    )
    .bind(key)
    .bind(run)
    .execute(&mut *connection)
    .await
    .map(drop)
    .map_err(|error| failed(&error))
}

/// A time as text whose order is the order in time.
fn stamp(time: Timestamp) -> String {
    format!("{time:.9}")
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Io(format!("can not be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_order_and_their_value_as_text() {
        let times = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000001Z", "2026-01-01T00:00:00.5Z"];
        let times = times.map(|time| time.parse::<Timestamp>().unwrap());
        let texts = times.map(stamp);
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts.map(|text| text.parse::<Timestamp>().unwrap()), times);
    }

    #[test]
    fn a_value_null_is_not_an_absent_one() {
        assert_eq!(json(&serde_json::Value::Null).unwrap(), "null");
    }
}
