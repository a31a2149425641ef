//! Each trap of the procedure, set on purpose: the run stops at the right gate, and nothing is harmed.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use redis::cmd;
use runbook_sandbox::redis::RedisServer;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use crate::bench::{Bench, PHRASES, ROWS, lines_in, run_in};
use crate::typist::at_terminal;

/// A run that has failed and can be resumed keeps its lock until it is cancelled.
async fn cancel(bench: &Bench, said: &str) {
    bench.expect(6, &["cancel", &run_in(said)]).await;
}

/// Fails unless the reset is refused before anybody is asked, in these words, with everything as it was.
async fn refused(bench: &Bench, inputs: &[&str], told: &str) {
    let said = bench.exec(4, inputs).await;
    assert!(said.contains(told), "{told}:\n{said}");
    assert!(!said.contains("asked confirm"), "nobody is asked:\n{said}");
    bench.assert_untouched().await;
    cancel(bench, &said).await;
}

fn openssl(script: &str) -> String {
    let run = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(run.stdout).unwrap()
}

#[tokio::test]
async fn wrong_inputs_and_missing_variables_are_refused_before_anything() {
    let mut bench = Bench::start().await;
    for wrong in [
        "environment=test",
        "ring_hub_url=http://hub.example",
        "instance_did=hub.example",
        "root_ring_slug=The Spool",
        "redis_scope=some",
    ] {
        bench.exec(2, &[wrong]).await;
    }
    for variable in ["DATABASE_URL", "RING_HUB_PRIVATE_KEY", "REDIS_URL"] {
        bench.differs = vec![(variable, String::new())];
        let said = bench.exec(2, &[]).await;
        assert!(said.contains(variable), "{said}");
    }
    bench.differs.clear();
    // There is no way to answer beforehand.
    for flag in ["--yes", "--confirm=confirm=DELETE ALL DATA"] {
        bench.expect(2, &["exec", "reset-production", "-i", "environment=staging", flag]).await;
    }
    assert!(bench.newest().await.is_none());
    bench.assert_untouched().await;
}

#[tokio::test]
async fn production_without_the_proof_of_staging_is_refused() {
    let bench = Bench::start().await;
    refused(&bench, &["environment=production"], "no staging_report").await;
    let report = bench.path("report.json");
    let path = format!("staging_report={}", report.display());
    for (text, told) in [
        (
            r#"{"runbook": "reset-production", "inputs": {"environment": "staging"}, "verdict": "FAIL", "date": "2026-01-01T00:00:00Z"}"#,
            "FAIL",
        ),
        (
            r#"{"runbook": "reset-production", "inputs": {"environment": "production"}, "verdict": "PASS", "date": "2026-01-01T00:00:00Z"}"#,
            "environment",
        ),
    ] {
        std::fs::write(&report, text).unwrap();
        refused(&bench, &["environment=production", &path], told).await;
    }
    std::fs::remove_file(&report).unwrap();
    refused(&bench, &["environment=production", &path], "report.json").await;
}

#[tokio::test]
async fn a_key_that_the_hub_could_not_load_is_told_before_the_prompts() {
    let mut bench = Bench::start().await;
    let pem = openssl("openssl genpkey -algorithm Ed25519");
    let der = openssl("openssl genpkey -algorithm Ed25519 -outform DER | base64 -w0");
    let other = STANDARD.encode(&pem);
    for (key, told) in [
        (pem.trim_end(), "PEM as it stands"),
        (&der, "Base64 of DER"),
        ("hunter2hunter2", "no PEM"),
        // A key of the right form that is not the hub's.
        (&other, "another RING_HUB_PRIVATE_KEY"),
    ] {
        bench.differs = vec![("RING_HUB_PRIVATE_KEY", key.to_owned())];
        refused(&bench, &[], told).await;
    }
}

/// Starts the hub again with this variable; without it when the value is empty.
async fn set(bench: &Bench, variable: &str, value: &str) {
    let mut command = Command::new(runbook_sandbox::sandbox_binary().unwrap());
    command.args(["set", "--control", bench.kit.control_url(), "hub-api", variable]);
    if !value.is_empty() {
        command.arg(value);
    }
    assert!(command.status().unwrap().success());
    bench.kit.order("restart", "hub-api").await.unwrap();
}

#[tokio::test]
async fn a_hub_that_runs_with_something_else_is_told_before_the_prompts() {
    let bench = Bench::start().await;
    for (variable, value, inputs, told) in [
        // What the script never hands into the container.
        ("ROOT_RING_SLUG", "", &["root_ring_slug=root"][..], "would look for another root ring"),
        ("INSTANCE_DID", "did:web:localhost:3000", &[], "owned by somebody else"),
        ("RING_HUB_URL", "", &[], "badges would name another address"),
        ("NODE_ENV", "development", &[], "is this the hub that is meant"),
        ("RING_HUB_PRIVATE_KEY", "", &[], "or with none"),
    ] {
        let name = bench.kit.env().get(variable).cloned();
        set(&bench, variable, value).await;
        refused(&bench, inputs, told).await;
        set(&bench, variable, name.as_deref().unwrap_or("production")).await;
    }
    // A hub that does not run can not be asked.
    bench.kit.order("stop", "hub-api").await.unwrap();
    let said = bench.exec(4, &[]).await;
    assert!(said.contains("the hub-api is not running"), "{said}");
    bench.kit.order("start", "hub-api").await.unwrap();
    bench.assert_untouched().await;
}

#[tokio::test]
async fn a_database_that_is_not_the_hubs_is_not_wiped() {
    let mut bench = Bench::start().await;
    bench.execute("create database other").await;
    let url = bench.kit.var("DATABASE_URL").replace("/app?", "/other?");
    bench.differs = vec![("DATABASE_URL", url)];
    refused(&bench, &[], "the hub uses another database").await;
}

#[tokio::test]
async fn schema_files_that_are_not_there_or_lack_a_table_wipe_nothing() {
    let bench = Bench::start().await;
    let schema = bench.path("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    std::fs::remove_file(&schema).unwrap();
    refused(&bench, &[], "schema.sql").await;
    // As the migrations leave it.
    let (before, rest) = text.split_once("create table \"Invitation\"").unwrap();
    let (_, after) = rest.split_once(";\n").unwrap();
    std::fs::write(&schema, format!("{before}{after}")).unwrap();
    let said = bench.exec(5, &[]).await;
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("Invitation") && said.contains("The database was not wiped"), "{said}");
    assert!(!said.contains("where it was not brought back yet"), "{said}");
    assert!(said.contains("Redis was not touched"), "{said}");
    assert_eq!([bench.keys(0).await, bench.keys(1).await], [1, 1], "it is refused before anything is gone");
    assert!(!said.contains("To go back"), "what needs no way back is told none:\n{said}");
    cancel(&bench, &said).await;
    assert_eq!(bench.texts(r#"select count(*)::text from "Invitation""#).await, ["1"]);
    assert_eq!(bench.hub("/trp/rings/spool").await.1["name"], "Ring 1");
}

#[tokio::test]
async fn nothing_but_a_terminal_gives_the_phrases() {
    let bench = Bench::start().await;
    let said = bench.exec(5, &[]).await;
    let run = run_in(&said);
    assert!(said.contains(&format!("runbook answer {run} confirm")), "{said}");
    assert!(!said.contains("confirm 'DELETE"), "{said}");
    for words in [&[][..], &["confirm"], &[PHRASES[0]], &["confirm", PHRASES[0]], &["yes"]] {
        let said = bench.expect(2, &[&["answer", run.as_str()], words].concat()).await;
        assert!(said.contains("at a terminal"), "{said}");
    }
    // A resume is no answer.
    bench.expect(5, &["resume", &run]).await;
    assert!(bench.newest().await.unwrap().1.step("confirm").unwrap().answers.is_empty());
    bench.assert_untouched().await;
    bench.expect(6, &["cancel", &run]).await;
    // Neither does a reviewed plan let anybody answer beforehand.
    let plan = bench.path("plan.json").display().to_string();
    bench.expect(0, &["plan", "reset-production", "-i", "environment=staging", "-o", &plan]).await;
    let mut words: Vec<String> = ["exec", "--plan", &plan, "--as", "ada"].map(str::to_owned).into();
    words.extend(PHRASES.map(|phrase| format!("--confirm=confirm={phrase}")));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = bench.expect(2, &words).await;
    assert!(said.contains("a person at a terminal"), "{said}");
    bench.assert_untouched().await;
}

/// Another Redis, with something in three of its databases.
async fn foreign_redis() -> RedisServer {
    let server = RedisServer::start().await.unwrap();
    for database in [0, 1, 7] {
        server.run_in::<()>(database, cmd("SET").arg("theirs").arg("v")).await.unwrap();
    }
    server
}

async fn assert_whole(server: &RedisServer) {
    for database in [0, 1, 7] {
        assert_eq!(server.run_in::<u64>(database, &cmd("DBSIZE")).await.unwrap(), 1, "database {database}");
    }
}

#[tokio::test]
async fn a_redis_that_is_not_the_hubs_is_not_emptied() {
    let mut bench = Bench::start().await;
    let foreign = foreign_redis().await;
    bench.differs = vec![("REDIS_URL", foreign.url())];
    for scope in ["redis_scope=all", "redis_scope=database"] {
        refused(&bench, &[scope], "the hub uses another Redis").await;
    }
    assert_whole(&foreign).await;
    // Nor another database of the hub's.
    bench.differs = vec![("REDIS_URL", format!("{}/1", bench.kit.var("REDIS_URL")))];
    refused(&bench, &["redis_scope=database"], "or another database of it").await;
    bench.differs.clear();
    // What is shown with the phrases.
    let said = bench.exec(5, &[]).await;
    let facts = bench.facts().await;
    let place = bench.kit.var("REDIS_URL").strip_prefix("redis://").unwrap();
    assert_eq!(facts["Redis"], format!("{place}, database 0"));
    assert_eq!(facts["Keys in Redis"], "0: 1, 1: 1 (by database); EVERY database of this server is emptied");
    // The hub is led elsewhere before the phrases are given.
    for (variable, value) in [
        ("REDIS_URL", foreign.url()),
        ("DATABASE_URL", bench.kit.var("DATABASE_URL").replace("/app?", "/postgres?")),
    ] {
        let run = if variable == "REDIS_URL" { run_in(&said) } else { run_in(&bench.exec(5, &[]).await) };
        set(&bench, variable, &value).await;
        let said = bench.answer(4, &run, &PHRASES).await;
        assert!(said.contains("which was confirmed"), "{said}");
        set(&bench, variable, bench.kit.var(variable)).await;
        bench.expect(6, &["cancel", &run]).await;
    }
    bench.assert_untouched().await;
    assert_whole(&foreign).await;
}

#[tokio::test]
async fn what_is_written_after_the_backup_is_not_wiped() {
    let bench = Bench::start().await;
    let options: PgConnectOptions = bench.kit.var("DATABASE_URL").parse().unwrap();
    let mut reader = options.connect().await.unwrap();
    reader.execute("begin").await.unwrap();
    reader.execute(r#"lock table "PostRef" in access share mode"#).await.unwrap();
    let said = bench.exec(5, &[]).await;
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("The database was not wiped") && !said.contains("To go back"), "{said}");
    assert!(said.contains("Redis was not touched"), "{said}");
    reader.execute("rollback").await.unwrap();
    let run = run_in(&said);
    let refused = async |told: &str| {
        let said = bench.expect(4, &["resume", &run]).await;
        assert!(said.contains(told) && said.contains("The database was not wiped"), "{told}:\n{said}");
    };
    bench.execute(r#"insert into "Actor" (id, did) values ('later', 'did:web:later')"#).await;
    refused("`public.Actor` has 41 rows and had 40").await;
    // One that came for one that went, and one that is another.
    bench.execute(r#"delete from "Actor" where id = 'actor-1'"#).await;
    refused("`public.Actor` has as many rows, and not the same").await;
    bench.execute(r#"delete from "Actor" where id = 'later'"#).await;
    refused("`public.Actor` has 39 rows and had 40").await;
    assert_eq!([bench.keys(0).await, bench.keys(1).await], [1, 1], "what the hub has cached is there still");
    assert_eq!(bench.rows().await.values().sum::<i64>(), ROWS.iter().map(|(_, rows)| rows).sum::<i64>() - 1);
    bench.expect(6, &["cancel", &run]).await;
    assert_eq!(bench.kit.state().await.unwrap()["hub-api"]["up"], true);
}

#[tokio::test]
async fn tables_in_parts_and_those_of_extensions_stop_nothing() {
    let bench = Bench::start().await;
    bench
        .execute(
            "create table events (at date not null, note text) partition by range (at);
             create table events_all partition of events default;
             insert into events select date '2026-01-01' + n, 'x' from generate_series(1, 4) n;
             create schema jobs; create table jobs.job (id int); insert into jobs.job values (1);
             alter extension plpgsql add table jobs.job",
        )
        .await;
    let said = bench.exec(5, &[]).await;
    bench.confirm(0, &said).await;
    bench.assert_reset().await;
}

#[tokio::test]
async fn a_hub_that_is_started_meanwhile_stops_the_reset_before_anything_is_gone() {
    let bench = Bench::start().await;
    let said = bench.exec(5, &[]).await;
    let run = run_in(&said);
    let command = bench.command(&["answer", &run]);
    let answer = tokio::spawn(async move { at_terminal(command, &PHRASES).await });
    // As soon as the backup is being written, something that heals hubs starts it.
    while std::fs::read_dir(bench.path("backups")).unwrap().next().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    bench.kit.order("start", "hub-api").await.unwrap();
    let (code, said) = answer.await.unwrap();
    assert_eq!(code, 4, "{said}");
    bench.assert_untouched().await;
    bench.expect(6, &["cancel", &run]).await;
    bench.assert_untouched().await;
}

/// A hub that is started without its key, by a run that failed of it; what that said, and the file of the environment with what it held.
async fn started_without_its_key(bench: &Bench) -> (String, String, String) {
    let said = bench.exec(5, &[]).await;
    // The hub that runs has it still; the one that is started will not.
    let file = bench.kit.var("HUB_ENV_FILE").to_owned();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("RING_HUB_PRIVATE_KEY=", "RING_HUB_KEY=")).unwrap();
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("was started with another RING_HUB_PRIVATE_KEY"), "{said}");
    assert!(
        said.contains("the hub runs again") && bench.texts(r#"select id from "Membership""#).await.is_empty(),
        "{said}"
    );
    (said, file, text)
}

#[tokio::test]
async fn a_key_that_gets_lost_on_the_way_is_found_before_anybody_joins() {
    let bench = Bench::start().await;
    let (said, file, text) = started_without_its_key(&bench).await;
    std::fs::write(&file, text).unwrap();
    bench.kit.order("restart", "hub-api").await.unwrap();
    bench.expect(0, &["resume", &run_in(&said)]).await;
    bench.assert_reset().await;
}

/// A schema with which nobody's badge arrives.
const NO_BADGES: &str = "\ncreate function no_badges() returns trigger language plpgsql as $$ begin new.\"badgeId\" = null; return new; end $$;\n\
    create trigger no_badges before insert on \"Membership\" for each row execute function no_badges();\n";

#[tokio::test]
async fn a_badge_that_was_not_given_is_asked_for_again() {
    let bench = Bench::start().await;
    let schema = bench.path("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    std::fs::write(&schema, text + NO_BADGES).unwrap();
    let said = bench.exec(5, &[]).await;
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("got no badge") && said.contains("join again"), "{said}");
    bench.expect(4, &["resume", &run_in(&said)]).await;
    // What is told is done: the account is taken out, and joins again.
    bench
        .execute(
            r#"drop trigger no_badges on "Membership"; drop function no_badges(); delete from "Membership""#,
        )
        .await;
    let join: Vec<String> = serde_json::from_value(bench.inputs()["join_command"].clone()).unwrap();
    let joined = Command::new(&join[0]).args(&join[1..]).envs(bench.kit.env()).status();
    assert!(joined.unwrap().success());
    bench.execute(r#"delete from "Badge" where id not in (select "badgeId" from "Membership")"#).await;
    bench.expect(0, &["resume", &run_in(&said)]).await;
    bench.assert_reset().await;
}

#[tokio::test]
async fn a_reset_that_failed_of_the_key_can_be_taken_back() {
    let bench = Bench::start().await;
    let (said, file, text) = started_without_its_key(&bench).await;
    std::fs::write(&file, text).unwrap();
    // What is printed is typed as it stands, line by line: the hub is stopped while its database is brought back.
    let lines = lines_in(&said);
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in &lines {
        let (code, typed) = bench.type_line(line).await;
        assert_eq!(code, 0, "{line}: {typed}");
        assert_eq!(bench.kit.state().await.unwrap()["hub-api"]["up"], *line == lines[2], "{line}");
    }
    cancel(&bench, &said).await;
    assert_eq!(bench.rows().await, ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect());
}
