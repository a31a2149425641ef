//! The promises of `fuzz/` about any text, tried without a fuzzer: on its corpus, on what the other tests read, and on seeded mutations
//! of all that. The same texts every time.

#[path = "language/catalog.rs"]
mod catalog;
#[path = "../../fuzz/src/promises.rs"]
mod promises;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use catalog::CATALOG;

/// How many mutations of each kind of text are tried, unless the variable `MUTATIONS` says another number.
const ROUNDS: usize = 6_000;
/// Longer texts are not mutated: many short ones find more.
const LONGEST: usize = 6_000;

/// What means something to YAML, to the language or to its expressions.
const WORDS: &[&str] = &[
    "${{",
    "}}",
    "${{ inputs.x }}",
    "steps.a.outputs.n",
    " | ",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "!x ",
    "? ",
    ": ",
    "- ",
    "---\n",
    "...\n",
    "%TAG ! x\n",
    "|\n",
    ">-\n",
    "#",
    "\t",
    "\n",
    "\r\n",
    "\u{feff}",
    "\u{0}",
    "ü",
    "\u{1f4a5}",
    "steps:\n",
    "  - id: a\n",
    "    uses: command\n",
    "needs: [a]\n",
    "if: ",
    "runbook: a\n",
    "0x",
    "1e999",
    "~",
    "true",
    "-.inf",
    "9999999999",
];

/// Numbers that look random and are the same every time (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap()
    }

    /// A place in the text between two characters.
    fn place(&mut self, text: &str) -> usize {
        let at = self.below(text.len() + 1);
        (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
    }

    fn part<'t>(&mut self, text: &'t str) -> &'t str {
        let (one, other) = (self.place(text), self.place(text));
        let (start, end) = (one.min(other), one.max(other));
        let length = self.below(200);
        let end = (end.min(start + length)..=end).find(|at| text.is_char_boundary(*at)).unwrap_or(end);
        &text[start..end]
    }

    fn mutated(&mut self, text: &str, other: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..=self.below(4) {
            let at = self.place(&text);
            match self.below(6) {
                0 => text.insert_str(at, WORDS[self.below(WORDS.len())]),
                1 => text.insert_str(at, self.part(other)),
                2 => text.truncate(at),
                3 => text = text.replacen(&self.part(&text).to_owned(), "", 1),
                4 => {
                    let again = self.part(&text).to_owned();
                    text.insert_str(at, &again.repeat(1 + self.below(20)));
                }
                _ => text = text.replacen(&self.part(&text).to_owned(), WORDS[self.below(WORDS.len())], 1),
            }
            text.truncate(
                (0..=LONGEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0),
            );
        }
        text
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn texts(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

fn documents() -> Vec<String> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("yaml-suite/cases.json")).unwrap();
    let mut all: Vec<String> = cases.iter().map(|case| case["yaml"].as_str().unwrap().to_owned()).collect();
    for folder in ["fuzz/corpus/document", "engine/tests/golden", "examples", "runbooks", "cli/templates"] {
        all.extend(texts(folder));
    }
    all
}

fn tried(all: &[String], seed: u64, promise: &dyn Fn(&str)) {
    all.iter().for_each(|text| promise(text));
    let short: Vec<&String> = all.iter().filter(|text| text.len() <= LONGEST).collect();
    let mut seeded = Seeded(seed);
    let rounds = std::env::var("MUTATIONS").map_or(ROUNDS, |number| number.parse().unwrap());
    for round in 0..rounds {
        let other = short[seeded.below(short.len())];
        let text = seeded.mutated(short[round % short.len()], other);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| promise(&text)));
        assert!(result.is_ok(), "round {round} of seed {seed}:\n{text}");
    }
}

#[test]
fn no_document_breaks_a_promise() {
    let all = documents();
    assert!(all.len() > 420, "{}", all.len());
    tried(&all, 1, &|text| promises::document(text, &CATALOG));
}

#[test]
fn no_expression_breaks_a_promise() {
    let mut all = texts("fuzz/corpus/expression");
    assert!(all.len() > 20, "{}", all.len());
    let parts = documents().into_iter().filter(|text| text.contains("${{"));
    all.extend(parts.flat_map(|text| {
        text.lines().filter(|line| line.contains("${{")).map(str::to_owned).collect::<Vec<_>>()
    }));
    tried(&all, 2, &|text| promises::expression(text));
}
