//! Steps that go on beside each other: two that delete, within one limit of the run, and one that is refused meanwhile.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::files::{below, fill};
use crate::matrix::{Case, explore};
use crate::place::Place;
use crate::server::Server;
use crate::trial::{Recovery, World, run_in};

/// How many files are deleted of each folder; in batches of 2.
const FILES: u64 = 3;

/// The folders.
const FOLDERS: [&str; 2] = ["logs", "others"];

struct Beside {
    place: Place,
    server: Server,
}

fn make() -> Box<dyn World> {
    let (place, server) = (Place::new(), Server::start());
    FOLDERS.iter().for_each(|folder| fill(&place, folder, FILES));
    let [logs, others] = FOLDERS.map(|folder| place.path(folder).display().to_string());
    let text = format!(
        r#"connections:
  api: {{ type: http, url: "{}", timeout: 3s }}
  logs: {{ type: directory, path: "{logs}" }}
  others: {{ type: directory, path: "{others}" }}
collections:
  logs: {{ type: files, connection: logs, pattern: "*.log" }}
  others: {{ type: files, connection: others, pattern: "*.log" }}
limits: {{ max_items: {}, max_errors: 0 }}
lock: beside
steps:
  - {{ id: saved, uses: snapshot, with: {{ collection: logs }} }}
  - {{ id: saved_too, uses: snapshot, needs: [], with: {{ collection: others }} }}
  - {{ id: confirm, uses: confirm-prompt, needs: [saved, saved_too], with: {{ message: Delete them?, phrases: [DELETE] }} }}
  - id: purge
    uses: delete-batch
    with: {{ collections: [logs], keys: "${{{{ steps.saved.outputs.manifest }}}}", batch_size: 2 }}
  - id: purge_too
    uses: delete-batch
    needs: [confirm]
    with: {{ collections: [others], keys: "${{{{ steps.saved_too.outputs.manifest }}}}", batch_size: 2 }}
  - id: done
    uses: http
    needs: [confirm]
    with: {{ connection: api, method: PUT, path: /done/beside }}
  - id: refused
    uses: http
    needs: [confirm]
    on_failure: continue
    with: {{ connection: api, method: POST, path: /refused/refused }}
  - id: told
    uses: assert
    needs: [purge, purge_too, done, refused]
    with: {{ that: "${{{{ steps.refused.status == 'failed' }}}}", message: it was not refused }}
finally:
  - {{ id: report, uses: report }}
"#,
        server.url,
        2 * FILES,
    );
    place.runbook("beside", &text);
    Box::new(Beside { place, server })
}

impl World for Beside {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "beside.yaml"].map(str::to_owned).into()
    }

    /// What is refused never takes effect.
    fn took_effect(&self, step: &str) -> bool {
        assert_eq!(step, "refused", "`{step}` may be repeated");
        false
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.place.path("").display().to_string(), "WORLD/".to_owned())]
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn picture(&self) -> Value {
        let [logs, others] = FOLDERS.map(|folder| below(&self.place, folder));
        json!({ "logs": logs, "others": others, "done": self.server.done("beside") > 0 })
    }

    fn wrong(&self, crashed_at: &[String]) -> Vec<String> {
        let most = 1 + crashed_at.len() as u64;
        let refused = self.server.told(|told| told.turned_away.values().sum());
        let counts = [("done", self.server.done("beside")), ("refused", refused)];
        let often = counts.into_iter().filter(|(_, count)| !(1..=most).contains(count));
        often.map(|(name, count)| format!("{count} times `{name}`, and {most} at the most")).collect()
    }
}

#[test]
fn what_goes_on_beside_each_other_is_done_once_whatever_crashes() {
    explore(&Case { name: "beside", recovery: Recovery::Resume, make, stride: 3, second_stride: 211 });
}
