//! The live view: what has ended scrolls away as printed lines, what runs stays at the bottom, one line each.

mod area;
mod rate;
mod screen;

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use runbook_engine::drive::live::Line;
use runbook_engine::event::{Event, EventKind, ObligationChange};
use runbook_engine::state::{RunState, StepStatus};

use self::area::{Look, Mark};
use self::rate::Rate;
use self::screen::Screen;
use super::{Subject, View, describe};
use crate::format;

/// Draws per second at most.
const HZ: u8 = 12;

pub(super) struct Terminal {
    subject: Subject,
    state: RunState,
    rates: BTreeMap<String, Rate>,
    screen: MultiProgress,
    live: ProgressBar,
    /// What was to be printed while a person is asked.
    held_back: Option<Vec<String>>,
    stopping: bool,
}

impl Terminal {
    pub(super) fn new(subject: &Subject) -> Self {
        let screen = MultiProgress::with_draw_target(target());
        crate::trace::draw_above(&screen);
        let live = screen.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            live.set_style(style);
        }
        Self {
            subject: subject.clone(),
            state: RunState::default(),
            rates: BTreeMap::new(),
            screen,
            live,
            held_back: None,
            stopping: false,
        }
    }

    fn print(&mut self, line: String) {
        match &mut self.held_back {
            Some(lines) => lines.push(line),
            None => {
                // A terminal that has gone away does not stop the run.
                let _ = self.screen.println(line);
            }
        }
    }

    fn draw(&mut self) {
        if self.held_back.is_some() {
            return;
        }
        let look = look(&self.subject);
        let rates = &self.rates;
        let lines = area::lines(&look, &self.subject, &self.state, Timestamp::now(), self.stopping, |id| {
            rates.get(id).and_then(Rate::per_second)
        });
        self.live.set_message(lines.join("\n"));
    }
}

fn target() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::new(Screen::new()), HZ)
}

fn look(subject: &Subject) -> Look {
    Look::new(format::width().unwrap_or(80), &subject.plan)
}

impl View for Terminal {
    fn begin(&mut self, state: &RunState) {
        self.state = state.clone();
        let look = look(&self.subject);
        let steps = self.subject.plan.all_steps().count();
        self.print(look.title(&self.subject.plan.runbook, &self.subject.plan.description, steps));
        for line in area::so_far(&look, &self.subject.plan, state) {
            self.print(line);
        }
        self.print(String::new());
        self.draw();
    }

    fn event(&mut self, state: &RunState, event: &Event) {
        self.state = state.clone();
        let look = look(&self.subject);
        let detail = describe::detail(&event.what, state);
        let line = match &event.what {
            EventKind::StepStarted { step, .. } => {
                self.rates.remove(step);
                None
            }
            EventKind::StepSucceeded { step, outputs } => {
                let time = describe::took(state, step);
                Some(look.step(Mark::Done, step, &time, &describe::facts(outputs)))
            }
            EventKind::StepFailed { step, .. } => {
                let time = describe::took(state, step);
                Some(look.step(Mark::Failed, step, &time, &detail))
            }
            EventKind::StepInterrupted { step } => Some(look.step(Mark::Paused, step, "", &detail)),
            EventKind::StepSkipped { step, .. } => Some(look.step(Mark::Skipped, step, "", &detail)),
            EventKind::StepReopened { step, .. } => {
                Some(look.step(Mark::Again, step, "", &format!("runs again: {detail}")))
            }
            EventKind::Answered { step, .. } => {
                Some(look.step(Mark::Asking, step, "", &format!("answered {detail}")))
            }
            EventKind::Obligation { change: ObligationChange::Releasing { .. }, .. } => None,
            EventKind::Obligation { .. } => Some(look.notice(&detail)),
            EventKind::CancelRequested { .. } => Some(look.notice(&format!("cancel requested {detail}"))),
            EventKind::RunClaimed { owner, .. } if state.claims > 1 => {
                Some(look.notice(&format!("taken up again by {owner}")))
            }
            EventKind::RunCreated { .. }
            | EventKind::RunClaimed { .. }
            | EventKind::Asked { .. }
            | EventKind::RunEnded { .. } => None,
        };
        if let Some(line) = line {
            self.print(line);
        }
        self.draw();
    }

    fn line(&mut self, said: &Line) {
        let look = look(&self.subject);
        self.print(look.said(&said.step, &describe::one_line(&said.text)));
    }

    fn say(&mut self, text: &str) {
        let look = look(&self.subject);
        self.print(look.notice(text));
        self.draw();
    }

    fn stopping(&mut self) {
        self.stopping = true;
    }

    fn tick(&mut self) {
        let running = self.state.steps.iter().filter(|(_, step)| step.status == StepStatus::Running);
        for (id, _) in running {
            if let Some(progress) = self.subject.live.progress(id) {
                self.rates.entry(id.clone()).or_default().sample(progress.done);
            }
        }
        self.draw();
    }

    fn pause(&mut self) {
        if self.held_back.is_none() {
            let _ = self.screen.clear();
            self.screen.set_draw_target(ProgressDrawTarget::hidden());
            self.held_back = Some(Vec::new());
        }
    }

    fn resume(&mut self) {
        if let Some(lines) = self.held_back.take() {
            self.screen.set_draw_target(target());
            for line in lines {
                self.print(line);
            }
            self.draw();
        }
    }

    fn end(&mut self) {
        self.resume();
        self.live.finish_and_clear();
        let _ = self.screen.clear();
    }
}
