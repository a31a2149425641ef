//! A ChatKit sandbox with `runbook` beside it, and the questions every test asks of the world afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use runbook_engine::state::{RunState, RunStatus, StepStatus};
use runbook_engine::store::{Store, decode_plan, load_state};
use runbook_sandbox::{Chatkit, Options, sandbox_binary};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The phrase that starts the purge.
pub const PHRASE: &str = "RESET CHATKIT";

/// How long any one command may take.
const LIMIT: Duration = Duration::from_secs(180);

pub struct Bench {
    pub kit: Chatkit,
    pub state: TempDir,
    /// The environment file as it was in the beginning.
    pub env_before: Vec<u8>,
    /// The ids in `attachments` and `attachment-metadata` in the beginning.
    pub ids_before: BTreeSet<String>,
    /// SHA-256 of each attachment that is to be restored.
    pub keep: BTreeMap<String, String>,
}

impl Bench {
    pub async fn start(options: &Options) -> Self {
        let kit = Chatkit::start(&sandbox_binary().unwrap(), options).await.unwrap();
        let state = tempfile::tempdir().unwrap();
        let env_before = std::fs::read(kit.env_file()).unwrap();
        let mut ids_before = BTreeSet::new();
        for collection in ["attachments", "attachment-metadata"] {
            ids_before.extend(kit.doc_ids(collection).await.unwrap());
        }
        let inputs: Value = serde_yaml::from_slice(&std::fs::read(kit.inputs()).unwrap()).unwrap();
        let wanted = inputs["restore_ids"].as_array().unwrap();
        let wanted: BTreeSet<&str> = wanted.iter().map(|id| id.as_str().unwrap()).collect();
        let keep = kit
            .documents("attachment-metadata")
            .await
            .unwrap()
            .iter()
            .filter(|doc| wanted.contains(doc["attachmentId"].as_str().unwrap()))
            .map(|doc| (text(doc, "attachmentId"), text(doc, "checksum")))
            .collect();
        Self { kit, state, env_before, ids_before, keep }
    }

    /// `runbook` with these arguments, in the sandbox's environment, without a terminal.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runbook"));
        command
            .args(arguments)
            .envs(self.kit.env())
            .env("RUNBOOK_STATE", format!("sqlite:{}", self.database().display()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs it to its end; the exit code and everything it said.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = tokio::time::timeout(LIMIT, self.command(arguments).output()).await;
        let output: Output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
        let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
        (output.status.code().unwrap_or(-1), said.concat())
    }

    /// The same, but the exit code is known beforehand; what it said.
    pub async fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let (got, said) = self.run(arguments).await;
        assert_eq!(got, code, "{arguments:?} said:\n{said}");
        said
    }

    pub fn database(&self) -> PathBuf {
        self.state.path().join("state.db")
    }

    /// The newest run, if there is one.
    pub async fn newest(&self) -> Option<(String, RunState)> {
        if !self.database().exists() {
            return None;
        }
        let store = runbook_engine::store::sqlite::SqliteStore::open(&self.database()).await.unwrap();
        let row = store.runs(1).await.unwrap().pop()?;
        let row = store.run(&row.id).await.unwrap().unwrap();
        let plan = decode_plan(&row).unwrap();
        let state = load_state(&store, &row.id, &plan).await.unwrap();
        store.close().await;
        Some((row.id, state))
    }

    /// Does what a person would do next until the run has ended.
    pub async fn finish(&self) -> RunState {
        for _ in 0..20 {
            let Some((id, state)) = self.newest().await else {
                self.run(&["exec", "reset-chatkit"]).await;
                continue;
            };
            if state.status.is_final() {
                return state;
            }
            let asking = state.steps.values().any(|step| step.status == StepStatus::Asking);
            let (code, said) = if asking {
                self.run(&["answer", &id, PHRASE]).await
            } else {
                self.run(&["resume", &id]).await
            };
            assert!(matches!(code, 0 | 5), "exit {code}:\n{said}");
        }
        panic!("the run does not end: {:?}", self.newest().await);
    }

    /// Kills the process as `kill -9` does; false when it had ended by itself.
    pub async fn kill(&self, child: &mut Child) -> bool {
        let _ = child.start_kill();
        child.wait().await.unwrap().signal() == Some(9)
    }

    /// What must hold after every reset that succeeded, however it got there.
    pub async fn assert_reset(&self, state: &RunState) {
        assert_eq!(state.status, RunStatus::Succeeded, "{state:#?}");
        assert_eq!(std::fs::read(self.kit.env_file()).unwrap(), self.env_before, "the environment file");
        let metadata = self.kit.documents("attachment-metadata").await.unwrap();
        let blobs = self.kit.documents("attachments").await.unwrap();
        let mut sums: Vec<String> = metadata.iter().map(|doc| text(doc, "checksum")).collect();
        let mut wanted: Vec<String> = self.keep.values().cloned().collect();
        sums.sort();
        wanted.sort();
        assert_eq!(sums, wanted, "exactly what was to be kept is there again");
        let ids = |docs: &[Value]| docs.iter().map(|doc| text(doc, "attachmentId")).collect::<BTreeSet<_>>();
        assert_eq!(ids(&metadata), ids(&blobs), "no record without its blob, no blob without its record");
        assert!(ids(&metadata).is_disjoint(&self.ids_before), "every link is fresh");
        self.assert_only_ours_deleted().await;
    }

    /// Nothing was deleted that was not in the snapshot, save what the run itself had uploaded.
    pub async fn assert_only_ours_deleted(&self) {
        let mut made = BTreeSet::new();
        for effect in self.kit.effects().await.unwrap() {
            let id = effect.id.clone().unwrap_or_default();
            match effect.op.as_str() {
                "put" => {
                    made.insert(id);
                }
                "delete" => assert!(
                    self.ids_before.contains(&id) || made.contains(&id),
                    "{id} was deleted and nobody had listed it"
                ),
                _ => {}
            }
        }
    }

    /// How many deletes each (collection, id) of the beginning saw.
    pub async fn deletes(&self) -> BTreeMap<(String, String), u32> {
        let mut seen = BTreeMap::new();
        for effect in self.kit.effects().await.unwrap() {
            let (Some(collection), Some(id)) = (effect.collection, effect.id) else { continue };
            if effect.op == "delete" && self.ids_before.contains(&id) {
                *seen.entry((collection, id)).or_insert(0) += 1;
            }
        }
        seen
    }

    /// Writes a document behind the back of the runbook.
    pub async fn put(&self, collection: &str, id: &str, document: &Value) {
        self.change(reqwest::Method::PUT, collection, id, Some(document)).await;
    }

    /// Removes a document behind the back of the runbook.
    pub async fn delete(&self, collection: &str, id: &str) {
        self.change(reqwest::Method::DELETE, collection, id, None).await;
    }

    async fn change(&self, method: reqwest::Method, collection: &str, id: &str, body: Option<&Value>) {
        let url = format!("{}/corpora/chatkit/collections/{collection}/docs/{id}", self.kit.store_url());
        let request = reqwest::Client::new().request(method, url).header("X-API-Key", self.kit.api_key());
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.unwrap().error_for_status().unwrap();
    }

    /// How many documents were put into a collection.
    pub async fn puts(&self, collection: &str) -> usize {
        let effects = self.kit.effects().await.unwrap();
        effects.iter().filter(|one| one.op == "put" && one.collection.as_deref() == Some(collection)).count()
    }
}

pub fn text(doc: &Value, field: &str) -> String {
    doc[field].as_str().unwrap_or_default().to_owned()
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}
