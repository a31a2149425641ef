//! The stand-in of the hub, on a real PostgreSQL and a real Redis.

use reqwest::{Client, StatusCode};
use runbook_sandbox::database::{DatabaseServer, Kind};
use runbook_sandbox::hub::SCHEMA;
use runbook_sandbox::redis::RedisServer;
use runbook_sandbox::{Api, sandbox_binary};
use serde_json::{Value, json};

const RING: &str = r#"insert into "Ring" (id, slug, name, "updatedAt", "ownerDid") values ('r1', 'spool', 'The Spool', now(), 'did:web:hub');
    insert into "RingRole" (id, "ringId", name, permissions) values ('o1', 'r1', 'member', '["post_content"]')"#;

/// A hub as a process.
struct Hub(Api);

impl Hub {
    async fn start(database: &DatabaseServer, cache: &RedisServer, more: &[(&str, &str)]) -> Self {
        let (database, cache) = (database.url(), cache.url());
        let own = [("DATABASE_URL", database.as_ref()), ("REDIS_URL", cache.as_ref())];
        let named = [("RING_HUB_URL", "https://hub.example"), ("INSTANCE_DID", "did:web:hub")];
        let all = [&own, &named, more].concat();
        Self(Api::start(&sandbox_binary().unwrap(), "hub-api", &all).await.unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = Client::new().get(format!("{}{path}", self.0.url)).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn join(&self, did: &str) -> (StatusCode, Value) {
        let request =
            Client::new().post(format!("{}/trp/join", self.0.url)).json(&json!({ "ringSlug": "spool" }));
        let answer = request.header("Signature", format!("keyId=\"{did}#key\"")).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn is_valid(&self, badge: &str) -> bool {
        let mut url: reqwest::Url = self.0.url.parse().unwrap();
        url.path_segments_mut().unwrap().extend(["trp", "badges", badge, "verify"]);
        let answer: Value = Client::new().post(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["issuer"], "did:web:hub", "{answer}");
        answer["isValid"].as_bool().unwrap()
    }

    async fn end(mut self) {
        self.0.kill().await.unwrap();
    }
}

async fn servers() -> (DatabaseServer, RedisServer) {
    (DatabaseServer::start(Kind::Postgres).await.unwrap(), RedisServer::start().await.unwrap())
}

/// A key as OpenSSL makes it: as it is, and in Base64.
fn key() -> (String, String) {
    let sh = |script: &str| {
        let run = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
        String::from_utf8(run.stdout).unwrap()
    };
    let pem = sh("openssl genpkey -algorithm Ed25519");
    let encoded = sh(&format!("printf '%s' '{pem}' | base64 -w0"));
    assert!(pem.contains("PRIVATE KEY") && !encoded.is_empty());
    (pem, encoded)
}

#[tokio::test]
async fn a_ring_is_what_the_database_says() {
    let (database, mut cache) = servers().await;
    let hub = Hub::start(&database, &cache, &[]).await;
    // Nothing is in the database: alive and ready all the same, and the ring can not be read.
    assert_eq!(hub.get("/health").await.1["status"], "ok");
    let ready = json!({ "status": "ready", "checks": { "database": true, "redis": true } });
    assert_eq!(hub.get("/health/ready").await, (StatusCode::OK, ready));
    assert_eq!(hub.get("/trp/rings/spool").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    database.execute(SCHEMA).await.unwrap();
    let missing = json!({ "error": "Not found", "message": "Ring not found" });
    assert_eq!(hub.get("/trp/rings/spool").await, (StatusCode::NOT_FOUND, missing));
    database.execute(RING).await.unwrap();
    let (status, ring) = hub.get("/trp/rings/spool").await;
    assert_eq!(
        (status, &ring["ownerDid"], &ring["parentId"]),
        (StatusCode::OK, &json!("did:web:hub"), &Value::Null)
    );
    assert_eq!(
        (&ring["memberCount"], &ring["visibility"], &ring["children"]),
        (&json!(0), &json!("PUBLIC"), &json!([]))
    );

    let unsigned =
        Client::new().post(format!("{}/trp/join", hub.0.url)).json(&json!({ "ringSlug": "spool" }));
    assert_eq!(unsigned.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let (status, joined) = hub.join("did:web:ada").await;
    assert_eq!((status, &joined["membership"]["role"]), (StatusCode::CREATED, &json!("member")));
    assert_eq!(hub.join("did:web:ada").await.0, StatusCode::CONFLICT);
    assert_eq!(hub.get("/trp/rings/spool").await.1["memberCount"], 1);
    let stats = json!({ "totalRings": 1, "totalActors": 1, "activeMemberships": 1 });
    assert_eq!(hub.get("/trp/stats").await.1, stats);
    let left: i64 = cache.run_in(0, redis::cmd("TTL").arg("did:did:web:ada")).await.unwrap();
    assert!((1..=3600).contains(&left), "{left}");
    // Without its cache it is alive and not ready.
    cache.kill();
    let (status, checks) = hub.get("/health/ready").await;
    assert_eq!(
        (status, &checks["checks"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!({ "database": true, "redis": false }))
    );
    assert_eq!(hub.get("/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_badge_survives_a_restart_with_a_key_of_the_right_form_only() {
    let (database, cache) = servers().await;
    database.execute(SCHEMA).await.unwrap();
    database.execute(RING).await.unwrap();
    let (pem, encoded) = key();
    let good = [("RING_HUB_PRIVATE_KEY", encoded.as_str()), ("NODE_ENV", "production")];
    let raw = [("RING_HUB_PRIVATE_KEY", pem.as_str())];

    // The raw PEM is taken for no key: a badge is given, and is worth nothing after a restart.
    let hub = Hub::start(&database, &cache, &raw).await;
    assert!(hub.0.said.contains("is made for this process only"), "{}", hub.0.said);
    let badge = hub.join("did:web:ada").await.1["badge"]["id"].as_str().unwrap().to_owned();
    assert!(badge.starts_with("https://hub.example/badges/") && hub.is_valid(&badge).await);
    hub.end().await;
    let hub = Hub::start(&database, &cache, &raw).await;
    assert!(!hub.is_valid(&badge).await);
    hub.end().await;
    // In production none is given.
    let hub = Hub::start(&database, &cache, &[raw[0], ("NODE_ENV", "production")]).await;
    let (status, joined) = hub.join("did:web:bob").await;
    assert_eq!((status, &joined["badge"]), (StatusCode::CREATED, &Value::Null));
    hub.end().await;
    // With a key of the right form all badges are signed anew, and stay so.
    for _ in 0..2 {
        let hub = Hub::start(&database, &cache, &good).await;
        assert!(!hub.0.said.contains("RING_HUB_PRIVATE_KEY") && hub.is_valid(&badge).await, "{}", hub.0.said);
        hub.end().await;
    }
    let hub = Hub::start(&database, &cache, &good).await;
    let lasting = hub.join("did:web:eve").await.1["badge"]["id"].as_str().unwrap().to_owned();
    hub.end().await;
    let hub = Hub::start(&database, &cache, &good).await;
    assert!(hub.is_valid(&lasting).await);
}

#[test]
fn a_command_beside_the_hub_controls_its_services() {
    let script = r#"
        set -e
        s="$0"
        $s status hub-api
        $s inside hub-api printenv ROOT_RING_SLUG
        $s inside hub-api sh -c 'psql -XtA --dbname="$DATABASE_URL" -c "select count(*) from \"Membership\""'
        $s stop hub-api redis
        $s status hub-api
        $s inside hub-api true 2>/dev/null || echo "not inside"
        $s set hub-api ROOT_RING_SLUG 'no such ring'
        $s start hub-api redis
        $s start redis
        $s inside hub-api printenv ROOT_RING_SLUG
        curl -s "$HUB_API_URL/trp/root"; echo
        redis-cli -u "$REDIS_URL" dbsize
        redis-cli -u "$REDIS_URL" flushall
        $s restart redis
        redis-cli -u "$REDIS_URL" dbsize
        $s join --url "$HUB_API_URL" --slug spool --did did:web:ada > /dev/null
        $s join --url "$HUB_API_URL" --slug spool --did did:web:ada
        $s set hub-api ROOT_RING_SLUG
        $s restart hub-api
        $s inside hub-api printenv ROOT_RING_SLUG || echo "not set"
        $s restart nothing || exit 3"#;
    let output = std::process::Command::new(sandbox_binary().unwrap())
        .args(["hub", "--", "sh", "-c", script])
        .arg(sandbox_binary().unwrap())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
    let told: Vec<&str> = said[0].lines().collect();
    let expected = [
        "running",
        "spool",
        "40",
        "stopped",
        "not inside",
        "no such ring",
        r#"{"error":"Not found","message":"Ring not found"}"#,
        "1",
        "OK",
        "0",
        r#"{"error":"Conflict","message":"already a member of this ring"}"#,
        "not set",
    ];
    assert_eq!(told, expected, "{}", said[1]);
    assert!(
        output.status.code() == Some(3) && said[1].contains("no service nothing: redis or hub-api"),
        "{said:?}"
    );
}
