use serde_json::json;

use super::*;
use crate::inputs::{Given, resolve_inputs};

fn read(text: &str) -> (Option<Runbook>, Vec<String>) {
    let (node, mut problems) = crate::document::parse(text);
    let source: Arc<str> = text.into();
    let (runbook, more) = node.map_or((None, Vec::new()), |node| lower(&node, &source));
    problems.extend(more);
    let shown = problems
        .into_iter()
        .map(|problem| {
            let help = problem.help.map(|help| format!(" [{help}]")).unwrap_or_default();
            format!("{} {:?}: {}{help}", problem.code, &text[problem.span], problem.message)
        })
        .collect();
    (runbook, shown)
}

fn inputs(declared: &str) -> Runbook {
    let (runbook, problems) =
        read(&format!("runbook: a\ninputs:\n{declared}\nsteps: [{{ id: a, uses: x }}]\n"));
    assert_eq!(problems, [""; 0]);
    runbook.unwrap()
}

#[test]
fn order_follows_the_text_unless_needs_says_otherwise() {
    let (runbook, problems) = read(
        "runbook: a-b\nsteps:\n- {id: a, uses: x}\n- {id: b, uses: x}\n- {id: c, uses: x, needs: []}\n- {id: d, uses: x, needs: [a, c]}\nfinally:\n- {id: e, uses: x}\n- {id: f, uses: x}\n",
    );
    assert_eq!(problems, [""; 0]);
    let runbook = runbook.unwrap();
    let needs: Vec<_> = (0..4).map(|at| Runbook::needs(&runbook.steps, at)).collect();
    assert_eq!(needs, [vec![], vec!["a"], vec![], vec!["a", "c"]]);
    assert_eq!(Runbook::needs(&runbook.finally, 0), [""; 0]);
    assert_eq!(Runbook::needs(&runbook.finally, 1), ["e"]);
}

#[test]
fn other_engines_words_are_understood() {
    let (_, problems) = read(
        "name: a\nrunbook: A_b\nsteps:\n- {id: B-c, action: x, depends_on: [y], when: z, neds: []}\n- {id: d, uses: x, timeout: 5, needs: e, retry: {max_attempts: 0, dely: 1s}, waive: {RB9: x, RB0501: \"\"}}\n",
    );
    assert_eq!(
        problems,
        [
            "RB0201 \"name\": a runbook has no key `name` [write `runbook: its-name`]",
            "RB0204 \"A_b\": `A_b` is no name for a runbook: it is written in kebab-case [write `a-b`]",
            "RB0201 \"action\": a step has no key `action` [write `uses: kind`]",
            "RB0201 \"depends_on\": a step has no key `depends_on` [write `needs: [step]`]",
            "RB0201 \"when\": a step has no key `when` [write `if: \"${{ … }}\"`]",
            "RB0201 \"neds\": a step has no key `neds` [did you mean `needs`?]",
            "RB0204 \"B-c\": `B-c` is no name for a step: it is written in snake_case [write `b_c`]",
            "RB0202 \"id\": a step has no `uses` [write `uses: command`]",
            "RB0203 \"e\": `needs` must be a list of step ids, and this is a text [write `needs: [e]`]",
            "RB0207 \"RB9\": there is no rule `RB9` to waive [rules that can be waived: `RB0501`, `RB0502`, `RB0503`, `RB0504`, `RB0505`, `RB0506`, `RB0507`, `RB0508`, `RB0509`, `RB0516`]",
            "RB0207 \"RB0501\": `RB0501` is waived without a reason [the reason is shown to whoever approves and audits the run]",
            "RB0203 \"dely\": `retry`: there is no setting `dely` [did you mean `delay`?]",
            "RB0203 \"0\": `max_attempts` of `retry`: 0 is not at least 1",
            "RB0203 \"5\": `timeout`: expected a duration such as 30s, 5m or 1h30m, got 5 [write the unit too: 5s, 5m or 5h]",
        ]
    );
}

#[test]
fn declarations_must_make_sense() {
    let (_, problems) = read(
        "runbook: a\ninputs:\n  a: {type: integer, default: 7, maximum: 5}\n  b: {type: int}\n  c: {type: string, minimum: 3, pattern: \"[\"}\n  d: {type: list, items: integer, default: [1, x]}\n  e: {type: duration, default: 5}\n  f: {type: integer, minimum: 5, maximum: 1}\n  g: {type: string, enum: [a, b], default: c}\n  h: {type: string, default: \"${{ inputs.a }}\"}\nsecrets: {s: plain, t: {value: x}}\nsteps: [{ id: a, uses: x }]\n",
    );
    let start: Vec<_> =
        problems.iter().map(|problem| problem.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(
        start,
        [
            "RB0206 \"7\"",
            "RB0205 \"int\"",
            "RB0205 \"\\\"[\\\"\"",
            "RB0205 \"minimum\"",
            "RB0206 \"x\"",
            "RB0206 \"5\"",
            "RB0205 \"5\"",
            "RB0206 \"c\"",
            "RB0309 \"\\\"${{ inputs.a }}\\\"\"",
            "RB0203 \"plain\"",
            "RB0201 \"value\"",
            "RB0202 \"t\"",
        ],
        "{problems:#?}"
    );
}

#[test]
fn text_is_read_by_the_declared_type() {
    let runbook = inputs(
        "  n: {type: integer}\n  f: {type: number}\n  b: {type: boolean}\n  u: {type: url}\n  d: {type: duration}\n  s: {type: string}\n  l: {type: list}\n  i: {type: list, items: integer}\n  o: {type: path, required: false}\n  z: {type: integer, default: 5}",
    );
    let text = |name: &str, text: &str| (name.to_owned(), Given::Text(text.to_owned()));
    let given = [
        text("n", "12"),
        text("f", "1.5"),
        text("b", "true"),
        text("u", "http://h:1"),
        text("d", "5m"),
        text("s", "007"),
        text("l", "a, b"),
        text("i", "[1, 2]"),
    ];
    let values = resolve_inputs(&runbook, &given).unwrap();
    assert_eq!(
        Value::Object(values),
        json!({"n": 12, "f": 1.5, "b": true, "u": "http://h:1", "d": "5m", "s": "007", "l": ["a", "b"], "i": [1, 2], "o": null, "z": 5})
    );
}

#[test]
fn every_wrong_input_is_told_at_once() {
    let runbook = inputs(
        "  batch_size: {type: integer, minimum: 1, maximum: 100}\n  env: {type: string, enum: [staging, production]}\n  hold: {type: duration, maximum: 1h}\n  name: {type: string, pattern: \"[a-z]+\"}\n  ids: {type: list, minimum: 1}\n  missing: {type: url, description: Where it is.}",
    );
    let given = [
        ("batchsize".to_owned(), Given::Text("1".to_owned())),
        ("batch_size".to_owned(), Given::Text("101".to_owned())),
        ("env".to_owned(), Given::Value(json!("prod"))),
        ("hold".to_owned(), Given::Value(json!(30))),
        ("name".to_owned(), Given::Text("abc1".to_owned())),
        ("ids".to_owned(), Given::Text(String::new())),
        ("ids".to_owned(), Given::Text("a".to_owned())),
    ];
    let errors = resolve_inputs(&runbook, &given).unwrap_err();
    let shown: Vec<_> = errors
        .iter()
        .map(|error| format!("{error} [{}]", error.help.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(
        shown,
        [
            "there is no input `batchsize` [did you mean `batch_size`?]",
            "the input `ids` is given twice []",
            "the input `batch_size` is wrong: got 101, and it must be a whole number, 1 to 100 []",
            "the input `env` is wrong: got \"prod\", and it must be one of staging, production []",
            "the input `hold` is wrong: got 30, and it must be a duration such as 30s, 5m or 1h30m, at most 1h []",
            "the input `name` is wrong: got \"abc1\", and it must be a text, matching `[a-z]+` []",
            "the input `ids` is wrong: got [], and it must be a list in which each item is a text, at least 1 items []",
            "the input `missing` is not given: it must be a URL such as http://host:8080 [Where it is.]",
        ]
    );
}
