//! `runbooks/chat-attachment-lifecycle.yaml`, run by the built binary against a real S3 store, a real Prometheus, a real Kubernetes API server
//! and stand-ins of the chat API and of GitHub, with what the prose and the scripts get wrong set on purpose.

mod backend;
mod cluster;
mod kubectl;
mod planned;
mod preflight;
mod site;
mod traps;
mod whole;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use axum::Router;
use runbook_sandbox::application::{self, RECIPES};
use runbook_sandbox::chat::token;
use runbook_sandbox::names::Names;
use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY, Weed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;

use cluster::Cluster;
use site::Site;

/// The phrase that sets the rule.
const PHRASE: &str = "EXPIRE ATTACHMENTS";
/// The check that has to be required.
const GATE: &str = "CI / surreal-release-gates";
/// What tokens of the API are signed with.
const JWT_SECRET: &str = "jwt secret of the tests";
/// What starts the store of a machine, and makes its bucket.
const STORE: &str = include_str!("store.sh");

/// The servers that all environments share, and a folder for everything else.
struct Bench {
    weed: Weed,
    names: Names,
    github: String,
    folder: TempDir,
}

impl Bench {
    /// A store without a bucket, and a branch that is protected as it should be.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let github = format!("http://{}", listener.local_addr().unwrap());
        let routes: Router = runbook_sandbox::github::router(&[("gotong/royong", "main")]);
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let bench = Self {
            weed: Weed::start().await.unwrap(),
            names: Names::start().await.unwrap(),
            github,
            folder: tempfile::tempdir().unwrap(),
        };
        bench.names.call("github.example", &bench.github);
        bench.protect(json!({ "contexts": [GATE] })).await;
        for folder in ["bin", "app", "evidence"] {
            fs::create_dir(bench.path(folder)).unwrap();
        }
        for (name, script) in [("just", RECIPES), ("docker", STORE), ("mc", STORE)] {
            bench.program(name, script);
        }
        bench
    }

    /// The same with a cluster, for what needs one; none where there is no server for it.
    async fn with_cluster() -> Option<(Self, Cluster)> {
        let cluster = Cluster::start().await?;
        let bench = Self::start().await;
        cluster.introduce(&bench);
        bench.preflight().await;
        Some((bench, cluster))
    }

    /// The preflight, which staging asks for; nothing of it is left but its report.
    async fn preflight(&self) {
        self.weed.make_bucket("evidence-preflight").await.unwrap();
        let site = Site::start(self, "sandbox", "evidence-preflight", &[]).await;
        let app = format!("app_dir={}", self.path("app").display());
        self.confirmed(&site, 0, &[&app]).await;
        fs::rename(self.report("sandbox").0, self.path("preflight.json")).unwrap();
        for name in self.evidence() {
            fs::remove_file(self.path("evidence").join(name)).unwrap();
        }
        for name in ["app/called", "app/databases.up"] {
            fs::remove_file(self.path(name)).unwrap();
        }
        fs::remove_dir_all(self.path("app/docs")).unwrap();
    }

    /// A server that is all in order, for an environment.
    async fn site(&self, environment: &str) -> Site {
        self.site_with(environment, &[]).await
    }

    /// The same, with these settings of the API.
    async fn site_with(&self, environment: &str, settings: &[(&str, &str)]) -> Site {
        let bucket = format!("evidence-{environment}");
        self.weed.make_bucket(&bucket).await.unwrap();
        Site::start(self, environment, &bucket, settings).await
    }

    /// Puts a program before all others of its name.
    fn program(&self, name: &str, script: &str) {
        application::install(&self.path("bin"), name, script).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets which checks the branch requires.
    async fn protect(&self, checks: Value) {
        let url = format!("{}/repos/gotong/royong/branches/main/protection", self.github);
        let body = json!({ "required_status_checks": checks });
        let put = reqwest::Client::new().put(url).bearer_auth("admin").json(&body).send().await.unwrap();
        assert!(put.status().is_success());
    }

    /// How the recipes are to go: `right`, `stale`, `hold`, `dry-run`.
    fn recipes(&self, how: &str) {
        fs::write(self.path("app/how"), how).unwrap();
    }

    /// Which recipes were called, with their arguments and the settings that they were given.
    fn called(&self) -> String {
        fs::read_to_string(self.path("app/called")).unwrap_or_default()
    }

    /// The reports and copies that were kept, by name.
    fn evidence(&self) -> Vec<String> {
        let all = fs::read_dir(self.path("evidence")).unwrap();
        let mut names: Vec<String> = all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The newest report of an environment, for machines: its path and what it says.
    fn report(&self, environment: &str) -> (PathBuf, Value) {
        let begin = format!("chat-attachment-lifecycle-{environment}-");
        let ours = |name: &&String| name.starts_with(&begin) && name.ends_with(".json");
        let all = self.evidence();
        let path = all.iter().filter(ours).map(|name| self.path("evidence").join(name));
        let path = path.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
        let value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        (path, value)
    }

    /// Runs `runbook` as a user, to its end; it must end with this code. What it said.
    async fn expect(&self, user: &str, code: i32, arguments: &[&str]) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(env!("CARGO_BIN_EXE_runbook"));
        command
            .args(arguments)
            .env("USER", user)
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("CHAT_API_TOKEN", token(JWT_SECRET, "smoke"))
            .env("S3_ACCESS_KEY", ACCESS_KEY)
            .env("S3_SECRET_KEY", SECRET_KEY)
            .env("GITHUB_TOKEN", "admin")
            .env("HTTP_PROXY", &self.names.url)
            .env("NO_PROXY", "127.0.0.1")
            .env("RUNBOOK_STATE", format!("sqlite:{}", self.path("state.db").display()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.unwrap();
        let said =
            [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} said:\n{said}");
        assert!(!said.contains("X-Amz-Signature") && !said.contains("sig="), "{said}");
        said
    }

    /// Starts the procedure for a site as ada, with these inputs beside or in place of the usual ones.
    async fn exec(&self, site: &Site, code: i32, inputs: &[&str]) -> String {
        let usual = site.inputs(self);
        let name = |input: &str| input.split('=').next().unwrap_or_default().to_owned();
        let given = |one: &String| inputs.iter().any(|input| name(input) == name(one));
        let kept: Vec<String> = usual.into_iter().filter(|one| !given(one)).collect();
        let mut arguments = vec!["exec", "chat-attachment-lifecycle"];
        let more = inputs.iter().copied().filter(|input| !input.ends_with("=ABSENT"));
        for input in kept.iter().map(String::as_str).chain(more) {
            arguments.extend(["-i", input]);
        }
        self.expect("ada", code, &arguments).await
    }

    /// Starts it and confirms the rule, so that it must end with this code.
    async fn confirmed(&self, site: &Site, code: i32, inputs: &[&str]) -> String {
        let said = self.exec(site, 5, inputs).await;
        self.expect("ada", code, &["answer", &run_in(&said), PHRASE]).await
    }

    /// Ends a run that has failed, so that its lock is free.
    async fn cancel(&self, said: &str) {
        let rest =
            said.split("runbook resume ").nth(1).unwrap_or_else(|| panic!("no next command in:\n{said}"));
        self.expect("ada", 6, &["cancel", rest.split_whitespace().next().unwrap()]).await;
    }
}

/// The id of the run, out of the next command to type.
fn run_in(said: &str) -> String {
    let rest = said.split("runbook answer ").nth(1).unwrap_or_else(|| panic!("no next command in:\n{said}"));
    rest.split_whitespace().next().unwrap().to_owned()
}
