//! Reads the secrets of a runbook from where it says they are. They are never taken from the command line.

use std::collections::BTreeMap;

use runbook_engine::plan::SecretSource;

/// What could be read, and what could not.
#[derive(Default)]
pub struct Secrets {
    /// The values, by name.
    pub values: BTreeMap<String, String>,
    /// What is missing: the secret's name and what to do about it.
    pub missing: Vec<(String, String)>,
}

/// Reads all of them.
pub fn read(sources: &BTreeMap<String, SecretSource>) -> Secrets {
    let mut secrets = Secrets::default();
    for (name, source) in sources {
        match value(source) {
            Ok(value) => {
                secrets.values.insert(name.clone(), value);
            }
            Err(reason) => secrets.missing.push((name.clone(), reason)),
        }
    }
    secrets
}

fn value(source: &SecretSource) -> Result<String, String> {
    let (text, place) = match source {
        SecretSource::Env(name) => {
            let place = format!("the environment variable {name}");
            let text = std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("{place} is not set"),
                std::env::VarError::NotUnicode(_) => format!("{place} is not text"),
            })?;
            (text, place)
        }
        SecretSource::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("the file {path}: {error}"))?;
            let text =
                text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
            (text.to_owned(), format!("the file {path}"))
        }
    };
    if text.is_empty() { Err(format!("{place} is empty")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_without_their_last_line_break_and_names_all_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            SecretSource::File(path.display().to_string())
        };
        let sources = BTreeMap::from([
            ("a".to_owned(), file("a", "s3cret\n")),
            ("b".to_owned(), file("b", "two\nlines\n")),
            ("c".to_owned(), file("c", "\n")),
            ("d".to_owned(), SecretSource::Env("RUNBOOK_TEST_NOT_SET".to_owned())),
        ]);
        let secrets = read(&sources);
        assert_eq!(secrets.values["a"], "s3cret");
        assert_eq!(secrets.values["b"], "two\nlines");
        let names: Vec<&str> = secrets.missing.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c", "d"]);
    }
}
