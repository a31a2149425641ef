//! Files that are made once and never written over: a key, a secret, copies of a report that was checked; and an approval.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::picture::files;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

struct Made(Place);

fn make() -> Box<dyn World> {
    let place = Place::new();
    fs::create_dir(place.path("made")).unwrap();
    place.write("tool-latest.md", "# Tool\n\nDate: 2026-01-01T00:00:00Z\nStatus: `PASS`\n");
    let text = format!(
        r#"lock: made
steps:
  - {{ id: key, uses: keygen, with: {{ path: "{made}/key.pem", public_path: "{made}/key.pub" }} }}
  - {{ id: secret, uses: generate-secret, with: {{ path: "{made}/secret" }} }}
  - {{ id: checked, uses: check-report, with: {{ reports: [{{ path: "{report}", allow_old: true }}] }} }}
  - {{ id: kept, uses: archive, with: {{ files: ["{report}"], into: "{made}/kept", label: test }} }}
  - {{ id: approved, uses: approval, with: {{ message: Go on?, role: tester, allow_runner: true }} }}
  - {{ id: counted, uses: assert, with: {{ that: "${{{{ steps.approved.outputs.role == 'tester' }}}}", message: not approved }} }}
finally:
  - {{ id: report, uses: report }}
"#,
        made = place.path("made").display(),
        report = place.path("tool-latest.md").display(),
    );
    place.runbook("made", &text);
    Box::new(Made(place))
}

impl World for Made {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.0, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.0.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "made.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.0.path("").display().to_string(), "WORLD/".to_owned())]
    }

    /// What is drawn, and the name with the time.
    fn is_drawn(&self, member: &str) -> bool {
        ["fingerprint", "public_key", "sha256", "to"].contains(&member)
    }

    fn picture(&self) -> Value {
        // The names hold the time.
        let without_digits = |path: &PathBuf| {
            let name = path.strip_prefix(self.0.path("made")).unwrap().display().to_string();
            name.replace(|letter: char| letter.is_ascii_digit(), "0")
        };
        // What a crash left unfinished of a copy, which is no secret, has a name that says so.
        let whole = |path: &&PathBuf| {
            !(path.starts_with(self.0.path("made/kept")) && path.extension().is_some_and(|end| end == "part"))
        };
        let all = files(&self.0.path("made"));
        let there = all.iter().filter(whole).map(|path| {
            let meta = fs::metadata(path).unwrap();
            (without_digits(path), meta.len(), format!("{:o}", meta.permissions().mode() & 0o777))
        });
        json!(there.collect::<Vec<_>>())
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        let text = |name: &str| fs::read_to_string(self.0.path(name)).unwrap_or_default();
        let state: Vec<u8> =
            files(&self.0.path("state")).iter().flat_map(|path| fs::read(path).unwrap_or_default()).collect();
        let drawn = ["made/key.pem", "made/secret"].map(text);
        let told = drawn.iter().flat_map(|text| text.lines()).filter(|line| {
            !line.starts_with("-----") && state.windows(line.len()).any(|part| part == line.as_bytes())
        });
        told.map(|line| format!("{line} is in the state")).collect()
    }
}

#[test]
fn what_is_made_is_made_once_and_is_nowhere_else_whatever_crashes() {
    explore(&Case { name: "made files", recovery: Recovery::Resume, make, stride: 3, second_stride: 97 });
}
