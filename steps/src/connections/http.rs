//! Connection kind `http`: an HTTP API below one base URL. What other kinds need of HTTP is here too.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::fountainstore::FountainStore;
use super::github::Github;
use super::prometheus::Prometheus;
use super::session::{Session, SessionSettings};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};
use crate::resources::Resources;

/// What a base URL looks like.
pub(super) const BASE_URL: &str = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@]+(/[^\s?#]*)?$";
/// The same in words.
pub(super) const BASE_URL_WANTED: &str = "an http or https URL without credentials and without a query";

/// An HTTP API below one base URL.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConnection {
    /// The base URL, `http` or `https`, without credentials and without a query. Paths of steps are taken below it.
    #[schemars(extend("pattern" = BASE_URL, "patternErrorMessage" = BASE_URL_WANTED))]
    pub url: String,
    /// Headers sent with every request, by name. Values may hold secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How long one request may take, from connecting to the last byte of the answer. Default `30s`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// How a session is opened and refreshed, for APIs that want one.
    #[serde(default)]
    pub session: Option<SessionSettings>,
}

pub(super) fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

#[async_trait]
impl ConnectionKind for HttpConnection {
    const NAME: &'static str = "http";
    const SUMMARY: &'static str =
        "An HTTP API below one base URL, with headers and, if it wants one, a session";
    const SECRET_FIELDS: &'static [&'static str] = &["/headers/*"];
    type Client = Http;

    fn open(self, cx: &OpenContext<'_>) -> Result<Http, StepError> {
        let endpoint = Endpoint::new(&self.url, &self.headers, self.timeout)?;
        let session = self.session.map(|settings| Session::new(settings, endpoint.clone(), cx));
        Ok(Http { endpoint, session })
    }

    fn place(client: &Http) -> String {
        client.base().as_str().trim_end_matches('/').to_owned()
    }

    async fn identity(client: &Http) -> Result<SystemIs, StepError> {
        Ok(SystemIs::There(Self::place(client)))
    }
}

/// The client of a connection: requests below its base URL.
#[derive(Debug)]
pub struct Http {
    endpoint: Endpoint,
    session: Option<Session>,
}

impl Http {
    /// A client without a session.
    pub fn new(url: &str, headers: &BTreeMap<String, String>, timeout: Duration) -> Result<Self, StepError> {
        Ok(Self { endpoint: Endpoint::new(url, headers, timeout)?, session: None })
    }

    /// The base URL.
    pub fn base(&self) -> &Url {
        &self.endpoint.base
    }

    /// How long one request may take.
    pub fn timeout(&self) -> std::time::Duration {
        self.endpoint.timeout
    }

    /// A request below the base URL with the connection's headers and timeout. `path` is relative, starts with `/`, and may
    /// carry a query; an error of kind invalid when it would leave the base URL.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, StepError> {
        self.endpoint.request(method, path)
    }

    /// The session, when the connection is configured with one.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}

/// The HTTP client of a connection of kind `http`, or of one that contains such a client (`fountainstore`, `github`, `prometheus`).
pub fn http_of(resources: &Resources, name: &str) -> Result<Arc<Http>, StepError> {
    if let Ok(store) = resources.connection::<FountainStore>(name) {
        return Ok(Arc::clone(store.http()));
    }
    if let Ok(github) = resources.connection::<Github>(name) {
        return Ok(Arc::clone(github.http()));
    }
    match resources.connection::<Prometheus>(name) {
        Ok(server) => Ok(Arc::clone(server.http())),
        Err(_) => resources.connection::<Http>(name),
    }
}

/// Where requests go: shared by a connection and its session.
#[derive(Clone)]
pub(super) struct Endpoint {
    client: reqwest::Client,
    base: Url,
    timeout: std::time::Duration,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client holds the headers, and they hold secrets.
        f.debug_struct("Endpoint").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(
        url: &str,
        headers: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Self, StepError> {
        let base = base_url(url)?;
        let client = reqwest::Client::builder()
            .default_headers(header_map(headers)?)
            .timeout(timeout.0)
            // A redirect would carry the headers, which hold credentials, to a place that nobody reviewed.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("runbook/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| StepError::invalid("no HTTP client can be made").with_source(&error))?;
        Ok(Self { client, base, timeout: timeout.0 })
    }

    pub(super) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, StepError> {
        Ok(self.client.request(method, below(&self.base, path)?))
    }
}

fn base_url(text: &str) -> Result<Url, StepError> {
    let url = Url::parse(text).map_err(|error| StepError::invalid("`url` is no URL").with_source(&error))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(StepError::invalid("`url` is neither an http nor an https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(StepError::invalid("`url` holds credentials")
            .with_help("put them into `headers`, from `secrets`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(StepError::invalid("`url` holds a query or a fragment"));
    }
    Ok(url)
}

fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, StepError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| StepError::invalid(format!("`{name}` is no header name")))?;
        // The value may be a secret, so the message does not show it.
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| StepError::invalid(format!("the value of the header `{name}` can not be sent")))?;
        value.set_sensitive(true);
        map.append(header, value);
    }
    Ok(map)
}

/// Where a request for `path` of a connection with this base URL goes; an error of kind invalid when it would leave the base URL.
pub fn address(base: &str, path: &str) -> Result<Url, StepError> {
    below(&base_url(base)?, path)
}

/// `path` below `base`. Dot segments, in any disguise, and everything that a URL parser would drop or cut off are refused, so
/// that a key out of a data set can never reach another resource.
fn below(base: &Url, path: &str) -> Result<Url, StepError> {
    let bad = |why: &str| StepError::invalid(format!("the path {path:?} {why}"));
    if !path.starts_with('/') {
        return Err(bad("does not start with `/`"));
    }
    if path.contains(|c: char| c.is_control() || c == '#' || c == '\\') {
        return Err(bad("holds a character that has to be percent-encoded"));
    }
    let resource = path.split('?').next().unwrap_or_default();
    let dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    };
    let hidden = resource.to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/");
    if hidden.split('/').any(dots) {
        return Err(bad("holds a `.` or `..` segment"));
    }
    let prefix = base.path().trim_end_matches('/');
    let (resource, query) =
        path.split_once('?').map_or((path, None), |(resource, query)| (resource, Some(query)));
    let mut url = base.clone();
    url.set_path(&format!("{prefix}{resource}"));
    url.set_query(query);
    if url.origin() != base.origin() || !url.path().starts_with(prefix) {
        return Err(bad("leaves the base URL"));
    }
    Ok(url)
}

/// Percent-encodes one path segment, so that it can hold any key.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        // Dots are encoded only where a segment is made of nothing else; servers decode them again.
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'.' => out.push(char::from(byte)),
            _ => {
                let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out
}

/// A transport failure as a step's error: nothing was sent = transient with outcome failed; the answer did not come = transient
/// with outcome unknown. The text never holds the URL, whose query may hold a secret.
pub fn transport_error(what: &str, error: reqwest::Error) -> StepError {
    let error = error.without_url();
    let mut chain = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push(cause.to_string());
        source = cause.source();
    }
    let certificate = chain.iter().any(|cause| cause.contains("invalid peer certificate"));
    let mut made = if error.is_builder() {
        StepError::invalid(format!("{what}: the request can not be made"))
    } else if certificate {
        StepError::refused(format!("{what}: the server's certificate is not trusted"))
    } else if error.is_connect() {
        StepError::transient(format!("{what}: no connection"))
    } else if error.is_timeout() {
        StepError::transient(format!("{what}: no answer in time")).unknown()
    } else {
        StepError::transient(format!("{what}: the connection broke before the answer was complete")).unknown()
    };
    made.causes = chain;
    made
}

/// How much of an error's body is read.
const ERROR_BODY: usize = 64 * 1024;

/// How many characters of a server's message are kept.
const ERROR_TEXT: usize = 300;

/// The response when its status is a success. Otherwise an error: 408, 425, 429 and 5xx are transient (with `Retry-After`), 501
/// and everything else is refused; 501 with `{"code":"notSupported","need":N}` names the need. The message holds the status and
/// `code`, `message` or `error` of a JSON body, or of its member `error`.
pub async fn check_status(what: &str, response: Response) -> Result<Response, StepError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after_ms = asked_to_wait(&response);
    let body = head_of(response, ERROR_BODY).await;
    let mut error = status_error(what, status, &body);
    error.retry_after_ms = retry_after_ms;
    Err(error)
}

fn status_error(what: &str, status: StatusCode, body: &[u8]) -> StepError {
    let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    // Some have all of it in one member.
    let json = json.get("error").filter(|error| error.is_object()).unwrap_or(&json);
    let member = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut said: Vec<&str> = member("code").into_iter().collect();
    said.extend(member("message").or_else(|| member("error")));
    let mut message = format!("{what}: status {status}");
    if !said.is_empty() {
        message.push_str(": ");
        message.push_str(&bounded(&said.join(": "), ERROR_TEXT));
    }
    if status == StatusCode::NOT_IMPLEMENTED {
        if let (Some("notSupported"), Some(need)) = (member("code"), member("need")) {
            let need = bounded(need, 80);
            return StepError::refused(format!("{what}: the server does not support `{need}`")).with_help(
                format!("give the server or the credential the capability `{need}`, then resume"),
            );
        }
        return StepError::refused(message);
    }
    if status.is_redirection() {
        return StepError::refused(message)
            .with_help("redirects are not followed: give the final address as `url`");
    }
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    // A proxy that got no answer can not know whether the server behind it acted.
    let lost = [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT];
    if lost.contains(&status) {
        StepError::transient(message).unknown()
    } else if status.is_server_error() || later.contains(&status) {
        StepError::transient(message)
    } else {
        StepError::refused(message)
    }
}

/// How long a server asked to wait before the next request, in milliseconds.
pub fn asked_to_wait(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, Timestamp::now()))
}

/// `Retry-After` in milliseconds: seconds, or an HTTP date.
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let at = http_date(text)?;
    Some(u64::try_from(at.duration_since(now).as_millis()).unwrap_or(0))
}

/// An HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`).
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// The first bytes of a body; what can not be read is left out, since the status has said enough.
async fn head_of(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < limit {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]),
            Ok(None) | Err(_) => break,
        }
    }
    body
}

/// The whole body, refused when it is longer than `limit` bytes.
pub async fn read_body(what: &str, mut response: Response, limit: usize) -> Result<Vec<u8>, StepError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport_error(what, error))? {
        if body.len() + chunk.len() > limit {
            return Err(StepError::refused(format!("{what}: the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The body as JSON of type `T`, refused when it is longer than `limit` bytes or of another shape. The message does not quote
/// the body, which may hold a secret.
pub async fn read_json<T: serde::de::DeserializeOwned>(
    what: &str,
    response: Response,
    limit: usize,
) -> Result<T, StepError> {
    let body = read_body(what, response, limit).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        StepError::refused(format!(
            "{what}: the answer is not the JSON expected, at line {line} column {column}"
        ))
    })
}

pub(super) fn bounded(text: &str, limit: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if text.chars().count() <= limit {
        return text.chars().map(clean).collect();
    }
    text.chars().take(limit).map(clean).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use runbook_engine::error::{ErrorKind, Outcome};

    use super::*;

    fn url(text: &str) -> Url {
        base_url(text).unwrap()
    }

    #[test]
    fn paths_stay_below_the_base() {
        let base = url("http://h:1/api/");
        assert_eq!(below(&base, "/a/b?c=d%2Fe").unwrap().as_str(), "http://h:1/api/a/b?c=d%2Fe");
        assert_eq!(below(&base, "//other/x").unwrap().as_str(), "http://h:1/api//other/x");
        assert_eq!(below(&url("http://h:1"), "/a").unwrap().as_str(), "http://h:1/a");
        for path in [
            "a",
            "",
            "http://other/",
            "/../x",
            "/a/..",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/.\t./b",
            "/a#b",
            "/%2e/",
            "/a/%2e%2e?x=1",
        ] {
            assert!(below(&base, path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn any_key_fits_a_segment() {
        assert_eq!(segment("a b/c?d#e+ü.x"), "a%20b%2Fc%3Fd%23e%2B%C3%BC.x");
        assert!(below(&url("http://h"), &format!("/docs/{}", segment(".."))).is_err());
    }

    #[test]
    fn base_urls_are_checked() {
        for text in ["h:1", "ftp://h/", "http://u:p@h/", "http://h/?a=b", "http://h/#f", "nothing"] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bad_header_value_is_not_shown() {
        let headers = BTreeMap::from([("X-API-Key".to_owned(), "se\ncret".to_owned())]);
        let error = header_map(&headers).unwrap_err();
        assert!(error.message.contains("X-API-Key") && !error.message.contains("cret\""), "{error}");
        assert!(!error.message.contains("se\ncret"));
    }

    #[test]
    fn statuses_become_kinds() {
        let of = |status: u16, body: &str| {
            status_error("deleting", StatusCode::from_u16(status).unwrap(), body.as_bytes())
        };
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(of(status, "").kind, ErrorKind::Transient, "{status}");
        }
        for status in [301, 400, 401, 403, 404, 409, 413, 422, 501] {
            assert_eq!(of(status, "").kind, ErrorKind::Refused, "{status}");
        }
        assert_eq!(of(504, "").outcome, Outcome::Unknown);
        assert_eq!(of(503, "").outcome, Outcome::Failed);
        let error = of(501, r#"{"code":"notSupported","need":"documents.delete"}"#);
        assert!(error.message.contains("documents.delete"), "{error}");
        let error = of(400, r#"{"error":{"code":"validation_error","message":"no file"}}"#);
        assert_eq!(error.message, "deleting: status 400 Bad Request: validation_error: no file");
        let error = of(413, r#"{"code":"attachment_too_large","error":"attachments cannot exceed 0 KB"}"#);
        assert_eq!(
            error.message,
            "deleting: status 413 Payload Too Large: attachment_too_large: attachments cannot exceed 0 KB"
        );
        assert!(of(400, &format!(r#"{{"error":"{}"}}"#, "x".repeat(5000))).message.len() < 400);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        let of = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap(), now);
        assert_eq!(of("3"), Some(3000));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7000));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0));
        assert_eq!(of("soon"), None);
    }
}
