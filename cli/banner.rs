//! While any run holds something, every command says so.

use console::Style;
use jiff::Timestamp;
use runbook_engine::store::OpenObligation;

use crate::app::State;
use crate::format;
use crate::session;

/// Says on stderr what is held, except by `own`, the run this command is about to work on.
pub async fn show(state: &State, own: Option<&str>) {
    tell(state, own, "runbook reconcile").await;
}

/// The same after what is overdue was to be put back: what is still held could not be.
pub async fn after_reconcile(state: &State) {
    tell(state, None, "put right what is said above, then  runbook reconcile").await;
}

async fn tell(state: &State, own: Option<&str>, overdue: &str) {
    // A command must not fail for its banner; a store that is broken says so by itself.
    let Ok(open) = state.store.obligations().await else { return };
    let now = Timestamp::now();
    for one in open.iter().filter(|one| own != Some(one.run.as_str())) {
        let overdue = Some(overdue).filter(|_| one.hold_until <= now);
        eprintln!("{}", paint(&line(one, &next(state, &one.run, overdue).await, now)));
    }
}

/// What is done about what the run holds, or what a person can type; `overdue` is for what nobody is putting back although it is.
async fn next(state: &State, run: &str, overdue: Option<&str>) -> String {
    let row = state.store.run(run).await.ok().flatten();
    let Some(row) = row else { return format!("runbook show {run}   says what is wrong with its record") };
    if let Some(stalled) = session::stalled(state, &row) {
        return format!("{}: {}", stalled.says(), stalled.way());
    }
    if let Some((owner, _)) = session::live_owner(state, &row) {
        return match overdue {
            Some(_) => {
                format!("{owner} is working on it; if it is stuck, end it (kill -9), then  runbook reconcile")
            }
            None => "a process is working on it".to_owned(),
        };
    }
    let stands = match session::load(state, &row).await {
        Ok((_, stands)) => stands,
        Err(_) => return format!("runbook show {run}   says what is wrong with its record"),
    };
    match overdue {
        Some(overdue) => overdue.to_owned(),
        // Who asked for the end gets no further by going on.
        None if stands.cancel.is_some() => format!("runbook cancel {run}"),
        None => format!("runbook resume {run} | runbook cancel {run}"),
    }
}

fn paint(line: &str) -> String {
    format::paint(Style::new().yellow(), line)
}

fn line(one: &OpenObligation, next: &str, now: Timestamp) -> String {
    let since = format!("{} ({})", format::clock(one.opened_at, now), format::ago(one.opened_at, now));
    let at = format::clock(one.hold_until, now);
    let until =
        if one.hold_until <= now { format!("OVERDUE since {at}") } else { format!("until {at} at most") };
    format!("HELD {} by {}, since {since}, {until}: {next}", one.obligation.label, one.run)
}

#[cfg(test)]
mod tests {
    use runbook_engine::duration::Duration;
    use runbook_engine::event::Obligation;

    use super::*;

    fn held(max_hold: Duration) -> OpenObligation {
        let opened_at: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let obligation = Obligation {
            step: "freeze".to_owned(),
            target: "gateway".to_owned(),
            label: "uploads of the gateway".to_owned(),
            original: serde_json::Value::Null,
            replacement: serde_json::Value::Null,
            max_hold,
        };
        let hold_until = max_hold.after(opened_at);
        OpenObligation {
            run: "reset-1".to_owned(),
            id: "freeze-1".to_owned(),
            obligation,
            opened_at,
            hold_until,
        }
    }

    #[test]
    fn says_who_since_when_and_what_to_type() {
        let now = "2026-11-21T02:10:00Z".parse().unwrap();
        let text = line(&held(Duration::from_secs(3600)), "runbook cancel reset-1", now);
        assert!(text.contains("uploads of the gateway by reset-1"), "{text}");
        assert!(text.contains("10m00s ago"), "{text}");
        assert!(text.ends_with(": runbook cancel reset-1"), "{text}");
        let text = line(&held(Duration::from_secs(60)), "runbook reconcile", now);
        assert!(text.contains("OVERDUE") && text.ends_with("runbook reconcile"), "{text}");
    }
}
