//! Removes what a probe created in a system that was not frozen.

use std::time::Duration as StdDuration;

use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::collections::{Doomed, KeyOutcome};
use crate::kind::Context;

/// How often an item that the probe made is tried to be removed.
const REMOVALS: u32 = 4;

/// How to remove what the probe created.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The id of what was created: the name of a member of the answer, or a JSON pointer into it.
    pub(super) field: String,
    /// The collections that it is removed from, in this order.
    pub(super) collections: Vec<String>,
    /// The field of their records that holds the file's name, so that it is found when no answer came. Default: none; then what
    /// was created without an answer stays.
    #[serde(default)]
    pub(super) find_by: Option<String>,
}

impl Undo {
    /// The id in an answer.
    pub(super) fn created(&self, answer: &Value) -> Option<String> {
        let field = &self.field;
        let value = if field.starts_with('/') { answer.pointer(field) } else { answer.get(field) }?;
        match value {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Removes what has the probe's file name, everywhere; how many items that were.
    pub(super) async fn sweep(&self, cx: &Context, name: &str) -> Result<u64, StepError> {
        let Some(field) = &self.find_by else { return Ok(0) };
        let mut ids = Vec::new();
        for collection in &self.collections {
            let found = cx.resources.collection(collection)?.find(&[(field, name)], 100).await?;
            ids.extend(found.into_iter().map(|item| item.key));
        }
        ids.sort();
        ids.dedup();
        for id in &ids {
            self.remove(cx, id).await?;
            cx.live.say(&format!("removed {id}, which a probe had created"));
        }
        Ok(ids.len() as u64)
    }

    /// Removes the item of this id from every collection.
    pub(super) async fn remove(&self, cx: &Context, id: &str) -> Result<(), StepError> {
        for name in &self.collections {
            let collection = cx.resources.collection(name)?;
            let mut attempt = 1;
            loop {
                let outcome = match collection.delete(&[Doomed::whatever(id)]).await {
                    Ok(outcomes) => outcomes.into_iter().next(),
                    Err(error) => Some(KeyOutcome::Failed(error)),
                };
                match outcome {
                    Some(KeyOutcome::Failed(error)) if error.kind.retryable() && attempt < REMOVALS => {
                        tokio::time::sleep(StdDuration::from_millis(200) * 2_u32.pow(attempt)).await;
                        attempt += 1;
                    }
                    Some(KeyOutcome::Failed(mut error)) => {
                        error.message = format!("{id} in `{name}`: {}", error.message);
                        return Err(error);
                    }
                    Some(KeyOutcome::Done | KeyOutcome::Already) | None => break,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_id_is_found_by_name_or_pointer() {
        let answer = json!({"attachment_id": "a", "made": [{"id": 7}], "empty": ""});
        let created = |field: &str| {
            Undo { field: field.to_owned(), collections: Vec::new(), find_by: None }.created(&answer)
        };
        assert_eq!(created("attachment_id").as_deref(), Some("a"));
        assert_eq!(created("/made/0/id").as_deref(), Some("7"));
        assert_eq!(created("empty"), None);
        assert_eq!(created("id"), None);
    }
}
