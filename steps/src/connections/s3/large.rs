//! A file as an object: sent in parts, and read back for its digest, with never more than a few parts in memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use runbook_engine::error::StepError;
use sha2::{Digest as _, Sha256};

use super::{S3, code_of, failed, is_missing};
use crate::digest::hex;
use crate::manifest::blocking;
use crate::retry::patiently;

/// The least size of a part in bytes, 8 MiB. S3 takes 5 MiB and more.
const PART: u64 = 8 * 1024 * 1024;

/// The most parts of one object: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const PARTS: u64 = 10_000;

/// How many parts are on their way at once.
const AT_A_TIME: usize = 4;

/// The member of an object's metadata that holds its SHA-256, 64 hex digits.
const SHA256: &str = "sha256";

/// A file that is to become an object.
#[derive(Clone, Debug)]
pub struct Sending<'a> {
    /// The key of the object.
    pub key: &'a str,
    /// The file.
    pub file: &'a Path,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, 64 hex digits, which the object says of itself.
    pub sha256: &'a str,
}

/// Where a part of a file begins, and how long it is, in bytes.
type Part = (u64, usize);

/// The parts of a file of so many bytes; one, when it goes in one request.
fn parts(bytes: u64) -> Vec<Part> {
    let size = PART.max(bytes.div_ceil(PARTS));
    let one = |number: u64| {
        let begin = number * size;
        (begin, usize::try_from(size.min(bytes - begin)).unwrap_or(usize::MAX))
    };
    (0..bytes.div_ceil(size).max(1)).map(one).collect()
}

impl S3 {
    /// SHA-256 and size of an object, all of which is read; none when there is no such object.
    ///
    /// # Errors
    /// When the store does not give it, or stops on its way.
    pub async fn digest(&self, key: &str) -> Result<Option<(String, u64)>, StepError> {
        let request = self.client().await.get_object().bucket(self.bucket()).key(key);
        let mut body = match request.send().await {
            Ok(found) => found.body,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(&format!("reading `{key}`"), &error)),
        };
        let (mut digest, mut size) = (Sha256::new(), 0);
        let patience = Duration::from_millis(self.settings.timeout.as_millis());
        loop {
            let chunk = tokio::time::timeout(patience, body.try_next()).await;
            let chunk = chunk.map_err(|_| StepError::transient(format!("reading `{key}`: nothing came")))?;
            match chunk.map_err(|error| StepError::transient(format!("reading `{key}`: {error}")))? {
                None => return Ok(Some((hex(&digest.finalize()), size))),
                Some(bytes) => {
                    digest.update(&bytes);
                    size += bytes.len() as u64;
                }
            }
        }
    }

    /// What an object says of itself: its SHA-256, when one was sent along, and its size. None when there is no such object.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn claimed(&self, key: &str) -> Result<Option<(Option<String>, u64)>, StepError> {
        let request = self.client().await.head_object().bucket(self.bucket()).key(key);
        match request.send().await {
            Ok(found) => {
                let sha256 = found.metadata().and_then(|all| all.get(SHA256)).cloned();
                let bytes = found.content_length().and_then(|size| u64::try_from(size).ok());
                Ok(Some((sha256, bytes.unwrap_or(0))))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failed(&format!("looking at `{key}`"), &error)),
        }
    }

    /// Begins an object that is sent in several requests; its upload id. None when one request is enough.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn begin_parts(&self, sending: &Sending<'_>) -> Result<Option<String>, StepError> {
        if parts(sending.bytes).len() == 1 {
            return Ok(None);
        }
        let key = sending.key;
        let client = self.client().await;
        let begun = client.create_multipart_upload().bucket(self.bucket()).key(key);
        let begun = begun.metadata(SHA256, sending.sha256).send().await;
        let begun = begun.map_err(|error| failed(&format!("beginning `{key}`"), &error))?;
        begun
            .upload_id()
            .map(|id| Some(id.to_owned()))
            .ok_or_else(|| StepError::refused(format!("beginning `{key}`: the store gave no upload id")))
    }

    /// Sends a file as a new object, with the upload that was begun for it. Asks `checkpoint` before each part.
    ///
    /// # Errors
    /// When something has that key, the store does not take it, the file can not be read, or `checkpoint` says so. What was sent of an upload
    /// stays until it is forgotten.
    pub async fn send_file(
        &self,
        sending: &Sending<'_>,
        upload: Option<&str>,
        checkpoint: impl Fn() -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let path = sending.file.to_owned();
        let unread = |path: &Path, error: &std::io::Error| {
            StepError::refused(format!("{} can not be read", path.display())).with_source(error)
        };
        let opened = blocking(move || File::open(&path).map_err(|error| unread(&path, &error))).await?;
        let file = Arc::new(opened);
        let read = async |(begin, length): Part| {
            let (file, path) = (file.clone(), sending.file.to_owned());
            blocking(move || {
                let mut bytes = vec![0; length];
                let read = file.read_exact_at(&mut bytes, begin);
                read.map(|()| bytes).map_err(|error| unread(&path, &error))
            })
            .await
        };
        let all = parts(sending.bytes);
        let Some(upload) = upload else {
            checkpoint()?;
            return self.send_whole(sending, read(all[0]).await?).await;
        };
        let (checkpoint, read) = (&checkpoint, &read);
        let sent = stream::iter(all.into_iter().zip(1..))
            .map(async |(part, number)| {
                checkpoint()?;
                self.send_part(sending.key, upload, number, read(part).await?).await
            })
            .buffered(AT_A_TIME);
        let sent: Vec<CompletedPart> = sent.try_collect().await?;
        checkpoint()?;
        self.complete(sending.key, upload, sent).await
    }

    async fn send_whole(&self, sending: &Sending<'_>, bytes: Vec<u8>) -> Result<(), StepError> {
        let key = sending.key;
        let client = self.client().await;
        let request = client.put_object().bucket(self.bucket()).key(key).if_none_match("*");
        let request = request.metadata(SHA256, sending.sha256).body(ByteStream::from(bytes));
        let sent = request.send().await;
        sent.map(drop).map_err(|error| self.unsent(key, code_of(&error), failed(&sending_what(key), &error)))
    }

    async fn send_part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        bytes: Vec<u8>,
    ) -> Result<CompletedPart, StepError> {
        let client = self.client().await;
        // A part that is sent again takes the place of the one before.
        patiently(async || {
            let request = client.upload_part().bucket(self.bucket()).key(key).upload_id(upload);
            let request = request.part_number(number).body(ByteStream::from(bytes.clone()));
            let sent = request.send().await;
            let sent = sent.map_err(|error| failed(&format!("sending part {number} of `{key}`"), &error))?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag().map(str::to_owned))
                .build())
        })
        .await
    }

    async fn complete(&self, key: &str, upload: &str, sent: Vec<CompletedPart>) -> Result<(), StepError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(sent)).build();
        let client = self.client().await;
        let request = client.complete_multipart_upload().bucket(self.bucket()).key(key).upload_id(upload);
        let done = request.multipart_upload(parts).if_none_match("*").send().await;
        done.map(drop).map_err(|error| self.unsent(key, code_of(&error), failed(&sending_what(key), &error)))
    }

    fn unsent(&self, key: &str, code: Option<&str>, error: StepError) -> StepError {
        if code == Some("PreconditionFailed") { self.taken(key) } else { error }
    }

    /// That a key is taken, as an error.
    pub fn taken(&self, key: &str) -> StepError {
        let place = format!("s3://{}/{key}", self.bucket());
        StepError::refused(format!(
            "{place} is there already, and it is something else: nothing was written over"
        ))
        .with_help("name another key, or take away what is there, then resume")
    }

    /// Takes away what was sent of an upload that is not to be completed. That it is gone already is fine.
    ///
    /// # Errors
    /// When the store does not do it.
    pub async fn forget_parts(&self, key: &str, upload: &str) -> Result<(), StepError> {
        let client = self.client().await;
        let request = client.abort_multipart_upload().bucket(self.bucket()).key(key).upload_id(upload);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(failed(&format!("taking away the parts of `{key}`"), &error)),
        }
    }
}

fn sending_what(key: &str) -> String {
    format!("writing `{key}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_file_and_never_too_many() {
        assert_eq!(parts(0), [(0, 0)]);
        assert_eq!(parts(PART), [(0, 8 * 1024 * 1024)]);
        assert_eq!(parts(PART + 1), [(0, 8 * 1024 * 1024), (PART, 1)]);
        for bytes in [PART * PARTS, PART * PARTS + 1, 5 * 1024 * 1024 * 1024 * 1024] {
            let all = parts(bytes);
            assert!(all.len() as u64 <= PARTS, "{bytes}: {}", all.len());
            assert_eq!(all.iter().map(|part| part.1 as u64).sum::<u64>(), bytes);
            assert!(all.windows(2).all(|two| two[0].0 + two[0].1 as u64 == two[1].0), "{bytes}");
        }
    }
}
