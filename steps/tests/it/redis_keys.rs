//! Connections of type `redis` and collections of type `redis-keys`, on a real server.

use std::sync::Arc;
use std::time::Duration;

use redis::{Value as Answer, cmd, pipe};
use runbook_engine::error::{ErrorKind, Outcome};
use runbook_sandbox::redis::RedisServer;
use runbook_steps::collections::{Collection, Doomed, KeyOutcome};
use runbook_steps::connections::redis::{Redis, RedisConnection};
use runbook_steps::kind::ConnectionKind as _;
use serde_json::{Value, json};

use crate::certificates::certificates;
use crate::collections::{doomed, every, keys, open};
use crate::common::Bench;

/// The keys of a database that fit a pattern.
pub async fn keys_of(server: &RedisServer, pattern: &str) -> (Bench, Arc<dyn Collection>) {
    let connections = json!({ "cache": { "type": "redis", "url": server.url() } });
    open(connections, json!({ "type": "redis-keys", "connection": "cache", "pattern": pattern })).await
}

/// Runs commands, a line each.
pub async fn run(server: &RedisServer, lines: &str) {
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let mut command = cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        server.run_in::<Answer>(0, &command).await.unwrap();
    }
}

async fn number(server: &RedisServer, line: &str) -> i64 {
    let mut words = line.split_whitespace();
    let mut command = cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    server.run_in(0, &command).await.unwrap()
}

#[tokio::test]
async fn every_type_comes_back_with_its_expiry() {
    let server = RedisServer::start().await.unwrap();
    run(
        &server,
        "SET k:text value
         SET k:brief soon PXAT 4102444800123
         RPUSH k:list a b a
         ZADD k:ranked 1.5 a -inf b
         XADD k:stream 1-1 field value
         HSET k:hash a 1 b 2
         SADD k:set x y 3",
    )
    .await;
    // Large enough to be kept as tables, which have no order.
    for at in 0..2000 {
        run(&server, &format!("SADD k:many m{at}\nHSET k:wide f{at} v{at}")).await;
    }
    let (_bench, collection) = keys_of(&server, "k:*").await;
    let all = every(&*collection).await;
    assert_eq!(all.len(), 9);
    let brief = all.iter().find(|item| item.key == "k:brief").unwrap();
    assert_eq!(
        (&brief.record["type"], &brief.record["expires_at_ms"]),
        (&json!("string"), &json!(4_102_444_800_123_u64))
    );
    // Reading and looking may change how a table is laid out, and is no change.
    for at in 0..2000 {
        assert_eq!(number(&server, &format!("SISMEMBER k:many m{at}")).await, 1);
    }
    let ends = collection.delete(&all.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ends, vec![KeyOutcome::Done; 9]);
    assert_eq!(number(&server, "DBSIZE").await, 0);
    assert_eq!(collection.put(&all).await.unwrap(), vec![KeyOutcome::Done; 9]);
    assert_eq!(every(&*collection).await.len(), 9);
    assert_eq!(number(&server, "PEXPIRETIME k:brief").await, 4_102_444_800_123);
    assert_eq!(number(&server, "PEXPIRETIME k:text").await, -1);
    assert_eq!(number(&server, "HLEN k:wide").await + number(&server, "SCARD k:many").await, 4000);
    assert_eq!(number(&server, "XLEN k:stream").await + number(&server, "LLEN k:list").await, 4);
    // What is there as it was needs nothing, and what is another one is left.
    run(&server, "SET k:text other").await;
    let ends = collection.put(&all).await.unwrap();
    let (left, rest): (Vec<_>, Vec<_>) = ends.iter().partition(|end| matches!(end, KeyOutcome::Failed(_)));
    assert_eq!((left.len(), rest), (1, vec![&KeyOutcome::Already; 8]), "{ends:?}");
}

#[tokio::test]
async fn a_key_that_changed_in_any_way_is_left() {
    let server = RedisServer::start().await.unwrap();
    let whole = "SADD k:1 a b
                 SET k:2 v
                 HSET k:3 a 1
                 SET k:4 v EX 1000
                 SET k:5 v
                 RPUSH k:6 a
                 SET other v";
    run(&server, whole).await;
    let (_bench, collection) = keys_of(&server, "k:*").await;
    let all = every(&*collection).await;
    run(
        &server,
        "SADD k:1 c
         EXPIRE k:2 1000
         HSET k:3 a 2
         PERSIST k:4
         DEL k:6
         SET k:6 a",
    )
    .await;
    let mut going: Vec<Doomed> = all.iter().map(doomed).collect();
    going.push(Doomed::whatever("other"));
    let ends = collection.delete(&going).await.unwrap();
    let told = |end: &KeyOutcome| match end {
        KeyOutcome::Failed(error) => format!("{}: {}", error.kind.name(), error.message),
        end => format!("{end:?}"),
    };
    let told: Vec<_> = ends.iter().map(told).collect();
    for (told, said) in told.iter().zip([
        "another value",
        "expires at another time",
        "another value",
        "expires at another time",
        "Done",
        "it was a list and is a string",
        "refused: `other` does not fit the pattern",
    ]) {
        assert!(told.contains(said), "{told}");
    }
    assert_eq!(number(&server, "DBSIZE").await, 6);
    // The one that expired by itself meanwhile needs nothing, neither deleted nor put back.
    run(&server, "SET k:brief v PX 40").await;
    let brief = collection.read("k:brief").await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(collection.delete(&[doomed(&brief)]).await.unwrap(), [KeyOutcome::Already]);
    assert_eq!(collection.put(&[brief]).await.unwrap(), [KeyOutcome::Already]);
}

/// A server that grows and shrinks its table lists keys twice, and in another order each time.
#[tokio::test]
async fn a_scan_of_a_table_that_is_laid_out_anew_sees_each_key_once() {
    let server = RedisServer::start().await.unwrap();
    let mut stable = pipe();
    (0..1000).for_each(|at| {
        stable.cmd("SET").arg(format!("stay:{at}")).arg(at).ignore();
    });
    let mut connection = server.connect(0).await.unwrap();
    stable.query_async::<()>(&mut connection).await.unwrap();
    let churn = tokio::spawn(async move {
        for round in 0.. {
            let (mut grow, mut shrink) = (pipe(), pipe());
            (0..4000).for_each(|at| {
                grow.cmd("SET").arg(format!("noise:{round}:{at}")).arg(0).ignore();
                shrink.cmd("DEL").arg(format!("noise:{round}:{at}")).ignore();
            });
            grow.query_async::<()>(&mut connection).await.unwrap();
            shrink.query_async::<()>(&mut connection).await.unwrap();
        }
    });
    let (_bench, collection) = keys_of(&server, "stay:*").await;
    for _ in 0..3 {
        assert_eq!(collection.count().await.unwrap(), 1000);
        let all = keys(&every(&*collection).await);
        let mut wanted: Vec<_> = (0..1000).map(|at| format!("stay:{at}")).collect();
        wanted.sort();
        assert_eq!(all, wanted);
    }
    churn.abort();
}

#[tokio::test]
async fn a_key_that_went_otherwise_than_by_expiring_has_moved() {
    let server = RedisServer::start().await.unwrap();
    run(&server, "SET a 1\nSET b 2\nSET c 3 PX 200\nSET d 4").await;
    let (_bench, collection) = keys_of(&server, "*").await;
    let first = collection.scan(None, 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let page = collection.scan(first.next.as_ref(), 2).await.unwrap();
    assert_eq!((keys(&page.items), page.moved), (vec!["b".to_owned(), "d".to_owned()], false));
    let first = collection.scan(None, 1).await.unwrap();
    run(&server, "RENAME b z").await;
    assert!(collection.scan(first.next.as_ref(), 5).await.unwrap().moved);
    // Another process goes on from the same place with a listing of its own.
    let (_bench, other) = keys_of(&server, "*").await;
    let page = other.scan(first.next.as_ref(), 5).await.unwrap();
    assert_eq!((keys(&page.items), page.moved), (vec!["d".to_owned(), "z".to_owned()], false));
}

#[tokio::test]
async fn patterns_and_names_are_those_of_the_server() {
    let server = RedisServer::start().await.unwrap();
    let names: [&[u8]; 9] =
        [b"a", b"ab", b"a*b", b"a]b", b"a-b", b"\xff\xfe", b"back\\slash", "é".as_bytes(), b"["];
    for name in names {
        server.run_in::<()>(0, cmd("SET").arg(name).arg(1)).await.unwrap();
    }
    let patterns = [
        "*", "a*", "a?b", "a[*-]b", "a[^*]b", r"a\*b", "[a", "[^a]*", "a[]-]b", r"*\\*", "??", "[z-a]", "[",
        "\\[",
    ];
    for pattern in patterns {
        let (_bench, collection) = keys_of(&server, pattern).await;
        let found = keys(&every(&*collection).await);
        // What the server listed is what is taken for a key of the collection, and nothing else is.
        let (_bench, all) = keys_of(&server, "*").await;
        for key in keys(&every(&*all).await) {
            let ours = collection.read(&key).await.is_ok_and(|item| item.is_some());
            assert_eq!(ours, found.contains(&key), "{pattern} {key}");
        }
    }
    let (_bench, collection) = keys_of(&server, "*").await;
    let all = every(&*collection).await;
    assert!(keys(&all).contains(&r"\xff\xfe".to_owned()) && keys(&all).contains(&r"back\\slash".to_owned()));
    let ends = collection.delete(&all.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ends, vec![KeyOutcome::Done; 9]);
    collection.put(&all).await.unwrap();
    assert_eq!(every(&*collection).await, all);
}

fn client(settings: Value) -> Redis {
    let connection: RedisConnection = serde_json::from_value(settings).unwrap();
    let vault: Arc<dyn runbook_steps::kind::Vault> = Arc::new(runbook_steps::kind::NoVault);
    let redactor = runbook_engine::redact::Redactor::default();
    connection
        .open(&runbook_steps::kind::OpenContext { name: "cache", redactor: &redactor, vault: &vault })
        .unwrap()
}

async fn identity(settings: Value) -> String {
    RedisConnection::identity(&client(settings)).await.unwrap().words().to_owned()
}

#[tokio::test]
async fn a_server_is_known_again_by_its_id_or_by_its_address() {
    let mut server = RedisServer::start().await.unwrap();
    let by_server = json!({ "url": server.url(), "database": 2 });
    let by_address = json!({ "url": server.url(), "database": 2, "identity": "address" });
    let before = (identity(by_server.clone()).await, identity(by_address.clone()).await);
    assert!(before.0.ends_with(&format!("{}/2", server.url())), "{before:?}");
    assert_eq!(before.0, identity(by_server.clone()).await);
    let lasting = client(by_server.clone());
    let known = RedisConnection::identity(&lasting).await.unwrap();
    server.restart().await.unwrap();
    // The connection is lost: that is told, and the next command has a new one.
    let error = RedisConnection::identity(&lasting).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::Transient, Outcome::Unknown), "{error}");
    assert_ne!(RedisConnection::identity(&lasting).await.unwrap(), known);
    let after = (identity(by_server).await, identity(by_address).await);
    assert!(before.0 != after.0 && before.1 == after.1, "{before:?} {after:?}");
}

#[tokio::test]
async fn what_can_not_work_is_told_apart() {
    let mut server =
        RedisServer::start_with(&["--requirepass", "hunter2", "--databases", "4"]).await.unwrap();
    let fails = async |settings: Value| client(settings).ask("asking", &cmd("PING")).await.unwrap_err();
    let url = server.url();
    for (settings, kind, said) in [
        (json!({ "url": url }), ErrorKind::Refused, "NOAUTH"),
        (json!({ "url": url, "password": "hunter3" }), ErrorKind::Refused, "uthentication"),
        (json!({ "url": url, "user": "ada", "password": "hunter2" }), ErrorKind::Refused, "uthentication"),
        (json!({ "url": url, "password": "hunter2", "database": 9 }), ErrorKind::Refused, "DB index"),
    ] {
        let error = fails(settings).await;
        let told = format!("{error} {:?} {:?}", error.causes, error.help);
        assert!(error.kind == kind && told.contains(said) && !told.contains("hunter"), "{error:?}");
        assert_eq!(error.outcome, Outcome::Failed);
    }
    let good = client(json!({ "url": url, "password": "hunter2", "timeout": "300ms" }));
    good.ask("asking", &cmd("PING")).await.unwrap();
    // No answer in time: nobody knows.
    let error = good.ask("waiting", cmd("BLPOP").arg("none").arg(2)).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::Transient, Outcome::Unknown), "{error}");
    good.ask("asking", &cmd("PING")).await.unwrap();
    server.kill();
    let error = fails(json!({ "url": url, "password": "hunter2" })).await;
    assert_eq!((error.kind, error.outcome), (ErrorKind::Transient, Outcome::Failed), "{error}");

    let node = RedisServer::start_with(&["--cluster-enabled", "yes"]).await.unwrap();
    let error = fails(json!({ "url": node.url() })).await;
    assert!(error.kind == ErrorKind::Refused && error.message.contains("a node of a cluster"), "{error}");
}

#[tokio::test]
async fn an_encrypted_server_is_known_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let [ca, cert, key] = certificates(folder.path());
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    drop(plain);
    let options = ["--tls-port", &port.to_string(), "--tls-cert-file", &cert, "--tls-key-file", &key];
    let _server =
        RedisServer::start_with(&[&options[..], &["--tls-ca-cert-file", &ca]].concat()).await.unwrap();
    let url = format!("rediss://127.0.0.1:{port}");
    let named = json!({ "url": url, "tls_root_cert": ca, "tls_cert": cert, "tls_key": key });
    client(named.clone()).ask("asking", &cmd("PING")).await.unwrap();
    let mut unknown = named.clone();
    unknown.as_object_mut().unwrap().remove("tls_root_cert");
    let error = client(unknown).ask("asking", &cmd("PING")).await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("certificate"), "{error:?}");
    let mut another = named;
    another["url"] = json!(format!("rediss://localhost:{port}"));
    let error = client(another).ask("asking", &cmd("PING")).await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("certificate"), "{error:?}");
}
