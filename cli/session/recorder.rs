//! Takes what happens to the log and to the views.

use std::sync::{Arc, Mutex, PoisonError};

use runbook_engine::drive::Observer;
use runbook_engine::drive::live::{Line, LiveHub};
use runbook_engine::event::{Event, EventKind};
use runbook_engine::state::RunState;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::log::RunLog;
use crate::prompt::AtTerminal;
use crate::report::{TICK, Views};

type Log = Arc<Mutex<RunLog>>;

/// How the run stood after the last event that became durable here.
#[derive(Clone)]
pub(super) struct Last(Arc<Mutex<RunState>>);

impl Last {
    pub(super) fn new(state: RunState) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> RunState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: &RunState) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(state);
    }
}

/// Every event, right after it became durable.
pub(super) struct Recorder {
    views: Views,
    log: Log,
    people: Arc<AtTerminal>,
    last: Last,
    /// Whether it has been said that the log can not be written.
    warned: bool,
}

impl Recorder {
    pub(super) fn new(views: Views, log: Log, people: Arc<AtTerminal>, last: Last) -> Self {
        Self { views, log, people, last, warned: false }
    }
}

impl Observer for Recorder {
    fn changed(&mut self, state: &RunState, event: &Event) {
        let written = self.log.lock().unwrap_or_else(PoisonError::into_inner).event(event);
        self.last.set(state);
        // The store has the event; the log is a convenience.
        if let Err(error) = written
            && !std::mem::replace(&mut self.warned, true)
        {
            let text = format!("the log can not be written: {error}");
            self.views.each(move |view| view.say(&text));
        }
        match &event.what {
            EventKind::Answered { step, .. } => self.people.withdraw(Some(step)),
            EventKind::CancelRequested { .. } => self.people.withdraw(None),
            _ => {}
        }
        let (state, event) = (state.clone(), event.clone());
        self.views.each(move |view| view.event(&state, &event));
    }
}

/// Takes what steps say to the log and the views, and lets the views draw as time passes.
pub(super) struct Pump {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Pump {
    pub(super) fn start(live: LiveHub, views: Views, log: Log) -> Self {
        let (stop, stopped) = oneshot::channel();
        let lines = live.lines();
        let task = tokio::spawn(pump(lines, views, log, stopped));
        Self { stop, task }
    }

    /// Ends it when everything said so far has been shown.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn pump(mut lines: Receiver<Line>, views: Views, log: Log, mut stopped: oneshot::Receiver<()>) {
    let show = |line: &Line| {
        let _ = log.lock().unwrap_or_else(PoisonError::into_inner).line(line);
        let line = line.clone();
        views.each(move |view| view.line(&line));
    };
    let lost = |count: u64| {
        views.each(move |view| view.say(&format!("{count} lines of output were too fast to show")));
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Ok(line) => show(&line),
                Err(RecvError::Lagged(count)) => lost(count),
                Err(RecvError::Closed) => return,
            },
            _ = tick.tick() => views.tick(),
            _ = &mut stopped => break,
        }
    }
    loop {
        match lines.try_recv() {
            Ok(line) => show(&line),
            Err(TryRecvError::Lagged(count)) => lost(count),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}
