//! Deleting objects: a thousand keys a request, an outcome for each, and nothing that has changed.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::{StreamExt as _, stream};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use serde_json::Value;

use super::names::fits_into_xml;
use super::object::{NULL, Name};
use super::{AT_A_TIME, S3Objects};
use crate::collections::{Doomed, KeyOutcome, Version};
use crate::connections::s3::{Keeps, code_of, failed, is_transient};
use crate::retry::{Patience, asked};

/// How many keys of a batch are looked at for one on which a condition can be tried.
const TRIES: usize = 10;

/// What is to become of one key.
enum Way {
    /// It is asked of the store to delete it.
    Ask(Name, Sure),
    /// It needs nothing more.
    Settled(KeyOutcome),
}

/// What makes sure of a delete.
enum Sure {
    /// The store's word for it.
    Told,
    /// The store refuses unless the object has this ETag.
    Etag(String),
    /// The store is asked afterwards whether it went. Of a delete marker without an id some stores say so and keep it.
    Asked,
}

impl Sure {
    /// The ETag that goes along, as S3 writes it.
    fn condition(&self) -> Option<String> {
        match self {
            Self::Etag(etag) => Some(format!("\"{etag}\"")),
            Self::Told | Self::Asked => None,
        }
    }
}

/// What a version says that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State<'v> {
    /// An object with this ETag.
    Object(&'v str),
    /// A delete marker.
    Marker,
}

impl<'v> State<'v> {
    fn of(version: &'v Version) -> Option<Self> {
        let marker = || (version.0.get("marker") == Some(&Value::Bool(true))).then_some(Self::Marker);
        version.0.get("etag").and_then(Value::as_str).map(Self::Object).or_else(marker)
    }
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(etag) => write!(f, "an object with the ETag {etag}"),
            Self::Marker => f.write_str("a delete marker"),
        }
    }
}

impl S3Objects {
    /// Deletes these keys; one outcome per key, in their order. A store that is too busy, for all of them or for some, is asked again for
    /// those after a while.
    pub(super) async fn delete_all(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        let mut patience = Patience::default();
        let mut ends: Vec<Option<KeyOutcome>> = vec![None; keys.len()];
        let guarded = keys.iter().any(|one| one.expected.is_some());
        let (conditional, tried) =
            if guarded && !self.settings.versions { self.conditional(keys).await } else { (false, None) };
        if let Some((at, outcome)) = tried {
            ends[at] = Some(outcome);
        }
        loop {
            let open: Vec<usize> =
                (0..keys.len()).filter(|at| ends[*at].as_ref().is_none_or(passes)).collect();
            let asked: Vec<Doomed> = open.iter().map(|at| keys[*at].clone()).collect();
            let failure = match self.delete_once(&asked, conditional).await {
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
    async fn delete_once(&self, keys: &[Doomed], conditional: bool) -> Result<Vec<KeyOutcome>, StepError> {
        let ways =
            stream::iter(keys.to_vec()).map(|doomed| async move { self.way(&doomed, conditional).await });
        let ways: Vec<Way> = ways.buffered(AT_A_TIME).collect().await;
        let asked = ways.iter().filter_map(|way| match way {
            Way::Ask(name, sure) => Some((name, sure)),
            Way::Settled(_) => None,
        });
        let asked: Vec<_> = asked.collect();
        let mut outcomes = self.request(&asked).await?;
        for (name, sure) in &asked {
            let key = name.to_string();
            let Some(outcome) = outcomes.get(&key) else { continue };
            match (sure, outcome) {
                // The store refuses its condition of what is not there any more as well.
                (Sure::Etag(etag), KeyOutcome::Failed(error)) if error.kind == ErrorKind::Gate => {
                    if let Way::Settled(outcome) = self.looked((*name).clone(), State::Object(etag)).await {
                        outcomes.insert(key, outcome);
                    }
                }
                (Sure::Asked, KeyOutcome::Done) => {
                    if let Err(error) = self.is_gone(name).await {
                        outcomes.insert(key, KeyOutcome::Failed(error));
                    }
                }
                _ => {}
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
        let Some(expected) = &doomed.expected else { return Way::Ask(name, Sure::Told) };
        match State::of(expected) {
            None => Way::Settled(unreadable(&doomed.key)),
            Some(State::Object(etag)) if conditional => Way::Ask(name, Sure::Etag(etag.to_owned())),
            // A delete marker with an id never changes. One without is replaced by what is written while the bucket keeps no versions.
            Some(State::Marker) if name.version.as_deref() != Some(NULL) => Way::Ask(name, Sure::Told),
            Some(expected) => self.looked(name, expected).await,
        }
    }

    /// How to go on with what is to be in this state, once it was looked at.
    async fn looked(&self, name: Name, expected: State<'_>) -> Way {
        match self.look(&name).await {
            Ok(None) => Way::Settled(KeyOutcome::Already),
            Ok(Some(now)) => match now.version.as_ref().and_then(State::of) {
                Some(State::Marker) if expected == State::Marker => Way::Ask(name, Sure::Asked),
                Some(found) if found == expected => Way::Ask(name, Sure::Told),
                Some(found) => {
                    let how = format!("it was {expected} and is {found} now");
                    Way::Settled(KeyOutcome::changed(&name.to_string(), &how))
                }
                None => Way::Settled(unreadable(&name.to_string())),
            },
            Err(error) => Way::Settled(KeyOutcome::Failed(error)),
        }
    }

    /// Makes sure that a delete marker went.
    async fn is_gone(&self, name: &Name) -> Result<(), StepError> {
        if self.marker(name).await?.is_none() {
            return Ok(());
        }
        let message = format!("the store says that it deleted `{name}`, and still lists it");
        Err(StepError::refused(message).with_help(
            "it is a delete marker of a time when the bucket kept no versions: write an object over it, and delete that with a new snapshot",
        ))
    }

    /// One request for all of them: what became of each, by its name.
    async fn request(&self, asked: &[(&Name, &Sure)]) -> Result<HashMap<String, KeyOutcome>, StepError> {
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let what = format!("deleting {} keys of {}", asked.len(), self.bucket.describe());
        let invalid = |error: aws_sdk_s3::error::BuildError| StepError::invalid(format!("{what}: {error}"));
        // Where no versions are kept the one that is there is the object, and not every store knows it by `null` then.
        let nulls = asked.iter().any(|(name, _)| name.version.as_deref() == Some(NULL));
        let bare = nulls && self.bucket.keeps().await? == Keeps::Nothing;
        let mut outcomes = HashMap::new();
        let (asked, odd): (Vec<_>, Vec<_>) = asked.iter().partition(|(name, _)| fits_into_xml(&name.key));
        for (name, sure) in odd {
            outcomes.insert(name.to_string(), self.request_one(name, sure.condition(), bare).await);
        }
        if asked.is_empty() {
            return Ok(outcomes);
        }
        let mut delete = Delete::builder();
        for (name, sure) in asked {
            let one = ObjectIdentifier::builder()
                .key(&name.key)
                .set_version_id(name.version.clone().filter(|version| !bare || version != NULL))
                .set_e_tag(sure.condition());
            delete = delete.objects(one.build().map_err(invalid)?);
        }
        let client = self.bucket.client().await;
        let request =
            client.delete_objects().bucket(self.bucket.bucket()).delete(delete.build().map_err(invalid)?);
        let answer = crash::around("s3-objects: delete", request.send()).await;
        let answer = answer.map_err(|error| failed(&what, &error))?;
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

    /// A request for one of them, whose name can stand in a URL and not in XML.
    async fn request_one(&self, name: &Name, etag: Option<String>, bare: bool) -> KeyOutcome {
        let client = self.bucket.client().await;
        let request = client
            .delete_object()
            .bucket(self.bucket.bucket())
            .key(&name.key)
            .set_version_id(name.version.clone().filter(|version| !bare || version != NULL))
            .set_if_match(etag);
        match crash::around("s3-objects: delete", request.send()).await {
            Ok(_) => KeyOutcome::Done,
            Err(error) => match code_of(&error) {
                Some("PreconditionFailed") => KeyOutcome::changed(&name.key, "it has another ETag now"),
                Some("NoSuchKey" | "NoSuchVersion") => KeyOutcome::Already,
                _ => KeyOutcome::Failed(failed(&format!("deleting `{name}`"), &error)),
            },
        }
    }

    /// Whether the store refuses to delete what has another ETag: found out once, on the first of these keys that is as expected. A store that ignores the
    /// condition deletes it, as it is to be, right after it was looked at: what became of it comes along then, with its number. False too when it
    /// can not be found out; then every object is looked at right before.
    async fn conditional(&self, keys: &[Doomed]) -> (bool, Option<(usize, KeyOutcome)>) {
        if let Some(known) = self.conditional.get() {
            return (*known, None);
        }
        // Elsewhere a delete leaves a delete marker without an id, which not every store removes.
        match self.bucket.keeps().await {
            Ok(Keeps::Nothing | Keeps::Versions) => {}
            _ => return (false, None),
        }
        for (at, doomed) in keys.iter().enumerate().take(TRIES) {
            let Ok(name) = self.name(&doomed.key) else { continue };
            let Some(expected @ State::Object(_)) = doomed.expected.as_ref().and_then(State::of) else {
                continue;
            };
            if !fits_into_xml(&name.key) || !matches!(self.looked(name.clone(), expected).await, Way::Ask(..))
            {
                continue;
            }
            let wrong = Sure::Etag("00000000000000000000000000000000".to_owned());
            let Ok(mut all) = self.request(&[(&name, &wrong)]).await else { return (false, None) };
            return match all.remove(&name.to_string()) {
                Some(KeyOutcome::Failed(error)) if error.kind == ErrorKind::Gate => {
                    let _ = self.conditional.set(true);
                    (true, None)
                }
                Some(KeyOutcome::Done) => {
                    let _ = self.conditional.set(false);
                    let gone = matches!(self.look(&name).await, Ok(None));
                    (false, gone.then_some((at, KeyOutcome::Done)))
                }
                // By somebody else, in between: it says nothing of the store.
                Some(KeyOutcome::Already) => (false, Some((at, KeyOutcome::Already))),
                _ => (false, None),
            };
        }
        (false, None)
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
