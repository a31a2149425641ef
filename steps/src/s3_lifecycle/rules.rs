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

impl Change {
    /// Whether anything has to be written.
    pub(super) fn changes(&self) -> bool {
        self.adds || !self.removed.is_empty()
    }
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

/// The prefix of everything that a rule is about, when no tag narrows it: of a rule without a filter, all objects. Every object has a size, and one that
/// a rule of a size is about goes away by it.
fn reach_of(rule: &LifecycleRule) -> Option<&str> {
    let Some(filter) = rule.filter() else { return prefix_of(rule).or(Some("")) };
    let joined = filter.and();
    let tagged = filter.tag().is_some() || joined.is_some_and(|all| !all.tags().is_empty());
    let prefix = filter.prefix().or_else(|| joined.and_then(|all| all.prefix()));
    (!tagged).then_some(prefix.unwrap_or_default())
}

/// Whether a rule expires current objects after a number of days and does nothing else: another kind of rule of the same prefix is somebody
/// else's.
fn only_expires(rule: &LifecycleRule) -> bool {
    let after_days = |one: &LifecycleExpiration| {
        one.days().is_some() && one.date().is_none() && one.expired_object_delete_marker() != Some(true)
    };
    rule.expiration().is_some_and(after_days)
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
    let Some(days) = days else { return Ok(()) };
    if days != has {
        return Err(format!("`{prefix}`: it expires after {has} days, and {days} are expected"));
    }
    match rules.iter().find_map(|rule| sooner(rule, prefix, days)) {
        Some(why) => Err(format!("`{prefix}`: {why}, and {days} days are expected")),
        None => Ok(()),
    }
}

/// How a rule that is in force expires what is below `prefix` sooner than after so many days, though it need not be about this prefix alone.
fn sooner(rule: &LifecycleRule, prefix: &str, days: i32) -> Option<String> {
    let reach = reach_of(rule).filter(|reach| prefix.starts_with(reach))?;
    let expiration = rule.expiration().filter(|_| *rule.status() == ExpirationStatus::Enabled)?;
    let when = match (expiration.days(), expiration.date()) {
        (Some(has), _) if has < days => format!("after {has} days"),
        (_, Some(date)) => format!("on {date}"),
        _ => return None,
    };
    let id = rule.id().unwrap_or("without an id");
    let sized = rule.filter().is_some_and(|_| prefix_of(rule).is_none() && !reach.is_empty());
    let about = match reach {
        "" => "every object".to_owned(),
        _ if sized => format!("objects of some sizes in `{reach}`"),
        _ => format!("`{reach}`"),
    };
    Some(format!("rule `{id}`, which is about {about}, expires it {when}"))
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
    use aws_sdk_s3::primitives::DateTime;
    use aws_sdk_s3::types::{AbortIncompleteMultipartUpload, LifecycleRuleAndOperator, Tag};

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
    fn a_rule_that_does_anything_else_is_not_ours() {
        let with = |change: fn(&mut LifecycleExpiration)| {
            let mut rule = rule("theirs", "a/", 45);
            rule.expiration.iter_mut().for_each(change);
            rule
        };
        let marker = with(|one| (one.days, one.expired_object_delete_marker) = (None, Some(true)));
        let dated = with(|one| (one.days, one.date) = (None, Some(DateTime::from_secs(4_000_000_000))));
        for theirs in [marker.clone(), dated.clone()] {
            let changed = change(&[theirs], "a/", 45, "new").unwrap();
            assert_eq!((ids(&changed.rules), changed.removed), (vec!["theirs", "new"], Vec::new()));
        }
        assert_eq!(verify(&[marker, rule("a", "a/", 45)], "a/", Some(45)), Ok(()));
        let told = verify(&[dated, rule("a", "a/", 45)], "a/", Some(45)).unwrap_err();
        assert!(told.contains("`theirs`") && told.contains("2096"), "{told}");
    }

    #[test]
    fn a_rule_of_a_shorter_prefix_counts_when_it_is_sooner() {
        let all = |other: LifecycleRule| verify(&[other, rule("ours", "a/b/", 45)], "a/b/", Some(45));
        for prefix in ["a/", "", "a"] {
            let told = all(rule("wide", prefix, 7)).unwrap_err();
            assert!(told.contains("`wide`") && told.contains("after 7 days"), "{told}");
            assert_eq!(all(rule("wide", prefix, 45)), Ok(()));
            let mut disabled = rule("wide", prefix, 7);
            disabled.status = ExpirationStatus::Disabled;
            assert_eq!(all(disabled), Ok(()));
        }
        let mut bare = rule("wide", "", 7);
        bare.filter = Some(LifecycleRuleFilter::builder().build());
        assert!(all(bare.clone()).unwrap_err().contains("every object"));
        bare.filter = None;
        assert!(all(bare).is_err());
        let tag = Tag::builder().key("k").value("v").build().unwrap();
        let mut tagged = rule("tagged", "", 7);
        tagged.filter = Some(LifecycleRuleFilter::builder().tag(tag).build());
        assert_eq!(all(tagged), Ok(()));
        let mut sized = rule("sized", "", 7);
        let and = LifecycleRuleAndOperator::builder().prefix("a/b/").object_size_greater_than(1).build();
        sized.filter = Some(LifecycleRuleFilter::builder().and(and).build());
        let told = all(sized).unwrap_err();
        assert!(told.contains("`sized`") && told.contains("of some sizes in `a/b/`"), "{told}");
        assert_eq!(all(rule("beside", "a/c/", 7)), Ok(()));
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
