//! Connections: how a system is reached.

mod below;
pub mod directory;
pub mod fountainstore;
pub mod github;
pub mod http;
pub mod kubernetes;
mod part;
pub mod prometheus;
pub mod redis;
pub mod s3;
pub mod session;
pub mod sql;
