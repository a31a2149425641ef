//! What freezing a system means, whatever the way: one small trait, and what follows from whose value is found.

use std::time::Duration;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::event::Obligation;
use runbook_engine::step::Hold;
use serde_json::Value;

use crate::kind::Context;

/// Whose value is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that was there before the freeze.
    Original,
    /// The one that the freeze puts there.
    Ours,
    /// Neither.
    Foreign,
}

/// A way to freeze one target. It keeps no state: what must survive a crash is in the obligation.
#[async_trait]
pub(super) trait Way: Send + Sync {
    /// The target, unique among everything that can be frozen.
    fn target(&self) -> String;

    /// The target in words.
    fn label(&self) -> String;

    /// Whether its author gave it the name that this hold has, although the targets are spelled in two ways.
    fn is_called(&self, other: &Obligation) -> bool {
        let _ = other;
        false
    }

    /// What is put there.
    fn replacement(&self) -> Value;

    /// What is there now, in the form that `release` needs to put it back exactly.
    async fn read(&self, cx: &Context) -> Result<Value, StepError>;

    /// What was read, for people.
    fn text(&self, present: &Value) -> String;

    /// Whether what was read means the same as the replacement, in whatever notation.
    fn frozen(&self, present: &Value) -> bool;

    /// Whose value it is, given the original.
    fn side(&self, present: &Value, original: &Value) -> Side {
        if present == original {
            Side::Original
        } else if self.frozen(present) {
            Side::Ours
        } else {
            Side::Foreign
        }
    }

    /// Whether the run itself makes no other values than the original and the replacement: it writes them itself, at once. What requests or commands
    /// make of a value is not known.
    fn makes_two_values(&self) -> bool {
        true
    }

    /// Whether the replacement can be put in the place of the original, asked before anything is recorded or changed.
    async fn possible(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        let _ = (cx, original);
        Ok(())
    }

    /// Puts the replacement in the place of the original.
    async fn apply(&self, cx: &Context, original: &Value) -> Result<(), StepError>;

    /// Puts the original in the place of the replacement.
    async fn put_back(&self, cx: &Context, original: &Value) -> Result<(), StepError>;

    /// Makes sure of the original where it is read, but nobody knows how far a change came that was begun.
    async fn insist(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        let _ = (cx, original);
        Ok(())
    }

    /// How long the call that makes a change may take, when somebody else makes it: a change whose call ended without an answer may still
    /// come about then. None for what is over with the call.
    fn call_takes(&self, cx: &Context) -> Result<Option<Duration>, StepError> {
        let _ = cx;
        Ok(None)
    }

    /// Makes the system see what was put there; for ways that do not take effect by themselves.
    async fn restart(&self, cx: &Context) -> Result<(), StepError> {
        let _ = cx;
        Ok(())
    }

    /// Whether `unsettled` asks the system itself, so that the freeze is proven without a probe.
    fn proves(&self) -> bool {
        false
    }

    /// What the system has still to do until the value that is there is in force, for people; none when it is done, or nobody can tell.
    async fn unsettled(&self, cx: &Context) -> Result<Option<String>, StepError> {
        let _ = cx;
        Ok(None)
    }

    /// What to say when the probe shows that the system is not frozen although the value is there.
    fn advice(&self) -> Option<String> {
        None
    }
}

/// A name as it counts: without regard to capitals and the number of spaces.
pub(super) fn plain_name(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

pub(super) fn same_name(one: &str, other: &str) -> bool {
    plain_name(one) == plain_name(other)
}

/// What a freeze does with what it finds when it holds an obligation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freezing {
    /// Put the replacement there, then restart.
    Apply,
    /// The replacement is there, but nobody knows whether the system sees it: restart.
    Restart,
    /// It is all there.
    Keep,
    /// Somebody else's value: nothing may be overwritten.
    Refuse,
}

/// What a freeze does, given how far the obligation is and whose value is there.
pub(super) fn freezing(hold: Hold, side: Side) -> Freezing {
    match (side, hold) {
        (Side::Original, _) => Freezing::Apply,
        (Side::Ours, Hold::Changing | Hold::Releasing) => Freezing::Restart,
        (Side::Ours, Hold::Applied) => Freezing::Keep,
        // Nothing was changed yet, so somebody else has just frozen it.
        (Side::Ours, Hold::Opened) | (Side::Foreign, _) => Freezing::Refuse,
    }
}

/// What a release does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Releasing {
    /// Put the original there, then restart.
    PutBack,
    /// The original is there, but nobody knows whether the system sees it: restart.
    Restart,
    /// Somebody else's value: it is left alone.
    Leave,
}

/// What a release does with a change that was begun, given whose value is there.
pub(super) fn releasing(side: Side) -> Releasing {
    match side {
        Side::Ours => Releasing::PutBack,
        Side::Original => Releasing::Restart,
        Side::Foreign => Releasing::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file, what the running system has read of it, and what is recorded; each freeze and release is a list of writes, and
    /// a crash can come before any of them.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct World {
        file: Side,
        running: Side,
        hold: Hold,
        open: bool,
    }

    const BEFORE: World =
        World { file: Side::Original, running: Side::Original, hold: Hold::Opened, open: false };

    type Write = fn(&mut World);

    fn freeze(world: World) -> Vec<Write> {
        let mut writes: Vec<Write> = Vec::new();
        if !world.open {
            writes.push(|world| world.open = true);
        }
        let what = freezing(world.hold, world.file);
        if what == Freezing::Apply {
            if world.hold == Hold::Opened {
                writes.push(|world| world.hold = Hold::Changing);
            }
            writes.push(|world| world.file = Side::Ours);
        }
        if matches!(what, Freezing::Apply | Freezing::Restart) {
            writes.push(|world| world.running = world.file);
        }
        if what != Freezing::Refuse {
            writes.push(|world| world.hold = Hold::Applied);
        }
        writes
    }

    fn release(world: World) -> Vec<Write> {
        let mut writes: Vec<Write> = Vec::new();
        if world.hold != Hold::Opened {
            writes.push(|world| world.hold = Hold::Releasing);
            let what = releasing(world.file);
            if what == Releasing::PutBack {
                writes.push(|world| world.file = Side::Original);
            }
            if what != Releasing::Leave {
                writes.push(|world| world.running = world.file);
            }
        }
        writes.push(|world| {
            world.open = false;
            world.hold = Hold::Opened;
        });
        writes
    }

    fn crashed_after(mut world: World, writes: &[Write], count: usize) -> World {
        for write in &writes[..count] {
            write(&mut world);
        }
        world
    }

    fn outcomes(world: World, script: fn(World) -> Vec<Write>) -> Vec<World> {
        let writes = script(world);
        (0..=writes.len()).map(|count| crashed_after(world, &writes, count)).collect()
    }

    #[test]
    fn every_crash_order_ends_with_the_original_in_force() {
        let mut seen = 0;
        for first in outcomes(BEFORE, freeze) {
            for second in outcomes(first, freeze) {
                for third in outcomes(second, release) {
                    for fourth in outcomes(third, release) {
                        let end =
                            if fourth.open { *outcomes(fourth, release).last().unwrap() } else { fourth };
                        assert_eq!((end.file, end.running), (Side::Original, Side::Original), "{fourth:?}");
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn a_freeze_entered_after_any_crash_is_in_force_at_its_end() {
        for first in outcomes(BEFORE, freeze) {
            let end = *outcomes(first, freeze).last().unwrap();
            assert_eq!(end, World { file: Side::Ours, running: Side::Ours, hold: Hold::Applied, open: true });
        }
    }

    #[test]
    fn what_is_foreign_is_never_overwritten() {
        for hold in [Hold::Opened, Hold::Changing, Hold::Applied, Hold::Releasing] {
            assert_eq!(freezing(hold, Side::Foreign), Freezing::Refuse);
        }
        assert_eq!(freezing(Hold::Opened, Side::Ours), Freezing::Refuse);
        assert_eq!(releasing(Side::Foreign), Releasing::Leave);
    }
}
