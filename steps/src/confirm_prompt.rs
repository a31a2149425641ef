//! Step kind `confirm-prompt`: a person types phrases, or nothing goes on.

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::artifact::Artifacts;
use runbook_engine::error::StepError;
use runbook_engine::event::{Answer, Question};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::facts;
use crate::kind::{Context, End, Step};

/// Asks a person to type one phrase after the other, exactly. A wrong phrase fails the step, and nothing that needs it starts.
///
/// Without a terminal the run waits; `runbook answer` gives the phrase later. There is no way to answer in advance other than
/// `--confirm STEP=PHRASE` together with `--plan FILE`; with `terminal` there is none, and `runbook answer` has to be typed at a terminal too.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmPrompt {
    /// What is about to happen, shown with every phrase.
    pub message: String,
    /// The phrases, asked for in this order, one at a time. Each must be typed exactly: case and spaces count.
    #[serde(deserialize_with = "phrases")]
    #[schemars(length(min = 1))]
    pub phrases: Vec<String>,
    /// Whether only a person at a terminal answers: then neither `--confirm` nor a phrase on the command line of `runbook answer` counts. Default: false.
    #[serde(default)]
    pub terminal: bool,
    /// Facts to look at before answering, by label: numbers, short texts, and files of the run such as the `findings` of a step, shown in the order written.
    #[serde(default)]
    pub facts: Map<String, Value>,
}

/// What a confirmed prompt leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Confirmed {
    /// Each phrase with who typed it and when, in order.
    pub confirmed_by: Vec<Confirmation>,
}

/// One phrase that was given.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Confirmation {
    /// The phrase.
    pub phrase: String,
    /// Who gave it.
    pub by: String,
    /// When, RFC 3339, UTC.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

fn phrases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let phrases = Vec::<String>::deserialize(deserializer)?;
    if phrases.is_empty() {
        return Err(D::Error::custom("`phrases` needs at least one phrase"));
    }
    match phrases.iter().find(|phrase| phrase.trim() != phrase.as_str() || phrase.is_empty()) {
        Some(phrase) => {
            Err(D::Error::custom(format!("the phrase {phrase:?} is empty or has spaces at its ends")))
        }
        None => Ok(phrases),
    }
}

#[async_trait]
impl Step for ConfirmPrompt {
    const NAME: &'static str = "confirm-prompt";
    const SUMMARY: &'static str = "Ask a person to type phrases exactly before anything goes on";
    const EXAMPLE: &'static str = r"id: confirm
uses: confirm-prompt
with:
  message: Every attachment of ChatKit is about to be deleted.
  phrases: [RESET CHATKIT, I HAVE TOLD THE TEAMS]
  facts: { corpus: chatkit, window: 30m }
";
    type Outputs = Confirmed;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let asks = self.phrases.iter().map(|phrase| self.question(phrase, None)).collect();
        Ok(Foresight { does: "ask a person".to_owned(), asks, ..Foresight::default() })
    }

    async fn run(self, cx: &Context) -> Result<End<Confirmed>, StepError> {
        self.next(&cx.answers, Some(&cx.artifacts))
    }
}

impl ConfirmPrompt {
    fn question(&self, phrase: &str, artifacts: Option<&Artifacts>) -> Question {
        Question::Phrase {
            message: self.message.clone(),
            phrase: phrase.to_owned(),
            terminal: self.terminal,
            facts: facts::in_words(&self.facts, artifacts),
        }
    }

    /// The first phrase that was not given yet, or the end of it.
    fn next(&self, answers: &[Answer], artifacts: Option<&Artifacts>) -> Result<End<Confirmed>, StepError> {
        let mut confirmed_by = Vec::with_capacity(self.phrases.len());
        for (index, phrase) in self.phrases.iter().enumerate() {
            let Some(answer) = answers.get(index) else {
                return Ok(End::Ask(self.question(phrase, artifacts)));
            };
            if line(&answer.text) != phrase {
                return Err(StepError::gate("the phrase was not given").with_help(
                    "nothing that needs this step was started; resume the run to be asked again",
                ));
            }
            confirmed_by.push(Confirmation { phrase: phrase.clone(), by: answer.by.clone(), at: answer.at });
        }
        Ok(End::Done(Confirmed { confirmed_by }))
    }
}

/// The text without the end of its line.
fn line(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use runbook_engine::error::ErrorKind;
    use serde_json::json;

    use super::*;

    fn prompt() -> ConfirmPrompt {
        serde_json::from_value(json!({
            "message": "Delete 1047 attachments?",
            "phrases": ["RESET CHATKIT", "YES"],
            "facts": { "target": "prod", "attachments": 1047 }
        }))
        .unwrap()
    }

    fn answers(texts: &[&str]) -> Vec<Answer> {
        texts
            .iter()
            .map(|text| Answer { text: (*text).to_owned(), by: "ada".to_owned(), at: Timestamp::UNIX_EPOCH })
            .collect()
    }

    #[test]
    fn asks_one_phrase_at_a_time_in_order() {
        let asked = |texts: &[&str]| match prompt().next(&answers(texts), None).unwrap() {
            End::Ask(Question::Phrase { phrase, facts, .. }) => (phrase, facts),
            other => panic!("{other:?}"),
        };
        let (phrase, facts) = asked(&[]);
        assert_eq!(phrase, "RESET CHATKIT");
        let expected = [("target", "prod"), ("attachments", "1047")];
        assert_eq!(facts, expected.map(|(label, value)| (label.to_owned(), value.to_owned())));
        assert_eq!(asked(&["RESET CHATKIT\n"]).0, "YES");
        let End::Done(done) = prompt().next(&answers(&["RESET CHATKIT", "YES\r\n"]), None).unwrap() else {
            panic!()
        };
        let who: Vec<_> =
            done.confirmed_by.iter().map(|one| (one.phrase.as_str(), one.by.as_str())).collect();
        assert_eq!(who, [("RESET CHATKIT", "ada"), ("YES", "ada")]);
    }

    #[test]
    fn anything_but_the_phrase_stops_the_run() {
        for wrong in ["", "reset chatkit", " RESET CHATKIT", "RESET CHATKIT ", "RESET CHATKIT\n\n", "YES"] {
            let error = prompt().next(&answers(&[wrong, "YES"]), None).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Gate, "the phrase was not given"));
        }
        assert!(prompt().next(&answers(&["RESET CHATKIT", "RESET CHATKIT"]), None).is_err());
    }

    #[test]
    fn phrases_that_can_not_be_typed_are_refused() {
        for phrases in [json!([]), json!([""]), json!(["A "]), json!("A")] {
            let with = json!({ "message": "m", "phrases": phrases });
            assert!(serde_json::from_value::<ConfirmPrompt>(with).is_err());
        }
    }
}
