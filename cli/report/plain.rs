//! Plain lines on stderr, where there is no terminal: time, kind, step, detail. Stable, so that they can be searched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use runbook_engine::drive::live::Line;
use runbook_engine::event::Event;
use runbook_engine::state::{RunState, StepStatus};

use super::{Subject, View, describe};
use crate::format;

/// How often a running step tells its progress.
const PROGRESS: Duration = Duration::from_secs(10);

pub(super) struct Plain {
    subject: Subject,
    running: BTreeMap<String, Instant>,
}

impl Plain {
    pub(super) fn new(subject: &Subject) -> Self {
        Self { subject: subject.clone(), running: BTreeMap::new() }
    }
}

/// One line: time, kind, step or `-`, detail.
pub fn line(at: Timestamp, kind: &str, step: Option<&str>, detail: &str) -> String {
    let text = format!("{} {kind} {} {detail}", format::utc(at), step.unwrap_or("-"));
    text.trim_end().to_owned()
}

impl View for Plain {
    fn begin(&mut self, _: &RunState) {}

    fn event(&mut self, state: &RunState, event: &Event) {
        let what = &event.what;
        eprintln!(
            "{}",
            line(event.at, describe::kind(what), describe::step(what), &describe::detail(what, state))
        );
        let running = |id: &String| state.step(id).is_some_and(|step| step.status == StepStatus::Running);
        self.running.retain(|id, _| running(id));
        for id in state.steps.keys().filter(|id| running(id)) {
            self.running.entry(id.clone()).or_insert_with(Instant::now);
        }
    }

    fn line(&mut self, said: &Line) {
        eprintln!("{}", line(said.at, "log", Some(&said.step), &describe::one_line(&said.text)));
    }

    fn say(&mut self, text: &str) {
        eprintln!("{text}");
    }

    fn tick(&mut self) {
        for (id, told) in &mut self.running {
            if told.elapsed() < PROGRESS {
                continue;
            }
            *told = Instant::now();
            let Some(progress) = self.subject.live.progress(id) else { continue };
            let total = progress.total.map_or_else(String::new, |total| format!("/{total}"));
            let text = format!(
                "{}{total} {}, {} failed {}",
                progress.done, progress.unit, progress.failed, progress.note
            );
            eprintln!("{}", line(Timestamp::now(), "progress", Some(id), &describe::one_line(&text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_its_kind_and_its_step_in_fixed_places() {
        let at = "2026-11-21T02:26:03.456Z".parse().unwrap();
        assert_eq!(
            line(at, "step-started", Some("purge"), "attempt 1"),
            "2026-11-21T02:26:03Z step-started purge attempt 1"
        );
        assert_eq!(line(at, "run-ended", None, ""), "2026-11-21T02:26:03Z run-ended -");
    }
}
