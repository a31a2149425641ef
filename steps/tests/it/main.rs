//! Step kinds against real servers and real files.

mod command;
#[path = "../common/mod.rs"]
mod common;
mod driven;
mod freeze;
mod http;
mod notify;
mod server;
mod wait_for;
