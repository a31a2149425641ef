//! A hub full of data with `runbook` beside it, and the questions every test asks of the world afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use runbook_engine::state::RunState;
use runbook_engine::store::sqlite::SqliteStore;
use runbook_engine::store::{Store, decode_plan, load_state};
use runbook_sandbox::{Sandbox, sandbox_binary};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use tokio::process::Command;

use crate::typist::at_terminal;

/// The phrases, in their order.
pub const PHRASES: [&str; 3] =
    ["DELETE ALL DATA", "I UNDERSTAND THIS IS IRREVERSIBLE", "RESET PRODUCTION NOW"];

/// How long any one command may take.
const LIMIT: Duration = Duration::from_secs(180);

/// How many rows each table holds in the beginning.
pub const ROWS: [(&str, i64); 14] = [
    ("Actor", 40),
    ("ActorReputation", 1),
    ("AuditLog", 60),
    ("Badge", 40),
    ("Block", 1),
    ("Challenge", 1),
    ("HttpSignature", 1),
    ("Invitation", 1),
    ("Membership", 40),
    ("PostRef", 120),
    ("RateLimit", 1),
    ("Ring", 5),
    ("RingRole", 15),
    ("_prisma_migrations", 2),
];

pub struct Bench {
    pub kit: Sandbox,
    /// Variables of `runbook` that differ from what the sandbox says; an empty one is taken out.
    pub differs: Vec<(&'static str, String)>,
}

impl Bench {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
        let kit = Sandbox::start(&sandbox_binary().unwrap(), "hub", &arguments).await.unwrap();
        Self { kit, differs: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.kit.dir().join(name)
    }

    /// The usual inputs of a reset.
    pub fn inputs(&self) -> Value {
        serde_yaml::from_str(&std::fs::read_to_string(self.kit.var("RUNBOOK_INPUTS")).unwrap()).unwrap()
    }

    /// `runbook` with these arguments, in the sandbox's environment, without a terminal.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runbook"));
        command
            .args(arguments)
            .envs(self.kit.env())
            .env("RUNBOOK_STATE", format!("sqlite:{}", self.path("state/state.db").display()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for (name, value) in &self.differs {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        command
    }

    /// Runs it to its end; the exit code and everything it said.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = tokio::time::timeout(LIMIT, self.command(arguments).output()).await;
        told(output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap())
    }

    /// The same, but the exit code is known beforehand; what it said.
    pub async fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let (got, said) = self.run(arguments).await;
        assert_eq!(got, code, "{arguments:?} said:\n{said}");
        said
    }

    /// Begins a reset of staging with these inputs beside the usual ones; what it said.
    pub async fn exec(&self, code: i32, inputs: &[&str]) -> String {
        let mut arguments = vec!["exec", "reset-production"];
        if !inputs.iter().any(|input| input.starts_with("environment=")) {
            arguments.extend(["-i", "environment=staging"]);
        }
        inputs.iter().for_each(|input| arguments.extend(["-i", input]));
        self.expect(code, &arguments).await
    }

    /// Types all phrases of the run whose id the last command told, at a terminal; what was said.
    pub async fn confirm(&self, code: i32, said: &str) -> String {
        self.answer(code, &run_in(said), &PHRASES).await
    }

    /// Types these phrases at a terminal, and leaves at the next question; what was said.
    pub async fn answer(&self, code: i32, run: &str, phrases: &[&str]) -> String {
        let (got, said) = at_terminal(self.command(&["answer", run]), phrases).await;
        assert_eq!(got, code, "{phrases:?} said:\n{said}");
        said
    }

    /// The newest run.
    pub async fn newest(&self) -> Option<(String, RunState)> {
        let database = self.path("state/state.db");
        if !database.exists() {
            return None;
        }
        let store = SqliteStore::open(&database).await.unwrap();
        let row = store.runs(1).await.unwrap().pop()?;
        let row = store.run(&row.id).await.unwrap().unwrap();
        let state = load_state(&store, &row.id, &decode_plan(&row).unwrap()).await.unwrap();
        store.close().await;
        Some((row.id, state))
    }

    pub async fn execute(&self, sql: &str) {
        let options: PgConnectOptions = self.kit.var("DATABASE_URL").parse().unwrap();
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        options.connect().await.unwrap().execute(sql).await.unwrap();
    }

    /// The first column of a query.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let options: PgConnectOptions = self.kit.var("DATABASE_URL").parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        let rows = connection.fetch_all(sqlx::query(AssertSqlSafe(sql.to_owned())));
        rows.await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// How many rows each table holds.
    pub async fn rows(&self) -> BTreeMap<String, i64> {
        let tables = self.texts("select tablename::text from pg_tables where schemaname = 'public'").await;
        let mut rows = BTreeMap::new();
        for table in tables {
            let counted = self.texts(&format!("select count(*)::text from \"{table}\"")).await;
            rows.insert(table, counted[0].parse().unwrap());
        }
        rows
    }

    /// What the run shows with its question, by label.
    pub async fn facts(&self) -> BTreeMap<String, String> {
        let (_, state) = self.newest().await.unwrap();
        state.step("confirm").unwrap().question.as_ref().unwrap().facts().iter().cloned().collect()
    }

    /// Fails unless everything is as in the beginning.
    pub async fn assert_untouched(&self) {
        let before: BTreeMap<String, i64> =
            ROWS.iter().map(|&(table, rows)| (table.to_owned(), rows)).collect();
        assert_eq!(self.rows().await, before);
        assert_eq!([self.keys(0).await, self.keys(1).await], [1, 1], "what is cached");
        assert_eq!(self.kit.state().await.unwrap()["hub-api"]["up"], true);
    }

    /// How many keys a database of Redis holds.
    pub async fn keys(&self, database: u32) -> u64 {
        let client = redis::Client::open(format!("{}/{database}", self.kit.var("REDIS_URL"))).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap()
    }

    /// The identity of the Redis server since it was started, as it tells it itself.
    pub async fn redis_server(&self) -> String {
        let client = redis::Client::open(self.kit.var("REDIS_URL")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let told: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.unwrap();
        told.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().trim().to_owned()
    }

    /// What the hub answers.
    pub async fn hub(&self, path: &str) -> (u16, Value) {
        let answer = reqwest::get(format!("{}{path}", self.kit.var("HUB_API_URL"))).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Whether the hub takes the one badge there is for its own.
    pub async fn badge_is_good(&self) -> bool {
        let ids = self.texts(r#"select id from "Badge""#).await;
        assert_eq!(ids.len(), 1, "{ids:?}");
        let mut url: reqwest::Url = self.kit.var("HUB_API_URL").parse().unwrap();
        url.path_segments_mut().unwrap().extend(["trp", "badges", &ids[0], "verify"]);
        let answer: Value = reqwest::Client::new().post(url).send().await.unwrap().json().await.unwrap();
        answer["isValid"] == true
    }

    /// What must hold after every reset that succeeded, however it got there.
    pub async fn assert_reset(&self) {
        let rows: BTreeMap<String, i64> =
            self.rows().await.into_iter().filter(|(_, rows)| *rows > 0).collect();
        // The test account is what there is beside the root ring.
        let expected = [("Actor", 1), ("Badge", 1), ("Membership", 1), ("Ring", 1), ("RingRole", 3)];
        assert_eq!(rows, expected.map(|(table, rows)| (table.to_owned(), rows)).into());
        let ring =
            r#"select concat_ws(' ', slug, "ownerDid", "parentId", metadata ->> 'isRoot') from "Ring""#;
        let wanted = format!("spool {} true", self.kit.var("INSTANCE_DID"));
        assert_eq!(self.texts(ring).await, [wanted]);
        assert_eq!(self.hub("/trp/root").await.1["slug"], "spool");
        assert!(self.badge_is_good().await);
        // The DID of the test account is cached, and nothing else.
        assert_eq!([self.keys(0).await, self.keys(1).await], [1, 0]);
    }

    /// Runs a line as a person would who was told to type it.
    pub async fn type_line(&self, line: &str) -> (i32, String) {
        told(Command::new("sh").args(["-c", line]).output().await.unwrap())
    }
}

fn told(output: Output) -> (i32, String) {
    let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
    (output.status.code().unwrap_or(-1), said.concat())
}

/// The id of the run, out of what was said first of it.
pub fn run_in(said: &str) -> String {
    let rest = said.split("runbook resume ").nth(1).unwrap_or_else(|| panic!("no run in:\n{said}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

/// The line that brings the backup back, out of what was said.
pub fn restore_in(said: &str) -> String {
    lines_in(said).into_iter().find(|line| line.starts_with("sh ")).unwrap()
}

/// What to type to go back, line by line, out of what was said.
pub fn lines_in(said: &str) -> Vec<String> {
    let rest = said.split("To go back, ").nth(1).unwrap_or_else(|| panic!("no way back in:\n{said}"));
    let lines = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    lines.take_while(|line| !line.starts_with("runbook cancel")).collect()
}
