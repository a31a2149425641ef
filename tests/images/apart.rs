//! A reconciliation and its rollback, which act on the same rows: never beside each other, and each as it is asked.

use crate::{Bench, PHRASE, id, original, run_in};

#[tokio::test]
async fn a_rollback_and_a_reconciliation_of_one_database_exclude_each_other() {
    let bench = Bench::start(9).await;
    bench.lose(&original(1)).await;
    let percent = "max_missing_percent=100";
    let said = bench.reconcile(5, &[percent]).await;
    let marked = run_in(&said);
    bench.answer(0, &said, PHRASE).await;

    // While one waits for an answer, whichever it is, the other one does not begin. Another bucket or another file is no way around that.
    bench.lose(&original(2)).await;
    let waiting = bench.reconcile(5, &[percent]).await;
    let said = bench.rollback(8, &marked, &[]).await;
    assert!(said.contains(&run_in(&waiting)), "{said}");
    bench.answer(0, &waiting, PHRASE).await;
    let waiting = bench.rollback(5, &marked, &[]).await;
    let said = bench.reconcile(8, &[percent, "bucket=another"]).await;
    assert!(said.contains(&run_in(&waiting)), "{said}");
    bench.answer(0, &waiting, "ROLL BACK IMAGES").await;
    assert_eq!(bench.images().await[&id(1)].0, "queued");
    assert_eq!(bench.images().await[&id(2)].0, "error", "it was not in the file");

    // A name that is not that of the database would be another lock: it is refused.
    for name in ["another", "APP"] {
        let database = format!("database={name}");
        for said in
            [bench.reconcile(4, &[percent, &database]).await, bench.rollback(4, &marked, &[&database]).await]
        {
            assert!(said.contains("`database` is \"app\" where"), "{said}");
        }
    }
}

#[tokio::test]
async fn ids_in_capitals_are_those_of_the_same_images() {
    let bench = Bench::start(3).await;
    let named = "abcdefab-cdef-4abc-8def-abcdefabcdef";
    bench.execute(&format!("update images set id = '{named}' where id = '{}'", id(1))).await;
    bench.lose(&original(1)).await;
    let before = bench.images().await;
    let project = "project_id=B0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12";
    let said = bench.reconcile(5, &["max_missing_percent=100", project]).await;
    let run = run_in(&said);
    bench.answer(0, &said, PHRASE).await;
    assert_eq!(bench.images().await[named].0, "error");
    let ids = format!("image_ids={}", named.to_uppercase());
    let said = bench.rollback(5, &run, &[&ids]).await;
    bench.answer(0, &said, "ROLL BACK IMAGES").await;
    assert_eq!(bench.images().await, before);
}
