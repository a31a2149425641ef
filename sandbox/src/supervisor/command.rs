//! The command that runs beside the servers: its environment, its signals, its exit code.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    io::IsTerminal,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{io::AsyncReadExt, process::Command};

use super::{Environment, Signals};

/// Runs the command to its end. SIGTERM is passed on to it; SIGINT too, unless it came from the terminal,
/// which sends it to the command itself.
pub(super) async fn run(
    program: &OsStr,
    arguments: &[OsString],
    environment: &Environment,
    signals: &mut Signals,
) -> u8 {
    let mut child = match Command::new(program).args(arguments).envs(environment).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("sandbox: cannot run {}: {error}", program.to_string_lossy());
            let missing = error.kind() == io::ErrorKind::NotFound;
            return if missing { 127 } else { 126 };
        }
    };
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let pass_on = |signal| {
        if let Some(pid) = pid {
            // It may have ended just now; then there is nobody left to tell.
            let _ = kill_process(pid, signal);
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => return match status {
                Ok(status) => exit_code(status),
                Err(error) => {
                    eprintln!("sandbox: cannot wait for the command: {error}");
                    1
                }
            },
            _ = signals.terminate.recv() => pass_on(Signal::TERM),
            _ = signals.interrupt.recv() => if !in_foreground() {
                pass_on(Signal::INT);
            }
        }
    }
}

/// Waits for SIGTERM, SIGINT, or the end of standard input.
pub(super) async fn until_released(signals: &mut Signals) {
    let mut input = tokio::io::stdin();
    let input_ends = async {
        let mut buffer = [0; 256];
        while input.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
        () = input_ends => {}
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Whether this process belongs to the foreground group of a terminal, which gets the terminal's Ctrl-C.
fn in_foreground() -> bool {
    // After the name in parentheses: state, parent, group, session, terminal, foreground group.
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return io::stdin().is_terminal() };
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    matches!(fields.as_slice(), [_, _, group, _, _, foreground, ..] if group == foreground)
}
