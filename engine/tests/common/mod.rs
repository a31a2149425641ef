//! What every test that drives a run needs: nobody to ask, nobody who watches, and plans without anything special.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::drive::{Observer, People};
use runbook_engine::event::{Event, EventKind, Question};
use runbook_engine::kinds::Effect;
use runbook_engine::plan::{Drift, Limits, OnFailure, PLAN_VERSION, Plan, PlannedStep, Retry};
use runbook_engine::state::RunState;
use runbook_engine::store::NewRun;
use serde_json::{Map, Value};

/// Nobody answers.
pub struct Nobody;

#[async_trait]
impl People for Nobody {
    async fn ask(&self, _: &str, _: &Question) -> Option<String> {
        None
    }

    fn name(&self) -> String {
        "nobody".to_owned()
    }
}

/// Watches nothing.
pub struct Blind;

impl Observer for Blind {
    fn changed(&mut self, _: &RunState, _: &Event) {}
}

/// A step of this kind and effect that needs none.
pub fn step(id: &str, uses: &str, with: Value, effect: Effect) -> PlannedStep {
    PlannedStep {
        id: id.to_owned(),
        name: None,
        uses: uses.to_owned(),
        with,
        needs: Vec::new(),
        condition: None,
        effect,
        retry: Retry::default(),
        timeout: None,
        on_failure: OnFailure::default(),
        limits: Limits::default(),
        waived: BTreeMap::new(),
    }
}

/// A plan of these steps, four at one time, without inputs, systems and limits.
pub fn plan(steps: Vec<PlannedStep>) -> Plan {
    Plan {
        version: PLAN_VERSION,
        folder: None,
        runbook: "tested".to_owned(),
        description: String::new(),
        definition: "0".repeat(64),
        inputs: Map::new(),
        secrets: BTreeMap::new(),
        connections: Map::new(),
        collections: Map::new(),
        limits: Limits::default(),
        lock: None,
        max_parallel: 4,
        drift: Drift::Refuse,
        reviewed: None,
        places: BTreeMap::new(),
        steps,
        finally: Vec::new(),
    }
}

/// A run of this plan, asked for by ada.
pub fn new_run(id: &str, plan: &Plan) -> NewRun {
    NewRun {
        id: id.to_owned(),
        runbook: plan.runbook.clone(),
        plan: serde_json::to_string(plan).unwrap(),
        definition: String::new(),
        source_name: "tested.yaml".to_owned(),
        seed: 42,
        lock: plan.lock.clone(),
        applies: None,
        first: Event { seq: 1, at: Timestamp::now(), what: EventKind::created("ada") },
    }
}
