//! What is to be looked up: every open reference, or those that the listing does not have, found by a merge of both in the order of the keys.

use runbook_engine::artifact::Artifact;
use runbook_engine::error::StepError;

use super::record::{Came, Candidate, decode};
use super::reference::{Row, Stands};
use super::scan::{BATCHES, Scan};
use crate::external_sort::Sorter;

/// Which parts the ledger knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Rows,
    Keys,
}

impl Scan<'_> {
    /// The parts of one side, in order.
    async fn parts(&self, which: Part) -> Result<Vec<Artifact>, StepError> {
        let (mut after, mut parts) = (0, Vec::new());
        loop {
            let rows = self.cx.ledger.batches(after, BATCHES).await?;
            let Some(last) = rows.last() else { return Ok(parts) };
            after = last.batch;
            for settled in rows.into_iter().filter_map(|row| row.settled) {
                match decode::<Came>(&settled.outcome)? {
                    Came::Rows(part) if which == Part::Rows => parts.push(part),
                    Came::Keys(part) if which == Part::Keys => parts.push(part),
                    _ => {}
                }
            }
        }
    }

    /// The items that were read.
    pub(super) async fn row_parts(&self) -> Result<Vec<Artifact>, StepError> {
        self.parts(Part::Rows).await
    }

    /// Every open reference, in the order of the items.
    pub(super) async fn all_open(&self) -> Result<Artifact, StepError> {
        let mut writer = self.cx.artifacts.create_raw("candidates.jsonl").await?;
        let mut number = 0;
        for part in self.row_parts().await? {
            let mut lines = self.cx.artifacts.lines(&part).await?;
            while let Some((row, _)) = lines.next_json::<Row>().await? {
                for (reference, stands) in row.stands.into_iter().enumerate() {
                    if let Stands::Open(target) = stands {
                        writer.write_json(&Candidate { row: number, reference, target }).await?;
                    }
                }
                number += 1;
            }
        }
        writer.finish().await
    }

    /// The open references to keys that are not in the listing, in the order of the items. A listing without anything in it is no listing.
    pub(super) async fn not_listed(&self) -> Result<Artifact, StepError> {
        let mut listed = Sorter::new(&self.cx.artifacts).await?;
        for part in self.parts(Part::Keys).await? {
            let mut lines = self.cx.artifacts.lines(&part).await?;
            while let Some((key, _)) = lines.next_json::<String>().await? {
                listed.push(key, String::new()).await?;
            }
        }
        let (mut named, mut number) = (Sorter::new(&self.cx.artifacts).await?, 0_u64);
        for part in self.row_parts().await? {
            let mut lines = self.cx.artifacts.lines(&part).await?;
            while let Some((row, _)) = lines.next_json::<Row>().await? {
                for (reference, stands) in row.stands.into_iter().enumerate() {
                    if let Stands::Open(target) = stands {
                        named.push(target, place(number, reference)).await?;
                    }
                }
                number += 1;
            }
        }
        let mut absent = Sorter::new(&self.cx.artifacts).await?;
        let (mut listed, mut named) = (listed.finish().await?, named.finish().await?);
        let mut here = listed.next().await?;
        while let Some(wanted) = named.next().await? {
            while here.as_ref().is_some_and(|here| here.key < wanted.key) {
                here = listed.next().await?;
            }
            if here.as_ref().is_none_or(|here| here.key != wanted.key) {
                absent.push(wanted.line, wanted.key).await?;
            }
        }
        let mut writer = self.cx.artifacts.create_raw("candidates.jsonl").await?;
        let mut absent = absent.finish().await?;
        while let Some(one) = absent.next().await? {
            let (row, reference) = numbers(&one.key)?;
            writer.write_json(&Candidate { row, reference, target: one.line }).await?;
        }
        writer.finish().await
    }
}

/// Where a reference stands, as a text that sorts so.
fn place(row: u64, reference: usize) -> String {
    format!("{row:020} {reference:05}")
}

fn numbers(place: &str) -> Result<(u64, usize), StepError> {
    let parsed = place.split_once(' ').and_then(|(row, one)| Some((row.parse().ok()?, one.parse().ok()?)));
    parsed.ok_or_else(|| StepError::gate("a sorted file is not what was written"))
}
