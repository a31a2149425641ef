//! Freezing by a variable in an env file and a restart of what reads it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration as StdDuration;

use async_trait::async_trait;
use runbook_engine::crash;
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, StepError};
use rustix::fs::{Mode, OFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::attributes;
use super::env_line::{self, Line, LineError};
use super::way::{Side, Way};
use crate::kind::Context;
use crate::process::{Ended, IfOrphaned, Process};
use crate::text::Text;

/// The largest env file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// How long to wait for another process that is changing a file of the same folder.
const LOCK_WAIT: StdDuration = StdDuration::from_secs(10);

/// A variable in an env file, and how to make the system read it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvFile {
    /// The file. It must exist and have one name only: symbolic links are followed, and one with several hard links is refused. Its owner, mode,
    /// access lists and extended attributes stay.
    path: PathBuf,
    /// The variable. It may be absent from the file (it is taken out again afterwards), but must not be there twice.
    variable: String,
    /// The value that freezes. It is written without quotes, or in those that the variable's line has already.
    value: Text,
    /// What makes the system read the file, after the freeze and after the release. Default: nothing, for systems that watch it.
    #[serde(default)]
    restart: Option<Restart>,
}

/// A command that makes the system read its environment again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// The program and its arguments. It ends when the restart is done; exit code 0 is success.
    #[schemars(length(min = 1))]
    argv: Vec<Text>,
    /// How long it may take. Default: 5m.
    #[serde(default = "restart_timeout")]
    timeout: Duration,
}

fn restart_timeout() -> Duration {
    Duration::from_secs(300)
}

/// What is recorded of the file: where it really is, and the variable's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    path: PathBuf,
    present: Line,
}

pub(super) struct EnvFileWay {
    config: EnvFile,
    path: PathBuf,
}

impl EnvFile {
    /// The way, on the file that was recorded, or else on the one that the path leads to now.
    pub(super) fn way(&self, original: Option<&Value>) -> Result<EnvFileWay, StepError> {
        let path = match original {
            Some(original) => recorded(original)?.path,
            None => fs::canonicalize(&self.path).map_err(|error| {
                let message = format!("{} can not be found", self.path.display());
                StepError::refused(message).with_source(&error)
            })?,
        };
        Ok(EnvFileWay { config: self.clone(), path })
    }
}

#[async_trait]
impl Way for EnvFileWay {
    fn target(&self) -> String {
        format!("env_file:{}#{}", self.path.display(), self.config.variable)
    }

    fn label(&self) -> String {
        format!("{} in {}", self.config.variable, self.path.display())
    }

    fn replacement(&self) -> Value {
        Value::from(self.config.value.as_str())
    }

    async fn read(&self, _: &Context) -> Result<Value, StepError> {
        let content = self.content()?;
        let present =
            env_line::read(&content, &self.config.variable).map_err(|error| self.refused(&error))?;
        let recorded = Recorded { path: self.path.clone(), present };
        serde_json::to_value(recorded).map_err(|error| StepError::new(ErrorKind::Bug, error.to_string()))
    }

    fn text(&self, present: &Value) -> String {
        match recorded(present).ok().and_then(|recorded| recorded.present.line) {
            Some(line) => env_line::value(&line).to_owned(),
            None => "(not set)".to_owned(),
        }
    }

    fn frozen(&self, present: &Value) -> bool {
        let line = recorded(present).ok().and_then(|recorded| recorded.present.line);
        line.is_some_and(|line| env_line::value(&line) == self.config.value.as_str())
    }

    fn side(&self, present: &Value, original: &Value) -> Side {
        let (Ok(present), Ok(original)) = (recorded(present), recorded(original)) else {
            return Side::Foreign;
        };
        let EnvFile { variable, value, .. } = &self.config;
        env_line::side(&present.present, &original.present, variable, value.as_str())
    }

    async fn possible(&self, _: &Context, original: &Value) -> Result<(), StepError> {
        let EnvFile { variable, value, .. } = &self.config;
        let path = self.path.display();
        let links = fs::metadata(&self.path).map_or(1, |about| about.nlink());
        if links > 1 {
            let message = format!(
                "{path} has {links} names (hard links): its content is replaced at once, which only this name would get"
            );
            let help = "nothing was changed; make it a file of its own (cp FILE NEW && mv NEW FILE), or name one that is";
            return Err(StepError::gate(message).with_help(help));
        }
        if let Some(restart) = &self.config.restart {
            let program = restart.argv.first().map_or("", |program| program.as_str());
            if !can_start(program) {
                let message =
                    format!("the restart command `{program}` can not be started, so nothing was changed");
                return Err(
                    StepError::refused(message).with_help("name a program that is there and may be run")
                );
            }
        }
        let line = recorded(original)?.present.line;
        env_line::frozen_line(line.as_deref(), variable, value.as_str())
            .map(drop)
            .map_err(|error| self.refused(&error))
    }

    async fn apply(&self, _: &Context, original: &Value) -> Result<(), StepError> {
        self.rewrite(original, Side::Original, |content, _| self.changed(content)).await
    }

    async fn put_back(&self, _: &Context, original: &Value) -> Result<(), StepError> {
        let restored = |content: &[u8], original: &Line| {
            env_line::restore(content, &self.config.variable, original).map_err(|error| self.refused(&error))
        };
        self.rewrite(original, Side::Ours, restored).await
    }

    async fn restart(&self, cx: &Context) -> Result<(), StepError> {
        let Some(restart) = &self.config.restart else { return Ok(()) };
        let argv: Vec<String> = restart.argv.iter().map(|word| word.0.clone()).collect();
        let process = Process {
            timeout: Some(restart.timeout.0),
            if_orphaned: IfOrphaned::Await,
            ..Process::new(&argv)
        };
        let help = format!(
            "{} is as it should be, but the system may not have read it: run `{}` by hand, or let the run try again",
            self.label(),
            process.line()
        );
        // A restart that was begun is finished: half a restart is worse than a late stop.
        let finished = process
            .run(&cx.engine, &CancellationToken::new())
            .await
            .map_err(|error| error.with_help(help.clone()))?;
        let how = match finished.ended {
            Ended::Exited if finished.code() == Some(0) => return Ok(()),
            Ended::TimedOut => format!("did not end within {}", restart.timeout),
            Ended::Exited | Ended::Stopped => finished.how(),
        };
        let mut error = StepError::transient(format!("the restart command `{}` {how}", process.program()));
        error.causes.extend(finished.last_line());
        Err(error.with_help(help))
    }

    fn advice(&self) -> Option<String> {
        let value: f64 = self.config.value.as_str().parse().ok()?;
        (value <= 0.0).then(|| {
            format!(
                "{}={} is probably taken as not set, so that the default applies (the ChatKit gateway does that with 0 and \
                 below): use a tiny value above 0, such as 0.0000001",
                self.config.variable, self.config.value
            )
        })
    }
}

impl EnvFileWay {
    fn refused(&self, error: &LineError) -> StepError {
        StepError::refused(format!("{}: {error}", self.path.display()))
    }

    fn changed(&self, content: &[u8]) -> Result<Vec<u8>, StepError> {
        let EnvFile { variable, value, .. } = &self.config;
        env_line::set(content, variable, value.as_str()).map_err(|error| self.refused(&error))
    }

    fn content(&self) -> Result<Vec<u8>, StepError> {
        let path = self.path.display();
        let failed =
            |error: io::Error| StepError::refused(format!("{path} can not be read")).with_source(&error);
        // The file that was recorded is the one that is read and written, and not one that a link leads to since.
        if fs::canonicalize(&self.path).map_err(failed)? != self.path {
            return Err(StepError::gate(format!("{path} leads to another file by a symbolic link now"))
                .with_help("nothing was changed; put the file back where it was"));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let file = File::from(file);
        let mut content = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > LARGEST {
            return Err(StepError::refused(format!("{path} is larger than an env file of 1 MiB")));
        }
        Ok(content)
    }

    /// Writes what `make` makes of the file, if `from` is still whose value is there.
    async fn rewrite(
        &self,
        original: &Value,
        from: Side,
        make: impl Fn(&[u8], &Line) -> Result<Vec<u8>, StepError> + Send,
    ) -> Result<(), StepError> {
        let original = recorded(original)?.present;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let lock = locked(folder).await?;
        // No await from here on: a step that is dropped must not leave a write behind that happens after a release.
        let content = self.content()?;
        let EnvFile { variable, value, .. } = &self.config;
        let present = env_line::read(&content, variable).map_err(|error| self.refused(&error))?;
        if env_line::side(&present, &original, variable, value.as_str()) != from {
            let message = format!("{} was changed by somebody else just now", self.label());
            // Nothing was written: a freeze has nothing to put back then, and a release looks once more.
            return Err(if from == Side::Original {
                StepError::gate(message)
            } else {
                StepError::transient(message)
            });
        }
        let written = write_atomically(&self.path, &make(&content, &original)?).map_err(|error| {
            StepError::refused(format!("{} can not be written", self.path.display())).with_source(&error)
        });
        drop(lock);
        written
    }
}

fn recorded(value: &Value) -> Result<Recorded, StepError> {
    Recorded::deserialize(value).map_err(|error| {
        StepError::new(ErrorKind::Bug, "the record of the original value can not be read").with_source(&error)
    })
}

/// Keeps other processes like this one from changing files of the folder; released when dropped.
async fn locked(folder: &Path) -> Result<File, StepError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        StepError::transient(format!("{} can not be locked", folder.display())).with_source(error)
    };
    let file = File::open(folder).map_err(|error| failed(&error))?;
    let begun = std::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => {
                tokio::time::sleep(StdDuration::from_millis(20)).await;
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// Replaces the file's content at once and durably; mode, owner, access lists and other extended attributes stay.
fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.runbook"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let result = (|| {
        let before = fs::symlink_metadata(path)?;
        if !before.is_file() {
            return Err(io::Error::other("it is no file any more"));
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(before.permissions())?;
        attributes::copy(path, &file)?;
        file.write_all(content)?;
        file.sync_all()?;
        crash::point("env file: written");
        fs::rename(&temporary, path).inspect(|()| crash::point("env file: in its place"))
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result?;
    File::open(folder)?.sync_all()
}

/// Whether there is such a program, at its path or in `PATH`, that may be run.
fn can_start(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return runs(program.as_ref());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    !program.is_empty() && std::env::split_paths(&folders).any(|folder| runs(&folder.join(program)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn way(path: &Path) -> EnvFileWay {
        let config = serde_json::json!({"path": path, "variable": "MAX_MB", "value": "0.1"});
        serde_json::from_value::<EnvFile>(config).unwrap().way(None).unwrap()
    }

    #[test]
    fn the_mode_and_the_link_stay_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.env"), folder.path().join("link.env"));
        fs::write(&real, "A=1\nMAX_MB=25\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &link).unwrap();
        fs::write(folder.path().join(".real.env.runbook"), "left by a crash").unwrap();
        let way = way(&link);
        assert!(way.target().ends_with("/real.env#MAX_MB"), "{}", way.target());
        write_atomically(&way.path, &way.changed(&way.content().unwrap()).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "A=1\nMAX_MB=0.1\n");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_became_a_link_is_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("here")).unwrap();
        fs::create_dir_all(at("there")).unwrap();
        for name in ["here/x.env", "there/x.env"] {
            fs::write(at(name), "MAX_MB=25\n").unwrap();
        }
        let way = way(&at("here/x.env"));
        // The file itself, and then a folder above it.
        fs::remove_file(at("here/x.env")).unwrap();
        symlink("../there/x.env", at("here/x.env")).unwrap();
        assert_eq!(way.content().unwrap_err().kind, ErrorKind::Gate);
        assert!(write_atomically(&way.path, b"A=1\n").is_err());
        fs::remove_dir_all(at("here")).unwrap();
        symlink("there", at("here")).unwrap();
        assert_eq!(way.content().unwrap_err().kind, ErrorKind::Gate);
        assert_eq!(fs::read_to_string(at("there/x.env")).unwrap(), "MAX_MB=25\n");
    }

    #[test]
    fn a_file_that_is_not_there_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.env");
        let config = serde_json::json!({"path": path, "variable": "MAX_MB", "value": 1});
        let config: EnvFile = serde_json::from_value(config).unwrap();
        assert_eq!(config.way(None).err().unwrap().kind, ErrorKind::Refused);
        fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(way(&path).content().unwrap_err().kind, ErrorKind::Refused);
    }
}
