//! What an author must know of the language beside the step kinds, a page for each part of it.

use runbook_engine::expr::{FILTERS, FUNCTIONS, TESTS};
use runbook_engine::kinds::ResourceKindInfo;
use runbook_engine::schema;
use runbook_steps::catalog::CATALOG;
use serde_json::Value;

use crate::fields::{fields, fields_to};

/// A part of the language.
pub struct Topic {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// What there is to say of it, before and after what the schema says.
    words: &'static str,
    /// The lines made from the program's own tables.
    made: fn() -> Vec<String>,
    /// A runbook that shows it, which passes the check.
    pub example: &'static str,
}

/// All of them, in the order in which one meets them.
pub const TOPICS: &[Topic] = &[
    Topic {
        name: "runbook",
        summary: "the keys of a runbook file",
        words: "A runbook is a YAML 1.2 document with these keys. Dates, `yes`, `no` and `12:30` are texts. Anchors, aliases and `<<` work.",
        made: || fields_to(1, &schema::runbook(&CATALOG), &schema::runbook(&CATALOG)),
        example: include_str!("topics/runbook.yaml"),
    },
    Topic {
        name: "step",
        summary: "the keys of a step: needs, if, retry, timeout, on_failure, limits, waive",
        words: "A step begins when the steps it needs have ended well: those in `needs`, and without `needs` the one just above it. \
                `needs: []` begins at once. A step that was skipped counts as ended well. Below `finally` stands what runs however the others ended. \
                There are no loops: a kind that works on many items takes the whole list or a collection. \
                `runbook steps` lists the kinds, and `runbook steps KIND` their settings and outputs.",
        made: || {
            let root = schema::runbook(&CATALOG);
            fields(&root, root.pointer("/definitions/step").unwrap_or(&Value::Null))
        },
        example: include_str!("topics/step.yaml"),
    },
    Topic {
        name: "inputs",
        summary: "what a run must be told, with types, defaults and bounds",
        words: "`runbook exec FILE -i NAME=VALUE`, or `--inputs FILE` for many. An input without a default must be given. \
                A `url` has a scheme and a host, a `path` is as the system writes it, a `duration` is a number with a unit such as `90s`, `15m`, `2h`, `45d`. \
                A list has `items`, the type of each of its items.",
        made: || of_named("inputs"),
        example: include_str!("topics/inputs.yaml"),
    },
    Topic {
        name: "secrets",
        summary: "credentials, read from the environment or from files and written nowhere",
        words: "`secrets.NAME` may stand only where a credential is expected: `runbook check` says where it may not. \
                What looks like a declared secret is masked wherever it is shown or kept; what a program prints that was not declared is not.",
        made: || of_named("secrets"),
        example: include_str!("topics/secrets.yaml"),
    },
    Topic {
        name: "connections",
        summary: "how systems are reached: the connection kinds and their settings",
        words: "A name, its `type`, and the settings of that type.",
        made: || of_kinds(CATALOG.connections),
        example: include_str!("topics/connections.yaml"),
    },
    Topic {
        name: "collections",
        summary: "sets of items in systems: the collection kinds and their settings",
        words: "A name, its `type`, and the settings of that type. Items of a collection are counted, written into a snapshot, deleted in batches, and put back.",
        made: || of_kinds(CATALOG.collections),
        example: include_str!("topics/collections.yaml"),
    },
    Topic {
        name: "expressions",
        summary: "${{ … }}: variables, operators, filters, tests, functions",
        words: "An expression stands in `${{ }}`, alone or inside a text. Alone it keeps its type. `if` and `that` are expressions by nature, in `${{ }}` or, for `if`, without.",
        made: expressions,
        example: include_str!("topics/expressions.yaml"),
    },
];

impl Topic {
    /// The one of this name, in the singular or the plural.
    pub fn named(name: &str) -> Option<&'static Self> {
        let one = |name: &str| name.trim_end_matches('s').to_owned();
        TOPICS.iter().find(|topic| one(topic.name) == one(&name.to_lowercase()))
    }

    /// The page, a line each; lines may be longer than a terminal is wide.
    pub fn page(&self) -> Vec<String> {
        let mut lines = vec![format!("{}: {}", self.name, self.summary), String::new()];
        lines.push(self.words.to_owned());
        lines.push(String::new());
        lines.extend((self.made)());
        lines.push(String::new());
        lines
    }
}

/// What the schema says of one entry below a key of the runbook.
fn of_named(key: &str) -> Vec<String> {
    let root = schema::runbook(&CATALOG);
    let entry = root.pointer(&format!("/properties/{key}/additionalProperties"));
    fields(&root, entry.unwrap_or(&Value::Null))
}

fn of_kinds(kinds: &[ResourceKindInfo]) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in kinds {
        lines.push(format!("type: {}", kind.name));
        lines.push(format!("    {}", kind.summary));
        let config = Value::from((kind.config)());
        lines.extend(fields(&config, &config));
    }
    lines
}

/// What an expression sees and can do. Each group names the filters that belong together.
fn expressions() -> Vec<String> {
    let mut lines: Vec<String> = [
        "inputs.NAME",
        "secrets.NAME",
        "steps.ID.outputs.NAME   (of a step that is upstream; `| default(x)` when it may have been skipped)",
        "steps.ID.status         (succeeded, failed, skipped …), .attempts, .started_at, .ended_at",
        "run.id, run.runbook, run.definition (the SHA-256 of the file), run.created_at, run.by, run.cancelled (for a last step)",
        "",
        "a == b, a != b, a < b, a >= b, a in list, not a, a and b, a or b",
        "a + b (numbers, lists), a - b, a * b, a / b, a // b (whole), a % b, a ** b, a ~ b (texts, side by side)",
        "a if condition else b, list[0], list[1:], map.key, map['a key'], [a, b], {'key': a}",
    ]
    .into_iter()
    .map(|line| format!("  {line}").trim_end().to_owned())
    .collect();
    for (what, names) in [
        ("filters, as in `value | NAME`", FILTERS),
        ("tests, as in `value is NAME`", TESTS),
        ("functions", FUNCTIONS),
    ] {
        lines.push(String::new());
        lines.push(format!("{what}:"));
        lines.push(format!("  {}", names.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use runbook_engine::compile::compile;

    use super::*;

    #[test]
    fn every_example_passes_the_check() {
        for topic in TOPICS {
            let (runbook, found) = compile(topic.example, &CATALOG);
            assert!(runbook.is_some() && found.is_empty(), "{}: {found:?}", topic.name);
            assert!(topic.page().len() > 5, "{}", topic.name);
        }
    }

    #[test]
    fn a_topic_is_found_in_the_singular_and_the_plural() {
        assert_eq!(Topic::named("steps").map(|topic| topic.name), Some("step"));
        assert_eq!(Topic::named("Input").map(|topic| topic.name), Some("inputs"));
        assert!(Topic::named("nothing").is_none());
    }
}
