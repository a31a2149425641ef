//! Stand-ins for the systems that the shipped runbooks act on.
//!
//! Each stand-in is a real HTTP server in a process of its own, keeps its data in a SQLite file, and can be
//! told to fail in a chosen way. The binary `sandbox` starts them; [`Sandbox`] and [`Chatkit`] do so from a test.

pub mod admin;
mod api;
pub mod application;
pub mod chat;
mod crypto;
pub mod database;
pub mod demo;
pub mod emulate;
mod free_port;
pub mod gateway;
pub mod github;
mod handle;
mod held;
pub mod hub;
pub mod image_api;
mod installed;
mod instrument;
pub mod kubernetes;
pub mod names;
mod presign;
pub mod prometheus;
pub mod redis;
pub mod remote;
pub mod scenes;
mod serve;
pub mod store;
mod supervisor;
mod time;
pub mod weed;
pub mod workload;

pub use api::Api;
pub use handle::{Chatkit, Options, Server, sandbox_binary};
pub use held::Sandbox;
