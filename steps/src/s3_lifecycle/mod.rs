//! Step kind `s3-lifecycle`: objects below a prefix expire after a number of days.

mod policy;
mod rules;
mod whole;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, LifecycleRule, TransitionDefaultMinimumObjectSize as LeastSize,
};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::apply_mode::Mode;
use crate::bound::{Facts, as_reviewed};
use crate::connections::s3::{Keeps, S3, failed, is_missing};
use crate::kind::{Context, End, Step, read_now, would};
use crate::one_or_many::OneOrMany;
use crate::records::blocking;
use crate::retry::patiently;
use policy::Kept;

/// Sees to it that the objects below a prefix expire after a number of days, or that they do.
///
/// S3 knows a bucket's rules only as a whole. So they are read, changed, written at once, and read again: there is no moment without
/// the rule, every rule that is about something else stays as it is, and the step fails when one does not. Only a rule that does nothing but
/// expire objects of exactly this prefix after a number of days is taken the place of. Where a rule holds something that is not known here, and
/// would be lost, or where another rule expires the same objects sooner, nothing is written.
///
/// A reviewed plan binds the rules of the prefix that are removed: when they are others by then, nothing is written.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Lifecycle {
    /// The name of a connection of type `s3`.
    pub connection: String,
    /// What is done: `plan` tells what `apply` would do, and `verify` fails unless it is so.
    pub mode: Mode,
    /// The prefix, or for `verify` several. It ends with `/`: `chat/prod` is about `chat/production/x` too.
    pub prefix: OneOrMany<String>,
    /// After how many days objects expire. `verify` without it takes any number.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub expire_days: Option<i32>,
    /// What the rule is called when one has to be added. Default: `expire-` and the prefix.
    #[serde(default)]
    pub id: Option<String>,
    /// The rules of the prefix that `apply` may remove, as a step with `plan` told them (`outputs.removed_rules`): where it would remove another one, nothing is
    /// written. Default: whatever is of the prefix.
    #[serde(default)]
    pub may_remove: Option<Vec<Value>>,
    /// With `apply`, the file that the rules of the prefix are written to afterwards, as S3 takes them, an absolute path. What is there
    /// is written over. Default: none.
    #[serde(default)]
    pub keep: Option<PathBuf>,
    /// A file with a lifecycle as S3 takes it, such as the one under version control. Where its rules of the prefix say something else
    /// than those of the bucket, or with `plan` than those that it would have, that is told. Default: none.
    #[serde(default)]
    pub compare: Option<PathBuf>,
}

/// What was found and done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// The mode.
    pub mode: Mode,
    /// The bucket, with its store.
    pub bucket: String,
    /// How many rules the bucket had.
    pub rules_before: u64,
    /// How many of them were about the prefixes.
    pub prefix_rules_before: u64,
    /// How many rules were left out, or with `plan` would be.
    pub removed: u64,
    /// Those rules.
    pub removed_rules: Vec<Value>,
    /// Whether a rule was added, or with `plan` would be.
    pub added: bool,
    /// How many rules the bucket has now, or with `plan` would have.
    pub rules_after: u64,
    /// The rules as they are now, or with `plan` would be: what is worth keeping under version control.
    pub rules: Vec<Value>,
    /// The file of `keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Where the file of `compare` says something else.
    pub discrepancies: Vec<String>,
    /// What the bucket keeps of an object that expires.
    pub keeps: Keeps,
    /// The same in words: what each expiry leaves; absent when that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves: Option<String>,
}

/// What takes an object away.
const EXPIRY: &str = "expiry";

#[async_trait]
impl Step for S3Lifecycle {
    const NAME: &'static str = "s3-lifecycle";
    const SUMMARY: &'static str =
        "Sees to it that objects below a prefix of a bucket expire, or that they do";
    const EXAMPLE: &'static str = "\
- id: expire_attachments
  uses: s3-lifecycle
  with:
    connection: bucket
    mode: apply
    prefix: chat-attachments/staging/
    expire_days: 45
";
    type Outputs = Outputs;

    fn effect(with: &Value) -> Effect {
        match with.get("mode").and_then(Value::as_str) {
            Some("plan" | "verify") => Effect::READ,
            _ => Effect { class: Class::Write, repeat: Repeat::Repeatable },
        }
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        if self.keep.is_some() && self.mode != Mode::Apply {
            return Err(StepError::invalid("`keep` goes with the mode `apply`"));
        }
        let bucket = cx.resources.connection::<S3>(&self.connection)?;
        let before = lifecycle(&bucket, cx).await?;
        // Before anything is written: a store that fails here has not been changed.
        let keeps = keeps(&bucket, cx).await?;
        let change = match self.mode {
            Mode::Verify => self.verify(&bucket, &before.rules)?,
            Mode::Plan => self.change(&bucket, &before)?.0,
            Mode::Apply => self.apply(&bucket, &before, cx).await?,
        };
        let outputs = self.outputs(&bucket, &before.rules, &change, keeps);
        if let Some(leaves) = outputs.leaves.as_ref().filter(|_| self.mode != Mode::Verify) {
            cx.live.say(leaves);
        }
        let (keep, compare, prefixes) = (self.keep, self.compare, self.prefix.0);
        let (kept, discrepancies) = blocking("the file of the rules", move || {
            let kept = keep.map(|path| policy::keep(&path, &change.rules, &prefixes)).transpose();
            let compared = compare.map(|path| policy::compare(&path, &change.rules, &prefixes)).transpose();
            Ok(kept.and_then(|kept| Ok((kept, compared?.unwrap_or_default()))))
        })
        .await??;
        Ok(End::Done(Outputs { kept, discrepancies, ..outputs }))
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        if effect.class == Class::Read {
            return read_now(self, cx).await;
        }
        let bucket = cx.resources.connection::<S3>(&self.connection)?;
        let (change, prefix) = self.change(&bucket, &lifecycle(&bucket, cx).await?)?;
        let binds = facts(&change, cx);
        let days = self.expire_days.unwrap_or_default();
        let does = match (change.adds, change.removed.len()) {
            (false, 0) => {
                format!("nothing: objects below {prefix} of {} expire after {days} days", bucket.describe())
            }
            (adds, removed) => format!(
                "expire objects below {prefix} of {} after {days} days: {} a rule, remove {removed} of the same prefix",
                bucket.describe(),
                if adds { "add" } else { "keep" },
            ),
        };
        let kept = self.keep.map_or_else(String::new, |path| format!(", and keep it as {}", path.display()));
        let leaves =
            keeps(&bucket, cx).await?.words(EXPIRY).map_or_else(String::new, |words| format!("; {words}"));
        Ok(Foresight { binds, ..would(does + &kept + &leaves) })
    }
}

impl S3Lifecycle {
    /// The change that `apply` makes, and its prefix.
    fn change(&self, bucket: &S3, before: &Lifecycle) -> Result<(rules::Change, &str), StepError> {
        let [prefix] = self.prefix.0.as_slice() else {
            return Err(StepError::invalid("`plan` and `apply` take one prefix; write a step for each"));
        };
        let days = self.expire_days.ok_or_else(|| StepError::invalid("`expire_days` is missing"))?;
        if days < 1 {
            return Err(StepError::invalid(format!("`expire_days` is {days}; 1 is the least")));
        }
        if !prefix.ends_with('/') {
            return Err(StepError::invalid(format!("the prefix `{prefix}` does not end with `/`"))
                .with_help(format!("write `{prefix}/`: otherwise what merely begins so expires too")));
        }
        let id = self
            .id
            .clone()
            .unwrap_or_else(|| format!("expire-{}", prefix.trim_end_matches('/').replace('/', "-")));
        let change = rules::change(&before.rules, prefix, days, &id)?;
        rules::verify(&change.rules, prefix, Some(days)).map_err(|why| {
            StepError::refused(format!(
                "the rule would come to nothing in {}: {why}; nothing was written",
                bucket.describe()
            ))
            .with_help("change that rule, which is about something else as well, or expect its days")
        })?;
        if change.changes() && !before.unknown.is_empty() {
            return Err(StepError::refused(format!(
                "the lifecycle of {} has what is not known here and would be lost: {}; nothing was written",
                bucket.describe(),
                before.unknown.join(", ")
            ))
            .with_help(
                "set the rule with the tools of that store, and hold it to it here with `mode: verify`",
            ));
        }
        Ok((change, prefix))
    }

    fn verify(&self, bucket: &S3, before: &[LifecycleRule]) -> Result<rules::Change, StepError> {
        if self.prefix.0.is_empty() {
            return Err(StepError::invalid("`prefix` is empty"));
        }
        let looked = self.prefix.0.iter().map(|prefix| rules::verify(before, prefix, self.expire_days));
        let wrong: Vec<String> = looked.filter_map(Result::err).collect();
        if wrong.is_empty() {
            return Ok(rules::Change { rules: before.to_vec(), removed: Vec::new(), adds: false });
        }
        Err(StepError::gate(format!("the lifecycle of {}: {}", bucket.describe(), wrong.join("; "))))
    }

    async fn apply(
        &self,
        bucket: &Arc<S3>,
        before: &Lifecycle,
        cx: &Context,
    ) -> Result<rules::Change, StepError> {
        let (change, prefix) = self.change(bucket, before)?;
        if change.changes() {
            if let Some(reviewed) = &cx.history.plan.reviewed {
                let planned = reviewed.binds.get(&cx.step).cloned().unwrap_or_default();
                as_reviewed(reviewed, &planned, &facts(&change, cx), "written")?;
            }
            self.may_remove(&change)?;
            cx.checkpoint()?;
            crash::point("before writing the lifecycle");
            cx.unless_abandoned(patiently(|| write(bucket, &change.rules, before.least.as_ref()))).await?;
            crash::point("lifecycle: written");
            let after = lifecycle(bucket, cx).await?;
            let mut lost: Vec<&str> = before
                .rules
                .iter()
                .filter(|rule| change.rules.contains(rule) && !after.rules.contains(rule))
                .map(|rule| rule.id().unwrap_or("without an id"))
                .collect();
            if before.least.is_some() && after.least != before.least {
                lost.push("the least size of objects that are moved to another class");
            }
            if !lost.is_empty() {
                return Err(StepError::gate(format!(
                    "rules of {} that are about something else are not as they were: {}",
                    bucket.describe(),
                    lost.join(", ")
                ))
                .with_help(
                    "somebody changed them at the same time, or the store does not keep them: look at them",
                ));
            }
            rules::verify(&after.rules, prefix, self.expire_days).map_err(|why| {
                StepError::gate(format!(
                    "the lifecycle of {} was written, and still {why}",
                    bucket.describe()
                ))
            })?;
        }
        Ok(change)
    }

    /// Fails when a rule would go that nobody was shown.
    fn may_remove(&self, change: &rules::Change) -> Result<(), StepError> {
        let Some(shown) = &self.may_remove else { return Ok(()) };
        let others = change.removed.iter().map(rules::shown).filter(|rule| !shown.contains(rule));
        let others: Vec<String> = others.map(|rule| rule.to_string()).collect();
        if others.is_empty() {
            return Ok(());
        }
        let message = format!(
            "a rule would be removed that was not there when that was agreed to: {}",
            others.join(", ")
        );
        Err(StepError::gate(message)
            .with_help("nothing was written; look at whose it is, then cancel this run and begin anew"))
    }

    fn outputs(
        &self,
        bucket: &S3,
        before: &[LifecycleRule],
        change: &rules::Change,
        keeps: Keeps,
    ) -> Outputs {
        let about = |rule: &&LifecycleRule| {
            rules::prefix_of(rule).is_some_and(|prefix| self.prefix.0.iter().any(|ours| ours == prefix))
        };
        Outputs {
            mode: self.mode,
            bucket: bucket.describe(),
            rules_before: before.len() as u64,
            prefix_rules_before: before.iter().filter(about).count() as u64,
            removed: change.removed.len() as u64,
            removed_rules: change.removed.iter().map(rules::shown).collect(),
            added: change.adds,
            rules_after: change.rules.len() as u64,
            rules: change.rules.iter().map(rules::shown).collect(),
            kept: None,
            discrepancies: Vec::new(),
            keeps,
            leaves: keeps.words(EXPIRY),
        }
    }
}

/// What the bucket keeps. It is told beside the rules, which do not hang on it: a store that can not say is no reason to stop.
async fn keeps(bucket: &Arc<S3>, cx: &Context) -> Result<Keeps, StepError> {
    match cx.unless_abandoned(patiently(|| bucket.keeps())).await {
        Err(error) if error.kind == ErrorKind::Refused => Ok(Keeps::NotTold),
        told => told,
    }
}

/// The rules that go, by their ids and numbers: what a plan binds.
fn facts(change: &rules::Change, cx: &Context) -> Facts {
    let fact = |(at, rule): (usize, &LifecycleRule)| {
        let name = format!("rule {} to be removed", at + 1);
        (name, cx.redactor.text(&rules::shown(rule).to_string()))
    };
    change.removed.iter().enumerate().map(fact).collect()
}

/// The lifecycle of a bucket.
#[derive(Default)]
struct Lifecycle {
    rules: Vec<LifecycleRule>,
    /// From which size on objects are moved to another class, when a rule names none: it is set with the rules.
    least: Option<LeastSize>,
    /// What can not be written back.
    unknown: Vec<String>,
}

/// The lifecycle of a bucket; without rules when it has none.
async fn lifecycle(bucket: &Arc<S3>, cx: &Context) -> Result<Lifecycle, StepError> {
    cx.unless_abandoned(patiently(async || {
        let (client, body) = (bucket.client().await, whole::Body::default());
        let request = client.get_bucket_lifecycle_configuration().bucket(bucket.bucket());
        match request.customize().interceptor(body.clone()).send().await {
            Ok(found) => Ok(Lifecycle {
                rules: found.rules().to_vec(),
                least: found.transition_default_minimum_object_size().cloned(),
                unknown: whole::unknown(&body.text()),
            }),
            Err(error) if is_missing(&error) => Ok(Lifecycle::default()),
            Err(error) => Err(failed(&format!("reading the lifecycle of {}", bucket.describe()), &error)),
        }
    }))
    .await
}

async fn write(
    bucket: &Arc<S3>,
    rules: &[LifecycleRule],
    least: Option<&LeastSize>,
) -> Result<(), StepError> {
    let whole = BucketLifecycleConfiguration::builder().set_rules(Some(rules.to_vec())).build();
    let whole = whole.map_err(|error| StepError::invalid(error.to_string()))?;
    let client = bucket.client().await;
    let request = client
        .put_bucket_lifecycle_configuration()
        .bucket(bucket.bucket())
        .set_transition_default_minimum_object_size(least.cloned())
        .lifecycle_configuration(whole);
    let sent = request.send().await;
    sent.map(drop).map_err(|error| failed(&format!("writing the lifecycle of {}", bucket.describe()), &error))
}
