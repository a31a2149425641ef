//! What a person is asked, and which answers count.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Type this phrase, exactly, or nothing happens.
    Phrase {
        /// What is about to happen.
        message: String,
        /// The phrase.
        phrase: String,
        /// Whether only a person at a terminal answers it: neither beforehand, nor on a command line.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        terminal: bool,
        /// Facts to look at before answering: label and value.
        facts: Vec<(String, String)>,
    },
    /// It is not known whether the step took effect.
    Settle {
        /// What is known.
        message: String,
        /// Whether it surely did, once, and is not done again unasked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        succeeded: bool,
    },
    /// Somebody in a role approves, or denies.
    Approval {
        /// What is to be approved.
        message: String,
        /// The role.
        role: String,
        /// Who has the role: names of users, or `user@host`. Anybody when it is empty.
        approvers: Vec<String>,
        /// Who may not approve, though in the role: whoever asked for the run.
        except: Option<String>,
        /// Until when an answer counts.
        #[schemars(with = "Option<String>")]
        until: Option<Timestamp>,
        /// Facts to look at before answering: label and value.
        facts: Vec<(String, String)>,
    },
}

/// The answer that a step took effect.
pub const DONE: &str = "done";
/// The answer that it did not.
pub const RETRY: &str = "retry";
/// The answer that it is to fail.
pub const ABORT: &str = "abort";
/// The answer that approves.
pub const APPROVE: &str = "approve";
/// The answer that does not.
pub const DENY: &str = "deny";

/// The answers to the question whether a step took effect, with what each means.
const SETTLE: [(&str, &str); 3] = [
    (DONE, "it did take effect: go on after it"),
    (RETRY, "it did not: do it again"),
    (ABORT, "stop here: the run fails, and can be resumed"),
];

/// The answers for a step that succeeded, and that all before and after it is done again for.
const SETTLE_SUCCEEDED: [(&str, &str); 3] = [
    (DONE, "what it did counts: go on after it, and keep its outputs"),
    (RETRY, "do it once more"),
    SETTLE[2],
];

/// The answers to the question for an approval, with what each means. A reason may follow after a colon.
const APPROVAL: [(&str, &str); 2] = [(APPROVE, "it may go on"), (DENY, "it may not: the run stops here")];

/// The word of an answer to an approval, and the reason that was given with it.
pub fn word_and_reason(text: &str) -> (&str, Option<&str>) {
    let (word, reason) = text.split_once(':').map_or((text, ""), |(word, reason)| (word, reason.trim()));
    (word.trim(), (!reason.is_empty()).then_some(reason))
}

impl Question {
    /// Whether a text is an answer to it.
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Phrase { phrase, .. } => phrase == text,
            Self::Settle { .. } => SETTLE.iter().any(|(word, _)| *word == text),
            Self::Approval { .. } => {
                let (word, _) = word_and_reason(text);
                APPROVAL.iter().any(|(known, _)| *known == word)
            }
        }
    }

    /// The words that answer it, with what each means; none for a phrase.
    pub fn words(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Phrase { .. } => &[],
            Self::Settle { succeeded: true, .. } => &SETTLE_SUCCEEDED,
            Self::Settle { .. } => &SETTLE,
            Self::Approval { .. } => &APPROVAL,
        }
    }

    /// What is asked.
    pub fn message(&self) -> &str {
        match self {
            Self::Phrase { message, .. } | Self::Settle { message, .. } | Self::Approval { message, .. } => {
                message
            }
        }
    }

    /// The facts to look at.
    pub fn facts(&self) -> &[(String, String)] {
        match self {
            Self::Phrase { facts, .. } | Self::Approval { facts, .. } => facts,
            Self::Settle { .. } => &[],
        }
    }

    /// The same with one more fact to look at, where it shows any.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: &str) -> Self {
        if let Self::Phrase { facts, .. } | Self::Approval { facts, .. } = &mut self {
            facts.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Whether only a person at a terminal answers it.
    pub fn at_terminal(&self) -> bool {
        matches!(self, Self::Phrase { terminal: true, .. })
    }

    /// Who may answer, in words; none when anybody may.
    pub fn asks_whom(&self) -> Option<String> {
        let Self::Approval { role, approvers, except, .. } = self else { return None };
        let who = if approvers.is_empty() { String::new() } else { format!(" ({})", approvers.join(", ")) };
        let but = except.as_ref().map_or_else(String::new, |runner| format!(", not {runner}, who runs it"));
        Some(format!("{role}{who}{but}"))
    }

    /// Why this person, called `user@host`, may not answer; none when they may.
    pub fn refuses(&self, person: &str) -> Option<String> {
        let Self::Approval { role, approvers, except, .. } = self else { return None };
        if except.as_deref().is_some_and(|runner| user(runner) == user(person)) {
            return Some(format!("{person} runs it, and somebody else has to approve it as {role}"));
        }
        let named = approvers.iter().any(|name| name == person || name == user(person));
        if approvers.is_empty() || named {
            return None;
        }
        Some(format!("{person} is not {role}: {} may answer", approvers.join(", ")))
    }

    /// The same with every text replaced.
    #[must_use]
    pub fn map(self, text: impl Fn(String) -> String) -> Self {
        let each = |facts: Vec<(String, String)>| {
            facts.into_iter().map(|(name, value)| (text(name), text(value))).collect()
        };
        match self {
            Self::Phrase { message, phrase, terminal, facts } => {
                Self::Phrase { message: text(message), phrase: text(phrase), terminal, facts: each(facts) }
            }
            Self::Settle { message, succeeded } => Self::Settle { message: text(message), succeeded },
            Self::Approval { message, role, approvers, except, until, facts } => Self::Approval {
                message: text(message),
                role: text(role),
                approvers: approvers.into_iter().map(&text).collect(),
                except,
                until,
                facts: each(facts),
            },
        }
    }
}

/// The user of `user@host`.
fn user(person: &str) -> &str {
    person.split_once('@').map_or(person, |(user, _)| user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(approvers: &[&str], except: Option<&str>) -> Question {
        Question::Approval {
            message: "Go to production?".to_owned(),
            role: "release manager".to_owned(),
            approvers: approvers.iter().map(|name| (*name).to_owned()).collect(),
            except: except.map(str::to_owned),
            until: None,
            facts: Vec::new(),
        }
    }

    #[test]
    fn only_those_in_the_role_answer_and_not_whoever_runs_it() {
        for (approvers, except, person, refused) in [
            (&[][..], None, "ada@ops", false),
            (&[], Some("ada@ops"), "ada@ops", true),
            (&[], Some("ada@ops"), "ada@laptop", true),
            (&[], Some("ada@ops"), "bob@ops", false),
            (&["ada"], None, "ada@ops", false),
            (&["ada@ops"], None, "ada@ops", false),
            (&["ada@ops"], None, "ada@laptop", true),
            (&["ada", "bob"], Some("ada@ops"), "ada@ops", true),
            (&["ada"], None, "adam@ops", true),
        ] {
            let why = approval(approvers, except).refuses(person);
            assert_eq!(why.is_some(), refused, "{approvers:?} {except:?} {person}: {why:?}");
        }
    }

    #[test]
    fn an_answer_is_a_word_with_or_without_a_reason() {
        let question = approval(&[], None);
        for (text, accepted) in [
            ("approve", true),
            ("deny", true),
            ("deny: the backup is from Tuesday", true),
            ("approve : looked at it", true),
            ("approved", false),
            ("yes", false),
            ("", false),
        ] {
            assert_eq!(question.accepts(text), accepted, "{text}");
        }
    }
}
