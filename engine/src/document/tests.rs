use proptest::prelude::*;
use serde_json::json;

use super::*;

fn problems(text: &str) -> Vec<(String, String)> {
    parse(text)
        .1
        .into_iter()
        .map(|problem| (text[problem.span.clone()].to_owned(), problem.message))
        .collect()
}

#[test]
fn values_know_their_places() {
    let text = "é: x\nlist: [one, {two: 2}]\nblock:\n  a: 1\n  b:\n    - yes\n    - \"q ${{ inputs.x }}\"\n";
    let (node, problems) = parse(text);
    assert_eq!(problems, []);
    let node = node.unwrap();
    assert_eq!(
        node.to_json(),
        json!({"é": "x", "list": ["one", {"two": 2}], "block": {"a": 1, "b": ["yes", "q ${{ inputs.x }}"]}})
    );
    let at = |pointer: &str, key| &text[node.locate(pointer, key)];
    assert_eq!(at("/list/0", false), "one");
    assert_eq!(at("/list", false), "[one, {two: 2}]");
    assert_eq!(at("/list/1", false), "{two: 2}");
    assert_eq!(at("/list/1/two", true), "two");
    assert_eq!(at("/block/b", true), "b");
    assert_eq!(at("/block", false), "a: 1\n  b:\n    - yes\n    - \"q ${{ inputs.x }}\"");
    assert_eq!(at("/block/b/7", false), "- yes\n    - \"q ${{ inputs.x }}\"");
    let quoted = &node.entry("block").unwrap().value.entry("b").unwrap().value;
    let Kind::List(items) = &quoted.kind else { panic!() };
    assert_eq!(&text[items[1].place(text, 6..14)], "inputs.x");
}

#[test]
fn places_inside_folded_and_escaped_texts() {
    let text = "a: |\n  one ${{ x }}\n  two ${{ x }}\nb: \"\\t${{ y }}\"\n";
    let node = parse(text).0.unwrap();
    let block = &node.entry("a").unwrap().value;
    let second = block.as_str().unwrap().rfind('x').unwrap();
    assert_eq!(block.place(text, second..second + 1).start, text.rfind('x').unwrap());
    let escaped = &node.entry("b").unwrap().value;
    assert_eq!(escaped.place(text, 5..6).start, text.rfind('y').unwrap());
}

#[test]
fn every_mistake_is_found_at_once() {
    let found = problems("a: 1\na: 2\nb: *none\nc: !thing x\nd: 014\ne: .inf\n<<: 3\n");
    let shown: Vec<_> = found.iter().map(|(place, message)| (place.as_str(), message.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("a", "the key `a` is there twice"),
            ("*none", "there is no anchor `&none` above"),
            ("!thing", "there is no tag `!thing`"),
            ("014", "`014` is read as the number 14"),
            (".inf", "a number must be finite"),
            ("3", "`<<` takes a map or a list of maps, and this is a number"),
        ]
    );
}

#[test]
fn merges_fill_what_is_not_there() {
    let text = "base: &base {a: 1, b: 2}\nmore:\n  <<: *base\n  b: 3\n";
    let (node, problems) = parse(text);
    assert_eq!(problems, []);
    assert_eq!(node.unwrap().to_json()["more"], json!({"b": 3, "a": 1}));
}

#[test]
fn unreadable_texts_are_refused_with_a_reason() {
    assert!(problems("a: {b: ${{ x }}}")[0].1.starts_with("this is no YAML"));
    assert_eq!(problems("a: 1\n---\nb: 2\n")[0].1, "a second document begins here");
    assert_eq!(problems("")[0].1, "the file is empty");
    assert_eq!(problems("# only this\n")[0].1, "the file is empty");
    assert!(problems("a: {{ inputs.x }}\n").iter().any(|(_, message)| message == "a key must be a text"));
    assert!(parse("a: {{ inputs.x }}\n").1[0].help.as_deref().unwrap().contains("${{ … }}"));
    assert!(problems("? [1, 2]\n: x\nb: 1\nb: 2\n").len() == 2);
    assert!(
        problems(&"[".repeat(100))
            .iter()
            .any(|(_, message)| message.contains("nested") || message.contains("YAML"))
    );
}

#[test]
fn an_alias_bomb_costs_nothing() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        text += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "));
    }
    assert!(problems(&text)[0].1.contains("more than 1000000 values"));
    // A few aliases of a long text are many bytes.
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), vec!["*a"; 200].join(", "));
    assert!(problems(&text)[0].1.contains("more than 1000000 values"));
    assert!(problems("a: &a [*a]\n")[0].1.contains("inside what it repeats"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_text_panics(text in r#"([a-c&*!<>|\-?:,#\[\]{}'"é0-9 \n\t~.%@`$]|: |- |\n  |<<|&a |\*a|---\n|\$\{\{|\PC){0,40}"#) {
        let (node, problems) = parse(&text);
        for problem in problems {
            prop_assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
        }
        if let Some(node) = node {
            let _ = node.to_json();
            node.texts(&mut |pointer, leaf, inner| {
                assert!(text.get(node.locate(pointer, true)).is_some());
                assert!(text.get(leaf.place(&text, 0..inner.len())).is_some());
            });
        }
    }
}
