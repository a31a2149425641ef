//! A stand-in of the part of GitHub's API that tells what protects a branch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{instrument::instrument, serve};

/// Serve the part of GitHub's API that tells what protects a branch, on 127.0.0.1 until SIGTERM, or until standard input ends.
///
/// Any bearer token is taken, but `reader`, which may not administer anything. Protections are set and taken away as with GitHub, by PUT
/// and DELETE of `/repos/O/N/branches/B/protection`; rules of rulesets by PUT of a list to `/repos/O/N/rules/branches/B`, which
/// GitHub does not have. Admin routes: POST|DELETE /__sandbox/faults, GET /__sandbox/requests.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8040)]
    port: u16,
    /// A branch that is there, `OWNER/NAME:BRANCH`
    #[arg(long = "branch", required = true)]
    branches: Vec<String>,
}

/// What protects a branch.
#[derive(Default)]
struct Branch {
    protection: Option<Value>,
    rules: Vec<Value>,
}

/// The branches, by `OWNER/NAME` and name.
type Branches = Mutex<BTreeMap<(String, String), Branch>>;

type Shared = State<Arc<Branches>>;

/// The part of a path that says which branch.
type Which = Path<(String, String, String)>;

/// A refusal, in the words of GitHub.
struct Refusal(StatusCode, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "message": self.1,
            "documentation_url": "https://docs.github.com/rest",
            "status": self.0.as_str(),
        });
        (self.0, Json(body)).into_response()
    }
}

/// Runs the server.
///
/// # Errors
/// When a branch is not named as it should be, or the port is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let branches: Vec<(&str, &str)> = args
        .branches
        .iter()
        .map(|text| text.split_once(':').with_context(|| format!("{text:?} is not OWNER/NAME:BRANCH")))
        .collect::<Result<_, _>>()?;
    let listener = serve::bind(args.port).await?;
    serve::announce(&listener)?;
    serve::until_released(listener, instrument(router(&branches))).await
}

/// The routes, for these branches, each `OWNER/NAME` and a name.
pub fn router(branches: &[(&str, &str)]) -> Router {
    let one = |(repository, name): &(&str, &str)| {
        (((*repository).to_owned(), (*name).to_owned()), Branch::default())
    };
    let branches: Branches = Mutex::new(branches.iter().map(one).collect());
    Router::new()
        .route(
            "/repos/{owner}/{name}/branches/{branch}/protection",
            get(protection).put(protect).delete(expose),
        )
        .route("/repos/{owner}/{name}/rules/branches/{branch}", get(rules).put(rule))
        .fallback(async || Refusal(StatusCode::NOT_FOUND, "Not Found"))
        .layer(middleware::from_fn(authorized))
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .with_state(Arc::new(branches))
}

async fn authorized(request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|given| given.strip_prefix("Bearer ")).filter(|token| !token.is_empty());
    match token {
        None => Refusal(StatusCode::UNAUTHORIZED, "Bad credentials").into_response(),
        Some("reader") => {
            Refusal(StatusCode::FORBIDDEN, "Resource not accessible by integration").into_response()
        }
        Some(_) => next.run(request).await,
    }
}

/// No code panics while it holds the lock, so a poisoned one is still sound.
fn lock(branches: &Branches) -> MutexGuard<'_, BTreeMap<(String, String), Branch>> {
    branches.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is there of a branch, or what GitHub says when it is not.
fn on<T>(
    branches: &Branches,
    (owner, name, branch): (String, String, String),
    act: impl FnOnce(&mut Branch) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let repository = format!("{owner}/{name}");
    let mut branches = lock(branches);
    if !branches.keys().any(|(known, _)| *known == repository) {
        return Err(Refusal(StatusCode::NOT_FOUND, "Not Found"));
    }
    let known = branches.get_mut(&(repository, branch));
    act(known.ok_or(Refusal(StatusCode::NOT_FOUND, "Branch not found"))?)
}

const UNPROTECTED: Refusal = Refusal(StatusCode::NOT_FOUND, "Branch not protected");

async fn protection(State(all): Shared, Path(which): Which) -> Result<Json<Value>, Refusal> {
    on(&all, which, |branch| branch.protection.clone().map(Json).ok_or(UNPROTECTED))
}

async fn protect(
    State(all): Shared,
    Path(which): Which,
    Json(wanted): Json<Value>,
) -> Result<Json<Value>, Refusal> {
    on(&all, which, |branch| {
        branch.protection = Some(wanted.clone());
        Ok(Json(wanted))
    })
}

async fn expose(State(all): Shared, Path(which): Which) -> Result<StatusCode, Refusal> {
    on(&all, which, |branch| branch.protection.take().map(|_| StatusCode::NO_CONTENT).ok_or(UNPROTECTED))
}

/// Which page of a list, from 1.
#[derive(Deserialize)]
struct Page {
    per_page: Option<usize>,
    page: Option<usize>,
}

async fn rules(
    State(all): Shared,
    Path(which): Which,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Value>>, Refusal> {
    let size = page.per_page.unwrap_or(30);
    let before = page.page.unwrap_or(1).saturating_sub(1) * size;
    on(&all, which, |branch| Ok(Json(branch.rules.iter().skip(before).take(size).cloned().collect())))
}

async fn rule(
    State(all): Shared,
    Path(which): Which,
    Json(wanted): Json<Vec<Value>>,
) -> Result<StatusCode, Refusal> {
    on(&all, which, |branch| {
        branch.rules = wanted;
        Ok(StatusCode::NO_CONTENT)
    })
}
