//! `http`: sends one request and checks the answer.

mod answer;
mod settle;

use std::collections::BTreeMap;
use std::time::Instant;

use async_trait::async_trait;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::saved::Foresight;
use runbook_engine::step::{Intent, Settlement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use self::answer::{Answer, head_of_body};
pub use self::settle::Check;
use crate::connections::http::{Http, check_status, http_of, transport_error};
use crate::effect::{Declared, declared, uncharged};
use crate::had;
use crate::in_flight;
use crate::kind::{Context, End, Step, read_now, would};
use crate::text::{Text, in_brief};

/// Sends one request to a system and checks its answer. Redirects are not followed.
///
/// `GET`, `HEAD` and `OPTIONS` only look. `PUT` and `DELETE` may be sent twice, and `DELETE` destroys: it needs a snapshot and a
/// confirmation before it, and counts as one item against the limits. Of `POST` and `PATCH` nobody knows: when no answer
/// came, a person is asked whether it happened, unless `check` says how to find out, or `effect` says that it may be repeated.
///
/// `effect` is for a request that does something else than its method says: a `DELETE` that only ends a session
/// (`effect: { class: write, repeat: repeatable }`), a `POST` that deletes (`effect: { class: destroy, repeat: once, items: 20 }`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"required": ["json"]},
    {"required": ["form"]},
    {"required": ["text"]},
    {"not": {"anyOf": [{"required": ["json"]}, {"required": ["form"]}, {"required": ["text"]}]}},
]))]
pub struct HttpRequest {
    /// The connection, of a type that speaks HTTP.
    connection: String,
    /// The method. Default: `GET`.
    #[serde(default)]
    method: Method,
    /// The path below the connection's URL, such as `/threads`.
    path: String,
    /// Parameters of the query; they are encoded as needed.
    #[serde(default)]
    query: BTreeMap<String, Text>,
    /// Headers in addition to the connection's. Secrets may be used here.
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    /// A JSON body. At most one of `json`, `form` and `text`.
    #[serde(default)]
    json: Option<Value>,
    /// A body of form fields, URL-encoded. Secrets may be used here.
    #[serde(default)]
    form: Option<BTreeMap<String, Text>>,
    /// A body of plain text; a header `Content-Type` may say what it is.
    #[serde(default)]
    text: Option<String>,
    /// Whether the connection's session goes along: as a field of `form`, else in the query. Default: whether it has one.
    #[serde(default)]
    session: Option<bool>,
    /// What the answer must be. Default: any status from 200 to 299.
    #[serde(default)]
    expect: Expect,
    /// A look that tells whether the request has taken effect. With it the step may be entered again after any crash: it looks
    /// first, and sends nothing when the effect is there; after a server's error it does the same. A look that finds nothing counts once the connection's `timeout` is over since
    /// the request was sent, which is waited for. A server that acts on a request later than that, when nobody waits for its answer any
    /// more, can have it twice: give such a server a longer `timeout`, or a request that it takes for the same when it is sent again.
    #[serde(default)]
    check: Option<Check>,
    /// What it does to the world, when that is not what its method says.
    #[serde(default)]
    effect: Option<Declared>,
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "HttpMethod")]
#[expect(missing_docs, reason = "they are named as the standard names them")]
pub enum Method {
    #[default]
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// Its name, upper-case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    fn effect(self) -> Effect {
        match self {
            Self::Get | Self::Head | Self::Options => Effect::READ,
            Self::Put => Effect::WRITE,
            Self::Delete => Effect::DESTROY,
            Self::Post | Self::Patch => Effect::WRITE_ONCE,
        }
    }
}

/// Names with their values, in one line; nothing when there are none.
fn pairs<'a>(what: &str, all: impl IntoIterator<Item = (&'a String, &'a Text)>) -> String {
    let all: Vec<String> =
        all.into_iter().map(|(name, value)| format!("{name}: {}", in_brief(value.as_str()))).collect();
    if all.is_empty() { String::new() } else { format!("{what} {}", all.join(", ")) }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Head => Self::HEAD,
            Method::Options => Self::OPTIONS,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

/// What an answer must be.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The statuses that are right. Default: 200 to 299.
    #[serde(default)]
    status: Option<Vec<u16>>,
    /// Values in a JSON body, by JSON pointer.
    #[serde(default)]
    json: BTreeMap<String, Value>,
    /// A text in the body.
    #[serde(default)]
    contains: Option<String>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HttpOutputs {
    /// The status.
    pub status: u16,
    /// The headers that say what the body is, by lower-case name, without secrets.
    pub headers: BTreeMap<String, String>,
    /// The body, when it is JSON of at most 1 MiB, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The body otherwise: its first 65,536 characters, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// From sending to the end of the answer, in milliseconds.
    pub duration_ms: u64,
    /// Whether nothing was sent because `check` found the effect there; the rest is the check's answer then.
    pub settled_by_check: bool,
}

#[async_trait]
impl Step for HttpRequest {
    const NAME: &'static str = "http";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/duration_ms"];
    const SUMMARY: &'static str = "Sends one HTTP request and checks the answer";
    const EXAMPLE: &'static str = "\
- id: close_thread
  uses: http
  with:
    connection: gateway
    method: POST
    path: /threads/42/close
    json: { reason: maintenance }
    check: { path: /threads/42, expect: { json: { /state: closed } } }
";
    const SECRET_FIELDS: &'static [&'static str] = &["/headers/*", "/form/*"];
    const SHOWN_FIELDS: &'static [&'static str] = &["/json", "/body", "/form", "/query"];
    const TIDIES: bool = true;
    type Outputs = HttpOutputs;

    fn effect(with: &Value) -> Effect {
        if let Some(effect) = declared(with) {
            return effect;
        }
        let method = with.get("method").map_or(Ok(Method::Get), Method::deserialize);
        let Ok(method) = method else { return Effect::UNDETERMINED };
        let effect = method.effect();
        match with.get("check") {
            Some(check) if !check.is_null() => Effect { repeat: Repeat::Repeatable, ..effect },
            _ => effect,
        }
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        let http = http_of(&cx.resources, &self.connection)?;
        // Opening a session is a write.
        let in_session = http.session().is_some() && self.session.unwrap_or(true);
        if effect.class == Class::Read && !in_session {
            return read_now(self, cx).await;
        }
        let query: Vec<String> =
            self.query.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let body = self.json.as_ref().map_or_else(String::new, |json| format!(" with {json}"));
        let text = self.text.as_ref().map_or_else(String::new, |text| format!(" with {}", in_brief(text)));
        let form = pairs(" with the form", self.form.iter().flatten());
        let headers = pairs(" and the headers", &self.headers);
        // A method that only reads is charged nothing, whatever is declared.
        let writes = self.method.effect() != Effect::READ;
        let items = if writes { self.destroyed() } else { 0 };
        let does = format!(
            "send {} {}{query}{body}{text}{form} to {}{headers}",
            self.method.name(),
            self.path,
            http.base()
        );
        Ok(Foresight { items, ..would(does) })
    }

    async fn run(self, cx: &Context) -> Result<End<HttpOutputs>, StepError> {
        cx.checkpoint()?;
        if self.method.effect() == Effect::READ {
            return cx.unless_abandoned(self.send(cx)).await.map(End::Done);
        }
        let series = had::series(cx).await?;
        if let Some(outputs) = self.settled(series, cx, Ok).await? {
            return Ok(End::Done(outputs));
        }
        let what = json!({ "method": self.method.name(), "path": self.path, "series": series });
        let what = in_flight::announced(what, self.takes(cx)?);
        let items = self.destroyed();
        // Sent again it destroys nothing more; and nothing is charged when it destroys nothing at all.
        let charged_items = if items == 0 { 0 } else { uncharged(items, cx).await? };
        let intent = Intent { what, items: self.items(), charged_items, charged_bytes: 0 };
        let batch = cx.ledger.intend(intent).await?.number;
        let result = cx.unless_abandoned(self.send(cx)).await;
        let settlement = match &result {
            Ok(outputs) => Settlement { done: self.items(), ..took_effect(outputs, series)? },
            Err(error) if error.outcome == Outcome::Unknown => return result.map(End::Done),
            Err(error) => {
                let outcome = json!({ "failed": error.message, "causes": error.causes });
                Settlement { outcome: cx.redactor.value(&outcome), ..Settlement::default() }
            }
        };
        cx.ledger.settle(batch, settlement).await?;
        result.map(End::Done)
    }

    async fn tidy(self, cx: &Context) -> Result<(), StepError> {
        // Without a check nobody can look.
        if self.check.is_none() || cx.ledger.view().await?.unsettled.is_empty() {
            return Ok(());
        }
        http_of(&cx.resources, &self.connection).map_err(|error| had::not_looked(REQUEST, error))?;
        let found = self.settled(had::series(cx).await?, cx, in_flight::soon_over).await;
        let found = found.map_err(|error| had::not_looked(REQUEST, error))?;
        let became = if found.is_some() { "took effect" } else { "took no effect" };
        cx.live.say(&format!("{REQUEST} was cut off: it {became}, by its check"));
        Ok(())
    }
}

/// What a cancel finds out about.
const REQUEST: &str = "its last request";

/// The record of a request that took effect.
fn took_effect(outputs: &HttpOutputs, series: u32) -> Result<Settlement, StepError> {
    had::settlement(outputs, series, json!({ "status": outputs.status }))
}

impl HttpRequest {
    /// How many items it destroys.
    fn destroyed(&self) -> u64 {
        let by_method = u64::from(self.method.effect().class == Class::Destroy);
        self.effect.map_or(by_method, Declared::destroyed)
    }

    /// How many items it touches.
    fn items(&self) -> u64 {
        self.effect.map_or(1, |effect| effect.items.unwrap_or(1))
    }

    async fn session(&self, http: &Http) -> Result<Option<(String, String)>, StepError> {
        match (http.session(), self.session) {
            (_, Some(false)) | (None, None) => Ok(None),
            (None, Some(true)) => {
                Err(StepError::invalid(format!("connection `{}` has no session", self.connection)))
            }
            (Some(session), _) => Ok(Some((session.field().to_owned(), session.get().await?.secret))),
        }
    }

    async fn send(&self, cx: &Context) -> Result<HttpOutputs, StepError> {
        let what = format!("{} {}", self.method.name(), self.path);
        let http = http_of(&cx.resources, &self.connection)?;
        let session = self.session(&http).await?;
        let request = self.request(&http, session)?;
        let begun = Instant::now();
        let response = if self.method.effect() == Effect::READ {
            request.send().await
        } else {
            crash::around("http", request.send()).await
        };
        let response = response.map_err(|error| transport_error(&what, error))?;
        let right = self.expect.has_status(response.status().as_u16());
        let response = if right {
            response
        } else {
            check_status(&what, response).await.map_err(|error| self.judged(error))?
        };
        let answer = Answer::read(&what, response, begun).await?;
        if let Some(problem) = answer.problem(&self.expect) {
            let error = StepError::gate(cx.redactor.text(&format!("{what}: {problem}")));
            // The server took it, so it must not be sent again without somebody looking.
            let taken = (200..300).contains(&answer.status);
            return Err(if taken && self.once() { error.unknown() } else { error });
        }
        Ok(answer.outputs(&cx.redactor, false))
    }

    fn request(&self, http: &Http, session: Option<(String, String)>) -> Result<RequestBuilder, StepError> {
        let mut request = http.request(self.method.into(), &self.path)?;
        let mut query: Vec<(&str, &str)> =
            self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Some(json) = &self.json {
            request = request.json(json);
        }
        if let Some(text) = &self.text {
            request = request.header(CONTENT_TYPE, "text/plain; charset=utf-8").body(text.clone());
        }
        if let Some(form) = &self.form {
            let mut body = url::form_urlencoded::Serializer::new(String::new());
            body.extend_pairs(form.iter().map(|(name, value)| (name, value.as_str())));
            if let Some((field, secret)) = &session {
                body.append_pair(field, secret);
            }
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.finish());
        } else if let Some((field, secret)) = &session {
            query.push((field, secret));
        }
        if !query.is_empty() {
            request = request.query(&query);
        }
        // Takes the place of what the body set by itself.
        Ok(request.headers(headers(&self.headers)?))
    }

    /// Whether it must not be sent twice, and nothing can tell whether it has had its effect.
    fn once(&self) -> bool {
        let effect = self.effect.map_or(self.method.effect(), Declared::effect);
        effect.repeat == Repeat::Once && self.check.is_none()
    }

    /// A server's error after a request that must not be repeated leaves open whether it happened; where a check can tell, that is asked first.
    fn judged(&self, error: StepError) -> StepError {
        let refused_early = error.retry_after_ms.is_some();
        let matters = self.once() || self.check.is_some();
        if matters && error.kind == ErrorKind::Transient && !refused_early { error.unknown() } else { error }
    }
}

impl Expect {
    pub(crate) fn has_status(&self, status: u16) -> bool {
        match &self.status {
            Some(statuses) => statuses.contains(&status),
            None => (200..300).contains(&status),
        }
    }
}

/// Headers as an author gives them; none of them is shown anywhere.
pub(crate) fn headers(given: &BTreeMap<String, Text>) -> Result<HeaderMap, StepError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let mut value = HeaderValue::from_str(value.as_str())
            .map_err(|_| StepError::invalid(format!("the value of the header `{name}` can not be sent")))?;
        value.set_sensitive(true);
        headers.append(header_name(name)?, value);
    }
    Ok(headers)
}

/// The name of a header as an author gives it.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, StepError> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| StepError::invalid(format!("`{name}` is no header name")))
}

#[cfg(test)]
mod tests {
    use runbook_engine::kinds::Class;

    use super::*;

    #[test]
    fn the_effect_follows_from_the_method_the_check_and_the_author() {
        let of = |with: Value| HttpRequest::effect(&with);
        assert_eq!(of(json!({})), Effect::READ);
        assert_eq!(of(json!({"method": "HEAD"})), Effect::READ);
        assert_eq!(of(json!({"method": "PUT"})), Effect::WRITE);
        assert_eq!(of(json!({"method": "DELETE"})), Effect::DESTROY);
        let write = json!({"class": "write", "repeat": "repeatable"});
        assert_eq!(of(json!({"method": "DELETE", "effect": write})), Effect::WRITE);
        assert_eq!(of(json!({"method": "POST"})), Effect::WRITE_ONCE);
        assert_eq!(of(json!({"method": "POST", "check": {"path": "/x"}})), Effect::WRITE);
        assert_eq!(of(json!({"method": "${{ inputs.method }}"})), Effect::UNDETERMINED);
        let destroy = json!({"class": "destroy", "repeat": "once"});
        let declared = of(json!({"method": "POST", "check": {"path": "/x"}, "effect": destroy}));
        assert_eq!(declared, Effect { class: Class::Destroy, repeat: Repeat::Once });
    }
}
