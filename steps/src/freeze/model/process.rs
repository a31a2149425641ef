//! What a process of the model does, one write at a time.

use runbook_engine::decide::Action;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::event::{Closed, EventKind, Obligation, ObligationChange};
use runbook_engine::step::Hold;
use serde_json::json;

use super::super::way::{Freezing, Releasing, freezing, releasing};
use super::{Model, Op, Released, STEPS, Task, Value, World};

impl Model {
    /// One thing that the process does; false when it has nothing to do any more.
    pub(super) fn step(&self, world: &mut World) -> bool {
        let Some(action) = self.decide(world).into_iter().next() else {
            let Some(task) = world.tasks.pop() else { return false };
            self.go_on(world, task);
            return true;
        };
        match action {
            Action::Record(what) => world.record(&self.plan, what),
            Action::RecordAll(all) => all.into_iter().for_each(|what| world.record(&self.plan, what)),
            Action::Start { step, attempt } => {
                let at = STEPS.iter().position(|id| *id == step).unwrap();
                world.record(&self.plan, EventKind::StepStarted { step, attempt });
                let op = [Op::FreezeBegin, Op::Ground, Op::Unfreeze][at];
                world.tasks.push(Task::Step(STEPS[at], op));
            }
            Action::Stop { step, .. } => {
                world.tasks.retain(|task| !matches!(task, Task::Step(id, _) if *id == step));
                world.record(&self.plan, EventKind::StepInterrupted { step });
            }
            Action::Release { obligation } => self.release(world, &obligation),
            Action::Inspect { .. } => unreachable!("no step runs that long here"),
        }
        true
    }

    fn release(&self, world: &mut World, id: &str) {
        let hold = world.open().map_or(Hold::Releasing, |(_, _, hold)| hold);
        world.change(&self.plan, id, ObligationChange::Releasing { by: None });
        world.tasks.push(Task::Release(id.to_owned(), Op::ReleaseBegin(hold)));
    }

    fn go_on(&self, world: &mut World, task: Task) {
        let next = match &task {
            Task::Step(id, op) => self.do_step(world, id, *op).map(|op| Task::Step(id, op)),
            Task::Release(id, op) => self.do_release(world, id, *op).map(|op| Task::Release(id.clone(), op)),
        };
        world.tasks.extend(next);
    }

    fn do_step(&self, world: &mut World, id: &str, op: Op) -> Option<Op> {
        let step = id.to_owned();
        match op {
            Op::FreezeBegin => {
                let (original, hold) = match world.open() {
                    Some((_, original, hold)) => (original, hold),
                    // Frozen by nobody known: refused.
                    None if world.file == Value::Frozen => return Some(Op::Failed),
                    None => {
                        self.take_on(world);
                        return Some(Op::FreezeBegin);
                    }
                };
                match freezing(hold, world.file.side(original)) {
                    Freezing::Apply => Some(Op::FreezeChanging),
                    Freezing::Restart => Some(Op::FreezeRestart),
                    Freezing::Keep => Some(Op::Done),
                    Freezing::Refuse => Some(Op::Failed),
                }
            }
            Op::FreezeChanging => {
                let id = world.open()?.0;
                world.change(&self.plan, &id, ObligationChange::Changing);
                world.begun = true;
                Some(Op::FreezeWrite)
            }
            Op::FreezeWrite => {
                let (id, original, _) = world.open()?;
                // The write looks once more, under a lock.
                if world.file != original {
                    world.change(&self.plan, &id, ObligationChange::Unchanged);
                    world.begun = world.open()?.2 != Hold::Opened;
                    return Some(Op::Failed);
                }
                world.file = Value::Frozen;
                Some(Op::FreezeRestart)
            }
            Op::FreezeRestart => {
                world.running = world.file;
                Some(if world.file == Value::Frozen { Op::FreezeApplied } else { Op::Failed })
            }
            Op::FreezeApplied => {
                let id = world.open()?.0;
                world.change(&self.plan, &id, ObligationChange::Applied);
                // The probe.
                Some(if world.running == Value::Frozen { Op::Done } else { Op::Failed })
            }
            Op::Ground => {
                let held = world.file == Value::Frozen && world.running == Value::Frozen;
                let ground = world.state.ground().next().map(|(id, _)| id.to_owned());
                if held || ground.is_none() {
                    world.blind |= !held;
                    return Some(Op::Destroy);
                }
                let change = ObligationChange::Lost { found: "it is gone".to_owned() };
                world.change(&self.plan, &ground?, change);
                Some(Op::Failed)
            }
            Op::Destroy => Some(Op::Done),
            Op::Unfreeze => match world.open() {
                Some((id, ..)) => {
                    let begun = world.tasks.iter().any(|task| matches!(task, Task::Release(..)));
                    if !begun {
                        world.tasks.push(Task::Step("unfreeze", Op::Unfreeze));
                        self.release(world, &id);
                        return None;
                    }
                    Some(Op::Unfreeze)
                }
                None => Some(Op::Done),
            },
            Op::Failed => {
                let error = StepError::gate("not as it should be");
                world.record(&self.plan, EventKind::StepFailed { step, error });
                None
            }
            _ => {
                world.record(&self.plan, EventKind::StepSucceeded { step, outputs: json!({}) });
                None
            }
        }
    }

    fn take_on(&self, world: &mut World) {
        let obligation = Obligation {
            step: "freeze".to_owned(),
            target: "value".to_owned(),
            label: "the value".to_owned(),
            original: world.file.recorded(),
            replacement: json!("frozen"),
            max_hold: Duration::from_secs(3600),
        };
        (world.meddled, world.begun) = (false, false);
        let id = format!("freeze-{}", world.state.obligations.len());
        world.change(&self.plan, &id, ObligationChange::Opened(Box::new(obligation)));
    }

    fn do_release(&self, world: &mut World, id: &str, op: Op) -> Option<Op> {
        let original = world.open()?.1;
        match op {
            Op::ReleaseBegin(Hold::Opened) => Some(Op::ReleaseClose(Released::Untouched)),
            Op::ReleaseBegin(hold) => Some(match releasing(world.file.side(original)) {
                Releasing::Leave => Op::ReleaseClose(Released::Foreign(world.file)),
                Releasing::PutBack => Op::ReleaseWrite(hold),
                Releasing::Restart => Op::ReleaseRestart(hold),
            }),
            Op::ReleaseWrite(_) => {
                // The write looks once more, under a lock; what is not ours any more begins anew.
                if world.file != Value::Frozen {
                    return Some(Op::ReleaseBegin(Hold::Releasing));
                }
                world.stolen |= !world.begun;
                world.file = original;
                Some(Op::ReleaseRestart(Hold::Releasing))
            }
            Op::ReleaseRestart(hold) => {
                world.running = world.file;
                let back = world.file == original;
                Some(match (back, hold) {
                    (false, _) => Op::ReleaseBegin(Hold::Releasing),
                    (true, Hold::Applied) => Op::ReleaseClose(Released::Undone),
                    (true, _) => Op::ReleaseClose(Released::Restored),
                })
            }
            Op::ReleaseClose(how) => {
                let late = world.now >= world.state.obligations[id].hold_until();
                let how = match how {
                    Released::Restored if late => Closed::Expired,
                    Released::Restored => Closed::Restored,
                    Released::Untouched => Closed::Untouched,
                    Released::Undone => Closed::Undone,
                    Released::Foreign(value) => Closed::Foreign { present: format!("{value:?}") },
                };
                world.change(&self.plan, id, ObligationChange::Closed { how });
                None
            }
            _ => None,
        }
    }
}
