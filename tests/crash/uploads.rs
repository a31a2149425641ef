//! Attachments uploaded anew in one session that has to live, and their downloads checked, against a real gateway and store.

use std::path::PathBuf;
use std::process::Output;

use runbook_sandbox::{Chatkit, Options, sandbox_binary};
use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// How many attachments there are, and how many of them are uploaded again.
const THERE: usize = 3;
const AGAIN: usize = 2;

struct Uploads {
    place: Place,
    kit: Chatkit,
}

fn make() -> Box<dyn World> {
    let options = Options { attachments: THERE, orphans: 0, restore: AGAIN, ..Options::default() };
    let kit = RUNTIME.block_on(Chatkit::start(&sandbox_binary().unwrap(), &options)).unwrap();
    let inputs: Value = serde_yaml::from_slice(&std::fs::read(kit.inputs()).unwrap()).unwrap();
    let place = Place::new();
    let text = format!(
        r#"secrets:
  store_key: {{ env: STORE_KEY }}
connections:
  gateway:
    type: http
    url: "{gateway}"
    session:
      {{ open: /chatkit/session, refresh: /chatkit/session/refresh, secret: client_secret, id: session_id, expires_at: expires_at }}
  store: {{ type: fountainstore, url: "{store}", api_key: "${{{{ secrets.store_key }}}}" }}
  archive: {{ type: directory, path: "{archive}" }}
collections:
  metadata: {{ type: fountainstore-documents, connection: store, corpus: chatkit, collection: attachment-metadata, key: attachmentId }}
  blobs:
    type: fountainstore-documents
    connection: store
    corpus: chatkit
    collection: attachments
    key: attachmentId
    content: {{ field: dataBase64, encoding: base64, sha256: checksum, size: sizeBytes, name: fileName, mime_type: mimeType }}
lock: uploads
steps:
  - {{ id: saved, uses: snapshot, with: {{ collection: blobs, only: {only}, export: {{ connection: archive }} }} }}
  - id: again
    uses: upload
    with:
      connection: gateway
      path: /chatkit/upload
      manifest: "${{{{ steps.saved.outputs.export_manifest }}}}"
      directory: archive
      # When no upload is answered because of crashes, nobody tells how links look.
      recorded_in: {{ collections: [metadata, blobs], match: {{ name: fileName, sha256: checksum, session: sessionId }}, url: "fountain://chatkit/attachments/{{id}}" }}
  - id: verified
    uses: verify-header
    with:
      connection: gateway
      path: /chatkit/attachments/{{attachment_id}}
      items: "${{{{ steps.again.outputs.descriptors }}}}"
      directory: archive
      produced_by: again
finally:
  - {{ id: report, uses: report }}
"#,
        gateway = kit.gateway_url(),
        store = kit.store_url(),
        archive = kit.archive_dir().display(),
        only = inputs["restore_ids"],
    );
    place.runbook("uploads", &text);
    Box::new(Uploads { place, kit })
}

impl World for Uploads {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        let key = ("STORE_KEY".to_owned(), self.kit.api_key().to_owned());
        let variables: Vec<_> = variables.iter().cloned().chain([key]).collect();
        run_in(&self.place, arguments, &variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "uploads.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        let names = [
            (self.kit.dir().display().to_string(), "KIT"),
            (self.kit.store_url().to_owned(), "STORE"),
            (self.kit.gateway_url().to_owned(), "GATEWAY"),
        ];
        names.map(|(name, stands_for)| (name, stands_for.to_owned())).into()
    }

    /// Records hold times and ids. Their contents are compared in the world, by checksum.
    fn is_drawn(&self, member: &str) -> bool {
        ["sha256", "bytes", "session_id", "sample", "seed", "replaced"].contains(&member)
    }

    fn picture(&self) -> Value {
        let sums = |collection: &str| {
            let documents = RUNTIME.block_on(self.kit.documents(collection)).unwrap();
            let mut sums: Vec<Value> = documents.iter().map(|doc| doc["checksum"].clone()).collect();
            sums.sort_by_key(Value::to_string);
            sums
        };
        json!({ "metadata": sums("attachment-metadata"), "blobs": sums("attachments") })
    }

    fn wrong(&self, crashed_at: &[String]) -> Vec<String> {
        let effects = RUNTIME.block_on(self.kit.effects()).unwrap();
        let put = |collection: &str| {
            effects
                .iter()
                .filter(|one| one.op == "put" && one.collection.as_deref() == Some(collection))
                .count()
        };
        let most = AGAIN as u64 + self.repeatable("again", crashed_at);
        let uploads = put("attachments") as u64;
        if uploads > most {
            vec![format!("{uploads} uploads and not {most} at the most")]
        } else {
            Vec::new()
        }
    }

    /// A session that was refreshed and not written down is lost with the process, and what was uploaded in it is uploaded again.
    fn repeatable(&self, step: &str, crashed_at: &[String]) -> u64 {
        let lost = crashed_at.iter().filter(|point| point.ends_with("after session")).count();
        let again = if step == "again" { lost * AGAIN } else { 0 };
        (crashed_at.len() + again) as u64
    }
}

#[test]
fn what_is_uploaded_again_is_in_one_live_session_whatever_crashes() {
    explore(&Case { name: "uploads", recovery: Recovery::Resume, make, stride: 7, second_stride: 0 });
}
