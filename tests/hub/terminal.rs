//! The phrases, typed at a terminal.

use std::process::Stdio;
use std::time::Duration;

use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{ControlCode, Eof, Expect, Session};

use crate::bench::{Bench, PHRASES};

fn open(bench: &Bench) -> OsSession {
    let command = bench.command(&["exec", "reset-production", "-i", "environment=staging"]);
    let mut command = command.into_std();
    command.env("NO_COLOR", "1").stdin(Stdio::inherit());
    let mut session = Session::spawn(command).unwrap();
    session.set_expect_timeout(Some(Duration::from_secs(60)));
    session
}

/// Types a phrase once it is asked for.
fn answer(session: &mut OsSession, phrase: &str) {
    session.expect(phrase).unwrap();
    session.expect("Ctrl-C stops it").unwrap();
    session.send_line(phrase).unwrap();
}

fn end(mut session: OsSession) -> i32 {
    session.expect(Eof).unwrap();
    match session.get_process().wait().unwrap() {
        WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_phrases_typed_at_a_terminal_reset_the_hub_and_fewer_do_nothing() {
    let bench = Bench::start().await;
    // Three wrong ones, or the end of the input, after so many right ones.
    for right in 0..PHRASES.len() {
        for ends in [false, true] {
            let mut session = open(&bench);
            for phrase in &PHRASES[..right] {
                answer(&mut session, phrase);
            }
            session.expect("Ctrl-C stops it").unwrap();
            if ends {
                session.send(ControlCode::EndOfTransmission).unwrap();
            } else {
                for said in ["2 more tries", "1 more try", "Nothing happens"] {
                    session.send_line("RESET PRODUCTION").unwrap();
                    session.expect(said).unwrap();
                }
            }
            let code = tokio::task::block_in_place(|| end(session));
            assert_eq!(code, if ends { 5 } else { 4 }, "after {right} right ones");
            bench.assert_untouched().await;
            let (run, _) = bench.newest().await.unwrap();
            bench.expect(6, &["cancel", &run]).await;
        }
    }
    let mut session = open(&bench);
    session.expect("EVERY").unwrap();
    for phrase in PHRASES {
        answer(&mut session, phrase);
    }
    assert_eq!(tokio::task::block_in_place(|| end(session)), 0);
    bench.assert_reset().await;
}
