//! A stand-in of the image API of real-staging, as far as its reconciler goes: rows in a real PostgreSQL, files in a real S3 store.
//!
//! It reconciles as the real one does, mistakes and all: one page and never the next, every error of the store is a missing file, the bucket of an
//! `s3://` URL is taken for a host and the first folder of its key for the bucket, images in error are looked at again, and an update
//! does not ask what the row is by then.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _, postgres::PgPoolOptions};

use crate::{chat, instrument::instrument, presign::Bucket, serve};

/// How long a request to the store, or to get a connection, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a link to the store lasts, in seconds.
const LINK_SECONDS: u32 = 60;

/// How many images one answer names.
const EXAMPLES: usize = 10;

/// Serve the reconciler of an image API on 127.0.0.1 until SIGTERM, or until standard input ends.
///
/// The environment is read once, at the start: DATABASE_URL, S3_ENDPOINT, S3_BUCKET_NAME (real-staging), S3_REGION (us-west-1), S3_ACCESS_KEY,
/// S3_SECRET_KEY, RECONCILE_ENABLED (must be 1, or the route answers 501), RECONCILE_CONCURRENCY (5), and JWT_SECRET, with which tokens are
/// signed here (the real one takes tokens of Auth0, of any user).
///
/// Admin routes: POST|DELETE /__sandbox/faults, GET /__sandbox/requests.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

struct Api {
    pool: PgPool,
    bucket: Bucket,
    client: Client,
    secret: String,
    enabled: bool,
    concurrency: usize,
}

/// What may be asked, in the body or in the query, which counts more.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    project_id: Option<String>,
    status: Option<String>,
    limit: Option<i64>,
    concurrency: Option<usize>,
    dry_run: Option<bool>,
}

/// Runs the server.
///
/// # Errors
/// When the environment does not hold what is needed, or the port is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let var = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let or = |name: &str, default: &str| var(name).unwrap_or_else(|| default.to_owned());
    let database = var("DATABASE_URL").context("DATABASE_URL is not set")?;
    let api = Api {
        pool: PgPoolOptions::new()
            .acquire_timeout(PATIENCE)
            .connect_lazy(&database)
            .context("DATABASE_URL is unusable")?,
        bucket: Bucket {
            endpoint: or("S3_ENDPOINT", "http://localhost:9000").parse().context("S3_ENDPOINT is no URL")?,
            name: or("S3_BUCKET_NAME", "real-staging"),
            region: or("S3_REGION", "us-west-1"),
            access_key: or("S3_ACCESS_KEY", "test"),
            secret_key: or("S3_SECRET_KEY", "test"),
        },
        client: Client::builder().timeout(PATIENCE).build()?,
        secret: var("JWT_SECRET").context("JWT_SECRET is not set")?,
        enabled: var("RECONCILE_ENABLED").as_deref() == Some("1"),
        concurrency: or("RECONCILE_CONCURRENCY", "5").parse().unwrap_or(5),
    };
    let listener = serve::bind(args.port).await?;
    serve::announce(&listener)?;
    let router = Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/api/v1/admin/reconcile/images", post(reconcile))
        .with_state(Arc::new(api));
    serve::until_released(listener, instrument(router)).await
}

fn refused(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

async fn reconcile(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    body: Bytes,
) -> Response {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if token.and_then(|token| chat::bearer(&api.secret, token)).is_none() {
        return refused(StatusCode::UNAUTHORIZED, json!({ "message": "Invalid or missing JWT token" }));
    }
    if !api.enabled {
        return refused(StatusCode::NOT_IMPLEMENTED, json!({ "error": "reconciliation is not enabled" }));
    }
    let bad = |what: &str| refused(StatusCode::BAD_REQUEST, json!({ "error": what }));
    let Ok(Query(query)) = query else { return bad("invalid query parameters") };
    let body = if body.is_empty() { Ok(Asked::default()) } else { serde_json::from_slice(&body) };
    let Ok(body) = body else { return bad("invalid request") };
    let asked = Asked {
        project_id: query.project_id.or(body.project_id),
        status: query.status.or(body.status),
        limit: query.limit.or(body.limit),
        concurrency: query.concurrency.or(body.concurrency),
        dry_run: query.dry_run.or(body.dry_run),
    };
    match api.reconcile(asked).await {
        Ok(result) => Json(result).into_response(),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": format!("{error:#}") })),
    }
}

/// An image that is looked at.
struct Image {
    id: String,
    original: Option<String>,
    staged: Option<String>,
}

impl Api {
    async fn reconcile(&self, asked: Asked) -> anyhow::Result<Value> {
        let limit = asked.limit.filter(|limit| *limit > 0).unwrap_or(100).min(1000);
        let rows = sqlx::query(
            "select id::text, original_url, case when status = 'ready' then staged_url end from images \
             where ($1::uuid is null or project_id = $1::uuid) and ($2 = '' or status = $2::image_status) order by id limit $3",
        )
        .bind(asked.project_id)
        .bind(asked.status.unwrap_or_default())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let image =
            |row: &sqlx::postgres::PgRow| Image { id: row.get(0), original: row.get(1), staged: row.get(2) };
        let images: Vec<Image> = rows.iter().map(image).collect();
        let together = asked.concurrency.unwrap_or(self.concurrency).max(1);
        let checked = images.len();
        let looks: Vec<_> = images.into_iter().map(|image| self.look(image)).collect();
        let looked: Vec<(String, bool, bool)> = stream::iter(looks).buffered(together).collect().await;
        let dry_run = asked.dry_run.unwrap_or(false);
        let (mut updated, mut examples) = (0, Vec::new());
        for (id, original, _) in looked.iter().filter(|(_, original, staged)| *original || *staged) {
            let text = if *original { "original missing in storage" } else { "staged missing in storage" };
            examples.push(json!({ "image_id": id, "status": "error", "error": text }));
            if !dry_run {
                let update =
                    "update images set status = 'error', error = $2, updated_at = now() where id = $1::uuid";
                sqlx::query(update).bind(id).bind(text).execute(&self.pool).await?;
                updated += 1;
            }
        }
        examples.truncate(EXAMPLES);
        let mut result = json!({
            "checked": checked,
            "missing_original": looked.iter().filter(|(_, original, _)| *original).count(),
            "missing_staged": looked.iter().filter(|(_, _, staged)| *staged).count(),
            "updated": updated,
            "dry_run": dry_run,
        });
        if !examples.is_empty() {
            result["examples"] = json!(examples);
        }
        Ok(result)
    }

    /// Whether the files of an image are missing, the original and the staged one.
    async fn look(&self, image: Image) -> (String, bool, bool) {
        let original = self.is_missing(image.original.as_deref().unwrap_or_default()).await;
        let staged = match &image.staged {
            Some(url) => self.is_missing(url).await,
            None => false,
        };
        (image.id, original, staged)
    }

    /// An error of any kind is a missing file.
    async fn is_missing(&self, url: &str) -> bool {
        let Some(key) = key_of(url) else { return true };
        let Ok(link) = self.bucket.presigned("HEAD", &key, &[], LINK_SECONDS) else { return true };
        let answer = self.client.head(link).send().await;
        !answer.is_ok_and(|answer| answer.status().is_success())
    }
}

/// The key as the real API reads it off a URL: a host with "s3" in it has the whole path for the key, and any other one a bucket before it.
fn key_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let path = url.path().trim_start_matches('/');
    if path.is_empty() {
        return None;
    }
    let path = decoded(path)?;
    if url.host_str().unwrap_or_default().contains("s3") {
        return Some(path);
    }
    path.split_once('/').map(|(_, key)| key.to_owned())
}

/// A path without its percent signs.
fn decoded(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_wrongly_as_by_the_real_one() {
        let key = |url| key_of(url);
        assert_eq!(
            key("http://localhost:9000/real-staging/uploads/u/a%20b.jpg").unwrap(),
            "uploads/u/a b.jpg"
        );
        assert_eq!(key("https://real-staging.s3.amazonaws.com/uploads/a.jpg").unwrap(), "uploads/a.jpg");
        assert_eq!(key("s3://real-staging/staged/abcd1234/x.jpg").unwrap(), "abcd1234/x.jpg");
        assert_eq!(key("http://minio-s3:9000/real-staging/a.jpg").unwrap(), "real-staging/a.jpg");
        assert_eq!((key("http://localhost/a.jpg"), key("http://localhost/"), key("")), (None, None, None));
    }
}
