//! `freeze` of the ChatKit gateway, as the shipped runbook does it, against the sandbox.

use runbook_engine::drive::Purpose;
use runbook_engine::error::ErrorKind;
use runbook_engine::plan::PlannedStep;
use runbook_engine::state::RunStatus;
use runbook_engine::store::Store;
use runbook_sandbox::admin::{Fault, FaultAction};
use runbook_sandbox::{Chatkit, Options, Server, sandbox_binary};
use serde_json::json;

use crate::driven::{Driven, error, outputs, step, text};

struct Bench {
    chatkit: Chatkit,
    driven: Driven,
    file: String,
    blobs: Vec<String>,
    metadata: Vec<String>,
}

impl Bench {
    async fn new(wire: bool) -> Self {
        let options = Options { attachments: 5, orphans: 1, restore: 1, wire, ..Options::default() };
        let chatkit = Chatkit::start(&sandbox_binary().unwrap(), &options).await.unwrap();
        let documents = |collection: &str| {
            json!({
                "type": "fountainstore-documents",
                "connection": "store",
                "corpus": "chatkit",
                "collection": collection,
                "key": "attachmentId",
            })
        };
        let connections = json!({
            "gateway": {"type": "http", "url": chatkit.gateway_url(), "session": {}},
            "store": {"type": "fountainstore", "url": chatkit.store_url(), "api_key": chatkit.api_key()},
        });
        let collections =
            json!({"blobs": documents("attachments"), "metadata": documents("attachment-metadata")});
        Self {
            driven: Driven::new(&connections, &collections),
            file: text(chatkit.env_file()),
            blobs: chatkit.doc_ids("attachments").await.unwrap(),
            metadata: chatkit.doc_ids("attachment-metadata").await.unwrap(),
            chatkit,
        }
    }

    fn freeze(&self, value: &str, restart: bool) -> PlannedStep {
        let mut with = json!({
            "env_file": {
                "path": self.chatkit.env_file(),
                "variable": "CHATKIT_ATTACHMENT_MAX_MB",
                "value": value,
            },
            "probe": {
                "connection": "gateway",
                "path": "/chatkit/upload",
                "multipart": {"content_type": "text/plain", "bytes": 64},
                "expect": [
                    {"status": 413, "contains": "attachment_too_large"},
                    {"status": 400, "contains": "attachment_too_large"},
                ],
                "undo": {
                    "field": "attachment_id",
                    "find_by": "fileName",
                    "collections": ["blobs", "metadata"],
                },
            },
            "settle": "5s",
        });
        if restart {
            let binary = sandbox_binary().unwrap();
            let argv = json!([binary, "restart", "--control", self.chatkit.control_url(), "gateway"]);
            with["env_file"]["restart"] = json!({"argv": argv});
        }
        step("freeze", "freeze", with)
    }

    /// The file and both collections are as they were, and nobody holds anything.
    async fn untouched(&self) {
        assert_eq!(text(self.chatkit.env_file()), self.file);
        assert_eq!(self.chatkit.doc_ids("attachments").await.unwrap(), self.blobs);
        assert_eq!(self.chatkit.doc_ids("attachment-metadata").await.unwrap(), self.metadata);
        assert_eq!(self.driven.store.obligations().await.unwrap(), []);
    }

    /// How many documents the store wrote and deleted.
    async fn effects(&self) -> (usize, usize) {
        let effects = self.chatkit.effects().await.unwrap();
        let count = |op: &str| effects.iter().filter(|effect| effect.op == op).count();
        (count("put"), count("delete"))
    }

    async fn cut_uploads(&self, times: u64) {
        let action = FaultAction { cut_after_effect: true, ..FaultAction::default() };
        let path_prefix = "/chatkit/upload".to_owned();
        let fault = Fault { method: None, path_prefix, after: 0, times, action };
        self.chatkit.fault(Server::Gateway, &fault).await.unwrap();
    }
}

fn unfreeze() -> PlannedStep {
    step("unfreeze", "unfreeze", json!({"freeze": "freeze"}))
}

#[tokio::test]
async fn both_ways_in_which_the_gateway_refuses_prove_the_freeze() {
    for (wire, status) in [(false, 413), (true, 400)] {
        let bench = Bench::new(wire).await;
        let state = bench.driven.run("r", vec![bench.freeze("0.0000001", true), unfreeze()]).await;
        assert_eq!(outputs(&state, "freeze")["probe"]["status"], status);
        assert_eq!(outputs(&state, "unfreeze")["restored"], "25");
        bench.untouched().await;
    }
}

#[tokio::test]
async fn zero_does_not_freeze_the_gateway_and_the_probe_leaves_nothing() {
    let bench = Bench::new(false).await;
    let (put, deleted) = bench.effects().await;
    let state = bench.driven.run("r", vec![bench.freeze("0", true), unfreeze()]).await;
    let error = error(&state, "freeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("201") && error.causes.is_empty(), "{error:?}");
    assert!(error.help.as_ref().unwrap().contains("0.0000001"));
    let (put_now, deleted_now) = bench.effects().await;
    assert!(put_now > put && deleted_now > deleted, "the probe was taken and removed again");
    bench.untouched().await;
}

#[tokio::test]
async fn a_probe_whose_answer_got_lost_leaves_nothing() {
    for times in [1, 1000] {
        let bench = Bench::new(false).await;
        bench.cut_uploads(times).await;
        let (put, _) = bench.effects().await;
        // Without a restart the gateway takes everything as before.
        let state = bench.driven.run("r", vec![bench.freeze("0.0000001", false), unfreeze()]).await;
        assert_eq!(error(&state, "freeze").kind, ErrorKind::Gate);
        let (put_now, _) = bench.effects().await;
        assert!(put_now >= put + 4, "more than one probe was taken: {put} {put_now}");
        bench.untouched().await;
    }
}

#[tokio::test]
async fn a_probe_that_a_crash_cut_off_leaves_nothing() {
    let bench = Bench::new(false).await;
    bench.cut_uploads(1000).await;
    bench.driven.create("r", vec![bench.freeze("0.0000001", false), unfreeze()]).await;
    let log = bench.chatkit.log().to_owned();
    let before = text(&log).matches("attachmentUploadSucceeded").count();
    bench
        .driven
        .crash("r", Purpose::GoOn, || text(&log).matches("attachmentUploadSucceeded").count() > before)
        .await;
    assert!(bench.chatkit.doc_ids("attachments").await.unwrap().len() > bench.blobs.len());
    let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!(state.status, RunStatus::Cancelled);
    bench.untouched().await;
}
