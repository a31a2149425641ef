//! What is in a database, so that what came after a backup is found out before it is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runbook_engine::error::{ErrorKind, StepError};
use serde::Deserialize;

use super::definitions::{self, Schemas};
use super::probe::{part, tables};
use crate::connections::sql::{Cell, Failure, Session};
use crate::digest::sha256_file;
use crate::kind::Context;

/// How many tables are named that differ.
const NAMED: usize = 5;

/// What the tables of a database hold, as `schema.table`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Contents {
    /// How many rows each holds.
    pub rows: BTreeMap<String, u64>,
    /// The sum of the hashes of its rows, which every change of a row changes.
    #[serde(default)]
    pub digests: BTreeMap<String, String>,
    /// What is defined in each schema; none of a backup of before it was looked at.
    #[serde(default)]
    pub definitions: Option<Schemas>,
    /// The file that holds all of it, where it is of a backup.
    #[serde(default)]
    file: PathBuf,
    /// The SHA-256 of that.
    #[serde(default)]
    sha256: String,
}

impl Contents {
    /// What they hold in the transaction of `session`; with a schema, those in it alone.
    pub async fn now(session: &mut dyn Session, schema: Option<&str>) -> Result<Self, Failure> {
        let definitions = Some(definitions::now(session, schema).await?);
        let mut contents = Self { definitions, ..Self::default() };
        let all = tables(session).await?;
        for one in all.into_iter().filter(|one| schema.is_none_or(|schema| schema == one.schema)) {
            let table = one.quoted();
            let sql = format!(
                "select count(*)::text, coalesce(sum(hashtextextended(row(t.*)::text, 0)::numeric), 0)::text from {table} t"
            );
            let row = session.cells(&sql, Vec::new()).await?.rows.into_iter().next().unwrap_or_default();
            if let [Cell::Text(rows), Cell::Text(digest)] = &row[..] {
                let name = one.path();
                contents.rows.insert(name.clone(), rows.parse().unwrap_or_default());
                contents.digests.insert(name, digest.clone());
            }
        }
        Ok(contents)
    }

    /// What the step `backup` with this id found.
    pub async fn found_by(step: &str, cx: &Context) -> Result<Self, StepError> {
        let state = cx.history.state().await?;
        let outputs = state.step(step).and_then(|step| step.outputs()).ok_or_else(|| {
            StepError::refused(format!("`unchanged_since` names `{step}`, which has not succeeded"))
                .with_help("name a step with `uses: backup` that comes before this one")
        })?;
        let found = Self::deserialize(outputs).map_err(|_| {
            StepError::invalid(format!("`unchanged_since` names `{step}`, which is no backup"))
        })?;
        // A backup that was only looked at has numbers of rows, by which a row that was changed is not found.
        if found.digests.is_empty() && !found.rows.is_empty() {
            return Err(StepError::invalid(format!(
                "`unchanged_since` names `{step}`, which made no backup and only looked at one"
            ))
            .with_help("name a step with `uses: backup` and `mode: take`"));
        }
        Ok(found)
    }

    /// Fails unless the file of the backup is there as it was made.
    pub async fn is_kept(&self) -> Result<(), StepError> {
        let (path, shown) = (self.file.clone(), self.file.display());
        let told = match tokio::task::spawn_blocking(move || sha256_file(&path)).await {
            Ok(Ok((there, _))) if there == self.sha256 => return Ok(()),
            Ok(Ok((there, _))) => {
                format!(
                    "the backup {shown} is not as it was made: its SHA-256 is {there}, and was {}",
                    self.sha256
                )
            }
            Ok(Err(error)) => format!("the backup {shown} can not be read any more: {error}"),
            Err(error) => return Err(StepError::new(ErrorKind::Bug, error.to_string())),
        };
        Err(StepError::gate(told).with_help(
            "nothing was dropped; put the backup back where it was and resume, or cancel this run and begin anew, with a new backup",
        ))
    }

    /// Fails unless the tables hold in the transaction of `session` what they held when this was found.
    pub async fn judge(&self, session: &mut dyn Session, schema: Option<&str>) -> Result<(), StepError> {
        let now = Self::now(session, schema).await?;
        let wrong = self.differences(&now, schema);
        if wrong.is_empty() {
            return Ok(());
        }
        let more = wrong.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        let told: Vec<String> = wrong.into_iter().take(NAMED).collect();
        let message = format!("changed since the backup was made, which lacks it: {}{more}", told.join("; "));
        Err(StepError::gate(message)
            .with_help("nothing was dropped; find out who does that, then cancel this run and begin anew, with a new backup"))
    }

    fn differences(&self, now: &Self, schema: Option<&str>) -> Vec<String> {
        let of_schema = schema.map(|schema| format!("{}.", part(schema)));
        let inside = |name: &&String| of_schema.as_ref().is_none_or(|schema| name.starts_with(schema));
        let mut wrong = Vec::new();
        for (name, rows) in self.rows.iter().filter(|(name, _)| inside(name)) {
            match now.rows.get(name) {
                None => wrong.push(format!("`{name}` is gone")),
                Some(there) if there != rows => {
                    wrong.push(format!("`{name}` has {there} rows and had {rows}"));
                }
                Some(_) => {
                    let (then, there) = (self.digests.get(name), now.digests.get(name));
                    if then.is_some() && then != there {
                        wrong.push(format!("`{name}` has as many rows, and not the same"));
                    }
                }
            }
        }
        let newer = now.rows.keys().filter(|name| !self.rows.contains_key(*name));
        wrong.extend(newer.map(|name| format!("`{name}` is new")));
        if let Some((then, now)) = self.definitions.as_ref().zip(now.definitions.as_ref()) {
            wrong.extend(definitions::differences(then, now, schema));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(tables: &[(&str, u64, &str)]) -> Contents {
        let name = |name: &str| name.to_owned();
        Contents {
            rows: tables.iter().map(|(table, rows, _)| (name(table), *rows)).collect(),
            digests: tables.iter().map(|(table, _, digest)| (name(table), name(digest))).collect(),
            ..Contents::default()
        }
    }

    #[test]
    fn every_table_is_held_to_what_it_held() {
        let then = contents(&[("public.a", 2, "7"), ("public.b", 1, "1"), ("public2.c", 1, "1")]);
        assert_eq!(then.differences(&then, None), Vec::<String>::new());
        // Another schema is looked at by nobody who drops this one.
        let rest = contents(&[("public.a", 2, "7"), ("public.b", 1, "1")]);
        assert_eq!(then.differences(&rest, Some("public")), Vec::<String>::new());
        assert_eq!(then.differences(&rest, None), ["`public2.c` is gone"]);
        // A row that came for one that went leaves the sum of all rows as it was.
        let now = contents(&[("public.a", 1, "3"), ("public.b", 1, "2"), ("public.d", 0, "0")]);
        assert_eq!(
            then.differences(&now, Some("public")),
            [
                "`public.a` has 1 rows and had 2",
                "`public.b` has as many rows, and not the same",
                "`public.d` is new"
            ]
        );
        // A backup of before there were digests counts.
        let counted = Contents { digests: BTreeMap::new(), ..then };
        assert_eq!(counted.differences(&now, Some("public")).len(), 2);
    }
}
