//! A runbook that lets its secrets out in every way it can: none of them is in what is stored or said, in any form.

use std::io::{Read, Write};
use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::place::Place;

const PASSWORD: &str = "p@ss/word 100%&more-\"of it\"";

/// A key of several lines.
fn pem() -> String {
    let lines: Vec<String> = (1..9_u8).map(|line| STANDARD.encode([line.wrapping_mul(37); 48])).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", lines.join("\n"))
}

fn percent(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn quoted(text: &str) -> String {
    let text = json!(text).to_string();
    text[1..text.len() - 1].to_owned()
}

/// What a secret looks like in the texts that other programs make of it; and of the encoded ones, the part that depends on the secret
/// alone.
fn forms(secret: &str) -> Vec<(String, String)> {
    let same = |text: String| (text.clone(), text);
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        same(secret.to_owned()),
        same(percent(secret)),
        same(percent(secret).to_lowercase()),
        same(percent(&percent(secret))),
        same(quoted(secret)),
        same(quoted(&quoted(secret))),
        same(quoted(&quoted(secret)).replace('/', "\\/")),
        same(hex),
        same(STANDARD.encode(secret)),
        same(URL_SAFE_NO_PAD.encode(secret)),
    ];
    for before in ["x", "xx", "user:", "Bearer "] {
        let whole = STANDARD.encode(format!("{before}{secret}{before}"));
        let (start, end) = ((before.len() * 8).div_ceil(6), (before.len() + secret.len()) * 8 / 6);
        forms.push((whole.clone(), whole[start..end].to_owned()));
    }
    forms
}

/// Each line of a wrapped encoding that depends on the secret alone.
fn wrapped(secret: &str) -> (String, Vec<String>) {
    let encoded = STANDARD.encode(format!("key: {secret}\n"));
    let lines: Vec<String> =
        encoded.as_bytes().chunks(76).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
    let inner = lines[1..lines.len().saturating_sub(1).max(1)].to_vec();
    (lines.join("\n"), inner)
}

/// A server that answers every request with a failure that quotes it.
fn parrot() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
            let bytes = stream.read(&mut request).unwrap_or(0);
            let said = String::from_utf8_lossy(&request[..bytes]).replace('\r', "");
            let body = json!({ "code": "no", "error": said }).to_string();
            let head = format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    url
}

/// The runbook: each of its steps is another way out.
fn runbook(place: &Place, parrot: &str) -> String {
    let command = |id: &str, script: &str, parse: &str| {
        let env = "env: { PASSWORD: \"${{ secrets.password }}\", PEM: \"${{ secrets.pem }}\" }";
        format!(
            "  - id: {id}\n    uses: command\n    on_failure: continue\n    with:\n      argv: [sh, -c, '{script}']\n      {env}\n      effect: {{ class: read, repeat: repeatable }}\n      parse: {parse}\n"
        )
    };
    let after = "    on_failure: continue\n";
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    [
        "secrets:\n  password: { env: LEAK_PASSWORD }\n  pem: { file: key.pem }\n",
        "connections:\n",
        &format!("  parrot: {{ type: http, url: \"http://{parrot}\", headers: {{ Authorization: \"Basic ${{{{ secrets.password }}}}\", X-Key: \"${{{{ secrets.password }}}}\" }} }}\n"),
        &format!("  here: {{ type: directory, path: \"{}\" }}\n", place.path("files").display()),
        "collections:\n  files: { type: files, connection: here, pattern: \"*.txt\" }\n",
        "steps:\n",
        &command("says", "cat forms.txt; printf %s \"$PASSWORD\"", "none"),
        &command("returns", "cat forms.txt", "lines"),
        &command("counts", "printf \"{\\\"a\\\":\"; cat quoted.txt; printf \"}\"", "json"),
        &command("drips", "while read -r line; do for part in 1 2; do printf %s \"$line\" | cut -c$((part * 9 - 8))-$((part * 9)) | tr -d \"\\n\"; sleep 0.02; done; done < short.txt; echo", "none"),
        &command("fails", "cat forms.txt >&2; echo \"$PEM\" >&2; exit 3", "none"),
        &command("wraps", "echo \"$PEM\" | base64; echo \"user:$PEM\" | base64; echo \"$PASSWORD\" | base64 -w 20", "lines"),
        &format!("  - id: quoted\n    uses: http\n{after}    with: {{ connection: parrot, path: /x }}\n"),
        &format!("  - id: refused\n    uses: notify\n{after}    with: {{ url: \"http://127.0.0.1:{dead}/?token=${{{{ secrets.password }}}}\", message: hello, max_attempts: 1 }}\n"),
        &format!("  - id: parroted\n    uses: notify\n{after}    with: {{ url: \"http://{parrot}/?token=${{{{ secrets.password }}}}\", message: hello, max_attempts: 1 }}\n"),
        &format!("  - id: copies\n    uses: snapshot\n{after}    with: {{ collection: files }}\n"),
        &format!("  - id: claims\n    uses: assert\n{after}    with: {{ that: false, message: \"it said ${{{{ steps.returns.outputs.stdout }}}}\" }}\n"),
        "finally:\n  - { id: report, uses: report }\n",
    ]
    .concat()
}

#[test]
fn no_secret_gets_out_in_any_form() {
    let (place, parrot, pem) = (Place::new(), parrot(), pem());
    std::fs::create_dir(place.path("files")).unwrap();
    let mut said = Vec::new();
    let mut searched = Vec::new();
    for secret in [PASSWORD, &pem] {
        for (text, part) in forms(secret) {
            said.push(text);
            searched.push(part);
        }
        let (text, lines) = wrapped(secret);
        said.push(text);
        searched.extend(lines);
    }
    searched.extend(pem.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    searched.extend(pem.lines().map(|line| STANDARD.encode(line)).filter(|line| line.len() > 60));
    let all = said.join("\n\n") + "\n";
    place.write("forms.txt", &all);
    place.write("quoted.txt", &json!(all).to_string());
    place.write("short.txt", &format!("{}\n", PASSWORD.replace('\\', "")));
    place.write("files/one.txt", &all);
    place.write("key.pem", &format!("{pem}\n"));
    place.runbook("leaks", &runbook(&place, &parrot));
    let run = |args: &[&str]| {
        let output =
            place.command(args).env("LEAK_PASSWORD", PASSWORD).env("RUNBOOK_LOG", "debug").output().unwrap();
        (output.status.code(), [output.stdout, output.stderr].concat())
    };
    let (code, mut out) = run(&["exec", "leaks.yaml", "--json"]);
    assert!(matches!(code, Some(0 | 4)), "{code:?} {}", String::from_utf8_lossy(&out));
    let ended = place.json(&["show"]);
    let ways =
        ended["steps"].as_array().unwrap().iter().filter(|step| step["started_at"].is_string()).count();
    assert_eq!(ways, 12, "each way was gone: {ended}");
    for args in [["show"].as_slice(), &["logs"], &["show", "--json"], &["logs", "--json"], &["runs"]] {
        out.extend(run(args).1);
    }
    let mut places = vec![("what was said".to_owned(), out)];
    for path in place.state_files() {
        places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    assert!(places.iter().any(|(_, bytes)| bytes.windows(10).any(|part| part == b"[REDACTED]")));
    for form in &searched {
        for (place, bytes) in &places {
            let at = bytes.windows(form.len()).position(|part| part == form.as_bytes());
            let around = at.map(|at| {
                String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 100).min(bytes.len())])
            });
            assert!(around.is_none(), "{place} holds {form:?} in {around:?}");
        }
    }
}

/// Every byte below a folder.
fn everything(folder: &std::path::Path, into: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything(&path, into);
        } else if path.extension().is_none_or(|extension| extension != "yaml") {
            into.extend(std::fs::read(path).unwrap());
        }
    }
}

#[test]
fn what_a_program_prints_is_kept_nowhere_when_it_is_hidden() {
    for (setting, kept) in [("output: hidden", false), ("output: kept", true)] {
        let place = Place::new();
        let script = "printf 'pass%s\\n' word-$((41+1)); printf 'pass%s\\n' word-$((42+1)) >&2; exit $0";
        let step = |id: &str, code: u8, more: &str| {
            format!(
                "  - id: {id}\n    uses: command\n    on_failure: continue\n    with:\n      argv: [sh, -c, \"{script}\", {code}]\n      {more}\n"
            )
        };
        let text = format!(
            "runbook: quiet\nsteps:\n{}{}finally:\n  - {{ id: report, uses: report }}\n",
            step("made", 0, setting),
            step("failed", 3, setting)
        );
        place.write("quiet.yaml", &text);
        let ran = place.run(&["exec", "quiet.yaml", "--json"]);
        let logs = place.run(&["logs"]);
        let mut said = (ran.out + &ran.err + &logs.out).into_bytes();
        everything(&place.path(""), &mut said);
        for secret in ["password-42", "password-43"] {
            let found = said.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert_eq!(found, kept, "{setting}: {secret}");
        }
        assert!(said.windows(4).any(|window| window == b"made"), "what ran is there all the same");
    }
}
