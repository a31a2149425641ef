//! `runbooks/reset-production.yaml`, run by the built binary against PostgreSQL, Redis and the stand-in of the hub, with what the prose and the
//! systems get wrong set on purpose.

mod bench;
mod key;
#[cfg(feature = "crash-points")]
mod kills;
mod terminal;
mod traps;
mod typist;
mod way_back;
mod whole;
