//! `runbook show`.

use std::io::IsTerminal;

use jiff::Timestamp;
use runbook_engine::plan::Plan;
use runbook_engine::state::{ObligationPhase, RunState, StepStatus};
use runbook_engine::store::RunRow;
use runbook_steps::freeze;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::Show;
use crate::banner;
use crate::exit::Outcome;
use crate::format;
use crate::report::describe;
use crate::report::summary::{self, Facts};
use crate::session;
use crate::state::{self, Prefer};

/// Shows the run.
pub async fn run(app: &App, args: &Show) -> Outcome {
    let state = app.state_to_read().await?;
    let row = match &args.run {
        Some(named) => state::run_named(&state, named, Prefer::Newest).await?,
        None => state::newest(&*state.store).await?,
    };
    banner::show(&state, Some(&row.id)).await;
    let (plan, stands) = session::load(&state, &row).await?;
    let owner = session::live_owner(&state, &row).map(|(owner, _)| owner);
    if app.json {
        return super::print_json(&document(&row, &plan, &stands, owner.as_deref()));
    }
    let on_terminal = std::io::stdout().is_terminal();
    if !on_terminal {
        format::without_colours();
    }
    let width = format::width().filter(|_| on_terminal);
    let now = Timestamp::now();
    let owned = owner.is_some();
    let ledgers = summary::ledgers(&*state.store, &row.id, &stands).await?;
    let facts = Facts {
        run: &row.id,
        plan: &plan,
        state: &stands,
        source: &row.source_name,
        location: &state.location,
        owned,
        stalled: session::stalled(&state, &row),
        now,
        ledgers,
        width,
    };
    let stands_so = if facts.stalled.is_some() { "stalled" } else { state::stands(&row, owned) };
    let mut lines = vec![
        format!("{}  {stands_so}", row.id),
        format!("created {} by {}, from {}", format::ago(row.created_at, now), stands.by, row.source_name),
    ];
    if let Some(reviewed) = &plan.reviewed {
        let (id, made) = (reviewed.short_id(), format::ago(reviewed.made_at, now));
        lines.push(format!(
            "with plan {id}, made {made} by {}, seen by {}",
            reviewed.made_by, reviewed.seen_by
        ));
    }
    lines.push(String::new());
    lines.extend(steps(&plan, &stands));
    lines.extend(summary::lines(&facts));
    super::print(&lines.join("\n"))
}

fn steps(plan: &Plan, stands: &RunState) -> Vec<String> {
    let width = plan.all_steps().map(|step| step.id.len()).max().unwrap_or(0);
    let line = |id: &str| {
        let one = stands.step(id)?;
        let word = status(one.status);
        let text = match one.status {
            StepStatus::Succeeded => one.outputs().map(describe::facts).unwrap_or_default(),
            // What took effect the summary says, which has looked into the ledger.
            StepStatus::Failed => one.error.as_ref().map(describe::error_alone).unwrap_or_default(),
            StepStatus::Asking if !stands.takes_answers(plan, id) => {
                let so = if stands.status.is_final() { "was" } else { "is being" };
                format!("no answer counts any more: the run {so} cancelled")
            }
            StepStatus::Asking => {
                let line = |question| describe::open_question_line(question, Timestamp::now());
                one.question.as_ref().map(line).unwrap_or_default()
            }
            StepStatus::Skipped => one.skipped.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let took = if one.ended_at.is_some() { describe::took(stands, id) } else { String::new() };
        Some(format!("  {id:width$}  {word:<11}  {took:>7}  {text}").trim_end().to_owned())
    };
    plan.all_steps().filter_map(|step| line(&step.id)).collect()
}

fn status(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending => "-",
        StepStatus::Running => "running",
        StepStatus::Asking => "asks",
        StepStatus::Answered => "answered",
        StepStatus::Interrupted => "interrupted",
        StepStatus::Succeeded => "succeeded",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
    }
}

fn document(row: &RunRow, plan: &Plan, stands: &RunState, owner: Option<&str>) -> Value {
    let step = |id: &str, uses: &str| {
        let one = stands.step(id)?;
        Some(json!({
            "id": id,
            "uses": uses,
            "status": one.status,
            "attempts": one.attempt,
            "started_at": one.started_at,
            "ended_at": one.ended_at,
            "outputs": one.outputs(),
            "error": one.error,
            "question": one.question.as_ref().filter(|_| one.status == StepStatus::Asking),
            "skipped": one.skipped,
        }))
    };
    let obligation = |(id, one): (&String, &runbook_engine::state::ObligationState)| {
        let (phase, how) = match &one.phase {
            ObligationPhase::Opened => ("opened", None),
            ObligationPhase::Changing => ("changing", None),
            ObligationPhase::Applied => ("applied", None),
            ObligationPhase::Releasing => ("releasing", None),
            ObligationPhase::Closed(how) => ("closed", Some(how)),
        };
        json!({
            "id": id,
            "step": one.obligation.step,
            "label": one.obligation.label,
            "original": freeze::original_text(&one.obligation),
            "opened_at": one.opened_at,
            "hold_until": one.hold_until(),
            "phase": phase,
            "how": how,
        })
    };
    json!({
        "id": row.id,
        "runbook": row.runbook,
        "status": state::stands(row, owner.is_some()),
        "created_at": row.created_at,
        "started_at": stands.started_at,
        "ended_at": stands.ended_at,
        "by": stands.by,
        "source": row.source_name,
        "lock": row.lock,
        "plan": plan.reviewed.as_ref().map(|plan| json!({
            "id": plan.id,
            "made_by": plan.made_by,
            "made_at": plan.made_at,
            "seen_by": plan.seen_by,
            "expires_at": plan.expires_at,
        })),
        "owner": owner,
        "inputs": plan.inputs,
        "error": stands.error,
        "steps": plan.all_steps().filter_map(|one| step(&one.id, &one.uses)).collect::<Vec<_>>(),
        "obligations": stands.obligations.iter().map(obligation).collect::<Vec<_>>(),
    })
}
