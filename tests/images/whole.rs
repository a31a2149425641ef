//! From the dry run to the rollback.

use crate::{Bench, LATER, ORIGINAL, PHRASE, STAGED, id, original, run_in, staged};

#[tokio::test]
async fn images_without_files_are_marked_on_every_page_and_each_gets_its_own_status_back() {
    let bench = Bench::start(130).await;
    bench.execute(LATER).await;
    // One on the last page, one of each status, one that lacks both; some that are nobody's business.
    for number in [1, 2, 3, 128] {
        bench.lose(&original(number)).await;
    }
    for number in [3, 6, 129] {
        bench.lose(&staged(number)).await;
    }
    for number in [10, 11, 12] {
        bench.lose(&original(number)).await;
    }
    bench
        .execute(&format!(
            "update images set status = 'error', error = 'the model failed' where id = '{}'; \
             update images set deleted_at = now() where id = '{}'; \
             update images set original_url = null where id = '{}'; \
             update images set error = 'a warning of its own' where id = '{}'",
            id(10),
            id(11),
            id(12),
            id(2)
        ))
        .await;
    let before = bench.images().await;

    let said = bench.reconcile(0, &["mode=dry-run"]).await;
    assert_eq!(bench.images().await, before, "a dry run changes nothing:\n{said}");

    let said = bench.reconcile(5, &["batch_size=7"]).await;
    assert!(said.contains("checked 128, missing 6"), "{said}");
    assert_eq!(bench.images().await, before, "nothing is changed before the answer");
    assert!(
        said.contains("Without an original_url: 1, which"),
        "the row without one is told before anybody answers:\n{said}"
    );
    let list =
        said.split("findings.jsonl (6 lines) at ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let list = std::fs::read_to_string(list.unwrap_or_else(|| panic!("{said}"))).unwrap();
    assert!((1..=3).all(|number| list.contains(&id(number))), "all of them can be looked at:\n{list}");
    let run = run_in(&said);
    bench.answer(0, &said, PHRASE).await;
    let told = "1 of 128 images: they name no original, and are not marked for it";
    assert!(reports(bench.folder.path()).iter().any(|text| text.contains(told)), "the report tells it too");
    let marked = bench.images().await;
    for (number, text) in
        [(1, ORIGINAL), (2, ORIGINAL), (3, ORIGINAL), (128, ORIGINAL), (6, STAGED), (129, STAGED)]
    {
        assert_eq!(marked[&id(number)], ("error".to_owned(), Some(text.to_owned())), "{number}");
    }
    let same = |number: &u64| marked[&id(*number)] == before[&id(*number)];
    let changed: Vec<u64> = (1..=130).filter(|number| !same(number)).collect();
    assert_eq!(changed, [1, 2, 3, 6, 128, 129], "{marked:?}");

    // Again there is nothing to do, and nobody is asked.
    bench.reconcile(0, &[]).await;
    assert_eq!(bench.images().await, marked);

    // The rollback, of two of them and then of all. Somebody has dealt with one of them since.
    let ids = format!("image_ids={},{}", id(1), id(4));
    let said = bench.rollback(5, &run, &[&ids]).await;
    let said = bench.answer(4, &said, "ROLL BACK IMAGES").await;
    assert!(said.contains("not in the findings") && said.contains(&id(4)), "{said}");
    assert_eq!(
        bench.images().await,
        marked,
        "an image that is not in the file is refused, and nothing is touched"
    );
    bench.expect(6, &["cancel", &run_of_cancel(&said)]).await;
    bench.execute(&format!("update images set error = 'looked into' where id = '{}'", id(6))).await;

    // Another one was dealt with, and was marked again by a later run: that mark is the later run's to take back.
    let until = until_of(bench.folder.path());
    let again = format!("update images set status = 'error', updated_at = now() where id = '{}'", id(3));
    bench.execute(&again).await;
    let said = bench.rollback(5, &run, &[&until, &format!("image_ids={},{}", id(2), id(3))]).await;
    assert!(said.contains("left alone when after"), "{said}");
    bench.answer(0, &said, "ROLL BACK IMAGES").await;
    let after = bench.images().await;
    assert_eq!(after[&id(2)], before[&id(2)]);
    assert_eq!(after[&id(3)], marked[&id(3)], "it was marked since");

    let said = bench.rollback(5, &run, &[]).await;
    bench.answer(0, &said, "ROLL BACK IMAGES").await;
    let after = bench.images().await;
    for number in [1, 2, 3, 128, 129] {
        assert_eq!(after[&id(number)], before[&id(number)], "{number} has its own status again");
    }
    assert_eq!(after[&id(6)].1.as_deref(), Some("looked into"));
    let statuses: Vec<&str> = [1, 2, 3].iter().map(|number| after[&id(*number)].0.as_str()).collect();
    assert_eq!(statuses, ["queued", "processing", "ready"]);
}

/// The id of the run that failed, out of the next command to type.
fn run_of_cancel(said: &str) -> String {
    let rest = said.split("runbook resume ").nth(1).unwrap_or_else(|| panic!("no next command in:\n{said}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

/// Until when the images were marked, as the report tells it for the rollback.
fn until_of(folder: &std::path::Path) -> String {
    let reports = reports(folder);
    let told =
        reports.iter().find_map(|text| text.split("-i marked_until=").nth(1)?.split(['`', ' ', '\n']).next());
    format!("marked_until={}", told.unwrap_or_else(|| panic!("{reports:?}")))
}

/// What the reports below a folder say.
fn reports(folder: &std::path::Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            all.extend(reports(&path));
        } else if path.extension().is_some_and(|ending| ending == "md") {
            all.push(std::fs::read_to_string(path).unwrap());
        }
    }
    all
}
