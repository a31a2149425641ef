//! Which keys there are, and page by page what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use redis::{RedisResult, Value as Answer, cmd, pipe};
use runbook_engine::error::StepError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{RedisKeys, name};
use crate::collections::Page;
use crate::connections::redis::failed;

/// How many keys the server looks at in one step of a listing.
const STEP: usize = 1000;

/// How many keys are read at one time.
const AT_A_TIME: usize = 16;

/// How many bytes of keys one page holds before it ends early.
const PAGE_BYTES: u64 = 64 * 1024 * 1024;

/// What a scan goes over.
pub(super) struct Listing {
    /// The keys as texts, in their order, each with when it expires, in milliseconds since 1970; -1: never.
    keys: Vec<(String, i64)>,
    /// Whether a key was listed and gone right after.
    moved: bool,
}

/// Where a scan goes on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    after: String,
}

impl RedisKeys {
    /// How many there are.
    pub(super) async fn count_names(&self) -> Result<u64, StepError> {
        let (mut names, mut cursor) = (BTreeSet::new(), 0);
        loop {
            let (next, found) = self.step(cursor).await?;
            names.extend(found);
            if next == 0 {
                return Ok(names.len() as u64);
            }
            cursor = next;
        }
    }

    /// The page behind a place.
    pub(super) async fn page(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError> {
        let cursor = cursor
            .map(Cursor::deserialize)
            .transpose()
            .map_err(|error| StepError::invalid(format!("the place in a listing is unreadable: {error}")))?;
        let listing = self.listing(cursor.is_some()).await?;
        let first = cursor.map_or(0, |cursor| listing.keys.partition_point(|(key, _)| *key <= cursor.after));
        let (mut items, mut bytes, mut at, mut gone) = (Vec::new(), 0, first, Vec::new());
        while at < listing.keys.len() && items.len() < limit && bytes < PAGE_BYTES {
            let until = listing.keys.len().min(at + AT_A_TIME.min(limit - items.len()));
            let some = &listing.keys[at..until];
            let names = some.iter().map(|(key, _)| name::read(key)).collect::<Result<Vec<_>, _>>()?;
            for (item, (_, expires)) in self.read_all(&names).await?.into_iter().zip(some) {
                match item {
                    Some(item) => {
                        bytes += item.bytes.unwrap_or(0);
                        items.push(item);
                    }
                    None => gone.push(*expires),
                }
            }
            at = until;
        }
        let moved = listing.moved || self.are_lost(&gone).await?;
        let next = match at.checked_sub(1).and_then(|last| listing.keys.get(last)) {
            Some((last, _)) if at < listing.keys.len() => Some(json!(Cursor { after: last.clone() })),
            _ => {
                self.keep(None);
                None
            }
        };
        Ok(Page { items, next, total: None, moved })
    }

    /// Whether one of the keys that went went otherwise than by expiring.
    async fn are_lost(&self, gone: &[i64]) -> Result<bool, StepError> {
        if gone.is_empty() {
            return Ok(false);
        }
        let what = "asking for the time";
        let answer = self.redis.ask(what, &cmd("TIME")).await?;
        let (seconds, micros): (i64, i64) =
            redis::from_redis_value(answer).map_err(|error| failed(what, &error.into()))?;
        let now = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        Ok(gone.iter().any(|expires| *expires < 0 || *expires > now))
    }

    /// What is listed: anew at the beginning of a scan, and where another process had begun it.
    async fn listing(&self, goes_on: bool) -> Result<Arc<Listing>, StepError> {
        let known = self.listing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listing) = known.filter(|_| goes_on) {
            return Ok(listing);
        }
        let (mut keys, mut cursor, mut moved) = (BTreeMap::new(), 0, false);
        loop {
            let (next, names) = self.step(cursor).await?;
            let mut commands = pipe();
            for name in &names {
                commands.cmd("PEXPIRETIME").arg(name);
            }
            let what = "asking when keys expire";
            let answers =
                if names.is_empty() { Vec::new() } else { self.redis.ask_all(what, &mut commands).await? };
            for (name, answer) in names.iter().zip(answers) {
                match number(what, answer)? {
                    -2 => moved = true,
                    expires => {
                        keys.insert(name::shown(name), expires);
                    }
                }
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
        let listing = Arc::new(Listing { keys: keys.into_iter().collect(), moved });
        self.keep(Some(Arc::clone(&listing)));
        Ok(listing)
    }

    fn keep(&self, listing: Option<Arc<Listing>>) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = listing;
    }

    /// One step of a listing: where the next one begins, 0 after the last, and some names, of which any may come again.
    async fn step(&self, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), StepError> {
        let what = format!("listing the keys {}", self.pattern);
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(STEP);
        let answer = self.redis.ask(&what, &command).await?;
        redis::from_redis_value(answer).map_err(|error| failed(&what, &error.into()))
    }
}

fn number(what: &str, answer: RedisResult<Answer>) -> Result<i64, StepError> {
    let read = answer.and_then(|answer| Ok(redis::from_redis_value(answer)?));
    read.map_err(|error| failed(what, &error))
}
