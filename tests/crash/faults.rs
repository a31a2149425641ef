//! What goes wrong by itself, beside the crash: a key that can not be deleted, a server that is busy at first, one that refuses.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::files::{below, fill};
use crate::matrix::{Case, explore};
use crate::place::Place;
use crate::server::{BUSY, Server};
use crate::trial::{Recovery, World, run_in};

/// How many files there are, of which one may not be deleted; in batches of 2.
const FILES: u64 = 5;

struct Faults {
    place: Place,
    server: Server,
}

fn make() -> Box<dyn World> {
    let (place, server) = (Place::new(), Server::start());
    fill(&place, "logs", FILES);
    let text = format!(
        r#"connections:
  api: {{ type: http, url: "{}", timeout: 3s }}
  logs: {{ type: directory, path: "{}" }}
collections:
  logs: {{ type: files, connection: logs, pattern: "*.log" }}
limits: {{ max_items: {FILES}, max_percent: 100, max_errors: 1 }}
lock: faults
steps:
  - {{ id: saved, uses: snapshot, with: {{ collection: logs }} }}
  - id: written
    uses: command
    with: {{ argv: [touch, -d, "@1700000001", logs/3.log], effect: {{ class: write, repeat: repeatable }} }}
  - id: busy
    uses: http
    # As many as the server turns away, and the one that a crash may cost.
    retry: {{ max_attempts: 5, delay: 10ms, backoff: constant }}
    with: {{ connection: api, method: PUT, path: /late/busy }}
  - id: refused
    uses: http
    on_failure: continue
    retry: {{ max_attempts: 3, delay: 10ms }}
    with: {{ connection: api, method: POST, path: /refused/refused }}
  - {{ id: confirm, uses: confirm-prompt, with: {{ message: Delete them?, phrases: [DELETE] }} }}
  - id: purge
    uses: delete-batch
    on_failure: continue
    retry: {{ max_attempts: 3, delay: 10ms }}
    with: {{ collections: [logs], keys: "${{{{ steps.saved.outputs.manifest }}}}", batch_size: 2 }}
  - id: told
    uses: assert
    with:
      that:
        - {{ that: "${{{{ steps.refused.status == 'failed' }}}}", message: it was not refused }}
        - {{ that: "${{{{ steps.purge.status == 'failed' }}}}", message: all of them were deleted }}
finally:
  - {{ id: report, uses: report }}
"#,
        server.url,
        place.path("logs").display(),
    );
    place.runbook("faults", &text);
    Box::new(Faults { place, server })
}

impl World for Faults {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "faults.yaml"].map(str::to_owned).into()
    }

    /// What is refused never takes effect.
    fn took_effect(&self, step: &str) -> bool {
        assert_eq!(step, "refused", "`{step}` may be repeated");
        false
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.place.path("").display().to_string(), "WORLD/".to_owned())]
    }

    fn picture(&self) -> Value {
        json!({ "logs": below(&self.place, "logs"), "busy": self.server.done("busy") > 0 })
    }

    fn wrong(&self, crashed_at: &[String]) -> Vec<String> {
        let crashes = crashed_at.len() as u64;
        let turned_away = |name: &str| self.server.told(|told| told.turned_away.get(name).copied());
        let mut wrong = Vec::new();
        let (busy, refused) = (self.server.done("busy"), turned_away("refused").unwrap_or(0));
        if busy > 1 + crashes || turned_away("busy") != Some(BUSY) {
            wrong.push(format!("{busy} times done late in {crashes} crashes"));
        }
        if !(1..=1 + crashes).contains(&refused) {
            wrong.push(format!("asked {refused} times for what is refused in {crashes} crashes"));
        }
        wrong
    }
}

#[test]
fn what_fails_by_itself_fails_the_same_whatever_crashes() {
    explore(&Case { name: "faults", recovery: Recovery::Resume, make, stride: 3, second_stride: 97 });
}
