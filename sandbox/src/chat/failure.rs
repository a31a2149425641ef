//! What the API answers when it does not do what was asked.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A refusal, or a failure of the storage.
pub(super) enum Failure {
    /// The request is not as it should be; with what is wrong.
    Validation(String),
    /// There is no token, or not one of ours.
    Unauthorized,
    /// The link is over, or not one of ours.
    Forbidden,
    /// There is no such attachment, or route.
    NotFound,
    /// The storage failed.
    Internal(anyhow::Error),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::Validation(why) => {
                (StatusCode::BAD_REQUEST, "validation_error", format!("validation failed: {why}"))
            }
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "unauthorized".to_owned()),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "forbidden".to_owned()),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "not found".to_owned()),
            Self::Internal(error) => {
                eprintln!("{}", json!({ "level": "ERROR", "message": format!("{error:#}") }));
                (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal error".to_owned())
            }
        };
        (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
    }
}
