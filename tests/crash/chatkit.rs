//! The reset of ChatKit that is shipped, against real servers: snapshot, freeze with probe, purge, uploads, downloads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;

use runbook_sandbox::Options;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::trial::{Recovery, World};

/// How many attachments are deleted in one batch.
const BATCH: u64 = 2;

fn options() -> Options {
    Options { attachments: 4, orphans: 1, restore: 2, ..Options::default() }
}

fn make() -> Box<dyn World> {
    Box::new(Kit(RUNTIME.block_on(Bench::start(&options()))))
}

struct Kit(Bench);

impl Kit {
    /// How many attachments are restored.
    fn kept(&self) -> u64 {
        self.0.keep.len() as u64
    }
}

impl World for Kit {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.0.command(&arguments).as_std_mut().envs(variables.iter().cloned()).output().unwrap()
    }

    fn state(&self) -> PathBuf {
        self.0.state.path().to_owned()
    }

    fn exec(&self) -> Vec<String> {
        vec!["exec".into(), "reset-chatkit".into(), "-i".into(), format!("batch_size={BATCH}")]
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        let kit = &self.0.kit;
        let names = [
            (kit.dir().display().to_string(), "KIT"),
            (kit.store_url().to_owned(), "STORE"),
            (kit.gateway_url().to_owned(), "GATEWAY"),
        ];
        names.map(|(name, stands_for)| (name, stands_for.to_owned())).into()
    }

    /// Records hold times and ids. Their contents are compared in the world, by checksum.
    fn is_drawn(&self, member: &str) -> bool {
        let records = ["sha256", "bytes"];
        let ids = ["session_id", "sample", "seed", "window"];
        // A crash costs a restart of the gateway, which logs, and perhaps an upload that is replaced.
        let tries = ["lines_read", "too_old", "counts", "matched", "replaced"];
        records.iter().chain(&ids).chain(&tries).any(|name| *name == member)
    }

    fn picture(&self) -> Value {
        // New ids are drawn; what is in the documents is what must be the same.
        let sums = |collection: &str| {
            let documents = RUNTIME.block_on(self.0.kit.documents(collection)).unwrap();
            let mut sums: Vec<String> =
                documents.iter().map(|doc| crate::bench::text(doc, "checksum")).collect();
            sums.sort();
            sums
        };
        json!({ "metadata": sums("attachment-metadata"), "blobs": sums("attachments") })
    }

    fn wrong(&self, crashed_at: &[String]) -> Vec<String> {
        let crashes = crashed_at.len() as u64;
        let mut wrong = Vec::new();
        if let Some((_, state)) = RUNTIME.block_on(self.0.newest())
            && state.status.name() == "succeeded"
        {
            RUNTIME.block_on(self.0.assert_reset(&state));
        }
        let deletes: BTreeMap<(String, String), u32> = RUNTIME.block_on(self.0.deletes());
        let repeated: u64 = deletes.values().map(|times| u64::from(*times - 1)).sum();
        if repeated > crashes * BATCH * 2 {
            wrong.push(format!("{repeated} deletes were repeated in {crashes} crashes"));
        }
        let uploads = RUNTIME.block_on(self.0.puts("attachments")) as u64;
        if uploads > self.kept() + self.repeatable("restore", crashed_at) {
            wrong.push(format!("{uploads} uploads in {crashes} crashes"));
        }
        wrong
    }

    /// A session that was refreshed and not written down is lost with the process, and what was uploaded in it is uploaded again.
    fn repeatable(&self, step: &str, crashed_at: &[String]) -> u64 {
        let lost = crashed_at.iter().filter(|point| point.ends_with("after session")).count() as u64;
        let again = if step == "restore" { lost * self.kept() } else { 0 };
        crashed_at.len() as u64 + again
    }
}

#[test]
fn a_reset_comes_to_the_same_end_whatever_crashes() {
    explore(&Case { name: "reset-chatkit", recovery: Recovery::Resume, make, stride: 23, second_stride: 0 });
}
