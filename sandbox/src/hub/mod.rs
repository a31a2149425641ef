//! A stand-in of the API of a ring hub: it reads and writes a real PostgreSQL, and caches in a real Redis.

mod badges;
pub mod join;
mod key;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _, postgres::PgPoolOptions};
use tokio::time::timeout;

use crate::{instrument::instrument, serve, time};
pub(crate) use key::Key;

/// The tables of a hub, as SQL.
pub const SCHEMA: &str = include_str!("schema.sql");

/// How long a look at a system that a hub needs may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serve the API of a ring hub on 127.0.0.1 until SIGTERM, or until standard input ends.
///
/// The environment is read once, at the start: DATABASE_URL, REDIS_URL, RING_HUB_URL (the address it listens on),
/// INSTANCE_DID (did:web:localhost:3000), ROOT_RING_SLUG (spool), NODE_ENV, RING_HUB_PRIVATE_KEY (Base64 of a key of
/// Ed25519, PKCS#8 in PEM).
///
/// As in the real hub, a key that can not be read is replaced by one that is lost when the process ends; then, with
/// NODE_ENV=production, no badges are given. A request to join is signed for by naming a DID: `Signature keyId="did:…"`.
///
/// Admin routes: POST|DELETE /__sandbox/faults, GET /__sandbox/requests.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Serve the DID documents of the instance and of users too, which the real hub does not
    #[arg(long)]
    did_document: bool,
}

/// What every request handler needs.
struct Hub {
    pool: PgPool,
    redis: redis::Client,
    url: String,
    did: String,
    root: String,
    production: bool,
    key: Key,
}

type Shared = State<Arc<Hub>>;

/// A refusal, or a failure of a system.
struct Refusal(StatusCode, &'static str, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1, "message": self.2 }))).into_response()
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", error.to_string())
    }
}

fn not_found(what: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "Not found", format!("{what} not found"))
}

/// Runs the server.
///
/// # Errors
/// When the environment does not hold what is needed, or the port is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let var = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let database = var("DATABASE_URL").context("DATABASE_URL is not set")?;
    let cache = var("REDIS_URL").context("REDIS_URL is not set")?;
    let listener = serve::bind(args.port).await?;
    let (key, why) = Key::load(var("RING_HUB_PRIVATE_KEY").as_deref())?;
    if let Some(why) = why {
        let told =
            format!("RING_HUB_PRIVATE_KEY can not be used ({why}): a key is made for this process only");
        eprintln!("{}", json!({ "ts": time::now(), "level": "warn", "msg": told }));
    }
    let hub = Arc::new(Hub {
        pool: PgPoolOptions::new()
            .acquire_timeout(PATIENCE)
            .connect_lazy(&database)
            .context("DATABASE_URL is unusable")?,
        redis: redis::Client::open(cache).context("REDIS_URL is unusable")?,
        url: var("RING_HUB_URL").unwrap_or(format!("http://{}", listener.local_addr()?)),
        did: var("INSTANCE_DID").unwrap_or_else(|| "did:web:localhost:3000".to_owned()),
        root: var("ROOT_RING_SLUG").unwrap_or_else(|| "spool".to_owned()),
        production: var("NODE_ENV").as_deref() == Some("production"),
        key,
    });
    if !hub.key.ephemeral
        && let Err(error) = badges::sign_all(&hub).await
    {
        eprintln!(
            "{}",
            json!({ "ts": time::now(), "level": "warn", "msg": format!("badges were not signed anew: {error}") })
        );
    }
    serve::announce(&listener)?;
    serve::until_released(listener, instrument(router(hub, args.did_document))).await
}

fn router(hub: Arc<Hub>, did_document: bool) -> Router {
    let documents = Router::new()
        .route("/.well-known/did.json", get(document))
        .route("/users/{hash}/did.json", get(user_document));
    let routes = if did_document { documents } else { Router::new() };
    routes
        .route("/health", get(async || Json(json!({ "status": "ok", "timestamp": time::now() }))))
        .route("/health/live", get(async || Json(json!({ "status": "live" }))))
        .route("/health/ready", get(ready))
        .route("/trp/rings/{slug}", get(ring))
        .route("/trp/root", get(root))
        .route("/trp/stats", get(stats))
        .route("/trp/join", post(badges::join))
        .route("/trp/badges/{id}", get(badges::badge))
        .route("/trp/badges/{id}/verify", post(badges::verify))
        .fallback(async || not_found("Route"))
        .with_state(hub)
}

async fn ready(State(hub): Shared) -> Response {
    let database = timeout(PATIENCE, sqlx::query("select 1").fetch_one(&hub.pool)).await;
    let database = matches!(database, Ok(Ok(_)));
    let pinged = timeout(PATIENCE, async {
        let mut connection = hub.redis.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    });
    let cache = matches!(pinged.await, Ok(Ok(_)));
    let (status, word) = if database && cache {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    (status, Json(json!({ "status": word, "checks": { "database": database, "redis": cache } })))
        .into_response()
}

async fn document(State(hub): Shared) -> Json<Value> {
    let key = json!({ "id": format!("{}#key", hub.did), "type": "JsonWebKey2020", "controller": hub.did, "publicKeyJwk": hub.key.jwk() });
    Json(json!({ "id": hub.did, "verificationMethod": [key] }))
}

/// Of whatever user: the hub keeps no keys of theirs, and speaks for them with its own.
async fn user_document(State(hub): Shared, Path(hash): Path<String>) -> Json<Value> {
    let did = format!("{}:users:{hash}", hub.did);
    let key = json!({ "id": format!("{did}#key"), "type": "JsonWebKey2020", "controller": hub.did, "publicKeyJwk": hub.key.jwk() });
    Json(json!({ "id": did, "verificationMethod": [key] }))
}

async fn ring(State(hub): Shared, Path(slug): Path<String>) -> Result<Json<Value>, Refusal> {
    read_ring(&hub, &slug).await
}

async fn root(State(hub): Shared) -> Result<Json<Value>, Refusal> {
    read_ring(&hub, &hub.root).await
}

async fn read_ring(hub: &Hub, slug: &str) -> Result<Json<Value>, Refusal> {
    let sql = r#"select (to_jsonb(r) || jsonb_build_object(
            'memberCount', (select count(*) from "Membership" m where m."ringId" = r.id and m.status = 'ACTIVE'),
            'postCount', (select count(*) from "PostRef" p where p."ringId" = r.id and p.status = 'ACCEPTED'),
            'children', (select coalesce(jsonb_agg(c.slug order by c.slug), '[]') from "Ring" c where c."parentId" = r.id)
        ))::text from "Ring" r where r.slug = $1"#;
    one(hub, sql, slug).await?.map(Json).ok_or_else(|| not_found("Ring"))
}

async fn stats(State(hub): Shared) -> Result<Json<Value>, Refusal> {
    let sql = r#"select jsonb_build_object('totalRings', (select count(*) from "Ring"), 'totalActors', (select count(*) from "Actor"),
        'activeMemberships', (select count(*) from "Membership" where status = 'ACTIVE'))::text where $1 = ''"#;
    Ok(Json(one(&hub, sql, "").await?.unwrap_or_default()))
}

/// The JSON that a query with one parameter gives as a text, if it gives one.
async fn one(hub: &Hub, sql: &'static str, parameter: &str) -> Result<Option<Value>, sqlx::Error> {
    let row = sqlx::query(sql).bind(parameter).fetch_optional(&hub.pool).await?;
    Ok(row.and_then(|row| serde_json::from_str(row.get::<&str, _>(0)).ok()))
}
