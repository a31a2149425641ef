//! `command`, with real processes.

use std::path::Path;
use std::time::{Duration, Instant};

use runbook_engine::drive::{Finish, Halt, Purpose};
use runbook_engine::duration::Duration as Spell;
use runbook_engine::error::{ErrorKind, Outcome};
use runbook_engine::plan::{Limits, PlannedStep, Retry};
use runbook_engine::state::{RunStatus, StepStatus};
use runbook_engine::store::Store;
use serde_json::{Value, json};

use crate::driven::{Driven, error, outputs, step, text, until};

fn driven() -> Driven {
    Driven::new(&json!({}), &json!({}))
}

fn shell(script: &str, more: Value) -> Value {
    let mut with = json!({ "argv": ["sh", "-c", script] });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with
}

fn alive(pid_file: &Path) -> bool {
    let pid = text(pid_file);
    // A zombie that nobody waits for is dead.
    let stat = text(Path::new(&format!("/proc/{}/stat", pid.trim())));
    !pid.trim().is_empty() && !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn arguments_and_variables_arrive_as_they_are() {
    let driven = driven();
    let argv = json!(["printf", "%s|", "a b", "$HOME; `id` \"x\"", 5, true]);
    let with = json!({ "argv": argv });
    let env = shell("printf %s \"$VALUE\"; pwd", json!({"env": {"VALUE": "$(id) 'x'\n"}, "cwd": "/"}));
    let state = driven.run("r", vec![step("a", "command", with), step("b", "command", env)]).await;
    assert_eq!(outputs(&state, "a")["stdout"], "a b|$HOME; `id` \"x\"|5|true|");
    assert_eq!(outputs(&state, "a")["exit_code"], 0);
    assert_eq!(outputs(&state, "b")["stdout"], "$(id) 'x'\n/\n");
}

#[tokio::test]
async fn output_is_parsed_and_bounded() {
    let driven = driven();
    let json = shell("echo '{\"count\": 3}'", json!({"parse": "json"}));
    let lines = shell("printf 'a\\nb\\n'; exit 3", json!({"parse": "lines", "expect_exit": [0, 3]}));
    let long = shell("yes 0123456789 | head -c 1000000", json!({}));
    let state = driven
        .run("r", vec![step("j", "command", json), step("l", "command", lines), step("t", "command", long)])
        .await;
    assert_eq!(outputs(&state, "j")["json"], json!({"count": 3}));
    assert_eq!(outputs(&state, "l")["lines"], json!(["a", "b"]));
    assert_eq!(outputs(&state, "l")["exit_code"], 3);
    assert_eq!(outputs(&state, "t")["stdout"].as_str().unwrap().len(), 64 * 1024);
    for (id, with) in [
        ("not json", shell("echo no", json!({"parse": "json"}))),
        ("too long", shell("yes | head -c 100000", json!({"parse": "lines"}))),
    ] {
        let state = driven.run(id, vec![step("x", "command", with)]).await;
        assert_eq!(error(&state, "x").kind, ErrorKind::Refused, "{id}");
    }
}

#[tokio::test]
async fn a_wrong_exit_code_is_refused_with_its_last_words() {
    let driven = driven();
    let state = driven
        .run("r", vec![step("x", "command", shell("echo out; echo no space left >&2; exit 2", json!({})))])
        .await;
    let error = error(&state, "x");
    assert_eq!((error.kind, error.outcome), (ErrorKind::Refused, Outcome::Failed));
    assert_eq!(error.message, "`sh` exited with 2");
    assert_eq!(error.causes, ["no space left"]);
    let missing = json!({"argv": ["/no/such/program"]});
    let state = driven.run("s", vec![step("x", "command", missing)]).await;
    assert_eq!(crate::driven::error(&state, "x").kind, ErrorKind::Refused);
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_pipe_open_is_not_waited_for_nor_killed() {
    let driven = driven();
    let script = format!("sleep 20 & echo $! > {}; echo done", driven.path("pid").display());
    let begun = Instant::now();
    let state = driven.run("r", vec![step("x", "command", shell(&script, json!({})))]).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(outputs(&state, "x")["stdout"], "done\n");
    assert!(alive(&driven.path("pid")));
    let pid = text(&driven.path("pid")).trim().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group_even_when_it_ignores_term() {
    let driven = driven();
    let pid = driven.path("pid");
    let script = format!("trap '' TERM; (trap '' TERM; sleep 30; true) & echo $! > {}; wait", pid.display());
    let with = shell(&script, json!({"timeout": "300ms", "grace": "200ms"}));
    let begun = Instant::now();
    driven.create("r", vec![step("x", "command", with)]).await;
    let Finish::Waiting(state, asking) = driven.drive("r", Purpose::GoOn).await.unwrap() else { panic!() };
    assert_eq!(asking, ["x"], "nobody declared that it may be repeated, so a person is asked");
    let error = error(&state, "x");
    assert_eq!((error.kind, error.outcome), (ErrorKind::Timeout, Outcome::Unknown));
    assert!(begun.elapsed() < Duration::from_secs(10));
    until(|| !alive(&pid)).await;
}

#[tokio::test]
async fn a_timeout_ends_what_left_the_group_too() {
    let driven = driven();
    let pid = driven.path("pid");
    let script = format!("setsid -w sh -c 'echo $$ > {}; sleep 100; true'; true", pid.display());
    driven
        .create("r", vec![step("x", "command", shell(&script, json!({"timeout": "2s", "grace": "200ms"})))])
        .await;
    let finish = driven.drive("r", Purpose::GoOn).await.unwrap();
    assert!(matches!(finish, Finish::Waiting(..)), "{finish:?}");
    assert_ne!(text(&pid), "");
    until(|| !alive(&pid)).await;
}

#[tokio::test]
async fn stopping_the_run_ends_the_program_gently_and_it_runs_again_when_it_may() {
    let driven = driven();
    let script = format!(
        "trap 'echo term >> {0}; exit 0' TERM; echo start >> {0}; if [ -e {1} ]; then exit 0; fi; sleep 30 & wait",
        driven.path("log").display(),
        driven.path("go").display()
    );
    let effect = json!({"effect": {"class": "write", "repeat": "repeatable"}});
    driven.create("r", vec![step("x", "command", shell(&script, effect))]).await;
    let log = driven.path("log");
    let (finish, ()) = tokio::join!(driven.drive("r", Purpose::GoOn), async {
        until(|| text(&log).contains("start")).await;
        driven.halt.send_replace(Halt::Gently);
    });
    let Finish::Halted(state) = finish.unwrap() else { panic!() };
    assert_eq!(state.step("x").unwrap().status, StepStatus::Interrupted);
    assert_eq!(text(&log), "start\nterm\n");
    std::fs::write(driven.path("go"), "").unwrap();
    driven.halt.send_replace(Halt::No);
    let state = driven.ended("r", Purpose::GoOn).await;
    assert_eq!(state.status, RunStatus::Succeeded);
    assert_eq!(text(&log), "start\nterm\nstart\n");
}

#[tokio::test]
async fn a_crash_of_the_loop_leaves_no_process_behind() {
    let driven = driven();
    let pid = driven.path("pid");
    let script = format!("sleep 30 & echo $! > {}; wait", pid.display());
    driven.create("r", vec![step("x", "command", shell(&script, json!({})))]).await;
    driven.crash("r", Purpose::GoOn, || alive(&pid)).await;
    until(|| !alive(&pid)).await;
}

/// A step that destroys so many items by `script`, may be repeated, and may destroy `most` items in all.
fn destroying(script: &str, items: Value, most: u64) -> PlannedStep {
    let effect = json!({ "class": "destroy", "repeat": "repeatable", "items": items });
    let limits = Limits { max_items: Some(most), ..Limits::default() };
    let retry = Retry { max_attempts: 3, delay: Spell::from_millis(1), ..Retry::default() };
    PlannedStep { limits, retry, ..step("x", "command", shell(script, json!({ "effect": effect }))) }
}

#[tokio::test]
async fn the_limits_are_asked_before_a_program_destroys() {
    let driven = driven();
    let script = format!("echo ran >> {}", driven.path("log").display());
    for (id, items, most, ran) in [
        ("too many", json!(6), 5, false),
        ("as many", json!(5), 5, true),
        ("nobody said", json!(null), 0, false),
        ("nobody said, one", json!(null), 1, true),
    ] {
        let _ = std::fs::remove_file(driven.path("log"));
        driven.create(id, vec![destroying(&script, items, most)]).await;
        let finish = driven.drive(id, Purpose::GoOn).await.unwrap();
        assert_eq!(driven.path("log").exists(), ran, "{id}");
        let Finish::Ended(state) = finish else { panic!("{id}: {finish:?}") };
        if !ran {
            assert_eq!(
                (error(&state, "x").kind, error(&state, "x").outcome),
                (ErrorKind::Limit, Outcome::Failed)
            );
        }
        let counted = driven.store.counter(id, "run:items").await.unwrap();
        assert_eq!(counted, if ran { most } else { 0 }, "{id}");
    }
}

#[tokio::test]
async fn a_repetition_is_not_charged_again() {
    let driven = driven();
    // Dies of itself, then is cut off by a crash, then fails for good, is reopened and succeeds; then the work is done once more.
    let log = driven.path("log");
    let script = format!(
        "echo x >> {0}; case $(wc -l < {0}) in 1) exit 1;; 2) sleep 30;; 3) exit 1;; *) exit 0;; esac",
        log.display()
    );
    let destroying = PlannedStep { retry: Retry::default(), ..destroying(&script, json!(4), 8) };
    let failing = |id: &str| step(id, "command", shell("exit 1", json!({})));
    driven.create_with_finally("r", vec![failing("f")], vec![destroying]).await;
    let lines = || text(&log).lines().count();
    let charged = async || driven.store.counter("r", "run:items").await.unwrap();
    driven.ended("r", Purpose::GoOn).await;
    assert_eq!((lines(), charged().await), (1, 4));
    driven.crash("r", Purpose::Resume, || lines() == 2).await;
    assert_eq!(charged().await, 4);
    driven.ended("r", Purpose::GoOn).await;
    assert_eq!((lines(), charged().await), (3, 4));
    driven.ended("r", Purpose::Resume).await;
    assert_eq!((lines(), charged().await), (4, 4));
    let view = driven.store.ledger("r", "x").await.unwrap();
    assert_eq!((view.done, view.unsettled.len(), view.last_batch), (4, 0, 4));
    driven.ended("r", Purpose::Resume).await;
    assert_eq!((lines(), charged().await), (5, 8), "what is done again after it was done is charged again");
    let state = driven.ended("r", Purpose::Resume).await;
    assert_eq!((lines(), error(&state, "x").kind), (5, ErrorKind::Limit));
}

#[tokio::test]
async fn after_a_crash_the_check_tells_whether_it_is_to_be_run_again() {
    // What the check says of an attempt that was cut short, and how often the program ran in the end.
    for (check, runs, stdout) in [("echo it is; exit 0", 1, "it is\n"), ("exit 1", 2, "")] {
        let driven = driven();
        let log = driven.path("log");
        let script = format!("echo x >> {0}; [ $(wc -l < {0}) -gt 1 ] || sleep 30", log.display());
        let looked = format!(
            "echo x >> {}; test $OURS = 1 && test $MORE = 2 || exit 9; {check}",
            driven.path("looked").display()
        );
        let with = json!({
            "env": { "OURS": "1" },
            "effect": { "class": "write", "repeat": "once" },
            "check": { "argv": ["sh", "-c", looked], "env": { "MORE": "2" } },
        });
        driven.create("r", vec![step("x", "command", shell(&script, with))]).await;
        driven.crash("r", Purpose::GoOn, || !text(&log).is_empty()).await;
        assert_eq!(text(&driven.path("looked")), "", "nothing is looked for before it has run");
        let state = driven.ended("r", Purpose::GoOn).await;
        assert_eq!((text(&log).lines().count(), text(&driven.path("looked")).as_str()), (runs, "x\n"));
        assert_eq!(outputs(&state, "x")["stdout"], stdout, "{check}");
        assert!(driven.store.ledger("r", "x").await.unwrap().unsettled.is_empty());
    }
}

#[tokio::test]
async fn a_check_that_knows_nothing_fails_the_step_and_is_asked_again() {
    let driven = driven();
    let (log, says) = (driven.path("log"), driven.path("says"));
    std::fs::write(&says, "3").unwrap();
    let script = format!("echo x >> {}; sleep 30", log.display());
    let look = format!("echo no route >&2; exit $(cat {})", says.display());
    let with = json!({ "effect": { "class": "write", "repeat": "once" }, "timeout": "300ms", "check": { "argv": ["sh", "-c", look] } });
    driven.create("r", vec![step("x", "command", shell(&script, with))]).await;
    // It takes too long: nobody knows what came of it.
    let state = driven.ended("r", Purpose::GoOn).await;
    assert_eq!(error(&state, "x").kind, ErrorKind::Timeout);
    let state = driven.ended("r", Purpose::Resume).await;
    let told = error(&state, "x");
    assert_eq!(told.message, "the check `sh` exited with 3: nobody knows whether `sh` took effect");
    assert_eq!(told.causes, ["no route"]);
    std::fs::write(&says, "0").unwrap();
    let state = driven.ended("r", Purpose::Resume).await;
    assert_eq!((state.status, text(&log).as_str()), (RunStatus::Succeeded, "x\n"));
}
