//! Deleting objects: a thousand keys a request, an outcome for each, and nothing that has changed.

use std::collections::HashMap;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::{StreamExt as _, stream};
use runbook_engine::error::{ErrorKind, StepError};
use serde_json::Value;

use super::list::Keeps;
use super::object::{NULL, Name};
use super::{AT_A_TIME, S3Objects};
use crate::collections::{Doomed, KeyOutcome};
use crate::connections::s3::{failed, is_missing, is_transient};
use crate::retry::{Patience, asked};

/// What is to become of one key.
enum Way {
    /// It is asked of the store to delete it, on the condition of this ETag if there is one.
    Ask(Name, Option<String>),
    /// It needs nothing more.
    Settled(KeyOutcome),
}

impl S3Objects {
    /// Deletes these keys; one outcome per key, in their order. A store that is too busy, for all of them or for some, is asked again for
    /// those after a while.
    pub(super) async fn delete_all(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        let mut patience = Patience::default();
        let mut ends: Vec<Option<KeyOutcome>> = vec![None; keys.len()];
        loop {
            let open: Vec<usize> =
                (0..keys.len()).filter(|at| ends[*at].as_ref().is_none_or(passes)).collect();
            let asked: Vec<Doomed> = open.iter().map(|at| keys[*at].clone()).collect();
            let failure = match self.delete_once(&asked).await {
                Ok(outcomes) => {
                    for (at, outcome) in open.into_iter().zip(outcomes) {
                        ends[at] = Some(outcome);
                    }
                    longest_wait(&ends)
                }
                Err(failure) => Some(failure),
            };
            let Some(failure) = failure else { break };
            if !patience.allows(&failure).await {
                if ends.iter().any(Option::is_none) {
                    return Err(failure);
                }
                break;
            }
        }
        Ok(ends.into_iter().flatten().collect())
    }

    /// Asks once.
    async fn delete_once(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        let guarded = keys.iter().any(|one| one.expected.is_some());
        let conditional = guarded && !self.settings.versions && self.is_conditional().await;
        let ways =
            stream::iter(keys.to_vec()).map(|doomed| async move { self.way(&doomed, conditional).await });
        let ways: Vec<Way> = ways.buffered(AT_A_TIME).collect().await;
        let asked = ways.iter().filter_map(|way| match way {
            Way::Ask(name, etag) => Some((name, etag.as_deref())),
            Way::Settled(_) => None,
        });
        let asked: Vec<_> = asked.collect();
        let mut outcomes = self.request(&asked).await?;
        for (name, etag) in &asked {
            let (key, Some(etag)) = (name.to_string(), etag) else { continue };
            // The store refuses its condition of what is not there any more as well.
            if matches!(outcomes.get(&key), Some(KeyOutcome::Failed(error)) if error.kind == ErrorKind::Gate)
                && let Way::Settled(outcome) = self.looked((*name).clone(), etag).await
            {
                outcomes.insert(key, outcome);
            }
        }
        let told = |name: &Name| {
            let lost = StepError::transient(format!("the store said nothing of `{name}`")).unknown();
            KeyOutcome::Failed(lost)
        };
        Ok(ways
            .into_iter()
            .map(|way| match way {
                Way::Settled(outcome) => outcome,
                Way::Ask(name, _) => outcomes.remove(&name.to_string()).unwrap_or_else(|| told(&name)),
            })
            .collect())
    }

    /// Looks at an object first, unless the store makes sure of its version by itself.
    async fn way(&self, doomed: &Doomed, conditional: bool) -> Way {
        let name = match self.name(&doomed.key) {
            Ok(name) => name,
            Err(error) => return Way::Settled(KeyOutcome::Failed(error)),
        };
        let Some(expected) = &doomed.expected else { return Way::Ask(name, None) };
        let Some(etag) = expected.0.get("etag").and_then(Value::as_str) else {
            // A delete marker, which never changes.
            return match expected.0.get("marker") {
                Some(Value::Bool(true)) => Way::Ask(name, None),
                _ => Way::Settled(unreadable(&doomed.key)),
            };
        };
        if conditional {
            return Way::Ask(name, Some(etag.to_owned()));
        }
        self.looked(name, etag).await
    }

    /// How to go on with an object that is to have this ETag, once it was looked at.
    async fn looked(&self, name: Name, etag: &str) -> Way {
        match self.look(&name).await {
            Ok(None) => Way::Settled(KeyOutcome::Already),
            Ok(Some(now)) => {
                let tag = now.record.get("etag").and_then(Value::as_str).unwrap_or_default();
                if tag == etag {
                    return Way::Ask(name, None);
                }
                let how = format!("it had the ETag {etag} and has {tag} now");
                Way::Settled(KeyOutcome::changed(&name.to_string(), &how))
            }
            Err(error) => Way::Settled(KeyOutcome::Failed(error)),
        }
    }

    /// One request for all of them: what became of each, by its name.
    async fn request(
        &self,
        asked: &[(&Name, Option<&str>)],
    ) -> Result<HashMap<String, KeyOutcome>, StepError> {
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let what = format!("deleting {} keys of {}", asked.len(), self.bucket.describe());
        let invalid = |error: aws_sdk_s3::error::BuildError| StepError::invalid(format!("{what}: {error}"));
        // Where no versions are kept the one that is there is the object, and not every store knows it by `null` then.
        let nulls = asked.iter().any(|(name, _)| name.version.as_deref() == Some(NULL));
        let bare = nulls && self.keeps().await? == Keeps::Nothing;
        let mut delete = Delete::builder();
        for (name, etag) in asked {
            let one = ObjectIdentifier::builder()
                .key(&name.key)
                .set_version_id(name.version.clone().filter(|version| !bare || version != NULL))
                .set_e_tag(etag.map(|etag| format!("\"{etag}\"")));
            delete = delete.objects(one.build().map_err(invalid)?);
        }
        let client = self.bucket.client().await;
        let request =
            client.delete_objects().bucket(self.bucket.bucket()).delete(delete.build().map_err(invalid)?);
        let answer = request.send().await.map_err(|error| failed(&what, &error))?;
        let mut outcomes = HashMap::new();
        let named = |key: Option<&str>, version: Option<&str>| {
            let version = self.settings.versions.then(|| version.unwrap_or(NULL).to_owned());
            Name { key: key.unwrap_or_default().to_owned(), version }.to_string()
        };
        for one in answer.deleted() {
            // Of a delete marker that went, some stores tell the id as that of a marker only.
            let version = one.version_id().or_else(|| one.delete_marker_version_id());
            outcomes.insert(named(one.key(), version), KeyOutcome::Done);
        }
        for one in answer.errors() {
            let key = one.key().unwrap_or_default();
            let said = [one.code(), one.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let outcome = match one.code().unwrap_or_default() {
                "PreconditionFailed" => KeyOutcome::changed(key, "it has another ETag now"),
                "NoSuchKey" | "NoSuchVersion" => KeyOutcome::Already,
                code if is_transient(code) => {
                    KeyOutcome::Failed(StepError::transient(format!("`{key}`: {said}")))
                }
                _ => KeyOutcome::Failed(StepError::refused(format!("`{key}`: {said}"))),
            };
            outcomes.insert(named(Some(key), one.version_id()), outcome);
        }
        Ok(outcomes)
    }

    /// Whether the store refuses to delete what has another ETag: tried once, on an object made for it. False too when it can not be
    /// tried; then every object is looked at right before.
    async fn is_conditional(&self) -> bool {
        *self.conditional.get_or_init(|| async { self.try_condition().await.unwrap_or(false) }).await
    }

    async fn try_condition(&self) -> Result<bool, StepError> {
        let mut drawn = [0; 8];
        getrandom::fill(&mut drawn).map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))?;
        let key = format!("{}.runbook-canary-{}", self.settings.prefix, crate::digest::hex(&drawn));
        let name = Name { key, version: None };
        let client = self.bucket.client().await;
        let put = client
            .put_object()
            .bucket(self.bucket.bucket())
            .key(&name.key)
            .body(ByteStream::from_static(b"canary"));
        let put = put.send().await.map_err(|error| failed("writing a canary", &error))?;
        let wrong = "00000000000000000000000000000000";
        let asked = self.request(&[(&name, Some(wrong))]).await;
        let there = client.head_object().bucket(self.bucket.bucket()).key(&name.key).send().await;
        let kept = match there {
            Ok(_) => true,
            Err(error) if is_missing(&error) => false,
            Err(error) => return Err(failed("looking at the canary", &error)),
        };
        if put.version_id().is_some() {
            self.remove_versions(&name.key).await?;
        } else if kept {
            let gone = client.delete_object().bucket(self.bucket.bucket()).key(&name.key).send().await;
            gone.map_err(|error| failed("removing the canary", &error))?;
        }
        let refused = asked.is_ok_and(|all| matches!(all.get(&name.to_string()), Some(KeyOutcome::Failed(error)) if error.kind == ErrorKind::Gate));
        Ok(kept && refused)
    }

    /// Removes what a bucket with versions keeps of an object that was made for a trial: its version, and the marker that a store without
    /// conditions has left.
    async fn remove_versions(&self, key: &str) -> Result<(), StepError> {
        let client = self.bucket.client().await;
        let found = client.list_object_versions().bucket(self.bucket.bucket()).prefix(key).send().await;
        let found = found.map_err(|error| failed("looking for the versions of the canary", &error))?;
        let versions = found.versions().iter().map(|one| one.version_id());
        let markers = found.delete_markers().iter().map(|one| one.version_id());
        let all: Vec<String> = versions.chain(markers).flatten().map(str::to_owned).collect();
        for version in all {
            let gone = client.delete_object().bucket(self.bucket.bucket()).key(key).version_id(version);
            gone.send().await.map_err(|error| failed("removing the canary", &error))?;
        }
        Ok(())
    }
}

/// Whether a key failed in a way that may pass.
fn passes(outcome: &KeyOutcome) -> bool {
    matches!(outcome, KeyOutcome::Failed(error) if error.kind == ErrorKind::Transient)
}

/// Of the failures that may pass the one after which the store asked for the longest wait.
fn longest_wait(ends: &[Option<KeyOutcome>]) -> Option<StepError> {
    let failures = ends.iter().flatten().filter_map(|end| match end {
        KeyOutcome::Failed(error) if passes(end) => Some(error),
        _ => None,
    });
    failures.max_by_key(|error| asked(error)).cloned()
}

fn unreadable(key: &str) -> KeyOutcome {
    KeyOutcome::Failed(StepError::gate(format!("the snapshot's version of `{key}` is unreadable")))
}
