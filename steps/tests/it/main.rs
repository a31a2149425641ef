//! Step kinds against real servers and real files.

#[path = "../common/mod.rs"]
mod common;
mod notify;
mod server;
