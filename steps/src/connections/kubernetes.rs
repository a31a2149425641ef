//! Connection kind `kubernetes`: the API of a Kubernetes cluster.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::http::{BASE_URL, BASE_URL_WANTED, default_timeout};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

/// The API of a Kubernetes cluster: the one of a kubeconfig, or the one at `server`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConnection {
    /// The kubeconfig. Default: the one that `kubectl` takes, from `KUBECONFIG` or `~/.kube/config`.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. There is no default but with `server`: the current one is another one tomorrow.
    #[serde(default)]
    pub context: Option<String>,
    /// Where the API answers, in the place of a kubeconfig.
    #[serde(default)]
    #[schemars(extend("pattern" = BASE_URL, "patternErrorMessage" = BASE_URL_WANTED))]
    pub server: Option<String>,
    /// The bearer token, with `server`. May hold a secret.
    #[serde(default)]
    pub token: Option<String>,
    /// A file with the certificates of the authorities that are trusted, PEM, with `server`. Default: those of this machine.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long one request may take. Default `30s`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

#[async_trait]
impl ConnectionKind for KubernetesConnection {
    const NAME: &'static str = "kubernetes";
    const SUMMARY: &'static str = "The API of a Kubernetes cluster";
    const SECRET_FIELDS: &'static [&'static str] = &["/token"];
    type Client = Kubernetes;

    fn open(self, _: &OpenContext<'_>) -> Result<Kubernetes, StepError> {
        let with_server = self.token.is_some() || self.ca_file.is_some();
        match (&self.server, &self.context) {
            (Some(_), _) if self.kubeconfig.is_some() || self.context.is_some() => {
                return Err(StepError::invalid(
                    "give a `server`, or a `kubeconfig` with its `context`, not both",
                ));
            }
            (None, _) if with_server => {
                return Err(StepError::invalid("`token` and `ca_file` belong to a `server`"));
            }
            (None, None) => {
                return Err(StepError::invalid("`context` is missing")
                    .with_help("name it: the current context of a kubeconfig is another cluster tomorrow"));
            }
            _ => {}
        }
        Ok(Kubernetes { settings: self, client: OnceCell::new() })
    }

    fn place(client: &Kubernetes) -> String {
        client.describe()
    }

    async fn identity(client: &Kubernetes) -> Result<SystemIs, StepError> {
        // The namespace that every cluster has from its beginning to its end: its id is the cluster's.
        // A run that needs no cluster may be without one; what does need it says why it can not be reached.
        let Ok(connected) = client.client().await else { return Ok(SystemIs::There(client.describe())) };
        let namespaces: Api<Namespace> = Api::all(connected.clone());
        let what = format!("asking {} which cluster it is", client.describe());
        let found = client.in_time(&what, namespaces.get("kube-system")).await;
        let id = found.ok().and_then(|namespace| namespace.metadata.uid);
        let id = id.map_or_else(String::new, |id| format!(", cluster {id}"));
        Ok(SystemIs::There(format!("{}{id}", client.describe())))
    }
}

/// The client of a cluster. Nothing is sent twice by it: whoever sends knows whether it may be repeated.
pub struct Kubernetes {
    settings: KubernetesConnection,
    client: OnceCell<Client>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The settings hold a secret.
        f.debug_struct("Kubernetes").finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// The cluster in words, for people.
    pub fn describe(&self) -> String {
        match (&self.settings.server, &self.settings.context) {
            (Some(server), _) => server.trim_end_matches('/').to_owned(),
            (None, Some(context)) => format!("the cluster of the context {context}"),
            (None, None) => "the cluster".to_owned(),
        }
    }

    /// What requests are sent with.
    pub async fn client(&self) -> Result<&Client, StepError> {
        self.client.get_or_try_init(|| self.make()).await
    }

    /// How long one request may take.
    pub fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.settings.timeout.as_millis())
    }

    /// What a request comes to, within the connection's time.
    pub async fn in_time<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, StepError> {
        match tokio::time::timeout(self.timeout(), request).await {
            Ok(answer) => answer.map_err(|error| failed(what, &error)),
            Err(_) => Err(StepError::transient(format!("{what}: no answer in time")).unknown()),
        }
    }

    async fn make(&self) -> Result<Client, StepError> {
        let mut config = self.config().await?;
        config.default_retry = false;
        Client::try_from(config).map_err(|error| failed("making a client of Kubernetes", &error))
    }

    async fn config(&self) -> Result<Config, StepError> {
        let settings = &self.settings;
        let Some(server) = &settings.server else {
            let read = match &settings.kubeconfig {
                Some(path) => Kubeconfig::read_from(path),
                None => Kubeconfig::read(),
            };
            let unread = |error| StepError::invalid("the kubeconfig can not be used").with_source(&error);
            let options =
                KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
            return Config::from_custom_kubeconfig(read.map_err(unread)?, &options).await.map_err(unread);
        };
        let url = server.parse().map_err(|_| StepError::invalid(format!("`{server}` is no URL")))?;
        let mut config = Config::new(url);
        config.root_cert_file.clone_from(&settings.ca_file);
        config.auth_info = AuthInfo { token: settings.token.clone().map(Into::into), ..AuthInfo::default() };
        Ok(config)
    }
}

/// Why a request failed: `what` was tried, as a lower-case fragment.
fn failed(what: &str, error: &kube::Error) -> StepError {
    let kube::Error::Api(status) = error else {
        let mut chain = vec![error.to_string()];
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            chain.push(cause.to_string());
            source = cause.source();
        }
        let innermost = chain.last().cloned().unwrap_or_default();
        let message = format!("{what}: {innermost}");
        let untrusted = innermost.contains("invalid peer certificate");
        return match error {
            kube::Error::Service(_) | kube::Error::HyperError(_) if !untrusted => {
                StepError::transient(message).unknown()
            }
            _ => StepError::refused(message),
        };
    };
    let message = format!("{what}: status {} {}: {}", status.code, status.reason, status.message);
    match status.code {
        408 | 429 | 500.. => StepError::transient(message),
        401 | 403 => StepError::refused(message)
            .with_help("look at the credentials of the connection and at what they may do, then resume"),
        409 => StepError::gate(message),
        _ => StepError::refused(message),
    }
}
