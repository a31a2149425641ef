//! The server's own records of uploads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runbook_engine::error::StepError;

use super::RecordedIn;
use super::held::{Announced, Stored};
use crate::collections::{Collection, Doomed, KeyOutcome};
use crate::kind::Context;
use crate::retry::patiently;

/// How many records of one file are looked at.
const MOST: usize = 100;

/// The collections that hold one record per upload.
pub(super) struct World<'a> {
    settings: &'a RecordedIn,
    collections: Vec<Arc<dyn Collection>>,
}

impl<'a> World<'a> {
    /// Opens the collections that `recorded_in` names.
    pub(super) fn open(settings: &'a RecordedIn, cx: &Context) -> Result<Self, StepError> {
        let open = |name: &String| cx.resources.collection(name);
        let collections = settings.collections.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        if collections.is_empty() {
            return Err(StepError::invalid("`recorded_in.collections` is empty"));
        }
        Ok(Self { settings, collections })
    }

    /// The whole record of a file that was announced, if there is one. Nothing is deleted: what is partial may be on its way.
    pub(super) async fn look(
        &self,
        announced: &Announced,
        others: &BTreeSet<String>,
    ) -> Result<Option<Stored>, StepError> {
        let whole = |places: usize| places == self.collections.len();
        let found = self.find(announced).await?.into_iter();
        let first = found.filter(|(id, _)| !others.contains(id)).find(|(_, (places, _))| whole(*places));
        Ok(first.map(|(id, (_, mime_type))| Stored {
            id,
            url: None,
            mime_type,
            session: announced.session.clone(),
        }))
    }

    /// The whole record of a file that was announced, if there is one. Partial records of it, and whole ones beyond the first,
    /// are deleted; those of `others` are left alone.
    pub(super) async fn settle(
        &self,
        announced: &Announced,
        others: &BTreeSet<String>,
    ) -> Result<Option<Stored>, StepError> {
        let found = self.find(announced).await?;
        let mut adopted = None;
        for (id, (places, mime_type)) in found {
            if others.contains(&id) {
                continue;
            }
            if places == self.collections.len() && adopted.is_none() {
                let session = announced.session.clone();
                adopted = Some(Stored { id, url: None, mime_type, session });
            } else {
                self.remove(&id).await?;
            }
        }
        Ok(adopted)
    }

    /// Deletes every record of a file but `kept` and those of `others`: what earlier tries left.
    pub(super) async fn tidy(
        &self,
        announced: &Announced,
        kept: &str,
        others: &BTreeSet<String>,
    ) -> Result<(), StepError> {
        for id in self.find(announced).await?.into_keys() {
            if id != kept && !others.contains(&id) {
                self.remove(&id).await?;
            }
        }
        Ok(())
    }

    /// Every record of the file: in how many collections it is, and its media type.
    async fn find(
        &self,
        announced: &Announced,
    ) -> Result<BTreeMap<String, (usize, Option<String>)>, StepError> {
        let fields = &self.settings.fields;
        let wanted: [(&str, &str); 3] = [
            (fields.sha256.as_str(), announced.sha256.as_str()),
            (fields.name.as_str(), announced.name.as_str()),
            (fields.session.as_str(), announced.session.as_str()),
        ];
        let mut found: BTreeMap<String, (usize, Option<String>)> = BTreeMap::new();
        for collection in &self.collections {
            for item in patiently(|| collection.find(&wanted, MOST)).await? {
                let entry = found.entry(item.key).or_default();
                entry.0 += 1;
                let mime_type = item.record.get(&self.settings.mime_type).and_then(|value| value.as_str());
                if let Some(mime_type) = mime_type {
                    entry.1 = Some(mime_type.to_owned());
                }
            }
        }
        Ok(found)
    }

    /// Deletes the records of one upload; those that are gone are fine.
    pub(super) async fn remove(&self, id: &str) -> Result<(), StepError> {
        let keys = [Doomed::whatever(id)];
        for collection in &self.collections {
            for outcome in patiently(|| collection.delete(&keys)).await? {
                if let KeyOutcome::Failed(error) = outcome {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
