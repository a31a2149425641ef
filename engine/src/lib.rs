//! The engine of `runbook`: the language, planning, deciding and durable execution.
//!
//! Everything above [`drive`] is pure: no I/O, no async, no clock, no globals. A run is an append-only list of
//! [`event::Event`]s, its [`state::RunState`] is their fold, [`decide::decide`] says what happens next, and [`drive`] is the one
//! loop that does it. The engine never names a step kind, a connection kind or a database.

pub mod artifact;
pub mod check;
pub mod compile;
pub mod crash;
pub mod decide;
pub mod diagnostic;
pub mod document;
pub mod drive;
pub mod duration;
pub mod error;
pub mod event;
pub mod expr;
pub mod inputs;
pub mod kinds;
mod obligation;
pub mod plan;
pub mod question;
pub mod reach;
pub mod redact;
pub mod reopen;
pub mod retry;
pub mod runbook;
pub mod saved;
pub mod schema;
pub mod scope;
pub mod shell;
pub mod state;
pub mod step;
pub mod store;
pub mod suggest;
