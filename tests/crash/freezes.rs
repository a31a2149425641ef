//! Freezes of every kind, each lifted by a step or by the end of the run, with a command between that must find everything frozen.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::place::Place;
use crate::server::Server;
use crate::trial::{Recovery, World, run_in};

/// Bytes that a rewrite by lines would change: a comment, quotes, spaces, no line break at the end.
const ENV: &str = "# limits\nexport MAX_MB=\"25\"  # megabytes\nOTHER='x'";
const SWITCH: &str = "on\n";
const LAST: &str = "A=1\r\nLEVEL=high \n";

struct Frozen {
    place: Place,
    server: Server,
}

fn make() -> Box<dyn World> {
    let (place, server) = (Place::new(), Server::start());
    for (name, text) in [("app.env", ENV), ("running", ENV), ("switch", SWITCH), ("last.env", LAST)] {
        place.write(name, text);
    }
    // A system that reads its file only when it is restarted.
    place.write("restart.sh", "echo x >> restarts; cp app.env running.new; mv running.new running\n");
    place.write(
        "work.sh",
        "sleep 0.03\ngrep -q 'MAX_MB=\"0\"' running && grep -q off switch && grep -q LEVEL=low last.env && echo frozen >> work || echo open >> work\n",
    );
    let text = format!(
        r#"connections:
  api: {{ type: http, url: "{}", timeout: 3s }}
lock: freezes
steps:
  - id: by_file
    uses: freeze
    with:
      env_file: {{ path: app.env, variable: MAX_MB, value: "0", restart: {{ argv: [sh, restart.sh] }} }}
  - id: by_command
    uses: freeze
    with:
      command:
        target: switch
        read: [cat, switch]
        apply: [sh, -c, 'sleep 0.03; echo "$RUNBOOK_VALUE" > switch.new; mv switch.new switch']
        release: [sh, -c, 'echo "$RUNBOOK_ORIGINAL" > switch.new; mv switch.new switch']
        value: "off"
  - id: by_request
    uses: freeze
    with:
      http:
        connection: api
        target: value
        read: {{ path: /value, field: /max }}
        apply: {{ path: /value, json: {{ max: $VALUE }} }}
        release: {{ path: /value, json: {{ max: $ORIGINAL }} }}
        value: 0
      settle: 3s
  - id: to_the_end
    uses: freeze
    with:
      env_file: {{ path: last.env, variable: LEVEL, value: low }}
  - id: work
    uses: command
    with: {{ argv: [sh, work.sh], effect: {{ class: write, repeat: repeatable }} }}
  - {{ id: file_back, uses: unfreeze, with: {{ freeze: by_file }} }}
  - {{ id: switch_back, uses: unfreeze, with: {{ freeze: by_command }} }}
  - {{ id: value_back, uses: unfreeze, with: {{ freeze: by_request }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        server.url
    );
    place.runbook("freezes", &text);
    Box::new(Frozen { place, server })
}

impl Frozen {
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.place.path(name)).unwrap_or_default()
    }

    fn lines(&self, name: &str) -> u64 {
        self.text(name).lines().count() as u64
    }
}

impl World for Frozen {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "freezes.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        let folder = fs::canonicalize(self.place.path("")).unwrap().display().to_string();
        vec![(folder, "WORLD".to_owned()), (self.server.url.clone(), "SERVER".to_owned())]
    }

    fn picture(&self) -> Value {
        json!({ "worked": self.lines("work") > 0 })
    }

    fn wrong(&self, crashed_at: &[String]) -> Vec<String> {
        let crashes = crashed_at.len() as u64;
        let mut wrong = Vec::new();
        for (name, original) in [("app.env", ENV), ("running", ENV), ("switch", SWITCH), ("last.env", LAST)] {
            if self.text(name) != original {
                wrong.push(format!("{name} holds {:?} and not {original:?}", self.text(name)));
            }
        }
        let value = self.server.told(|told| told.value.clone());
        if value != json!(25) {
            wrong.push(format!("the server's value is {value} and not 25"));
        }
        if self.text("work").contains("open") {
            wrong.push("the command worked on what was not frozen".to_owned());
        }
        if self.lines("work") > 1 + crashes || self.lines("restarts") > 2 + 2 * crashes {
            let (work, restarts) = (self.lines("work"), self.lines("restarts"));
            wrong.push(format!("{work} times worked, {restarts} restarts"));
        }
        wrong
    }
}

#[test]
fn every_freeze_is_lifted_whatever_crashes() {
    explore(&Case { name: "freezes", recovery: Recovery::Resume, make, stride: 3, second_stride: 211 });
}

#[test]
fn every_freeze_is_lifted_by_a_cancel_whatever_crashes() {
    explore(&Case {
        name: "freezes, cancelled",
        recovery: Recovery::Cancel,
        make,
        stride: 3,
        second_stride: 211,
    });
}
