//! `runbook logs`.

use std::io::{BufReader, Seek, SeekFrom, Write};
use std::time::Duration;

use runbook_engine::event::Event;
use runbook_engine::plan::Plan;
use runbook_engine::state::{RunState, RunStatus};
use runbook_engine::store::{RunRow, StoreError};

use crate::app::{App, State};
use crate::args::Logs;
use crate::banner;
use crate::exit::{Exit, Failure, Outcome};
use crate::log::{self, Record};
use crate::report::{self, describe};
use crate::session;
use crate::state::{self, Prefer};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Prints what is recorded, and what comes.
pub async fn run(app: &App, args: &Logs) -> Outcome {
    let state = app.state_to_read().await?;
    let row = match &args.run {
        Some(named) => state::run_named(&state, named, Prefer::Newest).await?,
        None => state::newest(&*state.store).await?,
    };
    banner::show(&state, Some(&row.id)).await;
    let (plan, _) = session::load(&state, &row).await?;
    if let Some(step) = &args.step
        && plan.step(step).is_none()
    {
        return Err(Failure::usage(format!("the run has no step `{step}`")));
    }
    let mut printer = Printer {
        run: row.id.clone(),
        stands: RunState::new(&plan),
        events: Vec::new(),
        plan,
        step: args.step.clone(),
        json: app.json,
    };
    let failed =
        |error: std::io::Error| Failure::new(Exit::Store, format!("the log of run {}: {error}", row.id));
    let path = state.location.log(&row.id);
    let mut position = 0;
    loop {
        // Whether the run has ended is asked first: what is written until then is still printed.
        let over = !args.follow || ended(&state, &row).await?;
        match std::fs::File::open(&path) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(position)).map_err(failed)?;
                let mut reader = BufReader::new(file);
                let records = log::records(&mut reader, &mut position).map_err(failed)?;
                if !printer.print(&records) {
                    return Ok(Exit::Succeeded);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        if over {
            // Events that another process added, or that a crash kept out of the log.
            let missing = state.store.events(&row.id, printer.stands.seq).await?;
            printer.print(&missing.iter().map(Record::event).collect::<Vec<_>>());
            return Ok(Exit::Succeeded);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn ended(state: &State, row: &RunRow) -> Outcome<bool> {
    let row = state.store.run(&row.id).await?.ok_or_else(|| StoreError::NoSuchRun(row.id.clone()))?;
    Ok(row.status.is_final()
        || (row.status == RunStatus::Failed && session::live_owner(state, &row).is_none()))
}

struct Printer {
    run: String,
    plan: Plan,
    stands: RunState,
    /// What brought it there.
    events: Vec<Event>,
    step: Option<String>,
    json: bool,
}

impl Printer {
    /// Prints the records; false when nobody reads them any more.
    fn print(&mut self, records: &[Record]) -> bool {
        records.iter().all(|record| match self.line(record) {
            Some(line) => writeln!(std::io::stdout().lock(), "{line}").is_ok(),
            None => true,
        })
    }

    /// The run stood at this event once more: an older copy of the database was put back.
    fn put_back(&mut self, number: u64) {
        self.events.retain(|event| event.seq <= number);
        self.stands = RunState::new(&self.plan);
        for event in &self.events {
            let _ = self.stands.apply(&self.plan, event);
        }
    }

    fn line(&mut self, record: &Record) -> Option<String> {
        let mut detail = record.text.clone().unwrap_or_default();
        if let Some(number) = record.put_back_to {
            self.put_back(number);
        }
        if let (Some(seq), Some(what)) = (record.seq, &record.what) {
            let event = Event { seq, at: record.at, what: what.clone() };
            // An event that is in the log twice or out of order is printed all the same.
            if self.stands.apply(&self.plan, &event).is_ok() {
                self.events.push(event);
            }
            detail = describe::detail(what, &self.stands);
        }
        let step = record.step.as_deref().or_else(|| record.what.as_ref().and_then(describe::step));
        if self.step.is_some() && self.step.as_deref() != step {
            return None;
        }
        if self.json {
            let mut value = serde_json::to_value(record).ok()?;
            value.as_object_mut()?.insert("run".to_owned(), self.run.clone().into());
            return Some(value.to_string());
        }
        let kind = record.what.as_ref().map_or("log", describe::kind);
        Some(report::plain_line(record.at, kind, step, &describe::one_line(&detail)))
    }
}
