//! Every interleaving of a small world: a run that freezes, destroys and unfreezes; a process that dies before any single write of
//! its own; somebody else who changes the value or restarts the system at any moment; a cancel, and a hold that runs out. The run's
//! own rules decide (`decide`, `apply`, `freezing`, `releasing`); only the world is a model.
//!
//! However it went: in the end the value is the one that was there before, or an alarm was raised; and nothing is destroyed by a
//! process that could have known that the freeze was gone.

mod process;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};
use runbook_engine::decide::{Action, View, decide};
use runbook_engine::event::{Closed, Event, EventKind, ObligationChange};
use runbook_engine::kinds::Effect;
use runbook_engine::plan::{Drift, Limits, OnFailure, PLAN_VERSION, Plan, PlannedStep, Retry};
use runbook_engine::reopen::reopen;
use runbook_engine::state::{ObligationPhase, RunState, RunStatus};
use runbook_engine::step::{Hold, RunInfo};
use serde_json::{Map, json};

use super::way::Side;

/// A value of the system. `Frozen` is the run's own, the others are whoever's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    First,
    Frozen,
    Other,
}

impl Value {
    fn of(recorded: &serde_json::Value) -> Self {
        if recorded == "other" { Self::Other } else { Self::First }
    }

    fn recorded(self) -> serde_json::Value {
        json!(if self == Self::Other { "other" } else { "first" })
    }

    fn side(self, original: Self) -> Side {
        match self {
            _ if self == original => Side::Original,
            Self::Frozen => Side::Ours,
            _ => Side::Foreign,
        }
    }
}

/// What a process has still to do of something it began; each is one write, and it may die before any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    FreezeBegin,
    FreezeChanging,
    FreezeWrite,
    FreezeRestart,
    FreezeApplied,
    Ground,
    Destroy,
    Unfreeze,
    ReleaseBegin(Hold),
    ReleaseWrite(Hold),
    ReleaseRestart(Hold),
    ReleaseClose(Released),
    Done,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Released {
    Restored,
    Untouched,
    Undone,
    Foreign(Value),
}

/// Who has begun what: a step by its id, or the release of an obligation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    Step(&'static str, Op),
    Release(String, Op),
}

#[derive(Clone)]
struct World {
    file: Value,
    running: Value,
    state: RunState,
    now: Timestamp,
    alive: bool,
    tasks: Vec<Task>,
    /// Whether somebody changed the value when the run had let it go.
    meddled: bool,
    /// How many deaths, meddlings, cancels and long waits are still to come.
    left: [u8; 4],
    /// Whether something was destroyed although the freeze was gone when that was looked at.
    blind: bool,
    /// Whether the change was begun, and whether something was put back without that: it was not the run's.
    begun: bool,
    stolen: bool,
}

const STEPS: [&str; 3] = ["freeze", "purge", "unfreeze"];

fn planned(at: usize) -> PlannedStep {
    PlannedStep {
        id: STEPS[at].to_owned(),
        name: None,
        uses: STEPS[at].to_owned(),
        with: json!({}),
        needs: at.checked_sub(1).map(|before| STEPS[before].to_owned()).into_iter().collect(),
        condition: None,
        effect: if at == 1 { Effect::DESTROY } else { Effect::WRITE },
        retry: Retry { max_attempts: 1, ..Retry::default() },
        timeout: None,
        on_failure: OnFailure::Stop,
        limits: Limits::default(),
        waived: BTreeMap::new(),
    }
}

fn plan() -> Plan {
    Plan {
        version: PLAN_VERSION,
        folder: None,
        runbook: "model".to_owned(),
        description: String::new(),
        definition: String::new(),
        inputs: Map::new(),
        secrets: BTreeMap::new(),
        connections: Map::new(),
        collections: Map::new(),
        limits: Limits::default(),
        lock: None,
        max_parallel: 1,
        drift: Drift::Refuse,
        reviewed: None,
        places: BTreeMap::new(),
        steps: (0..STEPS.len()).map(planned).collect(),
        finally: Vec::new(),
    }
}

struct Model {
    plan: Plan,
    run: RunInfo,
    seen: HashSet<String>,
    ends: BTreeMap<String, usize>,
}

impl World {
    fn new(plan: &Plan, left: [u8; 4]) -> Self {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut world = Self {
            file: Value::First,
            running: Value::First,
            state: RunState::new(plan),
            now,
            alive: false,
            tasks: Vec::new(),
            meddled: false,
            left,
            blind: false,
            begun: false,
            stolen: false,
        };
        world.record(plan, EventKind::created("somebody"));
        world
    }

    fn record(&mut self, plan: &Plan, what: EventKind) {
        let event = Event { seq: self.state.seq + 1, at: self.now, what };
        self.state.apply(plan, &event).unwrap_or_else(|illegal| panic!("{illegal}: {:?}", event.what));
    }

    fn change(&mut self, plan: &Plan, id: &str, change: ObligationChange) {
        self.record(plan, EventKind::Obligation { id: id.to_owned(), change });
    }

    /// The obligation that is open, with the value it has to bring back.
    fn open(&self) -> Option<(String, Value, Hold)> {
        let (id, one) = self.state.open_obligations().next()?;
        Some((id.to_owned(), Value::of(&one.obligation.original), one.hold()))
    }

    fn claim(&mut self, plan: &Plan) {
        (self.alive, self.tasks) = (true, Vec::new());
        let epoch = self.state.epoch + 1;
        self.record(plan, EventKind::RunClaimed { epoch, owner: "p".to_owned() });
    }

    /// What tells this state from others; times and counts of events do not.
    fn key(&self) -> String {
        let steps: Vec<_> = STEPS.iter().map(|id| self.state.step(id).unwrap().status).collect();
        let held: Vec<_> = self
            .state
            .obligations
            .values()
            .map(|one| (&one.phase, one.lost.is_some(), self.now >= one.hold_until()))
            .collect();
        format!(
            "{:?} {:?} {steps:?} {held:?} {:?} {:?} {:?} {:?} {:?} {} {} {} {}",
            self.file,
            self.running,
            self.state.status,
            self.state.cancel.is_some(),
            self.alive,
            self.tasks,
            self.left,
            self.meddled,
            self.blind,
            self.begun,
            self.stolen
        )
    }
}

impl Model {
    fn decide(&self, world: &World) -> Vec<Action> {
        let (none, seen) = (BTreeMap::new(), BTreeMap::new());
        let view = View {
            plan: &self.plan,
            state: &world.state,
            run: &self.run,
            now: world.now,
            unreleased: &none,
            inspected: &seen,
        };
        let busy: BTreeSet<&str> = world
            .tasks
            .iter()
            .map(|task| match task {
                Task::Step(id, _) => id,
                Task::Release(id, _) => id.as_str(),
            })
            .collect();
        let actions = decide(view).actions;
        let fresh = |action: &Action| match action {
            Action::Release { obligation } => !busy.contains(obligation.as_str()),
            _ => true,
        };
        actions.into_iter().filter(fresh).collect()
    }

    /// Everything that can happen next, besides the process going on.
    fn others(&self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        let mut with = |at: usize, make: &dyn Fn(&mut World)| {
            if world.left[at] > 0 {
                let mut other = world.clone();
                other.left[at] -= 1;
                make(&mut other);
                next.push(other);
            }
        };
        if world.alive {
            with(0, &|world| (world.alive, world.tasks) = (false, Vec::new()));
        }
        let values =
            [(Value::First, true), (Value::First, false), (Value::Other, true), (Value::Frozen, true)];
        for (value, restarts) in values {
            with(1, &|world| {
                world.file = value;
                if restarts {
                    world.running = value;
                }
                // After the last look of a release it is as good as after its end.
                let over = |task: &Task| matches!(task, Task::Release(_, Op::ReleaseClose(_)));
                world.meddled |= world.open().is_none() || world.tasks.iter().any(over);
            });
        }
        if !world.state.status.is_final() {
            with(2, &|world| {
                world.record(&self.plan, EventKind::CancelRequested { by: "them".to_owned() });
            });
        }
        with(3, &|world| world.now = world.now.checked_add(SignedDuration::from_hours(2)).unwrap());
        next
    }

    fn explore(&mut self, first: World) {
        let mut open = vec![first];
        while let Some(world) = open.pop() {
            if !self.seen.insert(world.key()) {
                continue;
            }
            self.check_end(world.clone());
            open.extend(self.others(&world));
            let mut next = world;
            if !next.alive {
                if !next.state.status.is_final() {
                    next.claim(&self.plan);
                    open.push(next);
                }
            } else if self.step(&mut next) {
                open.push(next);
            } else {
                // It left the run, which has ended in some way.
                next.alive = false;
                if next.state.status == RunStatus::Failed {
                    let mut resumed = next.clone();
                    resumed.claim(&self.plan);
                    for what in reopen(&self.plan, &resumed.state) {
                        resumed.record(&self.plan, what);
                    }
                    if resumed.state.obligations.len() < 3 {
                        open.push(resumed);
                    }
                }
                open.push(next);
            }
        }
    }

    /// From here on nothing unusual happens: somebody cancels the run, and a process does what is to be done.
    fn check_end(&mut self, mut world: World) {
        let way = world.key();
        if !world.state.status.is_final() {
            if !world.alive {
                world.claim(&self.plan);
            }
            world.record(&self.plan, EventKind::CancelRequested { by: "them".to_owned() });
        }
        let mut turns = 0;
        while !world.state.status.is_final() {
            turns += 1;
            assert!(turns < 200, "it does not end, from {way}: {}", world.key());
            assert!(self.step(&mut world), "stuck, from {way}: {}", world.key());
        }
        assert!(!world.stolen, "put back what the run had not changed: {way}");
        assert!(!world.blind, "destroyed on a freeze that was known to be gone: {way}");
        assert!(world.open().is_none(), "{way}");
        let Some(last) = world.state.obligations.values().max_by_key(|one| one.opened_at) else { return };
        let ObligationPhase::Closed(how) = &last.phase else { panic!("still held: {way}") };
        *self.ends.entry(format!("{how:?}")).or_insert(0) += 1;
        let original = Value::of(&last.obligation.original);
        // What runs may be somebody else's, who changed it without a restart; never ours. Of one that changed nothing, nothing is said.
        let back = *how == Closed::Untouched || world.file == original && world.running != Value::Frozen;
        let alarm = world.state.error.is_some();
        assert!(
            back || alarm || world.meddled,
            "{how:?} and neither back nor said: {way} -> {}",
            world.key()
        );
        let frozen = world.file == Value::Frozen || world.running == Value::Frozen;
        // Or it is somebody else's freeze, of what the run had not changed or had let go.
        assert!(!frozen || alarm || world.meddled || !world.begun, "left frozen: {way} -> {}", world.key());
    }
}

#[test]
fn in_the_end_the_original_is_back_or_an_alarm_was_raised() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let run = RunInfo {
        id: "r".to_owned(),
        runbook: "model".to_owned(),
        created_at: now,
        by: "somebody".to_owned(),
        seed: 1,
    };
    let mut model = Model { plan: plan(), run, seen: HashSet::new(), ends: BTreeMap::new() };
    // Two deaths, two meddlings, one cancel, one long wait, at any moments.
    let first = World::new(&model.plan, [2, 2, 1, 1]);
    model.explore(first);
    println!("{} states; ends: {:#?}", model.seen.len(), model.ends);
    assert!(model.seen.len() > 5_000, "{}", model.seen.len());
    for how in ["Restored", "Untouched", "Undone", "Expired", "Foreign"] {
        assert!(model.ends.keys().any(|end| end.starts_with(how)), "{how} never came about");
    }
}
