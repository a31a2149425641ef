//! A person at a terminal, who types phrases when they are asked for.

use std::process::Stdio;
use std::time::Duration;

use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{Captures, ControlCode, Eof, Expect, Session};
use tokio::process::Command;

/// What stands below every question.
const ASKED: &str = "Ctrl-C stops it";

/// So many that no line is broken, rows aside.
const COLUMNS: u16 = 9000;

/// How often it is looked whether something is asked, and how long between two looks.
const LOOKS: u32 = 9000;
const PAUSE: Duration = Duration::from_millis(20);

/// Types the phrases, each when a question is asked, and leaves at the next one. The exit code, or less than nothing for the signal that
/// killed it, and all that was said.
pub async fn at_terminal(command: Command, phrases: &[&str]) -> (i32, String) {
    at_terminal_of(command, phrases, COLUMNS).await
}

/// The same at a terminal with so many columns.
pub async fn at_terminal_of(command: Command, phrases: &[&str], columns: u16) -> (i32, String) {
    let phrases: Vec<String> = phrases.iter().map(|&phrase| phrase.to_owned()).collect();
    tokio::task::spawn_blocking(move || typed(command.into_std(), &phrases, columns)).await.unwrap()
}

fn typed(mut command: std::process::Command, phrases: &[String], columns: u16) -> (i32, String) {
    command.env("NO_COLOR", "1").stdin(Stdio::inherit());
    let mut session = Session::spawn(command).unwrap();
    session.get_process_mut().set_window_size(columns, 50).unwrap();
    session.set_expect_timeout(Some(PAUSE * LOOKS));
    let (mut said, mut phrases) = (String::new(), phrases.iter());
    while asked(&mut session, &mut said) {
        // It may be killed before it has read what is typed.
        let _ = match phrases.next() {
            Some(phrase) => session.send_line(phrase),
            None => session.send(ControlCode::EndOfTransmission),
        };
    }
    note(&session.expect(Eof).unwrap(), &mut said);
    let code = match session.get_process().wait().unwrap() {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => -(signal as i32),
        other => panic!("{other:?}"),
    };
    (code, said)
}

/// Waits for a question; false when it ends without one.
fn asked(session: &mut OsSession, said: &mut String) -> bool {
    for _ in 0..LOOKS {
        match session.is_matched(ASKED) {
            Ok(true) => {
                note(&session.expect(ASKED).unwrap(), said);
                return true;
            }
            Ok(false) => std::thread::sleep(PAUSE),
            Err(_) => return false,
        }
    }
    panic!("it neither asks nor ends:\n{said}");
}

fn note(found: &Captures, said: &mut String) {
    said.push_str(&String::from_utf8_lossy(found.as_bytes()));
}
