//! One object: looked at, read with everything that is needed to put it back, and put back.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runbook_engine::crash;
use runbook_engine::error::StepError;
use serde_json::{Map, Value, json};

use super::{LARGEST, S3Objects, record_of};
use crate::collections::{Collection as _, Item, KeyOutcome, Version};
use crate::connections::s3::{code_of, failed, is_missing};

/// The id of the version that was written while no versions were kept.
pub(super) const NULL: &str = "null";

/// An object, or one version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) key: String,
    pub(super) version: Option<String>,
}

impl Name {
    /// From the key of an item: with versions the id stands behind the last `@`, which no id holds.
    pub(super) fn parse(text: &str, versions: bool) -> Result<Self, StepError> {
        if !versions {
            return Ok(Self { key: text.to_owned(), version: None });
        }
        match text.rsplit_once('@') {
            Some((key, id)) if !id.is_empty() => {
                Ok(Self { key: key.to_owned(), version: Some(id.to_owned()) })
            }
            _ => Err(StepError::invalid(format!("`{text}` names no version: `@` and its id are missing"))),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// RFC 3339, UTC.
pub(super) fn moment(at: Option<&DateTime>) -> Option<String> {
    at.and_then(|at| at.fmt(DateTimeFormat::DateTime).ok())
}

/// The members of a record that are headers of the object.
const HEADERS: [&str; 5] =
    ["content_type", "content_encoding", "content_disposition", "content_language", "cache_control"];

impl S3Objects {
    /// What a look without reading it tells of an object.
    pub(super) async fn look(&self, name: &Name) -> Result<Option<Item>, StepError> {
        let client = self.bucket.client().await;
        let request = client.head_object().bucket(self.bucket.bucket()).key(&name.key);
        match request.set_version_id(name.version.clone()).send().await {
            Ok(found) => {
                let bytes = found.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                let etag = found.e_tag().unwrap_or_default().trim_matches('"');
                let record = record_of(name, bytes, etag, moment(found.last_modified()).as_deref());
                Ok(Some(item(name, record, bytes, etag)))
            }
            Err(error) => {
                self.absent(name, failed(&format!("looking at `{name}`"), &error), Why::of(&error)).await
            }
        }
    }

    /// An object with what is in it, and all that it takes to put it back.
    pub(super) async fn load(&self, name: &Name) -> Result<Option<Item>, StepError> {
        let client = self.bucket.client().await;
        let request = client.get_object().bucket(self.bucket.bucket()).key(&name.key);
        let mut found = match request.set_version_id(name.version.clone()).send().await {
            Ok(found) => found,
            Err(error) => {
                let failure = failed(&format!("reading `{name}`"), &error);
                return self.absent(name, failure, Why::of(&error)).await;
            }
        };
        let length = found.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        if length > LARGEST {
            let message = format!("`{name}` has {length} bytes; a snapshot with contents takes {LARGEST}");
            return Err(
                StepError::refused(message).with_help("set `contents: false`, and copy what is large first")
            );
        }
        let body = std::mem::take(&mut found.body).collect().await;
        let content =
            body.map_err(|error| StepError::transient(format!("reading `{name}`: {error}")))?.into_bytes();
        let etag = found.e_tag().unwrap_or_default().trim_matches('"').to_owned();
        let bytes = content.len() as u64;
        let mut record = record_of(name, bytes, &etag, moment(found.last_modified()).as_deref());
        describe(&mut record, &found);
        if found.tag_count().unwrap_or(0) > 0 {
            record["tags"] = json!(self.tags(name).await?);
        }
        record["content"] = json!(STANDARD.encode(&content));
        Ok(Some(item(name, record, bytes, &etag)))
    }

    /// What there is of a name that could not be looked at: nothing, or a delete marker.
    async fn absent(&self, name: &Name, failure: StepError, why: Why) -> Result<Option<Item>, StepError> {
        if why == Why::Other {
            return Err(failure);
        }
        match self.marker(name).await? {
            None if why == Why::Refused => Err(failure),
            found => Ok(found),
        }
    }

    async fn tags(&self, name: &Name) -> Result<BTreeMap<String, String>, StepError> {
        let client = self.bucket.client().await;
        let request = client.get_object_tagging().bucket(self.bucket.bucket()).key(&name.key);
        let found = request.set_version_id(name.version.clone()).send().await;
        let found = found.map_err(|error| failed(&format!("reading the tags of `{name}`"), &error))?;
        Ok(found.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
    }

    /// Puts an object back where nothing is, with its headers, metadata and tags; as a new version where the bucket has versions.
    pub(super) async fn restore(&self, item: &Item) -> Result<KeyOutcome, StepError> {
        let name = self.name(&item.key)?;
        if name.version.is_some() {
            let message = format!("`{name}` is one version of an object, and no store takes a version back");
            return Err(StepError::refused(message)
                .with_help("put back from a snapshot of a collection without `versions`"));
        }
        self.content(item)?;
        match self.write(&name, item, true).await {
            Ok(()) => return Ok(KeyOutcome::Done),
            Err(error) if code_of(&error) == Some("PreconditionFailed") => {}
            Err(error) => return Err(failed(&format!("writing `{name}`"), &error)),
        }
        match self.load(&name).await? {
            Some(there) if there.record.get("content") == item.record.get("content") => {
                Ok(KeyOutcome::Already)
            }
            Some(_) => Err(StepError::refused(format!("something else is at `{name}` now; it was left"))),
            // A store that keeps folders takes one for an object.
            None => match self.write(&name, item, false).await {
                Ok(()) => Ok(KeyOutcome::Done),
                Err(error) => Err(failed(&format!("writing `{name}`"), &error)),
            },
        }
    }

    /// Writes an object as its record says; with `new` only where there is none.
    async fn write(
        &self,
        name: &Name,
        item: &Item,
        new: bool,
    ) -> Result<(), SdkError<PutObjectError, HttpResponse>> {
        let bytes = self.content(item).map(|content| content.bytes).unwrap_or_default();
        let text = |member: &str| item.record.get(member).and_then(Value::as_str).map(str::to_owned);
        let [kind, encoding, disposition, language, caching] = HEADERS.map(text);
        let pairs =
            |member: &str| item.record.get(member).and_then(Value::as_object).cloned().unwrap_or_default();
        let client = self.bucket.client().await;
        let mut request = client
            .put_object()
            .bucket(self.bucket.bucket())
            .key(&name.key)
            .set_if_none_match(new.then(|| "*".to_owned()))
            .set_content_type(kind)
            .set_content_encoding(encoding)
            .set_content_disposition(disposition)
            .set_content_language(language)
            .set_cache_control(caching)
            .body(ByteStream::from(bytes));
        for (key, value) in pairs("metadata") {
            request = request.metadata(key, value.as_str().unwrap_or_default());
        }
        let tags = query(&pairs("tags"));
        if !tags.is_empty() {
            request = request.tagging(tags);
        }
        crash::around("s3-objects: put", request.send()).await.map(drop)
    }
}

/// Why there was nothing to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// There is no object.
    Missing,
    /// The store does not do this. It is how AWS answers of a delete marker that is asked for by its id; but so does whoever allows no such
    /// request at all, which says nothing of the object.
    Refused,
    /// Something else.
    Other,
}

impl Why {
    fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Self {
        let response = error.raw_response();
        let marked = response.and_then(|response| response.headers().get("x-amz-delete-marker"));
        if is_missing(error) || marked == Some("true") {
            return Self::Missing;
        }
        match response.map(|response| response.status().as_u16()) {
            Some(405) => Self::Refused,
            _ => Self::Other,
        }
    }
}

fn item(name: &Name, record: Value, bytes: u64, etag: &str) -> Item {
    Item {
        key: name.to_string(),
        record,
        bytes: Some(bytes),
        version: Some(Version(json!({ "etag": etag }))),
    }
}

/// Writes the headers and the metadata of an object into its record.
fn describe(record: &mut Value, found: &GetObjectOutput) {
    let headers = [
        found.content_type(),
        found.content_encoding(),
        found.content_disposition(),
        found.content_language(),
        found.cache_control(),
    ];
    for (member, value) in HEADERS.iter().zip(headers) {
        if let Some(value) = value {
            record[*member] = json!(value);
        }
    }
    let metadata: BTreeMap<_, _> = found.metadata().into_iter().flatten().collect();
    if !metadata.is_empty() {
        record["metadata"] = json!(metadata);
    }
}

/// Tags as a query, which is how a request carries them.
fn query(tags: &Map<String, Value>) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    for (key, value) in tags {
        pairs.append_pair(key, value.as_str().unwrap_or_default());
    }
    pairs.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_behind_the_last_sign() {
        let name = Name::parse("a@b/c@v1", true).unwrap();
        assert_eq!((name.key.as_str(), name.version.as_deref()), ("a@b/c", Some("v1")));
        assert_eq!(name.to_string(), "a@b/c@v1");
        assert!(Name::parse("a", true).is_err() && Name::parse("a@", true).is_err());
        assert_eq!(Name::parse("a@b", false).unwrap().version, None);
    }
}
