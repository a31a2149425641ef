//! What is measured of the requests, as Prometheus reads it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};

use super::Chat;

/// The route that takes attachments.
pub(super) const UPLOAD: &str = "/v1/chat/attachments/upload";
/// The route that hands them out, as the real API writes it.
const DOWNLOAD: &str = "/v1/chat/attachments/:attachment_id/download";

/// How many of the last requests the 95th percentile is taken of.
const WINDOW: usize = 1000;

/// What is known of one route.
#[derive(Default)]
struct Route {
    requests: u64,
    errors: u64,
    seconds: Vec<f64>,
}

/// What is known of the routes, by method and path.
pub(super) struct Metrics(Mutex<BTreeMap<(&'static str, &'static str), Route>>);

impl Default for Metrics {
    /// Each route is there from the start, so that its first request is an increase.
    fn default() -> Self {
        let routes = [("POST", UPLOAD), ("GET", DOWNLOAD)];
        Self(Mutex::new(routes.into_iter().map(|route| (route, Route::default())).collect()))
    }
}

impl Metrics {
    /// No code panics while it holds the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, &'static str), Route>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request.
pub(super) async fn count(State(chat): State<Arc<Chat>>, request: Request, next: Next) -> Response {
    let uploads = request.method() == Method::POST && request.uri().path() == UPLOAD;
    let route = if uploads { ("POST", UPLOAD) } else { ("GET", DOWNLOAD) };
    let begun = Instant::now();
    let response = next.run(request).await;
    let mut routes = chat.metrics.lock();
    let known = routes.entry(route).or_default();
    known.requests += 1;
    known.errors += u64::from(response.status().is_server_error());
    known.seconds.push(begun.elapsed().as_secs_f64());
    if known.seconds.len() > WINDOW {
        known.seconds.remove(0);
    }
    response
}

/// All of it, in the text format. A route without a failure has no line of failures, as with a counter that was never increased.
pub(super) async fn show(State(chat): State<Arc<Chat>>) -> String {
    let mut out = String::new();
    for ((method, route), known) in chat.metrics.lock().iter() {
        let labels = format!("method=\"{method}\",route=\"{route}\"");
        let mut line = |text: String| writeln!(out, "gotong_api_http_{text}");
        let requests = line(format!("requests_total{{{labels}}} {}", known.requests));
        let errors = if known.errors > 0 {
            line(format!("errors_total{{{labels}}} {}", known.errors))
        } else {
            Ok(())
        };
        let mut sorted = known.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let p95 = match sorted.get(sorted.len() * 95 / 100) {
            Some(p95) => line(format!("request_duration_seconds{{{labels},quantile=\"0.95\"}} {p95}")),
            None => Ok(()),
        };
        debug_assert!(requests.and(errors).and(p95).is_ok(), "writing to a text can not fail");
    }
    out
}
