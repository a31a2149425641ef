//! A process that would go on with a run elsewhere, because a secret of its environment is another one.

use runbook_sandbox::redis::RedisServer;

use crate::place::{Place, Ran, asks, finished};

/// A runbook that asks and then empties the database that `CACHE_URL` names.
fn flushing() -> Place {
    let place = Place::new();
    let flush = "  - { id: flush, uses: redis-flush, waive: { RB0501: test }, with: { connection: cache, scope: database } }\n";
    let rest = format!(
        "secrets: {{ cache_url: {{ env: CACHE_URL }} }}\n\
         connections: {{ cache: {{ type: redis, url: \"${{{{ secrets.cache_url }}}}\" }} }}\n\
         limits: {{ max_items: 10 }}\nsteps:\n{}{flush}",
        asks("sure", "YES")
    );
    place.runbook("flush", &rest);
    place
}

#[tokio::test]
async fn what_was_confirmed_is_not_done_elsewhere() {
    let server = RedisServer::start().await.unwrap();
    let keys = async |database: u32| {
        server.run_in::<Vec<String>>(database, redis::cmd("KEYS").arg("*")).await.unwrap().len()
    };
    for database in [0, 1] {
        server.run_in::<()>(database, redis::cmd("SET").arg("a").arg("b")).await.unwrap();
    }
    let url = |database: u32| format!("{}/{database}", server.url().trim_end_matches("/0"));
    let place = flushing();
    let in_database = |database: u32, code: i32, args: &[&str]| -> Ran {
        let ran = finished(place.command(args).env("CACHE_URL", url(database)).output().unwrap());
        assert_eq!(ran.code, code, "{args:?}\n{}{}", ran.out, ran.err);
        ran
    };
    in_database(0, 5, &["exec", "flush.yaml"]);
    let run = in_database(0, 0, &["runs", "--json"]).out;
    let run = serde_json::from_str::<serde_json::Value>(&run).unwrap()[0]["id"].as_str().unwrap().to_owned();
    for args in [&["answer", &run, "YES"][..], &["resume", &run]] {
        let ran = in_database(1, 9, args);
        assert!(ran.err.contains("would work elsewhere than where it began"), "{}", ran.err);
        assert!(
            ran.err.contains("system `cache`: it") && ran.err.contains("nothing was done"),
            "{}",
            ran.err
        );
        assert_eq!((keys(0).await, keys(1).await), (1, 1));
    }
    in_database(0, 0, &["answer", &run, "YES"]);
    assert_eq!((keys(0).await, keys(1).await), (0, 1));

    // To end a run is not refused; it is told.
    in_database(0, 5, &["exec", "flush.yaml"]);
    let ran = in_database(1, 6, &["cancel"]);
    assert!(ran.err.contains("would work elsewhere"), "{}", ran.err);
    assert_eq!(keys(1).await, 1);
}
