//! One attempt of `backup`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::step::{Intent, Settlement};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::contents::Contents;
use super::copy::{Copying, is_of_copy};
use super::dump::Listing;
use super::probe::Table;
use super::restorable::Restorable;
use super::tools::{environment, run};
use super::{Backup, Mode, Outputs, probe, program, restore, rows};
use crate::connections::sql::{Begin, Cell, Database, Session};
use crate::digest::{sha256, sha256_file};
use crate::had;
use crate::kind::Context;
use crate::manifest::blocking;
use crate::process::quoted;
use crate::unfinished::{self, Of};

/// How far ahead of ours the clock of whoever made a dump may be.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// One attempt.
pub(super) struct Work<'a> {
    step: &'a Backup,
    cx: &'a Context,
    database: Arc<Database>,
    env: BTreeMap<String, String>,
}

impl<'a> Work<'a> {
    pub(super) fn begin(step: &'a Backup, cx: &'a Context) -> Result<Self, StepError> {
        let database = cx.resources.connection::<Database>(&step.connection)?;
        let env = environment(&database, &step.connection)?;
        if !step.file.is_absolute() {
            return Err(StepError::invalid(format!("{} is not an absolute path", step.file.display())));
        }
        Ok(Self { step, cx, database, env })
    }

    /// The database in words.
    pub(super) fn place(&self) -> String {
        self.database.describe()
    }

    /// Refused when something is where the backup is to be.
    pub(super) async fn is_free(&self) -> Result<(), StepError> {
        let files = [self.step.file.clone(), program::path(&self.step.file)];
        blocking(move || {
            let mut there = Vec::new();
            for file in files {
                match fs::symlink_metadata(&file) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(unwritten(&file, &error)),
                    Ok(_) => there.push(file.display().to_string()),
                }
            }
            if there.is_empty() { Ok(()) } else { Err(taken(&there)) }
        })
        .await
    }

    /// The copy that is asked for.
    fn copying(&self) -> Result<Option<Copying<'_>>, StepError> {
        self.step.copy.as_ref().map(|to| Copying::begin(to, self.cx)).transpose()
    }

    /// What a plan says of the copy; refused when something is where it is to be.
    pub(super) async fn copy_is_free(&self) -> Result<String, StepError> {
        let Some(copying) = self.copying()? else { return Ok(String::new()) };
        copying.is_free().await?;
        Ok(format!(", and copy it to {}", copying.url()))
    }

    /// Makes a backup, and its copy.
    pub(super) async fn take(&self) -> Result<Outputs, StepError> {
        let series = had::series(self.cx).await?;
        let copying = self.copying()?;
        let outputs = self.made(series).await?;
        match copying {
            Some(copying) => copying.make(outputs, series).await,
            None => Ok(outputs),
        }
    }

    async fn made(&self, series: u32) -> Result<Outputs, StepError> {
        let view = self.cx.ledger.view().await?;
        let part = part(self.step, self.cx)?;
        // What an attempt that was killed left: a backup half written, or a second name of a whole one.
        let _ = tokio::fs::remove_file(&part).await;
        if let Some(outputs) = had::outputs::<Outputs>(&view, series) {
            return self.still_there(outputs).await;
        }
        // A copy comes after the file, and the database of a probe is dropped by the next probe.
        let of_file = |what: &Value| !is_of_copy(what) && probe::announced(what).is_none();
        for batch in view.unsettled.into_iter().filter(|batch| of_file(&batch.what)) {
            let announced = Outputs::deserialize(&batch.what).map_err(|error| {
                StepError::new(ErrorKind::Bug, format!("the ledger is unreadable: {error}"))
            })?;
            if self.digest(&self.step.file).await.is_ok_and(|(sha256, _)| sha256 == announced.sha256) {
                program::write(self.cx, &announced).await?;
                let settlement = had::settlement(&announced, series, json!({ "written": true }))?;
                self.cx.ledger.settle(batch.number, Settlement { done: 1, ..settlement }).await?;
                return Ok(announced);
            }
            let outcome = json!({ "repeated": true });
            self.cx.ledger.settle(batch.number, Settlement { outcome, ..Settlement::default() }).await?;
        }
        self.is_free().await?;
        let made = self.make(&part, series).await;
        // Its name says what it is, should it stay.
        let _ = tokio::fs::remove_file(&part).await;
        made
    }

    async fn make(&self, part: &Path, series: u32) -> Result<Outputs, StepError> {
        let (file, path) = (self.step.file.clone(), part.to_owned());
        let made = blocking(move || {
            let empty = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
            empty.map(drop).map_err(|error| unwritten(&file, &error))
        });
        made.await?;
        // What is counted is what is dumped: both see the state of one moment.
        let mut session = self.database.open().await?;
        session.script("begin transaction isolation level repeatable read, read only").await?;
        let beside = self.restorable(&mut *session).await?;
        let snapshot = exported(&mut *session).await?;
        let Contents { rows, digests, definitions, .. } = Contents::now(&mut *session, None).await?;
        let tables = probe::tables(&mut *session).await?;
        let (snapshot, target) = (format!("--snapshot={snapshot}"), format!("--file={}", part.display()));
        let arguments = ["--no-password", "--format=custom", &snapshot, &target];
        run(self.step, self.cx, "pg_dump", &arguments, self.env.clone()).await?;
        session.rollback().await?;
        session.finish().await;
        let contents = self.readable(part).await?;
        complete(&contents, &tables)?;
        let probed = self.probe(part, Some(&rows)).await?.is_some();
        let outputs = Outputs {
            rows,
            digests,
            definitions,
            ..self.known(part, &contents, &tables, probed, &beside).await?
        };
        let intent = Intent { what: json!(outputs), items: 1, charged_items: 0, charged_bytes: 0 };
        self.cx.checkpoint()?;
        let batch = self.cx.ledger.intend(intent).await?.number;
        let (from, to) = (part.to_owned(), self.step.file.clone());
        let placed = blocking(move || place(&from, &to).map_err(|error| unwritten(&to, &error))).await?;
        if !placed {
            let outcome = json!({ "failed": "the name was taken" });
            self.cx.ledger.settle(batch, Settlement { outcome, failed: 0, ..Settlement::default() }).await?;
            return Err(taken(&[self.step.file.display().to_string()]));
        }
        program::write(self.cx, &outputs).await?;
        let settlement = had::settlement(&outputs, series, json!({ "written": true }))?;
        self.cx.ledger.settle(batch, Settlement { done: 1, ..settlement }).await?;
        Ok(outputs)
    }

    /// Holds a backup that is there to what it must be, by reads alone.
    pub(super) async fn check(&self) -> Result<(Listing, Vec<Table>, String), StepError> {
        let file = &self.step.file;
        if !tokio::fs::try_exists(file).await.unwrap_or(false) {
            return Err(StepError::gate(format!("there is no backup {}", file.display()))
                .with_help("make one with a step `backup`, or with `pg_dump --format=custom`"));
        }
        let contents = self.readable(file).await?;
        let age = Timestamp::now().duration_since(contents.dumped_at);
        let most = SignedDuration::try_from(self.step.max_age.0).unwrap_or(SignedDuration::MAX);
        if age > most || age < -AHEAD {
            return Err(StepError::gate(format!(
                "the backup {} is of {}, and {} is the oldest that it may be",
                file.display(),
                contents.dumped_at,
                self.step.max_age
            ))
            .with_help("make a new one, then resume"));
        }
        let mut session = self.database.begin(Begin::ReadOnly).await?;
        let name = one_text(&mut *session, "select current_database()::text").await?;
        let tables = probe::tables(&mut *session).await?;
        let filled = probe::filled(&mut *session, &tables).await?;
        let beside = self.restorable(&mut *session).await?;
        session.rollback().await?;
        session.finish().await;
        if contents.database != name {
            return Err(StepError::gate(format!(
                "the backup {} is of the database {}, and this one is {name}",
                file.display(),
                contents.database
            )));
        }
        complete(&contents, &tables)?;
        if let Some(table) = filled
            && !rows::any(self.step, self.cx, file).await?
        {
            let message = format!(
                "the backup {} holds no row of any table, and the database has some, in `{}`",
                file.display(),
                table.path()
            );
            return Err(StepError::gate(message)
                .with_help("it is of another database of the same name, or of before there was anything: make a new one, then resume"));
        }
        if let Some(copying) = self.copying()? {
            copying.check(&self.digest(file).await?.0).await?;
        }
        Ok((contents, tables, beside))
    }

    /// The database from which this one is restored; with a probe, refused when its user can not do that.
    async fn restorable(&self, session: &mut dyn Session) -> Result<String, StepError> {
        let restorable = Restorable::look(session).await?;
        let beside = restorable.beside.clone();
        if self.step.probe.is_some() {
            restorable.judged(&self.place())?;
        }
        Ok(beside)
    }

    /// The same, restored too where that is asked for.
    pub(super) async fn checked(&self) -> Result<Outputs, StepError> {
        let (contents, tables, beside) = self.check().await?;
        if let Some(step) = &self.step.unchanged_since {
            let then = Contents::found_by(step, self.cx).await?;
            let mut session = self.database.begin(Begin::ReadOnly).await?;
            then.judge(&mut *session, None).await?;
            session.rollback().await?;
            session.finish().await;
        }
        let restored = self.probe(&self.step.file, None).await?;
        let outputs = self.known(&self.step.file, &contents, &tables, restored.is_some(), &beside).await?;
        let copy = self.copying()?.map(|copying| copying.of(&self.step.file));
        Ok(Outputs { rows: restored.unwrap_or_default(), copy, ..outputs })
    }

    /// What the file says is in it, after all of it was read.
    async fn readable(&self, file: &Path) -> Result<Listing, StepError> {
        let path = file.display().to_string();
        let broken = |error: StepError| {
            let kind = if error.kind == ErrorKind::Refused { ErrorKind::Gate } else { error.kind };
            let message = format!("the backup {path} can not be read: {}", error.message);
            StepError { message, kind, ..error }
        };
        let listing = ["--list", &path];
        let list = run(self.step, self.cx, "pg_restore", &listing, BTreeMap::new()).await.map_err(broken)?;
        if list.cut {
            return Err(StepError::refused(format!(
                "the backup {path} lists more than can be looked through"
            )));
        }
        let all = ["--file=/dev/null", &path];
        run(self.step, self.cx, "pg_restore", &all, BTreeMap::new()).await.map_err(broken)?;
        Listing::parse(list.text)
    }

    /// Restores it where that is asked for; what was in it then, held to what was counted.
    async fn probe(
        &self,
        file: &Path,
        counted: Option<&BTreeMap<String, u64>>,
    ) -> Result<Option<BTreeMap<String, u64>>, StepError> {
        let Some(on) = &self.step.probe else { return Ok(None) };
        let restored = probe::restored(self.step, self.cx, on, &file.display().to_string()).await?;
        let Some(counted) = counted.filter(|counted| **counted != restored) else {
            return Ok(Some(restored));
        };
        let differ = |(table, rows): (&String, &u64)| {
            let there = restored.get(table).map_or_else(|| "none".to_owned(), u64::to_string);
            (restored.get(table) != Some(rows))
                .then(|| format!("{table} had {rows} rows and has {there} restored"))
        };
        let differ: Vec<String> = counted.iter().filter_map(differ).take(5).collect();
        Err(StepError::gate(format!("what was restored is not what was dumped: {}", differ.join("; "))))
    }

    async fn known(
        &self,
        file: &Path,
        contents: &Listing,
        tables: &[Table],
        probed: bool,
        beside: &str,
    ) -> Result<Outputs, StepError> {
        let (sha256, bytes) = self.digest(file).await?;
        let file = self.step.file.clone();
        let programs = self.step.programs.as_deref();
        let line = |file: &str| restore::line(&self.env, programs, beside, &contents.database, file, &sha256);
        let restore_program = program::text(&line(&program::beside_it(&file)));
        let is_there = self.step.mode == Mode::Take || program::is_there(&file, &restore_program).await;
        let restore =
            if is_there { program::typed(&file) } else { line(&quoted(&file.display().to_string())) };
        Ok(Outputs {
            file,
            sha256,
            bytes,
            dumped_at: contents.dumped_at.to_string(),
            tables: tables.iter().map(Table::path).collect(),
            rows: BTreeMap::new(),
            digests: BTreeMap::new(),
            definitions: None,
            probed,
            copy: None,
            restore,
            restore_program,
        })
    }

    async fn digest(&self, file: &Path) -> Result<(String, u64), StepError> {
        let path = file.to_owned();
        blocking(move || {
            sha256_file(&path).map_err(|error| {
                StepError::gate(format!("{} can not be read", path.display())).with_source(&error)
            })
        })
        .await
    }

    /// What an attempt that is recorded came to, while the file is the one that it wrote.
    async fn still_there(&self, outputs: Outputs) -> Result<Outputs, StepError> {
        let found = self.digest(&self.step.file).await?;
        if found.0 == outputs.sha256 {
            program::write(self.cx, &outputs).await?;
            return Ok(outputs);
        }
        Err(StepError::gate(format!("{} is not the backup that this step wrote", self.step.file.display()))
            .with_help("put it back, then resume"))
    }
}

/// Where an unfinished backup stands: one of an attempt that was killed is written over, and a cancel removes it.
pub(super) fn part(step: &Backup, cx: &Context) -> Result<PathBuf, StepError> {
    let file = &step.file;
    match (file.parent(), file.file_name()) {
        (Some(folder), Some(name)) => {
            let mark = sha256(format!("{}:{}:{}", cx.run.id, cx.step, file.display()).as_bytes());
            Ok(folder.join(unfinished::name(&name.to_string_lossy(), &mark, Of::Step)))
        }
        _ => Err(StepError::invalid(format!("{} is no name of a file", file.display()))),
    }
}

/// Fails unless the rows of all these tables are in a dump.
fn complete(contents: &Listing, tables: &[Table]) -> Result<(), StepError> {
    let missing: Vec<String> = tables
        .iter()
        .filter(|table| !contents.has(table))
        .map(|table| format!("`{}`", table.path()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(StepError::gate(format!(
        "the backup holds no rows of {}, which the database has",
        missing.join(", ")
    )))
}

async fn exported(session: &mut dyn Session) -> Result<String, StepError> {
    one_text(session, "select pg_export_snapshot()::text").await
}

async fn one_text(session: &mut dyn Session, sql: &str) -> Result<String, StepError> {
    match session.cells(sql, Vec::new()).await?.rows.into_iter().flatten().next() {
        Some(Cell::Text(text)) => Ok(text),
        _ => Err(StepError::refused(format!("the server gave no answer to `{sql}`"))),
    }
}

/// Gives a finished file its name, forced to disk; false when something has that name.
fn place(part: &Path, file: &Path) -> io::Result<bool> {
    File::open(part)?.sync_all()?;
    crash::point("backup: written");
    // Unlike a renaming, a second name never takes the place of what is there.
    let linked = fs::hard_link(part, file);
    crash::point("backup: in its place");
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    if let Some(folder) = file.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(true)
}

fn unwritten(file: &Path, error: &io::Error) -> StepError {
    StepError::refused(format!("{} can not be written", file.display())).with_source(error)
}

fn taken(there: &[String]) -> StepError {
    let are = if there.len() == 1 { "is" } else { "are" };
    StepError::refused(format!(
        "{} {are} there already: nothing was written over, and no backup was made",
        there.join(" and ")
    ))
    .with_help("move it away, or name another file, then resume")
}
