//! Files that hold what somebody has looked at.

use std::path::PathBuf;

use runbook_engine::error::StepError;

/// Fails unless each file holds what it must: its SHA-256 as it was found, and as it is expected, in the order of the files.
pub(crate) fn same_files(files: &[PathBuf], found: &[String], expected: &[String]) -> Result<(), StepError> {
    if expected.len() != files.len() {
        let (files, given) = (files.len(), expected.len());
        return Err(StepError::invalid(format!("there are {files} files, and `sha256` has {given} of them")));
    }
    let other = |((file, found), expected): ((&PathBuf, &String), &String)| {
        (!found.eq_ignore_ascii_case(expected))
            .then(|| format!("{} holds {found}, and was to hold {expected}", file.display()))
    };
    let others: Vec<String> = files.iter().zip(found).zip(expected).filter_map(other).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(StepError::gate(format!("what was looked at is not what is there now: {}", others.join("; ")))
        .with_help("bring the file back as it was, then resume; or begin anew, with what it holds now"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_another_one_is_named() {
        let files = [PathBuf::from("/a"), PathBuf::from("/b")];
        let [one, two] = ["aa", "bb"].map(str::to_owned);
        let same = |found: &[String], expected: &[String]| same_files(&files, found, expected);
        assert!(same(&[one.clone(), two.clone()], &["AA".to_owned(), two.clone()]).is_ok());
        let error = same(&[one.clone(), two.clone()], &[one.clone(), one.clone()]).unwrap_err();
        assert!(
            error.message.contains("/b holds bb, and was to hold aa") && !error.message.contains("/a"),
            "{error}"
        );
        assert!(same(&[one.clone(), two], &[one]).is_err());
    }
}
