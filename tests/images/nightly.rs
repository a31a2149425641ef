//! What `examples/nightly` puts into systemd and cron, run as it stands there but for the places of its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{Bench, PHRASE, id, original};
use runbook_sandbox::weed::{ACCESS_KEY, SECRET_KEY};

/// A machine on which the files of `examples/nightly` were put where they belong, below a folder of its own.
struct Machine<'a> {
    bench: &'a Bench,
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nightly").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The one value of a setting in a file of systemd.
fn setting(unit: &str, name: &str) -> String {
    let mut lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = lines.next().unwrap_or_else(|| panic!("no {name} in:\n{unit}")).to_owned();
    assert_eq!(lines.next(), None, "{name} stands there once");
    value
}

impl Machine<'_> {
    /// Puts the files there; the inputs are those that are shipped but for where the servers of the test are.
    fn set_up(bench: &Bench) -> Machine<'_> {
        let machine = Machine { bench };
        let etc = machine.here("/etc/runbook");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::create_dir_all(machine.here("/var/lib/runbook")).unwrap();
        let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks/reconcile-images.yaml");
        std::fs::copy(runbook, etc.join("reconcile-images.yaml")).unwrap();
        let mut inputs: BTreeMap<String, Value> =
            serde_yaml::from_str(&shipped("nightly-images.yaml")).unwrap();
        for (name, value) in [
            ("database", json!("app")),
            ("s3_endpoint", json!(bench.proxy.url)),
            ("known_key", json!("known")),
            ("archive_dir", json!(machine.here("/var/lib/runbook/images"))),
            ("max_missing_percent", json!(50)),
        ] {
            inputs.insert(name.to_owned(), value);
        }
        std::fs::write(etc.join("nightly-images.yaml"), serde_yaml::to_string(&inputs).unwrap()).unwrap();
        let secrets = [
            ("DATABASE_URL", bench.database.url()),
            ("S3_ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("S3_SECRET_KEY", SECRET_KEY.to_owned()),
        ];
        let lines: String = secrets.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
        std::fs::write(etc.join("reconcile-images.env"), lines).unwrap();
        machine
    }

    /// Where a path of the files is here.
    fn here(&self, path: &str) -> PathBuf {
        self.bench.folder.path().join(path.trim_start_matches('/'))
    }

    /// A line of the files with the paths of here.
    fn placed(&self, line: &str) -> String {
        let root = self.bench.folder.path().display();
        line.replace("/usr/local/bin/runbook", env!("CARGO_BIN_EXE_runbook"))
            .replace("/etc/runbook", &format!("{root}/etc/runbook"))
            .replace("/var/lib/runbook", &format!("{root}/var/lib/runbook"))
    }

    /// A command with nothing in its environment but what is given, no terminal, and the folder of none of this.
    async fn run(mut command: Command) -> (i32, String) {
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        let output: Output = command.output().await.unwrap();
        let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
        (output.status.code().unwrap_or(-1), said.concat())
    }

    /// What the timer starts, as systemd does it.
    async fn by_systemd(&self) -> (i32, String) {
        let unit = shipped("reconcile-images.service");
        let line = self.placed(&setting(&unit, "ExecStart")).replace("$$", "$");
        let script = line.strip_prefix("/bin/sh -c '").and_then(|rest| rest.strip_suffix('\''));
        let script = script.unwrap_or_else(|| panic!("{line}"));
        assert!(!script.contains(['%', '\\', '\'']), "systemd makes something else of it: {script}");
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).env_clear().env("PATH", "/usr/bin:/bin");
        let secrets = std::fs::read_to_string(self.placed(&setting(&unit, "EnvironmentFile"))).unwrap();
        let own = self.placed(&setting(&unit, "Environment"));
        for line in secrets.lines().chain([own.as_str()]) {
            let (name, value) = line.split_once('=').unwrap();
            command.env(name, value.trim_matches('\''));
        }
        Self::run(command).await
    }

    /// What cron hands to its shell: all after the five fields of the time and the user.
    async fn by_cron(&self) -> (i32, String) {
        let table = shipped("reconcile-images.cron");
        let line = table.lines().find(|line| line.starts_with("0 2 * * * ")).unwrap();
        assert!(!line.contains('%'), "cron takes it for the end of the line");
        let command_line = self.placed(line.splitn(7, ' ').nth(6).unwrap());
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(command_line).env_clear().env("PATH", "/usr/bin:/bin");
        Self::run(command).await
    }
}

#[tokio::test]
async fn the_look_of_the_night_is_an_alarm_when_a_file_is_missing_and_changes_nothing() {
    let bench = Bench::start(30).await;
    let machine = Machine::set_up(&bench);
    let before = bench.images().await;

    let (code, said) = machine.by_systemd().await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("checked 30"), "{said}");
    let (code, said) = machine.by_cron().await;
    assert!(code == 0 && !said.contains("ALARM"), "{said}");

    bench.lose(&original(7)).await;
    // What is being uploaded at this time is not missing, and whoever runs it at night says no time.
    bench.lose(&original(8)).await;
    bench.execute(&format!("update images set created_at = now() where id = '{}'", id(8))).await;
    for _ in 0..2 {
        // The second night is not in the way of the first.
        let (code, said) = machine.by_systemd().await;
        assert_eq!(code, 4, "{said}");
        let told = "1 of 29 images miss a file (1 originals, 0 staged files)";
        assert!(said.contains(told) && said.contains(&id(7)), "{said}");
    }
    let (code, said) = machine.by_cron().await;
    assert!(code == 0 && said.contains("ALARM: exit 4") && said.contains(&id(7)), "{said}");
    assert_eq!(bench.images().await, before, "a dry run changes nothing");
}

#[tokio::test]
async fn a_night_in_which_nothing_could_be_looked_at_is_an_alarm_too() {
    let bench = Bench::start(3).await;
    let machine = Machine::set_up(&bench);
    bench.proxy.answer_all(503);
    let (code, said) = machine.by_systemd().await;
    assert!(code == 4 && said.contains("503"), "{code}: {said}");
    bench.proxy.heal();
    // Nor does a table without images say that all is well.
    bench.execute("update images set created_at = now()").await;
    let (code, said) = machine.by_systemd().await;
    assert!(code == 4 && said.contains("no image was looked at"), "{code}: {said}");
    bench.execute("update images set created_at = '2025-01-01'").await;
    // What is not set up is told by cron as well.
    let (settings, away) = (machine.here("/etc/runbook/reconcile-images.env"), machine.here("/etc/away"));
    std::fs::rename(&settings, &away).unwrap();
    let (code, said) = machine.by_cron().await;
    assert!(code == 0 && said.contains("ALARM: exit "), "{code}: {said}");
    std::fs::rename(&away, &settings).unwrap();
    // One that waits for an answer is in the way, and is named.
    bench.lose(&original(1)).await;
    let state = format!("sqlite:{}", machine.here("/var/lib/runbook/state.db").display());
    let (endpoint, archive) = (format!("s3_endpoint={}", bench.proxy.url), bench.archive());
    let mut exec = vec!["exec", "reconcile-images"];
    for input in [
        "mode=apply",
        "database=app",
        "known_key=known",
        "created_before=2026-01-01T00:00:00Z",
        "max_missing_percent=50",
        &endpoint,
        &archive,
    ] {
        exec.extend(["-i", input]);
    }
    let (code, waiting) = bench.run_with(&exec, &[("RUNBOOK_STATE", &state)]).await;
    assert_eq!(code, 5, "{waiting}");
    let run = crate::run_in(&waiting);
    let (code, said) = machine.by_systemd().await;
    assert!(code == 8 && said.contains(&run), "{code}: {said}");
    let (code, said) = bench.run_with(&["answer", &run, PHRASE], &[("RUNBOOK_STATE", &state)]).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = machine.by_systemd().await;
    assert_eq!(code, 0, "{said}");
}
