//! Keys read, deleted while they are as they were, and put back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::{Pipeline, RedisError, RedisResult, Value as Answer, pipe};
use runbook_engine::crash;
use runbook_engine::error::StepError;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{RedisKeys, name};
use crate::collections::{Doomed, Item, KeyOutcome, Version};
use crate::connections::redis::{failed, is_taken};

/// What is sent to the server: run there, nothing of others happens in between.
const READ: &str = concat!(include_str!("state.lua"), include_str!("read.lua"));
const DELETE: &str = concat!(include_str!("state.lua"), include_str!("delete.lua"));

/// The most memory that a key may take to be read, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Which state of a key was read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    r#type: String,
    digest: String,
    /// When it expires, in milliseconds since 1970; -1: never.
    expires_at_ms: i64,
}

/// A key as the server dumps it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    key: String,
    r#type: String,
    /// When it expires, in milliseconds since 1970; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    /// Base64.
    dump: String,
}

/// What the server answered for one key.
type Each = RedisResult<Answer>;

fn understood<T: redis::FromRedisValue>(answer: Each) -> Result<T, RedisError> {
    answer.and_then(|answer| Ok(redis::from_redis_value(answer)?))
}

fn unreadable(error: &serde_json::Error) -> StepError {
    StepError::invalid(format!("the record of a key is unreadable: {error}"))
}

impl RedisKeys {
    /// The keys of these names, where there is one, in their order.
    pub(super) async fn read_all(&self, names: &[Vec<u8>]) -> Result<Vec<Option<Item>>, StepError> {
        let mut commands = pipe();
        for name in names {
            commands.cmd("EVAL_RO").arg(READ).arg(1).arg(name).arg(LARGEST);
        }
        let answers = self.send("reading keys", &mut commands, names.len()).await?;
        names.iter().zip(answers).map(|(name, answer)| item(name, answer)).collect()
    }

    /// Deletes these keys; one outcome per key, in their order.
    pub(super) async fn delete_all(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        let (mut commands, mut outcomes, mut sent) = (pipe(), Vec::new(), Vec::new());
        for doomed in keys {
            let ready = self.name(&doomed.key).and_then(|name| Ok((name, held(doomed)?)));
            outcomes.push(match ready {
                Err(error) => Some(KeyOutcome::Failed(error)),
                Ok((name, None)) => {
                    commands.cmd("UNLINK").arg(name);
                    None
                }
                Ok((name, Some(held))) => {
                    commands.cmd("EVAL").arg(DELETE).arg(1).arg(name);
                    commands.arg(held.r#type).arg(held.digest).arg(held.expires_at_ms);
                    None
                }
            });
            if let Some(None) = outcomes.last() {
                sent.push(outcomes.len() - 1);
            }
        }
        let flight = self.send("deleting keys", &mut commands, sent.len());
        let answers = crash::around("redis: delete", flight).await?;
        for (at, answer) in sent.into_iter().zip(answers) {
            outcomes[at] = Some(deleted(&keys[at].key, answer));
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Puts these keys back where none is, with their expiry; one outcome per item, in their order.
    pub(super) async fn put_all(&self, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError> {
        let mut outcomes = Vec::new();
        for item in items {
            outcomes.push(self.restore(item).await.unwrap_or_else(KeyOutcome::Failed));
        }
        Ok(outcomes)
    }

    async fn restore(&self, item: &Item) -> Result<KeyOutcome, StepError> {
        let name = self.name(&item.key)?;
        let record = Record::deserialize(&item.record).map_err(|error| unreadable(&error))?;
        let dump = STANDARD.decode(&record.dump).map_err(|error| {
            StepError::invalid(format!("the dump of `{}` is no base64: {error}", item.key))
        })?;
        let mut commands = pipe();
        commands.cmd("RESTORE").arg(&name).arg(record.expires_at_ms.unwrap_or(0)).arg(dump).arg("ABSTTL");
        commands.cmd("EXISTS").arg(&name);
        let what = format!("putting `{}` back", item.key);
        let mut answers = self.send(&what, &mut commands, 2).await?.into_iter();
        let (restored, there) = (answers.next(), answers.next());
        match restored.map(understood::<()>) {
            Some(Ok(())) => {}
            Some(Err(error)) if is_taken(&error) => {
                let there = self.read_all(&[name]).await?.pop().flatten();
                return match there {
                    Some(there) if there.version == item.version => Ok(KeyOutcome::Already),
                    _ => {
                        Err(StepError::refused(format!("another key is at `{}` now; it was left", item.key)))
                    }
                };
            }
            Some(Err(error)) => return Err(failed(&what, &error)),
            None => return Err(StepError::transient(format!("{what}: no answer")).unknown()),
        }
        // One whose time is over is not made: it would have gone by itself.
        match there.map(understood::<u64>) {
            Some(Ok(0)) if record.expires_at_ms.is_some() => Ok(KeyOutcome::Already),
            _ => Ok(KeyOutcome::Done),
        }
    }

    /// Sends commands together; an answer for each.
    async fn send(&self, what: &str, commands: &mut Pipeline, count: usize) -> Result<Vec<Each>, StepError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let answers = self.redis.ask_all(what, commands).await?;
        if answers.len() == count {
            return Ok(answers);
        }
        Err(StepError::transient(format!("{what}: {} answers to {count} commands", answers.len())).unknown())
    }
}

/// What must still be there of a key to delete, if anything must.
fn held(doomed: &Doomed) -> Result<Option<Held>, StepError> {
    let Some(expected) = &doomed.expected else { return Ok(None) };
    Held::deserialize(&expected.0).map(Some).map_err(|error| {
        StepError::gate(format!("the snapshot's version of `{}` is unreadable: {error}", doomed.key))
    })
}

/// What became of a key to delete: the script says it in words, and `UNLINK` by how many there were.
fn deleted(key: &str, answer: Each) -> KeyOutcome {
    match answer {
        Ok(Answer::Int(0)) => KeyOutcome::Already,
        Ok(Answer::Int(_)) => KeyOutcome::Done,
        other => match understood::<String>(other).as_deref() {
            Ok("done") => KeyOutcome::Done,
            Ok("gone") => KeyOutcome::Already,
            Ok(how) => KeyOutcome::changed(key, how),
            Err(error) => KeyOutcome::Failed(failed(&format!("deleting `{key}`"), error)),
        },
    }
}

/// The item that the script tells of.
fn item(name: &[u8], answer: Each) -> Result<Option<Item>, StepError> {
    let key = name::shown(name);
    let what = format!("reading `{key}`");
    match answer {
        Ok(Answer::Nil) => return Ok(None),
        Ok(Answer::Int(bytes)) => {
            let message =
                format!("`{key}` takes {bytes} bytes of memory; {LARGEST} are the most that a record holds");
            return Err(StepError::refused(message));
        }
        _ => {}
    }
    let (kind, digest, expires, dump): (String, String, i64, Vec<u8>) =
        understood(answer).map_err(|error| failed(&what, &error))?;
    let record = json!(Record {
        key: key.clone(),
        r#type: kind.clone(),
        expires_at_ms: (expires >= 0).then_some(expires),
        dump: STANDARD.encode(&dump),
    });
    let version = json!(Held { r#type: kind, digest, expires_at_ms: expires });
    Ok(Some(Item { key, record, bytes: Some(dump.len() as u64), version: Some(Version(version)) }))
}
