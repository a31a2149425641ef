//! The rules a runbook must keep, one file each. All of them are run, and all mistakes are collected.

pub mod codes;

pub use codes::CODES;
