//! The views of a run, on a thread of their own: a terminal that takes nothing more (Ctrl-S) and a pipe that nobody reads must keep
//! nobody but those who look from going on.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Subject, View, json, plain, terminal};

/// How much may wait to be shown; what comes after that is not shown, and counted.
const QUEUE: usize = 1024;

/// How long a view that shows nothing at all is waited for at the end.
pub const STUCK: Duration = Duration::from_secs(5);

/// How often it is looked whether it shows something.
const LOOK: Duration = Duration::from_millis(50);

type Act = Box<dyn FnMut(&mut dyn View) + Send>;

/// Something to be shown, and who waits until it is.
struct Job {
    act: Act,
    shown: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Counts {
    waiting: AtomicUsize,
    shown: AtomicU64,
    dropped: AtomicU64,
}

/// The views of a run, shared by everything that has something to show.
#[derive(Clone)]
pub struct Views {
    jobs: SyncSender<Job>,
    counts: Arc<Counts>,
}

impl Views {
    /// The views that fit where stdout and stderr go.
    pub fn new(subject: &Subject, json: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let mut views: Vec<Box<dyn View>> = Vec::new();
        if json {
            views.push(Box::new(json::Json::new(subject)));
        }
        // Events on the same terminal as the live view would only garble each other.
        if on_terminal && !(json && std::io::stdout().is_terminal()) {
            views.push(Box::new(terminal::Terminal::new(subject)));
        } else if !json {
            views.push(Box::new(plain::Plain::new(subject)));
        }
        let (jobs, queue) = sync_channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let (run, counted) = (subject.run.clone(), Arc::clone(&counts));
        std::thread::spawn(move || show(&run, &mut views, &queue, &counted));
        Self { jobs, counts }
    }

    /// Does the same on every view, soon and in order; nobody waits for it, and it is left out when too much waits already.
    pub fn each(&self, act: impl FnMut(&mut dyn View) + Send + 'static) {
        if self.send(Job { act: Box::new(act), shown: None }).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Lets the views draw anew, unless they have something to show as it is.
    pub fn tick(&self) {
        if self.counts.waiting.load(Ordering::SeqCst) == 0 {
            self.each(|view| view.tick());
        }
    }

    /// Does the same on every view and waits until it is done; with `patience`, until nothing at all has been shown for as long as that.
    pub async fn shown(&self, act: impl FnMut(&mut dyn View) + Send + 'static, patience: Option<Duration>) {
        let (shown, mut done) = oneshot::channel();
        let mut unsent = Some(Job { act: Box::new(act), shown: Some(shown) });
        let (mut seen, mut moved) = (self.counts.shown.load(Ordering::SeqCst), Instant::now());
        loop {
            unsent = unsent.and_then(|job| self.send(job).err());
            if unsent.is_some() {
                tokio::time::sleep(LOOK).await;
            } else if let Ok(Ok(()) | Err(_)) = tokio::time::timeout(LOOK, &mut done).await {
                return;
            }
            let now = self.counts.shown.load(Ordering::SeqCst);
            if std::mem::replace(&mut seen, now) != now {
                moved = Instant::now();
            }
            if patience.is_some_and(|patience| moved.elapsed() >= patience) {
                return;
            }
        }
    }

    /// Hands a job over; gives it back when too much waits already.
    fn send(&self, job: Job) -> Result<(), Job> {
        self.counts.waiting.fetch_add(1, Ordering::SeqCst);
        self.jobs.try_send(job).map_err(|error| {
            self.counts.waiting.fetch_sub(1, Ordering::SeqCst);
            match error {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
            }
        })
    }
}

/// Shows until nobody has anything to show any more. Everything left out is told of as soon as something is shown again.
fn show(run: &str, views: &mut [Box<dyn View>], queue: &Receiver<Job>, counts: &Counts) {
    for Job { mut act, shown } in queue {
        for view in views.iter_mut() {
            act(&mut **view);
        }
        counts.waiting.fetch_sub(1, Ordering::SeqCst);
        counts.shown.fetch_add(1, Ordering::SeqCst);
        let dropped = counts.dropped.swap(0, Ordering::SeqCst);
        if dropped > 0 {
            let text =
                format!("{dropped} lines were not shown, as nobody took them: runbook logs {run}   has them");
            views.iter_mut().for_each(|view| view.say(&text));
        }
        if let Some(shown) = shown {
            let _ = shown.send(());
        }
    }
}
