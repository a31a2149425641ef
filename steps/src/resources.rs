//! The systems of one runbook, by the names its author gave them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use runbook_engine::error::StepError;
use runbook_engine::redact::Redactor;
use serde_json::{Map, Value};

use crate::catalog;
use crate::collections::Collection;
use crate::kind::{ConnectionEntry, OpenContext, SystemIs, Vault};

struct Connection {
    client: Arc<dyn Any + Send + Sync>,
    entry: &'static ConnectionEntry,
}

/// What a name of the plan stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// A connection.
    Connection,
    /// A collection.
    Collection,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::Collection => "collection",
        })
    }
}

/// The connections and collections of a run.
#[derive(Default)]
pub struct Resources {
    connections: BTreeMap<String, Connection>,
    collections: BTreeMap<String, Arc<dyn Collection>>,
    /// What the plan names and is left out, and why.
    left_out: BTreeMap<(Named, String), String>,
}

impl Resources {
    /// Opens what the plan names, from settings whose expressions are resolved. Nothing is reached yet.
    pub fn open(
        connections: &Map<String, Value>,
        collections: &Map<String, Value>,
        redactor: &Redactor,
        vault: &Arc<dyn Vault>,
    ) -> Result<Self, StepError> {
        let mut resources = Self::default();
        for (name, settings) in connections {
            let (kind, settings) = typed(name, settings)?;
            let entry = catalog::connection(&kind).ok_or_else(|| {
                StepError::invalid(format!("connection `{name}` has the unknown type `{kind}`"))
            })?;
            let client = (entry.open)(settings, &OpenContext { name, redactor, vault })
                .map_err(|error| named(Named::Connection, name, error))?;
            let connection = Connection { client, entry };
            resources.connections.insert(name.clone(), connection);
        }
        for (name, settings) in collections {
            let (kind, settings) = typed(name, settings)?;
            let entry = catalog::collection(&kind).ok_or_else(|| {
                StepError::invalid(format!("collection `{name}` has the unknown type `{kind}`"))
            })?;
            let collection = (entry.open)(settings, name, &resources)
                .map_err(|error| named(Named::Collection, name, error))?;
            resources.collections.insert(name.clone(), collection);
        }
        Ok(resources)
    }

    /// The client of a connection of the kind whose client is `T`.
    pub fn connection<T: Any + Send + Sync>(&self, name: &str) -> Result<Arc<T>, StepError> {
        let client = self.connections.get(name).ok_or_else(|| self.none(Named::Connection, name))?;
        Arc::clone(&client.client).downcast::<T>().map_err(|_| {
            StepError::invalid(format!("connection `{name}` is of a type that this can not use"))
        })
    }

    /// Where each connection leads by its settings, by their names; nothing is reached.
    pub fn places(&self) -> BTreeMap<String, String> {
        let one = |(name, one): (&String, &Connection)| (name.clone(), (one.entry.place)(&one.client));
        self.connections.iter().map(one).collect()
    }

    /// Which system each connection leads to, and what each collection is, by their names.
    pub async fn identities(&self) -> Result<BTreeMap<String, SystemIs>, StepError> {
        let mut all = BTreeMap::new();
        for (name, Connection { client, entry }) in &self.connections {
            let who = (entry.identity)(Arc::clone(client)).await;
            all.insert(name.clone(), who.map_err(|error| named(Named::Connection, name, error))?);
        }
        let described =
            self.collections.iter().map(|(name, one)| (name.clone(), SystemIs::There(one.describe())));
        all.extend(described);
        Ok(all)
    }

    /// The same with what is in each system, for a plan that is made or applied.
    pub async fn identities_with_content(&self) -> Result<BTreeMap<String, SystemIs>, StepError> {
        let mut all = self.identities().await?;
        for (name, Connection { client, entry }) in &self.connections {
            let Some(who) = all.remove(name) else { continue };
            let holds = match who {
                SystemIs::NotYet(_) => None,
                _ => (entry.content)(Arc::clone(client))
                    .await
                    .map_err(|error| named(Named::Connection, name, error))?,
            };
            all.insert(name.clone(), who.holding(holds));
        }
        Ok(all)
    }

    /// Takes this connection or collection away, if it is there: whoever asks for it is told why.
    pub fn leave_out(&mut self, what: Named, name: &str, why: &str) {
        match what {
            Named::Connection => drop(self.connections.remove(name)),
            Named::Collection => drop(self.collections.remove(name)),
        }
        self.left_out.insert((what, name.to_owned()), why.to_owned());
    }

    fn none(&self, what: Named, name: &str) -> StepError {
        StepError::invalid(match self.left_out.get(&(what, name.to_owned())) {
            Some(why) => format!("{what} `{name}` can not be used: {why}"),
            None => format!("there is no {what} `{name}`"),
        })
    }

    /// From now on nothing is changed by reaching any of them.
    pub fn only_read(&self) {
        for Connection { client, entry } in self.connections.values() {
            (entry.only_read)(client);
        }
    }

    /// The collection of this name.
    pub fn collection(&self, name: &str) -> Result<Arc<dyn Collection>, StepError> {
        self.collections.get(name).cloned().ok_or_else(|| self.none(Named::Collection, name))
    }
}

/// The systems in words.
pub fn in_words(all: &BTreeMap<String, SystemIs>) -> BTreeMap<String, String> {
    all.iter().map(|(name, one)| (name.clone(), one.words())).collect()
}

/// Those of the systems that are there, in words, without what is in them.
pub fn there(all: BTreeMap<String, SystemIs>) -> BTreeMap<String, String> {
    let there = all.into_iter().filter_map(|(name, one)| match one {
        SystemIs::There(is) | SystemIs::Holding { is, .. } => Some((name, is)),
        SystemIs::NotYet(_) => None,
    });
    there.collect()
}

fn typed(name: &str, settings: &Value) -> Result<(String, Value), StepError> {
    let mut settings = settings
        .as_object()
        .cloned()
        .ok_or_else(|| StepError::invalid(format!("the settings of `{name}` are not a mapping")))?;
    match settings.remove("type") {
        Some(Value::String(kind)) => Ok((kind, Value::Object(settings))),
        _ => Err(StepError::invalid(format!("`{name}` has no type"))),
    }
}

fn named(what: Named, name: &str, mut error: StepError) -> StepError {
    error.message = format!("{what} `{name}`: {}", error.message);
    error
}
