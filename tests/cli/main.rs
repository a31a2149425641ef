//! The command line from outside: the real binary, small runbooks of commands, a state of its own for each test.

mod control;
mod deaf;
mod disk;
mod examples;
mod holds;
mod inputs;
mod orphans;
mod people;
mod place;
mod races;
mod records;
mod resume_table;
mod terminal;
