//! The rules of a prefix as the document that S3 takes: kept as a file, and compared with one that is under version control.

use std::path::{Path, PathBuf};

use aws_sdk_s3::types::{LifecycleExpiration, LifecycleRule};
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::rules::{days_of, prefix_of};
use crate::connections::directory::Directory;
use crate::digest::sha256;

/// A file that was written.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Kept {
    /// Its path.
    pub path: PathBuf,
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
}

/// The rules that expire what is below these prefixes, as `PutBucketLifecycleConfiguration` takes them.
fn document(rules: &[LifecycleRule], prefixes: &[String]) -> Value {
    let ours = |rule: &&LifecycleRule| {
        prefix_of(rule).is_some_and(|prefix| prefixes.iter().any(|one| one == prefix))
            && days_of(rule).is_some()
    };
    let one = |rule: &LifecycleRule| {
        json!({
            "ID": rule.id(),
            "Status": rule.status().as_str(),
            "Filter": { "Prefix": prefix_of(rule) },
            "Expiration": { "Days": rule.expiration().and_then(LifecycleExpiration::days) },
        })
    };
    json!({ "Rules": rules.iter().filter(ours).map(one).collect::<Vec<_>>() })
}

/// Writes them into a file, in the place of what is there. Blocks.
pub(super) fn keep(path: &Path, rules: &[LifecycleRule], prefixes: &[String]) -> Result<Kept, StepError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(StepError::invalid(format!("`keep`: {} is no file", path.display())));
    };
    let text = format!("{:#}\n", document(rules, prefixes));
    let directory = Directory::new(&folder.to_string_lossy())?;
    let path = directory.write(&name.to_string_lossy(), text.as_bytes())?;
    Ok(Kept { path, sha256: sha256(text.as_bytes()) })
}

/// Where the rules differ from those in a file, which holds such a document; in words. Blocks.
pub(super) fn compare(
    path: &Path,
    rules: &[LifecycleRule],
    prefixes: &[String],
) -> Result<Vec<String>, StepError> {
    let unread = |why: String| {
        StepError::refused(format!("{} can not be compared: {why}", path.display()))
            .with_help("it holds what S3 takes: `{\"Rules\": [{\"ID\": …, \"Status\": …, \"Filter\": …, \"Expiration\": …}]}`")
    };
    let text = std::fs::read_to_string(path).map_err(|error| unread(error.to_string()))?;
    let whole: Value = serde_json::from_str(&text).map_err(|error| unread(error.to_string()))?;
    let there = whole["Rules"].as_array().ok_or_else(|| unread("it has no `Rules`".to_owned()))?;
    let wanted = document(rules, prefixes);
    let here = wanted["Rules"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let differs = |prefix: &String| {
        let (file, bucket) = (days(there, prefix), days(here, prefix));
        let told =
            |days: Option<u64>| days.map_or_else(|| "never".to_owned(), |days| format!("after {days} days"));
        let says = || {
            format!(
                "{} says that `{prefix}` expires {}, and the bucket {}",
                path.display(),
                told(file),
                told(bucket)
            )
        };
        (file != bucket).then(says)
    };
    Ok(prefixes.iter().filter_map(differs).collect())
}

/// After how many days the first of these rules to take effect expires what is below a prefix.
fn days(rules: &[Value], prefix: &str) -> Option<u64> {
    let about = |rule: &&Value| {
        rule["Filter"]["Prefix"] == prefix
            && rule["Status"].as_str().is_some_and(|status| status == "Enabled")
    };
    rules.iter().filter(about).filter_map(|rule| rule["Expiration"]["Days"].as_u64()).min()
}
