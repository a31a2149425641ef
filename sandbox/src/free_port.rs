//! Servers that take a port that was free a moment before.

use anyhow::Result;

/// How often a server is started when another program takes one of its ports first.
const TRIES: u32 = 5;

/// Starts a server, and starts it again, with other ports, when it says in these words that one was taken: between looking for a free port and taking it
/// somebody else may.
pub(crate) async fn start<T>(taken: &str, try_start: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_start().await {
            Err(error) if tries < TRIES && error.to_string().contains(taken) => {}
            started => return started,
        }
    }
}
