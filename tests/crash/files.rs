//! Files of a folder: counted, copied, confirmed, and deleted in batches within limits that fit exactly.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::picture::files;
use crate::place::Place;
use crate::trial::{Crashes, Recovery, World, run, run_in};

/// How many files are deleted; in batches of 3.
const FILES: u64 = 7;

struct Folder(Place);

/// Makes a folder with so many logs, and a file that is none.
pub fn fill(place: &Place, folder: &str, logs: u64) {
    fs::create_dir(place.path(folder)).unwrap();
    for name in (0..logs).map(|at| format!("{folder}/{at}.log")).chain([format!("{folder}/keep.txt")]) {
        place.write(&name, &format!("content of {name}\n"));
        // The record of a file tells when it was modified.
        let file = File::options().append(true).open(place.path(&name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    }
}

/// The files of a folder, with what is in them.
pub fn below(place: &Place, folder: &str) -> Vec<(String, String)> {
    let folder = place.path(folder);
    let name = |path: &PathBuf| path.strip_prefix(&folder).unwrap().display().to_string();
    files(&folder).iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn make() -> Box<dyn World> {
    Box::new(folder())
}

fn folder() -> Folder {
    let place = Place::new();
    fill(&place, "logs", FILES);
    let text = format!(
        r#"connections:
  logs: {{ type: directory, path: "{}" }}
  copies: {{ type: directory, path: "{}" }}
collections:
  logs: {{ type: files, connection: logs, pattern: "*.log" }}
limits: {{ max_items: {FILES}, max_percent: 100, max_errors: 0 }}
lock: files
steps:
  - {{ id: before, uses: count, with: {{ collections: [logs] }} }}
  - {{ id: copied, uses: snapshot, with: {{ collection: logs, export: {{ connection: copies }} }} }}
  - id: complete
    uses: assert
    with: {{ that: "${{{{ steps.copied.outputs.exported == steps.before.outputs.total }}}}", message: not all were copied }}
  - {{ id: confirm, uses: confirm-prompt, with: {{ message: Delete them?, phrases: [DELETE, DELETE ALL] }} }}
  - id: purge
    uses: delete-batch
    with: {{ collections: [logs], keys: "${{{{ steps.copied.outputs.manifest }}}}", batch_size: 3 }}
  - {{ id: after, uses: count, with: {{ collections: [logs], expect: 0 }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        place.path("logs").display(),
        place.path("copies").display(),
    );
    place.runbook("files", &text);
    Folder(place)
}

impl World for Folder {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.0, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.0.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "files.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.0.path("").display().to_string(), "WORLD/".to_owned())]
    }

    fn picture(&self) -> Value {
        json!({ "logs": below(&self.0, "logs"), "copies": below(&self.0, "copies") })
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        let kept = fs::read_to_string(self.0.path("logs/keep.txt")).unwrap_or_default();
        let copies = files(&self.0.path("copies"));
        let gone = (0..FILES).map(|at| format!("{at}.log")).filter(|name| {
            let copied = copies.iter().any(|path| path.file_name().is_some_and(|file| file == name.as_str()));
            !self.0.path("logs").join(name).exists() && !copied
        });
        let mut wrong: Vec<String> =
            gone.map(|name| format!("{name} is gone, and there is no copy")).collect();
        if kept != "content of logs/keep.txt\n" {
            wrong.push(format!("keep.txt holds {kept:?}"));
        }
        wrong
    }
}

#[test]
fn files_are_deleted_once_whatever_crashes() {
    explore(&Case { name: "files", recovery: Recovery::Resume, make, stride: 3, second_stride: 97 });
}

#[test]
fn what_is_written_after_a_crash_is_left() {
    let world = folder();
    let points = run(&world, &Crashes::default(), Recovery::Resume).unwrap().points;
    // Two commands lead to the last answer, and the third one deletes.
    let removals = (1_u64..).zip(&points[2]).filter(|(_, name)| name.ends_with("removed"));
    let removals: Vec<u64> = removals.map(|(at, _)| at).collect();
    assert_eq!(removals.len() as u64, 2 * FILES, "{:?}", points[2]);
    for at in removals {
        let world = folder();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(run_in(&world.0, &world.exec(), &[]).status.code(), Some(5));
        let agreed = run_in(&world.0, &words(&["answer", &world.0.newest(), "DELETE"]), &[]);
        assert_eq!(agreed.status.code(), Some(5));
        let crash = [("RUNBOOK_CRASH_AT".to_owned(), at.to_string())];
        let crashed = run_in(&world.0, &words(&["answer", &world.0.newest(), "DELETE ALL"]), &crash);
        assert_eq!(crashed.status.code(), None, "point {at}");
        let names = || (0..FILES).map(|at| format!("logs/{at}.log"));
        names().for_each(|name| world.0.write(&name, "written anew\n"));
        let resumed = run_in(&world.0, &words(&["resume"]), &[]);
        // Whatever of the batch in flight is there again fails, and no further batch is begun.
        let told = String::from_utf8_lossy(&resumed.stderr).into_owned();
        assert!(resumed.status.code() == Some(10) && told.contains("max_errors is 0"), "point {at}: {told}");
        names().for_each(|name| assert_eq!(world.0.text(&name), "written anew\n", "point {at}: {name}"));
    }
}
