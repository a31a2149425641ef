//! `runbook runs`.

use jiff::Timestamp;
use runbook_engine::store::RunRow;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::Runs;
use crate::banner;
use crate::exit::{Exit, Outcome};
use crate::format;
use crate::state::stands;

/// Lists the runs.
pub async fn run(app: &App, args: &Runs) -> Outcome {
    let state = app.state().await?;
    banner::show(&*state.store, None).await;
    let mut rows = state.store.runs(if args.unfinished { usize::from(u16::MAX) } else { args.limit }).await?;
    rows.retain(|row| !args.unfinished || !row.status.is_final());
    rows.truncate(args.limit);
    let now = Timestamp::now();
    if app.json {
        return super::print_json(&rows.iter().map(|row| document(row, now)).collect());
    }
    if rows.is_empty() {
        eprintln!("there is no run yet");
        return Ok(Exit::Succeeded);
    }
    let width = rows.iter().map(|row| row.id.len()).max().unwrap_or(0).max(3);
    let mut lines = vec![format!("{:width$}  {:<11}  {:<16}  OWNER", "RUN", "STATUS", "CREATED")];
    for row in &rows {
        let owner = row.live_owner(now).map_or("-", |(owner, _)| owner);
        let created = format::clock(row.created_at, now);
        lines.push(format!("{:width$}  {:<11}  {created:<16}  {owner}", row.id, stands(row, now)));
    }
    super::print(&lines.join("\n"))
}

fn document(row: &RunRow, now: Timestamp) -> Value {
    json!({
        "id": row.id,
        "runbook": row.runbook,
        "status": stands(row, now),
        "created_at": row.created_at,
        "source": row.source_name,
        "lock": row.lock,
        "owner": row.live_owner(now).map(|(owner, _)| owner),
    })
}
