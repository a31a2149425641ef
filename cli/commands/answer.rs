//! `runbook answer`.

use std::time::Duration;

use jiff::Timestamp;
use runbook_engine::drive::Purpose;
use runbook_engine::event::{Answer, EventKind, Obligation, Question};
use runbook_engine::plan::Plan;
use runbook_engine::state::{RunState, StepStatus};
use runbook_engine::store::{RunRow, StoreError};

use super::wait;
use crate::app::{App, State};
use crate::args;
use crate::banner;
use crate::confirm::bounded;
use crate::exit::{Exit, Failure, Outcome};
use crate::prompt::{self, Reply};
use crate::report::describe;
use crate::session::{self, Needs, Prepared};
use crate::state::{self, Prefer};

/// How long the process that works on the run has to show that it still does.
const TAKEN_UP: Duration = Duration::from_secs(2);

/// What a person says who has put something back by hand.
const DONE: &str = "done";

/// What a person says who gives up what can not be put back.
const ABANDON: &str = "abandon";

/// Records the answer and goes on with the run, unless another process does.
pub async fn run(app: &App, args: &args::Answer) -> Outcome {
    let state = app.state().await?;
    let row = state::run_named(&state, &args.run, Prefer::Unfinished).await?;
    banner::show(&state, Some(&row.id)).await;
    let (plan, stands) = session::load(&state, &row).await?;
    session::whole(&state, &row.id).await?;
    if let Some(obligation) = by_hand(&stands, &args.words) {
        let abandon = args.words.last().is_some_and(|word| word == ABANDON);
        let purpose = Purpose::ByHand { obligation, by: session::person(), abandon };
        return put_back(app, &state, &row, plan, purpose).await;
    }
    let (step, question, text) = choose(&stands, &args.words)?;
    still_counts(&row.id, &plan, &stands, &step)?;
    session::in_time(&row, &plan, &stands)?;
    let cancelled = stands.cancel.is_some();
    may(&question)?;
    in_person(&row.id, &step, &question, text.as_deref())?;
    let Some(text) = text.or_else(|| typed(&step, &bounded(&question, plan.bounds().as_ref()))) else {
        eprintln!("nothing was recorded; the run still waits");
        return Ok(Exit::Waiting);
    };
    check(&question, &text)?;
    let owner = session::live_owner(&state, &row);
    // Whatever keeps this process from going on is found out before the answer is recorded.
    let prepared = match &owner {
        Some(_) => None,
        None => Some(Prepared::new(&state, &row.id, plan.clone(), Needs::All).await?),
    };
    let answer = |stands: &RunState| {
        let asking = stands.step(&step).filter(|one| one.status == StepStatus::Asking);
        if asking.and_then(|one| one.question.as_ref()) != Some(&question) {
            return Err(Failure::usage(format!("`{step}` does not ask that any more; nothing was recorded")));
        }
        still_counts(&row.id, &plan, stands, &step)?;
        let answer = Answer { text: text.clone(), by: session::person(), at: Timestamp::now() };
        Ok(EventKind::Answered { step: step.clone(), answer })
    };
    wait::append(&state, &row.id, &plan, app.json, answer).await?;
    if let Some((owner, _)) = owner
        && still_owned(&state, &row.id).await?
    {
        eprintln!("the answer is recorded; {owner} goes on with the run");
        return Ok(Exit::Succeeded);
    }
    let row = state.store.run(&row.id).await?.ok_or(StoreError::NoSuchRun(row.id))?;
    let prepared = match prepared {
        Some(prepared) => prepared,
        None => Prepared::new(&state, &row.id, plan, Needs::All).await?,
    };
    session::announce(&row.id, cancelled);
    match session::drive(&state, &row, prepared, Purpose::GoOn, app.json).await {
        // Another process was quicker to take the answer up.
        Err(failure) if failure.exit == Exit::Busy && still_owned(&state, &row.id).await? => {
            eprintln!("the answer is recorded; another process goes on with the run");
            Ok(Exit::Succeeded)
        }
        ended => ended,
    }
}

/// Refuses an answer that changes nothing, because the run is being cancelled.
fn still_counts(run: &str, plan: &Plan, stands: &RunState, step: &str) -> Outcome<()> {
    if stands.takes_answers(plan, step) {
        return Ok(());
    }
    let failure = Failure::usage(format!("run {run} is being cancelled: nothing was recorded"));
    Err(failure.help(format!("type  runbook cancel {run}  to end it")))
}

/// The obligation that could not be put back and that a person says to have put back by hand: `STEP done`, or only `done`.
fn by_hand(stands: &RunState, words: &[String]) -> Option<String> {
    let mut stuck = stands.open_obligations().filter(|(_, one)| one.stuck.is_some());
    match words {
        [word] if settles(word) && !answers(stands, word) => {
            let only = stuck.next()?;
            stuck.next().is_none().then(|| only.0.to_owned())
        }
        [step, word] if settles(word) => {
            stuck.find(|(_, one)| one.obligation.step == *step).map(|(id, _)| id.to_owned())
        }
        _ => None,
    }
}

fn settles(word: &str) -> bool {
    word == DONE || word == ABANDON
}

/// Whether the word is what a step that asks wants to hear.
fn answers(stands: &RunState, word: &str) -> bool {
    let asking = stands.steps.values().filter(|one| one.status == StepStatus::Asking);
    asking.filter_map(|one| one.question.as_ref()).any(|question| question.accepts(word))
}

/// Takes note of what a person put back by hand, and goes on.
async fn put_back(app: &App, state: &State, row: &RunRow, plan: Plan, purpose: Purpose) -> Outcome {
    if let Some((owner, until)) = session::live_owner(state, row) {
        return Err(session::busy(&row.id, &owner, until));
    }
    let prepared = Prepared::new(state, &row.id, plan, Needs::WhatThereIs).await?;
    session::drive(state, row, prepared, purpose, app.json).await
}

/// The process may have been about to leave when the answer came.
async fn still_owned(state: &State, run: &str) -> Outcome<bool> {
    tokio::time::sleep(TAKEN_UP).await;
    let row = state.store.run(run).await?.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?;
    Ok(row.status.is_final() || session::live_owner(state, &row).is_some())
}

/// Which question is meant, and the answer if it was given.
fn choose(stands: &RunState, words: &[String]) -> Outcome<(String, Question, Option<String>)> {
    let asking: Vec<(&String, &Question)> = stands
        .steps
        .iter()
        .filter(|(_, one)| one.status == StepStatus::Asking)
        .filter_map(|(id, one)| Some((id, one.question.as_ref()?)))
        .collect();
    let list = |failure: Failure| {
        asking.iter().fold(failure, |failure, (id, question)| {
            failure.help(format!("{id}: {}", describe::open_question_line(question, Timestamp::now())))
        })
    };
    let found = |step: &str| asking.iter().find(|(id, _)| *id == step);
    let own = |one: &(&String, &Question), text| (one.0.clone(), one.1.clone(), text);
    match (asking.as_slice(), words) {
        ([], _) => Err(nothing_asked(stands)),
        (_, [step, text]) => match found(step) {
            Some(one) => Ok(own(one, Some(text.clone()))),
            None => Err(list(Failure::usage(format!(
                "`{step}` asks nothing; an answer of several words needs quotes"
            )))),
        },
        ([one], []) => Ok(own(one, None)),
        (_, [step]) if found(step).is_some_and(|one| !one.1.accepts(step)) => {
            found(step).map(|one| own(one, None)).ok_or_else(|| Failure::usage("the run asks nothing"))
        }
        ([one], [text]) => Ok(own(one, Some(text.clone()))),
        _ => Err(list(Failure::usage("several steps ask: name one"))),
    }
}

fn nothing_asked(stands: &RunState) -> Failure {
    let stuck = stands.open_obligations().filter(|(_, one)| one.stuck.is_some());
    stuck.fold(Failure::usage("the run asks nothing"), |failure, (_, one)| {
        let Obligation { step, label, .. } = &one.obligation;
        failure.help(format!(
            "{label} could not be put back: when you have done it by hand, answer  {step} {DONE}"
        ))
    })
}

fn typed(step: &str, question: &Question) -> Option<String> {
    if !prompt::attended() {
        eprintln!("{step}: {}", describe::open_question_line(question, Timestamp::now()));
        return None;
    }
    match prompt::ask(step, question) {
        Reply::Text(text) => Some(text),
        Reply::Left | Reply::Stop => None,
    }
}

/// Refuses whoever the question is not for.
fn may(question: &Question) -> Outcome<()> {
    match question.refuses(&session::person()) {
        None => Ok(()),
        Some(why) => Err(Failure::usage(format!("{why}; nothing was recorded, and the run still waits"))),
    }
}

/// Refuses what nobody types at a terminal, where only that counts.
fn in_person(run: &str, step: &str, question: &Question, text: Option<&str>) -> Outcome<()> {
    if !question.at_terminal() || (text.is_none() && prompt::attended()) {
        return Ok(());
    }
    let message = format!(
        "`{step}` asks a person at a terminal, and takes no answer from a command line; nothing was recorded, and the run still waits"
    );
    Err(Failure::usage(message).help(format!(
        "type  runbook answer {run} {step}  at a terminal, and the phrase when it is asked for"
    )))
}

fn check(question: &Question, text: &str) -> Outcome<()> {
    if question.accepts(text) {
        return Ok(());
    }
    let failure = Failure::usage("that is not the answer; nothing was recorded, and the run still waits");
    Err(match question {
        Question::Phrase { phrase, .. } => {
            failure.help(format!("the phrase is  {phrase}  and must be typed exactly"))
        }
        other => other
            .words()
            .iter()
            .fold(failure, |failure, (word, meaning)| failure.help(format!("{word:<7}  {meaning}"))),
    })
}

#[cfg(test)]
mod tests {
    use runbook_engine::state::StepState;

    use super::*;

    fn asking(ids: &[&str]) -> RunState {
        let mut state = RunState::default();
        for id in ids {
            let question = Question::Phrase {
                message: "Sure?".to_owned(),
                phrase: "RESET IT".to_owned(),
                terminal: false,
                facts: Vec::new(),
            };
            let step =
                StepState { status: StepStatus::Asking, question: Some(question), ..StepState::default() };
            state.steps.insert((*id).to_owned(), step);
        }
        state
    }

    fn chosen(ids: &[&str], words: &[&str]) -> Option<(String, Option<String>)> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        choose(&asking(ids), &words).ok().map(|(step, _, text)| (step, text))
    }

    #[test]
    fn the_step_may_be_left_out_when_only_one_asks() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(chosen(&["a"], &["RESET IT"]), Some(("a".to_owned(), text("RESET IT"))));
        assert_eq!(chosen(&["a"], &["a"]), Some(("a".to_owned(), None)));
        assert_eq!(chosen(&["a"], &["a", "x"]), Some(("a".to_owned(), text("x"))));
        assert_eq!(chosen(&["a"], &["RESET", "IT"]), None);
        assert_eq!(chosen(&["a", "b"], &["RESET IT"]), None);
        assert_eq!(chosen(&["a", "b"], &["b", "RESET IT"]), Some(("b".to_owned(), text("RESET IT"))));
        assert_eq!(chosen(&[], &["RESET IT"]), None);
    }

    #[test]
    fn a_wrong_phrase_is_a_usage_error() {
        let state = asking(&["a"]);
        let question = state.steps["a"].question.clone().unwrap();
        assert_eq!(check(&question, "reset it").unwrap_err().exit, Exit::Usage);
        assert!(check(&question, "RESET IT").is_ok());
        let settle = Question::Settle { message: "?".to_owned(), succeeded: false };
        assert!(check(&settle, "retry").is_ok());
        assert_eq!(check(&settle, "yes").unwrap_err().help.len(), 3);
    }
}
