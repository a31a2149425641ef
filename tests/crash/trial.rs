//! One trial: a run from its beginning to its end, with a crash where the trial says, and a person who goes on after it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use runbook_engine::event::Question;
use runbook_engine::state::StepStatus;
use rustix::process::Signal;
use serde_json::Value;

use crate::picture::{self, Stands};
use crate::place::Place;

/// How many commands a person types at most.
const COMMANDS: usize = 25;

/// What a runbook acts on, with a state folder beside it: made anew for every trial.
pub trait World {
    /// Runs `runbook` to its end with these arguments and variables.
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output;

    /// The folder of the state.
    fn state(&self) -> PathBuf;

    /// The arguments that begin the run.
    fn exec(&self) -> Vec<String>;

    /// Whether a step that nobody may repeat took effect, as a person finds out who looks at the world.
    fn took_effect(&self, step: &str) -> bool;

    /// The names that differ from world to world, each with what stands for it in a picture.
    fn names(&self) -> Vec<(String, String)>;

    /// Whether a member of outputs is drawn anew in each world, or tells how often something was tried.
    fn is_drawn(&self, member: &str) -> bool {
        let _ = member;
        false
    }

    /// Whether every run passes the same points in the same order, as one does in which no steps go on beside each other.
    fn is_ordered(&self) -> bool {
        true
    }

    /// How it looks now.
    fn picture(&self) -> Value;

    /// What may never be, whatever points it crashed at: too many effects, something that was not put back.
    fn wrong(&self, crashed_at: &[String]) -> Vec<String>;

    /// How many batches of a step may be repeated after crashes at these points: the one in flight of each.
    fn repeatable(&self, step: &str, crashed_at: &[String]) -> u64 {
        let _ = step;
        crashed_at.len() as u64
    }
}

/// Runs `runbook` in a place.
pub fn run_in(place: &Place, arguments: &[String], variables: &[(String, String)]) -> Output {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    place.command(&arguments).envs(variables.iter().cloned()).output().unwrap()
}

/// How a person goes on after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// By `resume`, to the end.
    Resume,
    /// By `cancel`.
    Cancel,
}

/// Where the process is killed: in which of the commands first, and at which point of it and of those after it.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    /// The number of the first command that is killed, from 0.
    pub first: usize,
    /// The points, each in the next command.
    pub at: Vec<u64>,
}

impl Crashes {
    fn in_command(&self, command: usize) -> Option<u64> {
        self.at.get(command.checked_sub(self.first)?).copied()
    }

    fn begun(&self, command: usize) -> bool {
        !self.at.is_empty() && command > self.first
    }
}

/// What a trial came to.
pub struct Ended {
    /// The names of the points that each command passed.
    pub points: Vec<Vec<String>>,
    /// How the run stands; none when a crash came before there was one and nobody wanted it any more.
    pub stands: Option<Stands>,
    /// How the world looks.
    pub world: Value,
    /// What must not be.
    pub wrong: Vec<String>,
    /// The names of the points it crashed at.
    pub crashed_at: Vec<String>,
}

/// Runs it. An error says what went wrong on the way.
pub fn run(world: &dyn World, crashes: &Crashes, recovery: Recovery) -> Result<Ended, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (mut points, mut crashed_at) = (Vec::new(), Vec::new());
    for command in 0..COMMANDS {
        let stands = picture::look(world, scratch.path());
        let cancels = recovery == Recovery::Cancel && crashes.begun(command);
        let over = match &stands {
            Some(stands) => stands.state.status.is_final(),
            None => cancels,
        };
        if over {
            let wrong = world.wrong(&crashed_at);
            return Ok(Ended { points, stands, world: world.picture(), wrong, crashed_at });
        }
        let arguments = next(world, stands.as_ref(), cancels);
        let log = scratch.path().join(format!("points-{command}"));
        let mut variables = vec![("RUNBOOK_CRASH_LOG".to_owned(), log.display().to_string())];
        let at = crashes.in_command(command);
        variables.extend(at.map(|at| ("RUNBOOK_CRASH_AT".to_owned(), at.to_string())));
        let output = world.run(&arguments, &variables);
        let passed = names(&log);
        // It may have had less left to do than in the run whose points were counted.
        let ended_before = |at: &u64| !world.is_ordered() && *at > passed.len() as u64;
        match at.filter(|at| !ended_before(at)) {
            Some(at) => {
                let point =
                    check_killed(&output, &passed, at).map_err(|why| said(&arguments, &why, &output))?;
                crashed_at.push(format!("{} {point}", arguments[0]));
            }
            None => {
                let fine: &[i32] = if cancels { &[0, 5, 6] } else { &[0, 5] };
                if !output.status.code().is_some_and(|code| fine.contains(&code)) {
                    return Err(said(&arguments, &output.status.to_string(), &output));
                }
            }
        }
        points.push(passed);
    }
    Err(format!("it does not end in {COMMANDS} commands; crashed at {crashed_at:?}"))
}

/// What a person types next.
fn next(world: &dyn World, stands: Option<&Stands>, cancels: bool) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let Some(stands) = stands else { return world.exec() };
    if cancels {
        return words(&["cancel", &stands.id]);
    }
    let asking = stands.state.steps.iter().find(|(_, step)| step.status == StepStatus::Asking);
    match asking.and_then(|(id, step)| Some((id, step.question.as_ref()?))) {
        Some((id, Question::Phrase { phrase, .. })) => words(&["answer", &stands.id, id, phrase]),
        Some((id, Question::Settle { .. })) => {
            let answer = if world.took_effect(id) { "done" } else { "retry" };
            words(&["answer", &stands.id, id, answer])
        }
        Some((id, Question::Approval { .. })) => words(&["answer", &stands.id, id, "approve"]),
        None => words(&["resume", &stands.id]),
    }
}

/// The name of the point at which it was killed, or why it was not.
fn check_killed(output: &Output, passed: &[String], at: u64) -> Result<String, String> {
    if output.status.signal() != Some(Signal::ABORT.as_raw()) {
        return Err(format!("it passed only {} points and ended with {}", passed.len(), output.status));
    }
    let name = usize::try_from(at).ok().and_then(|at| passed.get(at.checked_sub(1)?));
    name.cloned().ok_or_else(|| format!("{} points were written down before point {at}", passed.len()))
}

fn names(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
}

fn said(arguments: &[String], why: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("runbook {}: {why}\n{}{}", arguments.join(" "), text(&output.stdout), text(&output.stderr))
}
