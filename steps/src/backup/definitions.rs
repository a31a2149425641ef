//! What is defined in the schemas of a database beside the rows of its tables, so that what was made or changed after a backup is found out before it is
//! lost.

use std::collections::{BTreeMap, BTreeSet};

use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connections::sql::{Cell, Failure, Session};

/// Everything that the catalogues of PostgreSQL (12 or newer) know of the schemas, or of the one that is the parameter: schema, kind and name, digest,
/// and of a sequence its last value.
const SQL: &str = include_str!("definitions.sql");

/// What is defined in a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definitions {
    /// A digest of the definition of each thing, by its kind and name: ``view `names` ``.
    #[serde(default)]
    pub things: BTreeMap<String, String>,
    /// The last value that each sequence gave; `none` when it gave none yet, or does not say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, String>,
}

/// The definitions of a database, by schema.
pub(crate) type Schemas = BTreeMap<String, Definitions>;

/// What is defined in the transaction of `session`; with a schema, in it alone.
pub(super) async fn now(session: &mut dyn Session, schema: Option<&str>) -> Result<Schemas, Failure> {
    // What the server calls a thing depends on what is found without its schema: nothing is then.
    let path = set_path(session, "current_setting('search_path')", "").await?;
    let found = session.cells(SQL, vec![Cell::Text(schema.unwrap_or_default().to_owned())]).await?;
    if found.cut {
        return Err(Failure::plain(StepError::refused("there is more in the database than can be compared")));
    }
    set_path(session, "''", &path).await?;
    let mut schemas = Schemas::new();
    for row in found.rows {
        if let [Cell::Text(schema), Cell::Text(name), Cell::Text(digest), Cell::Text(value)] = &row[..] {
            let all = schemas.entry(schema.clone()).or_default();
            let (map, fact) =
                if value.is_empty() { (&mut all.things, digest) } else { (&mut all.sequences, value) };
            map.insert(name.clone(), fact.clone());
        }
    }
    Ok(schemas)
}

/// Sets where names are looked for until the end of the transaction; what `before` was.
async fn set_path(session: &mut dyn Session, before: &str, path: &str) -> Result<String, Failure> {
    let sql = format!("select {before}, set_config('search_path', $1, true)");
    let rows = session.cells(&sql, vec![Cell::Text(path.to_owned())]).await?.rows;
    Ok(match rows.into_iter().next().and_then(|row| row.into_iter().next()) {
        Some(Cell::Text(was)) => was,
        _ => String::new(),
    })
}

/// What differs between then and now, of the schemas that are looked at.
pub(super) fn differences(then: &Schemas, now: &Schemas, schema: Option<&str>) -> Vec<String> {
    let none = Definitions::default();
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let mut wrong = Vec::new();
    for name in names.into_iter().filter(|name| schema.is_none_or(|schema| schema == name.as_str())) {
        let (before, after) = (then.get(name).unwrap_or(&none), now.get(name).unwrap_or(&none));
        for (what, digest) in &before.things {
            match after.things.get(what) {
                None => wrong.push(format!("{what} in `{name}` is gone")),
                Some(there) if there != digest => wrong.push(format!("{what} in `{name}` is another one")),
                Some(_) => {}
            }
        }
        let newer = after.things.keys().filter(|what| !before.things.contains_key(*what));
        wrong.extend(newer.map(|what| format!("{what} in `{name}` is new")));
        // Of a sequence that is new or gone that is said above.
        for (sequence, was) in &before.sequences {
            if let Some(is) = after.sequences.get(sequence).filter(|is| *is != was) {
                wrong.push(format!("sequence `{sequence}` in `{name}` is at {is} and was at {was}"));
            }
        }
    }
    wrong
}
