//! What this machine keeps of programs that no package of Debian has.

use std::path::PathBuf;

/// The folder where tests/run and tests/kubernetes put the program of this name and version, whether it is there or not.
pub(crate) fn installed(name: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
    cache.join("runbook").join(name)
}
