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
        let owned = match state.store.run(&one.run).await {
            Ok(Some(row)) => session::live_owner(state, &row).is_some(),
            _ => false,
        };
        eprintln!("{}", paint(&line(one, owned, now)));
    }
}

fn paint(line: &str) -> String {
    format::paint(Style::new().yellow(), line)
}

fn line(one: &OpenObligation, owned: bool, now: Timestamp) -> String {
    let since = format!("{} ({})", format::clock(one.opened_at, now), format::ago(one.opened_at, now));
    let (until, next) = if one.hold_until <= now {
        (format!("OVERDUE since {}", format::clock(one.hold_until, now)), "runbook reconcile".to_owned())
    } else {
        let until = format!("until {} at most", format::clock(one.hold_until, now));
        let next = if owned {
            "a process is working on it".to_owned()
        } else {
            format!("runbook resume {run} | runbook cancel {run}", run = one.run)
        };
        (until, next)
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
        let text = line(&held(Duration::from_secs(3600)), false, now);
        assert!(text.contains("uploads of the gateway by reset-1"), "{text}");
        assert!(text.contains("10m00s ago"), "{text}");
        assert!(text.contains("runbook resume reset-1 | runbook cancel reset-1"), "{text}");
        let text = line(&held(Duration::from_secs(60)), false, now);
        assert!(text.contains("OVERDUE") && text.ends_with("runbook reconcile"), "{text}");
        assert!(!line(&held(Duration::from_secs(3600)), true, now).contains("resume"));
    }
}
