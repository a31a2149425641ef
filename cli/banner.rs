//! While any run holds something, every command says so.

use console::Style;
use jiff::Timestamp;
use runbook_engine::store::OpenObligation;

use crate::app::State;
use crate::format;
use crate::session;

/// Says on stderr what is held, except by `own`, the run this command is about to work on.
pub async fn show(state: &State, own: Option<&str>) {
    // A command must not fail for its banner; a store that is broken says so by itself.
    let Ok(open) = state.store.obligations().await else { return };
    let now = Timestamp::now();
    for one in open.iter().filter(|one| own != Some(one.run.as_str())) {
        eprintln!("{}", paint(&line(one, &next(state, &one.run).await, now)));
    }
}

/// What is done about what the run holds, or what a person can type.
async fn next(state: &State, run: &str) -> String {
    let row = state.store.run(run).await.ok().flatten();
    if row.as_ref().is_some_and(|row| session::live_owner(state, row).is_some()) {
        return "a process is working on it".to_owned();
    }
    let cancelling = match &row {
        Some(row) => session::load(state, row).await.is_ok_and(|(_, stands)| stands.cancel.is_some()),
        None => false,
    };
    // Who asked for the end gets no further by going on.
    if cancelling {
        format!("runbook cancel {run}")
    } else {
        format!("runbook resume {run} | runbook cancel {run}")
    }
}

fn paint(line: &str) -> String {
    format::paint(Style::new().yellow(), line)
}

fn line(one: &OpenObligation, next: &str, now: Timestamp) -> String {
    let since = format!("{} ({})", format::clock(one.opened_at, now), format::ago(one.opened_at, now));
    let (until, next) = if one.hold_until <= now {
        (format!("OVERDUE since {}", format::clock(one.hold_until, now)), "runbook reconcile")
    } else {
        (format!("until {} at most", format::clock(one.hold_until, now)), next)
    };
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
        let text = line(&held(Duration::from_secs(60)), "runbook cancel reset-1", now);
        assert!(text.contains("OVERDUE") && text.ends_with("runbook reconcile"), "{text}");
    }
}
