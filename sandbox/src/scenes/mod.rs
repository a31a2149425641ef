//! What a sandbox can hold, one file each: `sandbox NAME -- COMMAND`.

pub mod chatkit;
pub mod hub;
