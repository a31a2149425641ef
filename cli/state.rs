//! Where runs are kept, and which run a person means.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use runbook_engine::artifact::{Artifact, Artifacts};
use runbook_engine::redact::Redactor;
use runbook_engine::state::RunStatus;
use runbook_engine::store::{self, RunRow, Store};

use crate::app::State;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::session;

/// The file in a run's folder that the process which works on the run has locked.
const OWNER: &str = "owner.lock";

/// How many characters a part of a run's id has at least: fewer fit by chance.
const PART: usize = 4;

/// How many runs are looked through.
const RECENT: usize = 10_000;

/// Where runs are kept: a database, and a folder beside it for what is large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    database: PathBuf,
    folder: PathBuf,
}

impl Location {
    /// The place that `--state` names, or the default one.
    pub fn of(url: Option<&str>) -> Outcome<Self> {
        let database = match url {
            None => default_folder()?.join("state.db"),
            Some(url) => {
                let path = url.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
                let path = path.filter(|path| !path.is_empty()).ok_or_else(|| {
                    Failure::usage(format!("`{url}` is not a state URL")).help("write `sqlite:PATH`")
                })?;
                std::path::absolute(path)
                    .map_err(|error| Failure::usage(format!("the state path `{path}`: {error}")))?
            }
        };
        let database = really(database);
        let folder = database.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { database, folder })
    }

    /// Whether anything was ever kept here.
    pub fn exists(&self) -> bool {
        self.database.exists() || self.folder.join("runs").exists()
    }

    /// The database.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Opens the store, which is made when it is not there.
    pub async fn open(&self) -> Outcome<Arc<dyn Store>> {
        private_folder(&self.folder).map_err(|error| {
            Failure::new(Exit::Store, format!("the state folder {}: {error}", self.folder.display()))
        })?;
        Ok(store::open(&format!("sqlite:{}", self.database.display())).await?)
    }

    /// Opens the store only to read it, also where nothing can be written; nothing is made. Says on stderr what to keep in mind.
    pub async fn open_to_read(&self) -> Outcome<Arc<dyn Store>> {
        let (store, caveat) = store::open_to_read(&self.database).await?;
        if let Some(caveat) = caveat {
            format::warn(&caveat);
        }
        Ok(store)
    }

    /// The folder of large outputs, for reading.
    pub fn artifacts(&self) -> Artifacts {
        self.artifacts_without(&Redactor::default())
    }

    fn artifacts_without(&self, redactor: &Redactor) -> Artifacts {
        Artifacts::new(self.folder.join("artifacts"), redactor.clone())
    }

    /// The folder of large outputs, for whoever holds the run; what is written passes `redactor`. What a process of the run was writing
    /// when it was killed is taken away.
    pub fn artifacts_of(&self, run: &str, redactor: &Redactor) -> io::Result<Artifacts> {
        let unfinished = self.run_folder(run)?.join("unfinished");
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(self.artifacts_without(redactor).written_in(unfinished))
    }

    /// The folder beside the database.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of what is read for plans, made for its owner alone.
    pub fn planning(&self) -> io::Result<PathBuf> {
        let folder = self.planning_folder();
        private_folder(&folder)?;
        Ok(folder)
    }

    /// Where the folder of what is read for plans is, when there is one.
    pub fn planning_folder(&self) -> PathBuf {
        self.folder.join("planning")
    }

    /// The folder of one run, made for its owner alone.
    pub fn run_folder(&self, run: &str) -> io::Result<PathBuf> {
        let folder = self.folder.join("runs").join(run);
        private_folder(&folder)?;
        Ok(folder)
    }

    /// A report under the name people know it by, in its run's folder; under its content where it can not be put there.
    pub fn report(&self, run: &str, artifact: &Artifact) -> Option<PathBuf> {
        let kept = self.artifacts().path(artifact).ok().filter(|path| path.is_file())?;
        let Ok(folder) = self.run_folder(run) else { return Some(kept) };
        let named = folder.join(&artifact.name);
        // A run that was resumed has a later report than the one that may be there.
        let fresh = named.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let put = fs::hard_link(&kept, &fresh).or_else(|_| fs::copy(&kept, &fresh).map(drop));
        Some(if put.and_then(|()| fs::rename(&fresh, &named)).is_ok() { named } else { kept })
    }

    /// The log of one run.
    pub fn log(&self, run: &str) -> PathBuf {
        self.folder.join("runs").join(run).join("log.jsonl")
    }

    /// Marks this process as the one that works on the run, until it ends in any way. None while another process of this machine
    /// does.
    pub fn hold(&self, run: &str) -> io::Result<Option<Held>> {
        let path = self.run_folder(run)?.join(OWNER);
        let mut open = fs::OpenOptions::new();
        open.append(true).mode(0o600);
        let (file, made) = match open.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (open.create(true).open(&path)?, true),
            other => (other?, false),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Held { file, made })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the run's mark away; only for whoever has just made it.
    pub fn unmark(&self, run: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join("runs").join(run).join(OWNER))
    }

    /// Whether a process of this machine works on the run. Looking takes a share of the mark for a moment: those who look are not in
    /// each other's way, and `hold` waits for them.
    pub fn mark(&self, run: &str) -> io::Result<Mark> {
        match fs::File::open(self.folder.join("runs").join(run).join(OWNER)) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(Mark::Free),
                Err(fs::TryLockError::WouldBlock) => Ok(Mark::Held),
                Err(fs::TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Mark::Missing),
            Err(error) => Err(error),
        }
    }
}

/// A run's mark in the hands of this process.
#[derive(Debug)]
pub struct Held {
    /// The mark, which is let go with it.
    pub file: fs::File,
    /// Whether there was none before, so that nothing can be told of whoever had the run.
    pub made: bool,
}

/// What a run's mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A process of this machine has it.
    Held,
    /// Nobody has it: whoever had it has ended.
    Free,
    /// There is none: nobody of this machine ever worked on the run, or the mark was taken away.
    Missing,
}

/// How many links of a file are followed.
const LINKS: usize = 40;

/// The database without links on the way: who comes by another name finds the same folder beside it, with the marks of the same runs.
fn really(mut database: PathBuf) -> PathBuf {
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&database) else { break };
        database = database.parent().unwrap_or(Path::new("/")).join(target);
    }
    let folder = database.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, database.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => database,
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn default_folder() -> Outcome<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("runbook"))
        .ok_or_else(|| {
            Failure::usage("there is no home folder to keep runs in").help("set --state sqlite:PATH")
        })
}

/// Which run is meant when a text fits several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The only unfinished one: something is to be done with it.
    Unfinished,
    /// The newest one: it is only looked at.
    Newest,
}

/// The run that a person means by its id, or by at least 4 characters of its beginning or end.
pub async fn run_named(state: &State, text: &str, prefer: Prefer) -> Outcome<RunRow> {
    let store = &*state.store;
    if let Some(row) = store.run(text).await? {
        return Ok(row);
    }
    let rows = store.runs(RECENT).await?;
    let fits = |row: &&RunRow| row.id.starts_with(text) || row.id.ends_with(text);
    let mut found: Vec<&RunRow> = rows.iter().filter(fits).collect();
    if text.is_empty() {
        return Err(listing(state, "the id of the run is empty".to_owned(), &found).await);
    }
    if text.chars().count() < PART && !found.is_empty() {
        let message = format!("`{text}` is too short to name a run: write {PART} characters of its id");
        return Err(listing(state, message, &found).await);
    }
    match prefer {
        Prefer::Newest => found.truncate(1),
        Prefer::Unfinished if found.iter().any(|row| !row.status.is_final()) => {
            found.retain(|row| !row.status.is_final());
        }
        Prefer::Unfinished => {}
    }
    match found.as_slice() {
        [one] => whole(store, &one.id).await,
        [] => Err(Failure::usage(format!("there is no run `{text}`")).help("`runbook runs` lists the runs")),
        several => Err(listing(state, format!("`{text}` fits {} runs", several.len()), several).await),
    }
}

/// The run that a person means without naming one: the only one that has not ended for good.
pub async fn only_unfinished(state: &State) -> Outcome<RunRow> {
    let store = &*state.store;
    let rows = store.runs(RECENT).await?;
    let open: Vec<&RunRow> = rows.iter().filter(|row| !row.status.is_final()).collect();
    match open.as_slice() {
        [one] => whole(store, &one.id).await,
        [] => Err(Failure::usage("there is no unfinished run").help("`runbook runs` lists the runs")),
        several => {
            Err(listing(state, format!("there are {} unfinished runs: name one", several.len()), several)
                .await)
        }
    }
}

/// The newest run.
pub async fn newest(store: &dyn Store) -> Outcome<RunRow> {
    match store.runs(1).await?.first() {
        Some(row) => whole(store, &row.id).await,
        None => Err(Failure::usage("there is no run yet").help("`runbook exec FILE` makes one")),
    }
}

async fn whole(store: &dyn Store, id: &str) -> Outcome<RunRow> {
    store.run(id).await?.ok_or_else(|| Failure::usage(format!("there is no run `{id}`")))
}

async fn listing(state: &State, message: String, rows: &[&RunRow]) -> Failure {
    let now = Timestamp::now();
    let mut failure = Failure::usage(message);
    for row in rows.iter().take(12) {
        let owned = session::live_owner(state, row).is_some();
        failure =
            failure.help(format!("{}  {}  {}", row.id, stands(row, owned), format::ago(row.created_at, now)));
    }
    failure
}

/// Where a run stands, in a word or two, given whether a process works on it ([`session::live_owner`]); a run that says `running`
/// without one is interrupted.
pub fn stands(row: &RunRow, owned: bool) -> &'static str {
    match row.status {
        RunStatus::Running if !owned => "interrupted",
        status => status.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_behind_links_has_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("a")).unwrap();
        std::os::unix::fs::symlink("a", folder.join("b")).unwrap();
        std::os::unix::fs::symlink("b/state.db", folder.join("c.db")).unwrap();
        for name in ["a/state.db", "b/state.db", "c.db"] {
            let location = Location::of(Some(&format!("sqlite:{}/{name}", folder.display()))).unwrap();
            assert_eq!(location.database, folder.join("a/state.db"), "{name}");
        }
    }

    #[test]
    fn a_state_url_names_a_file_and_the_folder_around_it() {
        let location = Location::of(Some("sqlite:/var/lib/runs/state.db")).unwrap();
        assert_eq!(location.folder, Path::new("/var/lib/runs"));
        assert_eq!(location, Location::of(Some("sqlite:///var/lib/runs/state.db")).unwrap());
        assert_eq!(location.log("a-1"), Path::new("/var/lib/runs/runs/a-1/log.jsonl"));
        for bad in ["/var/lib/runs", "mysql:x", "sqlite:", ""] {
            assert_eq!(Location::of(Some(bad)).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
