//! Step kind `archive`: copies of files under names that are never used twice.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agreed::same_files;
use crate::connections::directory::Directory;
use crate::digest::sha256_file;
use crate::had;
use crate::kind::{Context, End, Step, would};
use crate::manifest::blocking;

/// Copies files that will be written again, such as reports called `…-latest.md`, under names with a label and the time:
/// `rollout-latest.md` becomes `rollout-staging-20260225T080910Z.md`. A name that is taken is never written over: then the step fails, and says
/// what it copied before.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The files, absolute.
    #[schemars(length(min = 1))]
    pub files: Vec<PathBuf>,
    /// What the files must hold, the SHA-256 of each in their order, such as a step that looked at them put out: what was looked at is what is kept. Default:
    /// whatever they hold.
    #[serde(default)]
    pub sha256: Option<Vec<String>>,
    /// The folder that the copies go to, absolute; it is made when it is not there. Default: beside each file.
    #[serde(default)]
    pub into: Option<PathBuf>,
    /// What stands in the names before the time, such as `staging`.
    #[serde(default)]
    #[schemars(extend("pattern" = "^[A-Za-z0-9._-]+$", "patternErrorMessage" = "a label of letters, digits, `.`, `_` and `-`"))]
    pub label: Option<String>,
    /// The end of the files' names that is left out of the copies' names. Default: `-latest`.
    #[serde(default = "latest")]
    pub drop: String,
}

fn latest() -> String {
    "-latest".to_owned()
}

/// What was archived.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Archived {
    /// The time in the names, `YYYYMMDDThhmmssZ`.
    pub archived_at: String,
    /// The copies, in the order of the files.
    pub copies: Vec<Copied>,
}

/// A copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Copied {
    /// The file.
    pub from: PathBuf,
    /// Its copy.
    pub to: PathBuf,
    /// The SHA-256 of both, 64 hex digits.
    pub sha256: String,
    /// Their size in bytes.
    pub bytes: u64,
}

#[async_trait]
impl Step for Archive {
    const NAME: &'static str = "archive";
    const SUMMARY: &'static str = "Copy files under names with the time, and never over what is there";
    const EXAMPLE: &'static str = "\
- id: keep_reports
  uses: archive
  with:
    files: [/srv/app/docs/research/hot-path-rollout-latest.md]
    label: staging
";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/archived_at"];
    type Outputs = Archived;

    fn effect(_: &Value) -> Effect {
        Effect { class: Class::Write, repeat: Repeat::Repeatable }
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let names: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let into = self.into.as_ref().map_or_else(String::new, |into| format!(" into {}", into.display()));
        let missing: Vec<String> =
            self.files.iter().filter(|file| !file.is_file()).map(|file| file.display().to_string()).collect();
        let gone = if missing.is_empty() {
            String::new()
        } else {
            format!("; not there now: {}", missing.join(", "))
        };
        Ok(would(format!("copy {}{into} under names with the time{gone}", names.join(", "))))
    }

    async fn run(self, cx: &Context) -> Result<End<Archived>, StepError> {
        let step = self;
        // The same names in every attempt; what was reopened is archived anew.
        let name = format!("time {}", had::series(cx).await?);
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let time = cx.ledger.remember(&name, Value::from(now)).await?;
        let time = time
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| StepError::new(ErrorKind::Bug, "the time of the archive is unreadable"))?;
        let plan = step.files.iter().map(|file| step.target(file, &time)).collect::<Result<Vec<_>, _>>()?;
        if let Some(expected) = step.sha256.clone() {
            let files = step.files.clone();
            blocking(move || {
                let found = files.iter().map(|file| sha256_file(file).map_err(|error| unread(file, &error)));
                let found: Vec<String> =
                    found.map(|one| one.map(|(sha256, _)| sha256)).collect::<Result<_, _>>()?;
                same_files(&files, &found, &expected)
            })
            .await?;
        }
        let mut copies = Vec::with_capacity(plan.len());
        for (from, to) in plan {
            cx.checkpoint()?;
            let shown = to.clone();
            let copied = blocking(move || copy(&from, &to)).await.map_err(|error| told(error, &copies))?;
            cx.live.say(&format!("{} is kept as {}", copied.from.display(), shown.display()));
            copies.push(copied);
        }
        if let Some(expected) = &step.sha256 {
            let kept: Vec<String> = copies.iter().map(|copy| copy.sha256.clone()).collect();
            same_files(&step.files, &kept, expected).map_err(|error| told(error, &copies))?;
        }
        Ok(End::Done(Archived { archived_at: time, copies }))
    }
}

/// The error with what was done before it.
fn told(mut error: StepError, copies: &[Copied]) -> StepError {
    if !copies.is_empty() {
        let names: Vec<String> = copies.iter().map(|copy| copy.to.display().to_string()).collect();
        error.message = format!("{}; copied before: {}", error.message, names.join(", "));
    }
    error
}

impl Archive {
    /// A file with its copy's path.
    fn target(&self, file: &Path, time: &str) -> Result<(PathBuf, PathBuf), StepError> {
        if !file.is_absolute() {
            return Err(StepError::invalid(format!("{} is not an absolute path", file.display())));
        }
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let stem = part(file.file_stem())
            .ok_or_else(|| StepError::invalid(format!("{} is no name of a file", file.display())))?;
        let stem = stem.strip_suffix(&self.drop).unwrap_or(&stem);
        let label = self.label.as_ref().map_or_else(String::new, |label| format!("-{label}"));
        let end = part(file.extension()).map_or_else(String::new, |end| format!(".{end}"));
        let folder = self.into.as_deref().or_else(|| file.parent()).unwrap_or(Path::new("/"));
        Ok((file.to_owned(), folder.join(format!("{stem}{label}-{time}{end}"))))
    }
}

fn unread(file: &Path, error: &std::io::Error) -> StepError {
    StepError::refused(format!("{} can not be read", file.display())).with_source(error)
}

fn copy(from: &Path, to: &Path) -> Result<Copied, StepError> {
    let (folder, name) = match (to.parent(), to.file_name()) {
        (Some(folder), Some(name)) => (folder, name.to_string_lossy().into_owned()),
        _ => return Err(StepError::invalid(format!("{} is no name of a file", to.display()))),
    };
    let directory = Directory::new(&folder.to_string_lossy())?;
    let original = sha256_file(from).map_err(|error| unread(from, &error))?;
    let kept = match directory.copy_new(&name, from)? {
        Some(copied) => copied,
        // By an attempt before this one, if it is the same.
        None => directory.digest(&name)?.unwrap_or_default(),
    };
    if kept != original {
        return Err(StepError::gate(format!(
            "{} is there already and is not {}: nothing was written over",
            to.display(),
            from.display()
        ))
        .with_help("resume the run to archive under a later time"));
    }
    let (sha256, bytes) = kept;
    Ok(Copied { from: from.to_owned(), to: to.to_owned(), sha256, bytes })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use runbook_engine::error::ErrorKind;

    use super::*;

    #[test]
    fn names_have_the_label_and_the_time() {
        let archive = |label: Option<&str>, into: Option<&str>| Archive {
            files: Vec::new(),
            sha256: None,
            into: into.map(PathBuf::from),
            label: label.map(str::to_owned),
            drop: latest(),
        };
        for (label, into, file, to) in [
            (Some("staging"), None, "/r/rollout-latest.md", "/r/rollout-staging-T.md"),
            (None, None, "/r/rollout-latest.md", "/r/rollout-T.md"),
            (Some("prod"), Some("/kept"), "/r/rollout.tar.gz", "/kept/rollout.tar-prod-T.gz"),
            (None, None, "/r/notes", "/r/notes-T"),
        ] {
            assert_eq!(archive(label, into).target(Path::new(file), "T").unwrap().1, Path::new(to));
        }
        for wrong in ["r/rollout.md", "/", ""] {
            assert!(archive(None, None).target(Path::new(wrong), "T").is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_written_over_and_the_same_again_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.md"), folder.path().join("kept/a-T.md"));
        fs::write(&from, "first").unwrap();
        let copied = copy(&from, &to).unwrap();
        assert_eq!((copied.bytes, fs::read_to_string(&to).unwrap().as_str()), (5, "first"));
        assert_eq!(copy(&from, &to).unwrap(), copied);
        fs::write(&from, "second").unwrap();
        assert_eq!(copy(&from, &to).unwrap_err().kind, ErrorKind::Gate);
        assert_eq!(fs::read_to_string(&to).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path().join("kept")).unwrap().count(), 1);
    }
}
