//! The control server: restarts and kills the servers, and receives webhooks.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use super::{service::Services, webhook};

/// The routes of the control server.
pub(super) fn router(services: Arc<Services>, notify_secret: String) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/restart/{service}", post(restart))
        .route("/kill/{service}", post(kill))
        .with_state(services)
        .merge(webhook::router(notify_secret))
}

async fn state(State(services): State<Arc<Services>>) -> Response {
    let gateway = services.gateway.describe().await;
    let store = services.store.describe().await;
    Json(json!({ "gateway": gateway, "store": store })).into_response()
}

async fn restart(State(services): State<Arc<Services>>, Path(name): Path<String>) -> Response {
    let Some(service) = services.get(&name) else { return unknown(&name) };
    outcome(service.restart().await)
}

async fn kill(State(services): State<Arc<Services>>, Path(name): Path<String>) -> Response {
    let Some(service) = services.get(&name) else { return unknown(&name) };
    outcome(service.kill().await)
}

fn outcome(result: anyhow::Result<()>) -> Response {
    match result {
        Ok(()) => Json(json!({ "ok": true })).into_response(),
        Err(error) => {
            let body = json!({ "error": format!("{error:#}") });
            (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
        }
    }
}

fn unknown(name: &str) -> Response {
    let body = json!({ "error": format!("no service {name}: gateway or store") });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
