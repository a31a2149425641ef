//! Runs a child process: never through a shell, in its own process group, bounded in time and in what is kept of its output. It goes on to its
//! end when this program is killed, until whoever comes next ends it or waits for it.

mod mark;
mod orphan;
mod outlet;
mod output;
mod table;

pub use runbook_engine::shell::quoted;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use runbook_engine::crash;
use runbook_engine::error::StepError;
use runbook_engine::step::StepContext;
use rustix::process::Signal;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use self::mark::Mark;
pub use self::orphan::end_orphans;
use self::outlet::Outlet;
pub use self::output::{Hear, KEPT, Kept};
use self::output::{Listener, Tail, pump};
use self::table::Family;

/// How long the streams are read after the process has ended: a grandchild may hold them open for ever.
const LINGER: Duration = Duration::from_millis(500);

/// A process to be run.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The program, then its arguments.
    pub argv: Vec<String>,
    /// Variables in addition to those of this process.
    pub env: BTreeMap<String, String>,
    /// The folder it starts in; this process's when absent.
    pub cwd: Option<PathBuf>,
    /// When it is stopped, counted from its start.
    pub timeout: Option<Duration>,
    /// How long it and its children have between TERM and KILL.
    pub grace: Duration,
    /// Whether nobody sees live what it prints.
    pub quiet: bool,
    /// What becomes of it when this program is killed before it.
    pub if_orphaned: IfOrphaned,
}

/// What the next process of the run does with a child of one that was killed, before it starts anything of the same step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfOrphaned {
    /// It is ended.
    #[default]
    End,
    /// It is waited for until its time is over, and only then ended: half of what it does is worse than all of it.
    Await,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited,
    /// Its time was over, and it was stopped.
    TimedOut,
    /// It was asked to stop.
    Stopped,
}

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its status.
    pub status: ExitStatus,
    /// Why it ended.
    pub ended: Ended,
    /// The end of its standard output, without secrets.
    pub stdout: Kept,
    /// The end of its standard error, without secrets.
    pub stderr: Kept,
    /// From its start to its end.
    pub took: Duration,
}

impl Process {
    /// A process with this command line, without a time limit.
    pub fn new(argv: &[String]) -> Self {
        Self { argv: argv.to_vec(), grace: Duration::from_secs(10), ..Self::default() }
    }

    /// The program's name.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// The command line as a person would type it into a shell.
    pub fn line(&self) -> String {
        self.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end, after what an earlier process of the run left running of the same step has come to its own. Its lines
    /// are said live; `stop` ends it. When the returned future is dropped, the process and its children are killed. An error means
    /// that it was not started.
    pub async fn run(&self, cx: &StepContext, stop: &CancellationToken) -> Result<Finished, StepError> {
        self.run_to_its_end(cx, stop, None).await
    }

    /// Runs it as [`Self::run`] does, but gives what it writes to its standard output to `hear`, piece by piece as it comes and with
    /// secrets still in it, instead of saying it live.
    pub async fn run_hearing(
        &self,
        cx: &StepContext,
        stop: &CancellationToken,
        hear: Hear<'_>,
    ) -> Result<Finished, StepError> {
        self.run_to_its_end(cx, stop, Some(hear)).await
    }

    async fn run_to_its_end(
        &self,
        cx: &StepContext,
        stop: &CancellationToken,
        hear: Option<Hear<'_>>,
    ) -> Result<Finished, StepError> {
        let folder = orphan::folder(&cx.scratch, &cx.step);
        orphan::settle(&folder, &cx.live, &cx.stop).await?;
        // What is only heard may be cut off when nobody hears it any more.
        let Started { mut child, mark, stdout, stderr } = self.start(&folder, hear.is_none())?;
        let begun = Instant::now();
        let mut group = Group::of(&child, &mark);
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let (status, ended) = {
            let reading = async {
                let said = || if self.quiet { Listener::Nobody } else { Listener::Live };
                let hear = hear.map_or_else(said, Listener::By);
                tokio::join!(pump(stdout, &mut out, cx, hear), pump(stderr, &mut err, cx, said()));
            };
            tokio::pin!(reading);
            let mut read = false;
            let ended = {
                let waiting = self.wait(&mut child, &mut group, stop);
                tokio::pin!(waiting);
                loop {
                    tokio::select! {
                        ended = &mut waiting => break ended,
                        () = &mut reading, if !read => read = true,
                    }
                }
            };
            if !read {
                let _ = tokio::time::timeout(LINGER, &mut reading).await;
            }
            ended
                .map_err(|error| StepError::transient("waiting for the process failed").with_source(&error))?
        };
        crash::point("process: ended");
        mark.remove();
        let (stdout, stderr) = (out.kept(&cx.redactor), err.kept(&cx.redactor));
        Ok(Finished { status, ended, stdout, stderr, took: begun.elapsed() })
    }

    fn start(&self, marks: &Path, outlive: bool) -> Result<Started, StepError> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(StepError::invalid("argv is empty"));
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(&self.env).process_group(0);
        let no_pipe = |error: io::Error| {
            StepError::transient(format!("`{program}` was not started: no pipe can be made"))
                .with_source(&error)
        };
        let outlets = [Outlet::new().map_err(no_pipe)?, Outlet::new().map_err(no_pipe)?];
        let [out, err] = outlets.each_ref().map(Outlet::writer);
        command.stdin(Stdio::null()).stdout(out.map_err(no_pipe)?).stderr(err.map_err(no_pipe)?);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let mut mark = Mark::new(marks, self).map_err(|error| {
            let message = format!("`{program}` was not started: its mark in {} failed", marks.display());
            StepError::transient(message).with_source(&error)
        })?;
        match mark.start(&mut command, if outlive { &outlets } else { &[] }) {
            Ok(child) => {
                crash::point("process: started");
                // The ends that it holds for the child would keep the pipes open.
                drop(command);
                let [stdout, stderr] = outlets.map(|outlet| outlet.into_receiver().ok());
                Ok(Started { child, mark, stdout, stderr })
            }
            Err(error) => {
                mark.remove();
                Err(not_started(program, &error))
            }
        }
    }

    /// Waits for the end, and brings it about when the time is over or `stop` fires: TERM, grace, KILL.
    async fn wait(
        &self,
        child: &mut Child,
        group: &mut Group,
        stop: &CancellationToken,
    ) -> io::Result<(ExitStatus, Ended)> {
        let ended = tokio::select! {
            biased;
            status = child.wait() => {
                // What it left running on purpose, such as a server it started, stays.
                group.disarm();
                return Ok((status?, Ended::Exited));
            }
            () = stop.cancelled() => Ended::Stopped,
            () = passed(self.timeout) => Ended::TimedOut,
        };
        group.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(self.grace, child.wait()).await {
            group.kill();
            return Ok((status?, ended));
        }
        group.signal(Signal::KILL);
        let status = child.wait().await?;
        group.disarm();
        Ok((status, ended))
    }
}

fn not_started(program: &str, error: &io::Error) -> StepError {
    let message = format!("`{program}` can not be started");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            StepError::refused(message)
        }
        _ => StepError::transient(message),
    }
    .with_source(error)
}

async fn passed(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

impl Finished {
    /// The exit code; absent when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// How it ended, as a fragment: `exited with 3`, `was ended by signal 9`.
    pub fn how(&self) -> String {
        use std::os::unix::process::ExitStatusExt;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        }
    }

    /// The last line that is not empty, of standard error or else of standard output, for a message.
    pub fn last_line(&self) -> Option<String> {
        self.last_error_line().or_else(|| self.stdout.last_line())
    }

    /// The last line of standard error that is not empty, for a message.
    pub fn last_error_line(&self) -> Option<String> {
        self.stderr.last_line()
    }
}

/// A child that was started, and what it writes to.
struct Started {
    child: Child,
    mark: Mark,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

/// A child with its group and its strays, killed when this is dropped.
struct Group(Option<Family>);

impl Group {
    fn of(child: &Child, mark: &Mark) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.map(|pid| Family::of(pid, mark.file())))
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(family) = &mut self.0 {
            family.signal(signal);
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.disarm();
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The text, cut at so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_reads_as_one_would_type_it() {
        let argv = ["systemctl", "restart", "it's", ""].map(str::to_owned);
        assert_eq!(Process::new(&argv).line(), r"systemctl restart 'it'\''s' ''");
    }
}
