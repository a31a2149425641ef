//! The loop: append, apply, act, await. The only async part of the engine's core.

pub mod ledger;
pub mod live;
pub mod obligations;
