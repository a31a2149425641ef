//! Staging and production beside the sandbox of a machine: their cluster, their names, and the application's checkout.

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::site::{Place, Site, write_inputs};
use crate::{application, kubernetes::KubernetesServer, names::Names, supervisor::Stage};

/// Each environment, what its API is called among the services, and its inputs file.
const ALL: [(&str, &str, &str); 2] = [
    ("staging", "chat-api-staging", "staging.yaml"),
    ("production", "chat-api-production", "production.yaml"),
];

/// What staging and production have beside their servers.
pub(super) struct Environments {
    names: Names,
    /// Ends when it is dropped.
    _cluster: KubernetesServer,
}

impl Environments {
    /// Starts the cluster, with a namespace and a context for each, and makes the checkout.
    pub(super) async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let environments = ALL.map(|(environment, ..)| environment);
        let cluster = application::cluster(&environments).await?;
        let cluster = cluster.context("there is no kube-apiserver: tests/kubernetes builds it, once")?;
        std::fs::write(stage.path("kubeconfig"), cluster.kubeconfig(&environments))
            .context("cannot write the kubeconfig")?;
        application::check_out(&stage.path("app")).context("cannot make the checkout")?;
        application::install(&stage.path("bin"), "just", application::RECIPES)
            .context("cannot write the recipes")?;
        Ok(Self { names: Names::start().await?, _cluster: cluster })
    }

    /// What the sandbox of the machine needs for the preflight that staging asks for: its store runs, and its bucket is there.
    pub(super) fn preflight(&self, stage: &Stage) -> Map<String, Value> {
        let none = |name: &str| (name.to_owned(), json!([]));
        Map::from_iter([
            ("app_dir".to_owned(), json!(stage.text("app"))),
            none("store_command"),
            none("bucket_command"),
        ])
    }

    /// What the command is told.
    pub(super) fn variables(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut variables = vec![
            ("APP_DIR", stage.text("app")),
            ("KUBECONFIG", stage.text("kubeconfig")),
            ("PATH", format!("{}:{path}", stage.text("bin"))),
            ("STAGING_INPUTS", stage.text("staging.yaml")),
            ("PRODUCTION_INPUTS", stage.text("production.yaml")),
        ];
        variables.extend(self.names.variables());
        variables
    }

    /// Starts the servers of each environment, and writes its inputs file.
    pub(super) async fn sites(&self, place: &Place<'_>) -> anyhow::Result<Vec<Site>> {
        let stage = place.stage;
        let place = Place { names: Some(&self.names), github: place.github.clone(), ..*place };
        let mut sites = Vec::new();
        for (environment, name, file) in ALL {
            let site = Site::start(&place, environment, name, false).await?;
            let mut inputs = site.inputs(stage)?;
            let of_the_cluster = [
                ("app_dir", stage.text("app")),
                ("kubeconfig", stage.text("kubeconfig")),
                ("kubernetes_context", environment.to_owned()),
                ("kubernetes_namespace", application::monitoring(environment)),
            ];
            inputs.extend(of_the_cluster.map(|(name, value)| (name.to_owned(), json!(value))));
            write_inputs(stage, file, &inputs)?;
            sites.push(site);
        }
        Ok(sites)
    }
}
