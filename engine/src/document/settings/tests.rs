use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::duration::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is read")]
struct Config {
    collection: String,
    batch_size: Option<NonZeroU32>,
    timeout: Duration,
    #[serde(default)]
    dry: bool,
    mode: Option<Mode>,
    #[serde(default)]
    rows: Vec<Row>,
    #[serde(default)]
    named: BTreeMap<String, Row>,
    url: Option<Link>,
    some: Option<OneOrMany>,
    even: Option<Never>,
}

/// Takes a copy of the whole value before it looks at it.
#[expect(dead_code, reason = "only its shape is read")]
struct OneOrMany(Vec<Row>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let many = if value.is_array() { value } else { Value::Array(vec![value]) };
        serde_json::from_value(many).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Takes nothing that could stand in for an expression.
struct Never;

impl<'de> Deserialize<'de> for Never {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "xyzzy" { Ok(Self) } else { Err(serde::de::Error::custom(format!("`{text}` is not it"))) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is read")]
struct Row {
    id: u64,
    label: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is read")]
enum Mode {
    Fast,
    Slow { wait: Duration },
    Row(Row),
}

struct Link;

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with("http://") {
            Ok(Self)
        } else {
            Err(serde::de::Error::custom(format!("`{text}` is no URL")))
        }
    }
}

fn check(value: Value) -> Vec<String> {
    check_settings::<Config>(&value)
        .into_iter()
        .map(|problem| {
            let key = match problem.fault {
                At::Key => " (key)",
                At::Missing => " (missing)",
                At::Value => "",
            };
            let help = problem.help.map(|help| format!(" [{help}]")).unwrap_or_default();
            format!("{}{key}: {}{help}", problem.pointer, problem.message)
        })
        .collect()
}

#[test]
fn good_settings_and_templates_anywhere_pass() {
    assert_eq!(
        check(
            json!({"collection": "a", "timeout": "5m", "mode": {"slow": {"wait": "1s"}}, "rows": [{"id": 1}]})
        ),
        [""; 0]
    );
    let x = "${{ inputs.x }}";
    for value in [
        json!({"collection": x, "timeout": x, "batch_size": x, "dry": x, "mode": x, "rows": x, "named": x, "url": x}),
        json!({"collection": x, "timeout": x, "rows": [x, {"id": x, "label": x}], "named": {"a": x, "b": {"id": x}}}),
        json!({"collection": x, "timeout": x, "mode": {"slow": {"wait": x}}}),
        json!({"collection": x, "timeout": x, "mode": {"slow": x}, "url": "http://a/${{ inputs.x }}"}),
        json!({"collection": x, "timeout": x, "mode": {"row": {"id": x}}}),
        json!({"collection": x, "timeout": x, "some": [x, {"id": x}], "even": x}),
        json!({"collection": x, "timeout": x, "some": x, "even": "xyzzy"}),
    ] {
        assert_eq!(check(value.clone()), [""; 0], "{value}");
    }
}

#[test]
fn every_mistake_is_found_at_its_place() {
    let value = json!({
        "colection": "a", "batch_size": 0, "timeout": 30, "dry": "yes", "mode": "fst",
        "rows": [{"id": -1}, {"id": 1, "lable": "x"}, {"label": 3}], "named": {"a/b": {"id": "7"}}, "url": "ftp://x", "zz": 1
    });
    let mut found = check(value);
    found.sort();
    assert_eq!(
        found,
        [
            " (missing): the setting `collection` is missing",
            "/batch_size: expected a whole number of at least 1, got 0",
            "/colection (key): there is no setting `colection` [did you mean `collection`?]",
            "/dry: expected true or false, got the text \"yes\"",
            "/mode: `fst` is not one of `fast`, `slow`, `row` [did you mean `fast`?]",
            "/named/a~1b/id: expected a whole number of at least 0, got the text \"7\" [write 7 without quotes]",
            "/rows/0/id: expected a whole number of at least 0, got -1",
            "/rows/1/lable (key): there is no setting `lable` [did you mean `label`?]",
            "/rows/2 (missing): the setting `id` is missing",
            "/rows/2/label: expected a text, got 3 [write \"3\"]",
            "/timeout: expected a duration such as 30s, 5m or 1h30m, got 30 [write the unit too: 30s, 30m or 30h]",
            "/url: `ftp://x` is no URL",
            "/zz (key): there is no setting `zz` [what can be set: `collection`, `batch_size`, `timeout`, `dry`, `mode`, `rows`, `named`, `url`, `some`, `even`]",
        ]
    );
}

#[test]
fn templates_do_not_hide_mistakes_beside_them() {
    let x = "${{ inputs.x }}";
    assert_eq!(
        check(json!({"collection": x, "timeout": x, "url": x, "dryy": true})),
        ["/dryy (key): there is no setting `dryy` [did you mean `dry`?]"]
    );
    assert_eq!(
        check(json!({"collection": x, "timeout": "soon", "mode": {"slow": {"wait": x, "more": 1}}})).len(),
        2
    );
    assert_eq!(
        check(json!({"timeout": "5m", "mode": {"fast": {"wait": 1}}, "collection": "a"})),
        ["/mode: `fast` holds nothing: write it alone"]
    );
    assert_eq!(check(json!([1])), [": expected a map, got a list"]);
    assert_eq!(
        check(json!({"collection": "a", "timeout": "1s", "mode": "slow"})),
        ["/mode: expected `slow:` with a map, got the text \"slow\""]
    );
}
