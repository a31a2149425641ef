//! What every command works with.

use std::sync::Arc;

use runbook_engine::store::Store;

use crate::exit::Outcome;
use crate::state::Location;

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
}

impl App {
    /// With these options.
    pub fn new(state: Option<&str>, json: bool) -> Self {
        Self { state: state.map(str::to_owned), json }
    }

    /// Opens the state store, which is made when it is not there.
    pub async fn state(&self) -> Outcome<State> {
        let location = Location::of(self.state.as_deref())?;
        let store = location.open().await?;
        Ok(State { location, store })
    }

    /// Opens the state store if there is one; commands that need none are not stopped by it.
    pub async fn state_if_there(&self) -> Option<State> {
        let location = Location::of(self.state.as_deref()).ok().filter(Location::exists)?;
        let store = location.open().await.ok()?;
        Some(State { location, store })
    }
}
