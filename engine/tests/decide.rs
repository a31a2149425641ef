//! Random runbooks, random outcomes, random crashes: a run always ends, in order, within its limits, and is never stuck.

#[expect(dead_code, reason = "only plans are needed here")]
#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use runbook_engine::decide::{Action, View, decide};
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::event::{
    Answer, Closed, Event, EventKind, Obligation, ObligationChange, Question, RunOutcome,
};
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::plan::{Limits, OnFailure, Plan, PlannedStep, Retry};
use runbook_engine::reopen::reopen;
use runbook_engine::state::{ObligationPhase, RunState, RunStatus, StepStatus};
use runbook_engine::step::RunInfo;
use serde_json::json;

/// What the world does to one attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Succeed,
    Fail(ErrorKind),
    Unknown,
    Ask,
    Freeze,
    Thaw,
    Rewind,
    Hang,
    Crash,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Succeed),
        2 => Just(Fate::Fail(ErrorKind::Transient)),
        1 => Just(Fate::Fail(ErrorKind::Gate)),
        1 => Just(Fate::Unknown),
        1 => Just(Fate::Ask),
        1 => Just(Fate::Freeze),
        1 => Just(Fate::Thaw),
        1 => Just(Fate::Rewind),
        1 => Just(Fate::Hang),
        2 => Just(Fate::Crash),
    ]
}

#[derive(Clone, Debug)]
struct Script {
    plan: Plan,
    fates: Vec<Fate>,
    cancel_after: Option<usize>,
    resumes: u32,
}

fn script() -> impl Strategy<Value = Script> {
    let step =
        (prop::collection::vec(any::<prop::sample::Index>(), 0..3), any::<bool>(), any::<bool>(), 1u32..4);
    (
        prop::collection::vec(step, 1..9),
        0usize..3,
        1usize..4,
        prop::collection::vec(fate(), 0..40),
        prop::option::weighted(0.2, 0usize..40),
        prop::option::weighted(0.3, 1u64..600),
        0u32..3,
    )
        .prop_map(|(steps, finals, max_parallel, fates, cancel_after, max_duration, resumes)| {
            let plan = plan(&steps, finals, max_parallel, max_duration);
            Script { plan, fates, cancel_after, resumes }
        })
}

type Shape = (Vec<prop::sample::Index>, bool, bool, u32);

fn plan(steps: &[Shape], finals: usize, max_parallel: usize, max_duration: Option<u64>) -> Plan {
    let main = steps.iter().enumerate().map(|(at, (needs, once, goes_on, attempts))| {
        let needs: BTreeSet<String> = if at == 0 {
            BTreeSet::new()
        } else {
            needs.iter().map(|one| format!("s{}", one.index(at))).collect()
        };
        let mut step = planned(&format!("s{at}"), needs.into_iter().collect(), *attempts);
        step.effect.repeat = if *once { Repeat::Once } else { Repeat::Repeatable };
        if at % 3 == 2 {
            step.effect.class = Class::Destroy;
        }
        step.on_failure = if *goes_on { OnFailure::Continue } else { OnFailure::Stop };
        step
    });
    Plan {
        limits: Limits { max_duration: max_duration.map(Duration::from_secs), ..Limits::default() },
        max_parallel,
        finally: (0..finals).map(|at| planned(&format!("f{at}"), Vec::new(), 1)).collect(),
        ..common::plan(main.collect())
    }
}

fn planned(id: &str, needs: Vec<String>, max_attempts: u32) -> PlannedStep {
    PlannedStep {
        needs,
        retry: Retry { max_attempts, jitter: 0.5, ..Retry::default() },
        timeout: Some(Duration::from_secs(300)),
        ..common::step(id, "anything", json!({}), Effect::WRITE)
    }
}

struct World {
    script: Script,
    state: RunState,
    now: Timestamp,
    run: RunInfo,
    events: Vec<Event>,
    fates: usize,
    stopping: BTreeMap<String, Option<StepError>>,
    hanging: BTreeSet<String>,
    releasing: BTreeSet<String>,
    unreleased: BTreeMap<String, StepError>,
    inspected: BTreeMap<String, Timestamp>,
}

impl World {
    fn new(script: Script) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let run = RunInfo {
            id: "r".to_owned(),
            runbook: "random".to_owned(),
            created_at: now,
            by: "somebody".to_owned(),
            seed: 7,
        };
        let state = RunState::new(&script.plan);
        let mut world = Self {
            script,
            state,
            now,
            run,
            events: Vec::new(),
            fates: 0,
            stopping: BTreeMap::new(),
            hanging: BTreeSet::new(),
            releasing: BTreeSet::new(),
            unreleased: BTreeMap::new(),
            inspected: BTreeMap::new(),
        };
        world.record(EventKind::created("somebody"));
        world.claim();
        world
    }

    fn record(&mut self, what: EventKind) {
        let event = Event { seq: self.state.seq + 1, at: self.now, what };
        self.state.apply(&self.script.plan, &event).unwrap_or_else(|illegal| {
            panic!("illegal: {illegal}: {:?} after {:#?}", event.what, self.events);
        });
        self.events.push(event);
    }

    fn claim(&mut self) {
        self.stopping.clear();
        self.hanging.clear();
        self.releasing.clear();
        self.unreleased.clear();
        self.inspected.clear();
        self.record(EventKind::RunClaimed { epoch: self.state.epoch + 1, owner: "p".to_owned() });
    }

    fn running(&self) -> Vec<String> {
        let running = self.state.steps.iter().filter(|(_, step)| step.status == StepStatus::Running);
        running.map(|(id, _)| id.clone()).collect()
    }

    fn check_start(&self, id: &str) {
        let plan = &self.script.plan;
        if let Some(late) = self.state.open_obligations().find(|(_, one)| self.now >= one.hold_until()) {
            assert!(id.starts_with('f'), "{id} started although {} is overdue", late.0);
        }
        assert!(
            plan.steps.iter().filter(|one| self.status(&one.id) == StepStatus::Running).count()
                < plan.max_parallel.max(1) + 1
        );
        let Some(step) = plan.steps.iter().find(|step| step.id == id) else { return };
        let lost = self.state.lost_ground().next();
        assert!(lost.is_none(), "{id} started although {lost:?}");
        // What comes after a freeze runs while that holds, or after a step that puts it back; only what destroys nothing runs beside that one.
        for (freeze, _) in self.state.steps.iter().filter(|(_, one)| one.status == StepStatus::Succeeded) {
            let of_it = self.state.obligations.values().filter(|one| one.obligation.step == *freeze);
            let Some(held) = of_it.max_by_key(|one| one.opened_at) else { continue };
            let before = |one: &str, other: &str| plan.downstream(one).iter().any(|step| step.id == other);
            let free = held.let_go.as_ref().and_then(|let_go| let_go.by.as_deref()).is_some_and(|by| {
                by == id || before(by, id) || (!before(id, by) && step.effect.class != Class::Destroy)
            });
            let stands_on_it = before(freeze, id) && !free;
            let holds = held.phase == ObligationPhase::Applied;
            assert!(holds || !stands_on_it, "{id} started although {held:?}");
        }
        self.check_repeats(step);
        for need in &step.needs {
            let status = self.status(need);
            let goes_on = plan.step(need).unwrap().on_failure == OnFailure::Continue;
            assert!(
                status == StepStatus::Succeeded
                    || status == StepStatus::Skipped
                    || (goes_on && status == StepStatus::Failed),
                "{id} started while {need} is {status:?}"
            );
        }
    }

    /// What may not be repeated and has succeeded starts again when a person has said so since; but what takes on a freeze makes that anew.
    fn check_repeats(&self, step: &PlannedStep) {
        let freezes = self.state.obligations.values().any(|one| one.obligation.step == step.id);
        if freezes || step.effect.repeat == Repeat::Repeatable {
            return;
        }
        let of_it = self.events.iter().rev().map(|event| &event.what);
        for what in of_it {
            match what {
                EventKind::Answered { step: id, answer } if *id == step.id && answer.text == "retry" => {
                    return;
                }
                EventKind::StepSucceeded { step: id, .. } if *id == step.id => {
                    panic!("{id} starts again although it succeeded");
                }
                _ => {}
            }
        }
    }

    fn status(&self, id: &str) -> StepStatus {
        self.state.step(id).unwrap().status
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Record(event) => self.record(event),
            Action::RecordAll(events) => events.into_iter().for_each(|event| self.record(event)),
            Action::Start { step, attempt } => {
                self.check_start(&step);
                self.record(EventKind::StepStarted { step, attempt });
                let main = self.script.plan.steps.iter();
                let running = main.filter(|one| self.status(&one.id) == StepStatus::Running).count();
                assert!(running <= self.script.plan.max_parallel);
            }
            Action::Stop { step, error } => {
                self.stopping.entry(step).or_insert(error);
            }
            Action::Release { obligation } => {
                let step = &self.state.obligations[&obligation].obligation.step;
                let running = self.status(step) == StepStatus::Running;
                assert!(!running, "{step} is putting there what is being put back");
                let change = ObligationChange::Releasing { by: None };
                self.record(EventKind::Obligation { id: obligation.clone(), change });
                self.releasing.insert(obligation);
            }
            Action::Inspect { obligation } => self.inspect(obligation),
        }
    }

    /// Now and then somebody has undone what is looked at.
    fn inspect(&mut self, id: String) {
        self.inspected.insert(id.clone(), self.now);
        if matches!(self.next_fate(), Fate::Fail(_) | Fate::Unknown) {
            let change = ObligationChange::Lost { found: "somebody else's".to_owned() };
            self.record(EventKind::Obligation { id, change });
        }
    }

    fn next_fate(&mut self) -> Fate {
        self.fates += 1;
        self.script.fates.get(self.fates - 1).copied().unwrap_or(Fate::Succeed)
    }

    /// A release takes its time; other things happen meanwhile. Now and then it can not be done.
    fn release_ends(&mut self, id: String) {
        self.releasing.remove(&id);
        if matches!(self.next_fate(), Fate::Fail(_)) {
            let error = StepError::refused("it can not be restarted");
            self.unreleased.insert(id.clone(), error.clone());
            return self.record(EventKind::Obligation { id, change: ObligationChange::Stuck { error } });
        }
        let late = self.now >= self.state.obligations[&id].hold_until();
        let how = if late { Closed::Expired } else { Closed::Restored };
        self.record(EventKind::Obligation { id, change: ObligationChange::Closed { how } });
    }

    /// One running step ends as fate wants it.
    fn step_ends(&mut self, id: String) {
        if let Some(stopped) = self.stopping.remove(&id) {
            self.hanging.remove(&id);
            let once = self.script.plan.step(&id).unwrap().effect.repeat == Repeat::Once;
            return match stopped {
                Some(error) => self.record(EventKind::StepFailed { step: id, error }),
                None if once => {
                    let error = StepError::interrupted().unknown();
                    self.record(EventKind::StepFailed { step: id, error });
                }
                None => self.record(EventKind::StepInterrupted { step: id }),
            };
        }
        let fate = self.next_fate();
        let done = |step| EventKind::StepSucceeded { step, outputs: json!({}) };
        match fate {
            Fate::Succeed => self.record(done(id)),
            Fate::Fail(kind) => {
                let error = StepError::new(kind, "no");
                self.record(EventKind::StepFailed { step: id, error });
            }
            Fate::Unknown => {
                let error = StepError::transient("no answer").unknown();
                self.record(EventKind::StepFailed { step: id, error });
            }
            Fate::Ask if self.state.step(&id).unwrap().answers.len() < 2 => {
                let question = Question::Phrase {
                    message: String::new(),
                    phrase: "YES".to_owned(),
                    terminal: false,
                    facts: Vec::new(),
                };
                self.record(EventKind::Asked { step: id, question });
            }
            Fate::Freeze if !id.starts_with('f') => self.freeze(id),
            Fate::Thaw if !id.starts_with('f') => self.thaw(id),
            Fate::Rewind if id != "s0" => {
                let error = StepError::gate("lost").rewinding("s0");
                self.record(EventKind::StepFailed { step: id, error });
            }
            Fate::Hang => {
                self.hanging.insert(id);
            }
            Fate::Crash => self.claim(),
            _ => self.record(done(id)),
        }
    }

    fn freeze(&mut self, step: String) {
        let obligation = Obligation {
            step: step.clone(),
            target: step.clone(),
            label: step.clone(),
            original: json!("25"),
            replacement: json!("0"),
            max_hold: Duration::from_secs(60),
        };
        let id = format!("{step}-{}", self.state.obligations.len());
        let opened = ObligationChange::Opened(Box::new(obligation));
        self.record(EventKind::Obligation { id: id.clone(), change: opened });
        self.record(EventKind::Obligation { id, change: ObligationChange::Applied });
        self.record(EventKind::StepSucceeded { step, outputs: json!({}) });
    }

    /// Puts back what an earlier step froze, when there is such a one.
    fn thaw(&mut self, step: String) {
        let plan = &self.script.plan;
        let earlier = |one: &str| plan.downstream(one).iter().any(|later| later.id == step);
        let mut open = self.state.open_obligations().filter(|(_, one)| earlier(&one.obligation.step));
        let id = open.next().map(|(id, _)| id.to_owned());
        drop(open);
        if let Some(id) = id {
            let changes = [
                ObligationChange::Releasing { by: Some(step.clone()) },
                ObligationChange::Closed { how: Closed::Restored },
            ];
            for change in changes {
                self.record(EventKind::Obligation { id: id.clone(), change });
            }
        }
        self.record(EventKind::StepSucceeded { step, outputs: json!({}) });
    }

    fn answer(&mut self) {
        let asking = self.state.steps.iter().find(|(_, step)| step.status == StepStatus::Asking);
        let id = asking.map(|(id, _)| id.clone()).expect("waiting means that somebody is asked");
        let texts = ["done", "retry", "abort"];
        let text = texts[self.fates % texts.len()].to_owned();
        self.fates += 1;
        let answer = Answer { text, by: "somebody".to_owned(), at: self.now };
        self.record(EventKind::Answered { step: id, answer });
    }

    /// Drives the run until it ends for good.
    fn drive(&mut self) {
        for turn in 0..4_000 {
            if Some(turn) == self.script.cancel_after && !self.state.status.is_final() {
                self.record(EventKind::CancelRequested { by: "somebody".to_owned() });
            }
            let view = View {
                plan: &self.script.plan,
                state: &self.state,
                run: &self.run,
                now: self.now,
                unreleased: &self.unreleased,
                inspected: &self.inspected,
            };
            let decision = decide(view);
            assert_eq!(decision, decide(view), "a decision made twice is the same");
            if decision.ended {
                if self.state.status != RunStatus::Failed || self.script.resumes == 0 {
                    return;
                }
                self.resume();
                continue;
            }
            let idle = |action: &Action| match action {
                Action::Stop { step, .. } => self.stopping.contains_key(step),
                Action::Release { obligation } => self.releasing.contains(obligation),
                _ => false,
            };
            if let Some(action) = decision.actions.into_iter().find(|action| !idle(action)) {
                self.act(action);
                continue;
            }
            let free: Vec<String> = self
                .running()
                .into_iter()
                .filter(|id| !self.hanging.contains(id) || self.stopping.contains_key(id))
                .collect();
            if let Some(id) = free.get(turn % free.len().max(1)) {
                self.step_ends(id.clone());
            } else if let Some(id) = self.releasing.first().cloned() {
                self.release_ends(id);
            } else if decision.waiting {
                self.answer();
            } else if let Some(at) = decision.wake_at {
                assert!(at > self.now, "woken for nothing");
                self.now = at;
            } else {
                panic!("stuck: {:#?}\n{:#?}", self.state, self.events);
            }
            self.now = self.now.checked_add(SignedDuration::from_millis(10)).unwrap();
        }
        panic!("it does not end: {:#?}", self.state);
    }

    fn resume(&mut self) {
        self.script.resumes -= 1;
        self.claim();
        let events = reopen(&self.script.plan, &self.state);
        if events.is_empty() {
            self.script.resumes = 0;
        }
        for event in events {
            self.record(event);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_run_always_ends_and_leaves_nothing_open(script in script()) {
        let mut world = World::new(script);
        world.drive();
        let state = &world.state;
        prop_assert!(state.status.is_final() || state.status == RunStatus::Failed);
        if state.status.is_final() {
            prop_assert_eq!(state.open_obligations().count(), 0);
        }
        if state.status == RunStatus::Succeeded {
            for step in &world.script.plan.steps {
                let status = world.status(&step.id);
                let goes_on = step.on_failure == OnFailure::Continue;
                prop_assert!(
                    matches!(status, StepStatus::Succeeded | StepStatus::Skipped)
                        || (goes_on && status == StepStatus::Failed),
                    "{} is {:?} in a run that succeeded", step.id, status
                );
            }
        }
        // The state is the fold of the events, nothing else.
        let mut folded = RunState::new(&world.script.plan);
        for event in &world.events {
            folded.apply(&world.script.plan, event).unwrap();
        }
        prop_assert_eq!(&folded, state);
        // Events survive being stored.
        let text = serde_json::to_string(&world.events).unwrap();
        let back: Vec<Event> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&back, &world.events);
    }
}

#[test]
fn an_ended_run_takes_no_more_events() {
    let script = Script {
        plan: plan(&[(Vec::new(), false, false, 1)], 0, 1, None),
        fates: Vec::new(),
        cancel_after: None,
        resumes: 0,
    };
    let mut world = World::new(script);
    world.drive();
    assert_eq!(world.state.status, RunStatus::Succeeded);
    let late = Event {
        seq: world.state.seq + 1,
        at: world.now,
        what: EventKind::RunEnded { outcome: RunOutcome::Failed, error: None },
    };
    assert!(world.state.apply(&world.script.plan, &late).is_err());
}
