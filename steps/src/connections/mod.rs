//! Connections: how a system is reached.

pub mod http;
pub mod session;
