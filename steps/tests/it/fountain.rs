//! The ChatKit sandbox as the tests of snapshot, delete-batch and count use it.

use runbook_sandbox::admin::{Fault, FaultAction};
use runbook_sandbox::{Chatkit, Options, Server, sandbox_binary};
use serde_json::{Value, json};

/// A sandbox with this many attachments and orphans.
pub async fn start(attachments: usize, orphans: usize) -> Chatkit {
    let options = Options { attachments, orphans, restore: 2, ..Options::default() };
    Chatkit::start(&sandbox_binary().unwrap(), &options).await.unwrap()
}

/// The connections of a runbook for it.
pub fn connections(chatkit: &Chatkit) -> Value {
    json!({
        "store": { "type": "fountainstore", "url": chatkit.store_url(), "api_key": chatkit.api_key(), "timeout": "5s" },
        "archive": { "type": "directory", "path": chatkit.archive_dir() },
        "gateway": { "type": "http", "url": chatkit.gateway_url(), "session": {} },
    })
}

/// The collections of a runbook for it.
pub fn collections() -> Value {
    let documents = |collection: &str| {
        json!({
            "type": "fountainstore-documents", "connection": "store", "corpus": "chatkit",
            "collection": collection, "key": "attachmentId", "order_by": "storedAt",
        })
    };
    let mut blobs = documents("attachments");
    blobs["content"] = json!({
        "field": "dataBase64", "sha256": "checksum", "size": "sizeBytes", "name": "fileName", "mime_type": "mimeType",
    });
    json!({ "metadata": documents("attachment-metadata"), "blobs": blobs })
}

/// The path of the documents of a collection.
pub fn docs(collection: &str) -> String {
    format!("/corpora/chatkit/collections/{collection}/docs/")
}

/// Makes the store fail `times` requests of this method below this path, after `after` of them.
pub async fn fault(chatkit: &Chatkit, method: &str, path: &str, after: u64, times: u64, action: FaultAction) {
    let fault = Fault { method: Some(method.to_owned()), path_prefix: path.to_owned(), after, times, action };
    chatkit.fault(Server::Store, &fault).await.unwrap();
}

/// Writes or removes a document behind the back of the runbook.
pub async fn change(chatkit: &Chatkit, method: &str, collection: &str, id: &str, body: Option<&Value>) {
    let url = format!("{}{}{id}", chatkit.store_url(), docs(collection));
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = reqwest::Client::new().request(method, url).header("X-API-Key", chatkit.api_key());
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await.unwrap().error_for_status().unwrap();
}
