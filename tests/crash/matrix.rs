//! All trials of a runbook: every crash point of an undisturbed run, and of the command after each of these crashes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::picture::differences;
use crate::trial::{self, Crashes, Ended, Recovery, World};

/// How many failures are told.
const TOLD: usize = 5;

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

/// How much is tried: `WHOLE=1` is all points, `DEPTH` is how many crashes deep (1 or 2).
struct Reach {
    whole: bool,
    depth: usize,
    workers: usize,
}

impl Reach {
    fn read() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let whole = std::env::var("WHOLE").is_ok_and(|text| text == "1");
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { whole, depth: number("DEPTH").unwrap_or(2), workers: number("WORKERS").unwrap_or(cores + 1) }
    }
}

/// The trials of one depth.
#[derive(Default)]
struct Tried {
    all: usize,
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
    let second_stride = if reach.whole { 1 } else { case.second_stride };
    if reach.depth > 1 && second_stride > 0 {
        let seconds: Vec<Crashes> =
            ends.into_iter().flat_map(|(crashes, next)| deeper(&crashes, next)).collect();
        rows.push(all(case, &reference, &seconds, second_stride, reach.workers).0);
    }
    tell(case, &reference, &rows);
}

/// The crashes that follow one: at each of the `next` points that the command after it passed.
fn deeper(crashes: &Crashes, next: u64) -> Vec<Crashes> {
    let then = |at| Crashes { first: crashes.first, at: crashes.at.iter().copied().chain([at]).collect() };
    (1..=next).map(then).collect()
}

/// Every `stride`-th of these trials, with how many points the command after the last crash of each passed.
fn all(
    case: &Case,
    reference: &Ended,
    trials: &[Crashes],
    stride: usize,
    workers: usize,
) -> (Tried, Vec<(Crashes, u64)>) {
    let begun = Instant::now();
    let chosen: Vec<&Crashes> = trials.iter().step_by(stride).collect();
    let (next, failures, ends) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(crashes) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match one(case, reference, crashes) {
                        Ok(points) => ends.lock().unwrap().push(((*crashes).clone(), points)),
                        Err(why) => failures.lock().unwrap().push(why),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let mut ends = ends.into_inner().unwrap();
    ends.sort_by(|(a, _), (b, _)| (a.first, &a.at).cmp(&(b.first, &b.at)));
    (Tried { all: trials.len(), tried: chosen.len(), failures, took: begun.elapsed() }, ends)
}

/// One trial: how many points the command after its last crash passed, or what was wrong.
fn one(case: &Case, reference: &Ended, crashes: &Crashes) -> Result<u64, String> {
    let told = |why: String| format!("command {}, points {:?}: {why}", crashes.first, crashes.at);
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let world = (case.make)();
        let ended = trial::run(&*world, crashes, case.recovery)?;
        let wrong = differences(&*world, reference, &ended);
        if wrong.is_empty() {
            let after = ended.points.get(crashes.first + crashes.at.len());
            return Ok(after.map_or(0, |points| points.len() as u64));
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
            "matrix | {:<18} | {points:>4} points | depth {} | {:>6} of {:>6} trials | {:>3} failed | {:>7.1} s",
            case.name,
            depth + 1,
            row.tried,
            row.all,
            row.failures.len(),
            row.took.as_secs_f64(),
        );
    }
    let failures: Vec<&String> = rows.iter().flat_map(|row| &row.failures).collect();
    let told: Vec<&str> = failures.iter().take(TOLD).map(|one| one.as_str()).collect();
    assert!(failures.is_empty(), "{} trials failed:\n{}", failures.len(), told.join("\n\n"));
}
