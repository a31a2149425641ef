//! What `delete-batch` writes into its ledger: what a batch is about, what became of each key, and where to go on.

use std::collections::BTreeMap;

use runbook_engine::error::{ErrorKind, StepError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::collections::{Doomed, KeyOutcome, Versions};

/// Where the step goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum At {
    /// In a manifest.
    Manifest {
        /// Which, from 0.
        index: usize,
        /// The byte at which the next line begins.
        offset: u64,
    },
    /// In a pass over what failed.
    Pass {
        /// Which, from 1.
        pass: u32,
        /// The number of the last batch whose failures were tried again.
        after: u64,
    },
}

/// What a batch is about to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Intended {
    /// Where the step goes on after it.
    pub next: At,
    /// Which manifests: see [`Cursor::manifests`].
    pub manifests: String,
    /// The keys, all of them out of the manifests, each with what an earlier pass did to it in the first collections: nothing in the
    /// first pass.
    pub keys: BTreeMap<String, String>,
    /// For keys whose manifest says it: what must still be there in which collection. Written down with the batch, because the manifest
    /// of a batch that is done again may be one that the step is no longer given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, Versions>,
    /// Of the keys those that failed for a reason that lasts, and are not asked for again before somebody has had the time to mend it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lasting: BTreeMap<String, StepError>,
}

impl Intended {
    /// The pass it belongs to: 0 is the first, over the manifests.
    pub fn pass(&self) -> u32 {
        match self.next {
            At::Manifest { .. } => 0,
            At::Pass { pass, .. } => pass,
        }
    }

    /// These keys as the collection of this name is to delete them.
    pub fn doomed(&self, keys: &[String], collection: &str) -> Vec<Doomed> {
        let expected = |key| self.versions.get(key)?.get(collection).cloned();
        keys.iter().map(|key| Doomed { key: key.clone(), expected: expected(key) }).collect()
    }

    /// The batch that tries again what failed of this one, but for those failures that are left as they are.
    pub fn again(
        mut self,
        next: At,
        failed: BTreeMap<String, String>,
        lasting: BTreeMap<String, StepError>,
    ) -> Self {
        self.versions.retain(|key, _| failed.contains_key(key));
        Self { next, keys: failed, lasting, ..self }
    }
}

/// Deleted by this batch.
pub(super) const DONE: char = 'd';
/// Was gone already.
pub(super) const ALREADY: char = 'a';
/// Was gone when a batch that a crash had cut off was done again: deleted by its first try, or gone before.
pub(super) const GONE: char = 'g';
/// Could not be deleted.
pub(super) const FAILED: char = 'f';
/// Was not tried, because the key could not be deleted from a collection before.
pub(super) const LEFT: char = '-';

/// What became of each key of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Became {
    /// For each key one character a collection, in the order of `collections`: `d` deleted, `a` gone already, `g` gone when a batch
    /// that a crash had cut off was done again, `f` failed, `-` not tried.
    pub ids: BTreeMap<String, String>,
    /// Why keys failed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, StepError>,
}

impl Became {
    /// What an earlier pass did.
    pub fn of(intended: &Intended) -> Self {
        let mut ids = intended.keys.clone();
        for (_, codes) in ids.iter_mut().filter(|(key, _)| intended.lasting.contains_key(*key)) {
            codes.push(FAILED);
        }
        Self { ids, errors: intended.lasting.clone() }
    }

    /// The keys that are to be deleted from the collection of this number, in order.
    pub fn open(&self, collection: usize) -> Vec<String> {
        let open = |codes: &String| codes.len() == collection && !codes.contains([FAILED, LEFT]);
        self.ids.iter().filter(|(_, codes)| open(codes)).map(|(key, _)| key.clone()).collect()
    }

    /// Records what the collection of this number did to the keys that were open.
    pub fn add(&mut self, collection: usize, open: &[String], outcomes: Vec<KeyOutcome>, again: bool) {
        let mut outcomes: BTreeMap<&String, KeyOutcome> = open.iter().zip(outcomes).collect();
        for (key, codes) in self.ids.iter_mut().filter(|(_, codes)| codes.len() == collection) {
            codes.push(match outcomes.remove(key) {
                Some(KeyOutcome::Done) => DONE,
                Some(KeyOutcome::Already) if again => GONE,
                Some(KeyOutcome::Already) => ALREADY,
                Some(KeyOutcome::Failed(error)) => {
                    self.errors.insert(key.clone(), error);
                    FAILED
                }
                None => LEFT,
            });
        }
    }

    /// The keys that failed, each with what was done to it before.
    pub fn failed(&self) -> BTreeMap<String, String> {
        let before = |(key, codes): (&String, &String)| {
            let end = codes.find(FAILED)?;
            Some((key.clone(), codes[..end].to_owned()))
        };
        self.ids.iter().filter_map(before).collect()
    }

    /// Of what failed, what can not get better by itself.
    pub fn lasting(&self) -> BTreeMap<String, StepError> {
        let lasting = self.errors.iter().filter(|(_, error)| !error.kind.retryable());
        lasting.map(|(key, error)| (key.clone(), error.clone())).collect()
    }

    /// How many keys were deleted from at least one collection, were gone from all, and failed.
    pub fn sums(&self) -> (u64, u64, u64) {
        let (mut done, mut already, mut failed) = (0, 0, 0);
        for codes in self.ids.values() {
            if codes.contains(FAILED) {
                failed += 1;
            } else if codes.contains(DONE) {
                done += 1;
            } else {
                already += 1;
            }
        }
        (done, already, failed)
    }
}

/// Sums over the settled batches, one number a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tally {
    /// How many keys the manifests gave.
    pub ids: u64,
    /// How many batches there were.
    pub batches: u64,
    /// How many keys failed in the pass under way.
    pub failed: u64,
    /// Deleted.
    pub deleted: Vec<u64>,
    /// Gone already.
    pub already: Vec<u64>,
    /// Gone when a batch was done again.
    pub gone: Vec<u64>,
}

impl Tally {
    /// Nothing yet, for so many collections.
    pub fn new(collections: usize) -> Self {
        let none = vec![0; collections];
        Self { deleted: none.clone(), already: none.clone(), gone: none, ..Self::default() }
    }

    /// Adds what became of a batch.
    pub fn add(&mut self, intended: &Intended, became: &Became) {
        self.batches += 1;
        if intended.pass() == 0 {
            self.ids += became.ids.len() as u64;
        }
        self.failed += became.failed().len() as u64;
        for (key, codes) in &became.ids {
            let before = intended.keys.get(key).map_or(0, String::len);
            for (at, code) in codes.chars().enumerate().skip(before) {
                let sums = match code {
                    DONE => &mut self.deleted,
                    ALREADY => &mut self.already,
                    GONE => &mut self.gone,
                    _ => continue,
                };
                if let Some(sum) = sums.get_mut(at) {
                    *sum += 1;
                }
            }
        }
    }
}

/// The cursor of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// Where the step goes on.
    pub at: At,
    /// The hashes of the manifests that `at` is a place in. A step that is sent back begins with other ones, at their first line.
    pub manifests: String,
    /// The batches up to this number are about earlier manifests.
    pub since: u64,
    /// The sums up to there.
    pub tally: Tally,
}

/// A record out of the ledger.
pub(super) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, StepError> {
    T::deserialize(value)
        .map_err(|error| StepError::new(ErrorKind::Store, format!("the ledger is unreadable: {error}")))
}

/// A record for the ledger.
pub(super) fn encode(value: &impl Serialize) -> Result<Value, StepError> {
    serde_json::to_value(value).map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collections::Version;

    fn intended(next: At, keys: &[(&str, &str)]) -> Intended {
        let keys = keys.iter().map(|(key, codes)| ((*key).to_owned(), (*codes).to_owned())).collect();
        Intended { next, manifests: String::new(), keys, versions: BTreeMap::new(), lasting: BTreeMap::new() }
    }

    fn failed() -> KeyOutcome {
        KeyOutcome::Failed(StepError::transient("busy"))
    }

    #[test]
    fn what_failed_in_one_collection_is_left_in_the_next() {
        let batch = intended(At::Manifest { index: 0, offset: 9 }, &[("a", ""), ("b", ""), ("c", "")]);
        let mut became = Became::of(&batch);
        became.add(0, &became.open(0), vec![KeyOutcome::Done, failed(), KeyOutcome::Already], false);
        let open = became.open(1);
        assert_eq!(open, ["a", "c"]);
        became.add(1, &open, vec![KeyOutcome::Done, KeyOutcome::Already], true);
        let codes: Vec<_> = became.ids.values().map(String::as_str).collect();
        assert_eq!(codes, ["dd", "f-", "ag"]);
        assert_eq!(became.sums(), (1, 1, 1));
        let mut tally = Tally::new(2);
        tally.add(&batch, &became);
        assert_eq!((&*tally.deleted, &*tally.already, &*tally.gone), (&[1, 1][..], &[1, 0][..], &[0, 1][..]));
        assert_eq!((tally.ids, tally.failed), (3, 1));
    }

    #[test]
    fn a_later_pass_goes_on_where_the_key_failed() {
        let first = intended(At::Manifest { index: 0, offset: 9 }, &[("a", "")]);
        let (mut became, mut tally) = (Became::of(&first), Tally::new(2));
        became.add(0, &became.open(0), vec![KeyOutcome::Done], false);
        became.add(1, &became.open(1), vec![failed()], false);
        tally.add(&first, &became);
        let again = first.again(At::Pass { pass: 1, after: 1 }, became.failed(), BTreeMap::new());
        let mut became = Became::of(&again);
        assert!(became.open(0).is_empty());
        became.add(0, &[], Vec::new(), false);
        became.add(1, &became.open(1), vec![KeyOutcome::Done], false);
        tally.add(&again, &became);
        assert_eq!(became.ids["a"], "dd");
        assert_eq!((&*tally.deleted, tally.ids, tally.batches), (&[1, 1][..], 1, 2));
    }

    #[test]
    fn a_version_is_for_its_collection_only_and_stays_with_its_key() {
        let version = |text: &str| Version(Value::from(text));
        let mut first = intended(At::Manifest { index: 0, offset: 9 }, &[("a", ""), ("b", ""), ("c", "")]);
        for key in ["a", "b"] {
            first.versions.insert(key.to_owned(), [("logs".to_owned(), version(key))].into());
        }
        let keys = ["a".to_owned(), "c".to_owned()];
        let of = |key: &str, expected| Doomed { key: key.to_owned(), expected };
        assert_eq!(first.doomed(&keys, "logs"), [of("a", Some(version("a"))), of("c", None)]);
        assert_eq!(first.doomed(&keys, "copies"), [of("a", None), of("c", None)]);
        let read: Intended = decode(&encode(&first).unwrap()).unwrap();
        assert_eq!(read, first);
        let again = first.again(
            At::Pass { pass: 1, after: 1 },
            [("a".to_owned(), String::new())].into(),
            BTreeMap::new(),
        );
        assert_eq!(again.versions.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(again.doomed(&keys[..1], "logs"), [of("a", Some(version("a")))]);
    }
}
