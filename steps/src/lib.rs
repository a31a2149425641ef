//! The step kinds of `runbook`, the connections they reach systems through, and the collections they work on.
//!
//! One file per kind. A kind is its configuration struct: its doc comments are the reference page and the JSON Schema. Adding one
//! is a new file and its lines in [`catalog`].

pub mod approval;
pub mod archive;
pub mod assert;
pub mod backoff;
pub mod backup;
pub mod branch_protection;
pub mod catalog;
pub mod check_report;
pub mod collections;
pub mod command;
pub mod confirm_prompt;
pub mod connections;
pub mod count;
pub mod delete_batch;
pub mod digest;
pub mod effect;
pub mod executor;
mod external_sort;
pub mod freeze;
pub mod generate_secret;
mod had;
pub mod http;
pub mod key_difference;
pub mod keygen;
pub mod keyset;
pub mod kind;
pub mod kubernetes_apply;
pub mod manifest;
mod new_secret;
pub mod notify;
pub mod one_or_many;
pub mod process;
pub mod prometheus_query;
pub mod reconcile;
pub mod records;
pub mod redis_flush;
pub mod report;
pub mod resources;
pub mod retry;
pub mod s3_inventory;
pub mod s3_lifecycle;
mod scratch;
pub mod smoke_upload;
pub mod snapshot;
pub mod sql;
pub mod sql_reset;
pub mod text;
pub mod unfreeze;
pub mod upload;
pub mod vault;
pub mod verify_header;
pub mod wait_for;
pub mod watch_log;
