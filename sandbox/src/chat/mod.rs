//! A stand-in of the chat API of gotong-royong, as far as attachments go: they are kept in a real S3 store, or in memory.

mod attachments;
mod failure;
mod link;
mod metrics;
mod storage;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::{
    Json, Router, middleware,
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{instrument::instrument, presign::Bucket, serve, time};
use failure::Failure;
use metrics::Metrics;

use storage::Storage;

pub(crate) use link::bearer;
pub use link::token;

/// Serve the attachments of a chat API on 127.0.0.1 until SIGTERM, or until standard input ends.
///
/// The environment is read once, at the start, with the defaults of the real API: APP_ENV (development), JWT_SECRET (no default),
/// CHAT_ATTACHMENT_STORAGE_BACKEND (auto, local or s3), CHAT_ATTACHMENT_S3_PREFIX (chat-attachments), S3_ENDPOINT, S3_BUCKET, S3_REGION,
/// S3_ACCESS_KEY, S3_SECRET_KEY. As in the real one, `auto` falls back to local storage when S3 does not answer, but not in production.
/// `GET /metrics` counts requests and failures. Standard error is the log: JSON records of where attachments are kept, and why.
///
/// Admin routes: POST|DELETE /__sandbox/faults, GET /__sandbox/requests.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 3000)]
    port: u16,
}

/// What every request handler needs.
struct Chat {
    secret: String,
    storage: Storage,
    metrics: Metrics,
}

/// Runs the server.
///
/// # Errors
/// When the environment does not hold what is needed, S3 is demanded and does not answer, or the port is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let var = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let secret = var("JWT_SECRET").context("JWT_SECRET is not set")?;
    let storage = storage(&var).await?;
    let backend = if matches!(storage, Storage::S3 { .. }) { "s3" } else { "local" };
    log("INFO", json!({ "message": "chat attachment storage is ready", "backend": backend }));
    let chat = Arc::new(Chat { secret, storage, metrics: Metrics::default() });
    let listener = serve::bind(args.port).await?;
    serve::announce(&listener)?;
    serve::until_released(listener, instrument(router(chat))).await
}

/// The storage that the environment asks for, as the real API finds it.
async fn storage(var: &impl Fn(&str) -> Option<String>) -> anyhow::Result<Storage> {
    let or = |name: &str, default: &str| var(name).unwrap_or_else(|| default.to_owned());
    let environment = or("APP_ENV", "development").trim().to_lowercase();
    let wanted = or("CHAT_ATTACHMENT_STORAGE_BACKEND", "auto");
    match wanted.as_str() {
        "local" => return Ok(Storage::local()),
        "auto" if environment == "test" => return Ok(Storage::local()),
        "auto" | "s3" => {}
        other => bail!("CHAT_ATTACHMENT_STORAGE_BACKEND is {other:?}: auto, local or s3"),
    }
    let prefix = or("CHAT_ATTACHMENT_S3_PREFIX", "chat-attachments");
    let prefix =
        Some(prefix.trim_matches('/')).filter(|prefix| !prefix.is_empty()).unwrap_or("chat-attachments");
    let bucket = Bucket {
        endpoint: or("S3_ENDPOINT", "http://127.0.0.1:9000").parse().context("S3_ENDPOINT is no URL")?,
        name: or("S3_BUCKET", "gotong-royong-evidence-dev"),
        region: or("S3_REGION", "us-east-1"),
        access_key: or("S3_ACCESS_KEY", "minioadmin"),
        secret_key: or("S3_SECRET_KEY", "minioadmin"),
    };
    match Storage::s3(bucket, format!("{prefix}/{environment}")).await {
        Ok(storage) => Ok(storage),
        Err(error) if wanted == "s3" || environment == "production" => {
            let told = format!("failed to initialize S3 chat attachment storage: {error:#}");
            log("ERROR", json!({ "message": told }));
            bail!(told)
        }
        Err(error) => {
            let told = "falling back to local chat attachment storage (set CHAT_ATTACHMENT_STORAGE_BACKEND=s3 to fail hard)";
            log("WARN", json!({ "message": told, "error": format!("{error:#}") }));
            Ok(Storage::local())
        }
    }
}

/// Writes a line of the log, as the `tracing` of the real API formats it as JSON.
#[expect(clippy::needless_pass_by_value, reason = "made for it")]
fn log(level: &str, fields: Value) {
    let target = "gotong_api::state";
    eprintln!("{}", json!({ "timestamp": time::now(), "level": level, "fields": fields, "target": target }));
}

fn router(chat: Arc<Chat>) -> Router {
    Router::new()
        .route(metrics::UPLOAD, post(attachments::upload))
        .route("/v1/chat/attachments/{attachment_id}/download", get(attachments::download))
        .layer(middleware::from_fn_with_state(Arc::clone(&chat), metrics::count))
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/metrics", get(metrics::show))
        .fallback(async || Failure::NotFound)
        .with_state(chat)
}
