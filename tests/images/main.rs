//! `runbooks/reconcile-images.yaml` and its rollback, run by the built binary against PostgreSQL and an S3 store, with what the prose and the
//! systems get wrong set on purpose.

#[path = "../../steps/tests/it/s3/proxy.rs"]
#[expect(dead_code, reason = "shared with the tests of the step kind, which use all of it")]
mod proxy;

#[path = "../../steps/tests/it/reconcile/oracle.rs"]
mod oracle;

mod apart;
mod api;
mod nightly;
mod planned;
mod scale;
mod traps;
mod whole;

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::Arc;

use runbook_engine::redact::Redactor;
use runbook_sandbox::database::{DatabaseServer, Kind};
use runbook_sandbox::scenes::images::SCHEMA;
use runbook_steps::connections::s3::S3;
use runbook_steps::kind::{NoVault, Vault};
use runbook_steps::resources::Resources;
use serde_json::Map;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use tempfile::TempDir;
use tokio::process::Command;

use proxy::Proxy;
use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY, Weed};

/// The phrase that begins the marking.
const PHRASE: &str = "MARK IMAGES";
const ORIGINAL: &str = "original missing in storage";
const STAGED: &str = "staged missing in storage";

/// What a later version of the application adds.
const LATER: &str = "alter table images add column deleted_at timestamptz; alter table images alter column original_url drop not null";

/// Images and files, with `runbook` beside them.
struct Bench {
    database: DatabaseServer,
    _weed: Weed,
    proxy: Proxy,
    s3: Arc<S3>,
    folder: TempDir,
}

/// The id of an image.
fn id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

impl Bench {
    /// `count` images whose files are all there: every third one is queued, processing or ready.
    async fn start(count: u64) -> Self {
        let database = DatabaseServer::start(Kind::Postgres).await.unwrap();
        let weed = Weed::start().await.unwrap();
        let proxy = Proxy::before(&weed.url).await;
        let one = Map::from_iter([("bucket".to_owned(), weed.bucket("real-staging"))]);
        let vault: Arc<dyn Vault> = Arc::new(NoVault);
        let resources = Resources::open(&one, &Map::new(), &Redactor::default(), &vault).unwrap();
        let s3 = resources.connection::<S3>("bucket").unwrap();
        s3.client().await.create_bucket().bucket("real-staging").send().await.unwrap();
        let bench = Self { database, _weed: weed, proxy, s3, folder: tempfile::tempdir().unwrap() };
        bench.execute(SCHEMA).await;
        bench
            .execute(&format!(
                "insert into images (id, project_id, original_url, staged_url, status, created_at, updated_at) \
                 select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', \
                   '{}/real-staging/uploads/u/' || n || '%20a.jpg', case when n % 3 = 0 then 's3://real-staging/staged/00000000/' || n || '-staged.jpg' end, \
                   (array['ready', 'queued', 'processing'])[n % 3 + 1]::image_status, '2025-06-01', '2025-06-02' \
                 from generate_series(1, {count}) n",
                bench.proxy.url
            ))
            .await;
        bench.put("known").await;
        for number in 1..=count {
            bench.put(&original(number)).await;
            if number % 3 == 0 {
                bench.put(&staged(number)).await;
            }
        }
        bench
    }

    async fn put(&self, key: &str) {
        let put = self.s3.client().await.put_object().bucket("real-staging").key(key).body(vec![b'x'].into());
        put.send().await.unwrap();
    }

    async fn lose(&self, key: &str) {
        self.s3.client().await.delete_object().bucket("real-staging").key(key).send().await.unwrap();
    }

    async fn execute(&self, sql: &str) {
        self.database.execute(sql).await.unwrap();
    }

    /// The one text that a query gives.
    async fn text(&self, sql: &str) -> String {
        let options: PgConnectOptions = self.database.url().parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        connection.fetch_one(sqlx::query(AssertSqlSafe(sql.to_owned()))).await.unwrap().get(0)
    }

    /// The status and the text of each image, by id.
    async fn images(&self) -> BTreeMap<String, (String, Option<String>)> {
        let options: PgConnectOptions = self.database.url().parse().unwrap();
        let query = sqlx::query(AssertSqlSafe("select id::text, status::text, error from images".to_owned()));
        let rows = options.connect().await.unwrap().fetch_all(query).await.unwrap();
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    /// Runs `runbook` to its end; the exit code and everything it said.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        self.run_with(arguments, &[]).await
    }

    /// The same with these variables beside the usual ones.
    async fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
        let output: Output = self.command(arguments).envs(variables.iter().copied()).output().await.unwrap();
        let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
        (output.status.code().unwrap_or(-1), said.concat())
    }

    /// `runbook` with these arguments.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runbook"));
        command
            .args(arguments)
            .env("DATABASE_URL", self.database.url())
            .env("S3_ACCESS_KEY", ACCESS_KEY)
            .env("S3_SECRET_KEY", SECRET_KEY)
            .env("RUNBOOK_STATE", format!("sqlite:{}", self.folder.path().join("state.db").display()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs the reconciliation with these inputs beside the usual ones; what it said.
    async fn reconcile(&self, code: i32, inputs: &[&str]) -> String {
        let (archive, endpoint) = (self.archive(), format!("s3_endpoint={}", self.proxy.url));
        let mut arguments = vec!["exec", "reconcile-images"];
        let usual = [
            archive.as_str(),
            endpoint.as_str(),
            "known_key=known",
            "created_before=2026-01-01T00:00:00Z",
            "mode=apply",
            "database=app",
        ];
        let given = |one: &str| inputs.iter().any(|input| input.split('=').next() == one.split('=').next());
        for input in usual.into_iter().filter(|one| !given(one)).chain(inputs.iter().copied()) {
            if !input.ends_with("=ABSENT") {
                arguments.extend(["-i", input]);
            }
        }
        self.expect(code, &arguments).await
    }

    /// Rolls back what this run has marked, with these inputs beside the usual ones; what it said.
    async fn rollback(&self, code: i32, run: &str, inputs: &[&str]) -> String {
        let (archive, prior) = (self.archive(), format!("prior_state={run}.jsonl"));
        let mut arguments = vec!["exec", "rollback-reconcile-images", "-i", &archive, "-i", &prior];
        let named = inputs.iter().any(|input| input.starts_with("database="));
        for input in (!named).then_some("database=app").into_iter().chain(inputs.iter().copied()) {
            arguments.extend(["-i", input]);
        }
        self.expect(code, &arguments).await
    }

    fn archive(&self) -> String {
        format!("archive_dir={}", self.folder.path().join("archive").display())
    }

    /// Answers the question of the run whose id the last command told.
    async fn answer(&self, code: i32, said: &str, phrase: &str) -> String {
        self.expect(code, &["answer", &run_in(said), phrase]).await
    }

    async fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let (got, said) = self.run(arguments).await;
        assert_eq!(got, code, "{arguments:?} said:\n{said}");
        said
    }
}

/// The key of an image's original.
fn original(number: u64) -> String {
    format!("uploads/u/{number} a.jpg")
}

/// The key of what was staged of an image.
fn staged(number: u64) -> String {
    format!("staged/00000000/{number}-staged.jpg")
}

/// The id of the run, out of the next command to type.
fn run_in(said: &str) -> String {
    let rest = said.split("runbook answer ").nth(1).unwrap_or_else(|| panic!("no next command in:\n{said}"));
    rest.split_whitespace().next().unwrap().to_owned()
}
