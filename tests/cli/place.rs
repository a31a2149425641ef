//! A folder with its own state, in which the binary is run.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::{Connection, Row};
use tempfile::TempDir;

pub struct Place {
    folder: TempDir,
}

/// What a command came to.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A runbook `NAME.yaml` of these steps.
    pub fn runbook(&self, name: &str, rest: &str) {
        self.write(&format!("{name}.yaml"), &format!("runbook: {name}\ndescription: A test.\n{rest}"));
    }

    /// The command, with the streams that this process has.
    pub fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runbook"));
        command.args(args).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("USER", "tester").env("LANG", "C.UTF-8");
        command
            .env("TERM", "xterm")
            .env("RUNBOOK_STATE", format!("sqlite:{}", self.path("state/state.db").display()));
        command
    }

    /// The command without a terminal.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        finished(self.command(args).output().unwrap())
    }

    /// Runs it and checks its exit code.
    pub fn expect(&self, code: i32, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "runbook {args:?}\n{}{}", ran.out, ran.err);
        ran
    }

    /// Starts it and goes on.
    pub fn start(&self, args: &[&str]) -> Started {
        Started { child: self.command(args).spawn().unwrap() }
    }

    /// The document that a command prints.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.expect(0, &args).out).unwrap()
    }

    /// The id of the newest run.
    pub fn newest(&self) -> String {
        self.json(&["runs"])[0]["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the newest run's step has this status.
    pub fn wait_for(&self, step: &str, status: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < end, "step {step} never was {status}");
            std::thread::sleep(Duration::from_millis(50));
            if self.json(&["runs"]).as_array().is_some_and(Vec::is_empty) {
                continue;
            }
            let run = self.json(&["show"]);
            let steps = run["steps"].as_array().unwrap();
            if steps.iter().any(|one| one["id"] == step && one["status"] == status) {
                return;
            }
        }
    }

    /// What is in a file; nothing when it is not there.
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The first column of what a statement finds in the database, as text.
    pub fn query(&self, statement: &str) -> Vec<String> {
        let url = format!("sqlite:{}", self.path("state/state.db").display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            let statement = sqlx::AssertSqlSafe(statement.to_owned());
            let rows = sqlx::query(statement).fetch_all(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            rows.iter().map(|row| row.try_get(0).unwrap_or_default()).collect()
        })
    }

    /// What follows the description in a runbook that deletes the files `*.log` of `logs` after a person said DELETE, within `limits`, in
    /// batches; `step` is added to the step that deletes.
    pub fn clean_up(&self, limits: &str, batch_size: u32, step: &str) -> String {
        format!(
            "connections:\n  here: {{ type: directory, path: \"{}\" }}\n\
             collections:\n  logs: {{ type: files, connection: here, pattern: \"*.log\" }}\n{limits}\
             steps:\n  - id: snapshot\n    uses: snapshot\n    with: {{ collection: logs }}\n{}\
             \x20 - id: purge\n    uses: delete-batch\n    with:\n      collections: logs\n      \
             keys: \"${{{{ steps.snapshot.outputs.manifest }}}}\"\n      batch_size: {batch_size}\n{step}",
            self.path("logs").display(),
            asks("sure", "DELETE")
        )
    }

    /// Every file below the state folder.
    pub fn state_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.path("state"), &mut found);
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

pub fn finished(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that goes on; it is killed when the test ends.
pub struct Started {
    child: Child,
}

impl Started {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let end = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Ran { code: status.code().unwrap_or(-1), out, err }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A step that reads: it runs `script` and may be repeated.
pub fn reads(id: &str, script: &str) -> String {
    format!(
        "  - id: {id}\n    uses: command\n    with:\n      argv: [sh, -c, '{script}']\n      effect: {{ class: read, repeat: repeatable }}\n"
    )
}

/// A script that ends when the place has a file `go`, and when the place is gone: a killed run leaves its children.
pub const UNTIL_GO: &str = "while test -e $PWD && ! test -e go; do sleep 0.1; done";

/// A step that nobody may repeat.
pub fn once(id: &str, script: &str) -> String {
    format!(
        "  - id: {id}\n    uses: command\n    with:\n      argv: [sh, -c, '{script}']\n      effect: {{ class: write, repeat: once }}\n"
    )
}

/// A step that asks for a phrase.
pub fn asks(id: &str, phrase: &str) -> String {
    format!("  - id: {id}\n    uses: confirm-prompt\n    with: {{ message: Sure?, phrases: [{phrase}] }}\n")
}

/// Waits until something holds, for a while.
pub fn wait_until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
