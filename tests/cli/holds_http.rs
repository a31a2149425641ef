//! What is held by requests: the line that puts it back by hand, and a connection without its secret.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::place::{Place, Ran, UNTIL_GO, finished, reads};

const TOKEN: &str = "a token of sixteen";

/// A server of one value, for whoever has the token, until the test ends.
struct Server {
    url: String,
    value: Arc<Mutex<String>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let value = Arc::new(Mutex::new("25".to_owned()));
        let kept = Arc::clone(&value);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|read| read > 0) {}
                let of = |name: &str| {
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
                };
                let mut body =
                    vec![0; of("content-length: ").and_then(|text| text.parse().ok()).unwrap_or(0)];
                stream.read_exact(&mut body).unwrap();
                let allowed = of("authorization: ").is_some_and(|text| text == format!("bearer {TOKEN}"));
                if allowed && head.starts_with("PUT /limit ") {
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    *kept.lock().unwrap() = body["max"].to_string();
                }
                let status = if allowed { "200 OK" } else { "401 Unauthorized" };
                let body = format!(r#"{{"max": {}}}"#, kept.lock().unwrap());
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.get_mut().write_all(answer.as_bytes());
            }
        });
        Self { url, value }
    }

    fn value(&self) -> String {
        self.value.lock().unwrap().clone()
    }

    fn set(&self, value: &str) {
        value.clone_into(&mut self.value.lock().unwrap());
    }
}

fn with(place: &Place, args: &[&str], token: Option<&str>) -> Ran {
    let mut command = place.command(args);
    token.map(|token| command.env("TOKEN", token));
    finished(command.output().unwrap())
}

/// A run that was killed while it held the value at 0.
fn killed(server: &Server) -> (Place, String) {
    let place = Place::new();
    let nap = reads("nap", UNTIL_GO);
    place.runbook(
        "hold",
        &format!(
            "secrets: {{ token: {{ env: TOKEN }} }}\nconnections:\n\
             \x20 api: {{ type: http, url: \"{}\", headers: {{ authorization: \"Bearer ${{{{ secrets.token }}}}\" }} }}\nsteps:\n\
             \x20 - id: freeze\n    uses: freeze\n    with:\n      settle: 1s\n      http:\n        connection: api\n        target: the limit\n\
             \x20       read: {{ path: /limit, field: /max }}\n        apply: {{ path: /limit, json: {{ max: $VALUE }} }}\n\
             \x20       release: {{ path: /limit, json: {{ max: $ORIGINAL }} }}\n        value: 0\n{nap}\
             \x20 - {{ id: thaw, uses: unfreeze, with: {{ freeze: freeze }} }}\n",
            server.url
        ),
    );
    let mut child = place.command(&["exec", "hold.yaml"]).env("TOKEN", TOKEN).spawn().unwrap();
    place.wait_for("nap", "running");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(server.value(), "0");
    let run = place.newest();
    (place, run)
}

#[test]
fn without_its_secret_it_is_not_put_back_and_the_secret_is_named() {
    let server = Server::start();
    let (place, run) = killed(&server);
    let ran = with(&place, &["cancel", &run], None);
    assert_eq!((ran.code, server.value().as_str()), (4, "0"), "{}", ran.err);
    let said = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("connection `api` can not be used:") && said.contains("TOKEN"), "{}", ran.err);
    assert!(!said.contains("there is no connection"), "{}", ran.err);
    let ran = with(&place, &["cancel", &run], Some(TOKEN));
    assert_eq!((ran.code, server.value().as_str()), (6, "25"), "{}", ran.err);
}

#[test]
fn the_line_that_is_told_puts_it_back_once_the_secret_is_filled_in() {
    let server = Server::start();
    let (place, run) = killed(&server);
    server.set("77");
    let ran = with(&place, &["cancel", &run], Some(TOKEN));
    assert_eq!((ran.code, server.value().as_str()), (4, "77"), "{}", ran.err);
    assert!(!ran.err.contains(TOKEN), "{}", ran.err);
    let line = ran.err.lines().find_map(|line| line.split_once("this puts it back:  ")).unwrap().1;
    let typed = line.replace("${{ secrets.token }}", TOKEN);
    assert_ne!(typed, line);
    let typed = Command::new("sh").args(["-c", &typed]).output().unwrap();
    assert!(typed.status.success(), "{line}: {typed:?}");
    assert_eq!(server.value(), "25", "{line}");
}
