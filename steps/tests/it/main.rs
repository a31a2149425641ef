//! Step kinds against real servers and real files.

mod backup;
mod branch_protection;
mod certificates;
mod chatkit;
mod collections;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod database_tls;
mod databases;
mod delete_batch;
mod driven;
#[path = "../../../engine/tests/common/mod.rs"]
mod engine;
mod fountain;
mod freeze;
mod freeze_chatkit;
mod freeze_exact;
mod freeze_scale;
mod freeze_unclear;
mod http;
mod kubernetes_apply;
mod new_secrets;
mod notify;
mod prometheus_query;
mod reconcile;
mod redis_flush;
mod redis_keys;
mod refusals;
mod report;
mod s3;
mod server;
mod session;
mod settings;
mod smoke_upload;
mod snapshot;
mod sql;
mod sql_killed;
mod sql_reset;
mod sql_stopped;
mod unchanged;
mod upload;
mod verify_header;
mod wait_for;
mod watch_log;
mod way_back;
