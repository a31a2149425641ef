//! The rules of a bucket's lifecycle: which of them are about one prefix, and what they become. Nothing here reaches anything.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter};
use runbook_engine::error::StepError;
use serde_json::{Value, json};

/// What is to become of the rules of a bucket.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    /// The rules as they will be: those of others as they are, where they are, and one of ours.
    pub(super) rules: Vec<LifecycleRule>,
    /// The rules of the prefix that are left out.
    pub(super) removed: Vec<LifecycleRule>,
    /// Whether a rule has to be added, because none says what is wanted.
    pub(super) adds: bool,
}

/// The prefix that a rule is about, when it is about nothing else: not about tags or sizes as well.
#[expect(deprecated, reason = "old rules have no filter, and stores still give them back")]
pub(super) fn prefix_of(rule: &LifecycleRule) -> Option<&str> {
    match rule.filter() {
        None => rule.prefix(),
        Some(filter) => {
            let more = filter.tag().is_some()
                || filter.and().is_some()
                || filter.object_size_greater_than().is_some()
                || filter.object_size_less_than().is_some();
            filter.prefix().filter(|_| !more)
        }
    }
}

/// After how many days a rule that is in force expires objects.
pub(super) fn days_of(rule: &LifecycleRule) -> Option<i32> {
    let days = rule.expiration().and_then(LifecycleExpiration::days);
    days.filter(|_| *rule.status() == ExpirationStatus::Enabled)
}

/// Whether a rule expires current objects and does nothing else: another kind of rule of the same prefix is somebody else's.
fn only_expires(rule: &LifecycleRule) -> bool {
    rule.expiration().is_some()
        && rule.transitions().is_empty()
        && rule.noncurrent_version_transitions().is_empty()
        && rule.noncurrent_version_expiration().is_none()
        && rule.abort_incomplete_multipart_upload().is_none()
}

/// The change after which exactly one rule expires what is below `prefix`, after so many days. The first rule that says so already is
/// kept as it is. The others that expire this prefix are left out; every other rule stays.
pub(super) fn change(
    rules: &[LifecycleRule],
    prefix: &str,
    days: i32,
    id: &str,
) -> Result<Change, StepError> {
    let ours = |rule: &LifecycleRule| prefix_of(rule) == Some(prefix) && only_expires(rule);
    let kept = rules.iter().position(|rule| ours(rule) && days_of(rule) == Some(days));
    let (mut after, mut removed) = (Vec::new(), Vec::new());
    for (at, rule) in rules.iter().enumerate() {
        let stays = Some(at) == kept || !ours(rule);
        if stays { &mut after } else { &mut removed }.push(rule.clone());
    }
    if kept.is_none() {
        if after.iter().any(|rule: &LifecycleRule| rule.id() == Some(id)) {
            return Err(StepError::refused(format!(
                "the bucket has a rule `{id}` that is about something else"
            ))
            .with_help("give another `id`"));
        }
        let rule = LifecycleRule::builder()
            .id(id)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .expiration(LifecycleExpiration::builder().days(days).build())
            .build();
        after.push(rule.map_err(|error| StepError::invalid(error.to_string()))?);
    }
    Ok(Change { rules: after, removed, adds: kept.is_none() })
}

/// Why the rules do not expire what is below `prefix` after so many days, or after any number of them. Of several rules the shortest
/// counts, as in S3: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-conflicts.html>.
pub(super) fn verify(rules: &[LifecycleRule], prefix: &str, days: Option<i32>) -> Result<(), String> {
    let about = || rules.iter().filter(|rule| prefix_of(rule) == Some(prefix));
    let Some(has) = about().filter_map(days_of).min() else {
        let wrong = about().any(|rule| rule.expiration().is_some());
        let why = if wrong { "its rule is disabled, or has no number of days" } else { "no rule expires it" };
        return Err(format!("`{prefix}`: {why}"));
    };
    match days {
        Some(days) if days != has => {
            Err(format!("`{prefix}`: it expires after {has} days, and {days} are expected"))
        }
        _ => Ok(()),
    }
}

/// A rule for people: what it is called, what it is about, what it does.
pub(super) fn shown(rule: &LifecycleRule) -> Value {
    json!({
        "id": rule.id(),
        "status": rule.status().as_str(),
        "prefix": prefix_of(rule),
        "days": rule.expiration().and_then(LifecycleExpiration::days),
        "other": !only_expires(rule) || prefix_of(rule).is_none(),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{AbortIncompleteMultipartUpload, Tag};

    use super::*;

    fn rule(id: &str, prefix: &str, days: i32) -> LifecycleRule {
        LifecycleRule::builder()
            .id(id)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .expiration(LifecycleExpiration::builder().days(days).build())
            .build()
            .unwrap()
    }

    fn ids(rules: &[LifecycleRule]) -> Vec<&str> {
        rules.iter().filter_map(LifecycleRule::id).collect()
    }

    #[test]
    fn one_rule_is_left_and_those_of_others_stay() {
        let mut uploads = rule("uploads", "a/", 1);
        uploads.expiration = None;
        uploads.abort_incomplete_multipart_upload =
            Some(AbortIncompleteMultipartUpload::builder().days_after_initiation(2).build());
        let mut tagged = rule("tagged", "a/", 45);
        let tag = Tag::builder().key("k").value("v").build().unwrap();
        tagged.filter = Some(LifecycleRuleFilter::builder().tag(tag).build());
        let all = [rule("other", "b/", 7), rule("old", "a/", 30), uploads, tagged, rule("deeper", "a/b/", 3)];

        let changed = change(&all, "a/", 45, "new").unwrap();
        assert_eq!(
            (ids(&changed.rules), ids(&changed.removed), changed.adds),
            (vec!["other", "uploads", "tagged", "deeper", "new"], vec!["old"], true)
        );
        // Done again, nothing changes, whatever it is called.
        let again = change(&changed.rules, "a/", 45, "another").unwrap();
        assert_eq!(again, Change { rules: changed.rules, removed: Vec::new(), adds: false });
        assert!(change(&all, "a/", 45, "other").is_err(), "the id of somebody else's rule is not taken");
    }

    #[test]
    fn a_rule_holds_when_it_is_in_force_and_says_so_many_days() {
        let mut disabled = rule("disabled", "c/", 45);
        disabled.status = ExpirationStatus::Disabled;
        let all = [rule("short", "a/", 30), rule("long", "a/", 45), disabled];
        assert_eq!(verify(&all, "a/", Some(30)), Ok(()));
        assert_eq!(verify(&all, "a/", None), Ok(()));
        assert!(verify(&all, "a/", Some(45)).unwrap_err().contains("after 30 days, and 45 are expected"));
        assert!(verify(&all, "b/", None).unwrap_err().contains("no rule expires it"));
        assert!(verify(&all, "c/", None).unwrap_err().contains("disabled"));
    }
}
