//! What only a file can show: crashes, several processes, damage.

use std::io::BufRead as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use runbook_engine::state::RunStatus;
use runbook_engine::store::sqlite::SqliteStore;
use runbook_engine::store::{Fence, NewRun, Store, StoreError, Write};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::support::*;

/// Set for the process that is killed: the file it writes to.
const VICTIM: &str = "RUNBOOK_TEST_VICTIM";

async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(20));
    options.connect().await.unwrap()
}

async fn execute(connection: &mut SqliteConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

/// A batch and a counter that belong together.
fn paired(step: &str, batch: u64) -> Vec<Write> {
    vec![
        Write::Remember { step: step.to_owned(), name: batch.to_string(), value: json!(batch) },
        intend(step, batch, vec![charge(step, 1, None)]),
        settle(step, batch, json!(batch), 0),
    ]
}

/// The batches of a step, after a check that everything written with them is there.
async fn whole_batches(store: &dyn Store, run: &str, step: &str) -> Vec<u64> {
    let rows = store.batches(run, step, 0, usize::MAX, false).await.unwrap();
    for row in &rows {
        let settled = row.settled.as_ref().expect("announced and settled in one commit");
        assert_eq!(settled.cursor, json!(row.batch));
        let fact = store.recall(run, step, &row.batch.to_string()).await.unwrap();
        assert_eq!(fact, Some(json!(row.batch)));
    }
    assert_eq!(store.counter(run, step).await.unwrap(), rows.len() as u64);
    rows.into_iter().map(|row| row.batch).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Arc::new(open(&path).await);
    let fence = owned(&*store, "a").await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..32 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for batch in 1..=20 {
                store.commit("a", fence, paired(&format!("s{task}"), batch)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    store.close().await;
    assert!(matches!(store.commit("a", fence, Vec::new()).await, Err(StoreError::Io(_))), "it is closed");
    store.close().await;
    assert!(!folder.path().join("state.db-wal").exists(), "closed cleanly");
    let store = open(&path).await;
    for task in 0..32 {
        assert_eq!(whole_batches(&store, "a", &format!("s{task}")).await, (1..=20).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_caller_loses_nothing_and_halves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path).await;
    let fence = owned(&store, "a").await;
    let mut handed_over = 0;
    for batch in 1..=200 {
        let mut commit = store.commit("a", fence, paired("s", batch));
        // Polled once, it is in the queue, which is long enough for all of them; then its caller goes away.
        assert!((&mut commit).now_or_never().is_none());
        drop(commit);
        handed_over += 1;
        // A task that polls for too long without a rest is told to wait whether it must or not.
        tokio::task::yield_now().await;
    }
    store.close().await;
    let store = open(&path).await;
    assert_eq!(whole_batches(&store, "a", "s").await, (1..=handed_over).collect::<Vec<_>>());
}

/// Not a test of its own: the process that is killed. It says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let store = Arc::new(open(Path::new(&path)).await);
    let epoch = store.run("a").await.unwrap().unwrap().epoch;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let step = format!("s{task}");
            let first = store.ledger("a", &step).await.unwrap().last_batch + 1;
            for batch in first..first + 100_000 {
                store.commit("a", Fence::Owner(epoch), paired(&step, batch)).await.unwrap();
                println!("acknowledged {task} {batch}");
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged_and_halves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path).await;
    owned(&store, "a").await;
    store.close().await;
    let mut lot = Lot(9);
    let mut last = [0; 8];
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["durability::victim", "--exact", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = last;
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = 20 + lot.draw(200);
        let mut note = |line: String| {
            // The first one shares its line with the test's name.
            let Some((_, numbers)) = line.split_once("acknowledged ") else { return false };
            let (task, batch) = numbers.split_once(' ').unwrap();
            last[task.parse::<usize>().unwrap()] = batch.parse::<u64>().unwrap();
            true
        };
        let mut acknowledged = 0;
        while acknowledged < enough {
            let line = lines.next().expect("the process ended by itself").unwrap();
            acknowledged += u64::from(note(line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts too, except for a line it did not complete.
        let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
        rest.pop();
        for line in rest {
            note(line);
        }
        assert_ne!(before, last, "round {round} got nowhere");
        let store = open(&path).await;
        for (task, acknowledged) in last.iter().enumerate() {
            let there = whole_batches(&store, "a", &format!("s{task}")).await;
            assert_eq!(there, (1..=there.len() as u64).collect::<Vec<_>>(), "no gap");
            assert!(there.len() as u64 >= *acknowledged, "round {round}: {acknowledged} of {there:?}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_open_a_new_file_and_share_it() {
    for round in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let path = path.clone();
            opening.spawn(async move { SqliteStore::open(&path).await });
        }
        let opened = opening.join_all().await;
        let stores: Vec<Arc<SqliteStore>> =
            opened.into_iter().map(|store| Arc::new(store.unwrap())).collect();
        create(&*stores[0], "a").await;
        create(&*stores[1], "b").await;
        for race in 0..20 {
            let now = at(race * 10);
            let mut tasks = tokio::task::JoinSet::new();
            for store in stores.clone() {
                tasks.spawn(async move {
                    store.claim("a", "me", now, now + jiff::SignedDuration::from_secs(10)).await
                });
            }
            let results = tasks.join_all().await;
            let won: Vec<u64> = results.iter().filter_map(|result| result.as_ref().ok().copied()).collect();
            assert_eq!(won, [u64::try_from(race).unwrap() + 1], "round {round}: {results:?}");
            let after = 1 + u64::try_from(race).unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            for store in stores.clone() {
                let write = append(after, RunStatus::Running);
                tasks.spawn(async move { store.commit("a", Fence::Foreign, vec![write]).await });
            }
            let results = tasks.join_all().await;
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
            assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(StoreError::Conflict))));
        }
        one_holds_the_target_and_one_the_lock(&stores).await;
    }
}

async fn one_holds_the_target_and_one_the_lock(stores: &[Arc<SqliteStore>]) {
    let mut tasks = tokio::task::JoinSet::new();
    for (n, store) in stores.iter().cloned().enumerate() {
        tasks.spawn(async move {
            let id = format!("own{n}");
            let fence = owned(&*store, &id).await;
            let held = store.commit(&id, fence, vec![open_obligation("o", "T")]).await;
            let locked = store.create(new_run(&format!("locking{n}"), Some("key"))).await;
            (held, locked)
        });
    }
    let results = tasks.join_all().await;
    assert_eq!(results.iter().filter(|(held, _)| held.is_ok()).count(), 1);
    assert!(results.iter().all(|(held, _)| matches!(held, Ok(()) | Err(StoreError::Held { .. }))));
    assert_eq!(results.iter().filter(|(_, locked)| locked.is_ok()).count(), 1);
    assert!(results.iter().all(|(_, locked)| matches!(locked, Ok(()) | Err(StoreError::Locked { .. }))));
}

/// Commits that wait while somebody else writes, so that they end up in one group.
async fn in_one_group(
    path: &Path,
    store: &Arc<SqliteStore>,
    commits: Vec<(&str, Fence, Vec<Write>)>,
) -> Vec<Result<(), StoreError>> {
    let mut other = raw(path).await;
    execute(&mut other, "begin immediate").await;
    let mut waiting = Vec::new();
    // The first one is taken alone and waits for the file; the others gather behind it.
    for (run, fence, writes) in [("a", Fence::Foreign, Vec::new())].into_iter().chain(commits) {
        let (store, run) = (Arc::clone(store), run.to_owned());
        waiting.push(tokio::spawn(async move { store.commit(&run, fence, writes).await }));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    execute(&mut other, "rollback").await;
    let mut results = Vec::new();
    for task in waiting {
        results.push(task.await.unwrap());
    }
    results.remove(0).unwrap();
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_harms_nobody_else_in_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Arc::new(open(&path).await);
    let a = owned(&*store, "a").await;
    let b = owned(&*store, "b").await;
    let mut fenced = paired("x", 1);
    fenced.push(append(0, RunStatus::Failed));
    let commits = vec![
        ("a", a, paired("s", 1)),
        ("a", a, fenced),
        ("b", Fence::Owner(7), paired("s", 1)),
        ("b", b, paired("s", 1)),
        ("missing", b, paired("s", 1)),
        ("a", a, paired("s", 2)),
    ];
    let results = in_one_group(&path, &store, commits).await;
    let expected = [
        Ok(()),
        Err(StoreError::Conflict),
        Err(StoreError::Fenced),
        Ok(()),
        Err(StoreError::NoSuchRun("missing".to_owned())),
        Ok(()),
    ];
    assert_eq!(results, expected);
    assert_eq!(whole_batches(&*store, "a", "s").await, [1, 2]);
    assert_eq!(whole_batches(&*store, "b", "s").await, [1]);
    assert_eq!(whole_batches(&*store, "a", "x").await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_can_not_commit_fails_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Arc::new(open(&path).await);
    let a = owned(&*store, "a").await;
    // `late` makes the commit itself fail, `gone` has the database give the whole transaction up in the middle of it.
    let mut connection = raw(&path).await;
    execute(
        &mut connection,
        "create table trap (run text references runs (id) deferrable initially deferred); \
         create trigger late after insert on facts when new.name = 'late' begin insert into trap values ('nobody'); end; \
         create trigger gone after insert on facts when new.name = 'gone' begin select raise(rollback, 'no more'); end;",
    )
    .await;
    for (round, name) in ["late", "gone"].into_iter().enumerate() {
        let bad = Write::Remember { step: "s".to_owned(), name: name.to_owned(), value: json!(1) };
        let (good, first) = (format!("good{round}"), u64::try_from(round).unwrap());
        let commits = vec![
            ("a", a, paired(&good, 1)),
            ("a", a, vec![bad]),
            ("a", a, paired(&good, 2)),
            ("a", a, vec![append(99, RunStatus::Failed)]),
        ];
        let results = in_one_group(&path, &store, commits).await;
        assert!(results.iter().all(|result| matches!(result, Err(StoreError::Io(_)))), "{name}: {results:?}");
        assert_eq!(whole_batches(&*store, "a", &good).await, [0; 0]);
        // And it goes on.
        store.commit("a", a, vec![append(1 + first, RunStatus::Running)]).await.unwrap();
        store.commit("a", a, paired(&good, 1)).await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_run_does_not_block_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path).await;
    let good = owned(&store, "good").await;
    let bad = owned(&store, "bad").await;
    for (run, fence) in [("good", good), ("bad", bad)] {
        let mut writes = paired("s", 1);
        writes.push(open_obligation("o", run));
        store.commit(run, fence, writes).await.unwrap();
    }
    let mut connection = raw(&path).await;
    execute(
        &mut connection,
        "update runs set status = 'dancing' where id = 'bad'; update events set body = '{' where run = 'bad'; \
         update obligations set body = 'x', opened_at = 'once' where run = 'bad'; \
         update batches set intent = '[' where run = 'bad'; update counters set amount = -1 where run = 'bad';",
    )
    .await;
    let corrupt = |error: StoreError| matches!(error, StoreError::Corrupt { run, .. } if run == "bad");
    let rows = store.runs(9).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["good"]);
    assert!(corrupt(store.run("bad").await.unwrap_err()));
    assert!(corrupt(store.events("bad", 0).await.unwrap_err()));
    assert!(corrupt(store.batches("bad", "s", 0, 9, false).await.unwrap_err()));
    assert!(corrupt(store.counter("bad", "s").await.unwrap_err()));
    // What is held is shown all the same, and cannot be frozen a second time.
    let open = store.obligations().await.unwrap();
    let shown: Vec<_> = open.iter().map(|one| (one.run.as_str(), one.obligation.target.as_str())).collect();
    assert_eq!(shown, [("good", "good"), ("bad", "bad")]);
    assert!(open[1].obligation.label.contains("the variable bad (its record can not be read)"));
    let again = store.commit("good", good, vec![open_obligation("p", "bad")]).await;
    assert!(matches!(again, Err(StoreError::Held { .. })));
    assert_eq!(whole_batches(&store, "good", "s").await, [1]);
    store.commit("good", good, paired("s", 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_private_and_foreign_ones_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/state.db");
    let url = format!("sqlite:{}", path.display());
    let store = runbook_engine::store::open(&url).await.unwrap();
    create(&*store, "a").await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&path), mode(path.parent().unwrap()), mode(&folder.path().join("a"))),
        (0o600, 0o700, 0o700)
    );
    assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
    store.close().await;

    let mut connection = raw(&path).await;
    let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&mut connection).await.unwrap();
    assert_eq!(mode, "wal");
    execute(&mut connection, "update _sqlx_migrations set version = 999 where version = 2").await;
    connection.close().await.unwrap();
    let Err(StoreError::Io(text)) = SqliteStore::open(&path).await else { panic!("a later file was opened") };
    assert!(text.contains("999"), "{text}");

    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, and long enough to be looked at as one".repeat(90)).unwrap();
    assert!(matches!(SqliteStore::open(&text).await, Err(StoreError::Io(_))));
    let below = text.join("state.db");
    assert!(matches!(SqliteStore::open(&below).await, Err(StoreError::Io(_))));
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date_with_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = SqliteStore::open(&path).await.unwrap();
    create(&store, "a").await;
    store.close().await;
    let mut connection = raw(&path).await;
    execute(&mut connection, "drop index runs_applies; alter table runs drop column applies").await;
    execute(&mut connection, "delete from _sqlx_migrations where version = 2").await;
    connection.close().await.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.run("a").await.unwrap().unwrap().id, "a");
    store.create(NewRun { applies: Some("p".to_owned()), ..new_run("b", None) }).await.unwrap();
    assert_eq!(store.applied("p").await.unwrap(), Some("b".to_owned()));
}

#[tokio::test]
async fn addresses_name_a_store() {
    assert!(runbook_engine::store::open("memory:").await.is_ok());
    for odd in
        ["", "sqlite", "sqlite:", "sqlite://", "sqlite::memory:", "memory", "memory:x", "/tmp/x", "x.db"]
    {
        assert!(matches!(runbook_engine::store::open(odd).await, Err(StoreError::Address(_))), "{odd}");
    }
    let Err(error) = runbook_engine::store::open("mysql://me:hunter2@host/db").await else { panic!() };
    assert_eq!(error.to_string(), "`mysql` is no state store: give `sqlite:PATH` or `memory:`");
}
