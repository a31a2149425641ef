use proptest::prelude::*;
use serde_json::json;

use super::*;

fn scope() -> Scope {
    let object = |value: Value| value.as_object().unwrap().clone();
    Scope {
        inputs: object(json!({
            "name": "x y", "size": 100, "on": true, "off": false, "nothing": null, "list": [3, 1, 2], "big": 9_007_199_254_740_993_u64,
            "map": {"a": 1}, "at": "2026-11-21T02:00:00Z", "half": 0.5
        })),
        steps: object(json!({
            "snap": {"status": "succeeded", "outputs": {"count": 7, "items": [{"id": "a"}, {"id": "b"}]}},
            "skipped": {"status": "skipped"}
        })),
        run: object(json!({"id": "r1"})),
        secrets: BTreeMap::from([("key".to_owned(), "s3cr3t".to_owned())]),
    }
}

fn eval(text: &str) -> Result<Value, String> {
    resolve(&json!(text), &scope()).map_err(|error| error.message)
}

#[test]
fn one_expression_keeps_its_type_and_more_is_text() {
    assert_eq!(eval("${{ inputs.size }}").unwrap(), json!(100));
    assert_eq!(eval("${{inputs.big}}").unwrap(), json!(9_007_199_254_740_993_u64));
    assert_eq!(eval("${{ inputs.list }}").unwrap(), json!([3, 1, 2]));
    assert_eq!(eval("${{ inputs.map }}").unwrap(), json!({"a": 1}));
    assert_eq!(eval("${{ inputs.nothing }}").unwrap(), json!(null));
    assert_eq!(eval("${{ inputs.half }}").unwrap(), json!(0.5));
    assert_eq!(eval("a ${{ inputs.size }} ${{ inputs.on }}").unwrap(), json!("a 100 true"));
    assert_eq!(eval("${{ secrets.key }}").unwrap(), json!("s3cr3t"));
    assert_eq!(
        eval("{{ x }} {% if %} {# c #} $HOME ${HOME}").unwrap(),
        json!("{{ x }} {% if %} {# c #} $HOME ${HOME}")
    );
}

#[test]
fn text_never_shows_another_languages_forms() {
    assert_eq!(eval("${{ 'a' ~ inputs.on ~ inputs.size }}").unwrap(), json!("atrue100"));
    assert_eq!(eval("${{ ('a' ~ (inputs.on or false)) | upper ~ 'x' }}").unwrap(), json!("ATRUEx"));
    assert_eq!(eval("${{ inputs.on | string }}").unwrap(), json!("true"));
    assert_eq!(eval("${{ [true, 1, 'x'] | join('-') }}").unwrap(), json!("true-1-x"));
    for text in [
        "a ${{ inputs.list }}",
        "a ${{ inputs.map }}",
        "a ${{ inputs.nothing }}",
        "${{ 'a' ~ inputs.list }}",
        "${{ inputs.nothing ~ 'a' }}",
    ] {
        assert!(eval(text).unwrap_err().contains("cannot be part of a longer text"), "{text}");
    }
}

#[test]
fn what_is_absent_is_named() {
    for (text, name) in [
        ("${{ inputs.missing }}", "`inputs.missing` has no value"),
        (
            "${{ steps.snap.outputs.cout == 0 }}",
            "`steps.snap.outputs.cout` has no value: `steps.snap.outputs` has `count`, `items` and no `cout`",
        ),
        ("${{ steps['nope'].outputs.count }}", "`steps.nope` has no value"),
        ("${{ steps.skipped.outputs.count }}", "`steps.skipped.outputs` has no value: `skipped` was skipped"),
        (
            "${{ steps.skipped.outputs.a | default('') ~ (steps.skipped.outputs.a == 'x') }}",
            "`steps.skipped.outputs` has no value",
        ),
        ("${{ (steps.skipped.outputs.count > 1) | default(false) }}", "`steps.skipped.outputs` has no value"),
        (
            "${{ steps.snap.outputs.items[0].nme | default(steps.nope.outputs.a) }}",
            "`steps.nope` has no value",
        ),
        ("${{ [inputs.list[5] | default(0), inputs.list[5] == 1] }}", "`inputs.list.5` has no value"),
        ("${{ [inputs.missing] }}", "`inputs.missing` has no value"),
        ("x ${{ not inputs.missing }}", "`inputs.missing` has no value"),
        ("${{ inputs.list[7] == 1 }}", "`inputs.list.7` has no value"),
        ("${{ secrets.other }}", "`secrets.other` has no value"),
    ] {
        let message = eval(text).unwrap_err();
        assert!(message.contains(name), "{text}: {message}");
    }
}

#[test]
fn what_may_be_absent_may() {
    assert_eq!(eval("${{ steps.skipped.outputs | default({}) }}").unwrap(), json!({}));
    assert_eq!(eval("${{ inputs.missing | default(3) }}").unwrap(), json!(3));
    assert_eq!(
        eval("${{ steps.snap.outputs.cout is defined and steps.snap.outputs.cout > 3 }}").unwrap(),
        json!(false)
    );
    assert_eq!(
        eval("${{ steps.skipped.status == 'succeeded' and steps.skipped.outputs.count > 3 }}").unwrap(),
        json!(false)
    );
    for (text, value) in [
        ("${{ steps.skipped.outputs.a | default('none') }}", json!("none")),
        ("${{ steps.skipped.outputs.a.b[0]['c'] | default('none') }}", json!("none")),
        ("${{ steps['skipped'].outputs.a | d('none') }}", json!("none")),
        ("${{ steps.skipped.outputs.a is defined }}", json!(false)),
        ("${{ steps.skipped.outputs.a is undefined }}", json!(true)),
        ("${{ steps.skipped.outputs.list | default([]) | length }}", json!(0)),
        ("a ${{ 'x' ~ steps.skipped.outputs[inputs.name ~ '!'] | default('none') }}", json!("a xnone")),
        ("${{ inputs.map.b.c | default(steps.skipped.outputs.a | default(2)) }}", json!(2)),
        ("${{ inputs.list[9].a | default(1) }}", json!(1)),
        ("${{ inputs.list[-1] | default(9) }}", json!(2)),
        ("${{ steps.snap.outputs.items[1].id | default('none') }}", json!("b")),
        ("${{ steps.snap.outputs.count | default(0) + 1 }}", json!(8)),
        ("${{ inputs | default({}) | length }}", json!(10)),
        ("${{ steps.snap.outputs | default({}) }}", json!({"count": 7, "items": [{"id": "a"}, {"id": "b"}]})),
    ] {
        assert_eq!(eval(text).as_ref(), Ok(&value), "{text}");
    }
    assert_eq!(eval("${{ inputs.nothing | default('none', true) }}").unwrap(), json!("none"));
}

#[test]
fn filters_do_what_they_say() {
    for (text, value) in [
        ("${{ {'a': [1, null]} | to_json }}", json!("{\"a\":[1,null]}")),
        ("${{ 'abc' | sha256 }}", json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")),
        ("${{ '/a/b.txt' | basename }}", json!("b.txt")),
        (
            "${{ ['sh', '-c', \"echo it's\"] | quote }} ${{ 'a b' | quote }}",
            json!(r"sh -c 'echo it'\''s' 'a b'"),
        ),
        ("${{ (['sh', '-c'] + [\"echo it's\"]) | quote }}", json!(r"sh -c 'echo it'\''s'")),
        ("${{ '1h30m' | duration }}", json!(5400)),
        ("${{ '1500ms' | duration }}", json!(1.5)),
        ("${{ inputs.at | timestamp }}", json!(1_795_226_400)),
        ("${{ inputs.at | add_duration('5m') }}", json!("2026-11-21T02:05:00Z")),
        ("${{ inputs.at | add_duration('-1d') | format_date('%Y-%m-%d') }}", json!("2026-11-20")),
        ("${{ inputs.list | sort | first }}", json!(1)),
        ("${{ inputs.list | max }}", json!(3)),
        ("${{ inputs.list | length }}", json!(3)),
        ("${{ steps.snap.outputs.items | map(attribute='id') | join(',') }}", json!("a,b")),
        ("${{ inputs.name | upper | replace(' ', '_') }}", json!("X_Y")),
        ("${{ inputs.name | split(' ') }}", json!(["x", "y"])),
        ("${{ '12' | int + 1 }}", json!(13)),
        ("${{ 2.4 | round | int }}", json!(2)),
        ("${{ 'a' if inputs.off else 'b' }}", json!("b")),
    ] {
        assert_eq!(eval(text).as_ref(), Ok(&value), "{text}");
    }
}

#[test]
fn every_listed_name_exists() {
    for name in FILTERS {
        let error = filters::ENVIRONMENT.compile_expression_owned(format!("1 | {name}")).unwrap().eval(());
        assert!(!error.is_err_and(|error| error.kind() == minijinja::ErrorKind::UnknownFilter), "{name}");
    }
    for name in TESTS {
        let error = filters::ENVIRONMENT.compile_expression_owned(format!("1 is {name}")).unwrap().eval(());
        assert!(!error.is_err_and(|error| error.kind() == minijinja::ErrorKind::UnknownTest), "{name}");
    }
}

#[test]
fn errors_have_a_place_and_the_expression() {
    let value = json!({"a/b": [1, {"c": "${{ inputs.x }}"}]});
    let error = resolve(&value, &scope()).unwrap_err();
    assert_eq!(error.pointer, "/a~1b/1/c");
    assert!(error.message.starts_with("`inputs.x`: "), "{}", error.message);
}

#[test]
fn conditions_are_true_or_false() {
    assert_eq!(condition("inputs.size > 10 and inputs.on", &scope()), Ok(true));
    assert_eq!(condition("${{ inputs.off }}", &scope()), Ok(false));
    assert!(condition("inputs.size", &scope()).unwrap_err().message.contains("must be true or false"));
    assert!(condition("", &scope()).is_err());
}

#[test]
fn nothing_leaks_and_nothing_runs_away() {
    assert!(eval("${{ debug() }}").unwrap_err().contains("no function `debug`"));
    assert!(eval("${{ range(100000) | map('string') | list | length + (range(100000) | sum) }}").is_ok());
    assert!(eval("${{ [1] * 1000000000 }}").is_err());
    assert!(eval("${{ __text(1) }}").is_err());
    let deep = format!("${{{{ {}1 }}}}", "1 + ".repeat(10_000));
    assert!(eval(&deep).unwrap_err().contains("too long"));
    let chain = format!("${{{{ inputs{} }}}}", ".a".repeat(190));
    assert!(eval(&chain).is_err());
}

#[test]
fn what_comes_of_a_secret_is_learnt() {
    let learnt = std::cell::RefCell::new(Vec::new());
    let value = json!({
        "env": { "A": "token ${{ secrets.key | upper }}", "B": ["${{ secrets.key ~ ':' ~ inputs.size }}"] },
        "argv": ["${{ inputs.name }}", "${{ secrets.key | length }}", "${{ ['x', secrets.key] }}"],
    });
    let resolved = resolve_learning(&value, &scope(), &|text| learnt.borrow_mut().push(text.to_owned()));
    assert_eq!(resolved.unwrap()["env"]["A"], "token S3CR3T");
    assert_eq!(learnt.into_inner(), ["S3CR3T", "s3cr3t:100", "x", "s3cr3t"]);
}

#[test]
fn what_is_lazy_stays_as_it_is_written() {
    let value = json!({
        "that": [{ "that": "${{ inputs.on }}", "message": "no ${{ inputs.missing }}" }, { "message": "plain" }],
        "message": "${{ inputs.size }}",
    });
    let (resolved, left) = resolve_except(&value, &["/that/*/message"], &scope(), &|_| {}).unwrap();
    assert_eq!(resolved["that"][0], json!({ "that": true, "message": "no ${{ inputs.missing }}" }));
    assert_eq!(resolved["message"], 100);
    assert_eq!(left, BTreeMap::from([("/that/0/message".to_owned(), "no ${{ inputs.missing }}".to_owned())]));
}

#[test]
fn references_have_exact_places() {
    let text =
        "é ${{ steps['snap'].outputs.count + inputs.size | default(1) }} ${{ steps[inputs.x].status }}";
    let found = references(text);
    let shown: Vec<_> =
        found.iter().map(|r| (r.text(), &text[r.span.clone()], r.dynamic, r.guarded)).collect();
    assert_eq!(
        shown,
        [
            ("steps.snap.outputs.count".to_owned(), "steps['snap'].outputs.count", false, false),
            ("inputs.size".to_owned(), "inputs.size", false, true),
            ("inputs.x".to_owned(), "inputs.x", false, false),
            ("steps".to_owned(), "steps[inputs.x].status", true, false),
        ]
    );
    let segments: Vec<_> = found[0].path.iter().map(|s| &text[s.span.clone()]).collect();
    assert_eq!(segments, ["'snap'", "outputs", "count"]);
}

#[test]
fn mistakes_are_found_without_values() {
    let texts = [
        ("${{ input.x }}", "input", "there is no variable `input`", "did you mean `inputs`?"),
        ("${{ inputs.x | uper }}", "uper", "there is no filter `uper`", "did you mean `upper`?"),
        ("${{ now() }}", "now", "there is no function `now`", "a runbook reads no clock"),
        ("${{ inputs.x.upper() }}", ".upper()", "values have no methods", "write it as a filter"),
        ("${{ inputs.x is defind }}", "defind", "there is no test `defind`", "did you mean `defined`?"),
    ];
    for (text, place, message, help) in texts {
        let problem = &analyse(text).problems[0];
        assert_eq!(&text[problem.span.clone()], place, "{text}");
        assert!(problem.message.contains(message), "{text}: {}", problem.message);
        assert!(problem.help.as_deref().unwrap_or_default().contains(help), "{text}: {:?}", problem.help);
    }
    assert_eq!(analyse("${{ inputs.x").problems[0].message, "`${{` is not closed");
    assert_eq!(analyse("${{ 1 + }}").problems[0].kind, ProblemKind::Syntax);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(text in "\\PC{0,60}", source in r#"[a-z0-9_.~|+*'"()\[\]{}é ,:=<>-]{0,40}"#) {
        for text in [text.clone(), format!("${{{{{source}}}}}"), format!("a${{{{ {text} }}}}"), format!("${{{{ inputs.{source}")] {
            let analysis = analyse(&text);
            for reference in &analysis.references {
                prop_assert!(text.get(reference.span.clone()).is_some());
                for segment in &reference.path {
                    prop_assert!(text.get(segment.span.clone()).is_some());
                }
            }
            for problem in &analysis.problems {
                prop_assert!(text.get(problem.span.clone()).is_some());
            }
            let _ = resolve(&json!(text), &scope());
            let _ = condition(&text, &scope());
        }
    }
}

#[test]
fn a_url_that_leads_to_this_machine_is_known_however_it_is_written() {
    let is = |url: &str| eval(&format!("${{{{ '{url}' is loopback }}}}")).unwrap() == json!(true);
    for own in [
        "http://localhost:9000",
        "https://LOCALHOST./x",
        "http://minio.localhost",
        "http://a.b.localhost.:9000",
        "http://localhost.localdomain:9000",
        "http://LocalHost.LocalDomain.",
        "http://localhost4",
        "http://localhost6:9000",
        "http://localhost6.localdomain6",
        "http://ip6-localhost:9000",
        "http://ip6-loopback",
        "http://host.docker.internal:9000",
        "http://127.0.0.1:9000",
        "http://127.1",
        "http://0x7f000001:9000",
        "http://2130706433/",
        "http://2130706433:9000",
        "http://017700000001",
        "http://0x7f.1",
        "http://0.0.0.0",
        "http://0",
        "http://[::1]:9000",
        "http://[::]",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:7f00:1]:9000",
        "http://[::ffff:0.0.0.0]",
        "http://[::127.0.0.1]",
    ] {
        assert!(is(own), "{own}");
    }
    for other in [
        "https://s3.example.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "http://128.0.0.1",
        "http://[2001:db8::1]",
        "http://notlocalhost",
        "http://localhost.localdomain.example.com",
        "http://localhost7",
        "http://3221225985",
        "http://[::ffff:10.0.0.1]",
    ] {
        assert!(!is(other), "{other}");
    }
    assert!(eval("${{ 'x' is loopback }}").unwrap_err().contains("no URL"));
}
