//! The inputs file for the ChatKit runbook, as this sandbox would have it filled in.

use std::path::Path;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Environment, seed::Seeded};

/// Writes the file.
pub(super) fn write(path: &Path, environment: &Environment, seeded: &Seeded) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let whole_second = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let control = &environment["SANDBOX_CONTROL_URL"];
    let binary = std::env::current_exe()?;
    let inputs = json!({
        "gateway_url": environment["CHATKIT_GATEWAY_URL"],
        "store_url": environment["FOUNTAINSTORE_URL"],
        "environment": "sandbox",
        "env_file": environment["CHATKIT_ENV_FILE"],
        "log_file": environment["CHATKIT_LOG"],
        "archive_dir": environment["CHATKIT_ARCHIVE"],
        "restart_command": [binary.to_string_lossy(), "restart", "--control", control, "gateway"],
        "restore_ids": seeded.restore_ids,
        "notify_url": format!("{control}/webhook"),
        "window_start": whole_second(now - SignedDuration::from_mins(5)),
        "window_end": whole_second(now + SignedDuration::from_hours(3)),
    });
    let text = serde_yaml::to_string(&inputs)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
