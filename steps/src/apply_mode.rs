//! The three things that steps do which bring a system into a declared state.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done about the declared state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Tells what `apply` would do.
    Plan,
    /// Makes it so.
    Apply,
    /// Fails unless it is so.
    Verify,
}
