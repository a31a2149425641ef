//! Facts that a person looks at before an answer.

use runbook_engine::artifact::{Artifact, Artifacts};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::text::of_value;

/// The facts in words, in their order. A file of the run is told by its name and its lines, and by where it is when there is a folder of artifacts.
pub fn in_words(facts: &Map<String, Value>, artifacts: Option<&Artifacts>) -> Vec<(String, String)> {
    let words = |value: &Value| match Artifact::deserialize(value) {
        Ok(artifact) if value.is_object() => of_artifact(&artifact, artifacts),
        _ => of_value(value),
    };
    facts.iter().map(|(label, value)| (label.clone(), words(value))).collect()
}

/// The same facts, with the files of the run among them in words.
pub fn files_in_words(facts: &Map<String, Value>, artifacts: &Artifacts) -> Map<String, Value> {
    let words = |value: &Value| match Artifact::deserialize(value) {
        Ok(artifact) if value.is_object() => of_artifact(&artifact, Some(artifacts)).into(),
        _ => value.clone(),
    };
    facts.iter().map(|(label, value)| (label.clone(), words(value))).collect()
}

fn of_artifact(artifact: &Artifact, artifacts: Option<&Artifacts>) -> String {
    let name = match artifact.lines {
        Some(lines) => format!("{} ({lines} lines)", artifact.name),
        None => artifact.name.clone(),
    };
    match artifacts.and_then(|artifacts| artifacts.path(artifact).ok()) {
        Some(path) => format!("{name} at {}", path.display()),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use runbook_engine::redact::Redactor;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_of_the_run_is_told_with_where_it_is() {
        let sha256 = "ab".repeat(32);
        let findings = json!({ "sha256": sha256, "name": "findings.jsonl", "bytes": 9, "lines": 2 });
        let facts = json!({ "Count": 2, "All of them": findings, "Other": { "name": "x" } });
        let facts = facts.as_object().unwrap();
        let of =
            |artifacts| in_words(facts, artifacts).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(of(None), ["2", "findings.jsonl (2 lines)", r#"{"name":"x"}"#]);
        let artifacts = Artifacts::new("/state/artifacts", Redactor::default());
        let at = format!("findings.jsonl (2 lines) at /state/artifacts/ab/{sha256}");
        assert_eq!(of(Some(&artifacts))[1], at);
        let files = files_in_words(facts, &artifacts);
        assert_eq!(
            (&files["Count"], &files["All of them"], &files["Other"]),
            (&json!(2), &json!(at), &facts["Other"])
        );
    }
}
