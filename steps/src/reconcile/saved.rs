//! The findings that something is changed by: those of a report, or a file of them in a directory.

use std::collections::BTreeSet;
use std::io::Read as _;

use runbook_engine::artifact::Artifact;
use runbook_engine::error::StepError;
use runbook_engine::plan::Drift;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Reconcile;
use super::record::{Finding, decode, encode};
use crate::collections::Versions;
use crate::connections::directory::Directory;
use crate::external_sort::Sorter;
use crate::keyset::{Set, hold_against, refuses, target_set};
use crate::kind::Context;
use crate::manifest::blocking;

/// A file of a directory.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveTo {
    /// The name of a connection of type `directory`.
    pub connection: String,
    /// The file, a relative path in it.
    pub file: String,
}

/// The name under which the ledger remembers the findings that are gone by.
const GIVEN: &str = "given";

/// How much is read of a file at one time, in bytes.
const BUFFER: usize = 256 * 1024;

/// The findings that the step is given, without those that `only` leaves out.
pub(super) async fn given(step: &Reconcile, cx: &Context) -> Result<Artifact, StepError> {
    let all = match (&step.findings, &step.saved_in) {
        (Some(findings), _) => findings.clone(),
        (None, Some(file)) => taken_in(file, cx).await?,
        (None, None) => return Err(StepError::invalid("there are no `findings`")),
    };
    let Some(only) = &step.only else { return Ok(all) };
    let mut wanted: BTreeSet<&str> = only.iter().map(String::as_str).collect();
    let mut writer = cx.artifacts.create_raw("findings.jsonl").await?;
    let mut lines = cx.artifacts.lines(&all).await?;
    while let Some((finding, _)) = lines.next_json::<Finding>().await? {
        if wanted.remove(finding.key.as_str()) {
            writer.write_json(&finding).await?;
        }
    }
    if wanted.is_empty() {
        return writer.finish().await;
    }
    let (count, first) = (wanted.len(), wanted.into_iter().take(20).collect::<Vec<_>>().join(", "));
    Err(StepError::gate(format!("{count} keys of `only` are not in the findings: {first}"))
        .with_help("nothing was changed; what is not in the findings has no prior values to go by"))
}

/// A file of findings as an artifact: what is read of it later is what it was now. Of kind gate when it is not there, or is something else.
async fn taken_in(file: &SaveTo, cx: &Context) -> Result<Artifact, StepError> {
    let directory = cx.resources.connection::<Directory>(&file.connection)?;
    let path = directory.path(&file.file)?;
    let missing = format!("{} can not be read", path.display());
    let mut source = blocking(move || {
        std::fs::File::open(&path).map_err(|error| StepError::gate(missing).with_source(&error))
    })
    .await?;
    let mut writer = cx.artifacts.create_raw("findings.jsonl").await?;
    loop {
        let (back, bytes) = blocking(move || {
            let mut buffer = vec![0; BUFFER];
            let count = source
                .read(&mut buffer)
                .map_err(|error| StepError::transient("the findings can not be read").with_source(&error))?;
            buffer.truncate(count);
            Ok((source, buffer))
        })
        .await?;
        if bytes.is_empty() {
            break;
        }
        source = back;
        writer.write(&bytes).await?;
    }
    let taken = writer.finish().await?;
    let mut lines = cx.artifacts.lines(&taken).await?;
    while lines.next_json::<Finding>().await?.is_some() {}
    Ok(taken)
}

/// Copies the findings into a file, which is whole or not there, and reads it back. One that is there already must be the same.
pub(super) async fn save(to: &SaveTo, findings: &Artifact, cx: &Context) -> Result<(), StepError> {
    let directory = cx.resources.connection::<Directory>(&to.connection)?;
    let mut source = cx.artifacts.open(findings).await?.into_std().await;
    let (name, wanted) = (to.file.clone(), Some((findings.sha256.clone(), findings.bytes)));
    blocking(move || {
        let there = directory.digest(&name)?;
        if there.is_some() && there != wanted {
            let path = directory.path(&name)?;
            return Err(StepError::gate(format!("{} is there already, and is another file", path.display()))
                .with_help("nothing was changed; a prior state is never overwritten: name another file"));
        }
        if there.is_none() {
            directory.write_from(&name, &mut source)?;
            if directory.digest(&name)? != wanted {
                let path = directory.path(&name)?;
                return Err(StepError::gate(format!("{} was read back, and differs", path.display())));
            }
        }
        Ok(())
    })
    .await
}

/// What of the findings may be changed: all of it without a plan, and with one what is in the plan. It is decided once.
pub(super) async fn bound(step: &Reconcile, cx: &Context) -> Result<Artifact, StepError> {
    let given = given(step, cx).await?;
    let name = format!("{GIVEN} {}", given.sha256);
    if let Some(known) = cx.ledger.recall(&name).await? {
        return decode(&known);
    }
    let bound = planned(step, cx, given).await?;
    decode(&cx.ledger.remember(&name, encode(&bound)?).await?)
}

async fn planned(step: &Reconcile, cx: &Context, given: Artifact) -> Result<Artifact, StepError> {
    let plan = &cx.history.plan;
    let Some(reviewed) = &plan.reviewed else { return Ok(given) };
    let Some(planned) = reviewed.sets.get(&cx.step) else { return Ok(given) };
    let collections = std::slice::from_ref(&step.collection);
    let manifests = std::slice::from_ref(&given);
    let (found, _) = target_set(&cx.artifacts, manifests, collections, String::new()).await?;
    let (kept, against) = hold_against(&cx.artifacts, &found.items, planned).await?;
    let Some(words) = against.words() else { return Ok(given) };
    if plan.drift == Drift::Refuse {
        return Err(refuses(&words, &reviewed.id, "changed"));
    }
    cx.live.say(&format!("not as in the reviewed plan: {words}; only what is in the plan is changed"));
    let mut sorter = Sorter::new(&cx.artifacts).await?;
    let mut lines = cx.artifacts.lines(&given).await?;
    while let Some((finding, _)) = lines.next_json::<Finding>().await? {
        sorter.push(finding.key.clone(), encode(&finding)?.to_string()).await?;
    }
    let mut writer = cx.artifacts.create_raw("findings.jsonl").await?;
    let (mut findings, mut kept) = (sorter.finish().await?, Set::open(&cx.artifacts, &kept).await?);
    let mut next = kept.next().await?;
    while let Some(finding) = findings.next().await? {
        while next.as_ref().is_some_and(|member| member.key < finding.key) {
            next = kept.next().await?;
        }
        if next.as_ref().is_some_and(|member| member.key == finding.key) {
            writer.write_line(&finding.line).await?;
        }
    }
    writer.finish().await
}

/// The version of an item that a finding tells. Of kind gate when it tells none.
pub(super) fn version<'f>(
    versions: &'f Versions,
    collection: &str,
) -> Result<&'f crate::collections::Version, StepError> {
    versions.get(collection).ok_or_else(|| {
        StepError::gate(format!("the findings tell no version of the items of `{collection}`"))
            .with_help("nothing was changed; they are those of another collection")
    })
}
