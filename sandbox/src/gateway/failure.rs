//! Refusals of the gateway, in the form of either profile.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::config::Profile;

/// A refusal: HTTP status, machine code, message for people.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(super) fn invalid_secret() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_secret", "client secret expired or unknown")
    }

    pub(super) fn storage(error: impl std::fmt::Display) -> Self {
        eprintln!("gateway: storage: {error:#}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_error", "attachment storage failed")
    }

    /// The answer. On the wire every fault of the request becomes a 400, and the code moves into the text.
    pub(super) fn answer(&self, profile: Profile) -> Response {
        if profile == Profile::Documented {
            return self.clone().into_response();
        }
        let status = match self.status {
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::BAD_REQUEST,
            other => other,
        };
        (status, Json(json!({ "error": format!("[{}] {}", self.code, self.message) }))).into_response()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "code": self.code, "error": self.message }))).into_response()
    }
}
