//! Sets of items as a reviewed plan keeps them: each key once, in the order of the keys, so that the hash of the artifact is the digest of
//! the set. They are made and compared in bounded memory, however large they are.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use runbook_engine::artifact::{Artifact, ArtifactLines, ArtifactWriter, Artifacts};
use runbook_engine::error::StepError;
use runbook_engine::saved::TargetSet;
use serde::{Deserialize, Serialize};

use crate::bound::drift;
use crate::collections::Versions;
use crate::external_sort::Sorter;
use crate::manifest::{Entry, Keys};
use crate::scratch::failed;

/// How many keys are shown of a set.
const SHOWN: usize = 5;

/// One item of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    pub(crate) key: String,
    /// Which state of it was read.
    #[serde(default, skip_serializing_if = "Versions::is_empty")]
    pub(crate) version_in: Versions,
    /// Its size in bytes.
    pub(crate) bytes: u64,
}

impl Member {
    /// Whether it is known what stands under its key in each of these collections.
    pub(crate) fn says_all_of(&self, collections: &[String]) -> bool {
        collections.iter().all(|name| self.version_in.contains_key(name))
    }

    /// What became of it, with what a plan says of it.
    fn since(&self, planned: &Self) -> Since {
        let names = self.version_in.keys().chain(planned.version_in.keys());
        let differs = names.map(|name| match (self.version_in.get(name), planned.version_in.get(name)) {
            (here, there) if here == there => Since::Same,
            (Some(here), Some(_)) if here.is_absent() => Since::GoneInPart,
            _ => Since::Changed,
        });
        differs.max().unwrap_or(Since::Same)
    }
}

/// What became of an item of a plan that is still listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Since {
    /// Nothing.
    Same,
    /// It has gone from some of the collections, and is the same in the others.
    GoneInPart,
    /// It is another one somewhere.
    Changed,
}

/// Some of many keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Few {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Few {
    fn add(&mut self, key: String) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(key);
        }
    }

    /// In words, such as `2 new (a, b)`; nothing when there are none.
    fn words(&self, what: &str) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let more = if self.count > self.first.len() as u64 { ", …" } else { "" };
        Some(format!("{} {what} ({}{more})", self.count, self.first.join(", ")))
    }
}

/// A set held against the one of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Against {
    /// What is not in the plan.
    pub new: Few,
    /// What is in the plan in another state.
    pub changed: Few,
    /// What has gone from some of the collections that the plan has it in, and is the same in the others.
    pub gone_in_part: Few,
    /// What is in the plan only.
    pub gone: Few,
    /// The collections of which there are versions of what is kept.
    pub versions: BTreeSet<String>,
}

impl Against {
    /// What differs, in words; nothing when nothing does.
    pub fn words(&self) -> Option<String> {
        let parts = [
            self.new.words("new"),
            self.changed.words("changed"),
            self.gone_in_part.words("gone in part"),
            self.gone.words("gone"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The items of these manifests as one set, which is called `what`, and whether the manifests say of every item what there is of it in
/// each of these collections. Of kind invalid when a key stands there twice.
pub async fn target_set(
    artifacts: &Artifacts,
    manifests: &[Artifact],
    collections: &[String],
    what: String,
) -> Result<(TargetSet, bool), StepError> {
    let mut sorter = Sorter::new(artifacts).await?;
    let (mut bytes, mut complete) = (0_u64, true);
    for manifest in manifests {
        let mut keys = Keys::open(artifacts, manifest, 0).await?;
        while let Some(Entry { key, bytes: its, version_in }) = keys.next_entry().await? {
            bytes = bytes.saturating_add(its);
            let member = Member { key, version_in, bytes: its };
            complete &= member.says_all_of(collections);
            let line = serde_json::to_string(&member).map_err(|error| failed(&error.into()))?;
            sorter.push(member.key, line).await?;
        }
    }
    let mut set = artifacts.create_raw("targets.jsonl").await?;
    let (mut few, mut last) = (Few::default(), None::<String>);
    let mut sorted = sorter.finish().await?;
    while let Some(member) = sorted.next().await? {
        if last.as_ref() == Some(&member.key) {
            return Err(StepError::invalid(format!("`{}` stands in the manifests twice", member.key)));
        }
        set.write_line(&member.line).await?;
        few.add(member.key.clone());
        last = Some(member.key);
    }
    let items = set.finish().await?;
    Ok((TargetSet { what, count: few.count, bytes, examples: few.first, items }, complete))
}

/// Of kind drift: what is there is not what a reviewed plan says. `done` is what was not.
pub(crate) fn refuses(words: &str, plan: &str, done: &str) -> StepError {
    let plan = plan.get(..12).unwrap_or(plan);
    drift(format!("the items are not those of the reviewed plan {plan}: {words}"), done)
}

/// Compares two sets, and writes down what is in both and did not change, but that it may have gone in part: a manifest. What a key's size
/// is said to be is no state of it.
pub async fn hold_against(
    artifacts: &Artifacts,
    found: &Artifact,
    planned: &Artifact,
) -> Result<(Artifact, Against), StepError> {
    let mut kept = artifacts.create_raw("planned.jsonl").await?;
    let (here, there) = (Set::open(artifacts, found).await?, Set::open(artifacts, planned).await?);
    let against = compare(here, there, Some(&mut kept)).await?;
    Ok((kept.finish().await?, against))
}

/// Compares two sets, each in its own folder, and writes nothing.
pub async fn difference(
    (here, found): (&Artifacts, &Artifact),
    (there, planned): (&Artifacts, &Artifact),
) -> Result<Against, StepError> {
    compare(Set::open(here, found).await?, Set::open(there, planned).await?, None).await
}

async fn compare(
    mut here: Set,
    mut there: Set,
    mut kept: Option<&mut ArtifactWriter>,
) -> Result<Against, StepError> {
    let (mut new, mut changed, mut gone) = (Few::default(), Few::default(), Few::default());
    let (mut gone_in_part, mut versions) = (Few::default(), BTreeSet::new());
    let (mut ours, mut theirs) = (here.next().await?, there.next().await?);
    loop {
        let order = match (&ours, &theirs) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) => ours.key.cmp(&theirs.key),
        };
        let left = if order == Ordering::Greater { None } else { ours.take() };
        let right = if order == Ordering::Less { None } else { theirs.take() };
        match (left, right) {
            (Some(left), Some(right)) => match left.since(&right) {
                Since::Changed => changed.add(left.key),
                since => {
                    if let Some(kept) = &mut kept {
                        kept.write_json(&left).await?;
                    }
                    let known = left.version_in.into_iter().filter(|(_, version)| !version.is_absent());
                    versions.extend(known.map(|(name, _)| name));
                    if since == Since::GoneInPart {
                        gone_in_part.add(left.key);
                    }
                }
            },
            (Some(left), None) => new.add(left.key),
            (None, Some(right)) => gone.add(right.key),
            (None, None) => {}
        }
        if order != Ordering::Greater {
            ours = here.next().await?;
        }
        if order != Ordering::Less {
            theirs = there.next().await?;
        }
    }
    Ok(Against { new, changed, gone_in_part, gone, versions })
}

/// Reads the items of a set, in their order.
pub(crate) struct Set(ArtifactLines);

impl Set {
    pub(crate) async fn open(artifacts: &Artifacts, items: &Artifact) -> Result<Self, StepError> {
        Ok(Self(artifacts.lines_from(items, 0).await?))
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Member>, StepError> {
        Ok(self.0.next_json().await?.map(|(member, _)| member))
    }
}

#[cfg(test)]
mod tests {
    use runbook_engine::redact::Redactor;
    use serde_json::{Value, json};

    use std::fs;

    use super::*;
    use crate::collections::Version;

    async fn manifest(artifacts: &Artifacts, items: impl Iterator<Item = (String, u64)>) -> Artifact {
        let mut writer = artifacts.create("m.jsonl").await.unwrap();
        for (key, version) in items {
            let line = json!({ "key": key, "bytes": 3, "version_in": { "c": version }, "record": {} });
            writer.write_json(&line).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    fn artifacts() -> (tempfile::TempDir, Artifacts) {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(folder.path(), Redactor::default());
        (folder, artifacts)
    }

    #[tokio::test]
    async fn the_digest_is_of_the_set_and_not_of_its_order() {
        let (folder, artifacts) = artifacts();
        let items = |from: u64, to: u64| (from..to).map(|at| (format!("k{}\n", at * 7919 % 100_003), 1));
        let one = manifest(&artifacts, items(0, 50_001)).await;
        let two =
            [manifest(&artifacts, items(20_000, 50_001)).await, manifest(&artifacts, items(0, 20_000)).await];
        let (one, _) = target_set(&artifacts, &[one], &[], "x".to_owned()).await.unwrap();
        let (two, _) = target_set(&artifacts, &two, &[], "x".to_owned()).await.unwrap();
        assert_eq!(one, two);
        assert_eq!((one.count, one.bytes, one.examples[0].as_str()), (50_001, 150_003, "k0\n"));
        let left = fs::read_dir(folder.path()).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
        let other = manifest(&artifacts, items(1, 50_001)).await;
        let (other, _) = target_set(&artifacts, &[other], &[], "x".to_owned()).await.unwrap();
        assert_ne!(one.items.sha256, other.items.sha256);
    }

    #[tokio::test]
    async fn a_key_that_stands_there_twice_is_refused() {
        let (_folder, artifacts) = artifacts();
        let both = [
            manifest(&artifacts, [("a".to_owned(), 1)].into_iter()).await,
            manifest(&artifacts, [("b".to_owned(), 1), ("a".to_owned(), 2)].into_iter()).await,
        ];
        let error = target_set(&artifacts, &both, &[], String::new()).await.unwrap_err();
        assert!(error.message.contains("`a` stands in the manifests twice"), "{error}");
    }

    #[tokio::test]
    async fn what_is_new_changed_and_gone_is_named() {
        let (_folder, artifacts) = artifacts();
        let set = async |items: &[(&str, u64)]| {
            let items = items.iter().map(|(key, version)| ((*key).to_owned(), *version));
            let manifest = manifest(&artifacts, items).await;
            target_set(&artifacts, &[manifest], &[], String::new()).await.unwrap().0.items
        };
        let planned = set(&[("a", 1), ("c", 1), ("d", 1), ("z", 1)]).await;
        let found = set(&[("d", 2), ("b", 1), ("a", 1), ("e", 1)]).await;
        let (kept, against) = hold_against(&artifacts, &found, &planned).await.unwrap();
        assert_eq!(against.words().unwrap(), "2 new (b, e), 1 changed (d), 2 gone (c, z)");
        let mut kept = Keys::open(&artifacts, &kept, 0).await.unwrap();
        assert_eq!((kept.next().await.unwrap(), kept.next().await.unwrap()), (Some("a".to_owned()), None));
        let (kept, same) = hold_against(&artifacts, &found, &found).await.unwrap();
        assert_eq!((same.words(), kept.lines), (None, Some(4)));
    }

    #[test]
    fn what_has_gone_from_one_of_its_collections_is_no_other_item() {
        let member = |blobs: Option<Value>| Member {
            key: "a".to_owned(),
            version_in: [("metadata", Some(json!(1))), ("blobs", blobs)]
                .into_iter()
                .filter_map(|(name, version)| Some((name.to_owned(), Version(version?))))
                .collect(),
            bytes: 1,
        };
        let (one, other) = (member(Some(json!(1))), member(Some(json!(2))));
        let (absent, unread) = (member(Some(Value::Null)), member(None));
        assert_eq!((one.since(&one), absent.since(&absent)), (Since::Same, Since::Same));
        assert_eq!(absent.since(&one), Since::GoneInPart);
        for (here, there) in [(&other, &one), (&one, &absent), (&unread, &one), (&one, &unread)] {
            assert_eq!(here.since(there), Since::Changed);
        }
        assert!(absent.says_all_of(&["blobs".to_owned()]) && !unread.says_all_of(&["blobs".to_owned()]));
    }
}
