//! What a killed step left on a server, cancelled with other secrets than it was made with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use runbook_sandbox::database::{DatabaseServer, Kind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::place::{Place, Ran, finished, wait_until};

/// A server of PostgreSQL with an account that has a password.
struct Server {
    runtime: tokio::runtime::Runtime,
    server: DatabaseServer,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(DatabaseServer::start(Kind::Postgres)).unwrap();
        Self { runtime, server }
    }

    fn sql(&self, text: &str) -> Vec<String> {
        let options: PgConnectOptions = self.server.url().parse().unwrap();
        self.runtime.block_on(async {
            let mut open = options.connect().await.unwrap();
            let rows = open.fetch_all(sqlx::raw_sql(AssertSqlSafe(text.to_owned()))).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        })
    }

    fn probes(&self) -> Vec<String> {
        self.sql("select datname::text from pg_database where datname like 'runbook_probe%'")
    }
}

/// Programs that let `pg_restore` into a database wait, after they have said so in a file.
fn waiting_programs(place: &Place) -> String {
    let programs = place.path("programs");
    fs::create_dir(&programs).unwrap();
    let wait =
        format!("case \"$*\" in *--dbname=*) touch '{}'; sleep 60;; esac\n", place.path("said").display());
    for (program, before) in [("pg_dump", ""), ("pg_restore", &*wait)] {
        let path = programs.join(program);
        fs::write(&path, format!("#!/bin/sh\n{before}exec {program} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    programs.display().to_string()
}

fn with(place: &Place, args: &[&str], url: Option<&str>) -> Ran {
    let mut command = place.command(args);
    url.map(|url| command.env("SCRATCH", url));
    finished(command.output().unwrap())
}

#[test]
fn what_is_on_another_server_than_the_secrets_say_now_is_left_and_the_run_stays_open() {
    let (server, other) = (Server::start(), Server::start());
    let place = Place::new();
    let programs = waiting_programs(&place);
    place.runbook(
        "save",
        &format!(
            "secrets: {{ scratch: {{ env: SCRATCH }} }}\nconnections:\n  db: {{ type: postgres, url: \"{}\" }}\n\
             \x20 scratch: {{ type: postgres, url: \"${{{{ secrets.scratch }}}}\" }}\nsteps:\n\
             \x20 - {{ id: save, uses: backup, with: {{ connection: db, file: \"{}\", probe: scratch, programs: \"{programs}\" }} }}\n",
            server.server.url(),
            place.path("app.dump").display(),
        ),
    );
    let (right, wrong) = (server.server.url(), other.server.url());
    let port = |server: &Server| server.server.port().to_string();
    for way in ["again", "abandon"] {
        let child = place.command(&["exec", "save.yaml"]).env("SCRATCH", &right).spawn().unwrap();
        wait_until("pg_restore is started", || place.path("said").exists());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        child.wait_with_output().unwrap();
        fs::remove_file(place.path("said")).unwrap();
        let run = place.newest();
        let probe = server.probes().pop().unwrap();
        other.sql(&format!("create database {probe}"));
        let nobody = right.replace("runbook@", "nobody@");
        for url in [Some(&*wrong), None, Some(&*nobody)] {
            let ran = with(&place, &["cancel", &run], url);
            assert_eq!(ran.code, 4, "{}", ran.err);
            assert_eq!((server.probes(), other.probes()), (vec![probe.clone()], vec![probe.clone()]));
            let said = ran.err.replace('\n', " ");
            assert!(said.contains(&format!("--port={}", port(&server))), "{said}");
            assert!(!said.contains(&format!("--port={}", port(&other))), "{said}");
            assert!(said.contains(&format!("runbook cancel {run} --abandon")), "{said}");
            assert_eq!(place.json(&["runs"])[0]["status"], "failed", "{said}");
        }
        // Nothing of the run goes on: who asked for its end has it.
        if way == "again" {
            let ran = with(&place, &["cancel", &run], Some(&right));
            assert_eq!((ran.code, server.probes()), (6, Vec::new()), "{}", ran.err);
        } else {
            let asked = with(&place, &["cancel", &run, "--abandon"], None);
            assert_eq!(asked.code, 2, "{}", asked.err);
            let ran = with(&place, &["cancel", &run, "--abandon", "--confirm", &run], None);
            assert_eq!((ran.code, server.probes()), (4, vec![probe.clone()]), "{}", ran.err);
            assert!(ran.err.contains(&probe), "{}", ran.err);
        }
        assert_eq!(place.json(&["runs"])[0]["status"], "cancelled");
        other.sql(&format!("drop database {probe}"));
    }
}
