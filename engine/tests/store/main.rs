//! The stores: one suite on all of them, and what only a file can show.

mod damage;
mod durability;
mod suite;
mod support;
