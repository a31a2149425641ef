//! When it fails after the wipe: what is told, and that it works.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use runbook_engine::state::{RunStatus, StepStatus};

use runbook_sandbox::sandbox_binary;
use serde_json::{Value, json};

use crate::bench::{Bench, PHRASES, ROWS, lines_in, restore_in, run_in};
use crate::typist::at_terminal_of;

/// A schema in which the third role can not be made.
const NO_MEMBERS: &str = "\ncreate function no_members() returns trigger language plpgsql as $$ begin \
    if new.name = 'member' then raise exception 'no members here'; end if; return new; end $$;\n\
    create trigger no_members before insert on \"RingRole\" for each row execute function no_members();\n";

/// A reset that fails in the transaction that makes the root ring; its id and what was said.
async fn failed(bench: &Bench, inputs: &[&str]) -> (String, String) {
    let schema = bench.path("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    std::fs::write(&schema, text + NO_MEMBERS).unwrap();
    let said = bench.exec(5, inputs).await;
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("no members here"), "{said}");
    (run_in(&said), said)
}

#[tokio::test]
async fn a_failure_after_the_wipe_tells_the_way_back_and_it_leads_there() {
    let bench = Bench::start().await;
    let (run, said) = failed(&bench, &[]).await;
    // No ring without its roles; the hub is not started on half of a database.
    assert!(bench.rows().await.values().all(|rows| *rows == 0), "{:?}", bench.rows().await);
    assert_eq!(bench.kit.state().await.unwrap()["hub-api"]["up"], false);
    assert!(said.contains("HAS BEEN WIPED") && said.contains("before-reset-"), "{said}");
    let shown = bench.expect(0, &["show", &run]).await;
    assert!(shown.contains("  Backup ") && shown.contains(&restore_in(&said)), "{shown}");
    // What is printed is typed as it stands.
    let (code, typed) = bench.type_line(&restore_in(&said)).await;
    assert_eq!(code, 0, "{typed}");
    let said = bench.expect(6, &["cancel", &run]).await;
    assert!(said.contains("is another one since") && !said.contains("To go back"), "{said}");
    let before = ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect();
    assert_eq!(bench.rows().await, before);
    let triggers = "select tgname::text from pg_trigger where not tgisinternal";
    assert_eq!(bench.texts(triggers).await, Vec::<String>::new());
    // The hub runs again, on what was there.
    let (status, ring) = bench.hub("/trp/rings/spool").await;
    assert_eq!((status, &ring["name"], &ring["memberCount"]), (200, &"Ring 1".into(), &8.into()));
    let (_, state) = bench.newest().await.unwrap();
    assert_eq!(state.status, RunStatus::Cancelled);
}

#[tokio::test]
async fn a_run_that_goes_on_after_the_backup_was_brought_back_is_no_reset() {
    let bench = Bench::start().await;
    let (program, gate) = (sandbox_binary().unwrap(), bench.path("may-join"));
    let join = format!(
        "test -e '{}' && exec '{}' join --url {} --slug {} --did did:web:test.example",
        gate.display(),
        program.display(),
        bench.kit.var("HUB_API_URL"),
        bench.kit.var("ROOT_RING_SLUG"),
    );
    let join = format!("join_command={}", json!(["sh", "-c", join]));
    let said = bench.exec(5, &[&join]).await;
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("HAS BEEN WIPED, and the hub runs again"), "{said}");
    for line in lines_in(&said) {
        let (code, typed) = bench.type_line(&line).await;
        assert_eq!(code, 0, "{line}: {typed}");
    }
    std::fs::write(gate, "").unwrap();
    let run = run_in(&said);
    let said = bench.expect(4, &["resume", &run]).await;
    assert!(said.contains("Nobody joins that") && said.contains("is another one since"), "{said}");
    assert_eq!(bench.rows().await, ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect());
    bench.expect(6, &["cancel", &run]).await;
}

#[tokio::test]
async fn a_backup_that_is_gone_or_another_one_after_the_wipe_is_told() {
    let bench = Bench::start().await;
    let (run, said) = failed(&bench, &[]).await;
    let backup = bench.path("backups").join(format!("before-reset-{run}.dump"));
    assert!(said.contains(&format!("is in {} (sha256", backup.display())), "{said}");
    let whole = std::fs::read(&backup).unwrap();
    std::fs::write(&backup, &whole[..100]).unwrap();
    let said = bench.expect(4, &["resume", &run]).await;
    assert!(said.contains("IS NOT AS IT WAS MADE, and may be no good"), "{said}");
    std::fs::remove_file(&backup).unwrap();
    let said = bench.expect(6, &["cancel", &run]).await;
    assert!(said.contains("HAS BEEN WIPED") && said.contains("IS NOT THERE ANY MORE"), "{said}");
    assert!(!said.contains("is in "), "{said}");
}

/// A program of PostgreSQL that does so in place of the real one, which it has as itself; the line with it.
fn in_place_of(bench: &Bench, program: &str, does: &str, line: &str) -> String {
    let (folder, path) = (bench.path("programs"), std::env::var("PATH").unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(program), format!("#!/bin/sh\nPATH='{path}'\n{does}\n")).unwrap();
    std::fs::set_permissions(folder.join(program), Permissions::from_mode(0o755)).unwrap();
    format!("PATH='{}':\"$PATH\" {line}", folder.display())
}

#[tokio::test]
async fn a_way_back_of_which_only_the_last_renaming_failed_is_whole() {
    let bench = Bench::start().await;
    let (run, said) = failed(&bench, &[]).await;
    let calls = bench.path("calls").display().to_string();
    let does = format!("echo >>'{calls}'; test $(wc -l <'{calls}') = 3 && exit 2; exec psql \"$@\"");
    let (code, typed) = bench.type_line(&in_place_of(&bench, "psql", &does, &restore_in(&said))).await;
    assert!(code == 0 && typed.contains("is in the database app_mid_"), "{typed}");
    let said = bench.expect(6, &["cancel", &run]).await;
    assert!(said.contains("is another one since") && !said.contains("IN PART"), "{said}");
    assert_eq!(bench.rows().await, ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect());
    assert_eq!(bench.kit.state().await.unwrap()["hub-api"]["up"], true);
}

#[tokio::test]
async fn a_way_back_that_was_cut_off_is_told_and_typed_again() {
    let bench = Bench::start().await;
    let (run, said) = failed(&bench, &[]).await;
    let line = restore_in(&said);
    // As it stands when its shell is killed in the middle of it.
    let killed = "pg_restore --section=pre-data \"$@\"; kill -9 $PPID";
    let (code, typed) = bench.type_line(&in_place_of(&bench, "pg_restore", killed, &line)).await;
    assert_ne!(code, 0, "{typed}");
    let said = bench.expect(4, &["resume", &run]).await;
    assert!(
        said.contains("A BACKUP WAS BROUGHT BACK IN PART") && !said.contains("is another one since"),
        "{said}"
    );
    assert_eq!(bench.kit.state().await.unwrap()["hub-api"]["up"], false, "it is not started on that");
    assert_eq!(restore_in(&said), line);
    let (code, typed) = bench.type_line(&line).await;
    assert_eq!(code, 0, "{typed}");
    let said = bench.expect(6, &["cancel", &run]).await;
    assert!(said.contains("is another one since"), "{said}");
    assert_eq!(bench.rows().await, ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect());
}

#[tokio::test]
async fn once_the_cause_is_gone_the_same_run_goes_on_and_wipes_nothing_again() {
    let bench = Bench::start().await;
    let (run, _) = failed(&bench, &[]).await;
    bench.execute("drop function no_members() cascade").await;
    // Who looks at the tables of after the wipe finds the same ones in the end.
    let made = r#"select '"Ring"'::regclass::oid::text"#;
    let before = bench.texts(made).await;
    let said = bench.expect(0, &["resume", &run]).await;
    assert!(!said.contains("Asks"), "no phrase is asked for again, and none is passed over:\n{said}");
    assert_eq!(bench.texts(made).await, before);
    bench.assert_reset().await;
    let (_, state) = bench.newest().await.unwrap();
    assert_eq!(state.step("wipe").unwrap().attempt, 1);
    assert_eq!(state.step("way_back").unwrap().status, StepStatus::Succeeded);
}

#[tokio::test]
async fn a_run_that_was_away_too_long_never_wipes_what_came_after() {
    let bench = Bench::start().await;
    // As the migrations leave it: what is made anew has a table that was not there, and is not in the backup.
    bench.execute(r#"drop table "Invitation" cascade"#).await;
    let before = bench.rows().await;
    let (run, _) = failed(&bench, &["max_hold=20s"]).await;
    bench.execute("drop function no_members() cascade").await;
    // It is started again once it was stopped for long enough.
    while bench.kit.state().await.unwrap()["hub-api"]["up"] == false {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        bench.run(&["reconcile"]).await;
    }
    // Life goes on without us.
    bench.execute(r#"insert into "Actor" (id, did) values ('later', 'did:web:later')"#).await;
    let backup = bench.path("backups").join(format!("before-reset-{run}.dump"));
    let bytes = std::fs::read(&backup).unwrap();
    let said = bench.expect(4, &["resume", &run]).await;
    assert!(said.contains("as_confirmed") && said.contains("does not go on"), "{said}");
    assert!(!said.contains("To go on, type"), "{said}");
    assert_eq!(bench.texts(r#"select id from "Actor""#).await, ["later"]);
    // What is not backed up is what the wipe left.
    assert_eq!(std::fs::read(&backup).unwrap(), bytes);
    let json: Value = serde_json::from_str(
        &std::fs::read_to_string(bench.path("reports").join(format!("{run}.json"))).unwrap(),
    )
    .unwrap();
    let told = format!("The backup of what was there before is in {} (sha256 ", backup.display());
    assert!(json["notes"]["Backup"].as_str().unwrap().starts_with(&told), "{json}");
    // The line of the report of then is the line that is told, and it leads to what was there before all of it.
    let line = restore_in(&said);
    assert_eq!(json["notes"]["To restore it"], format!("`{line}`"));
    assert_eq!(bench.kit.state().await.unwrap()["hub-api"]["up"], false);
    let (code, typed) = bench.type_line(&line).await;
    assert_eq!(code, 0, "{typed}");
    let said = bench.expect(6, &["cancel", &run]).await;
    assert!(said.contains("is another one since"), "{said}");
    assert_eq!(bench.kit.state().await.unwrap()["hub-api"]["up"], true);
    assert_eq!(bench.rows().await, before);
}

#[tokio::test]
async fn a_database_that_is_away_before_the_wipe_was_not_wiped_and_the_run_goes_on_once_it_is_back() {
    let bench = Bench::start().await;
    let inputs = bench.inputs();
    let url = bench.kit.var("DATABASE_URL").replace("/app", "/postgres");
    let allow = |allowed: bool| {
        format!(
            "psql '{url}' --no-psqlrc --quiet --command='alter database app with allow_connections {allowed}'"
        )
    };
    let mut stop = vec![json!("sh"), json!("-c"), json!(format!("\"$@\" && {}", allow(false))), json!("sh")];
    stop.extend(inputs["stop_command"].as_array().unwrap().iter().cloned());
    let said = bench.exec(5, &[&format!("stop_command={}", json!(stop))]).await;
    let said = bench.confirm(4, &said).await;
    assert!(said.contains("The database was not wiped") && said.contains("There is no backup"), "{said}");
    assert!(said.contains("Redis was not touched") && said.contains("To go on, type"), "{said}");
    for wrong in ["HAS BEEN WIPED", "may have been wiped", "To go back", "restore.sh"] {
        assert!(!said.contains(wrong), "{wrong}: {said}");
    }
    let (code, typed) = bench.type_line(&allow(true)).await;
    assert_eq!(code, 0, "{typed}");
    assert_eq!(bench.rows().await, ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect());
    bench.expect(0, &["resume", &run_in(&said)]).await;
    bench.assert_reset().await;
}

#[tokio::test]
async fn the_way_back_can_be_copied_from_a_narrow_terminal_and_out_of_the_report() {
    let bench = Bench::start().await;
    let schema = bench.path("schema.sql");
    let text = std::fs::read_to_string(&schema).unwrap();
    std::fs::write(&schema, text + NO_MEMBERS).unwrap();
    let command = bench.command(&["exec", "reset-production", "-i", "environment=staging"]);
    let (code, said) = at_terminal_of(command, &PHRASES, 80).await;
    assert_eq!(code, 4, "{said}");
    let run = run_in(&said);
    let line =
        format!("sh {}", bench.path("backups").join(format!("before-reset-{run}.dump.restore.sh")).display());
    assert!(said.contains(&format!("`{line}`")), "{said}");
    let report = std::fs::read_to_string(bench.path("reports").join(format!("{run}.md"))).unwrap();
    assert!(report.contains(&format!("`{line}`")), "{report}");
    let (code, typed) = bench.type_line(&line).await;
    assert_eq!(code, 0, "{typed}");
    let before = ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect();
    assert_eq!(bench.rows().await, before);
    bench.expect(6, &["cancel", &run]).await;
}
