//! The effect that an author declares of a step of which nobody else can know it, and what it counts against the limits.

use runbook_engine::error::StepError;
use runbook_engine::kinds::{Class, Effect, Repeat};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::kind::Context;

/// What a step does to the world, as its author declares it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// How deep it cuts.
    pub class: Class,
    /// Whether doing it twice is the same as doing it once.
    pub repeat: Repeat,
    /// How many items it destroys, when it destroys: so many are asked of the limits before it begins. Default: 1.
    #[serde(default)]
    pub items: Option<u64>,
}

impl Declared {
    /// The same without the number of items.
    pub fn effect(self) -> Effect {
        Effect { class: self.class, repeat: self.repeat }
    }

    /// How many items it destroys; 0 when it destroys nothing.
    pub fn destroyed(self) -> u64 {
        if self.class == Class::Destroy { self.items.unwrap_or(1) } else { 0 }
    }
}

/// The effect that the author declares under `effect`, when it can be read before expressions have values.
pub(crate) fn declared(with: &Value) -> Option<Effect> {
    let effect = with.get("effect")?;
    let part = |name: &str| effect.get(name).cloned();
    let class = serde_json::from_value(part("class")?).ok()?;
    let repeat = serde_json::from_value(part("repeat")?).ok()?;
    Some(Effect { class, repeat })
}

/// How many of `items` the limits have not been asked for yet. What an attempt was charged that did not have its effect, or of
/// which nobody knows, is not charged again when the same is repeated.
pub(crate) async fn uncharged(items: u64, cx: &Context) -> Result<u64, StepError> {
    let totals = cx.ledger.view().await?.totals;
    let wanted = items.saturating_add(totals.done).saturating_add(totals.already);
    Ok(wanted.saturating_sub(cx.ledger.charged_items().await?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_is_known_before_the_number_of_items_is() {
        let effect =
            json!({"class": "destroy", "repeat": "once", "items": "${{ steps.count.outputs.count }}"});
        let destroy = Effect { class: Class::Destroy, repeat: Repeat::Once };
        assert_eq!(declared(&json!({ "effect": effect })), Some(destroy));
        let unknown = json!({"class": "${{ inputs.class }}", "repeat": "once"});
        assert_eq!(declared(&json!({ "effect": unknown })), None);
        assert_eq!(declared(&json!({ "effect": "${{ inputs.effect }}" })), None);
        assert_eq!(declared(&json!({})), None);
    }
}
