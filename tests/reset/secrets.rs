//! No secret is written down, in any form.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use runbook_sandbox::Options;

use crate::bench::{Bench, PHRASE, files};

/// What a secret looks like where it may turn up.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let encoded: String = secret.bytes().map(percent).collect();
    let mut forms = vec![secret.to_owned(), encoded.to_lowercase(), encoded];
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        forms.push(engine.encode(secret));
        // The same inside a longer text, at each alignment: the part that does not depend on its neighbours.
        for shift in 1..3 {
            let padded = [&b"xxx"[..shift], secret.as_bytes()].concat();
            let text = engine.encode(padded);
            let inner = &text[4..text.len().saturating_sub(6)];
            forms.push(inner.to_owned());
        }
    }
    forms.retain(|form| form.len() >= 8);
    forms.into_iter().map(String::into_bytes).collect()
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn neither_the_state_nor_the_output_holds_a_secret_in_any_form() {
    let bench = Bench::start(&Options { attachments: 20, restore: 4, ..Options::default() }).await;
    let mut said = bench.expect(5, &["exec", "reset-chatkit", "--json"]).await;
    let (id, _) = bench.newest().await.unwrap();
    // A fault on the way makes errors speak of requests.
    let fault = serde_json::from_value(serde_json::json!({
        "method": "GET", "path_prefix": "/chatkit/attachments", "times": 1, "action": { "status": 500 }
    }));
    bench.kit.fault(runbook_sandbox::Server::Gateway, &fault.unwrap()).await.unwrap();
    said += &bench.expect(0, &["answer", &id, PHRASE]).await;
    said += &bench.expect(0, &["show", &id]).await;
    said += &bench.expect(0, &["logs", &id]).await;

    // The gateway writes its own access log with the session secrets in it: that is where a test can learn them.
    let access = std::fs::read_to_string(bench.kit.dir().join("gateway.err")).unwrap();
    let mut secrets = vec![bench.kit.api_key().to_owned(), bench.kit.notify_secret().to_owned()];
    let sessions: Vec<String> = access
        .split("client_secret=")
        .skip(1)
        .map(|rest| {
            let raw: String = rest.chars().take_while(|c| !matches!(c, '"' | '&' | ' ' | '\\')).collect();
            decode(&raw)
        })
        .collect();
    assert!(!sessions.is_empty(), "the downloads are in the access log:\n{access}");
    secrets.extend(sessions);
    let mut places: Vec<(String, Vec<u8>)> = vec![("the output".to_owned(), said.into_bytes())];
    for path in files(bench.state.path()) {
        places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    assert!(places.len() > 5, "the state directory has files");
    for secret in &secrets {
        for form in forms(secret) {
            for (place, bytes) in &places {
                assert!(!holds(bytes, &form), "{place} holds {}", String::from_utf8_lossy(&form));
            }
        }
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}
