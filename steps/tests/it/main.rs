//! Step kinds against real servers and real files.

mod chatkit;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod driven;
mod freeze;
mod freeze_chatkit;
mod http;
mod notify;
mod server;
mod upload;
mod verify_header;
mod wait_for;
