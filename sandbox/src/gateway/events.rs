//! Structured events: one JSON line each on standard output, members in alphabetical order.

use std::{collections::BTreeMap, io::Write};

use serde_json::Value;

use super::{Gateway, config::Profile, failure::Failure};
use crate::{crypto, time};

/// An event being put together.
pub(super) struct Event(BTreeMap<&'static str, Value>);

impl Event {
    pub(super) fn new(kind: &'static str, level: &'static str) -> Self {
        let event = Self(BTreeMap::new());
        event.with("timestamp", time::now()).with("kind", kind).with("level", level)
    }

    /// An event about a request, with an id of its own.
    pub(super) fn of_request(kind: &'static str, level: &'static str) -> Self {
        Self::new(kind, level).with("requestId", crypto::uuid())
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// As [`Event::with`]; nothing when there is no value.
    pub(super) fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(super) fn emit(self) {
        let members: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name))).collect();
        // A reader that went away must not stop the gateway.
        let _ = writeln!(std::io::stdout().lock(), "{{{}}}", members.join(","));
    }
}

impl Gateway {
    /// Logs a refused request. On the wire such events are missing, as in the real server.
    pub(super) fn log_failure(
        &self,
        kind: &'static str,
        failure: &Failure,
        describe: impl FnOnce(Event) -> Event,
    ) {
        if self.config.profile == Profile::Wire {
            return;
        }
        let level = if failure.status.is_server_error() { "error" } else { "warn" };
        let event = Event::of_request(kind, level)
            .with("status", failure.status.as_u16())
            .with("code", failure.code)
            .with("message", failure.message.clone());
        describe(event).emit();
    }
}
