//! Keys of a Redis server: listed, confirmed, deleted in batches, and the rest of the database flushed.

use std::path::PathBuf;
use std::process::Output;

use redis::{cmd, pipe};
use runbook_sandbox::redis::RedisServer;
use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// How many keys are deleted, in batches of 3, and how many are flushed.
const DELETED: u64 = 7;
const FLUSHED: u64 = 5;

struct Keys {
    place: Place,
    server: RedisServer,
}

fn make() -> Box<dyn World> {
    let (place, server) = (Place::new(), RUNTIME.block_on(RedisServer::start()).unwrap());
    let mut commands = pipe();
    (0..DELETED).for_each(|at| {
        commands.cmd("SET").arg(format!("did:{at}")).arg("value").ignore();
    });
    (0..FLUSHED).for_each(|at| {
        commands.cmd("HSET").arg(format!("other:{at}")).arg("a").arg(1).ignore();
    });
    RUNTIME.block_on(async {
        let mut connection = server.connect(0).await.unwrap();
        commands.query_async::<()>(&mut connection).await.unwrap();
    });
    let text = format!(
        r#"connections:
  cache: {{ type: redis, url: "{}" }}
collections:
  dids: {{ type: redis-keys, connection: cache, pattern: "did:*" }}
limits: {{ max_items: {}, max_percent: 100, max_errors: 0 }}
lock: keys
steps:
  - {{ id: listed, uses: snapshot, with: {{ collection: dids }} }}
  - {{ id: confirm, uses: confirm-prompt, with: {{ message: Delete them?, phrases: [DELETE] }} }}
  - id: purge
    uses: delete-batch
    with: {{ collections: [dids], keys: "${{{{ steps.listed.outputs.manifest }}}}", batch_size: 3 }}
  - {{ id: clear, uses: redis-flush, with: {{ connection: cache }} }}
  - {{ id: after, uses: count, with: {{ collections: dids, expect: 0 }} }}
  - {{ id: empty, uses: redis-info, with: {{ connection: cache, scope: all, expect: 0 }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        server.url(),
        DELETED + FLUSHED,
    );
    place.runbook("keys", &text);
    Box::new(Keys { place, server })
}

impl World for Keys {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.place, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "keys.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![
            (self.place.path("").display().to_string(), "WORLD/".to_owned()),
            (self.server.url(), "SERVER".to_owned()),
        ]
    }

    /// Each world has a server of its own.
    fn is_drawn(&self, member: &str) -> bool {
        ["server", "run_id"].contains(&member)
    }

    fn picture(&self) -> Value {
        let mut keys: Vec<String> = RUNTIME.block_on(self.server.run_in(0, cmd("KEYS").arg("*"))).unwrap();
        keys.sort();
        json!({ "keys": keys })
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn keys_go_once_and_the_rest_is_flushed() {
    explore(&Case { name: "keys of Redis", recovery: Recovery::Resume, make, stride: 3, second_stride: 97 });
}
