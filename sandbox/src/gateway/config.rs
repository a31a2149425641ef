//! The gateway's configuration: read from the environment once, at the start.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, bail};

const DEFAULT_MAX_BYTES: u64 = 25 * 1_048_576;

/// The media types allowed when the environment names none.
pub(crate) const DEFAULT_MIME_TYPES: [&str; 8] = [
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "application/pdf",
    "text/plain",
    "application/json",
    "application/octet-stream",
];

/// Which behaviour the gateway shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// As the runbooks and the API description say: 413, 415, `{"code","error"}`, the part's media type
    Documented,
    /// As the real server answers: 400 without a code, every upload application/octet-stream, answers above
    /// 2 MiB empty, failures not logged
    Wire,
}

impl Profile {
    /// The name that SANDBOX_PROFILE holds.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Wire => "wire",
        }
    }
}

/// How the gateway behaves.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) profile: Profile,
    pub(crate) max_bytes: u64,
    pub(crate) allowed_mime_types: BTreeSet<String>,
    pub(crate) attachment_ttl: Duration,
    pub(crate) cleanup_interval: Duration,
    pub(crate) cleanup_batch: u32,
    pub(crate) session_ttl: Duration,
    pub(crate) guardian: bool,
    pub(crate) store_url: String,
    pub(crate) store_key: String,
}

impl Config {
    /// Reads the configuration. Only what the sandbox itself adds can be wrong; the gateway's own variables
    /// fall back to their defaults, as they do in the real one.
    pub(crate) fn from_env(var: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let profile = match var("SANDBOX_PROFILE").as_deref() {
            None | Some("documented") => Profile::Documented,
            Some("wire") => Profile::Wire,
            Some(other) => bail!("SANDBOX_PROFILE is documented or wire, not {other}"),
        };
        let session_ttl = match var("SANDBOX_SESSION_TTL_SECONDS") {
            None => 900.0,
            Some(text) => {
                text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0).with_context(|| {
                    format!("SANDBOX_SESSION_TTL_SECONDS is not a positive number: {text}")
                })?
            }
        };
        let batch = var("CHATKIT_ATTACHMENT_CLEANUP_BATCH_SIZE").and_then(|text| text.parse().ok());
        Ok(Self {
            profile,
            max_bytes: positive(var("CHATKIT_ATTACHMENT_MAX_MB")).map_or(DEFAULT_MAX_BYTES, to_bytes),
            allowed_mime_types: mime_types(var("CHATKIT_ATTACHMENT_ALLOWED_MIME_TYPES")),
            attachment_ttl: seconds(positive(var("CHATKIT_ATTACHMENT_TTL_HOURS")).unwrap_or(24.0) * 3600.0),
            cleanup_interval: seconds(
                positive(var("CHATKIT_ATTACHMENT_CLEANUP_INTERVAL_MINUTES")).unwrap_or(15.0) * 60.0,
            ),
            cleanup_batch: batch.filter(|size| *size > 0).unwrap_or(100),
            session_ttl: seconds(session_ttl),
            guardian: !matches!(var("GATEWAY_ENABLE_GUARDIAN").as_deref(), Some("0" | "false")),
            store_url: var("FOUNTAINSTORE_URL").unwrap_or_else(|| "http://127.0.0.1:8005".into()),
            store_key: var("FOUNTAINSTORE_API_KEY").context("FOUNTAINSTORE_API_KEY is not set")?,
        })
    }
}

/// A number above zero; everything else counts as unset, 0 too.
fn positive(text: Option<String>) -> Option<f64> {
    text.and_then(|text| text.parse::<f64>().ok()).filter(|number| *number > 0.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the fraction of a byte is cut off, as in the real gateway, and the number is positive"
)]
fn to_bytes(megabytes: f64) -> u64 {
    (megabytes * 1_048_576.0) as u64
}

/// A time that a timer can hold.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number.min(1e9)).unwrap_or_default()
}

/// Set but empty means that nothing is allowed.
fn mime_types(text: Option<String>) -> BTreeSet<String> {
    match text {
        None => DEFAULT_MIME_TYPES.iter().map(ToString::to_string).collect(),
        Some(text) => text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|name| !name.is_empty())
            .map(str::to_lowercase)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &'static str, value: &'static str) -> Config {
        Config::from_env(&move |asked| {
            (asked == name).then(|| value.to_owned()).or((asked == "FOUNTAINSTORE_API_KEY").then(String::new))
        })
        .unwrap()
    }

    #[test]
    fn a_limit_of_zero_or_less_or_no_number_is_the_default() {
        for text in ["0", "-1", "none", "", "NaN"] {
            assert_eq!(config("CHATKIT_ATTACHMENT_MAX_MB", text).max_bytes, DEFAULT_MAX_BYTES, "{text}");
        }
        assert_eq!(config("CHATKIT_ATTACHMENT_MAX_MB", "0.0000001").max_bytes, 0);
        assert_eq!(config("CHATKIT_ATTACHMENT_MAX_MB", "0.5").max_bytes, 524_288);
        assert_eq!(
            config("CHATKIT_ATTACHMENT_CLEANUP_INTERVAL_MINUTES", "0").cleanup_interval.as_secs(),
            900
        );
        assert_eq!(config("CHATKIT_ATTACHMENT_CLEANUP_BATCH_SIZE", "0").cleanup_batch, 100);
    }

    #[test]
    fn media_types_are_split_at_commas_and_spaces_and_an_empty_list_allows_nothing() {
        let name = "CHATKIT_ATTACHMENT_ALLOWED_MIME_TYPES";
        assert!(config(name, "").allowed_mime_types.is_empty());
        let types = config(name, "Image/PNG, text/plain\timage/gif").allowed_mime_types;
        assert_eq!(types.into_iter().collect::<Vec<_>>(), ["image/gif", "image/png", "text/plain"]);
        assert_eq!(config("OTHER", "").allowed_mime_types.len(), 8);
    }
}
