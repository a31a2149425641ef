//! Connection kind `s3`: one bucket of an S3 store, AWS or any server that speaks its protocol.

mod content_md5;
mod failure;
mod keeps;
mod large;
mod transport;

use std::fmt;

use async_trait::async_trait;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::presigning::PresigningConfig;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OnceCell;
use url::Url;

use super::http::{BASE_URL, BASE_URL_WANTED, default_timeout};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

pub use failure::{code_of, failed, is_missing, is_transient};
pub use keeps::Keeps;
pub use large::Sending;

/// One bucket of an S3 store.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Connection {
    /// The name of the bucket.
    #[schemars(extend("pattern" = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "patternErrorMessage" = "the name of a bucket: 3 to 63 lower-case letters, digits, `-` and `.`"))]
    pub bucket: String,
    /// Where the store answers, `http` or `https`. Default: AWS, in the region.
    #[serde(default)]
    #[schemars(extend("pattern" = BASE_URL, "patternErrorMessage" = BASE_URL_WANTED))]
    pub endpoint: Option<String>,
    /// The region that requests are signed for. Default: that of the profile or the environment with AWS, and `us-east-1` with an `endpoint`.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether the bucket stands in the path of a URL rather than in its host. Default: with an `endpoint`, yes.
    #[serde(default)]
    pub path_style: Option<bool>,
    /// The access key. Without it the usual chain of AWS is asked: environment, shared files, the machine's role.
    #[serde(default)]
    pub access_key: Option<String>,
    /// The secret that belongs to the access key.
    #[serde(default)]
    pub secret_key: Option<String>,
    /// The session token that belongs to a temporary access key.
    #[serde(default)]
    pub session_token: Option<String>,
    /// A profile of the shared AWS files. It comes before keys in the environment.
    #[serde(default)]
    pub profile: Option<String>,
    /// Which checksums go along: `required` only where S3 asks for one, `supported` wherever it takes one, which older servers refuse.
    /// Default: with an `endpoint` `required`, with AWS `supported`.
    #[serde(default)]
    pub checksums: Option<Checksums>,
    /// How long one request may take. Default `30s`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

/// Which checksums go along with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Checksums {
    /// Only where S3 asks for one, and an MD5 beside it for servers that know no other.
    Required,
    /// Wherever S3 takes one.
    Supported,
}

#[async_trait]
impl ConnectionKind for S3Connection {
    const NAME: &'static str = "s3";
    const SUMMARY: &'static str = "A bucket of an S3 store: AWS, or any server that speaks its protocol";
    const SECRET_FIELDS: &'static [&'static str] = &["/access_key", "/secret_key", "/session_token"];
    type Client = S3;

    fn open(self, _: &OpenContext<'_>) -> Result<S3, StepError> {
        if self.access_key.is_some() != self.secret_key.is_some() {
            return Err(StepError::invalid(
                "`access_key` and `secret_key` belong together: give both or none",
            ));
        }
        if self.access_key.is_none() && self.session_token.is_some() {
            return Err(StepError::invalid("a `session_token` belongs to an `access_key`"));
        }
        if self.access_key.is_some() && self.profile.is_some() {
            return Err(StepError::invalid("give an `access_key` or a `profile`, not both"));
        }
        let endpoint = self
            .endpoint
            .as_deref()
            .map(Url::parse)
            .transpose()
            .map_err(|error| StepError::invalid(format!("`endpoint` is no URL: {error}")))?;
        Ok(S3 { settings: self, endpoint, client: OnceCell::new() })
    }

    fn place(client: &S3) -> String {
        client.describe()
    }

    async fn identity(client: &S3) -> Result<SystemIs, StepError> {
        // Without `endpoint`, the environment and profiles of AWS may name one: what counts is where requests go.
        let signed = PresigningConfig::expires_in(std::time::Duration::from_secs(60));
        let signed = signed.map_err(|error| StepError::invalid(error.to_string()))?;
        let request = client.client().await.get_object().bucket(client.bucket()).key(PROBE).presigned(signed);
        let request = request.await.map_err(|error| {
            StepError::refused(format!("where requests to {} go can not be told", client.describe()))
                .with_source(&error)
        })?;
        let whole = request.uri().split('?').next().unwrap_or_default();
        let place = whole.strip_suffix(PROBE).unwrap_or(whole).trim_end_matches('/');
        Ok(SystemIs::There(format!("s3://{} at {place}", client.bucket())))
    }
}

/// The key of an object that nobody asks for.
const PROBE: &str = "runbook";

/// The client of a connection. Requests are not tried again by it: whoever sends one knows whether it may be repeated.
pub struct S3 {
    settings: S3Connection,
    endpoint: Option<Url>,
    client: OnceCell<Client>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The settings hold secrets.
        f.debug_struct("S3").field("bucket", &self.settings.bucket).finish_non_exhaustive()
    }
}

impl S3 {
    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.settings.bucket
    }

    /// Where the store answers; none for AWS.
    pub fn endpoint(&self) -> Option<&Url> {
        self.endpoint.as_ref()
    }

    /// The bucket in words, with its store, for people and for evidence.
    pub fn describe(&self) -> String {
        let (bucket, region) = (&self.settings.bucket, self.settings.region.as_deref());
        match (&self.endpoint, region) {
            (Some(endpoint), _) => format!("s3://{bucket} at {}", endpoint.as_str().trim_end_matches('/')),
            (None, Some(region)) => format!("s3://{bucket} of AWS in {region}"),
            (None, None) => format!("s3://{bucket} of AWS"),
        }
    }

    /// What requests are sent with. The credentials of AWS's chain are looked for when it is first asked for.
    pub async fn client(&self) -> &Client {
        self.client.get_or_init(|| self.make()).await
    }

    async fn make(&self) -> Client {
        let settings = &self.settings;
        let given = settings.access_key.clone().zip(settings.secret_key.clone());
        let mut config = match (given, &self.endpoint) {
            (Some((key, secret)), _) => {
                let credentials =
                    Credentials::new(key, secret, settings.session_token.clone(), None, "runbook");
                let region = settings.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
                Builder::new()
                    .behavior_version(BehaviorVersion::latest())
                    .region(Region::new(region))
                    .credentials_provider(credentials)
            }
            (None, endpoint) => {
                let mut chain = aws_config::defaults(BehaviorVersion::latest());
                if let Some(profile) = &settings.profile {
                    // By itself the chain would take keys of the environment before those of the profile that is asked for.
                    let credentials = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
                    chain = chain.profile_name(profile).credentials_provider(credentials);
                }
                let region =
                    settings.region.clone().or_else(|| endpoint.as_ref().map(|_| "us-east-1".to_owned()));
                if let Some(region) = region {
                    chain = chain.region(Region::new(region));
                }
                Builder::from(&chain.load().await)
            }
        };
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(std::time::Duration::from_millis(settings.timeout.as_millis()))
            .build();
        config = config
            .http_client(transport::client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .force_path_style(settings.path_style.unwrap_or(self.endpoint.is_some()));
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint.as_str().trim_end_matches('/'));
        }
        let default = if self.endpoint.is_some() { Checksums::Required } else { Checksums::Supported };
        if settings.checksums.unwrap_or(default) == Checksums::Required {
            config = config
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
                .interceptor(content_md5::ContentMd5);
        }
        Client::from_conf(config.build())
    }
}
