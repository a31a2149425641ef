//! Which items of a step failed, out of its ledger.

use std::collections::BTreeMap;

use runbook_engine::error::StepError;
use runbook_engine::store::BatchRow;
use serde_json::Value;

use super::shown::short;
use crate::kind::Context;

/// How many batches with failures are read, and how many failing items are named.
const MOST: usize = 100;

/// The last thing said of each item that failed, by key. Batches say it as `errors: {KEY: ERROR}` or as `failed: WHY` of the one
/// `key` that was announced.
pub(super) async fn of_step(cx: &Context, step: &str) -> Result<BTreeMap<String, String>, StepError> {
    let store = &cx.history.store;
    let rows = store.batches(&cx.history.run, step, 0, MOST, true).await.map_err(|error| error.for_step())?;
    let mut failures = BTreeMap::new();
    for row in rows {
        for (key, why) in of_batch(&row) {
            if failures.len() < MOST || failures.contains_key(&key) {
                failures.insert(key, why);
            }
        }
    }
    Ok(failures)
}

fn of_batch(row: &BatchRow) -> Vec<(String, String)> {
    let Some(settled) = &row.settled else { return Vec::new() };
    if let Some(errors) = settled.outcome.get("errors").and_then(Value::as_object) {
        return errors.iter().map(|(key, error)| (key.clone(), said(error))).collect();
    }
    let key = row.intent.get("key").and_then(Value::as_str);
    let why = settled.outcome.get("failed").map_or_else(|| said(&settled.outcome), said);
    vec![(key.map_or_else(|| format!("batch {}", row.batch), str::to_owned), why)]
}

fn said(error: &Value) -> String {
    let text = error.get("message").unwrap_or(error);
    short(&text.as_str().map_or_else(|| text.to_string(), str::to_owned), 300)
}
