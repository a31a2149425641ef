//! Connections: how a system is reached.

pub mod directory;
pub mod fountainstore;
pub mod http;
pub mod session;
