//! What the process says when it ends: the exit codes, and failures as people read them.

use runbook_engine::drive::DriveError;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::saved::Moved;
use runbook_engine::state::{RunState, RunStatus, StepStatus};
use runbook_engine::store::StoreError;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It succeeded.
    Succeeded = 0,
    /// A bug in this program.
    Bug = 1,
    /// Flags or inputs are wrong; nothing was done.
    Usage = 2,
    /// The runbook is invalid; nothing was done.
    Invalid = 3,
    /// A step or a gate failed, or something could not be put back.
    Failed = 4,
    /// The run waits for a person.
    Waiting = 5,
    /// The run was cancelled, and everything is back.
    Cancelled = 6,
    /// The state store failed.
    Store = 7,
    /// The run, its lock or its target is owned by another.
    Busy = 8,
    /// The world is not what the reviewed plan says, or the plan has expired or was applied before.
    Drift = 9,
    /// A limit was reached.
    Limit = 10,
    /// The terminal went away (SIGHUP); the run can be resumed.
    HungUp = 129,
    /// Stopped by Ctrl-C (SIGINT); the run can be resumed.
    Interrupted = 130,
    /// Stopped by SIGTERM; the run can be resumed.
    Terminated = 143,
}

impl Exit {
    /// The number.
    pub fn code(self) -> i32 {
        i32::from(self as u8)
    }

    /// The code of a run that has ended.
    pub fn of_run(state: &RunState) -> Self {
        match state.status {
            RunStatus::Succeeded => Self::Succeeded,
            RunStatus::Waiting => Self::Waiting,
            RunStatus::Cancelled if state.error.is_none() => Self::Cancelled,
            RunStatus::Cancelled => Self::Failed,
            RunStatus::Running | RunStatus::Failed => Self::of_failure(state),
        }
    }

    fn of_failure(state: &RunState) -> Self {
        let failed = state.steps.values().filter(|step| step.status == StepStatus::Failed);
        let kinds: Vec<ErrorKind> = failed
            .filter_map(|step| step.error.as_ref())
            .chain(&state.error)
            .map(|error| error.kind)
            .collect();
        let exits = [
            (ErrorKind::Bug, Self::Bug),
            (ErrorKind::Store, Self::Store),
            (ErrorKind::Drift, Self::Drift),
            (ErrorKind::Limit, Self::Limit),
        ];
        let first = exits.into_iter().find(|(kind, _)| kinds.contains(kind)).map(|(_, exit)| exit);
        // A failure of its own weighs more than somebody who is in the way.
        let busy = !kinds.is_empty() && kinds.iter().all(|kind| *kind == ErrorKind::Busy);
        first.unwrap_or(if busy { Self::Busy } else { Self::Failed })
    }
}

/// Why a command could not do its work, for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong; empty when it has been said already.
    pub message: String,
    /// What is not as a reviewed plan says.
    pub moved: Vec<Moved>,
    /// What to do about it, one line each.
    pub help: Vec<String>,
    /// The run whose record can not be read, if that is what is wrong.
    pub unreadable: Option<String>,
}

/// What a command comes to.
pub type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// A failure that is told like this.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), moved: Vec::new(), help: Vec::new(), unreadable: None }
    }

    /// Wrong flags, arguments or inputs.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure that has been told already.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// The same, because of this.
    #[must_use]
    pub fn moved(self, moved: Vec<Moved>) -> Self {
        Self { moved, ..self }
    }

    /// The same, with one more line of help.
    #[must_use]
    pub fn help(mut self, line: impl Into<String>) -> Self {
        self.help.push(line.into());
        self
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        let exit = match error.kind {
            ErrorKind::Interrupted => Exit::Interrupted,
            ErrorKind::Store => Exit::Store,
            ErrorKind::Bug => Exit::Bug,
            ErrorKind::Invalid => Exit::Invalid,
            ErrorKind::Drift => Exit::Drift,
            _ => Exit::Failed,
        };
        let failure = error
            .causes
            .iter()
            .fold(Self::new(exit, error.message), |failure, cause| failure.help(cause.as_str()));
        match error.help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Busy { .. } | StoreError::Locked { .. } | StoreError::Held { .. } => {
                Self::new(Exit::Busy, message)
            }
            StoreError::Applied { .. } => Self::new(Exit::Drift, message)
                .help("nothing was done; a plan is applied once: make a new one"),
            StoreError::Fenced => Self::new(Exit::Busy, message)
                .help("this process stopped at once; the other one goes on with the run"),
            StoreError::Address(_) => Self::usage(message),
            StoreError::NoSuchRun(_) => Self::usage(message).help("`runbook runs` lists the runs"),
            StoreError::Later { .. } => Self::new(Exit::Invalid, message).help("nothing was done"),
            StoreError::Corrupt { run, .. } => {
                Self { unreadable: Some(run), ..Self::new(Exit::Store, message) }
            }
            StoreError::Conflict | StoreError::Limit { .. } | StoreError::Io(_) => {
                Self::new(Exit::Store, message)
            }
        }
    }
}

impl From<DriveError> for Failure {
    fn from(error: DriveError) -> Self {
        match error {
            DriveError::Store(error) => error.into(),
            DriveError::Refused(message) => Self::usage(message),
            DriveError::Bug(illegal) => Self::new(Exit::Bug, format!("bug: {illegal}"))
                .help("the run was stopped where it was and nothing more was done; please report this"),
        }
    }
}

#[cfg(test)]
mod tests {
    use runbook_engine::error::StepError;
    use runbook_engine::state::StepState;

    use super::*;

    fn failed_with(kind: ErrorKind) -> RunState {
        let step = StepState {
            status: StepStatus::Failed,
            error: Some(StepError::new(kind, "no")),
            ..StepState::default()
        };
        let mut state = RunState { status: RunStatus::Failed, ..RunState::default() };
        state.steps.insert("purge".to_owned(), step);
        state
    }

    #[test]
    fn the_kind_of_the_failure_decides() {
        assert_eq!(Exit::of_run(&failed_with(ErrorKind::Limit)), Exit::Limit);
        assert_eq!(Exit::of_run(&failed_with(ErrorKind::Gate)), Exit::Failed);
        assert_eq!(Exit::of_run(&failed_with(ErrorKind::Bug)), Exit::Bug);
        assert_eq!(Exit::of_run(&failed_with(ErrorKind::Busy)), Exit::Busy);
        let mut both = failed_with(ErrorKind::Busy);
        both.error = Some(StepError::gate("no"));
        assert_eq!(Exit::of_run(&both), Exit::Failed);
    }

    #[test]
    fn a_cancelled_run_that_left_something_behind_is_a_failure() {
        let mut state = RunState { status: RunStatus::Cancelled, ..RunState::default() };
        assert_eq!(Exit::of_run(&state), Exit::Cancelled);
        state.error = Some(StepError::gate("left alone"));
        assert_eq!(Exit::of_run(&state), Exit::Failed);
    }
}
