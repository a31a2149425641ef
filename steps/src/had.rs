//! What the ledger keeps of an attempt that took effect, so that a crash after it costs nothing: the step that is entered again gives
//! the same outputs and does nothing.

use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::step::{LedgerView, Settlement};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kind::Context;

/// The cursor of such an attempt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Had<T> {
    /// How often the step had been reopened: what is reopened is done again.
    series: u32,
    /// What it came to.
    outputs: T,
}

/// How often the step was reopened so far.
pub(crate) async fn series(cx: &Context) -> Result<u32, StepError> {
    Ok(cx.history.state().await?.step(&cx.step).map_or(0, |state| state.reopened))
}

/// The record of an attempt that took effect.
pub(crate) fn settlement(
    outputs: &impl Serialize,
    series: u32,
    outcome: Value,
) -> Result<Settlement, StepError> {
    let cursor = serde_json::to_value(Had { series, outputs })
        .map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))?;
    Ok(Settlement { cursor, outcome, ..Settlement::default() })
}

/// Nobody could look whether `what` took effect. Later, with other secrets or where more may be read, it may be possible: whatever was in the way, the
/// run stays open for another cancel.
pub(crate) fn not_looked(what: &str, error: StepError) -> StepError {
    let message = format!("whether {what} took effect is not known: {}", error.message);
    StepError { kind: ErrorKind::Transient, outcome: Outcome::Failed, message, ..error }
}

/// What an earlier attempt came to, when it took effect since the step was last reopened.
pub(crate) fn outputs<T: DeserializeOwned>(view: &LedgerView, series: u32) -> Option<T> {
    let had = Had::<T>::deserialize(view.cursor.as_ref()?).ok()?;
    (had.series == series).then_some(had.outputs)
}

/// What an earlier attempt came to, whether or not the step was reopened since.
pub(crate) fn outputs_of_any_series<T: DeserializeOwned>(view: &LedgerView) -> Option<T> {
    Had::<T>::deserialize(view.cursor.as_ref()?).ok().map(|had| had.outputs)
}
