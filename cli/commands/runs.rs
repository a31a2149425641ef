//! `runbook runs`.

use jiff::Timestamp;
use runbook_engine::event::EventKind;
use runbook_engine::state::RunStatus;
use runbook_engine::store::RunRow;
use serde_json::{Value, json};

use crate::app::{App, State};
use crate::args::Runs;
use crate::banner;
use crate::exit::{Exit, Outcome};
use crate::format;
use crate::session;
use crate::state::stands;

/// A run with what its row alone does not say.
struct Listed {
    row: RunRow,
    owner: Option<String>,
    /// What it left behind although it has ended.
    left: Option<String>,
}

/// Lists the runs.
pub async fn run(app: &App, args: &Runs) -> Outcome {
    let state = app.state_to_read().await?;
    banner::show(&state, None).await;
    let mut rows = state.store.runs(if args.unfinished { usize::from(u16::MAX) } else { args.limit }).await?;
    rows.retain(|row| !args.unfinished || !row.status.is_final());
    rows.truncate(args.limit);
    let mut runs = Vec::with_capacity(rows.len());
    for row in rows {
        let owner = session::live_owner(&state, &row).map(|(owner, _)| owner);
        let left = left(&state, &row).await;
        runs.push(Listed { row, owner, left });
    }
    if app.json {
        return super::print_json(&runs.iter().map(document).collect());
    }
    if runs.is_empty() {
        eprintln!("there is no run yet");
        return Ok(Exit::Succeeded);
    }
    let now = Timestamp::now();
    let width = runs.iter().map(|one| one.row.id.len()).max().unwrap_or(0).max(3);
    let mut lines = vec![format!("{:width$}  {:<11}  {:<16}  OWNER", "RUN", "STATUS", "CREATED")];
    for Listed { row, owner, left } in &runs {
        let created = format::clock(row.created_at, now);
        let status = format!("{}{}", stands(row, owner.is_some()), if left.is_some() { "!" } else { "" });
        let owner = owner.as_deref().unwrap_or("-");
        lines.push(format!("{:width$}  {status:<11}  {created:<16}  {owner}", row.id));
    }
    for Listed { row, left, .. } in &runs {
        if let Some(left) = left {
            eprintln!("! {}: {left}\n  runbook show {}   what to do about it", row.id, row.id);
        }
    }
    super::print(&lines.join("\n"))
}

/// What a cancelled run could not put back: its last event says it.
async fn left(state: &State, row: &RunRow) -> Option<String> {
    if row.status != RunStatus::Cancelled {
        return None;
    }
    match state.store.events(&row.id, row.last_seq.saturating_sub(1)).await {
        Ok(mut events) => match events.pop()?.what {
            EventKind::RunEnded { error, .. } => error.map(|error| error.message),
            _ => None,
        },
        // One run that can not be read does not hide the others.
        Err(error) => Some(error.to_string()),
    }
}

fn document(one: &Listed) -> Value {
    let row = &one.row;
    json!({
        "id": row.id,
        "runbook": row.runbook,
        "status": stands(row, one.owner.is_some()),
        "left": one.left,
        "created_at": row.created_at,
        "source": row.source_name,
        "lock": row.lock,
        "owner": one.owner,
    })
}
