//! Which trials passed already, kept in a file: the whole matrix takes hours, and goes on where it was stopped.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::sync::Mutex;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::matrix::After;
use crate::trial::Crashes;

/// The trials of one case that passed with this very binary.
pub struct Passed {
    /// Names the binary and the case.
    of: String,
    known: HashMap<(usize, Vec<u64>), After>,
    file: Option<Mutex<File>>,
}

impl Passed {
    /// What `PASSED=FILE` holds of a case; nothing without it.
    pub fn of(case: &str) -> Self {
        let Some(path) = std::env::var_os("PASSED") else {
            return Self { of: String::new(), known: HashMap::new(), file: None };
        };
        let binary = Sha256::digest(fs::read(env!("CARGO_BIN_EXE_runbook")).unwrap());
        let of = format!("{} {case}", BASE64_STANDARD.encode(&binary[..9]));
        let text = fs::read_to_string(&path).unwrap_or_default();
        // The last line may be torn: the trial is made again.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let known = lines.filter(|line| line["of"] == of.as_str()).filter_map(|line| read(&line)).collect();
        let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        Self { of, known, file: Some(Mutex::new(file)) }
    }

    /// What came after these crashes, when they were tried already.
    pub fn find(&self, crashes: &Crashes) -> Option<After> {
        self.known.get(&(crashes.first, crashes.at.clone())).cloned()
    }

    /// Keeps a trial. What may come after a second crash is not asked for again.
    pub fn keep(&self, after: &After) {
        let Some(file) = &self.file else { return };
        let next: &[String] = if after.crashes.at.len() == 1 { &after.next } else { &[] };
        let line = json!({ "of": self.of, "first": after.crashes.first, "at": after.crashes.at, "point": after.point, "next": next });
        file.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

fn read(line: &Value) -> Option<((usize, Vec<u64>), After)> {
    let first = usize::try_from(line["first"].as_u64()?).ok()?;
    let at: Vec<u64> = line["at"].as_array()?.iter().filter_map(Value::as_u64).collect();
    let next = line["next"].as_array()?.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
    let crashes = Crashes { first, at: at.clone() };
    Some(((first, at), After { crashes, point: line["point"].as_str()?.to_owned(), next }))
}
