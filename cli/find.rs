//! Finds the runbook that a person names.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use runbook_engine::document;

use crate::exit::{Failure, Outcome};

/// A runbook's text with the place it was found.
pub struct Source {
    /// The file, from the root.
    pub path: PathBuf,
    /// The file, as people know it.
    pub name: String,
    /// Its text, as far as it can be read.
    pub text: String,
    /// The byte from which on it is no UTF-8.
    pub broken: Option<usize>,
}

/// The longest text that is read, in bytes: what is longer is refused anyhow.
const MAX_BYTES: u64 = document::MAX_BYTES as u64 + 1;

impl Source {
    /// What stdin gives.
    pub fn stdin() -> Outcome<Self> {
        let bytes =
            bounded(std::io::stdin().lock()).map_err(|error| Failure::usage(format!("stdin: {error}")))?;
        Ok(Self::new(PathBuf::from("<stdin>"), "<stdin>".to_owned(), bytes))
    }

    fn new(path: PathBuf, name: String, bytes: Vec<u8>) -> Self {
        let whole = bytes.len() < usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
        match String::from_utf8(bytes) {
            Ok(text) => Self { path, name, text, broken: None },
            Err(error) => {
                let broken = Some(error.utf8_error().valid_up_to()).filter(|_| whole);
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Self { path, name, text, broken }
            }
        }
    }
}

fn bounded(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file, or the runbook of this name in `runbooks/` here or in a folder above.
pub fn runbook(named: &str) -> Outcome<Source> {
    let here =
        std::env::current_dir().map_err(|error| Failure::usage(format!("the current folder: {error}")))?;
    let path = locate(named, &here).ok_or_else(|| not_found(named, &here))?;
    let name = path.strip_prefix(&here).unwrap_or(&path).display().to_string();
    let bytes = fs::File::open(&path)
        .and_then(bounded)
        .map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    Ok(Source::new(path, name, bytes))
}

fn locate(named: &str, here: &Path) -> Option<PathBuf> {
    let path = here.join(named);
    // A pipe such as `<(…)` is fine too.
    if path.exists() && !path.is_dir() {
        return Some(path);
    }
    if named.contains('/') {
        return None;
    }
    let names = [named.to_owned(), format!("{named}.yaml"), format!("{named}.yml")];
    here.ancestors()
        .flat_map(|folder| names.iter().map(move |name| folder.join("runbooks").join(name)))
        .find(|path| path.is_file())
}

fn not_found(named: &str, here: &Path) -> Failure {
    if here.join(named).is_dir() {
        return Failure::usage(format!("`{named}` is a folder")).help("name the files in it: FOLDER/*.yaml");
    }
    if named.contains('/') {
        return Failure::usage(format!("there is no file `{named}`"));
    }
    let failure = Failure::usage(format!("there is no runbook `{named}`"));
    let known = known(here);
    if known.is_empty() {
        return failure.help("there is no `runbooks/` here or in a folder above; give the path of a file");
    }
    failure.help(format!("known here: {}", known.join(", ")))
}

fn known(here: &Path) -> Vec<String> {
    let folders = here.ancestors().filter_map(|folder| fs::read_dir(folder.join("runbooks")).ok());
    let mut names: Vec<String> = folders
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).map(str::to_owned)
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_runbooks_here_and_above() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(root.path().join("runbooks")).unwrap();
        let file = root.path().join("runbooks/reset.yaml");
        fs::write(&file, "runbook: reset").unwrap();
        assert_eq!(locate("reset", &deep), Some(file.clone()));
        assert_eq!(locate("reset.yaml", &deep), Some(file.clone()));
        assert_eq!(
            locate("../../runbooks/reset.yaml", &deep).and_then(|path| path.canonicalize().ok()),
            file.canonicalize().ok()
        );
        assert_eq!(locate("./reset", &deep), None);
        assert!(not_found("rest", &deep).help.join("").contains("reset"));
    }
}
