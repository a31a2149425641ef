//! Every crash point of every runbook here: the process is aborted there, then a person goes on, and at the end the world, the ledger,
//! the counters and the outputs are those of a run that was never disturbed. `tests/crashes` enumerates all of it, two crashes deep.

#[path = "../cli/place.rs"]
#[expect(dead_code, reason = "shared with the tests of the command line, which use all of it")]
mod place;

#[path = "../reset/bench.rs"]
#[expect(dead_code, reason = "shared with the tests of the reset, which use all of it")]
mod bench;

mod backup;
mod beside;
mod bucket;
mod chatkit;
mod cluster;
mod faults;
mod files;
mod freezes;
mod kinds;
mod made;
mod matrix;
mod observed;
mod picture;
mod reconcile;
mod redis;
mod requests;
mod server;
mod sql;
mod storage;
mod trial;
mod tried;
mod uploads;
