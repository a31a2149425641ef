//! Step kind `count`: how many items collections hold, and whether that is as it should be.

use std::collections::BTreeMap;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kind::{Context, End, Step};
use crate::one_or_many::OneOrMany;

/// Counts the items of collections. What is expected holds for each collection by itself; the step fails when it does not.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// The collections, or one.
    pub collections: OneOrMany<String>,
    /// How many items each must hold, exactly.
    #[serde(default)]
    pub expect: Option<u64>,
    /// How many items each may hold.
    #[serde(default)]
    pub at_most: Option<u64>,
    /// How many items each must hold at the least.
    #[serde(default)]
    pub at_least: Option<u64>,
}

/// What was counted.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// How many items each collection holds, by its name in the runbook.
    pub counts: BTreeMap<String, u64>,
    /// Their sum.
    pub total: u64,
}

#[async_trait]
impl Step for Count {
    const NAME: &'static str = "count";
    const SUMMARY: &'static str =
        "Counts the items of collections, and fails when there are not as many as there should be";
    const EXAMPLE: &'static str = "\
id: nothing_left
uses: count
with:
  collections: [blobs, metadata]
  expect: 0
";
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        if self.collections.0.is_empty() {
            return Err(StepError::invalid("`collections` is empty"));
        }
        let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
        for name in &self.collections.0 {
            cx.checkpoint()?;
            let collection = cx.resources.collection(name)?;
            let count = cx.unless_abandoned(collection.count()).await?;
            if let Some(why) = self.wrong(count) {
                wrong.push(format!("`{name}` ({}) holds {count}, and {why}", collection.describe()));
            }
            counts.insert(name.clone(), count);
        }
        if wrong.is_empty() {
            let total = counts.values().sum();
            return Ok(End::Done(Outputs { counts, total }));
        }
        Err(StepError::gate(wrong.join("; ")))
    }
}

impl Count {
    fn wrong(&self, count: u64) -> Option<String> {
        let expect = self.expect.filter(|expect| count != *expect);
        let most = self.at_most.filter(|most| count > *most);
        let least = self.at_least.filter(|least| count < *least);
        let said = [
            expect.map(|number| format!("exactly {number} were expected")),
            most.map(|number| format!("at most {number} were expected")),
            least.map(|number| format!("at least {number} were expected")),
        ];
        let said: Vec<_> = said.into_iter().flatten().collect();
        (!said.is_empty()).then(|| said.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations() {
        let count = Count {
            collections: OneOrMany(vec!["a".to_owned()]),
            expect: None,
            at_most: Some(5),
            at_least: Some(2),
        };
        assert_eq!((count.wrong(2), count.wrong(5)), (None, None));
        assert_eq!(count.wrong(6).unwrap(), "at most 5 were expected");
        assert_eq!(count.wrong(0).unwrap(), "at least 2 were expected");
        assert!(Count { expect: Some(0), ..count }.wrong(1).unwrap().starts_with("exactly 0"));
    }
}
