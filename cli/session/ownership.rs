//! Which process works on a run: by its lease in the store, and by its mark on this machine.

use std::fs::File;
use std::time::Duration;

use jiff::Timestamp;
use runbook_engine::store::holder::is_stopped;
use runbook_engine::store::{Fence, RunRow, StoreError, Write};
use rustix::process::{Pid, test_kill_process};

use super::folder_failed;
use crate::app::State;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::state::{Held, Mark};

/// How long another process may hold the mark of a run only to look at it, in tenths of a second.
const GLANCE: u32 = 20;

/// Who this process is: user, host, process id.
pub fn owner() -> String {
    format!("{}:{}", person(), std::process::id())
}

/// Who uses it: the name of the account, and the host. Root may be anybody, and says who: `USER`, or who it is by `sudo`.
pub fn person() -> String {
    let uid = rustix::process::getuid();
    // Tests are several persons by one account, which may be any.
    let says = uid.is_root() || cfg!(feature = "crash-points");
    let named = ["USER", "SUDO_USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let mut named = named.filter(|user| says && !user.is_empty() && user != "root");
    let user = named.next().or_else(|| whoami::username().ok());
    format!("{}@{}", user.unwrap_or_else(|| format!("uid-{}", uid.as_raw())), host())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Which process works on the run, and until when its lease lasts. One of this machine that has died is found out at once, without
/// waiting for its lease to end; where its mark is missing, nobody can tell, and the lease counts. Every command asks this, so that all
/// tell the same; nothing is changed.
pub fn live_owner(state: &State, row: &RunRow) -> Option<(String, Timestamp)> {
    let (owner, until) = row.live_owner(Timestamp::now())?;
    let died = is_here(owner) && matches!(state.location.mark(&row.id), Ok(Mark::Free));
    (!died).then(|| (owner.to_owned(), until))
}

fn is_here(owner: &str) -> bool {
    let at = owner.rsplit_once(':').and_then(|(who, _)| who.rsplit_once('@')).map(|(_, at)| at);
    at == Some(&*host())
}

/// A process of this machine that holds a run and does not go on with it: its lease has ended, or it was stopped.
pub struct Stalled {
    /// Who it is: user, host, process id.
    pub owner: String,
    pid: Pid,
    stopped: bool,
}

impl Stalled {
    /// Whether it was stopped by a signal, as far as can be seen.
    pub fn says(&self) -> String {
        let how = if self.stopped { "was stopped" } else { "does not go on" };
        format!("its process, {}, {how}", self.pid)
    }

    /// What a person types, and what each does.
    pub fn ways(&self) -> Vec<(String, &'static str)> {
        let go_on = (format!("kill -CONT {}", self.pid), "lets its process go on");
        let end =
            (format!("kill -9 {}", self.pid), "ends its process for good; then the run can be taken up");
        if self.stopped { vec![go_on, end] } else { vec![end] }
    }

    /// A failure with what a person types.
    pub fn told(&self, failure: Failure) -> Failure {
        let ways = self.ways().into_iter();
        ways.fold(failure, |failure, (command, about)| failure.help(format!("{command}   {about}")))
    }

    /// The same in one line.
    pub fn way(&self) -> String {
        let ways: Vec<String> =
            self.ways().into_iter().map(|(command, about)| format!("{command} {about}")).collect();
        ways.join("; ")
    }
}

/// The process that holds the run and does not go on with it.
pub fn stalled(state: &State, row: &RunRow) -> Option<Stalled> {
    let owner = row.owner.clone().filter(|owner| is_here(owner))?;
    let pid = owner.rsplit_once(':')?.1.parse().ok().and_then(Pid::from_raw)?;
    let held = matches!(state.location.mark(&row.id), Ok(Mark::Held)) && test_kill_process(pid).is_ok();
    let stopped = held && is_stopped(pid.as_raw_nonzero().get());
    let lapsed = row.live_owner(Timestamp::now()).is_none();
    (held && (stopped || lapsed)).then_some(Stalled { owner, pid, stopped })
}

/// The refusal while another process works on the run.
pub fn busy(run: &str, owner: &str, until: Timestamp) -> Failure {
    Failure::new(Exit::Busy, format!("run {run} is owned by {owner} until {}", format::utc(until)))
        .help("the time is extended while that process lives; then the run can be taken over")
        .help(format!("runbook logs {run} -f   to watch it"))
        .help(format!("runbook cancel {run}    to end it"))
}

/// Makes a process of this machine that has died leave the run, so that its lease is in nobody's way. Only whoever holds the run's mark
/// may say that it has died, and only when the mark was there before: one that was taken away may have been held.
async fn dismiss(state: &State, run: &str, held: &Held) -> Outcome<()> {
    let row = match state.store.run(run).await {
        Ok(row) => row.ok_or_else(|| StoreError::NoSuchRun(run.to_owned()))?,
        // Claiming a run whose row can not be read looks at the lease alone.
        Err(StoreError::Corrupt { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let live = row.live_owner(Timestamp::now()).filter(|(owner, _)| is_here(owner));
    let Some((owner, until)) = live else { return Ok(()) };
    if held.made {
        let refused = busy(run, owner, until);
        // A mark that nobody holds would say that its owner has died.
        state.location.unmark(run).map_err(|error| folder_failed(run, &error))?;
        return Err(refused.help(
            "the mark of that process was taken away with the run's folder, so that nobody can tell whether it still lives",
        ));
    }
    match state.store.commit(run, Fence::Owner(row.epoch), vec![Write::Leave]).await {
        Ok(()) | Err(StoreError::Fenced) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Marks the run as this process's own, and ends the lease of a process of this machine that has died. A process that lives holds the
/// mark to its end, even one that was stopped and let its lease lapse: it may wake up in the middle of an effect, so nobody works beside
/// it.
pub async fn take(state: &State, run: &str) -> Outcome<File> {
    let held = hold(state, run).await?;
    dismiss(state, run, &held).await?;
    Ok(held.file)
}

async fn hold(state: &State, run: &str) -> Outcome<Held> {
    for _ in 0..GLANCE {
        let held = state.location.hold(run).map_err(|error| folder_failed(run, &error))?;
        if let Some(held) = held {
            return Ok(held);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let row = state.store.run(run).await.ok().flatten();
    let owner = row.as_ref().and_then(|row| row.owner.as_deref()).unwrap_or("a process of this machine");
    let failure =
        Failure::new(Exit::Busy, format!("run {run} is held by {owner}, which is alive or stopped"));
    Err(match row.as_ref().and_then(|row| stalled(state, row)) {
        Some(stalled) => stalled.told(failure),
        None => failure.help("let that process go on, or end it for good (kill -9), and try again"),
    })
}

/// Succeeds when the process that worked on the run has ended, and was not only stopped until its lease lapsed.
pub async fn gone(state: &State, run: &str) -> Outcome<()> {
    hold(state, run).await.map(drop)
}
