//! A stand-in of FountainStore behind HTTP: corpora, collections, JSON documents.

pub(crate) mod database;
mod query;
mod routes;

use std::path::PathBuf;

use anyhow::Context;

use crate::{instrument::instrument, serve};

/// Serve a FountainStore stand-in on 127.0.0.1 until SIGTERM, or until standard input ends.
///
/// Requests need the header `X-API-Key` with the value of the environment variable FOUNTAINSTORE_API_KEY,
/// except GET /health and the admin routes:
/// POST|DELETE /__sandbox/faults, GET /__sandbox/requests, GET /__sandbox/effects.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// SQLite file that holds the documents; made when missing
    #[arg(long, value_name = "FILE")]
    db: PathBuf,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8005)]
    port: u16,
}

/// Runs the server.
///
/// # Errors
/// When the key is missing, the file cannot be opened, or the port is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let api_key = std::env::var("FOUNTAINSTORE_API_KEY").context("FOUNTAINSTORE_API_KEY is not set")?;
    let database = database::Database::open(&args.db).await?;
    let listener = serve::bind(args.port).await?;
    eprintln!("store: listening on http://{}", listener.local_addr()?);
    serve::until_released(listener, instrument(routes::router(database, api_key))).await
}
