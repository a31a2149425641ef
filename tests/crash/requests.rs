//! Requests, a webhook and commands, repeatable and not, each counted by the one who gets it.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::place::Place;
use crate::server::{SECRET, Server};
use crate::trial::{Recovery, World, run_in};

struct Asked {
    place: Place,
    server: Server,
}

fn make() -> Box<dyn World> {
    let (place, server) = (Place::new(), Server::start());
    place.write("app.log", "started\n{\"kind\": \"up\", \"timestamp\": \"2026-01-01T00:00:00Z\"}\n");
    place.write("secret", SECRET);
    let text = format!(
        r#"connections:
  api: {{ type: http, url: "{url}", timeout: 3s }}
secrets:
  hook: {{ file: secret }}
limits: {{ max_items: 5 }}
lock: requests
steps:
  - {{ id: once, uses: http, with: {{ connection: api, method: POST, path: /done/once }} }}
  - id: checked
    uses: http
    with: {{ connection: api, method: POST, path: /done/checked, check: {{ path: /done/checked }} }}
  - {{ id: repeatable, uses: http, with: {{ connection: api, method: PUT, path: /done/repeatable }} }}
  - id: told
    uses: notify
    with: {{ url: "{url}/hook", secret: "${{{{ secrets.hook }}}}", message: It is done., delay: 10ms }}
  - id: ready
    uses: wait-for
    with: {{ http: {{ connection: api, path: /done/once }}, interval: 20ms, timeout: 20s }}
  - id: up
    uses: watch-log
    with: {{ path: app.log, expect: [{{ match: {{ kind: up }} }}], interval: 20ms, timeout: 20s }}
  - id: once_run
    uses: command
    with: {{ argv: [sh, -c, "echo x >> once-run"], effect: {{ class: write, repeat: once }} }}
  - id: run_again
    uses: command
    with: {{ argv: [sh, -c, "echo x >> run-again"], effect: {{ class: write, repeat: repeatable }} }}
  - {{ id: sure, uses: confirm-prompt, with: {{ message: Go on?, phrases: [GO ON] }} }}
  - id: destroys
    uses: command
    waive: {{ RB0501: what is counted here can not be put back }}
    with: {{ argv: [sh, -c, "echo x >> destroyed"], effect: {{ class: destroy, repeat: repeatable, items: 5 }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        url = server.url
    );
    place.runbook("requests", &text);
    Box::new(Asked { place, server })
}

impl Asked {
    fn lines(&self, name: &str) -> u64 {
        fs::read_to_string(self.place.path(name)).unwrap_or_default().lines().count() as u64
    }

    /// How often each effect that may be repeated came about.
    fn repeatable(&self) -> Vec<(&'static str, u64)> {
        let deliveries = self.server.told(|told| told.deliveries.values().sum());
        let requests = ["checked", "repeatable"].map(|name| (name, self.server.done(name)));
        let runs = ["run-again", "destroyed"].map(|name| (name, self.lines(name)));
        requests.into_iter().chain(runs).chain([("told", deliveries)]).collect()
    }

    /// The same of those that may not, or that a look settles.
    fn single(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("once", self.server.done("once")),
            ("checked", self.server.done("checked")),
            ("once_run", self.lines("once-run")),
        ]
    }
}

impl World for Asked {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "requests.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        self.single().iter().any(|(name, count)| *name == step && *count > 0)
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.server.url.clone(), "SERVER".to_owned())]
    }

    fn picture(&self) -> Value {
        let there: Vec<(&str, bool)> = self
            .single()
            .into_iter()
            .chain(self.repeatable())
            .map(|(name, count)| (name, count > 0))
            .collect();
        json!({ "there": there, "deliveries": self.server.told(|told| told.deliveries.len()) })
    }

    fn wrong(&self, crashed_at: &[String]) -> Vec<String> {
        let crashes = crashed_at.len() as u64;
        let mut wrong = Vec::new();
        let twice = self.single().into_iter().filter(|(_, count)| *count > 1);
        wrong.extend(twice.map(|(name, count)| format!("`{name}` took effect {count} times")));
        let often = self.repeatable().into_iter().filter(|(_, count)| *count > 1 + crashes);
        wrong.extend(often.map(|(name, count)| format!("{count} times `{name}` in {crashes} crashes")));
        if self.server.told(|told| told.bad > 0) {
            wrong.push("a webhook was not signed".to_owned());
        }
        wrong
    }
}

#[test]
fn nothing_is_sent_twice_that_may_not_be_whatever_crashes() {
    explore(&Case { name: "requests", recovery: Recovery::Resume, make, stride: 3, second_stride: 211 });
}
