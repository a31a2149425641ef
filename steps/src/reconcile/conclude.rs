//! From what was read and looked up to a verdict for each item.

use std::collections::{BTreeMap, VecDeque};

use runbook_engine::artifact::ArtifactLines;
use runbook_engine::error::StepError;
use runbook_engine::store::BatchRow;
use serde::Serialize;

use super::record::{Came, Candidate, Finding, Missing, decode};
use super::reference::{Reference, Row, Stands};
use super::scan::{BATCHES, Scan};
use super::{Counts, Example, Outputs};
use crate::collections::Versions;

/// How many items are shown.
const SHOWN: usize = 10;

/// What a reference comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
enum Verdict {
    NotAsked,
    Empty,
    Unresolvable { why: String },
    Found { target: String },
    Missing { target: String },
    Unknown { target: String, why: String },
}

/// What an item comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Whole {
    Ok,
    Missing,
    Unknown,
    Unresolvable,
}

/// A line of the verdicts.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    verdict: Whole,
    references: BTreeMap<&'a str, &'a Verdict>,
}

/// What was looked up, in order.
struct Answers<'a> {
    scan: &'a Scan<'a>,
    candidates: ArtifactLines,
    batches: VecDeque<BatchRow>,
    after: u64,
    /// The batch that is gone through, and the place in it.
    present: Option<(Came, u64)>,
    next: Option<(Candidate, Verdict)>,
}

impl<'a> Answers<'a> {
    async fn open(scan: &'a Scan<'a>) -> Result<Self, StepError> {
        let candidates = scan.cx.artifacts.lines(&scan.candidates().await?).await?;
        let mut all =
            Self { scan, candidates, batches: VecDeque::new(), after: 0, present: None, next: None };
        all.advance().await?;
        Ok(all)
    }

    async fn advance(&mut self) -> Result<(), StepError> {
        let Some((candidate, _)) = self.candidates.next_json::<Candidate>().await? else {
            self.next = None;
            return Ok(());
        };
        loop {
            if let Some((Came::Looked { count, missing, unknown }, at)) = &mut self.present
                && *at < *count
            {
                let target = candidate.target.clone();
                let verdict = match unknown.get(at) {
                    Some(why) => Verdict::Unknown { target, why: why.clone() },
                    None if missing.binary_search(at).is_ok() => Verdict::Missing { target },
                    None => Verdict::Found { target },
                };
                *at += 1;
                self.next = Some((candidate, verdict));
                return Ok(());
            }
            if self.batches.is_empty() {
                let rows = self.scan.cx.ledger.batches(self.after, BATCHES).await?;
                let last = rows.last().ok_or_else(|| StepError::gate("not all candidates were looked up"))?;
                self.after = last.batch;
                self.batches.extend(rows);
            }
            let settled = self.batches.pop_front().and_then(|row| row.settled);
            self.present = match settled {
                Some(settled) => Some((decode(&settled.outcome)?, 0)),
                None => None,
            };
        }
    }

    /// What one reference of an item comes to.
    async fn verdict(&mut self, row: u64, reference: usize, stands: &Stands) -> Result<Verdict, StepError> {
        Ok(match stands {
            Stands::NotAsked => Verdict::NotAsked,
            Stands::Empty => Verdict::Empty,
            Stands::Unresolvable(why) => Verdict::Unresolvable { why: why.clone() },
            Stands::Open(target) => match &self.next {
                Some((candidate, verdict)) if (candidate.row, candidate.reference) == (row, reference) => {
                    let verdict = verdict.clone();
                    self.advance().await?;
                    verdict
                }
                // It stands in the listing.
                _ => Verdict::Found { target: target.clone() },
            },
        })
    }
}

/// What an item comes to, with the place of the reference that counts.
fn whole(verdicts: &[Verdict]) -> (Whole, Option<usize>) {
    let first = |wanted: fn(&Verdict) -> bool| verdicts.iter().position(wanted);
    let missing = first(|one| matches!(one, Verdict::Missing { .. }));
    let unknown = first(|one| matches!(one, Verdict::Unknown { .. }));
    match (missing, unknown) {
        (Some(missing), unknown) if unknown.is_none_or(|unknown| missing < unknown) => {
            (Whole::Missing, Some(missing))
        }
        (_, Some(_)) => (Whole::Unknown, None),
        _ if first(|one| matches!(one, Verdict::Unresolvable { .. })).is_some() => {
            (Whole::Unresolvable, None)
        }
        _ => (Whole::Ok, None),
    }
}

fn count(counts: &mut Counts, verdict: &Verdict) {
    *match verdict {
        Verdict::NotAsked => &mut counts.not_asked,
        Verdict::Empty => &mut counts.empty,
        Verdict::Unresolvable { .. } => &mut counts.unresolvable,
        Verdict::Found { .. } => &mut counts.found,
        Verdict::Missing { .. } => &mut counts.missing,
        Verdict::Unknown { .. } => &mut counts.unknown,
    } += 1;
}

/// The finding of an item whose reference of this place is missing.
fn finding(collection: &str, row: Row, verdicts: &[Verdict], references: &[Reference], at: usize) -> Finding {
    let missing = |(verdict, reference): (&Verdict, &Reference)| match verdict {
        Verdict::Missing { target } => Some(Missing { name: reference.name.clone(), target: target.clone() }),
        _ => None,
    };
    let set = references[at].set.clone();
    let mut prior = row.prior;
    prior.retain(|name, _| set.contains_key(name));
    Finding {
        key: row.key,
        version_in: row
            .version
            .map(|version| (collection.to_owned(), version))
            .into_iter()
            .collect::<Versions>(),
        missing: verdicts.iter().zip(references).filter_map(missing).collect(),
        prior,
        set,
    }
}

impl Scan<'_> {
    /// Goes over all items once more, in order.
    pub(super) async fn conclude(&self) -> Result<Outputs, StepError> {
        let references = &self.step.references;
        let mut outputs = Outputs { compared_by: Some(self.compare(0).await?), ..Outputs::default() };
        outputs.references.extend(references.iter().map(|one| (one.name.clone(), Counts::default())));
        let mut verdicts_file = self.cx.artifacts.create_raw("verdicts.jsonl").await?;
        let mut findings = self.cx.artifacts.create_raw("findings.jsonl").await?;
        let mut answers = Answers::open(self).await?;
        for part in self.row_parts().await? {
            let mut lines = self.cx.artifacts.lines(&part).await?;
            while let Some((row, _)) = lines.next_json::<Row>().await? {
                let mut verdicts = Vec::with_capacity(references.len());
                for (at, stands) in row.stands.iter().enumerate() {
                    verdicts.push(answers.verdict(outputs.checked, at, stands).await?);
                }
                for (reference, verdict) in references.iter().zip(&verdicts) {
                    count(outputs.references.entry(reference.name.clone()).or_default(), verdict);
                }
                let (verdict, at) = whole(&verdicts);
                let named = references.iter().map(|one| one.name.as_str()).zip(&verdicts);
                verdicts_file
                    .write_json(&Line { key: &row.key, verdict, references: named.collect() })
                    .await?;
                outputs.checked += 1;
                match verdict {
                    Whole::Ok => {}
                    Whole::Missing => outputs.missing += 1,
                    Whole::Unknown => outputs.unknown += 1,
                    Whole::Unresolvable => outputs.unresolvable += 1,
                }
                if let Some(at) = at {
                    let found = finding(&self.step.collection, row, &verdicts, references, at);
                    findings.write_json(&found).await?;
                    if outputs.examples.len() < SHOWN {
                        outputs.examples.push(example(found));
                    }
                }
            }
        }
        outputs.missing_percent = percent(outputs.missing, outputs.checked);
        outputs.verdicts = Some(verdicts_file.finish().await?);
        outputs.findings = Some(findings.finish().await?);
        Ok(outputs)
    }
}

pub(super) fn example(finding: Finding) -> Example {
    let first = finding.missing.into_iter().next();
    let (reference, target) = first.map(|one| (one.name, one.target)).unwrap_or_default();
    Example { key: finding.key, reference, target, prior: finding.prior, set: finding.set }
}

#[expect(clippy::cast_precision_loss, reason = "a share of what is counted, for people and for gates")]
fn percent(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 * 100.0 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_missing_counts_unless_something_before_is_unknown() {
        let target = || "t".to_owned();
        let (missing, found) = (Verdict::Missing { target: target() }, Verdict::Found { target: target() });
        let unknown = Verdict::Unknown { target: target(), why: "403".to_owned() };
        let elsewhere = Verdict::Unresolvable { why: "another host".to_owned() };
        for (verdicts, wanted) in [
            (vec![&missing, &missing], (Whole::Missing, Some(0))),
            (vec![&found, &missing], (Whole::Missing, Some(1))),
            (vec![&missing, &unknown], (Whole::Missing, Some(0))),
            (vec![&unknown, &missing], (Whole::Unknown, None)),
            (vec![&elsewhere, &missing], (Whole::Missing, Some(1))),
            (vec![&elsewhere, &found], (Whole::Unresolvable, None)),
            (vec![&elsewhere, &unknown], (Whole::Unknown, None)),
            (vec![&found, &Verdict::NotAsked], (Whole::Ok, None)),
            (vec![&Verdict::Empty, &found], (Whole::Ok, None)),
        ] {
            let verdicts: Vec<Verdict> = verdicts.into_iter().cloned().collect();
            assert_eq!(whole(&verdicts), wanted, "{verdicts:?}");
        }
    }
}
