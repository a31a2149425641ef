//! Step kind `approval`: somebody in a role approves, or nothing goes on.

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::artifact::Artifacts;
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::event::{Answer, Question};
use runbook_engine::kinds::Effect;
use runbook_engine::question::{APPROVE, word_and_reason};
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kind::{Context, End, Step};
use crate::{facts, had};

/// Waits until somebody in a role has approved. The run stands still meanwhile and takes up no process; `runbook answer RUN approve` (or
/// `deny`, each with a reason after a colon) goes on with it. A denial fails the step, and nothing that needs it starts; an answer that
/// comes after `within` counts for nothing and fails it too.
///
/// Who asked for the run does not approve it, unless `allow_runner` says so. People go by the names of their accounts, whatever `USER`
/// says; root is who it says to be by `USER` or by `sudo`. Whoever may write to the state directory may approve as anybody.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What is to be approved, and what to look at for that.
    pub message: String,
    /// In which role somebody approves, such as `release manager`.
    pub role: String,
    /// Who has the role: names of users, or `user@host`. Default: anybody.
    #[serde(default)]
    pub approvers: Vec<String>,
    /// Whether who asked for the run may approve it too. Default: no.
    #[serde(default)]
    pub allow_runner: bool,
    /// How long an answer is waited for, from the moment of asking. Default: as long as the run waits.
    #[serde(default)]
    pub within: Option<Duration>,
    /// Facts to look at before answering, by label: numbers, short texts, and files of the run such as the `findings` of a step, shown in the order written.
    #[serde(default)]
    pub facts: Map<String, Value>,
}

/// What an approval leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Approved {
    /// Who approved.
    pub by: String,
    /// In which role.
    pub role: String,
    /// When, RFC 3339, UTC.
    #[schemars(with = "String")]
    pub approved_at: Timestamp,
    /// The reason that was given with it.
    pub reason: Option<String>,
}

#[async_trait]
impl Step for Approval {
    const NAME: &'static str = "approval";
    const SUMMARY: &'static str = "Wait until somebody in a role, and not who runs it, has approved";
    const EXAMPLE: &'static str = "\
- id: reviewed
  uses: approval
  with:
    message: Staging is done. Is production next?
    role: release manager
    approvers: [ada, grace]
    within: 24h
";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/approved_at"];
    type Outputs = Approved;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let does = format!("wait for the approval of {}", self.role);
        Ok(Foresight { does, asks: vec![self.question(None, None, None)], ..Foresight::default() })
    }

    async fn run(self, cx: &Context) -> Result<End<Approved>, StepError> {
        let runner = (!self.allow_runner).then(|| cx.run.by.clone());
        let until = match self.within {
            Some(within) => Some(until(within, cx).await?),
            None => None,
        };
        let question = self.question(runner, until, Some(&cx.artifacts));
        match cx.answers.last() {
            None => Ok(End::Ask(question)),
            Some(answer) => self.judge(answer, &question).map(End::Done),
        }
    }
}

/// Until when an answer counts: fixed when it is first asked for, and anew when the step was reopened.
async fn until(within: Duration, cx: &Context) -> Result<Timestamp, StepError> {
    let name = format!("until {}", had::series(cx).await?);
    let until = cx.ledger.remember(&name, Value::from(within.after(Timestamp::now()).to_string())).await?;
    let read = until.as_str().and_then(|text| text.parse().ok());
    read.ok_or_else(|| StepError::new(ErrorKind::Bug, "the time of the approval is unreadable"))
}

impl Approval {
    fn question(
        &self,
        except: Option<String>,
        until: Option<Timestamp>,
        artifacts: Option<&Artifacts>,
    ) -> Question {
        Question::Approval {
            message: self.message.clone(),
            role: self.role.clone(),
            approvers: self.approvers.clone(),
            except,
            until,
            facts: facts::in_words(&self.facts, artifacts),
        }
    }

    /// What an answer to the question comes to.
    fn judge(&self, answer: &Answer, asked: &Question) -> Result<Approved, StepError> {
        const HELP: &str = "nothing that needs this step was started; resume the run to ask again";
        let stopped = |why: String| Err(StepError::gate(why).with_help(HELP));
        if let Some(why) = asked.refuses(&answer.by) {
            return stopped(format!("the answer does not count: {why}"));
        }
        if let Question::Approval { until: Some(until), .. } = asked
            && answer.at > *until
        {
            return stopped(format!(
                "the time for an approval was over at {until}, and the answer came at {}",
                answer.at
            ));
        }
        let (word, reason) = word_and_reason(&answer.text);
        let reason = reason.map(str::to_owned);
        if word == APPROVE {
            return Ok(Approved {
                by: answer.by.clone(),
                role: self.role.clone(),
                approved_at: answer.at,
                reason,
            });
        }
        let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        stopped(format!("{} denied it as {}{why}", answer.by, self.role))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ASKED: Timestamp = Timestamp::UNIX_EPOCH;

    fn judged(with: Value, text: &str, by: &str, after_hours: u64) -> Result<Approved, StepError> {
        let step: Approval = serde_json::from_value(with).unwrap();
        let until = step.within.map(|within| within.after(ASKED));
        let question = step.question((!step.allow_runner).then(|| "ada@ops".to_owned()), until, None);
        let at = Duration::from_secs(after_hours * 3600).after(ASKED);
        step.judge(&Answer { text: text.to_owned(), by: by.to_owned(), at }, &question)
    }

    #[test]
    fn only_an_approval_in_time_of_somebody_else_in_the_role_goes_on() {
        let base = json!({ "message": "Go?", "role": "release manager", "approvers": ["ada", "bob"], "within": "24h" });
        let mut own = base.clone();
        own["allow_runner"] = json!(true);
        for (with, text, by, hours, wrong) in [
            (&base, "approve", "bob@ops", 1, None),
            (&base, "approve: looked at it", "bob@laptop", 24, None),
            (&base, "approve", "bob@ops", 25, Some("the time for an approval was over")),
            (&base, "approve", "ada@ops", 1, Some("ada@ops runs it")),
            (&base, "approve", "eve@ops", 1, Some("eve@ops is not release manager")),
            (&base, "deny: too late", "bob@ops", 1, Some("bob@ops denied it as release manager: too late")),
            (&base, "deny", "bob@ops", 1, Some("bob@ops denied it")),
            (&base, "yes", "bob@ops", 1, Some("denied")),
            (&own, "approve", "ada@ops", 1, None),
        ] {
            match (judged(with.clone(), text, by, hours), wrong) {
                (Ok(approved), None) => assert_eq!(approved.by, by),
                (Err(error), Some(wrong)) => {
                    assert_eq!(error.kind, ErrorKind::Gate);
                    assert!(error.message.contains(wrong), "{text} {by}: {}", error.message);
                }
                (other, _) => panic!("{text} by {by} after {hours} h: {other:?}"),
            }
        }
    }

    #[test]
    fn the_reason_is_kept() {
        let with = json!({ "message": "Go?", "role": "owner" });
        let reason = |text| judged(with.clone(), text, "bob@ops", 0).unwrap().reason;
        assert_eq!(reason("approve"), None);
        assert_eq!(reason("approve:"), None);
        assert_eq!(reason("approve: see OPS-12"), Some("see OPS-12".to_owned()));
    }
}
