//! Collection kind `files`: the files of a directory.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runbook_engine::error::{ErrorKind, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Collection, Content, Doomed, Guard, Item, KeyOutcome, Page, Version};
use crate::connections::directory::{Directory, Found, Stamp};
use crate::digest::sha256;
use crate::kind::CollectionKind;
use crate::resources::Resources;

/// The files of a directory and of the folders in it. A file's key is its path below the directory, with `/`. Symbolic links are left
/// out. A file of a snapshot is deleted only while its size, its modification time and its content are those of the snapshot.
/// A file that belongs to it and whose name no key can be (it is not UTF-8, or holds a control character or `\`) is an error that names it, and
/// never left out.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesCollection {
    /// The name of a connection of type `directory`.
    pub connection: String,
    /// Only files whose path matches: `?` is any one character but `/`, `*` any number of them, `**` any number of any characters.
    /// Default: every file. With it, a delete takes matching keys only.
    #[serde(default)]
    pub pattern: Option<String>,
}

impl CollectionKind for FilesCollection {
    const NAME: &'static str = "files";
    const SUMMARY: &'static str = "The files of a directory";
    const MAX_BATCH: usize = MAX_BATCH;

    fn open(self, _: &str, resources: &Resources) -> Result<Arc<dyn Collection>, StepError> {
        let directory = resources.connection::<Directory>(&self.connection)?;
        Ok(Arc::new(Files {
            directory: (*directory).clone(),
            pattern: self.pattern,
            listing: Arc::default(),
        }))
    }
}

#[derive(Clone)]
struct Files {
    directory: Directory,
    pattern: Option<String>,
    /// The names of the scan under way, so that a page does not list the directory again.
    listing: Arc<Mutex<Option<Arc<Vec<String>>>>>,
}

/// The most keys of one batch.
const MAX_BATCH: usize = 1000;

/// The largest file that a record can hold, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// How many bytes of files one page holds before it ends early.
const PAGE_BYTES: u64 = 64 * 1024 * 1024;

/// Where a scan goes on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    last: String,
    total: u64,
}

/// The version of a file: what must still be so when it is deleted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    bytes: u64,
    modified_at: String,
    sha256: String,
}

impl Files {
    fn wants(&self, path: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| matches(pattern.as_bytes(), path))
    }

    fn list(&self) -> Result<Vec<String>, StepError> {
        self.directory.list(&|path| self.wants(path))
    }

    fn load(&self, key: &str) -> Result<Option<Item>, StepError> {
        // Looked at before it is read: what is written meanwhile makes it another version.
        let stamp = match self.directory.look(key)? {
            Found::File(stamp) if self.wants(key.as_bytes()) => stamp,
            _ => return Ok(None),
        };
        if stamp.bytes > LARGEST {
            let path = self.directory.path(key)?;
            let message = format!("{} has {} bytes; {LARGEST} are the most", path.display(), stamp.bytes);
            return Err(StepError::refused(message));
        }
        let Some(bytes) = self.directory.read(key)? else { return Ok(None) };
        let size = bytes.len() as u64;
        let record = json!({
            "path": key, "bytes": size, "modified_at": stamp.modified_at, "content": STANDARD.encode(&bytes),
        });
        let held = Held { bytes: stamp.bytes, modified_at: stamp.modified_at, sha256: sha256(&bytes) };
        let version =
            serde_json::to_value(held).map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))?;
        Ok(Some(Item { key: key.to_owned(), record, bytes: Some(size), version: Some(Version(version)) }))
    }

    fn page(&self, at: Option<&Cursor>, limit: usize) -> Result<Page, StepError> {
        let mut listing = self.listing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let names = match listing.as_ref().filter(|_| at.is_some()) {
            Some(names) => Arc::clone(names),
            None => Arc::clone(listing.insert(Arc::new(self.list()?))),
        };
        drop(listing);
        let total = names.len() as u64;
        let first = at.map_or(0, |at| names.partition_point(|name| *name <= at.last));
        let mut moved = at.is_some_and(|at| at.total != total);
        let (mut items, mut held, mut next) = (Vec::new(), 0, first);
        while next < names.len() && items.len() < limit.max(1) && held < PAGE_BYTES {
            match self.load(&names[next])? {
                Some(item) => {
                    held += item.bytes.unwrap_or(0);
                    items.push(item);
                }
                None => moved = true,
            }
            next += 1;
        }
        let next = match names.get(next.wrapping_sub(1)) {
            Some(last) if next < names.len() => Some(json!({ "last": last, "total": total })),
            _ => None,
        };
        Ok(Page { items, next, total: Some(total), moved })
    }

    fn remove(&self, doomed: &Doomed) -> KeyOutcome {
        let Doomed { key, expected } = doomed;
        if !self.wants(key.as_bytes()) {
            return KeyOutcome::Failed(StepError::refused(format!("`{key}` does not match the pattern")));
        }
        let end = match expected {
            Some(version) => self.remove_version(key, version),
            None => {
                self.directory.remove(key).map(|was| if was { KeyOutcome::Done } else { KeyOutcome::Already })
            }
        };
        end.unwrap_or_else(KeyOutcome::Failed)
    }

    /// Removes a file if it is this version: by its content, and by its size and time as late as can be, see [`Directory::remove_if`].
    fn remove_version(&self, key: &str, version: &Version) -> Result<KeyOutcome, StepError> {
        let Held { bytes, modified_at, sha256 } = Held::deserialize(&version.0).map_err(|error| {
            StepError::gate(format!("the snapshot's version of `{key}` is unreadable: {error}"))
        })?;
        let stamp = Stamp { bytes, modified_at };
        // A file that is known to be another one need not be read.
        match self.directory.look(key)? {
            Found::File(now) if now == stamp => {}
            other => return Ok(outcome(key, &stamp, &other)),
        }
        match self.directory.digest(key)? {
            Some((now, _)) if now == sha256 => {}
            Some(_) => return Ok(KeyOutcome::changed(key, "same size and time, other content")),
            None => return Ok(KeyOutcome::Already),
        }
        let found = self.directory.remove_if(key, &stamp)?;
        Ok(outcome(key, &stamp, &found))
    }

    fn restore(&self, item: &Item) -> KeyOutcome {
        let bytes = match self.content(item) {
            Ok(content) => content.bytes,
            Err(error) => return KeyOutcome::Failed(error),
        };
        match self.directory.write(&item.key, &bytes) {
            Ok(_) => KeyOutcome::Done,
            Err(error) => KeyOutcome::Failed(error),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StepError> + Send + 'static,
    ) -> Result<T, StepError> {
        let files = self.clone();
        tokio::task::spawn_blocking(move || work(&files))
            .await
            .map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))?
    }
}

/// What becomes of a key under which this was found where the file of this stamp was expected.
fn outcome(key: &str, expected: &Stamp, found: &Found) -> KeyOutcome {
    let told = |stamp: &Stamp| format!("{} bytes of {}", stamp.bytes, stamp.modified_at);
    match found {
        Found::Nothing => KeyOutcome::Already,
        Found::File(now) if now == expected => KeyOutcome::Done,
        Found::File(now) => {
            KeyOutcome::changed(key, &format!("it had {} and has {} now", told(expected), told(now)))
        }
        Found::Other => KeyOutcome::changed(key, "it is no file any more"),
    }
}

/// Whether a path matches a pattern of `?`, `*` and `**`.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    // One row of a table over the path: quick for any pattern, where backtracking would not be.
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let any = pattern[at] == b'*';
        let deep = any && pattern.get(at + 1) == Some(&b'*');
        let mut next = vec![false; path.len() + 1];
        for end in 0..=path.len() {
            next[end] = if any {
                reached[end] || (end > 0 && next[end - 1] && (deep || path[end - 1] != b'/'))
            } else {
                // A character of several bytes is matched by `?` byte by byte: continuation bytes ride along.
                end > 0
                    && ((reached[end - 1] && fits(pattern[at], path[end - 1]))
                        || (pattern[at] == b'?' && next[end - 1] && path[end - 1] & 0xC0 == 0x80))
            };
        }
        reached = next;
        at += if deep { 2 } else { 1 };
    }
    reached[path.len()]
}

fn fits(pattern: u8, byte: u8) -> bool {
    if pattern == b'?' { byte != b'/' && byte & 0xC0 != 0x80 } else { pattern == byte }
}

#[async_trait]
impl Collection for Files {
    fn describe(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!("files {pattern} of {}", self.directory.root().display()),
            None => format!("files of {}", self.directory.root().display()),
        }
    }

    fn guard(&self) -> Guard {
        Guard::Looks
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn count(&self) -> Result<u64, StepError> {
        self.blocking(|files| Ok(files.list()?.len() as u64)).await
    }

    async fn scan(&self, cursor: Option<&Value>, limit: usize) -> Result<Page, StepError> {
        let at: Option<Cursor> = cursor
            .map(|cursor| serde_json::from_value(cursor.clone()))
            .transpose()
            .map_err(|error| StepError::invalid(format!("the place in a listing is unreadable: {error}")))?;
        self.blocking(move |files| files.page(at.as_ref(), limit)).await
    }

    async fn exists(&self, key: &str) -> Result<bool, StepError> {
        let key = key.to_owned();
        self.blocking(move |files| {
            let is_file = matches!(files.directory.look(&key)?, Found::File(_));
            Ok(is_file && files.wants(key.as_bytes()))
        })
        .await
    }

    async fn read(&self, key: &str) -> Result<Option<Item>, StepError> {
        let key = key.to_owned();
        self.blocking(move |files| files.load(&key)).await
    }

    async fn find(&self, fields: &[(&str, &str)], limit: usize) -> Result<Vec<Item>, StepError> {
        let fields: Vec<_> =
            fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        self.blocking(move |files| {
            let mut found = Vec::new();
            for key in files.list()? {
                if found.len() >= limit {
                    break;
                }
                let Some(item) = files.load(&key)? else { continue };
                let equal = |(name, text): &(String, String)| match item.record.get(name) {
                    Some(Value::String(held)) => held == text,
                    Some(held) => serde_json::from_str(text).is_ok_and(|value: Value| value == *held),
                    None => false,
                };
                if fields.iter().all(equal) {
                    found.push(item);
                }
            }
            Ok(found)
        })
        .await
    }

    fn content(&self, item: &Item) -> Result<Content, StepError> {
        let bytes = item
            .record
            .get("content")
            .and_then(Value::as_str)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or_else(|| StepError::gate(format!("the record of `{}` holds no content", item.key)))?;
        let name = item.key.rsplit('/').next().map(str::to_owned);
        let size = item.record.get("bytes").and_then(Value::as_u64);
        Ok(Content { bytes, name, mime_type: None, sha256: None, size })
    }

    async fn delete(&self, keys: &[Doomed]) -> Result<Vec<KeyOutcome>, StepError> {
        let keys = keys.to_vec();
        self.blocking(move |files| Ok(keys.iter().map(|doomed| files.remove(doomed)).collect())).await
    }

    async fn put(&self, items: &[Item]) -> Result<Vec<KeyOutcome>, StepError> {
        let items = items.to_vec();
        self.blocking(move |files| Ok(items.iter().map(|item| files.restore(item)).collect())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let of = |pattern: &str, path: &str| matches(pattern.as_bytes(), path.as_bytes());
        for (pattern, path) in [
            ("*", "a.txt"),
            ("*.txt", "a.txt"),
            ("a?c", "abc"),
            ("a?c", "aüc"),
            ("**", "a/b/c"),
            ("**/*.txt", "a/b/c.txt"),
            ("*/b", "a/b"),
            ("", ""),
            ("a*b*c", "axxbxxc"),
        ] {
            assert!(of(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*", "a/b"),
            ("*.txt", "a.txt.gz"),
            ("a?c", "a/c"),
            ("a?c", "ac"),
            ("", "a"),
            ("b", "a"),
            ("??", "ü"),
        ] {
            assert!(!of(pattern, path), "{pattern} {path}");
        }
    }

    async fn collect(files: &Files, limit: usize) -> Vec<String> {
        let (mut cursor, mut keys) = (None, Vec::new());
        loop {
            let page = files.scan(cursor.as_ref(), limit).await.unwrap();
            assert!(!page.moved && page.items.len() <= limit);
            keys.extend(page.items.into_iter().map(|item| item.key));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return keys,
            }
        }
    }

    #[tokio::test]
    async fn files_are_scanned_deleted_and_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_str().unwrap()).unwrap();
        for at in 0..25 {
            directory
                .write(&format!("d{}/f{at:02}.txt", at % 3), format!("content {at}").as_bytes())
                .unwrap();
        }
        directory.write("other.bin", b"kept").unwrap();
        let pattern = Some("*/*.txt".to_owned());
        let files = Files { directory, pattern, listing: Arc::default() };
        assert_eq!(files.count().await.unwrap(), 25);
        let keys = collect(&files, 7).await;
        assert_eq!(keys, collect(&files, 100).await);
        assert_eq!(keys.len(), 25);
        assert!(keys.is_sorted());

        let item = files.read(&keys[0]).await.unwrap().unwrap();
        assert_eq!(files.content(&item).unwrap().bytes, b"content 0");
        assert_eq!(files.delete(&[Doomed::whatever(&keys[0])]).await.unwrap(), [KeyOutcome::Done]);
        assert_eq!(files.delete(&[Doomed::whatever(&keys[0])]).await.unwrap(), [KeyOutcome::Already]);
        assert!(matches!(
            files.delete(&["other.bin", "../x"].map(Doomed::whatever)).await.unwrap()[..],
            [KeyOutcome::Failed(_), KeyOutcome::Failed(_)]
        ));
        assert_eq!(files.read(&keys[0]).await.unwrap(), None);
        assert_eq!(files.put(std::slice::from_ref(&item)).await.unwrap(), [KeyOutcome::Done]);
        let again = files.read(&keys[0]).await.unwrap().unwrap();
        assert_eq!(files.content(&again).unwrap(), files.content(&item).unwrap());
    }

    #[tokio::test]
    async fn a_name_that_is_no_key_is_in_the_way_only_where_it_belongs() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_str().unwrap()).unwrap();
        directory.write("a.log", b"a").unwrap();
        let below = folder.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("a.txt"), "x").unwrap();
        std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9'.txt")), "x").unwrap();
        std::fs::write(folder.path().join("two\nlines.md"), "x").unwrap();
        let of = |pattern: Option<&str>| {
            let pattern = pattern.map(str::to_owned);
            Files { directory: directory.clone(), pattern, listing: Arc::default() }
        };
        for pattern in ["*.log", "a*", "d/*", "**.log"] {
            assert_eq!(
                of(Some(pattern)).count().await.unwrap(),
                1 - u64::from(pattern == "d/*"),
                "{pattern}"
            );
            let keys = of(Some(pattern)).scan(None, 10).await.unwrap().items.len();
            assert_eq!(keys, 1 - usize::from(pattern == "d/*"), "{pattern}");
        }
        for (pattern, name) in [
            (Some("caf?'.txt"), r"'caf\xe9\'.txt'"),
            (Some("*.txt"), r"'caf\xe9\'.txt'"),
            (Some("*/*.txt"), r"'d\xff/a.txt'"),
            (Some("d?/*"), r"'d\xff/a.txt'"),
            (Some("*.md"), r"'two\x0alines.md'"),
            (None, r"'"),
        ] {
            let told = |error: StepError| {
                assert!(error.message.contains(&format!("the file {name}")), "{pattern:?}: {error}");
                assert!(error.help.is_some_and(|help| help.contains("rename it")), "{pattern:?}");
            };
            told(of(pattern).count().await.unwrap_err());
            told(of(pattern).scan(None, 10).await.unwrap_err());
            told(of(pattern).find(&[("path", "a.log")], 1).await.unwrap_err());
        }
        // What is asked for by its key has nothing to do with it.
        assert!(of(None).read("a.log").await.unwrap().is_some());
        assert_eq!(of(None).delete(&[Doomed::whatever("a.log")]).await.unwrap(), [KeyOutcome::Done]);
    }

    /// The time of the files of a test.
    fn set_time(directory: &Directory, name: &str, seconds: u64) {
        let file = std::fs::File::options().append(true).open(directory.path(name).unwrap()).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_another_version_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().to_str().unwrap()).unwrap();
        let files = Files { directory: directory.clone(), pattern: None, listing: Arc::default() };
        let write = |name: &str, text: &str| {
            directory.write(name, text.as_bytes()).unwrap();
            set_time(&directory, name, 1_700_000_000);
        };
        let names = ["content", "folder", "gone", "grown", "link", "same", "touched"];
        names.iter().for_each(|name| write(name, "12345"));
        let items = files.scan(None, 100).await.unwrap().items;
        let doomed: Vec<_> =
            items.into_iter().map(|item| Doomed { key: item.key, expected: item.version }).collect();
        assert!(doomed.iter().all(|doomed| doomed.expected.is_some()));

        // The same size and time: only the bytes tell.
        write("content", "54321");
        write("grown", "123456");
        write("same", "12345");
        set_time(&directory, "touched", 1_700_000_001);
        ["folder", "gone", "link"].iter().for_each(|name| assert!(directory.remove(name).unwrap()));
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("same", folder.path().join("link")).unwrap();

        let outcomes = files.delete(&doomed).await.unwrap();
        let told = |at: usize| match &outcomes[at] {
            KeyOutcome::Failed(error) if error.kind == ErrorKind::Gate => error.message.clone(),
            other => panic!("{}: {other:?}", names[at]),
        };
        assert!(told(0).contains("`content` changed since the snapshot: same size and time, other content"));
        assert!(told(1).contains("no file any more") && told(4).contains("no file any more"));
        assert_eq!((&outcomes[2], &outcomes[5]), (&KeyOutcome::Already, &KeyOutcome::Done));
        assert!(told(3).contains("it had 5 bytes of 2023-11-14T22:13:20Z and has 6 bytes of"), "{}", told(3));
        assert!(told(6).contains("has 5 bytes of 2023-11-14T22:13:21Z now"), "{}", told(6));
        assert_eq!(directory.list(&|_| true).unwrap(), ["content", "grown", "touched"]);
        assert!(folder.path().join("link").is_symlink());

        // Without a version whatever is there goes.
        assert_eq!(files.delete(&[Doomed::whatever("grown")]).await.unwrap(), [KeyOutcome::Done]);
        // What can not be understood proves nothing.
        let strange = Doomed { key: "content".to_owned(), expected: Some(Version(json!("v1"))) };
        assert!(matches!(files.delete(&[strange]).await.unwrap()[..], [KeyOutcome::Failed(_)]));
        assert!(directory.read("content").unwrap().is_some());
    }
}
