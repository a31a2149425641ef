//! What a sandbox can hold, one file each: `sandbox NAME -- COMMAND`.

pub mod chat;
pub mod chatkit;
pub mod hub;
pub mod images;
