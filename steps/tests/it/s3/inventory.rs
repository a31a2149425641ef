//! `s3-inventory` over a real store.

use runbook_engine::error::ErrorKind;
use serde_json::{Value, json};

use super::{make, write};
use crate::common::{Bench, planned};
use runbook_sandbox::weed::Weed;

async fn bench(weed: &Weed, folder: &tempfile::TempDir, with: Value) -> Bench {
    let connections =
        json!({ "bucket": weed.bucket("stock"), "kept": { "type": "directory", "path": folder.path() } });
    // With contents: listing must not read them all the same.
    let collections = json!({ "objects": { "type": "s3-objects", "connection": "bucket", "prefix": "in/" } });
    let mut all = json!({ "collections": "objects" });
    for (name, value) in with.as_object().unwrap() {
        all[name] = value.clone();
    }
    Bench::new(vec![planned("inventory", "s3-inventory", all)], connections, collections).await
}

#[tokio::test]
async fn objects_are_counted_by_prefix_and_growth_is_held_to_thresholds() {
    let (weed, folder) = (Weed::start().await.unwrap(), tempfile::tempdir().unwrap());
    let s3 = make(&weed, "stock").await;
    for at in 0..1003 {
        write(&s3, &format!("in/many/{at:04}"), "12").await;
    }
    for (key, text) in
        [("in/a/1", "12345"), ("in/a/b/2", "123"), ("in/root", "1"), ("input/other", "12345678")]
    {
        write(&s3, key, text).await;
    }
    let first = bench(&weed, &folder, json!({ "depth": 2 })).await;
    let outputs = first.enter("inventory").await.unwrap();
    assert_eq!(
        (&outputs["objects"], &outputs["bytes"], &outputs["growth_bytes"]),
        (&json!(1006), &json!(2015), &Value::Null)
    );
    let lines = first.records(&outputs["inventory"]);
    let part = |prefix: &str, objects: u64, bytes: u64| json!({ "collection": "objects", "prefix": prefix, "objects": objects, "bytes": bytes });
    assert_eq!(lines, [part("in/", 1, 1), part("in/a/", 2, 8), part("in/many/", 1003, 2006)]);

    assert_eq!(outputs.get("older"), None);
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    write(&s3, "in/young", "1").await;
    let aged = bench(&weed, &folder, json!({ "older_than": "2s" })).await;
    let older = json!({ "objects": 1006, "bytes": 2015, "undated": 0 });
    assert_eq!(aged.enter("inventory").await.unwrap()["older"], older);
    s3.client().await.delete_object().bucket("stock").key("in/young").send().await.unwrap();

    write(&s3, "in/a/3", "1234").await;
    s3.client().await.delete_object().bucket("stock").key("in/root").send().await.unwrap();
    let with =
        json!({ "depth": 2, "compare_with": outputs["inventory"], "warn": { "max_growth_percent": 49 } });
    let second = bench(&weed, &folder, with).await;
    second.artifact("inventory.jsonl", &lines);
    let now = second.enter("inventory").await.unwrap();
    assert_eq!((&now["growth_bytes"], &now["compared"]), (&json!(3), &json!(true)));
    assert_eq!(
        now["warnings"],
        json!(["`objects` below in/a/ grew by 50.0 percent of its bytes, and at most 49 are expected"])
    );
    let gate =
        json!({ "depth": 2, "compare_with": outputs["inventory"], "fail": { "max_shrink_percent": 50 } });
    let third = bench(&weed, &folder, gate).await;
    third.artifact("inventory.jsonl", &lines);
    let error = third.enter("inventory").await.unwrap_err();
    assert!(
        error.kind == ErrorKind::Gate && error.message.contains("below in/ lost 100.0 percent"),
        "{error}"
    );
    the_last_one_is_kept(&weed, &folder, &s3).await;
}

async fn the_last_one_is_kept(
    weed: &Weed,
    folder: &tempfile::TempDir,
    s3: &runbook_steps::connections::s3::S3,
) {
    let with =
        json!({ "last": { "connection": "kept", "file": "stock.jsonl" }, "fail": { "max_growth_bytes": 9 } });
    let first = bench(weed, folder, with.clone()).await.enter("inventory").await.unwrap();
    assert_eq!((&first["compared"], &first["objects"]), (&json!(false), &json!(1006)));
    write(s3, "in/more", "0123456789").await;
    let kept = || std::fs::read_to_string(folder.path().join("stock.jsonl")).unwrap();
    let before = kept();
    let second = bench(weed, folder, with.clone()).await;
    let error = second.enter("inventory").await.unwrap_err();
    assert!(error.message.contains("grew by 10 bytes"), "{error}");
    assert_eq!(kept(), before, "what failed is nothing to compare with");
    write(s3, "in/more", "012345678").await;
    let outputs = second.enter("inventory").await.unwrap();
    assert_eq!(outputs["growth_bytes"], 9);
    // Entered again after a crash, it is compared with what was there before it.
    assert_eq!(second.enter("inventory").await.unwrap()["growth_bytes"], 9);
    assert_eq!(bench(weed, folder, with.clone()).await.enter("inventory").await.unwrap()["growth_bytes"], 0);
    std::fs::write(folder.path().join("stock.jsonl"), "no inventory").unwrap();
    let error = bench(weed, folder, with).await.enter("inventory").await.unwrap_err();
    assert!(error.kind == ErrorKind::Gate && error.message.contains("is no inventory"), "{error}");
}
