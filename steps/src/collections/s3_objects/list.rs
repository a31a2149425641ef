//! What is in the bucket, page by page. Where a page goes on is what the store said: not every store lists in the order of the keys.

use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{DeleteMarkerEntry, EncodingType, ObjectVersion};
use runbook_engine::error::StepError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names::{goes_on, is_mangled, true_names};
use super::object::{NULL, Name, moment};
use super::{S3Objects, record_of};
use crate::collections::{Item, Version};
use crate::connections::s3::failed;

/// What a listing tells of an object.
pub(super) struct Listed {
    pub(super) name: Name,
    pub(super) bytes: u64,
    etag: String,
    pub(super) modified_at: Option<String>,
    /// Whether it is a delete marker.
    pub(super) marker: bool,
    /// Whether it is the current one of its key.
    latest: bool,
}

impl Listed {
    pub(super) fn item(&self) -> Item {
        let mut record = record_of(&self.name, self.bytes, &self.etag, self.modified_at.as_deref());
        if self.marker {
            record["delete_marker"] = json!(true);
        }
        // A marker has no ETag.
        let version = if self.marker { json!({ "marker": true }) } else { json!({ "etag": self.etag }) };
        Item { key: self.name.to_string(), record, bytes: Some(self.bytes), version: Some(Version(version)) }
    }
}

/// A page of a listing.
pub(super) struct Listing {
    pub(super) objects: Vec<Listed>,
    /// Where the next one begins; absent after the last.
    pub(super) next: Option<Value>,
}

/// Where a listing goes on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// The store's own token, or the key to go on after.
    at: String,
    /// The version to go on after, with versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

fn bytes(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

fn etag(text: Option<&str>) -> String {
    text.unwrap_or_default().trim_matches('"').to_owned()
}

impl S3Objects {
    /// The page at a cursor, of at most `limit` objects. A page may be empty and not the last one.
    pub(super) async fn list(&self, cursor: Option<&Value>, limit: usize) -> Result<Listing, StepError> {
        let cursor: Option<Cursor> = cursor
            .map(Cursor::deserialize)
            .transpose()
            .map_err(|error| StepError::invalid(format!("the place in a listing is unreadable: {error}")))?;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        if self.settings.versions {
            self.list_versions(cursor, limit).await
        } else {
            self.list_current(cursor, limit).await
        }
    }

    async fn list_current(&self, cursor: Option<Cursor>, limit: i32) -> Result<Listing, StepError> {
        let client = self.bucket.client().await;
        let request = client
            .list_objects_v2()
            .bucket(self.bucket.bucket())
            .prefix(&self.settings.prefix)
            .max_keys(limit)
            .set_continuation_token(cursor.map(|cursor| cursor.at));
        let what = format!("listing {}", self.bucket.describe());
        let mut page = request.clone().send().await.map_err(|error| failed(&what, &error))?;
        let keys = |page: &ListObjectsV2Output| {
            page.contents().iter().map(|one| one.key().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let token = page.next_continuation_token().map(str::to_owned);
        if keys(&page).iter().any(|key| is_mangled(key)) || token.as_deref().is_some_and(is_mangled) {
            let again = request.encoding_type(EncodingType::Url).send().await;
            let again = again.map_err(|error| failed(&what, &error))?;
            let names = true_names(&keys(&page), &keys(&again))?;
            page.next_continuation_token = goes_on(token.as_deref(), &names)?;
            for (one, name) in page.contents.iter_mut().flatten().zip(names) {
                one.key = Some(name);
            }
        }
        let mut objects = Vec::new();
        for one in page.contents() {
            let Some(key) = one.key() else { continue };
            objects.push(Listed {
                name: Name { key: key.to_owned(), version: None },
                bytes: bytes(one.size()),
                etag: etag(one.e_tag()),
                modified_at: moment(one.last_modified()),
                marker: false,
                latest: true,
            });
        }
        let next = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true));
        Ok(Listing { objects, next: next.map(|token| json!({ "at": token })) })
    }

    /// The delete marker of this name, if there is one: only a listing tells of it.
    pub(super) async fn marker(&self, name: &Name) -> Result<Option<Item>, StepError> {
        if name.version.is_none() {
            return Ok(None);
        }
        let (mut at, mut version) = (None, None);
        loop {
            let page = self.versions_of(&name.key, (at, version), None).await?;
            let found = page.delete_markers().iter().filter_map(of_marker).find(|one| one.name == *name);
            // Of the keys that begin so the key itself is the first one.
            let further =
                page.is_truncated() == Some(true) && page.next_key_marker() == Some(name.key.as_str());
            if found.is_some() || !further {
                return Ok(found.map(|one| one.item()));
            }
            at = page.next_key_marker().map(str::to_owned);
            version = page.next_version_id_marker().map(str::to_owned);
        }
    }

    /// A page of the versions of the keys that begin so, after a key and its version, with the keys as they are.
    async fn versions_of(
        &self,
        prefix: &str,
        (at, version): (Option<String>, Option<String>),
        limit: Option<i32>,
    ) -> Result<ListObjectVersionsOutput, StepError> {
        let client = self.bucket.client().await;
        let request = client
            .list_object_versions()
            .bucket(self.bucket.bucket())
            .prefix(prefix)
            .set_max_keys(limit)
            .set_key_marker(at)
            .set_version_id_marker(version);
        let what = format!("listing the versions of {}", self.bucket.describe());
        let mut page = request.clone().send().await.map_err(|error| failed(&what, &error))?;
        let keys = |page: &ListObjectVersionsOutput| {
            let versions = page.versions().iter().map(|one| one.key().unwrap_or_default().to_owned());
            let markers = page.delete_markers().iter().map(|one| one.key().unwrap_or_default().to_owned());
            versions.chain(markers).collect::<Vec<_>>()
        };
        let next = page.next_key_marker();
        if !keys(&page).iter().any(|key| is_mangled(key)) && !next.is_some_and(is_mangled) {
            return Ok(page);
        }
        let again = request.encoding_type(EncodingType::Url).send().await;
        let again = again.map_err(|error| failed(&what, &error))?;
        let names = true_names(&keys(&page), &keys(&again))?;
        page.next_key_marker = goes_on(next, &names)?;
        let mut names = names.into_iter();
        page.versions.iter_mut().flatten().zip(&mut names).for_each(|(one, name)| one.key = Some(name));
        page.delete_markers.iter_mut().flatten().zip(names).for_each(|(one, name)| one.key = Some(name));
        Ok(page)
    }

    async fn list_versions(&self, cursor: Option<Cursor>, limit: i32) -> Result<Listing, StepError> {
        let after = cursor.map_or((None, None), |cursor| (Some(cursor.at), cursor.version));
        let page = self.versions_of(&self.settings.prefix, after, Some(limit)).await?;
        let mut objects: Vec<Listed> = page.versions().iter().filter_map(of_version).collect();
        objects.extend(page.delete_markers().iter().filter_map(of_marker));
        // What came last stands first; of two in one second the one that is current.
        let newest = |one: &Listed| (one.modified_at.clone(), one.latest);
        objects.sort_by(|a, b| a.name.key.cmp(&b.name.key).then_with(|| newest(b).cmp(&newest(a))));
        let next = page.next_key_marker().filter(|_| page.is_truncated() == Some(true));
        let next = next.map(|key| {
            json!(Cursor { at: key.to_owned(), version: page.next_version_id_marker().map(str::to_owned) })
        });
        Ok(Listing { objects, next })
    }
}

fn named(key: Option<&str>, version: Option<&str>) -> Option<Name> {
    Some(Name { key: key?.to_owned(), version: Some(version.unwrap_or(NULL).to_owned()) })
}

fn of_version(one: &ObjectVersion) -> Option<Listed> {
    let modified_at: Option<&DateTime> = one.last_modified();
    Some(Listed {
        name: named(one.key(), one.version_id())?,
        bytes: bytes(one.size()),
        etag: etag(one.e_tag()),
        modified_at: moment(modified_at),
        marker: false,
        latest: one.is_latest() == Some(true),
    })
}

fn of_marker(one: &DeleteMarkerEntry) -> Option<Listed> {
    Some(Listed {
        name: named(one.key(), one.version_id())?,
        bytes: 0,
        etag: String::new(),
        modified_at: moment(one.last_modified()),
        marker: true,
        latest: one.is_latest() == Some(true),
    })
}
