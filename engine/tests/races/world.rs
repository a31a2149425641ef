//! A world with one frozen value and numbered batches, a runbook on it, and processes that race for the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use runbook_engine::drive::Clock;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::event::{Obligation, Question};
use runbook_engine::kinds::Effect;
use runbook_engine::plan::{Limits, Plan, PlannedStep};
use runbook_engine::step::{
    Executor, Found, Hold, Intent, Look, Release, Settlement, StepCall, StepContext, StepEnd,
};
use serde_json::json;

use crate::common;

pub const BATCHES: u64 = 4;
pub const ORIGINAL: &str = "25";
const FROZEN: &str = "0";

/// SplitMix64: a race can be repeated by its number.
#[derive(Debug)]
pub struct Lots(pub u64);

impl Lots {
    pub fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }

    pub fn pause(&mut self, most_ms: u64) -> StdDuration {
        StdDuration::from_micros(self.draw(most_ms * 1000))
    }
}

/// What was really done, by whichever process.
#[derive(Debug)]
pub struct World {
    value: Mutex<String>,
    /// How often each batch was done.
    pub batches: Mutex<BTreeMap<u64, u32>>,
    /// Batches that were done while the value was not the frozen one.
    pub bare: Mutex<Vec<u64>>,
    /// How often the step that may not be repeated had its effect.
    pub once: Mutex<u32>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            value: Mutex::new(ORIGINAL.to_owned()),
            batches: Mutex::default(),
            bare: Mutex::default(),
            once: Mutex::default(),
        })
    }

    pub fn value(&self) -> String {
        self.value.lock().unwrap().clone()
    }

    fn set(&self, value: &str) {
        value.clone_into(&mut self.value.lock().unwrap());
    }
}

/// One process: its own view of the time, and pauses of its own between the things it does.
pub struct Process {
    pub world: Arc<World>,
    pub lots: Mutex<Lots>,
}

impl Process {
    async fn dawdle(&self) {
        let pause = self.lots.lock().unwrap().pause(3);
        tokio::time::sleep(pause).await;
    }

    async fn purge(&self, cx: &StepContext) -> Result<StepEnd, StepError> {
        let view = cx.ledger.view().await?;
        for open in view.unsettled {
            let number = open.what.as_u64().unwrap();
            // The world knows whether it was done.
            if !self.world.batches.lock().unwrap().contains_key(&number) {
                self.effect(number).await;
            }
            cx.ledger.settle(open.number, settled(number)).await?;
        }
        let view = cx.ledger.view().await?;
        let from = view.cursor.and_then(|cursor| cursor.as_u64()).map_or(0, |last| last + 1);
        for number in from..BATCHES {
            cx.checkpoint()?;
            let intent = Intent { what: json!(number), items: 1, charged_items: 1, charged_bytes: 0 };
            let batch = cx.ledger.intend(intent).await?;
            self.effect(number).await;
            cx.ledger.settle(batch.number, settled(number)).await?;
        }
        Ok(StepEnd::Done(json!({})))
    }

    async fn effect(&self, number: u64) {
        self.dawdle().await;
        *self.world.batches.lock().unwrap().entry(number).or_insert(0) += 1;
        if self.world.value() != FROZEN {
            self.world.bare.lock().unwrap().push(number);
        }
        self.dawdle().await;
    }

    async fn freeze(&self, call: &StepCall, cx: &StepContext) -> Result<StepEnd, StepError> {
        let id = match cx.obligations.standing().await? {
            Some(standing) => standing.id,
            None => {
                let obligation = Obligation {
                    step: call.id.clone(),
                    target: format!("value of {}", cx.run.id),
                    label: "the value".to_owned(),
                    original: json!(self.world.value()),
                    replacement: json!(FROZEN),
                    max_hold: Duration::from_secs(1_000_000),
                };
                cx.obligations.open(obligation).await?
            }
        };
        self.dawdle().await;
        self.world.set(FROZEN);
        self.dawdle().await;
        cx.obligations.applied(&id).await?;
        Ok(StepEnd::Done(json!({})))
    }
}

fn settled(number: u64) -> Settlement {
    Settlement { cursor: json!(number), done: 1, ..Settlement::default() }
}

#[async_trait]
impl Executor for Process {
    async fn run(&self, call: StepCall, cx: StepContext) -> Result<StepEnd, StepError> {
        self.dawdle().await;
        match call.uses.as_str() {
            "freeze" => self.freeze(&call, &cx).await,
            "ask" if cx.answers.last().is_none_or(|answer| answer.text != "YES") => {
                Ok(StepEnd::Ask(Question::Phrase {
                    message: "go on?".to_owned(),
                    phrase: "YES".to_owned(),
                    terminal: false,
                    facts: Vec::new(),
                }))
            }
            "purge" => self.purge(&cx).await,
            "unfreeze" => {
                cx.obligations.release("freeze").await?;
                Ok(StepEnd::Done(json!({})))
            }
            "once" => {
                *self.world.once.lock().unwrap() += 1;
                self.dawdle().await;
                Ok(StepEnd::Done(json!({})))
            }
            _ => Ok(StepEnd::Done(json!({}))),
        }
    }

    async fn release(
        &self,
        _: StepCall,
        obligation: &Obligation,
        hold: Hold,
        _: StepContext,
    ) -> Result<Release, StepError> {
        self.dawdle().await;
        let original = obligation.original.as_str().unwrap();
        let found = self.world.value();
        self.world.set(original);
        self.dawdle().await;
        let untouched = hold == Hold::Opened && found == original;
        Ok(if untouched { Release::Untouched } else { Release::Restored })
    }

    async fn inspect(
        &self,
        _: StepCall,
        _: &Obligation,
        _: Look,
        _: StepContext,
    ) -> Result<Found, StepError> {
        self.dawdle().await;
        Ok(if self.world.value() == FROZEN { Found::InForce } else { Found::Original })
    }
}

/// Freeze, ask, purge, one thing that may not be repeated, unfreeze.
pub fn plan(lock: Option<String>) -> Plan {
    let step = |id: &str, needs: &[&str], effect| PlannedStep {
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        ..common::step(id, id, json!({}), effect)
    };
    let steps = vec![
        step("freeze", &[], Effect::WRITE),
        step("ask", &["freeze"], Effect::READ),
        step("purge", &["ask"], Effect::DESTROY),
        step("once", &["purge"], Effect::WRITE_ONCE),
        step("unfreeze", &["once"], Effect::WRITE),
    ];
    let limits = Limits { max_items: Some(BATCHES), ..Limits::default() };
    let finally = vec![step("report", &[], Effect::READ)];
    Plan { lock, limits, finally, ..common::plan(steps) }
}

/// The time of the runtime, so that it can stand still between two awaits, and how far ahead a process thinks it is.
pub struct Ticking {
    begin: (Timestamp, tokio::time::Instant),
    ahead: SignedDuration,
}

impl Ticking {
    pub fn ahead(begin: (Timestamp, tokio::time::Instant), hours: i64) -> Self {
        Self { begin, ahead: SignedDuration::from_hours(hours) }
    }
}

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        self.begin.0 + SignedDuration::try_from(self.begin.1.elapsed()).unwrap() + self.ahead
    }
}
