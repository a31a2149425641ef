//! A loop on any store and any executor.

use std::collections::BTreeMap;
use std::sync::Arc;

use runbook_engine::artifact::Artifacts;
use runbook_engine::drive::{Clock, Driver, Halt, LiveHub};
use runbook_engine::redact::Redactor;
use runbook_engine::step::Executor;
use runbook_engine::store::Store;
use tokio::sync::watch;

use crate::common::{Blind, Nobody};

/// What one process drives with: nobody to ask, nobody who watches, no secrets.
pub fn driver(
    store: &Arc<dyn Store>,
    executor: impl Executor + 'static,
    owner: &str,
    clock: Arc<dyn Clock>,
    halt: watch::Receiver<Halt>,
) -> Driver {
    let redactor = Redactor::default();
    Driver {
        store: Arc::clone(store),
        executor: Arc::new(executor),
        people: Arc::new(Nobody),
        observer: Box::new(Blind),
        live: LiveHub::new(redactor.clone()),
        artifacts: Artifacts::new(std::env::temp_dir(), redactor.clone()),
        scratch: std::env::temp_dir(),
        redactor,
        secrets: BTreeMap::new(),
        owner: owner.to_owned(),
        clock,
        halt,
        elsewhere: BTreeMap::new(),
    }
}
