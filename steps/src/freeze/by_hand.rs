//! What a person can type to do by hand what a release left to them.

use runbook_engine::event::Obligation;
use serde_json::Value;

use super::{http, original_text};
use crate::process::quoted;

/// A command for a person, as it is typed in a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// The line.
    pub line: String,
    /// Whether it puts the original value back; otherwise it is for after that.
    pub puts_back: bool,
}

/// The command that ends the release of a freeze with these settings: the restart of an env file's system, the release command, the release
/// request to the server of this connection, or what scales a workload of its cluster. None when there is none.
pub fn by_hand(with: &Value, connection: &Value, obligation: &Obligation) -> Option<ByHand> {
    if let Some(argv) = with.pointer("/env_file/restart/argv") {
        return Some(ByHand { line: line(argv)?, puts_back: false });
    }
    if let Some(http) = with.get("http") {
        return Some(ByHand { line: http::by_hand(http, connection, obligation)?, puts_back: true });
    }
    let original = original_text(obligation);
    if let Some(scale) = with.get("kubernetes") {
        return Some(ByHand { line: kubectl(scale, connection, &original)?, puts_back: true });
    }
    let release = line(with.pointer("/command/release")?)?;
    let value = obligation.replacement.as_str().unwrap_or_default();
    // What can not be copied from a terminal as it is would put back something else.
    if original.chars().any(|c| c.is_control() && c != '\n') {
        return None;
    }
    let line = format!("RUNBOOK_VALUE={} RUNBOOK_ORIGINAL={} {release}", quoted(value), quoted(&original));
    Some(ByHand { line, puts_back: true })
}

fn kubectl(scale: &Value, connection: &Value, replicas: &str) -> Option<String> {
    let of = |name: &str| scale.get(name).and_then(Value::as_str);
    let flags = [
        ("kubeconfig", "--kubeconfig"),
        ("context", "--context"),
        ("server", "--server"),
        ("ca_file", "--certificate-authority"),
    ];
    let mut words = vec!["kubectl".to_owned()];
    for (name, flag) in flags {
        if let Some(value) = connection.get(name).and_then(Value::as_str) {
            words.extend([flag.to_owned(), quoted(value)]);
        }
    }
    words.extend(["-n".to_owned(), quoted(of("namespace")?), "scale".to_owned()]);
    words.push(quoted(&format!("{}/{}", of("kind")?.to_lowercase(), of("name")?)));
    words.push(quoted(&format!("--replicas={replicas}")));
    Some(words.join(" "))
}

fn line(argv: &Value) -> Option<String> {
    let words = argv.as_array()?.iter().map(|word| match word {
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    });
    Some(words.collect::<Vec<_>>().join(" ")).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use runbook_engine::duration::Duration;
    use serde_json::json;

    use super::*;

    fn obligation() -> Obligation {
        Obligation {
            step: "freeze".to_owned(),
            target: "command:limit".to_owned(),
            label: "limit".to_owned(),
            original: json!({ "text": "it's 25", "state": "it's 25" }),
            replacement: json!("0"),
            max_hold: Duration::from_secs(60),
        }
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let told = |with: Value, connection: Value| by_hand(&with, &connection, &obligation());
        let line = |line: &str, puts_back| Some(ByHand { line: line.to_owned(), puts_back });
        let env_file = json!({ "env_file": { "restart": { "argv": ["systemctl", "restart", "a b"] } } });
        assert_eq!(told(env_file, json!({})), line("systemctl restart 'a b'", false));
        let command = json!({ "command": { "release": ["./limit", "put"] } });
        assert_eq!(
            told(command, json!({})),
            line(r"RUNBOOK_VALUE=0 RUNBOOK_ORIGINAL='it'\''s 25' ./limit put", true)
        );
        assert_eq!(told(json!({ "env_file": { "path": "/a" } }), json!({})), None);
        assert_eq!(told(json!({ "http": {} }), json!({})), None);
    }

    #[test]
    fn the_release_request_is_told_with_what_its_author_left_to_be_filled_in() {
        let with = json!({ "http": {
            "release": { "path": "/limits/a b", "json": { "mb": "$ORIGINAL", "note": "it's back" } },
        } });
        let headers = json!({ "authorization": "Bearer ${{ secrets.TOKEN }}" });
        let connection = json!({ "type": "http", "url": "https://api.example/v1/", "headers": headers });
        let words = [
            "curl --fail-with-body --globoff -X PUT -H 'authorization: Bearer ${{ secrets.TOKEN }}'",
            "-H 'content-type: application/json' --data-raw",
            r#"'{"mb":"it'\''s 25","note":"it'\''s back"}' https://api.example/v1/limits/a%20b"#,
        ];
        assert_eq!(by_hand(&with, &connection, &obligation()).unwrap().line, words.join(" "));
        for other in [
            json!({ "type": "http", "url": "${{ secrets.URL }}" }),
            json!({ "type": "http", "url": "https://api.example", "session": {} }),
            json!({ "type": "github", "url": "https://api.example" }),
        ] {
            assert_eq!(by_hand(&with, &other, &obligation()), None, "{other}");
        }
        let unknown = json!({ "http": { "release": { "path": "/${{ steps.look.outputs.id }}" } } });
        assert_eq!(by_hand(&unknown, &connection, &obligation()), None);
    }

    #[test]
    fn a_workload_is_scaled_in_its_own_cluster() {
        let with = json!({ "kubernetes": { "connection": "c", "kind": "StatefulSet", "namespace": "chat", "name": "db" } });
        let original = json!({ "text": "3", "state": { "uid": "u", "replicas": 3 } });
        let obligation = Obligation { original, ..obligation() };
        for (connection, flags) in [
            (json!({ "context": "a b" }), "--context 'a b'"),
            (json!({ "kubeconfig": "/k", "context": "prod" }), "--kubeconfig /k --context prod"),
            (
                json!({ "server": "https://k:6443", "token": "t", "ca_file": "/ca" }),
                "--server https://k:6443 --certificate-authority /ca",
            ),
        ] {
            let told = by_hand(&with, &connection, &obligation).unwrap();
            assert_eq!(told.line, format!("kubectl {flags} -n chat scale statefulset/db --replicas=3"));
            assert!(told.puts_back);
        }
    }
}
