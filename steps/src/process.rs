//! Runs a child process: never through a shell, in its own process group, bounded in time and in what is kept of its output.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use runbook_engine::error::StepError;
use runbook_engine::redact::Redactor;
use runbook_engine::step::StepContext;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How many bytes of each stream are kept, from its end.
pub const KEPT: usize = 64 * 1024;
/// Kept beyond [`KEPT`] until secrets are replaced, so that none is cut in two where the kept part begins.
const SLACK: usize = 8 * 1024;
/// The longest line that is looked at as a whole; what is beyond is not shown live.
const LINE: usize = 16 * 1024;
/// The longest line that is shown live, in characters.
const SHOWN: usize = 2_000;
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

/// The end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The text, without secrets; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether something before it was dropped.
    pub cut: bool,
}

impl Kept {
    fn last_line(&self) -> Option<String> {
        let line = self.text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(shortened(line, 300))
    }
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

    /// Runs it to its end. Its lines are said live; `stop` ends it. When the returned future is dropped, the process and its
    /// children are killed. An error means that it was not started.
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
        let mut child = self.start()?;
        let begun = Instant::now();
        let mut group = Group::of(&child);
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, ended) = {
            let reading = async {
                tokio::join!(pump(stdout, &mut out, cx, hear), pump(stderr, &mut err, cx, None));
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
        let (stdout, stderr) = (out.kept(&cx.redactor), err.kept(&cx.redactor));
        Ok(Finished { status, ended, stdout, stderr, took: begun.elapsed() })
    }

    fn start(&self) -> Result<Child, StepError> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(StepError::invalid("argv is empty"));
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(&self.env).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command.spawn().map_err(|error| {
            let message = format!("`{program}` can not be started");
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
                    StepError::refused(message)
                }
                _ => StepError::transient(message),
            }
            .with_source(&error)
        })
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

/// The process group of a child, killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // Nobody left is as good as done.
            let _ = kill_process_group(pid, signal);
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

/// The end of a stream, with secrets still in it.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Doubled, so that a long stream is moved once in a while rather than at every piece.
        if self.bytes.len() > 2 * (KEPT + SLACK) {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let extra = self.bytes.len().saturating_sub(KEPT + SLACK);
        if extra > 0 {
            self.bytes.drain(..extra);
            self.cut = true;
        }
    }

    fn kept(mut self, redactor: &Redactor) -> Kept {
        self.trim();
        let text = redactor.text(&String::from_utf8_lossy(&self.bytes));
        let start = text.ceil_char_boundary(text.len().saturating_sub(KEPT));
        let cut = self.cut || start > 0;
        Kept { text: text[start..].to_owned(), cut }
    }
}

/// Takes pieces of a stream, as they come.
type Hear<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

async fn pump(
    stream: Option<impl AsyncRead + Unpin>,
    tail: &mut Tail,
    cx: &StepContext,
    mut hear: Option<Hear<'_>>,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 8192];
    let mut lines = Lines::default();
    let say = |line: &str| cx.live.say(&shortened(&cx.redactor.text(line), SHOWN));
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        tail.push(&buffer[..count]);
        match &mut hear {
            Some(hear) => hear(&buffer[..count]),
            None => lines.push(&buffer[..count], say),
        }
    }
    lines.finish(say);
}

/// Splits a stream into lines of bounded length.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    skipping: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut say: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            if !self.skipping {
                let room = LINE.saturating_sub(self.line.len());
                self.line.extend_from_slice(&text[..text.len().min(room)]);
                self.skipping = text.len() > room;
            }
            if ends {
                self.finish(&mut say);
            }
        }
    }

    fn finish(&mut self, mut say: impl FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.line);
        if !line.trim().is_empty() {
            say(line.trim_end());
        }
        self.line.clear();
        self.skipping = false;
    }
}

/// The text, cut at so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_says_what_it_dropped() {
        let mut tail = Tail::default();
        for number in 0..100_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        assert!(tail.bytes.capacity() <= 8 * (KEPT + SLACK));
        let kept = tail.kept(&Redactor::default());
        assert!(kept.cut && kept.text.len() <= KEPT && kept.text.ends_with("line 99999\n"));
        let mut short = Tail::default();
        short.push("ß".as_bytes());
        assert_eq!(short.kept(&Redactor::default()), Kept { text: "ß".to_owned(), cut: false });
    }

    #[test]
    fn lines_are_bounded_and_survive_any_piece_edge() {
        let mut said = Vec::new();
        let mut lines = Lines::default();
        for piece in ["on", "e\r\n\ntw", "o\n", &"x".repeat(LINE + 10), "tail\nthree"] {
            lines.push(piece.as_bytes(), |line| said.push(line.to_owned()));
        }
        lines.finish(|line| said.push(line.to_owned()));
        assert_eq!(said, ["one", "two", &"x".repeat(LINE), "three"]);
    }

    #[test]
    fn a_command_line_reads_as_one_would_type_it() {
        let argv = ["systemctl", "restart", "it's", ""].map(str::to_owned);
        assert_eq!(Process::new(&argv).line(), r"systemctl restart 'it'\''s' ''");
    }
}
