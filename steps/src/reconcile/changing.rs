//! `mark` and `undo`: the findings are gone through batch by batch, each written ahead.

use std::sync::Arc;

use runbook_engine::artifact::Artifact;
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::{Intent, Progress, Settlement};
use serde::Serialize;

use super::change::{change, only_told};
use super::conclude::example;
use super::record::{At, Became, Came, Finding, decode, encode};
use super::scan::BATCHES;
use super::{Action, Outputs, Reconcile, look, saved};
use crate::collections::{Change, Collection, KeyOutcome};
use crate::kind::Context;

/// How many items are shown.
const SHOWN: usize = 10;

/// One attempt of a `mark` or an `undo`.
pub(super) struct Changing<'a> {
    step: &'a Reconcile,
    cx: &'a Context,
    items: Arc<dyn Collection>,
    against: Option<Arc<dyn Collection>>,
    findings: Artifact,
}

/// A line of the results.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// Under which name the ledger remembers findings, by their hash.
fn name(sha256: &str) -> String {
    format!("findings {sha256}")
}

/// The findings that an earlier attempt was given, out of the ledger.
pub(super) async fn earlier(cx: &Context, sha256: &str) -> Result<Artifact, StepError> {
    let given = cx.ledger.recall(&name(sha256)).await?;
    match given {
        Some(given) => decode(&given),
        None => Err(StepError::gate("the findings of a batch whose outcome is not known are gone")
            .with_help("look at the items by hand, then cancel the run")),
    }
}

/// The findings of the batch that begins at this byte, and the byte after them.
pub(super) async fn batch(
    step: &Reconcile,
    cx: &Context,
    findings: &Artifact,
    offset: u64,
) -> Result<(Vec<Finding>, u64), StepError> {
    let mut lines = cx.artifacts.lines_from(findings, offset).await?;
    let (mut some, mut end) = (Vec::new(), offset);
    while (some.len() as u64) < step.batch_size {
        let Some((finding, after)) = lines.next_json::<Finding>().await? else { break };
        some.push(finding);
        end = after;
    }
    Ok((some, end))
}

impl Became {
    fn told(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Updated => ("updated", None),
            Self::Already => ("already", None),
            Self::ChangedSince(why) => ("changed-since", Some(why)),
            Self::FoundSince => ("found-since", None),
            Self::UnknownSince(why) => ("unknown-since", Some(why)),
            Self::Failed(why) => ("failed", Some(why)),
        }
    }
}

impl<'a> Changing<'a> {
    /// Takes the findings, held against the reviewed plan if there is one, and saves them where they are to be saved.
    pub(super) async fn begin(step: &'a Reconcile, cx: &'a Context) -> Result<Self, StepError> {
        let items = cx.resources.collection(&step.collection)?;
        let against = step.against.as_ref().map(|name| cx.resources.collection(name)).transpose()?;
        if step.batch_size > items.max_batch() as u64 {
            let (size, most) = (step.batch_size, items.max_batch());
            let message = format!("`batch_size` is {size}, and `{}` takes at most {most}", step.collection);
            return Err(StepError::invalid(message));
        }
        let findings = saved::bound(step, cx).await?;
        cx.ledger.remember(&name(&findings.sha256), encode(&findings)?).await?;
        if let Some(to) = &step.save_to {
            saved::save(to, &findings, cx).await?;
            crash::point("reconcile: prior state saved");
        }
        Ok(Self { step, cx, items, against, findings })
    }

    fn start(&self) -> At {
        At::Change { findings: self.findings.sha256.clone(), offset: 0, unknown: 0 }
    }

    /// All of it.
    pub(super) async fn run(self) -> Result<Outputs, StepError> {
        let view = self.cx.ledger.view().await?;
        let mut at = match &view.cursor {
            Some(cursor) => decode(cursor)?,
            None => self.start(),
        };
        for batch in view.unsettled {
            let number = batch.number;
            self.cx.live.say(&format!("doing batch {number} again: its outcome was not recorded"));
            at = self.act(number, decode(&batch.what)?, true).await?;
        }
        loop {
            self.cx.checkpoint()?;
            match &at {
                At::Change { findings, .. } if *findings != self.findings.sha256 => at = self.start(),
                At::Change { offset, .. } if *offset >= self.findings.bytes => return self.end().await,
                _ => {}
            }
            let items = self.step.batch_size;
            let intent = Intent { what: encode(&at)?, items, charged_items: 0, charged_bytes: 0 };
            let batch = self.cx.ledger.intend(intent).await?;
            at = self.act(batch.number, at, false).await?;
        }
    }

    /// Does an announced batch and records what became of each item. `again`: an earlier try may have had its effect, all of it or none.
    async fn act(&self, number: u64, at: At, again: bool) -> Result<At, StepError> {
        let At::Change { findings, offset, unknown } = at else {
            return Err(StepError::new(ErrorKind::Store, format!("the ledger has a batch at {at:?}")));
        };
        // The findings of a batch that is done again may be others than those that the step is given now.
        let whole = if findings == self.findings.sha256 {
            self.findings.clone()
        } else {
            earlier(self.cx, &findings).await?
        };
        let (some, end) = batch(self.step, self.cx, &whole, offset).await?;
        let (before, unknown) = self.looked_again(&some, unknown).await?;
        let mut changes = Vec::new();
        for (finding, before) in some.iter().zip(&before) {
            let change = change(self.step.action, &self.step.collection, finding)?;
            match before {
                None => changes.push(change),
                Some(_) if again => changes.push(only_told(change)),
                Some(_) => {}
            }
        }
        let mut outcomes = self.update(&changes).await?.into_iter();
        let mut became = Vec::with_capacity(some.len());
        for before in before {
            became.push(match before {
                Some(left) if !again => left,
                before => {
                    let outcome = outcomes.next().ok_or_else(|| {
                        StepError::new(ErrorKind::Bug, "fewer outcomes than changes").unknown()
                    })?;
                    self.judged(outcome, before, again)
                }
            });
        }
        let next = At::Change { findings, offset: end, unknown };
        self.settle(number, &next, became).await?;
        Ok(next)
    }

    /// Of each finding why it is left alone, if it is: what was missing is there now, or it can not be told. With how many are unknown by now.
    async fn looked_again(
        &self,
        some: &[Finding],
        unknown: u64,
    ) -> Result<(Vec<Option<Became>>, u64), StepError> {
        let Some(against) = self.against.as_ref().filter(|_| self.step.action == Action::Mark) else {
            return Ok((some.iter().map(|_| None).collect(), unknown));
        };
        let first =
            |finding: &Finding| finding.missing.first().map(|one| one.target.clone()).unwrap_or_default();
        let found = look::there(self.step, self.cx, against, some.iter().map(first).collect()).await?;
        if found.iter().any(|one| matches!(one, Ok(false))) {
            look::is_there(&**against, 1).await?;
        }
        let errors = || found.iter().filter_map(|one| one.as_ref().err());
        let unknown = unknown + errors().count() as u64;
        look::not_too_many(self.step.max_unknown, unknown, errors())?;
        let left = |one: &Result<bool, StepError>| match one {
            Ok(false) => None,
            Ok(true) => Some(Became::FoundSince),
            Err(error) => Some(Became::UnknownSince(self.cx.redactor.text(&error.message))),
        };
        Ok((found.iter().map(left).collect(), unknown))
    }

    async fn update(&self, changes: &[Change]) -> Result<Vec<KeyOutcome>, StepError> {
        if changes.is_empty() { Ok(Vec::new()) } else { self.items.update(changes).await }
    }

    /// What became of an item whose change was asked for. `left` is why it should have been left alone, when it is only asked whether an
    /// earlier try has changed it.
    fn judged(&self, outcome: KeyOutcome, left: Option<Became>, again: bool) -> Became {
        match (outcome, left) {
            (KeyOutcome::Done, _) => Became::Updated,
            (KeyOutcome::Already, _) if again => Became::Updated,
            (KeyOutcome::Already, _) => Became::Already,
            (KeyOutcome::Failed(_), Some(left)) => left,
            (KeyOutcome::Failed(error), None) => {
                let why = self.cx.redactor.text(&error.message);
                if error.kind == ErrorKind::Gate { Became::ChangedSince(why) } else { Became::Failed(why) }
            }
        }
    }

    async fn settle(&self, number: u64, next: &At, became: Vec<Became>) -> Result<(), StepError> {
        let count = |wanted: fn(&Became) -> bool| became.iter().filter(|one| wanted(one)).count() as u64;
        let done = count(|one| matches!(one, Became::Updated));
        let failed = count(|one| matches!(one, Became::Failed(_)));
        let already = became.len() as u64 - done - failed;
        let outcome = encode(&Came::Changed(became))?;
        let settlement = Settlement { cursor: encode(next)?, outcome, done, already, failed };
        self.cx.ledger.settle(number, settlement).await?;
        let unit = "items".to_owned();
        let totals = self.cx.ledger.view().await?.totals;
        let (total, note) = (self.findings.lines, String::new());
        let done = totals.done + totals.already;
        self.cx.live.progress(Progress { done, total, unit, failed: totals.failed, note });
        Ok(())
    }

    /// Goes over the findings once more, each with what became of its item. Of kind gate when one could not be changed.
    async fn end(&self) -> Result<Outputs, StepError> {
        let mut outputs = Outputs { findings: Some(self.findings.clone()), ..Outputs::default() };
        let mut results = self.cx.artifacts.create_raw("results.jsonl").await?;
        let mut changed = self.cx.artifacts.create_raw("changed.jsonl").await?;
        let (mut failed, mut first) = (0_u64, None);
        let mut lines = self.cx.artifacts.lines(&self.findings).await?;
        let mut after = 0;
        loop {
            let rows = self.cx.ledger.batches(after, BATCHES).await?;
            let Some(last) = rows.last() else { break };
            after = last.batch;
            for row in rows {
                let At::Change { findings, .. } = decode(&row.intent)? else { continue };
                let Some(settled) = row.settled.filter(|_| findings == self.findings.sha256) else {
                    continue;
                };
                let Came::Changed(became) = decode(&settled.outcome)? else { continue };
                for one in became {
                    let Some((finding, _)) = lines.next_json::<Finding>().await? else { break };
                    let (outcome, why) = one.told();
                    results.write_json(&Line { key: &finding.key, outcome, why }).await?;
                    match &one {
                        Became::Updated => {
                            outputs.updated += 1;
                            changed.write_json(&finding).await?;
                        }
                        Became::Already => outputs.already += 1,
                        Became::ChangedSince(_) => outputs.changed_since += 1,
                        Became::FoundSince => outputs.found_since += 1,
                        Became::UnknownSince(_) => outputs.unknown_since += 1,
                        Became::Failed(why) => {
                            failed += 1;
                            first.get_or_insert_with(|| format!("`{}`: {why}", finding.key));
                        }
                    }
                    outputs.checked += 1;
                    if outputs.examples.len() < SHOWN {
                        outputs.examples.push(example(finding));
                    }
                }
            }
        }
        let results = results.finish().await?;
        let changed = changed.finish().await?;
        if let Some(first) = first {
            let path = self.cx.artifacts.path(&results)?;
            let message =
                format!("{failed} of {} items could not be changed; the first: {first}", outputs.checked);
            return Err(StepError::gate(message)
                .with_help(format!(
                    "what became of each is in {}; mend what refused them and start a new run: what was changed is not changed again",
                    path.display()
                )));
        }
        outputs.missing = outputs.checked;
        (outputs.results, outputs.changed) = (Some(results), Some(changed));
        Ok(outputs)
    }
}
