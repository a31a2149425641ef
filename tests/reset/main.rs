//! `runbooks/reset-chatkit.yaml`, run by the built binary against real servers: to the end, interrupted, refused, and crashed.

mod bench;
mod crash;
mod freeze;
mod memory;
mod people;
mod planned;
mod secrets;
mod traps;
mod whole;
