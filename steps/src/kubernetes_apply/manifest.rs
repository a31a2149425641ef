//! What manifests hold, read and looked through before anything is sent.

use std::path::{Path, PathBuf};

use kube::core::GroupVersionKind;
use runbook_engine::error::StepError;
use serde::Deserialize as _;
use serde_json::Value;

use crate::digest::sha256;
use crate::manifest::blocking;

/// The largest manifest, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// An object of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) kind: GroupVersionKind,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) object: Value,
}

/// The objects of all files, in order, and the digest of each file.
pub(super) async fn read(paths: &[PathBuf]) -> Result<(Vec<Wanted>, Vec<String>), StepError> {
    let paths = paths.to_vec();
    blocking(move || {
        let (mut objects, mut digests) = (Vec::new(), Vec::new());
        for path in &paths {
            let text = load(path)?;
            digests.push(sha256(text.as_bytes()));
            objects.extend(
                objects_of(&text).map_err(|why| StepError::invalid(format!("{}: {why}", path.display())))?,
            );
        }
        Ok((objects, digests))
    })
    .await
}

fn load(path: &Path) -> Result<String, StepError> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(StepError::invalid(format!("{shown} is not an absolute path")));
    }
    let failed =
        |error: std::io::Error| StepError::refused(format!("reading {shown} failed")).with_source(&error);
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > LARGEST {
        return Err(StepError::refused(format!("{shown} has {bytes} bytes; {LARGEST} are the most")));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The objects of a text; why it holds none or wrong ones.
fn objects_of(text: &str) -> Result<Vec<Wanted>, String> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| error.to_string())?;
        match value {
            Value::Null => {}
            Value::Object(mut map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
                let Some(Value::Array(items)) = map.remove("items") else {
                    return Err("a List has no `items`".to_owned());
                };
                for item in items {
                    objects.push(wanted(item)?);
                }
            }
            value => objects.push(wanted(value)?),
        }
    }
    if objects.is_empty() { Err("it holds no object".to_owned()) } else { Ok(objects) }
}

fn wanted(object: Value) -> Result<Wanted, String> {
    let text = |pointer: &str| {
        let text = object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| format!("an object has no `{}`", pointer[1..].replace('/', ".")))
    };
    let (version, kind, name) = (text("/apiVersion")?, text("/kind")?, text("/metadata/name")?);
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    Ok(Wanted {
        kind: GroupVersionKind::gvk(group, version, &kind),
        namespace: text("/metadata/namespace").ok(),
        name,
        object,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_a_file_is_read_and_what_is_none_is_refused() {
        let text = "---\napiVersion: v1\nkind: Namespace\nmetadata: { name: a }\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n  \
                    - { apiVersion: apps/v1, kind: Deployment, metadata: { name: b, namespace: a } }\n";
        let all = objects_of(text).unwrap();
        let words: Vec<String> = all
            .iter()
            .map(|one| {
                format!(
                    "{}/{}/{} {:?} {}",
                    one.kind.group, one.kind.version, one.kind.kind, one.namespace, one.name
                )
            })
            .collect();
        assert_eq!(words, ["/v1/Namespace None a", "apps/v1/Deployment Some(\"a\") b"]);
        for (text, why) in [
            ("", "holds no object"),
            ("a: 1", "no `apiVersion`"),
            ("{ apiVersion: v1, kind: Pod, metadata: { generateName: x- } }", "no `metadata.name`"),
            ("a: [", ""),
            ("text", "no `apiVersion`"),
        ] {
            let said = objects_of(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
