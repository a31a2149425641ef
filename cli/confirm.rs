//! `--confirm STEP=PHRASE`: answers that somebody gives beforehand, together with the plan that they looked at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runbook_engine::drive::People;
use runbook_engine::event::Question;
use runbook_engine::plan::{Drift, Plan};
use runbook_engine::saved::{SavedPlan, Standing};

use crate::exit::{Failure, Outcome};
use crate::format;

/// Phrases by the step that will ask for them, each in the order in which it asks.
#[derive(Debug, Default)]
pub struct Confirmed {
    phrases: BTreeMap<String, VecDeque<Given>>,
    by: Option<String>,
}

/// A phrase, and the question that it answers.
#[derive(Debug)]
struct Given {
    phrase: String,
    /// As the plan has it, when the run may ask about something else than the plan does.
    to: Option<Question>,
}

impl Confirmed {
    /// Out of the command line. Refused when the plan has no such question, or one with another phrase.
    pub fn of(pairs: &[String], by: &str, saved: &SavedPlan) -> Outcome<Self> {
        let mut phrases: BTreeMap<String, VecDeque<Given>> = BTreeMap::new();
        let may_differ = saved.plan.drift == Drift::Subset;
        for pair in pairs {
            let (step, phrase) = pair.split_once('=').ok_or_else(|| {
                Failure::usage(format!("`--confirm {pair}` has no phrase"))
                    .help("write --confirm STEP=PHRASE")
            })?;
            let given = phrases.entry(step.to_owned()).or_default();
            let at = given.len();
            check(saved, step, at, phrase)?;
            let question = saved.step(step).and_then(|step| step.asks.get(at)).cloned();
            given.push_back(Given { phrase: phrase.to_owned(), to: question.filter(|_| may_differ) });
        }
        Ok(Self { phrases, by: Some(by.to_owned()) })
    }
}

fn check(saved: &SavedPlan, step: &str, at: usize, given: &str) -> Outcome<()> {
    let asking = || saved.steps.iter().filter(|step| !step.asks.is_empty()).map(|step| step.step.as_str());
    let foreseen = saved.step(step).ok_or_else(|| {
        let names: Vec<&str> = asking().collect();
        Failure::usage(format!("the plan has no step `{step}`"))
            .help(format!("that ask: {}", names.join(", ")))
    })?;
    match foreseen.asks.get(at) {
        Some(question) if question.at_terminal() => {
            let failure = Failure::usage(format!(
                "`{step}` asks a person at a terminal: `--confirm` does not answer it, and nothing was started"
            ));
            Err(failure.help(format!(
                "leave out `--confirm {step}=…`, and type the phrase when the run asks for it"
            )))
        }
        Some(Question::Phrase { phrase, .. }) if phrase == given => Ok(()),
        Some(Question::Phrase { phrase, .. }) => {
            Err(Failure::usage(format!("`{step}` asks for `{phrase}`, and `{given}` was given")))
        }
        _ => Err(match &foreseen.standing {
            Standing::After(steps) => {
                let after = steps.iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ");
                Failure::usage(format!("what `{step}` asks, if it asks, is known only after {after}"))
                    .help("what can not be checked against the plan is not taken beforehand; the run asks when it gets there")
            }
            Standing::Skipped => {
                Failure::usage(format!("`{step}` is skipped in the plan, and asks for no phrase"))
            }
            _ if at == 0 => Failure::usage(format!("`{step}` asks for no phrase")),
            _ => Failure::usage(format!("`{step}` asks for no phrase {}", at + 1)),
        }),
    }
}

/// People who have answered some of it already.
pub struct Foretold {
    people: Arc<dyn People>,
    given: Mutex<Confirmed>,
    name: String,
    bounds: Option<(String, String)>,
}

impl Foretold {
    /// Asks `people` what was not answered beforehand, and shows them what the plan of the run bounds it to.
    pub fn new(people: Arc<dyn People>, given: Confirmed, plan: &Plan) -> Self {
        let name = given.by.clone().unwrap_or_else(|| people.name());
        Self { people, given: Mutex::new(given), name, bounds: plan.bounds() }
    }

    fn given(&self, step: &str, question: &Question) -> Option<String> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let phrases = given.phrases.get_mut(step)?;
        let first = phrases.pop_front()?;
        // A phrase that is not the one asked for, or that answers another question, counts for nothing.
        if question.accepts(&first.phrase) && first.to.as_ref().is_none_or(|planned| planned == question) {
            return Some(first.phrase);
        }
        phrases.clear();
        format::warn(&format!(
            "`{step}` asks something else now than in the plan: the phrase that was given beforehand does not count"
        ));
        None
    }
}

/// A question with what the plan of the run bounds it to, [`Plan::bounds`], beside its own facts.
pub fn bounded(question: &Question, bounds: Option<&(String, String)>) -> Question {
    match bounds {
        Some((name, value)) => question.clone().with_fact(name, value),
        None => question.clone(),
    }
}

#[async_trait]
impl People for Foretold {
    async fn ask(&self, step: &str, question: &Question) -> Option<String> {
        if let Question::Phrase { terminal: false, .. } = question
            && let Some(given) = self.given(step, question)
        {
            return Some(given);
        }
        self.people.ask(step, &bounded(question, self.bounds.as_ref())).await
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
