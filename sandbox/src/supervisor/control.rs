//! The control server: starts, stops, restarts and kills the services, and tells and sets their environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde_json::{Map, Value, json};

use super::{Controlled, Verb};

type Services = State<Arc<Vec<Box<dyn Controlled>>>>;

/// The routes of the control server.
pub(super) fn router(services: Arc<Vec<Box<dyn Controlled>>>) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/{verb}/{service}", post(order))
        .route("/environment/{service}", get(environment))
        .route("/configured/{service}", get(configured))
        .route("/log/{service}", get(log))
        .route("/environment/{service}/{variable}", put(set).delete(unset))
        .with_state(services)
}

async fn state(State(services): Services) -> Json<Map<String, Value>> {
    let mut all = Map::new();
    for service in services.iter() {
        all.insert(service.name().to_owned(), service.describe().await);
    }
    Json(all)
}

async fn order(State(services): Services, Path((verb, name)): Path<(String, String)>) -> Response {
    let verb = match verb.as_str() {
        "start" => Verb::Start,
        "stop" => Verb::Stop,
        "restart" => Verb::Restart,
        "kill" => Verb::Kill,
        _ => return refused(StatusCode::NOT_FOUND, &format!("no service can be told to {verb}")),
    };
    match find(&services, &name) {
        Ok(service) => outcome(service.order(verb).await.map(|()| json!({ "ok": true }))),
        Err(unknown) => unknown,
    }
}

async fn environment(State(services): Services, Path(name): Path<String>) -> Response {
    match find(&services, &name) {
        Ok(service) => outcome(service.environment().await.map(by_name)),
        Err(unknown) => unknown,
    }
}

async fn configured(State(services): Services, Path(name): Path<String>) -> Response {
    match find(&services, &name) {
        Ok(service) => outcome(service.configured().map(by_name)),
        Err(unknown) => unknown,
    }
}

async fn log(State(services): Services, Path(name): Path<String>) -> Response {
    match find(&services, &name) {
        Ok(service) => outcome(service.log().await.map(Value::from)),
        Err(unknown) => unknown,
    }
}

fn by_name(variables: Vec<(String, String)>) -> Value {
    json!(variables.into_iter().collect::<BTreeMap<_, _>>())
}

async fn set(services: Services, Path(names): Path<(String, String)>, value: String) -> Response {
    change(services, names, Some(value))
}

async fn unset(services: Services, Path(names): Path<(String, String)>) -> Response {
    change(services, names, None)
}

fn change(State(services): Services, (name, variable): (String, String), value: Option<String>) -> Response {
    match find(&services, &name) {
        Ok(service) => outcome(service.set(&variable, value.as_deref()).map(|()| json!({ "ok": true }))),
        Err(unknown) => unknown,
    }
}

#[expect(clippy::result_large_err, reason = "an answer, made once for each wrong request")]
fn find<'a>(services: &'a [Box<dyn Controlled>], name: &str) -> Result<&'a dyn Controlled, Response> {
    let found = services.iter().find(|service| service.name() == name);
    found.map(AsRef::as_ref).ok_or_else(|| {
        let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
        refused(StatusCode::NOT_FOUND, &format!("no service {name}: {}", names.join(" or ")))
    })
}

fn outcome(result: anyhow::Result<Value>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}
