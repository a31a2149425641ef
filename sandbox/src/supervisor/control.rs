//! The control server: restarts and kills the servers.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Map, Value, json};

use super::Service;

type Services = State<Arc<Vec<Service>>>;

/// The routes of the control server.
pub(super) fn router(services: Arc<Vec<Service>>) -> Router {
    Router::new().route("/state", get(state)).route("/{verb}/{service}", post(order)).with_state(services)
}

async fn state(State(services): Services) -> Json<Map<String, Value>> {
    let mut all = Map::new();
    for service in services.iter() {
        all.insert(service.name().to_owned(), service.describe().await);
    }
    Json(all)
}

async fn order(State(services): Services, Path((verb, name)): Path<(String, String)>) -> Response {
    let Some(service) = services.iter().find(|service| service.name() == name) else {
        let names: Vec<&str> = services.iter().map(Service::name).collect();
        let body = json!({ "error": format!("no service {name}: {}", names.join(" or ")) });
        return (StatusCode::NOT_FOUND, Json(body)).into_response();
    };
    let done = match verb.as_str() {
        "restart" => service.restart().await,
        "kill" => service.kill().await,
        _ => {
            let body = json!({ "error": format!("a service can not be told to {verb}: restart or kill") });
            return (StatusCode::NOT_FOUND, Json(body)).into_response();
        }
    };
    match done {
        Ok(()) => Json(json!({ "ok": true })).into_response(),
        Err(error) => {
            let body = json!({ "error": format!("{error:#}") });
            (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
        }
    }
}
