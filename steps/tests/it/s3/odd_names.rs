//! Objects whose names XML can not hold.

use std::collections::BTreeSet;

use runbook_engine::error::ErrorKind;
use runbook_sandbox::weed::Weed;
use runbook_steps::collections::KeyOutcome;
use serde_json::json;

use super::{keys, make, objects, rest, write};
use crate::collections::doomed;

const NAMES: &[&str] = &["in/a\u{1}b", "in/a\u{2}b", "in/a\u{1}b c+d%41", "in/a b+c", "in/z"];

#[tokio::test]
async fn objects_are_listed_by_the_names_that_they_have() {
    let weed = Weed::start().await.unwrap();
    let s3 = make(&weed, "odd").await;
    for name in NAMES {
        write(&s3, name, name).await;
    }
    let all = objects(&weed, "odd", json!({ "prefix": "in/" }));
    for size in [1, 2, 100] {
        let (items, _) = rest(&*all, None, size).await;
        let found: BTreeSet<&str> = keys(&items).into_iter().collect();
        assert_eq!(found, NAMES.iter().copied().collect(), "pages of {size}");
    }
    let (items, _) = rest(&*all, None, 100).await;
    for key in keys(&items) {
        assert!(all.read(key).await.unwrap().is_some(), "{key:?}");
    }
    // This store does not tell such names of versions.
    let versions = objects(&weed, "odd", json!({ "prefix": "in/", "versions": true }));
    let error = versions.scan(None, 100).await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("does not encode it"), "{error:?}");
    let ends = all.delete(&items.iter().map(doomed).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ends, vec![KeyOutcome::Done; NAMES.len()]);
    assert_eq!(all.count().await.unwrap(), 0);
}
