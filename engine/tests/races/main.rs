//! Processes race for one run: two that drive it, one of which may take the other for dead, people who answer and who cancel at the
//! same moment, a stop at any time. One wins, nobody acts on stale knowledge, nobody hangs, and nothing is left behind.
//!
//! `RACES=5000 cargo nextest run --workspace -E 'binary(races)'` tries more than the few of every run. A race is repeated by its number
//! with `RACE=N`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/driver.rs"]
mod driver;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration as StdDuration;

use jiff::Timestamp;
use runbook_engine::drive::{DriveError, Finish, Halt, Purpose};
use runbook_engine::event::{Answer, Event, EventKind};
use runbook_engine::plan::Plan;
use runbook_engine::state::{RunState, RunStatus, StepStatus};
use runbook_engine::store::memory::MemoryStore;
use runbook_engine::store::sqlite::SqliteStore;
use runbook_engine::store::{Fence, Store, StoreError, Write, load_state};
use tokio::sync::watch;

use crate::common::new_run;
use crate::driver::driver;
use crate::world::{BATCHES, Lots, ORIGINAL, Process, Ticking, World, plan};

fn races(usual: u64) -> std::ops::Range<u64> {
    let set = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match set("RACE") {
        Some(one) => one..one + 1,
        None => 0..set("RACES").unwrap_or(usual),
    }
}

struct Race {
    number: u64,
    store: Arc<dyn Store>,
    run: String,
    plan: Plan,
    world: Arc<World>,
    begin: (Timestamp, tokio::time::Instant),
}

/// How a process that raced ended; every other error is a fault.
fn fair(error: &DriveError) -> bool {
    match error {
        DriveError::Store(error) => matches!(error, StoreError::Fenced | StoreError::Busy { .. }),
        DriveError::Refused(why) => why.contains("can not go on"),
        DriveError::Bug(_) => false,
    }
}

impl Race {
    async fn new(number: u64, store: Arc<dyn Store>) -> Self {
        let (run, plan, world) = (format!("race-{number}"), plan(None), World::new());
        store.create(new_run(&run, &plan)).await.unwrap();
        Self { number, store, run, plan, world, begin: (Timestamp::now(), tokio::time::Instant::now()) }
    }

    fn lots(&self, who: u64) -> Lots {
        Lots(self.number.wrapping_mul(1_000_003).wrapping_add(who))
    }

    /// A process that drives the run, perhaps told to stop on the way.
    async fn drive(&self, who: u64, hours: i64, purpose: Purpose, stopped: bool) -> Option<Finish> {
        let mut lots = self.lots(who);
        tokio::time::sleep(lots.pause(20)).await;
        let (halt, watched) = watch::channel(Halt::No);
        let after = lots.pause(60);
        let process = Process { world: Arc::clone(&self.world), lots: Mutex::new(lots) };
        let clock = Ticking::ahead(self.begin, hours);
        let drive = driver(&self.store, process, &format!("p{who}"), Arc::new(clock), watched)
            .drive(&self.run, purpose);
        let stopping = async {
            tokio::time::sleep(after).await;
            if stopped {
                halt.send_replace(Halt::Gently);
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(StdDuration::from_secs(120), drive) => ended,
            () = stopping => unreachable!("it waits for ever"),
        };
        match ended.unwrap_or_else(|_| panic!("race {}: process {who} hangs", self.number)) {
            Ok(finish) => Some(finish),
            Err(error) => {
                assert!(fair(&error), "race {}: process {who}: {error:?}", self.number);
                None
            }
        }
    }

    async fn state(&self) -> RunState {
        load_state(&*self.store, &self.run, &self.plan).await.unwrap()
    }

    /// Adds one event from another terminal, if it is still fitting; whether it was.
    async fn append(&self, make: impl Fn(&RunState) -> Option<EventKind>) -> bool {
        loop {
            let mut state = self.state().await;
            let Some(what) = make(&state) else { return false };
            let after = state.seq;
            let event = Event { seq: after + 1, at: Timestamp::now(), what };
            if state.apply(&self.plan, &event).is_err() {
                return false;
            }
            let append = Write::Append { after, events: vec![event], status: state.status };
            match self.store.commit(&self.run, Fence::Foreign, vec![append]).await {
                Ok(()) => return true,
                Err(StoreError::Conflict) => {}
                Err(error) => panic!("race {}: {error}", self.number),
            }
        }
    }

    async fn answer(&self, who: u64) -> u32 {
        let mut lots = self.lots(who);
        for _ in 0..40 {
            tokio::time::sleep(lots.pause(10)).await;
            let given = self.append(|state| answered(state, who)).await;
            if given {
                return 1;
            }
        }
        0
    }

    async fn cancel(&self, who: u64) -> bool {
        tokio::time::sleep(self.lots(who).pause(120)).await;
        self.append(|state| {
            (!state.status.is_final()).then(|| EventKind::CancelRequested { by: "them".to_owned() })
        })
        .await
    }

    async fn run(&self) {
        let mut lots = self.lots(0);
        let (steals, cancels, stops) = (lots.draw(3) == 0, lots.draw(3) == 0, lots.draw(3) == 0);
        let hours = i64::from(steals);
        let cancelled = async { if cancels { self.cancel(5).await } else { false } };
        let (_, _, first, second, cancelled) = tokio::join!(
            self.drive(1, 0, Purpose::GoOn, stops),
            self.drive(2, hours, Purpose::Resume, false),
            self.answer(3),
            self.answer(4),
            cancelled,
        );
        // Whoever comes last ends what is left.
        for turn in 0..30 {
            let state = self.state().await;
            if state.status.is_final() {
                break;
            }
            self.append(|state| answered(state, 6)).await;
            self.drive(10 + turn, 2 + i64::try_from(turn).unwrap(), Purpose::Resume, false).await;
        }
        self.check(cancelled, first + second).await;
    }

    async fn check(&self, cancelled: bool, answers: u32) {
        let (state, number) = (self.state().await, self.number);
        let events = self.store.events(&self.run, 0).await.unwrap();
        let expected = if cancelled { RunStatus::Cancelled } else { RunStatus::Succeeded };
        assert!(state.status == expected, "race {number}: {state:#?}\n{events:#?}");
        assert_eq!(self.world.value(), ORIGINAL, "race {number}: {events:#?}");
        let mut held = self.store.obligations().await.unwrap();
        held.retain(|one| one.run == self.run);
        assert!(held.is_empty(), "race {number}: {held:?}");
        // A process that was taken for dead while it lived may finish the batch it was in, and no more.
        let takeovers = state.claims - 1;
        let batches = self.world.batches.lock().unwrap().clone();
        let repeated: u32 = batches.values().map(|times| times - 1).sum();
        assert!(repeated <= takeovers, "race {number}: {batches:?} in {takeovers} takeovers");
        let bare = self.world.bare.lock().unwrap().len();
        assert!(bare <= takeovers as usize, "race {number}: {bare} batches without the freeze");
        let items = self.store.counter(&self.run, "run:items").await.unwrap();
        assert!(items <= BATCHES, "race {number}: {items} items are charged");
        if state.status == RunStatus::Succeeded {
            assert_eq!(batches.len() as u64, BATCHES, "race {number}");
            assert_eq!(items, BATCHES, "race {number}");
        }
        let said = |fits: fn(&EventKind) -> bool| events.iter().filter(|event| fits(&event.what)).count();
        let done = *self.world.once.lock().unwrap() as usize;
        let retries =
            said(|what| matches!(what, EventKind::Answered { answer, .. } if answer.text == "retry"));
        assert!(done <= 1 + retries, "race {number}: what may not be repeated was done {done} times");
        let given = said(|what| matches!(what, EventKind::Answered { step, .. } if step == "ask"));
        let asked = said(|what| matches!(what, EventKind::Asked { step, .. } if step == "ask"));
        assert!(given <= asked, "race {number}: {given} answers to {asked} questions, {answers} by racers");
        for (at, event) in events.iter().enumerate() {
            assert_eq!(event.seq, at as u64 + 1, "race {number}");
        }
    }
}

/// What a person would say to whatever is asked: of an unknown outcome, that it did take effect.
fn answered(state: &RunState, who: u64) -> Option<EventKind> {
    let asking = state.steps.iter().find(|(_, step)| step.status == StepStatus::Asking);
    let text = if asking?.0 == "ask" { "YES" } else { "done" };
    let answer = Answer { text: text.to_owned(), by: format!("person {who}"), at: Timestamp::now() };
    Some(EventKind::Answered { step: asking?.0.clone(), answer })
}

#[test]
fn races_on_the_memory_store_are_won_by_one() {
    for number in races(1500) {
        // Its time goes on only when nothing else does, so that a race is the same each time and takes no time.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            Race::new(number, Arc::new(MemoryStore::new())).await.run().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_on_the_sqlite_store_are_won_by_one() {
    let folder = tempfile::tempdir().unwrap();
    // Two handles on one file, as two processes have.
    let path = folder.path().join("state.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).await.unwrap());
    let other: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).await.unwrap());
    let all: Vec<u64> = races(120).collect();
    for some in all.chunks(40) {
        let mut together = tokio::task::JoinSet::new();
        for number in some.iter().copied() {
            let store = Arc::clone(if number % 2 == 0 { &store } else { &other });
            together.spawn(async move { Race::new(number, store).await.run().await });
        }
        while let Some(ended) = together.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn of_runs_with_one_lock_key_one_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(&folder.path().join("state.db")).await.unwrap();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new()), Arc::new(sqlite)];
    for store in stores {
        for round in 0..20 {
            let plan = plan(Some(format!("key-{round}")));
            let mut racing = tokio::task::JoinSet::new();
            for who in 0..8 {
                let (store, run) = (Arc::clone(&store), new_run(&format!("run-{round}-{who}"), &plan));
                racing.spawn(async move { store.create(run).await });
            }
            let ended = racing.join_all().await;
            assert_eq!(ended.iter().filter(|one| one.is_ok()).count(), 1, "{ended:?}");
            assert!(ended.iter().all(|one| matches!(one, Ok(()) | Err(StoreError::Locked { .. }))));
        }
    }
}
