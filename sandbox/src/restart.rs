//! The client of the control server's restart route.

use std::time::Duration;

use anyhow::{Context, bail};

/// Restart a service of a running sandbox, and wait until it answers again.
///
/// It reads its environment file anew. The port stays the same.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the sandbox's control server
    #[arg(long, value_name = "URL", env = "SANDBOX_CONTROL_URL")]
    control: String,
    /// What to restart, such as `gateway`
    server: String,
}

/// Asks for the restart.
///
/// # Errors
/// When the sandbox does not answer, or the server does not come up again.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
    let url = format!("{}/restart/{}", args.control.trim_end_matches('/'), args.server);
    let response = http.post(&url).send().await.with_context(|| format!("no sandbox at {}", args.control))?;
    if !response.status().is_success() {
        bail!("the {} did not restart: {}", args.server, response.text().await.unwrap_or_default());
    }
    Ok(())
}
