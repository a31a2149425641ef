//! What must hold for every text that an author can write. A broken promise is a panic, which the fuzzer finds.

#[path = "../../engine/tests/language/catalog.rs"]
mod catalog;
mod promises;

/// Reads, checks and plans any text as a runbook.
pub fn document(text: &str) {
    promises::document(text, &catalog::CATALOG);
}

/// Analyses and evaluates any text as one with expressions, and as a condition.
pub fn expression(text: &str) {
    promises::expression(text);
}
