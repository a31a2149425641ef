//! The reset killed at its crash points: the database is wiped once, behind three phrases, and there is never a ring without its roles.
//! A few points are tried each time; `WHOLE=1 cargo nextest run --features crash-points -E 'binary(hub) and test(kills)'` tries all of them.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use runbook_engine::question::Question;
use runbook_engine::state::{RunState, RunStatus, StepStatus};

use crate::bench::{Bench, PHRASES, ROWS, lines_in};
use crate::typist::at_terminal;

/// What a crash in the middle of would cost most: each is tried before and after.
const EFFECTS: [&str; 4] = ["backup: ", "redis-flush: flush", "sql-reset: commit", "sql: commit"];

/// How many points after each of them are tried too, while it is being recorded.
const AFTER: usize = 2;

/// Of the other points one in so many is tried each time.
const STRIDE: usize = 262;

/// How many commands a person types at most.
const COMMANDS: usize = 12;

/// The number of the signal that a process ends itself with.
const ABORTED: i32 = 6;

/// Where the process is killed: in which command, from 0, and at which of its points, from 1.
#[derive(Clone, Copy, Debug)]
struct Crash {
    command: usize,
    point: usize,
}

/// What was seen of the world so far.
#[derive(Default)]
struct Seen {
    /// The table of the rings, once it is another one.
    made: Option<String>,
    /// The root ring, once there is one in it.
    ring: Option<String>,
}

fn log(bench: &Bench, command: usize) -> PathBuf {
    bench.path(&format!("points-{command}"))
}

/// The names of the points that a command passed.
fn points(bench: &Bench, command: usize) -> Vec<String> {
    let text = std::fs::read_to_string(log(bench, command)).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
}

/// The phrases that were given so far.
fn given(state: Option<&RunState>) -> Vec<String> {
    let answers = state.and_then(|state| state.step("confirm")).map(|step| step.answers.clone());
    answers.unwrap_or_default().into_iter().map(|answer| answer.text).collect()
}

/// What a person types next, and at the question that comes then; nothing when it is over.
fn next(newest: Option<&(String, RunState)>) -> Option<(Vec<String>, Option<String>)> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let Some((id, state)) = newest else {
        return Some((words(&["exec", "reset-production", "-i", "environment=staging"]), None));
    };
    if state.status.is_final() {
        return None;
    }
    let asking = state.steps.values().find(|step| step.status == StepStatus::Asking);
    match asking.and_then(|step| step.question.as_ref()) {
        Some(Question::Phrase { phrase, .. }) => Some((words(&["answer", id]), Some(phrase.clone()))),
        Some(other) => panic!("nobody has to be asked: {other:?}"),
        None => Some((words(&["resume", id]), None)),
    }
}

/// Types what a person would, and is killed once, to the end or, with `cancel`, to the crash.
async fn typed(bench: &Bench, crash: Option<Crash>, cancel: bool) -> (Option<RunState>, String) {
    let original = bench.texts(MADE).await;
    let mut seen = Seen::default();
    for command in 0..COMMANDS {
        let newest = bench.newest().await;
        bench.look(&original[0], newest.as_ref().map(|(_, state)| state), &mut seen).await;
        let over = cancel && crash.is_some_and(|crash| crash.command < command);
        let Some((words, phrase)) = next(newest.as_ref()).filter(|_| !over) else {
            return newest.map_or((None, String::new()), |(id, state)| (Some(state), id));
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut typed = bench.command(&words);
        typed.env("RUNBOOK_CRASH_LOG", log(bench, command));
        let killed = crash.filter(|crash| crash.command == command);
        if let Some(crash) = killed {
            typed.env("RUNBOOK_CRASH_AT", crash.point.to_string());
        }
        let (code, said) = if let Some(phrase) = &phrase {
            at_terminal(typed, &[phrase]).await
        } else {
            let output = typed.output().await.unwrap();
            let code = output.status.code().or(output.status.signal().map(|signal| -signal));
            (code.unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        match killed {
            Some(_) => assert_eq!(code, -ABORTED, "{words:?}: {said}"),
            None => assert!(matches!(code, 0 | 5), "{words:?}: {said}"),
        }
    }
    panic!("it does not end in {COMMANDS} commands");
}

const MADE: &str = r#"select '"Ring"'::regclass::oid::text"#;

impl Bench {
    /// Everything as in the beginning.
    async fn refill(&self) {
        for name in ["state", "backups", "reports"] {
            // It may not be there.
            let _ = std::fs::remove_dir_all(self.path(name));
        }
        std::fs::create_dir(self.path("backups")).unwrap();
        (0..COMMANDS).for_each(|command| drop(std::fs::remove_file(log(self, command))));
        self.kit.order("stop", "hub-api").await.unwrap();
        self.execute("drop schema public cascade; create schema public").await;
        self.execute(runbook_sandbox::hub::SCHEMA).await;
        self.execute(runbook_sandbox::scenes::hub::PRODUCTION).await;
        let client = redis::Client::open(self.kit.var("REDIS_URL")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
        for database in [1, 0] {
            redis::cmd("SELECT").arg(database).query_async::<()>(&mut connection).await.unwrap();
            redis::cmd("SET").arg("key").arg("value").query_async::<()>(&mut connection).await.unwrap();
        }
        self.kit.order("start", "hub-api").await.unwrap();
    }

    /// What may never be, however it was killed.
    async fn look(&self, original: &str, state: Option<&RunState>, seen: &mut Seen) {
        let given = given(state);
        assert_eq!(given, PHRASES[..given.len()], "the phrases are asked for in their order, each once");
        let made = self.texts(MADE).await.remove(0);
        if given.len() < PHRASES.len() {
            assert_eq!(made, original, "wiped without the phrases");
            self.assert_untouched().await;
        }
        if made == original {
            return;
        }
        assert_eq!(*seen.made.get_or_insert_with(|| made.clone()), made, "wiped twice");
        let rings = r#"select concat_ws(' ', r.id, count(o.id)) from "Ring" r left join "RingRole" o on o."ringId" = r.id group by r.id"#;
        let rings = self.texts(rings).await;
        assert!(rings.len() <= 1 && rings.iter().all(|ring| ring.ends_with(" 3")), "{rings:?}");
        if let Some(ring) = rings.into_iter().next().or(seen.ring.clone().map(|_| "none".to_owned())) {
            assert_eq!(*seen.ring.get_or_insert_with(|| ring.clone()), ring, "the root ring was made twice");
        }
    }
}

/// One trial: killed there, and then to the end.
async fn killed(bench: &Bench, crash: Crash) {
    bench.refill().await;
    let (state, _) = typed(bench, Some(crash), false).await;
    let state = state.unwrap();
    assert_eq!(state.status, RunStatus::Succeeded, "{state:#?}");
    assert_eq!(given(Some(&state)), PHRASES);
    bench.assert_reset().await;
    let probes = "select datname::text from pg_database where datname like 'runbook%'";
    assert_eq!(bench.texts(probes).await, Vec::<String>::new(), "a database of a probe is left");
    assert_eq!(
        std::fs::read_dir(bench.path("backups")).unwrap().count(),
        2,
        "one backup, what brings it back, and nothing half made"
    );
}

/// Whether what is durable at a point is what was durable at the one before: it stands inside a transaction of the state.
fn is_inside(name: &str) -> bool {
    name.starts_with("at store: ") && !name.ends_with(": transaction") && !name.ends_with(": committed")
}

/// The points at which it is killed, of those that each command passed; the command that wipes comes first.
fn chosen(passed: &[Vec<String>]) -> Vec<Crash> {
    let all = passed.iter().enumerate().rev().flat_map(|(command, names)| {
        names.iter().enumerate().map(move |(at, name)| (name, Crash { command, point: at + 1 }))
    });
    let whole = std::env::var_os("WHOLE").is_some();
    let all: Vec<(&String, Crash)> = all.filter(|(name, _)| !is_inside(name)).collect();
    let is_effect = |at: usize| EFFECTS.iter().any(|effect| all[at].0.contains(effect));
    let near = |at: usize| (at.saturating_sub(AFTER)..=at).any(is_effect);
    (0..all.len()).filter(|&at| whole || at % STRIDE == 0 || near(at)).map(|at| all[at].1).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_it_wipes_once_and_asks_for_every_phrase() {
    let bench = Arc::new(Bench::start().await);
    bench.refill().await;
    typed(&bench, None, false).await;
    bench.assert_reset().await;
    let passed: Vec<Vec<String>> = (0..4).map(|command| points(&bench, command)).collect();
    for effect in EFFECTS {
        assert!(passed[3].iter().any(|name| name.contains(effect)), "{effect}: {passed:?}");
    }
    let mut failed = Vec::new();
    let chosen = chosen(&passed);
    let number = chosen.len();
    for crash in chosen {
        let name = &passed[crash.command][crash.point - 1];
        println!("killed in command {} at point {}, {name}", crash.command, crash.point);
        let beside = Arc::clone(&bench);
        // A trial that panics is told with all others that do.
        if let Err(error) = tokio::spawn(async move { killed(&beside, crash).await }).await {
            failed.push(format!("{crash:?}, {name}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{} of {number} trials failed:\n{}", failed.len(), failed.join("\n"));
    println!("{number} trials");
}

#[tokio::test]
async fn cancelled_after_a_crash_in_the_wipe_what_is_gone_is_told_and_the_way_back_leads_there() {
    let bench = Bench::start().await;
    bench.refill().await;
    typed(&bench, None, false).await;
    let passed = points(&bench, 3);
    for (at, name) in passed.iter().enumerate() {
        let only_redis = match name.as_str() {
            "after redis-flush: flush" => Some("Redis may have been emptied"),
            "before sql-reset: commit" => Some("Redis HAS BEEN EMPTIED"),
            _ => None,
        };
        if only_redis.is_none() && name != "after sql-reset: commit" && !name.ends_with(" sql: commit") {
            continue;
        }
        bench.refill().await;
        let (_, run) = typed(&bench, Some(Crash { command: 3, point: at + 1 }), true).await;
        let said = bench.expect(6, &["cancel", &run]).await;
        if let Some(told) = only_redis {
            assert!(said.contains("The database was not wiped") && said.contains(told), "{name}: {said}");
            continue;
        }
        assert!(said.contains("HAS BEEN WIPED"), "{name}: {said}");
        // The hub runs again: it is stopped first, and started last.
        let lines = lines_in(&said);
        assert_eq!(lines.len(), 3, "{name}: {said}");
        assert!(!said.contains("runbook resume"), "{name}: {said}");
        for line in lines {
            let (code, typed) = bench.type_line(&line).await;
            assert_eq!(code, 0, "{name}: {line}: {typed}");
        }
        let before = ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect();
        assert_eq!(bench.rows().await, before, "{name}");
        assert_eq!(bench.hub("/trp/rings/spool").await.1["name"], "Ring 1", "{name}");
    }
}

#[tokio::test]
async fn resumed_without_its_backup_it_wipes_nothing() {
    let bench = Bench::start().await;
    bench.refill().await;
    typed(&bench, None, false).await;
    let point = 1 + points(&bench, 3).iter().position(|name| name == "before sql-reset: commit").unwrap();
    bench.refill().await;
    let (_, run) = typed(&bench, Some(Crash { command: 3, point }), true).await;
    let backup = bench.path("backups").join(format!("before-reset-{run}.dump"));
    let whole = std::fs::read(&backup).unwrap();
    std::fs::remove_file(&backup).unwrap();
    let said = bench.expect(4, &["resume", &run]).await;
    assert!(
        said.contains("can not be read any more") && said.contains("The database was not wiped"),
        "{said}"
    );
    assert!(said.contains("IS NOT THERE ANY MORE"), "{said}");
    assert_eq!(bench.rows().await, ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect());
    std::fs::write(&backup, whole).unwrap();
    bench.expect(0, &["resume", &run]).await;
    bench.assert_reset().await;
}
