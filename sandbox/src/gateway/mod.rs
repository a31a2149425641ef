//! A stand-in of the ChatKit gateway: sessions, uploads, downloads, and the attachment cleanup job.

mod cleanup;
mod config;
mod download;
mod events;
mod failure;
mod records;
mod sessions;
mod store_client;
mod upload;

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

pub use config::Profile;
pub(crate) use records::{BLOBS, CORPUS, METADATA};

use crate::{instrument::instrument, serve, time};
use config::Config;
use failure::Failure;
use sessions::Sessions;
use store_client::StoreClient;

/// Requests larger than this are refused before anything else looks at them, in bytes.
const REQUEST_LIMIT: usize = 512 * 1024 * 1024;

/// Serve a ChatKit gateway stand-in on 127.0.0.1 until SIGTERM, or until standard input ends.
///
/// The environment is read once, at the start:
/// CHATKIT_ATTACHMENT_MAX_MB (25), CHATKIT_ATTACHMENT_ALLOWED_MIME_TYPES, CHATKIT_ATTACHMENT_TTL_HOURS (24),
/// CHATKIT_ATTACHMENT_CLEANUP_INTERVAL_MINUTES (15), CHATKIT_ATTACHMENT_CLEANUP_BATCH_SIZE (100),
/// GATEWAY_ENABLE_GUARDIAN (1), FOUNTAINSTORE_URL (http://127.0.0.1:8005), FOUNTAINSTORE_API_KEY,
/// SANDBOX_PROFILE (documented, or wire), SANDBOX_SESSION_TTL_SECONDS (900).
/// As in the real gateway, a size or time that is 0, negative or no number counts as unset.
///
/// Structured events go to standard output, access lines to standard error. Admin routes:
/// POST|DELETE /__sandbox/faults, GET /__sandbox/requests.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port to listen on; 0 takes a free one [default: GATEWAY_PORT, else PORT, else 8010]
    #[arg(long)]
    port: Option<u16>,
}

/// What every request handler needs.
struct Gateway {
    config: Config,
    sessions: Sessions,
    store: StoreClient,
}

type Shared = State<Arc<Gateway>>;

/// Runs the server.
///
/// # Errors
/// When the environment does not hold what is needed, or the port is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::from_env(&|name| std::env::var(name).ok())?;
    let port = match args.port {
        Some(port) => port,
        None => port_from_env()?,
    };
    let gateway = Arc::new(Gateway {
        sessions: Sessions::new(config.session_ttl),
        store: StoreClient::new(&config.store_url, &config.store_key)?,
        config,
    });
    tokio::spawn(cleanup::run(Arc::clone(&gateway)));
    let listener = serve::bind(port).await?;
    serve::announce(&listener)?;
    let router = instrument(router(gateway)).layer(middleware::from_fn(access_log));
    serve::until_released(listener, router).await
}

fn port_from_env() -> anyhow::Result<u16> {
    match std::env::var("GATEWAY_PORT").or_else(|_| std::env::var("PORT")) {
        Ok(text) => text.parse().with_context(|| format!("not a port: {text}")),
        Err(_) => Ok(8010),
    }
}

fn router(gateway: Arc<Gateway>) -> Router {
    let guardian = gateway.config.guardian;
    let router = Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/chatkit/session", post(sessions::create))
        .route("/chatkit/session/refresh", post(sessions::refresh))
        .route("/chatkit/upload", post(upload::upload))
        .route("/chatkit/attachments/{attachment_id}", get(download::download))
        .fallback(async || Failure::new(StatusCode::NOT_FOUND, "not_found", "no such route"))
        .layer(DefaultBodyLimit::max(REQUEST_LIMIT))
        .with_state(gateway);
    if guardian { router.layer(middleware::from_fn(guard)) } else { router }
}

/// The guardian persona: nothing destructive passes through the gateway.
async fn guard(request: Request, next: Next) -> Response {
    let destructive = [Method::DELETE, Method::PUT, Method::PATCH].contains(request.method());
    if destructive && !request.uri().path().starts_with("/__sandbox/") {
        return (StatusCode::FORBIDDEN, Json(json!({ "error": "guardian" }))).into_response();
    }
    next.run(request).await
}

/// One line per request on standard error. The path includes the query, as in the real gateway: whatever a
/// client puts there, its secret too, ends up in the log.
async fn access_log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().to_string();
    let path = request.uri().path_and_query().map_or_else(|| "/".into(), ToString::to_string);
    let response = next.run(request).await;
    let millis = started.elapsed().as_secs_f64() * 1000.0;
    eprintln!(
        "{}",
        json!({
            "ts": time::now(), "evt": "http_access", "method": method, "path": path,
            "status": response.status().as_u16(), "duration_ms": (millis * 1000.0).round() / 1000.0,
        })
    );
    response
}
