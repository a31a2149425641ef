//! What is written instead of a filter, a function or a test that does not exist.

use super::filters::{FILTERS, FUNCTIONS, TESTS};
use crate::suggest::{closest, listed};

/// What something is called where it was misnamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Filter,
    Function,
    Test,
}

impl Named {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Function => "function",
            Self::Test => "test",
        }
    }

    fn all(self) -> &'static [&'static str] {
        match self {
            Self::Filter => FILTERS,
            Self::Function => FUNCTIONS,
            Self::Test => TESTS,
        }
    }

    pub(super) fn exists(self, name: &str) -> bool {
        self.all().contains(&name)
    }
}

/// What other languages call a filter.
const FILTERS_ELSEWHERE: &[(&str, &str)] = &[
    ("len", "length"),
    ("size", "length"),
    ("count", "length"),
    ("str", "string"),
    ("to_string", "string"),
    ("tojson", "to_json"),
    ("toJSON", "to_json"),
    ("json", "to_json"),
    ("to_upper", "upper"),
    ("uppercase", "upper"),
    ("to_lower", "lower"),
    ("lowercase", "lower"),
    ("strip", "trim"),
    ("number", "float"),
    ("to_int", "int"),
    ("sorted", "sort"),
    ("reversed", "reverse"),
    ("uniq", "unique"),
    ("strftime", "format_date"),
    ("date", "format_date"),
    ("sha256sum", "sha256"),
    ("filter", "select"),
];

/// What other languages call a test.
const TESTS_ELSEWHERE: &[(&str, &str)] = &[
    ("empty", "write `value | length == 0`"),
    ("blank", "write `value | trim == ''`"),
    ("nonempty", "write `value | length > 0`"),
    ("non_empty", "write `value | length > 0`"),
    ("notempty", "write `value | length > 0`"),
    ("not_empty", "write `value | length > 0`"),
    ("present", "write `is defined`, or `value | length > 0`"),
    ("set", "write `is defined`"),
    ("null", "write `is none`"),
    ("nil", "write `is none`"),
    ("list", "write `is sequence`"),
    ("array", "write `is sequence`"),
    ("dict", "write `is mapping`"),
    ("map", "write `is mapping`"),
    ("object", "write `is mapping`"),
    ("bool", "write `is boolean`"),
    ("int", "write `is integer`"),
    ("str", "write `is string`"),
    ("text", "write `is string`"),
    ("numeric", "write `is number`"),
    ("contains", "write `'a' in value`"),
    ("containing", "write `'a' in value`"),
    ("match", "there are no regular expressions here: give the input a `pattern`"),
    ("matching", "there are no regular expressions here: give the input a `pattern`"),
    ("success", "write `steps.ID.status == 'succeeded'`"),
    ("succeeded", "write `steps.ID.status == 'succeeded'`"),
    ("failed", "write `steps.ID.status == 'failed'`"),
    ("skipped", "write `steps.ID.status == 'skipped'`"),
];

/// What is written instead of a name that does not exist. `argument` is the source of what it is applied to, where that can be told.
pub(super) fn help(what: Named, name: &str, argument: Option<&str>) -> String {
    let value = argument.unwrap_or("value");
    match what {
        _ if name == "now" => {
            return "a runbook reads no clock: use `run.created_at` or a step's `started_at`".to_owned();
        }
        Named::Filter if Named::Function.exists(name) => {
            return format!("`{name}` is a function: write `{name}(…)`");
        }
        Named::Filter => {
            if let Some(ours) = elsewhere(FILTERS_ELSEWHERE, name) {
                return format!("write `| {ours}`");
            }
        }
        Named::Function => {
            if let Some(filter) = elsewhere(FILTERS_ELSEWHERE, name) {
                return format!("write `{value} | {filter}`");
            }
            if let Some(help) = function(name, value) {
                return help;
            }
        }
        Named::Test => {
            if let Some(help) = elsewhere(TESTS_ELSEWHERE, name) {
                return help.replace("value", value);
            }
        }
    }
    let all = what.all();
    closest(name, all.iter().copied()).map_or_else(
        || format!("there are {}", listed(all.iter().copied())),
        |close| format!("did you mean `{close}`?"),
    )
}

/// What does the work of a function that does not exist.
fn function(name: &str, value: &str) -> Option<String> {
    if Named::Filter.exists(name) {
        return Some(format!("`{name}` is a filter: write `{value} | {name}`"));
    }
    match name {
        "success" | "always" | "failure" | "cancelled" => {
            return Some("a step runs when those it needs have succeeded; what runs however they ended stands below `finally`".to_owned());
        }
        "fromJSON" | "format" | "contains" | "startsWith" | "hashFiles" | "any" | "all" => {
            return Some(
                "a filter or an operator does this: `value | to_json`, `'a' in value`, `'x-' ~ value`"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if closest(name, FUNCTIONS.iter().copied()).is_some() {
        return None;
    }
    let close = closest(name, FILTERS.iter().copied())?;
    Some(format!("did you mean the filter `{close}`? Write `{value} | {close}`"))
}

fn elsewhere(table: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours)
}
