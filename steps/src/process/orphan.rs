//! Orphans: children of a process of the run that was killed before it could end them. Nobody keeps what they come to any more, but
//! they still act, so nothing of their step is started beside them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use runbook_engine::drive::LiveHub;
use runbook_engine::duration::Duration as Time;
use runbook_engine::error::StepError;
use runbook_engine::step::Live;
use rustix::process::Signal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mark::Label;
use super::outlet;
use super::table::{self, Family, Seen};

/// How often one that still runs is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a killed process may take to go.
const FIRM: Duration = Duration::from_secs(5);

/// Where a run keeps the marks of its children, below its folder on this machine.
pub(super) fn folder(scratch: &Path, step: &str) -> PathBuf {
    scratch.join("children").join(step)
}

/// Ends every orphan of a run that is not to be waited for, whatever step it belongs to; `scratch` is the run's folder on this
/// machine, and no other process works on the run. The others are waited for when their step is entered again, or what it holds is
/// released. One that can not be ended is said, and keeps its step from starting another.
pub async fn end_orphans(scratch: &Path, live: &LiveHub) -> io::Result<()> {
    let mut ending = Vec::new();
    for entry in entries(&scratch.join("children"))? {
        let Some(step) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let orphans = orphans(&entry.path())?.into_iter().filter(|one| one.label.patience.is_zero());
        let live = live.step(&step);
        ending.extend(orphans.map(|orphan| (orphan, live.clone())));
    }
    join_all(ending.into_iter().map(|(orphan, live)| async move {
        if let Err(error) = orphan.end(&live).await {
            live.say(&error.to_string());
            error.help.iter().for_each(|help| live.say(help));
        }
    }))
    .await;
    Ok(())
}

/// Sees to it that no orphan with a mark in this folder runs any more: it is waited for as long as its mark says, unless `stop`
/// fires, and then ended.
pub(super) async fn settle(folder: &Path, live: &Live, stop: &CancellationToken) -> Result<(), StepError> {
    let orphans = orphans(folder).map_err(|error| {
        let message = format!("{} can not be read, so nothing was started", folder.display());
        StepError::transient(message).with_source(&error)
    })?;
    for orphan in orphans {
        if !orphan.awaited(live, stop).await? {
            orphan.end(live).await?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn orphans(folder: &Path) -> io::Result<Vec<Orphan>> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        let name = entry.file_name();
        let label = name.to_str().and_then(Label::read).filter(|label| !label.is_in_hand());
        let Some(label) = label else { continue };
        match entry.metadata() {
            Ok(about) => found.push(Orphan { path: entry.path(), label, begun: about.modified()? }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// A mark that was left, and so what may be left of a child.
struct Orphan {
    path: PathBuf,
    label: Label,
    begun: SystemTime,
}

/// What is left of a child.
#[derive(Debug)]
enum Left {
    /// Nothing, or only what it left running on purpose.
    Nothing,
    /// The child itself.
    Child(Seen),
    /// Something that can not be told from the child.
    Hidden,
}

impl Orphan {
    fn look(&self) -> Left {
        let Some(child) = &self.label.child else { return self.holder() };
        if child.boot != table::boot() {
            return Left::Nothing;
        }
        match table::process(child.pid) {
            Some(seen) if seen.start == child.start && seen.runs => Left::Child(seen),
            None if table::exists(child.pid) => Left::Hidden,
            _ => Left::Nothing,
        }
    }

    /// Who holds the lock, when nobody could write down any more which process it is.
    fn holder(&self) -> Left {
        let about = match File::open(&self.path).map(|file| (file.try_lock(), file.metadata())) {
            Ok((Ok(()), _)) => return Left::Nothing,
            Ok((Err(TryLockError::WouldBlock), Ok(about))) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Left::Nothing,
            _ => return Left::Hidden,
        };
        let own = i32::try_from(std::process::id()).ok();
        let all = table::all().unwrap_or_default().into_iter().filter(|one| Some(one.pid) != own);
        let holders: Vec<Seen> = all.filter(|one| one.runs && one.has_open(&about)).collect();
        match (holders.is_empty(), holders.into_iter().find(Seen::leads)) {
            (true, _) => Left::Hidden,
            (false, None) => Left::Nothing,
            (false, Some(child)) => Left::Child(child),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.look(), Left::Nothing)
    }

    fn forget(&self) {
        // One that stays is found, and found to be over, the next time.
        let _ = fs::remove_file(&self.path);
    }

    /// Waits for its end as long as its mark says; whether it came.
    async fn awaited(&self, live: &Live, stop: &CancellationToken) -> Result<bool, StepError> {
        let waited = self.begun.elapsed().unwrap_or_default();
        let left = self.label.patience.saturating_sub(waited);
        if !left.is_zero() && !self.is_over() {
            let most = Time::from_secs(left.as_secs() + 1);
            live.say(&format!("{} still runs: waiting for its end, at most {most}", self.what()));
        }
        // Nobody else takes out what it writes, and it must not wait for that.
        let outlets = self.outlets();
        let is_over = || {
            outlet::drain(&outlets);
            self.is_over()
        };
        tokio::select! {
            biased;
            over = within(left, is_over) => {
                if over {
                    self.forget();
                }
                Ok(over)
            }
            () = stop.cancelled() => Err(StepError::interrupted()),
        }
    }

    /// Ends it with its group and its strays, TERM, grace, KILL, and waits until it is gone.
    async fn end(&self, live: &Live) -> Result<(), StepError> {
        let what = self.what();
        let gone = match self.look() {
            Left::Nothing => true,
            Left::Child(child) => {
                live.say(&format!("{what} still runs: ending it"));
                let mut family = self.family(&child);
                family.signal(Signal::TERM);
                within(self.label.grace, || !child.still_runs()).await;
                family.signal(Signal::KILL);
                within(FIRM, || child.group_size() == 0 && family.strays_are_gone()).await
            }
            Left::Hidden => {
                live.say(&format!("{what} may still run: waiting for its end"));
                within(self.label.grace + FIRM, || self.is_over()).await
            }
        };
        if gone {
            self.forget();
            return Ok(());
        }
        let error =
            StepError::transient(format!("{what} could not be ended, so nothing was started beside it"));
        Err(error.with_help(match self.look() {
            Left::Child(child) => {
                format!("end it by hand (kill -9 -{}), and then resume or cancel the run", child.pid)
            }
            _ => format!(
                "find it and end it by hand (fuser {0}), and then resume or cancel the run; if it is meant to go on, remove {0}",
                self.path.display()
            ),
        }))
    }

    fn family(&self, child: &Seen) -> Family {
        Family::of(child.pid, fs::metadata(&self.path).ok())
    }

    /// The pipes that it writes to.
    fn outlets(&self) -> Vec<File> {
        let Left::Child(child) = self.look() else { return Vec::new() };
        outlet::of(&self.family(&child).members(), &fs::read_to_string(&self.path).unwrap_or_default())
    }

    /// What it is, for people.
    fn what(&self) -> String {
        let who = match self.look() {
            Left::Child(child) => format!("`{}` (process {})", child.name, child.pid),
            _ => "a command".to_owned(),
        };
        format!("{who}, started by an earlier process of this run,")
    }
}

/// Whether it comes to be within this time.
async fn within(time: Duration, so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use runbook_engine::redact::Redactor;
    use tokio::process::{Child, Command};

    use super::super::mark::Mark;
    use super::super::{IfOrphaned, Process};
    use super::*;

    /// The children of a step, as a process that was killed leaves them.
    struct Place {
        folder: tempfile::TempDir,
        live: LiveHub,
    }

    impl Place {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), live: LiveHub::new(Redactor::default()) }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn marks(&self) -> PathBuf {
            folder(self.folder.path(), "step")
        }

        /// The names of the marks that are there.
        fn names(&self) -> Vec<String> {
            let entries = entries(&self.marks()).unwrap();
            entries.into_iter().map(|entry| entry.file_name().into_string().unwrap()).collect()
        }

        /// A child that runs `script`, with its mark.
        fn start(&self, script: &str, process: &Process) -> Child {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(self.folder.path());
            command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
            Mark::new(&self.marks(), process).unwrap().start(&mut command, &[]).unwrap()
        }

        /// The same, by a process that was killed before it could write down which child it is.
        fn start_unrecorded(&self, script: &str) -> Child {
            let child = self.start(script, &process(IfOrphaned::End));
            let name = self.names().remove(0);
            let bare: Vec<&str> = name.split('.').take(3).collect();
            fs::rename(self.marks().join(&name), self.marks().join(bare.join("."))).unwrap();
            child
        }

        async fn settle(&self) -> Result<(), StepError> {
            settle(&self.marks(), &self.live.step("step"), &CancellationToken::new()).await
        }

        async fn written(&self, name: &str) -> i32 {
            let path = self.path(name);
            let there = || fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'));
            assert!(within(Duration::from_secs(10), there).await, "{name} is not written");
            fs::read_to_string(path).unwrap().trim().parse().unwrap()
        }
    }

    fn process(if_orphaned: IfOrphaned) -> Process {
        let (timeout, grace) = (Some(Duration::from_secs(30)), Duration::from_secs(5));
        Process { timeout, grace, if_orphaned, ..Process::default() }
    }

    fn runs(pid: i32) -> bool {
        table::process(pid).is_some_and(|seen| seen.runs)
    }

    fn pid(child: &Child) -> i32 {
        i32::try_from(child.id().unwrap()).unwrap()
    }

    /// Prints what it starts in the background, and stays.
    const WITH_SERVER: &str = "sleep 60 & echo $! > server; sleep 60";
    /// The same, but ends by itself.
    const LEAVES_SERVER: &str = "sleep 60 & echo $! > server";

    #[tokio::test]
    async fn a_child_is_ended_with_its_group() {
        let place = Place::new();
        let child = place.start(WITH_SERVER, &process(IfOrphaned::End));
        let server = place.written("server").await;
        place.settle().await.unwrap();
        assert!(!runs(pid(&child)) && !runs(server) && place.names().is_empty());
    }

    #[tokio::test]
    async fn what_left_its_group_is_ended_too() {
        let place = Place::new();
        let script = "setsid -w sh -c 'echo $$ > stray; sleep 60; true'; true";
        let child = place.start(script, &process(IfOrphaned::End));
        let stray = place.written("stray").await;
        place.settle().await.unwrap();
        assert!(!runs(pid(&child)) && !runs(stray) && place.names().is_empty());
    }

    #[tokio::test]
    async fn one_that_closed_everything_it_inherited_is_found_by_its_number() {
        let place = Place::new();
        let close = "for n in {3..255}; do eval \"exec $n>&-\"; done; echo 1 > closed; exec sleep 60";
        let script = format!("exec bash -c '{close}'");
        let child = place.start(&script, &process(IfOrphaned::End));
        place.written("closed").await;
        let mark = place.marks().join(place.names().remove(0));
        File::open(mark).unwrap().try_lock().expect("nobody holds the lock");
        place.settle().await.unwrap();
        assert!(!runs(pid(&child)) && place.names().is_empty());
    }

    #[tokio::test]
    async fn one_that_nobody_wrote_down_is_found_by_its_lock() {
        let place = Place::new();
        let child = place.start_unrecorded("exec sleep 60 < /dev/zero");
        place.settle().await.unwrap();
        assert!(!runs(pid(&child)) && place.names().is_empty());
    }

    #[tokio::test]
    async fn what_a_child_left_running_on_purpose_stays() {
        for recorded in [true, false] {
            let place = Place::new();
            let mut child = if recorded {
                place.start(LEAVES_SERVER, &process(IfOrphaned::End))
            } else {
                place.start_unrecorded(LEAVES_SERVER)
            };
            child.wait().await.unwrap();
            let server = place.written("server").await;
            place.settle().await.unwrap();
            assert!(runs(server) && place.names().is_empty(), "{recorded}");
            rustix::process::kill_process(rustix::process::Pid::from_raw(server).unwrap(), Signal::KILL)
                .unwrap();
        }
    }

    #[tokio::test]
    async fn one_that_is_to_be_waited_for_comes_to_its_own_end() {
        let place = Place::new();
        let _child = place.start("sleep 0.5; echo 1 > done", &process(IfOrphaned::Await));
        end_orphans(place.folder.path(), &place.live).await.unwrap();
        assert!(!place.path("done").exists(), "it is left to its step");
        place.settle().await.unwrap();
        assert_eq!(fs::read_to_string(place.path("done")).unwrap(), "1\n");
        assert!(place.names().is_empty());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_time_of_the_command_or_with_a_stop() {
        let place = Place::new();
        let short = Process { timeout: Some(Duration::from_millis(300)), ..process(IfOrphaned::Await) };
        let child = place.start("sleep 60", &short);
        place.settle().await.unwrap();
        assert!(!runs(pid(&child)));
        let child = place.start("sleep 60", &process(IfOrphaned::Await));
        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = settle(&place.marks(), &place.live.step("step"), &stop).await;
        assert_eq!(stopped, Err(StepError::interrupted()));
        assert!(runs(pid(&child)) && place.names().len() == 1);
        Family::of(pid(&child), None).signal(Signal::KILL);
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_killed_and_every_step_is_cleaned_up() {
        let place = Place::new();
        let deaf = Process { grace: Duration::from_millis(200), ..process(IfOrphaned::End) };
        let script = "trap '' TERM; (trap '' TERM; echo 1 > ready; sleep 60; true) & wait";
        let child = place.start(script, &deaf);
        place.written("ready").await;
        end_orphans(place.folder.path(), &place.live).await.unwrap();
        assert!(!runs(pid(&child)) && place.names().is_empty());
    }

    #[tokio::test]
    async fn a_number_that_is_another_process_by_now_is_left_alone() {
        let place = Place::new();
        let child = place.start("sleep 60", &process(IfOrphaned::End));
        let name = place.names().remove(0);
        let parts: Vec<&str> = name.split('.').collect();
        let other_start = [parts[0], parts[1], parts[2], parts[3], "7", parts[5]].join(".");
        let other_boot = [parts[0], parts[1], parts[2], parts[3], parts[4], "earlier"].join(".");
        fs::rename(place.marks().join(&name), place.marks().join(other_start)).unwrap();
        fs::write(place.marks().join(other_boot), "").unwrap();
        place.settle().await.unwrap();
        assert!(runs(pid(&child)) && place.names().is_empty());
        Family::of(pid(&child), None).signal(Signal::KILL);
    }

    #[tokio::test]
    async fn what_can_not_be_seen_is_waited_for_and_then_refused() {
        let place = Place::new();
        let hasty = Process { grace: Duration::ZERO, ..process(IfOrphaned::End) };
        drop(Mark::new(&place.marks(), &hasty).unwrap());
        // This process holds the lock: it is never taken for a child.
        let lock = File::open(place.marks().join(place.names().remove(0))).unwrap();
        lock.try_lock().unwrap();
        let error = place.settle().await.unwrap_err();
        assert_eq!(error.kind, runbook_engine::error::ErrorKind::Transient);
        assert!(error.help.unwrap().contains(&place.names()[0]));
        drop(lock);
        place.settle().await.unwrap();
        assert!(place.names().is_empty());
    }

    #[tokio::test]
    async fn a_child_that_is_still_seen_to_is_no_orphan() {
        let place = Place::new();
        let mut mark = Mark::new(&place.marks(), &process(IfOrphaned::End)).unwrap();
        let mut command = Command::new("sleep");
        let child = mark.start(command.arg("60").process_group(0), &[]).unwrap();
        place.settle().await.unwrap();
        assert!(runs(pid(&child)) && place.names().len() == 1);
        drop(mark);
        place.settle().await.unwrap();
        assert!(!runs(pid(&child)) && place.names().is_empty());
    }

    #[tokio::test]
    async fn this_program_keeps_no_hold_of_a_child() {
        let place = Place::new();
        let mut child = place.start("true", &process(IfOrphaned::End));
        child.wait().await.unwrap();
        let mark = place.marks().join(place.names().remove(0));
        File::open(mark).unwrap().try_lock().expect("nobody holds the lock");
    }
}
