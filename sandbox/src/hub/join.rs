//! The client of a hub that joins a ring.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, StatusCode};
use serde_json::json;

/// Join a ring of a hub, in the name of a DID, and print the hub's answer.
///
/// Who is a member already is well too. The stand-in of the hub takes the name for the signature; a real hub wants one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the hub answers
    #[arg(long)]
    url: String,
    /// The ring
    #[arg(long)]
    slug: String,
    /// Who joins
    #[arg(long)]
    did: String,
}

/// Joins.
///
/// # Errors
/// When the hub does not answer, or refuses it.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let url = format!("{}/trp/join", args.url.trim_end_matches('/'));
    let request = http.post(url).json(&json!({ "ringSlug": args.slug }));
    let request = request.header("Signature", format!("keyId=\"{}#key\"", args.did));
    let answer = request.send().await.with_context(|| format!("no hub at {}", args.url))?;
    let (status, body) = (answer.status(), answer.text().await?);
    println!("{body}");
    if status != StatusCode::CREATED && status != StatusCode::CONFLICT {
        bail!("the hub answered {status}");
    }
    Ok(0)
}
