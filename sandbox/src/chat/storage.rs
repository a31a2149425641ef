//! Where attachments are kept.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use axum::body::Bytes;
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::presign::Bucket;

/// How long a request to the store may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a link to the store lasts, in seconds.
pub(super) const LINK_SECONDS: u32 = 300;

/// What is known of an attachment: the object `.json` beside its content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) attachment_id: String,
    pub(super) file_name: String,
    pub(super) mime_type: String,
    pub(super) size_bytes: usize,
    pub(super) media_type: String,
    pub(super) uploaded_by: String,
    pub(super) created_at_ms: i64,
}

/// Where attachments are kept.
pub(super) enum Storage {
    /// In memory, which stands for the disk of the server.
    Local(Mutex<BTreeMap<String, (Record, Bytes)>>),
    /// In a bucket, below a folder that names the environment.
    S3 { bucket: Bucket, folder: String, client: Client },
}

/// How an attachment can be had.
pub(super) enum Content {
    /// As these bytes.
    Here(Bytes),
    /// There.
    At(Url),
}

impl Storage {
    /// What falls back on the server's own disk.
    pub(super) fn local() -> Self {
        Self::Local(Mutex::default())
    }

    /// A bucket, which must be there.
    pub(super) async fn s3(bucket: Bucket, folder: String) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(PATIENCE).build()?;
        let answer = client.head(bucket.presigned("HEAD", "", &[], LINK_SECONDS)?).send().await;
        let answer =
            answer.map_err(reqwest::Error::without_url).context("the bucket can not be looked at")?;
        ensure!(answer.status().is_success(), "looking at the bucket: status {}", answer.status());
        Ok(Self::S3 { bucket, folder, client })
    }

    /// Keeps an attachment: its content first, then what is known of it.
    pub(super) async fn keep(&self, record: Record, content: Bytes) -> anyhow::Result<()> {
        match self {
            Self::Local(all) => {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(record.attachment_id.clone(), (record, content));
                Ok(())
            }
            Self::S3 { bucket, folder, client } => {
                let known = serde_json::to_vec(&record)?;
                let id = &record.attachment_id;
                for (ending, body) in [("bin", content), ("json", known.into())] {
                    let key = format!("{folder}/{id}.{ending}");
                    let url = bucket.presigned("PUT", &key, &[], LINK_SECONDS)?;
                    let answer =
                        client.put(url).body(body).send().await.map_err(reqwest::Error::without_url)?;
                    ensure!(answer.status().is_success(), "writing {key}: status {}", answer.status());
                }
                Ok(())
            }
        }
    }

    /// An attachment, when there is one of this id.
    pub(super) async fn find(&self, id: &str) -> anyhow::Result<Option<(Record, Content)>> {
        match self {
            Self::Local(all) => {
                let all = all.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(all.get(id).map(|(record, bytes)| (record.clone(), Content::Here(bytes.clone()))))
            }
            Self::S3 { bucket, folder, client } => {
                let url = bucket.presigned("GET", &format!("{folder}/{id}.json"), &[], LINK_SECONDS)?;
                let answer = client.get(url).send().await.map_err(reqwest::Error::without_url)?;
                if answer.status() == StatusCode::NOT_FOUND {
                    return Ok(None);
                }
                ensure!(answer.status().is_success(), "reading {id}: status {}", answer.status());
                let record: Record = answer.json().await?;
                let shown = format!("inline; filename=\"{}\"", record.file_name);
                let more = [
                    ("response-content-type", &*record.mime_type),
                    ("response-content-disposition", &*shown),
                ];
                let url = bucket.presigned("GET", &format!("{folder}/{id}.bin"), &more, LINK_SECONDS)?;
                Ok(Some((record, Content::At(url))))
            }
        }
    }
}
