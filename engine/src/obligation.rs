//! An obligation's part of a run's state: how far it is, and whether the run may still stand on it.

use jiff::Timestamp;

use crate::error::StepError;
use crate::event::{Closed, Obligation, ObligationChange};
use crate::plan::StepId;
use crate::step::Hold;

/// An obligation's part of the state.
#[derive(Clone, Debug, PartialEq)]
pub struct ObligationState {
    /// What it is.
    pub obligation: Obligation,
    /// How far it is.
    pub phase: ObligationPhase,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// What was found when it was not in force while it was held, or ended before the run was done with it: whatever comes after the
    /// step that took it on has lost its ground.
    pub lost: Option<String>,
    /// Since when it may not have been held any more, once it is lost: nothing that ended later stood on it.
    pub lost_since: Option<Timestamp>,
    /// How the run began to put it back, since it was last changed.
    pub let_go: Option<LetGo>,
    /// Why it could not be put back when that was last tried.
    pub stuck: Option<StepError>,
}

/// How a run began to put back what it had changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetGo {
    /// When.
    pub at: Timestamp,
    /// The step that asked for it; none when it was over because the run was, or its time.
    pub by: Option<StepId>,
}

/// How far an obligation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObligationPhase {
    /// Recorded; nothing was changed.
    Opened,
    /// The change may or may not have been made.
    Changing,
    /// The change was made.
    Applied,
    /// It is being put back.
    Releasing,
    /// It is over.
    Closed(Closed),
}

impl ObligationState {
    /// Whether something must still be put back.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, ObligationPhase::Closed(_))
    }

    /// When it is released at the latest.
    pub fn hold_until(&self) -> Timestamp {
        self.obligation.max_hold.after(self.opened_at)
    }

    /// Whether the run began to put it back before it had been held too long: how long that takes does not count.
    pub fn let_go_in_time(&self) -> bool {
        self.let_go.as_ref().is_some_and(|let_go| let_go.at < self.hold_until())
    }

    /// How far it is, as a step that goes on with it needs to know. One that is over counts as being put back.
    pub fn hold(&self) -> Hold {
        match self.phase {
            ObligationPhase::Opened => Hold::Opened,
            ObligationPhase::Changing => Hold::Changing,
            ObligationPhase::Applied => Hold::Applied,
            ObligationPhase::Releasing | ObligationPhase::Closed(_) => Hold::Releasing,
        }
    }

    /// It was not held any more at this time at the latest; what was found first counts.
    fn lose(&mut self, found: String, at: Timestamp) {
        self.lost.get_or_insert(found);
        self.lost_since.get_or_insert(at);
    }

    /// What was begun first counts.
    fn let_go(&mut self, at: Timestamp, by: Option<StepId>) {
        self.let_go.get_or_insert(LetGo { at, by });
    }

    /// Takes a change in; the present phase when it can not follow that.
    pub(crate) fn change(&mut self, change: &ObligationChange, at: Timestamp) -> Result<(), ObligationPhase> {
        use ObligationPhase::{Applied, Changing, Closed, Opened, Releasing};
        match (&self.phase, change) {
            // Entered again in the middle of a release, the step that took it on may make the change once more.
            (Opened | Changing, ObligationChange::Changing) => self.phase = Changing,
            // One that was changed before stays as it was: there is something to put back.
            (Applied | Releasing, ObligationChange::Changing | ObligationChange::Unchanged) => {}
            (Changing, ObligationChange::Unchanged) => self.phase = Opened,
            (Opened | Changing | Releasing | Applied, ObligationChange::Applied) => {
                self.phase = Applied;
                (self.lost, self.lost_since, self.let_go, self.stuck) = (None, None, None, None);
            }
            (Applied, ObligationChange::Lost { found }) => self.lose(found.clone(), at),
            // Nothing was changed, so whatever stands there then, nothing of it is this run's to put back.
            (Opened, ObligationChange::Releasing { by }) => self.let_go(at, by.clone()),
            (Changing | Applied | Releasing, ObligationChange::Releasing { by }) => {
                self.phase = Releasing;
                self.let_go(at, by.clone());
            }
            (Opened | Releasing, ObligationChange::Stuck { error }) => self.stuck = Some(error.clone()),
            (Opened | Changing | Applied | Releasing, ObligationChange::Closed { how }) => {
                let due = self.hold_until();
                if let Some(found) = lost_by(how, at >= due && !self.let_go_in_time()) {
                    self.lose(found, at.min(due));
                }
                self.let_go(at, None);
                self.phase = Closed(how.clone());
            }
            (phase, _) => return Err(phase.clone()),
        }
        Ok(())
    }
}

/// Whether an obligation that ended like this ended too early for the run; in words.
fn lost_by(how: &Closed, overdue: bool) -> Option<String> {
    match how {
        Closed::Foreign { present } => Some(format!("somebody else changed it to {present}")),
        Closed::Expired => Some("it had been held for its max_hold".to_owned()),
        // It was released for its time, whatever was found then.
        _ if overdue => Some("it had been held for its max_hold".to_owned()),
        _ => None,
    }
}
