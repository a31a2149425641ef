//! What an S3 store refuses, in the terms of steps.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use runbook_engine::error::StepError;

/// Codes of S3 that may well be gone in a moment.
/// From <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
const TRANSIENT: &[&str] = &[
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "OperationAborted",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "ConditionalRequestConflict",
    "503",
    "500",
];

/// Whether what failed with this code may well work in a moment.
pub fn is_transient(code: &str) -> bool {
    TRANSIENT.contains(&code)
}

/// The code of S3, when it gave one.
pub fn code_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Whether it says that there is no such object, or nothing of the kind that was asked for. A bucket that is not there is something else.
pub fn is_missing<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match code_of(error) {
        Some(code) => {
            matches!(code, "NoSuchKey" | "NotFound" | "NoSuchLifecycleConfiguration" | "NoSuchVersion")
        }
        None => error.raw_response().is_some_and(|response| response.status().as_u16() == 404),
    }
}

/// Why a request failed: `what` was tried, as a lower-case fragment.
pub fn failed<E>(what: &str, error: &SdkError<E, HttpResponse>) -> StepError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let retry_after_ms = error
        .raw_response()
        .and_then(|response| response.headers().get("retry-after"))
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map(|seconds| seconds.saturating_mul(1000));
    let status = error.raw_response().map(|response| response.status().as_u16());
    let mut failure = match error {
        SdkError::ConstructionFailure(_) => StepError::invalid(format!("{what}: {}", cause(error))),
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => {
            StepError::transient(format!("{what}: {}", cause(error))).unknown()
        }
        SdkError::DispatchFailure(failure) if failure.is_user() || failure.is_other() => {
            StepError::refused(format!("{what}: {}", cause(error)))
        }
        SdkError::DispatchFailure(_) => StepError::transient(format!("{what}: {}", cause(error))).unknown(),
        _ => {
            let code = code_of(error);
            let said = error.as_service_error().and_then(ProvideErrorMetadata::message);
            let told = [code, said].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let told = if told.is_empty() { format!("status {}", status.unwrap_or_default()) } else { told };
            let message = format!("{what}: {told}");
            let later = code.is_some_and(is_transient)
                || status.is_some_and(|status| {
                    status >= 500 && status != 501 || matches!(status, 408 | 425 | 429)
                });
            let failure = if later { StepError::transient(message) } else { StepError::refused(message) };
            match (code, status) {
                (Some("SignatureDoesNotMatch" | "InvalidAccessKeyId" | "AccessDenied"), _)
                | (None, Some(401 | 403)) => failure
                    .with_help("look at the keys of the connection and at what they may do, then resume"),
                (Some("NoSuchBucket"), _) => {
                    failure.with_help("look at the `bucket` and the `endpoint` of the connection")
                }
                _ => failure,
            }
        }
    };
    failure.retry_after_ms = retry_after_ms;
    failure
}

/// The innermost cause: the ones around it say only that there is one.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}
