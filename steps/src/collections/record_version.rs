//! The version of items whose system gives none: a hash of all they hold.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Version;
use crate::digest::hex;

/// Which state of a record was read: the hash of its fields in the order of their names, 64 lower-case hex digits.
pub fn record_version(record: &Value) -> Version {
    let mut hash = Sha256::new();
    digest(record, &mut hash);
    Version(Value::from(hex(&hash.finalize())))
}

/// Maps in the order of their keys, since a store may give them in any.
fn digest(value: &Value, hash: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let fields: BTreeMap<&String, &Value> = map.iter().collect();
            hash.update(b"{");
            for (name, value) in fields {
                hash.update(Value::from(name.as_str()).to_string());
                digest(value, hash);
            }
            hash.update(b"}");
        }
        Value::Array(items) => {
            hash.update(b"[");
            items.iter().for_each(|item| digest(item, hash));
            hash.update(b"]");
        }
        plain => {
            hash.update(plain.to_string());
            hash.update(b",");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_fields_is_no_change_and_everything_else_is() {
        let version = |text: &str| record_version(&serde_json::from_str(text).unwrap());
        let one = version(r#"{"a": [1, "2"], "b": {"c": null, "d": 1.5}}"#);
        assert_eq!(one, version(r#"{"b": {"d": 1.5, "c": null}, "a": [1, "2"]}"#));
        for other in [
            r#"{"a": ["2", 1], "b": {"c": null, "d": 1.5}}"#,
            r#"{"a": [1, 2], "b": {"c": null, "d": 1.5}}"#,
            r#"{"a": [1, "2"], "b": {"c": null}, "d": 1.5}"#,
            r#"{"a": [1], "2": 1, "b": {"c": null, "d": 1.5}}"#,
        ] {
            assert_ne!(one, version(other), "{other}");
        }
        assert_ne!(record_version(&json!([[1], 2])), record_version(&json!([[1, 2]])));
        assert_ne!(record_version(&json!([12])), record_version(&json!([1, 2])));
    }
}
