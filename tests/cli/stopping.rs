//! Time-outs and cancelling reach what runs: programs with their children, requests without an answer, batches in flight.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, UNTIL_GO, once, reads, wait_until};

/// Whether the process whose id is in the file runs.
fn lives(place: &Place, file: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", place.text(file).trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A shell that ignores TERM and has a child that does too.
const STUBBORN: &str =
    "trap \"\" TERM; sleep 30 & echo $! > child; echo $$ > shell; while :; do sleep 0.2; done";

/// A shell that ends when it is told to, with a child in the background.
const DOCILE: &str = "sleep 30 & echo $! > child; trap \"echo told > told; exit 1\" TERM; echo $$ > shell; while :; do sleep 0.1; done";

/// The same with a child that ignores TERM and outlives the shell.
const OUTLIVED: &str = "(trap \"\" TERM; exec sleep 30) & echo $! > child; trap \"echo told > told; exit 1\" TERM; echo $$ > shell; while :; do sleep 0.1; done";

#[test]
fn a_time_out_ends_a_program_with_its_children() {
    for (script, told) in [(STUBBORN, ""), (DOCILE, "told\n"), (OUTLIVED, "told\n")] {
        let place = Place::new();
        let step = reads("act", script) + "      grace: 1s\n    timeout: 1s\n";
        place.runbook("stop", &format!("steps:\n{step}"));
        let begun = Instant::now();
        let ran = place.expect(4, &["exec", "stop.yaml"]);
        assert!(ran.err.contains("it took longer than its timeout, 1s"), "{}", ran.err);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(!lives(&place, "shell") && !lives(&place, "child"), "{told}");
        assert_eq!(place.text("told"), told);
    }
}

#[test]
fn a_cancel_from_another_terminal_ends_a_program_with_its_children() {
    for script in [STUBBORN, DOCILE, OUTLIVED] {
        let place = Place::new();
        let step = once("act", script) + "      grace: 1s\n";
        place.runbook("stop", &format!("steps:\n{step}{}", reads("after", "touch after")));
        let started = place.start(&["exec", "stop.yaml"]);
        wait_until("it runs", || !place.text("shell").is_empty());
        let begun = Instant::now();
        let ran = place.expect(6, &["cancel"]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(started.end().code, 6, "{}", ran.err);
        assert!(!lives(&place, "shell") && !lives(&place, "child"));
        assert!(!place.path("after").exists());
    }
}

/// A server that takes requests and never answers: its URL, and each connection once a request came in.
fn silent() -> (String, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 1024]).is_ok_and(|bytes| bytes > 0) && sender.send(stream).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

/// Whether the other side has hung up.
fn hung_up(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn asks_the_silent(place: &Place, url: &str, method: &str, more: &str) {
    let step = format!(
        "  - id: call\n    uses: http\n    with: {{ connection: api, path: /x, method: {method} }}\n{more}"
    );
    let connection = format!("connections:\n  api: {{ type: http, url: \"{url}\", timeout: 60s }}\n");
    place.runbook("stop", &format!("{connection}steps:\n{step}{}", reads("after", "touch after")));
}

#[test]
fn a_request_without_an_answer_is_dropped_at_the_time_out_of_its_step() {
    // What may be repeated has failed; of what may not, a person is asked.
    for (method, code) in [("GET", 4), ("POST", 5)] {
        let (url, requests) = silent();
        let place = Place::new();
        asks_the_silent(&place, &url, method, "    timeout: 1s\n");
        let begun = Instant::now();
        let ran = place.expect(code, &["exec", "stop.yaml"]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{method} {:?}", begun.elapsed());
        assert!(ran.err.contains("it took longer than its timeout, 1s"), "{}", ran.err);
        assert!(hung_up(requests.recv_timeout(Duration::from_secs(1)).unwrap()));
        assert!(requests.try_recv().is_err() && !place.path("after").exists(), "it is sent once");
    }
}

#[test]
fn a_request_without_an_answer_is_dropped_when_the_run_is_cancelled() {
    let (url, requests) = silent();
    let place = Place::new();
    asks_the_silent(&place, &url, "GET", "");
    let started = place.start(&["exec", "stop.yaml"]);
    let stream = requests.recv_timeout(Duration::from_secs(20)).unwrap();
    let begun = Instant::now();
    place.expect(6, &["cancel"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(started.end().code, 6);
    assert!(hung_up(stream) && !place.path("after").exists());
}

#[test]
fn a_batch_in_flight_is_recorded_when_the_run_is_cancelled() {
    let place = Place::new();
    std::fs::create_dir(place.path("logs")).unwrap();
    const FILES: usize = 1500;
    (0..FILES).for_each(|number| place.write(&format!("logs/{number:04}.log"), "old"));
    place.runbook("stop", &place.clean_up("limits: { max_items: 2000 }\n", 5, ""));
    place.expect(5, &["exec", "stop.yaml"]);
    let run = place.newest();
    let started = place.start(&["answer", &run, "DELETE"]);
    wait_until("some are deleted", || !place.path("logs/0020.log").exists());
    place.expect(6, &["cancel", &run]);
    assert_eq!(started.end().code, 6);
    let left = std::fs::read_dir(place.path("logs")).unwrap().count();
    assert!(left > 0, "it was over before the cancel");
    let open = place.query("select intent from batches where step = 'purge' and outcome is null");
    assert!(open.is_empty(), "{open:?}");
    let done: Vec<String> = place.query("select '' || sum(done) from batches where step = 'purge'");
    assert_eq!(done, [(FILES - left).to_string()], "all that was deleted is recorded, and nothing else");
}

#[test]
fn a_signal_that_was_to_be_ignored_from_the_start_stops_nothing() {
    for (name, signal, code) in [("HUP", Signal::HUP, 0), ("INT", Signal::INT, 0), ("USR1", Signal::HUP, 129)]
    {
        let place = Place::new();
        place.runbook("nap", &format!("steps:\n{}", reads("nap", UNTIL_GO)));
        let program = place.command(&["exec", "nap.yaml"]);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("trap \"\" {name}; exec \"$0\" exec nap.yaml")])
            .arg(program.get_program());
        shell
            .current_dir(place.path(""))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = shell.spawn().unwrap();
        place.wait_for("nap", "running");
        kill_process(Pid::from_child(&child), signal).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        place.write("go", "");
        assert_eq!(child.wait().unwrap().code(), Some(code), "{name}");
    }
}
