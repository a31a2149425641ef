//! What every command works with.

use std::sync::Arc;

use runbook_engine::store::Store;

use crate::exit::{Exit, Outcome};
use crate::lost;
use crate::planning;
use crate::state::Location;
use crate::trouble;

/// The global options.
pub struct App {
    state: Option<String>,
    /// Whether stdout carries machine-readable data.
    pub json: bool,
}

/// The state store with the folder it lives in.
#[derive(Clone)]
pub struct State {
    /// Where it is.
    pub location: Location,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Whether a run that the store does not have may still hold something, by its log.
    pub lost: bool,
}

impl App {
    /// With these options.
    pub fn new(state: Option<&str>, json: bool) -> Self {
        Self { state: state.map(str::to_owned), json }
    }

    /// Opens the state store, which is made when it is not there.
    pub async fn state(&self) -> Outcome<State> {
        let location = self.swept().await?;
        let store = location.open().await;
        Self::opened(location, store).await
    }

    /// Opens the state store for a command that only looks, also where nothing can be written.
    pub async fn state_to_read(&self) -> Outcome<State> {
        let location = self.swept().await?;
        let store = location.open_to_read().await;
        Self::opened(location, store).await
    }

    /// Where runs are kept, without what a plan that was killed had read.
    async fn swept(&self) -> Outcome<Location> {
        let location = self.location()?;
        planning::sweep(&location).await;
        Ok(location)
    }

    async fn opened(location: Location, store: Outcome<Arc<dyn Store>>) -> Outcome<State> {
        match store {
            Ok(store) => {
                let lost = lost::tell(&location, &*store).await;
                Ok(State { location, store, lost })
            }
            Err(failure) if failure.exit == Exit::Store => Err(trouble::unopened(&location, failure).await),
            Err(failure) => Err(failure),
        }
    }

    /// Where runs are kept.
    pub fn location(&self) -> Outcome<Location> {
        Location::of(self.state.as_deref())
    }

    /// Opens the state store if there is one; commands that need none are not stopped by it.
    pub async fn state_if_there(&self) -> Option<State> {
        Location::of(self.state.as_deref()).ok().filter(Location::exists)?;
        self.state_to_read().await.ok()
    }
}
