//! What a person types answers the question that was shown, and no other one.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use runbook_engine::drive::{Driver, Finish, People, Purpose};
use runbook_engine::event::{EventKind, Question};
use runbook_engine::plan::Plan;
use runbook_engine::state::RunStatus;
use runbook_engine::store::Store;

use crate::bench::*;

/// Types what is asked for, but the answer to the first question only when the second one is open.
struct Slow(Arc<dyn Store>);

impl Slow {
    async fn is_asked(&self, wanted: &str) -> bool {
        let events = self.0.events("r", 0).await.unwrap();
        events.iter().any(|event| match &event.what {
            EventKind::Asked { question: Question::Phrase { phrase, .. }, .. } => phrase == wanted,
            _ => false,
        })
    }
}

#[async_trait]
impl People for Slow {
    async fn ask(&self, _: &str, question: &Question) -> Option<String> {
        let Question::Phrase { phrase, .. } = question else { panic!("{question:?}") };
        while phrase == "ONE" && !self.is_asked("TWO").await {
            tokio::time::sleep(StdDuration::from_millis(5)).await;
        }
        Some(phrase.clone())
    }

    fn name(&self) -> String {
        "slow".to_owned()
    }
}

/// Types what is asked for, at once.
struct Quick;

#[async_trait]
impl People for Quick {
    async fn ask(&self, _: &str, question: &Question) -> Option<String> {
        let Question::Phrase { phrase, .. } = question else { panic!("{question:?}") };
        Some(phrase.clone())
    }

    fn name(&self) -> String {
        "quick".to_owned()
    }
}

#[tokio::test]
async fn what_a_cancelled_run_asked_is_asked_no_more_but_by_its_final_steps() {
    let bench = Bench::new();
    let finally = vec![step("after", "ask twice", &[]), step("slow", "deaf", &[])];
    bench.create("r", &Plan { finally, ..plan(vec![step("a", "ask twice", &[])]) }).await;
    assert!(matches!(bench.drive("r", Purpose::GoOn).await.unwrap(), Finish::Waiting(..)));
    let driver = Driver { people: Arc::new(Quick), ..bench.driver() };
    let driven = driver.drive("r", Purpose::Cancel("me".to_owned()));
    let state = ended(tokio::time::timeout(StdDuration::from_secs(30), driven).await.unwrap().unwrap());
    assert_eq!(state.status, RunStatus::Cancelled);
    assert!(state.step("a").unwrap().answers.is_empty(), "{state:?}");
    assert_eq!(state.step("after").unwrap().answers.len(), 2);
}

#[tokio::test]
async fn an_answer_to_a_question_that_was_replaced_answers_nothing() {
    let bench = Bench::new();
    bench.create("r", &plan(vec![step("a", "ask twice", &[])])).await;
    let store = Arc::clone(&bench.store);
    let people = Slow(Arc::clone(&store));
    let other = tokio::spawn(async move {
        // Somebody answers the first question in another terminal.
        while !Slow(Arc::clone(&store)).is_asked("ONE").await {
            tokio::time::sleep(StdDuration::from_millis(5)).await;
        }
        loop {
            let seq = store.run("r").await.unwrap().unwrap().last_seq;
            if answered(&*store, seq, "a", "ONE").await.is_ok() {
                break;
            }
        }
    });
    let driver = Driver { people: Arc::new(people), ..bench.driver() };
    let driven = tokio::time::timeout(StdDuration::from_secs(30), driver.drive("r", Purpose::GoOn)).await;
    let state = ended(driven.expect("the loop ends").unwrap());
    other.await.unwrap();
    let given: Vec<_> = state.step("a").unwrap().answers.iter().map(|one| (&*one.text, &*one.by)).collect();
    assert_eq!(given, [("ONE", "somebody else"), ("TWO", "slow")]);
    assert_eq!(state.status, RunStatus::Succeeded);
}
