//! What the application that the chat API is of brings along: a checkout with its alerts, the recipes that are called in it, and the cluster
//! that takes the alerts.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::kubernetes::KubernetesServer;

/// Its recipes, as far as the runbook chat-attachment-lifecycle calls them: a program in the place of `just`.
pub const RECIPES: &str = include_str!("just.sh");

/// Where the alerts are in the checkout.
pub const ALERTS: &str = "deploy/monitoring/prometheusrule-chat-attachment-lifecycle.yaml";

/// The alerts, as far as a cluster tells them from others.
const RULES: &str = include_str!("alerts.yaml");

/// Makes a checkout in a folder.
///
/// # Errors
/// When it cannot be written.
pub fn check_out(folder: &Path) -> io::Result<()> {
    let alerts = folder.join(ALERTS);
    fs::create_dir_all(alerts.parent().unwrap_or(folder))?;
    fs::write(alerts, RULES)
}

/// Puts a program into a folder.
///
/// # Errors
/// When it cannot be written.
pub fn install(folder: &Path, name: &str, script: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    fs::write(&path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Starts a cluster that knows alerts, with a namespace for those of each of these environments. None where its server was never built.
///
/// # Errors
/// When it does not become ready.
pub async fn cluster(environments: &[&str]) -> anyhow::Result<Option<KubernetesServer>> {
    let Some(server) = KubernetesServer::start().await? else { return Ok(None) };
    server.serve_prometheus_rules().await?;
    for environment in environments {
        let body = json!({ "metadata": { "name": monitoring(environment) } });
        server.call("POST", "/api/v1/namespaces", Some(&body)).await?;
    }
    Ok(Some(server))
}

/// The namespace of the alerts of an environment.
pub fn monitoring(environment: &str) -> String {
    format!("monitoring-{environment}")
}
