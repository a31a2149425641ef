//! The command line from outside: the real binary, small runbooks of commands, a state of its own for each test.

mod absent;
mod author;
mod bound;
mod changed;
mod control;
mod deaf;
mod disk;
mod examples;
mod foreseen;
mod holds;
mod inputs;
mod leaks;
mod limits;
mod machine;
mod orphans;
mod people;
mod place;
mod plan_files;
mod planned;
mod poisoned;
mod races;
mod records;
mod resume_table;
mod scale;
mod stopping;
mod terminal;
