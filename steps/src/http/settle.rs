//! Whether a request that was sent has taken effect, when nobody saw its answer.

use std::time::{Duration, Instant};

use runbook_engine::duration::Duration as Spell;
use runbook_engine::error::StepError;
use runbook_engine::step::Settlement;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Expect, HttpOutputs, HttpRequest, Method, took_effect};
use crate::connections::http::http_of;
use crate::had;
use crate::in_flight;
use crate::kind::Context;

/// How long to wait before an effect is looked for again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A look that tells whether an effect is there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The method. Default: `GET`.
    #[serde(default)]
    pub(super) method: Method,
    /// The path below the connection's URL.
    pub(super) path: String,
    /// The answer when the effect is there. Default: any status from 200 to 299.
    #[serde(default)]
    pub(super) expect: Expect,
}

impl HttpRequest {
    /// What an earlier attempt came to, when it took effect since the step was last reopened. `wait` says how much is waited of the time for which it
    /// may still be under way.
    pub(super) async fn settled(
        &self,
        series: u32,
        cx: &Context,
        wait: fn(Duration) -> Result<Duration, StepError>,
    ) -> Result<Option<HttpOutputs>, StepError> {
        let view = cx.ledger.view().await?;
        if let Some(outputs) = had::outputs(&view, series) {
            return Ok(Some(outputs));
        }
        if view.unsettled.is_empty() {
            return Ok(None);
        }
        let found = match &self.check {
            Some(check) => {
                let takes = self.takes(cx)?;
                let left = view.unsettled.iter().map(|batch| in_flight::left(&batch.what, takes)).max();
                cx.unless_abandoned(self.look_out(check, left.unwrap_or_default(), cx, wait)).await?
            }
            None => None,
        };
        let settlement = match &found {
            Some(outputs) => Settlement { already: self.items(), ..took_effect(outputs, series)? },
            None => Settlement { outcome: json!({ "unknown": true }), ..Settlement::default() },
        };
        for batch in &view.unsettled {
            cx.ledger.settle(batch.number, settlement.clone()).await?;
        }
        Ok(found)
    }

    /// How long it may take: opening a session, and the request itself.
    pub(super) fn takes(&self, cx: &Context) -> Result<Duration, StepError> {
        let http = http_of(&cx.resources, &self.connection)?;
        let in_session = http.session().is_some() && self.session.unwrap_or(true);
        Ok(http.timeout() * if in_session { 2 } else { 1 })
    }

    /// Looks whether the effect is there, until it is or the request that was sent can not be under way any more: before that, a look that
    /// finds nothing says nothing.
    async fn look_out(
        &self,
        check: &Check,
        left: Duration,
        cx: &Context,
        wait: fn(Duration) -> Result<Duration, StepError>,
    ) -> Result<Option<HttpOutputs>, StepError> {
        let (mut pause, end) = (FIRST_PAUSE, Instant::now() + left);
        loop {
            let begun = Instant::now();
            let found = self.look(check, cx).await?;
            if found.is_some() || begun >= end {
                return Ok(found);
            }
            wait(end.saturating_duration_since(begun))?;
            if pause == FIRST_PAUSE {
                let most = Spell::from_secs(left.as_secs() + 1);
                cx.live.say(&format!(
                    "the check finds nothing, but the request may still be under way: looking again for at most {most}"
                ));
            }
            let next = (Instant::now() + pause).min(end);
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = cx.stop.cancelled() => cx.checkpoint()?,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Looks whether the effect is there.
    async fn look(&self, check: &Check, cx: &Context) -> Result<Option<HttpOutputs>, StepError> {
        let what = format!("the check {} {}", check.method.name(), check.path);
        let http = http_of(&cx.resources, &self.connection)?;
        let mut request = http.request(check.method.into(), &check.path)?;
        if let Some((field, secret)) = self.session(&http).await? {
            request = request.query(&[(field, secret)]);
        }
        let answer = Answer::of(&what, request).await?;
        if matches!(answer.status, 408 | 429 | 500..) && !answer.has_status(&check.expect) {
            // Nothing is known yet, neither that it happened nor that it did not.
            return Err(StepError::transient(format!("{what}: status {}", answer.status)));
        }
        if matches!(answer.status, 300..=399 | 401 | 403 | 407) && !answer.has_status(&check.expect) {
            // Who may not look, or is sent elsewhere, has seen nothing.
            let message =
                format!("{what}: status {}, which does not tell whether the effect is there", answer.status);
            let help = if answer.status < 400 {
                "ask where the answer leads to: a redirect is not followed"
            } else {
                "let the connection read what the check asks for: one that finds nothing is answered with a status such as 404"
            };
            return Err(StepError::refused(message).with_help(help));
        }
        Ok(answer.problem(&check.expect).is_none().then(|| answer.outputs(&cx.redactor, true)))
    }
}
