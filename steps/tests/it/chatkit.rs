//! A ChatKit stand-in, files to upload to it, and a run that does.

use runbook_sandbox::{Chatkit, Options, Server, sandbox_binary};
use runbook_steps::digest::sha256;
use serde_json::{Value, json};

use crate::common::{Bench, planned};

/// A gateway, a store, and a run with the steps `restore` and `verify`.
pub struct Lab {
    /// The stand-ins.
    pub chatkit: Chatkit,
    /// The run.
    pub bench: Bench,
    /// `with` of `restore`.
    pub restore: Value,
    /// The keys of the files.
    pub keys: Vec<String>,
}

impl Lab {
    /// Stand-ins without attachments, and so many files.
    pub async fn new(files: usize) -> Self {
        let options = Options { attachments: 0, orphans: 0, restore: 0, ..Options::default() };
        let chatkit = Chatkit::start(&sandbox_binary().unwrap(), &options).await.unwrap();
        let entries: Vec<Value> = (0..files).map(|n| file(&chatkit, n)).collect();
        let keys = entries.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect();
        let connections = json!({
            "gateway": { "type": "http", "url": chatkit.gateway_url(), "session": {} },
            "store": { "type": "fountainstore", "url": chatkit.store_url(), "api_key": chatkit.api_key() },
            "archive": { "type": "directory", "path": chatkit.archive_dir() },
        });
        let documents = |collection: &str| {
            json!({
                "type": "fountainstore-documents", "connection": "store", "corpus": "chatkit",
                "collection": collection, "key": "attachmentId",
            })
        };
        let collections =
            json!({ "metadata": documents("attachment-metadata"), "blobs": documents("attachments") });
        // The manifest is an artifact of the run, which is made first.
        let steps = |with: &Value| {
            vec![planned("restore", "upload", with.clone()), planned("verify", "verify-header", json!({}))]
        };
        let with = json!({ "recorded_in": {} });
        let mut bench = Bench::new(steps(&with), connections, collections).await;
        let restore = json!({
            "connection": "gateway",
            "path": "/chatkit/upload",
            "manifest": bench.artifact("export.jsonl", &entries),
            "directory": "archive",
            "recorded_in": { "collections": ["metadata", "blobs"] },
        });
        bench.reopen_resources();
        Self { chatkit, bench, restore, keys }
    }

    /// Enters `restore`.
    pub async fn restore(&self) -> Result<Value, runbook_engine::error::StepError> {
        self.restore_with(json!({})).await
    }

    /// Enters `restore` with further settings.
    pub async fn restore_with(&self, more: Value) -> Result<Value, runbook_engine::error::StepError> {
        let mut with = self.restore.clone();
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.bench.enter_with(self.bench.context("restore"), Some(with)).await
    }

    /// Enters `verify` on these descriptors.
    pub async fn verify(
        &self,
        restored: &Value,
        more: Value,
    ) -> Result<Value, runbook_engine::error::StepError> {
        let mut with = json!({
            "connection": "gateway",
            "path": "/chatkit/attachments/{attachment_id}",
            "items": restored["descriptors"],
            "directory": "archive",
            "produced_by": "restore",
        });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.bench.enter_with(self.bench.context("verify"), Some(with)).await
    }

    /// How many records both collections have.
    pub async fn records(&self) -> (usize, usize) {
        let of = async |collection| self.chatkit.doc_ids(collection).await.unwrap().len();
        (of("attachments").await, of("attachment-metadata").await)
    }

    /// How many uploads the gateway has received since it started.
    pub async fn posts(&self) -> usize {
        let requests = self.chatkit.requests(Server::Gateway).await.unwrap();
        requests.iter().filter(|request| request.path == "/chatkit/upload").count()
    }
}

fn file(chatkit: &Chatkit, n: usize) -> Value {
    let bytes = format!("the bytes of file {n}\n").repeat(n + 1);
    let path = format!("{n:02}.txt");
    std::fs::write(chatkit.archive_dir().join(&path), &bytes).unwrap();
    json!({
        "key": format!("old-{n:02}"),
        "name": format!("file {n} ü.txt"),
        "mime_type": "text/plain",
        "path": path,
        "bytes": bytes.len(),
        "sha256": sha256(bytes.as_bytes()),
    })
}
