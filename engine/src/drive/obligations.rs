//! A step's handle on what must be put back. Every change goes through the loop, which owns the run's events.

use tokio::sync::{mpsc, oneshot};

use crate::error::{ErrorKind, StepError};
use crate::event::{Closed, Obligation, ObligationChange};
use crate::step::Hold;

/// What a step asks of the loop; each is answered when it is durable.
#[derive(Debug)]
pub enum Request {
    /// Record an obligation, before anything is changed.
    Open(Box<Obligation>, oneshot::Sender<Result<String, StepError>>),
    /// Record how far the change is.
    Change(String, ObligationChange, oneshot::Sender<Result<(), StepError>>),
    /// Put back what the named step changed.
    Release {
        /// The step that took it on.
        of: String,
        /// The step that asks.
        by: String,
        /// What became of each.
        reply: oneshot::Sender<Result<Vec<Released>, StepError>>,
    },
    /// The open obligation of the named step, if it has one.
    Find(String, oneshot::Sender<Result<Option<Standing>, StepError>>),
}

/// An obligation that a release dealt with.
#[derive(Clone, Debug, PartialEq)]
pub struct Released {
    /// What it was.
    pub obligation: Obligation,
    /// How it ended.
    pub how: Closed,
}

/// An open obligation that an earlier attempt took on.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its id.
    pub id: String,
    /// What it is.
    pub obligation: Obligation,
    /// How far it is.
    pub hold: Hold,
}

/// The handle of one step.
#[derive(Clone, Debug)]
pub struct Obligations {
    step: String,
    requests: mpsc::Sender<Request>,
}

impl Obligations {
    /// The handle of `step` on the loop behind `requests`.
    pub fn new(step: &str, requests: mpsc::Sender<Request>) -> Self {
        Self { step: step.to_owned(), requests }
    }

    /// The obligation this step took on in an earlier attempt and that is still open.
    pub async fn standing(&self) -> Result<Option<Standing>, StepError> {
        self.ask(|reply| Request::Find(self.step.clone(), reply)).await
    }

    /// Takes an obligation on; when this returns, it is durable, and no other run can freeze the same target.
    pub async fn open(&self, obligation: Obligation) -> Result<String, StepError> {
        self.ask(|reply| Request::Open(Box::new(obligation), reply)).await
    }

    /// Records that the change is about to be made; when this returns, it is durable, and the change may be made.
    pub async fn changing(&self, id: &str) -> Result<(), StepError> {
        self.change(id, ObligationChange::Changing).await
    }

    /// Records that the change was not made after all.
    pub async fn unchanged(&self, id: &str) -> Result<(), StepError> {
        self.change(id, ObligationChange::Unchanged).await
    }

    /// Records that the change was made.
    pub async fn applied(&self, id: &str) -> Result<(), StepError> {
        self.change(id, ObligationChange::Applied).await
    }

    async fn change(&self, id: &str, change: ObligationChange) -> Result<(), StepError> {
        self.ask(|reply| Request::Change(id.to_owned(), change, reply)).await
    }

    /// Puts back everything that `step` changed; what became of each. Nothing open is no error.
    pub async fn release(&self, step: &str) -> Result<Vec<Released>, StepError> {
        self.ask(|reply| Request::Release { of: step.to_owned(), by: self.step.clone(), reply }).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StepError>>) -> Request,
    ) -> Result<T, StepError> {
        let gone = || StepError::new(ErrorKind::Interrupted, "the run has stopped");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
