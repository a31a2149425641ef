//! Freezing by requests that read, apply and release a value.

use std::time::Duration;

use async_trait::async_trait;
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::event::Obligation;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::exact::{self, same};
use super::way::{Side, Way, same_name};
use crate::connections::http::{address, check_status, http_of, read_json, transport_error};
use crate::http::Method;
use crate::kind::Context;
use crate::process::quoted;
use crate::text::Text;

/// The largest answer that a value is read from, in bytes.
const ANSWER: usize = 1024 * 1024;

/// Requests that read, apply and release a value. In the JSON bodies the text `$ORIGINAL`, as a whole string, stands for the
/// value that was read first and `$VALUE` for the value that freezes, each with its JSON type.
///
/// A server may act on a request that was not answered in time, that it was too busy for, or that it only took, when the freeze has long been lifted. So
/// when the value was not seen after `apply`, the release is sent even where the original value is read, and it is watched that it stays: until `settle`,
/// or the connection's `timeout` when that is longer, is over since `apply` was sent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpWay {
    /// The connection, of a type that speaks HTTP.
    connection: String,
    /// A name for what is frozen, the same in every runbook that freezes it; capital letters and the number of spaces make no difference. What is read
    /// at the same URL and `field` is never frozen twice either, whatever it is called: the headers of the connection do not count there.
    #[schemars(length(min = 1))]
    target: String,
    /// What tells the value from others at the same URL and `field`, such as the tenant that a header names. Default: nothing does.
    #[serde(default)]
    scope: Option<Text>,
    /// How the present value is read.
    read: Read,
    /// How the value that freezes is put there. It may be sent twice.
    apply: Write,
    /// How the original value is put back. It may be sent twice, and where nothing was changed.
    release: Write,
    /// The value that freezes, as `read` finds it.
    value: Value,
}

/// A request that reads a value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The method. Default: `GET`.
    #[serde(default)]
    method: Method,
    /// The path below the connection's URL.
    path: String,
    /// JSON pointer to the value in the answer, such as `/settings/max_mb`; empty for the whole answer.
    field: String,
}

/// A request that changes a value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The method. Default: `PUT`.
    #[serde(default = "put")]
    method: Method,
    /// The path below the connection's URL.
    path: String,
    /// The JSON body. Default: none.
    #[serde(default)]
    json: Option<Value>,
}

fn put() -> Method {
    Method::Put
}

impl HttpWay {
    /// The way with the address of the value, which tells it from every other.
    pub(super) fn way(&self, cx: &Context) -> Result<Addressed, StepError> {
        let http = http_of(&cx.resources, &self.connection)?;
        let request = http.request(self.read.method.into(), &self.read.path)?.build().map_err(|error| {
            StepError::invalid(format!("`{}` can not be read", self.read.path)).with_source(&error)
        })?;
        let scope = self.scope.as_ref().map(|scope| format!(" of {scope}")).unwrap_or_default();
        let target = cx.redactor.text(&format!("http:{}#{}{scope}", request.url(), self.read.field));
        Ok(Addressed { config: self.clone(), target })
    }

    async fn write(&self, cx: &Context, write: &Write, original: &Value) -> Result<(), StepError> {
        let what = format!("{} {}", write.method.name(), write.path);
        let http = http_of(&cx.resources, &self.connection)?;
        let mut request = http.request(write.method.into(), &write.path)?;
        if let Some(json) = &write.json {
            request = request.json(&filled_in(json, original, &self.value));
        }
        let response = crash::around("freeze: request", request.send()).await;
        let response = response.map_err(|error| transport_error(&what, error))?;
        check_status(&what, response).await.map(drop).map_err(|error| {
            // A server that is busy, or fails, may have begun, or may do it when it is not asked any more.
            if error.kind == ErrorKind::Transient { error.unknown() } else { error }
        })
    }
}

/// The release request as it is typed in a shell, with what is still an expression as it is written; none when it is not known where it goes,
/// or what the connection sends with it.
pub(super) fn by_hand(with: &Value, connection: &Value, obligation: &Obligation) -> Option<String> {
    let release = Write::deserialize(with.get("release")?).ok()?;
    let of = |name: &str| connection.get(name).and_then(Value::as_str);
    // Others send more than is written in `headers`.
    let plain = matches!(of("type")?, "http" | "prometheus") && connection.get("session").is_none();
    let base = of("url").filter(|url| plain && !format!("{url}{}", release.path).contains("${{"))?;
    let mut words = vec![format!("curl --fail-with-body --globoff -X {}", release.method.name())];
    let headers = connection.get("headers").and_then(Value::as_object);
    for (name, value) in headers.into_iter().flatten() {
        words.extend(["-H".to_owned(), quoted(&format!("{name}: {}", value.as_str()?))]);
    }
    if let Some(json) = &release.json {
        let body = filled_in(json, obligation.original.get("state")?, &obligation.replacement);
        words.extend(["-H".to_owned(), quoted("content-type: application/json")]);
        words.extend(["--data-raw".to_owned(), quoted(&body.to_string())]);
    }
    words.push(quoted(address(base, &release.path).ok()?.as_str()));
    Some(words.join(" ")).filter(|line| !line.contains(char::is_control))
}

/// Where a name that stands for a value would be sent as it is written.
fn sent_as_written(write: &Write) -> Option<&str> {
    fn of(json: &Value) -> Option<&str> {
        match json {
            Value::String(text) if text == "$ORIGINAL" || text == "$VALUE" => None,
            Value::String(text) => Some(text.as_str()).filter(|text| named(text)),
            Value::Array(items) => items.iter().find_map(of),
            Value::Object(members) => members
                .iter()
                .find_map(|(name, item)| Some(name.as_str()).filter(|name| named(name)).or_else(|| of(item))),
            _ => None,
        }
    }
    let path = Some(write.path.as_str()).filter(|path| named(path));
    path.or_else(|| write.json.as_ref().and_then(of))
}

fn named(text: &str) -> bool {
    text.contains("$ORIGINAL") || text.contains("$VALUE")
}

/// The body with the values in the places of their names.
fn filled_in(json: &Value, original: &Value, value: &Value) -> Value {
    match json {
        Value::String(text) if text == "$ORIGINAL" => original.clone(),
        Value::String(text) if text == "$VALUE" => value.clone(),
        Value::Array(items) => items.iter().map(|item| filled_in(item, original, value)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, item)| (name.clone(), filled_in(item, original, value))).collect()
        }
        other => other.clone(),
    }
}

/// A value at its address.
pub(super) struct Addressed {
    config: HttpWay,
    target: String,
}

#[async_trait]
impl Way for Addressed {
    fn target(&self) -> String {
        self.target.clone()
    }

    fn label(&self) -> String {
        self.config.target.clone()
    }

    fn is_called(&self, other: &Obligation) -> bool {
        other.target.starts_with("http:") && same_name(&other.label, &self.config.target)
    }

    fn replacement(&self) -> Value {
        self.config.value.clone()
    }

    async fn read(&self, cx: &Context) -> Result<Value, StepError> {
        let what = format!("{} {}", self.config.read.method.name(), self.config.read.path);
        let http = http_of(&cx.resources, &self.config.connection)?;
        let request = http.request(self.config.read.method.into(), &self.config.read.path)?;
        let response = request.send().await.map_err(|error| transport_error(&what, error))?;
        let text: Box<RawValue> = read_json(&what, check_status(&what, response).await?, ANSWER).await?;
        if let Some(lost) = exact::lost(text.get(), &self.config.read.field) {
            let label = &self.config.target;
            let message = format!("{what}: {label} has {lost}, which could not be put back as it is");
            return Err(StepError::refused(message));
        }
        let body: Value = serde_json::from_str(text.get()).map_err(|error| {
            StepError::refused(format!("{what}: the answer can not be read")).with_source(&error)
        })?;
        body.pointer(&self.config.read.field).cloned().ok_or_else(|| {
            StepError::refused(format!("{what}: the answer has nothing at `{}`", self.config.read.field))
        })
    }

    fn text(&self, present: &Value) -> String {
        // A text that would pass for a number, or for nothing, is told as one.
        let plain = |text: &&str| {
            let edges = text.trim() != *text || text.is_empty() || text.contains(char::is_control);
            !edges && serde_json::from_str::<Value>(text).is_err()
        };
        present.as_str().filter(plain).map_or_else(|| present.to_string(), str::to_owned)
    }

    async fn possible(&self, _: &Context, _: &Value) -> Result<(), StepError> {
        for (name, write) in [("apply", &self.config.apply), ("release", &self.config.release)] {
            if let Some(text) = sent_as_written(write) {
                let message = format!("`{name}`: `{text}` would be sent as it is written");
                return Err(StepError::invalid(message).with_help(
                    "`$ORIGINAL` and `$VALUE` stand for a value only as a whole string of `json`; nothing was changed",
                ));
            }
        }
        Ok(())
    }

    fn frozen(&self, present: &Value) -> bool {
        same(present, &self.config.value)
    }

    fn side(&self, present: &Value, original: &Value) -> Side {
        if same(present, original) {
            Side::Original
        } else if self.frozen(present) {
            Side::Ours
        } else {
            Side::Foreign
        }
    }

    fn makes_two_values(&self) -> bool {
        false
    }

    async fn apply(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        self.config.write(cx, &self.config.apply, original).await
    }

    async fn put_back(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        self.config.write(cx, &self.config.release, original).await
    }

    async fn insist(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        // A server that takes requests in their order takes this one after the one that freezes.
        self.put_back(cx, original).await
    }

    fn call_takes(&self, cx: &Context) -> Result<Option<Duration>, StepError> {
        Ok(Some(http_of(&cx.resources, &self.config.connection)?.timeout()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_go_in_with_their_type_and_only_as_whole_strings() {
        let body = json!({"set": {"max": "$ORIGINAL", "was": ["$VALUE", "x $ORIGINAL"]}, "$VALUE": 1});
        assert_eq!(
            filled_in(&body, &json!({"mb": 25}), &json!(0)),
            json!({"set": {"max": {"mb": 25}, "was": [0, "x $ORIGINAL"]}, "$VALUE": 1})
        );
    }
}
