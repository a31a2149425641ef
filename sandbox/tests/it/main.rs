//! The stand-ins as their users see them: real processes, over HTTP.

mod chat;
mod client;
mod faults;
mod gateway;
mod hub;
mod servers;
mod sessions;
mod store;
mod supervisor;
mod webhooks;
