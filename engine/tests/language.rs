//! The language from outside: every page of an error code, positions of mistakes, and plans, with a small catalog.

#[path = "language/catalog.rs"]
mod catalog;
#[path = "language/golden.rs"]
mod golden;
#[path = "language/plans.rs"]
mod plans;
