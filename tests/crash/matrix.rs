//! All trials of a runbook: every crash point of an undisturbed run, and of the command after each of these crashes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::picture::differences;
use crate::trial::{self, Crashes, Ended, Recovery, World};
use crate::tried::Passed;

/// How many failures are told.
const TOLD: usize = 5;

/// After how many failures no more is tried.
const ENOUGH: usize = 20;

/// A runbook with the world it acts on.
pub struct Case {
    /// Its name in the matrix.
    pub name: &'static str,
    /// How a person goes on.
    pub recovery: Recovery,
    /// Makes a world.
    pub make: fn() -> Box<dyn World>,
    /// Of the first crashes, every how many is tried when not all are asked for.
    pub stride: usize,
    /// Of the second crashes, the same; 0 for none.
    pub second_stride: usize,
}

/// How much is tried.
struct Reach {
    /// `WHOLE=1`: every point, and every pair of points that differ.
    whole: bool,
    /// `PAIRS=1`: also the pairs of which another one leaves the same behind, see [`distinct`].
    pairs: bool,
    /// `DEPTH`: how many crashes deep, 1 or 2.
    depth: usize,
    /// `EVERY`: of the pairs every how many, for a runbook whose pairs are too many.
    every: Option<usize>,
    /// `WORKERS`: how many trials at a time.
    workers: usize,
}

impl Reach {
    fn read() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            whole: number("WHOLE") == Some(1),
            pairs: number("PAIRS") == Some(1),
            depth: number("DEPTH").unwrap_or(2),
            every: number("EVERY"),
            workers: number("WORKERS").unwrap_or(cores + 1),
        }
    }
}

/// The trials of one depth.
#[derive(Default)]
struct Tried {
    /// How many combinations of points there are.
    all: usize,
    /// How many of them leave something different behind.
    distinct: usize,
    tried: usize,
    failures: Vec<String>,
    took: Duration,
}

/// Does all trials and prints the row of the matrix; fails when one of them failed.
pub fn explore(case: &Case) {
    // A core dump for each of thousands of crashes would fill the disk.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    let reach = Reach::read();
    let undisturbed = Crashes::default();
    let reference = trial::run(&*(case.make)(), &undisturbed, case.recovery).unwrap();
    let world = (case.make)();
    let again = trial::run(&*world, &undisturbed, case.recovery).unwrap();
    assert_eq!(differences(&*world, &reference, &again), Vec::<String>::new(), "two undisturbed runs differ");
    let firsts: Vec<Crashes> = (reference.points.iter().enumerate())
        .flat_map(|(first, points)| (1..=points.len() as u64).map(move |at| Crashes { first, at: vec![at] }))
        .collect();
    let stride = if reach.whole { 1 } else { case.stride };
    let (first, ends) = all(case, &reference, &firsts, stride, reach.workers);
    let mut rows = vec![first];
    let second_stride = if reach.whole { reach.every.unwrap_or(1) } else { case.second_stride };
    if reach.depth > 1 && second_stride > 0 {
        let pairs = ends.iter().map(|after| after.next.len()).sum();
        let seconds = if reach.pairs { every_pair(&ends) } else { distinct(&ends) };
        let (row, _) = all(case, &reference, &seconds, second_stride, reach.workers);
        rows.push(Tried { all: pairs, ..row });
    }
    tell(case, &reference, &rows);
}

/// What came after the last crash of a trial.
#[derive(Clone)]
pub struct After {
    /// Its crashes.
    pub crashes: Crashes,
    /// The point it crashed at.
    pub point: String,
    /// The points that the next command passed.
    pub next: Vec<String>,
}

impl After {
    /// A second crash, at this point of the next command, from 1.
    fn deeper(&self, at: usize) -> Crashes {
        let at = self.crashes.at.iter().copied().chain([at as u64]).collect();
        Crashes { first: self.crashes.first, at }
    }
}

/// The crashes that follow each: at every point that the command after it passed.
fn every_pair(ends: &[After]) -> Vec<Crashes> {
    ends.iter().flat_map(|after| (1..=after.next.len()).map(|at| after.deeper(at))).collect()
}

/// The same without the pairs that leave nothing else behind than the one before them: a transaction that is not committed, and what is
/// about to be done. Of a first crash that is only taken for granted when the command after it passed the same points.
fn distinct(ends: &[After]) -> Vec<Crashes> {
    let firsts = ends.iter().enumerate().filter(|(at, after)| {
        let before = at.checked_sub(1).and_then(|before| ends.get(before));
        let same = before
            .is_some_and(|before| before.crashes.first == after.crashes.first && before.next == after.next);
        !same || leaves_something(&after.point)
    });
    let seconds = |after: &After| -> Vec<Crashes> {
        let points = after.next.iter().enumerate();
        let some = points.filter(|(at, point)| *at == 0 || leaves_something(point));
        some.map(|(at, _)| after.deeper(at + 1)).collect()
    };
    firsts.flat_map(|(_, after)| seconds(after)).collect()
}

/// Whether anything outlives the process at this point that was not there at the point before.
fn leaves_something(point: &str) -> bool {
    let open_transaction = point.contains(" store: ") && !point.ends_with(" store: committed");
    let to_be_done = point.contains("before ") || point.ends_with(" to be removed");
    !open_transaction && !to_be_done
}

/// Every `stride`-th of these trials, with what came after the last crash of each.
fn all(
    case: &Case,
    reference: &Ended,
    trials: &[Crashes],
    stride: usize,
    workers: usize,
) -> (Tried, Vec<After>) {
    let begun = Instant::now();
    let chosen: Vec<&Crashes> = trials.iter().step_by(stride).collect();
    let passed = Passed::of(case.name);
    let (next, failures, ends) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(crashes) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(after) = passed.find(crashes) {
                        ends.lock().unwrap().push(after);
                        continue;
                    }
                    match one(case, reference, crashes) {
                        Ok(after) => {
                            passed.keep(&after);
                            ends.lock().unwrap().push(after);
                        }
                        Err(why) => failures.lock().unwrap().push(why),
                    }
                    if failures.lock().unwrap().len() >= ENOUGH {
                        break;
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let mut ends = ends.into_inner().unwrap();
    ends.sort_by(|a: &After, b| (a.crashes.first, &a.crashes.at).cmp(&(b.crashes.first, &b.crashes.at)));
    let (all, tried) = (trials.len(), chosen.len());
    (Tried { all, distinct: all, tried, failures, took: begun.elapsed() }, ends)
}

/// One trial, or what was wrong.
fn one(case: &Case, reference: &Ended, crashes: &Crashes) -> Result<After, String> {
    let told = |why: String| format!("command {}, points {:?}: {why}", crashes.first, crashes.at);
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let world = (case.make)();
        let ended = trial::run(&*world, crashes, case.recovery)?;
        let wrong = differences(&*world, reference, &ended);
        if wrong.is_empty() {
            let next = ended.points.get(crashes.first + crashes.at.len()).cloned().unwrap_or_default();
            let point = ended.crashed_at.last().cloned().unwrap_or_default();
            return Ok(After { crashes: crashes.clone(), point, next });
        }
        Err(format!("crashed at {:?}\n  {}", ended.crashed_at, wrong.join("\n  ")))
    }));
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    };
    tried.unwrap_or_else(|panic| Err(panicked(panic))).map_err(told)
}

/// One row a depth: `matrix | runbook | points | depth | trials | failed | time`.
fn tell(case: &Case, reference: &Ended, rows: &[Tried]) {
    let points: usize = reference.points.iter().map(Vec::len).sum();
    for (depth, row) in rows.iter().enumerate() {
        println!(
            "matrix | {:<18} | {points:>4} points | depth {} | {:>6} combinations, {:>6} distinct | {:>6} tried | {:>3} failed | {:>7.1} s",
            case.name,
            depth + 1,
            row.all,
            row.distinct,
            row.tried,
            row.failures.len(),
            row.took.as_secs_f64(),
        );
    }
    let failures: Vec<&String> = rows.iter().flat_map(|row| &row.failures).collect();
    let told: Vec<&str> = failures.iter().take(TOLD).map(|one| one.as_str()).collect();
    assert!(failures.is_empty(), "{} trials failed:\n{}", failures.len(), told.join("\n\n"));
}
