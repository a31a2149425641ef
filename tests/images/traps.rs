//! Each trap of the procedure, set on purpose: the run stops at the right gate, and nothing is harmed.

use crate::proxy::Fault;
use crate::{Bench, PHRASE, id, original, staged};

#[tokio::test]
async fn wrong_inputs_are_refused_before_anything() {
    let bench = Bench::start(1).await;
    for wrong in [
        "mode=ABSENT",
        "mode=maybe",
        "project_id=b0eebc99",
        "status=error",
        "batch_size=0",
        "concurrency=0",
        "known_key=ABSENT",
    ] {
        bench.reconcile(2, &[wrong]).await;
    }
    assert_eq!(bench.proxy.counted(), (0, 0), "the store was not asked");
    // What is still being uploaded would pass for missing.
    let said = bench.reconcile(4, &["created_before=2099-01-01T00:00:00Z"]).await;
    assert!(said.contains("less than 15 minutes"), "{said}");
}

#[tokio::test]
async fn a_store_in_trouble_makes_nothing_missing() {
    let bench = Bench::start(6).await;
    bench.lose(&original(1)).await;
    let before = bench.images().await;
    for status in [403, 503] {
        bench.proxy.answer_all(status);
        let said = bench.reconcile(4, &[]).await;
        assert!(said.contains(&status.to_string()), "{said}");
        bench.proxy.heal();
        unlock(&bench, &said).await;
    }
    for (wrong, told) in [("known_key=unknown", "unknown"), ("bucket=nowhere", "nowhere")] {
        let said = bench.reconcile(4, &[wrong]).await;
        assert!(said.contains(told), "{said}");
        unlock(&bench, &said).await;
    }
    // One that is refused, and one that breaks, are not missing; the step fails, and says which is at fault.
    bench.proxy.fault("uploads/u/2%20a.jpg", Fault::Status(403));
    let said = bench.reconcile(4, &[]).await;
    assert!(said.contains("max_unknown is 0"), "{said}");
    unlock(&bench, &said).await;
    let said = bench.reconcile(5, &["max_unknown=1", "max_missing_percent=50"]).await;
    bench.answer(0, &said, PHRASE).await;
    let mut marked = bench.images().await;
    assert_eq!(marked.remove(&id(1)).unwrap().0, "error");
    assert!(marked.iter().all(|(id, image)| before[id] == *image), "{marked:?}");
}

/// A run that has failed and can be resumed keeps its lock until it is cancelled.
async fn unlock(bench: &Bench, said: &str) {
    let rest = said.split("runbook resume ").nth(1).unwrap_or_else(|| panic!("no next command in:\n{said}"));
    bench.expect(6, &["cancel", rest.split_whitespace().next().unwrap()]).await;
}

#[tokio::test]
async fn too_many_missing_and_files_in_other_places_stop_before_anybody_is_asked() {
    let bench = Bench::start(9).await;
    bench.lose(&original(1)).await;
    let before = bench.images().await;
    let said = bench.reconcile(4, &[]).await;
    assert!(said.contains("1 of 9 images miss a file, more than 5 percent"), "{said}");
    unlock(&bench, &said).await;
    bench
        .execute(&format!(
            "update images set original_url = 'https://real-staging.s3.amazonaws.com/uploads/u/2%20a.jpg' where id = '{}'",
            id(2)
        ))
        .await;
    let said = bench.reconcile(4, &["max_missing_percent=50"]).await;
    assert!(said.contains("1 images name a file in another place"), "{said}");
    unlock(&bench, &said).await;
    assert_eq!(bench.images().await, before);
    // Once it is told that this is the same store, the file is found.
    let said =
        bench.reconcile(5, &["max_missing_percent=50", "public_endpoints=https://s3.amazonaws.com"]).await;
    bench.answer(0, &said, PHRASE).await;
    let marked = bench.images().await;
    assert_eq!(marked.values().filter(|(status, _)| status == "error").count(), 1, "{marked:?}");
}

#[tokio::test]
async fn what_changes_between_the_look_and_the_mark_is_left_alone() {
    let bench = Bench::start(9).await;
    for number in [1, 2] {
        bench.lose(&original(number)).await;
    }
    bench.lose(&staged(3)).await;
    let said = bench.reconcile(5, &["max_missing_percent=50"]).await;
    // The upload of 1 ends, and a worker takes up 2.
    bench.put(&original(1)).await;
    bench
        .execute(&format!("update images set status = 'ready', updated_at = now() where id = '{}'", id(2)))
        .await;
    bench.answer(0, &said, PHRASE).await;
    let images = bench.images().await;
    let statuses: Vec<&str> = [1, 2, 3].iter().map(|number| images[&id(*number)].0.as_str()).collect();
    assert_eq!(statuses, ["queued", "ready", "error"]);
}

#[tokio::test]
async fn only_the_images_of_a_project_and_a_status_are_looked_at() {
    let bench = Bench::start(9).await;
    for number in 1..=9 {
        bench.lose(&original(number)).await;
    }
    let two = "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13";
    bench
        .execute(&format!(
            "update images set project_id = '{two}' where id in ('{}', '{}', '{}')",
            id(1),
            id(3),
            id(4)
        ))
        .await;
    let inputs = [&format!("project_id={two}"), "status=queued", "max_missing_percent=100"];
    let said = bench.reconcile(5, &inputs).await;
    bench.answer(0, &said, PHRASE).await;
    let images = bench.images().await;
    let marked: Vec<u64> = (1..=9).filter(|number| images[&id(*number)].0 == "error").collect();
    assert_eq!(marked, [1, 4]);
}

#[tokio::test]
async fn all_of_few_staged_files_are_too_many_though_they_are_few_beside_all_images() {
    let bench = Bench::start(90).await;
    bench
        .execute(&format!("update images set status = 'queued' where status = 'ready' and id > '{}'", id(12)))
        .await;
    for number in [3, 6, 9, 12] {
        bench.lose(&staged(number)).await;
    }
    let said = bench.reconcile(4, &[]).await;
    assert!(said.contains("4 of 4 staged files are missing, more than 20 percent"), "{said}");
    unlock(&bench, &said).await;

    // A blank is no name of a file: that one image can not be told, and the others can.
    for number in [3, 6, 9, 12] {
        bench.put(&staged(number)).await;
    }
    let blank = format!("{}/real-staging/%20", bench.proxy.url);
    bench.execute(&format!("update images set original_url = '{blank}' where id = '{}'", id(1))).await;
    let said = bench.reconcile(4, &[]).await;
    assert!(said.contains("1 images name a file in another place"), "{said}");
    unlock(&bench, &said).await;
    bench.reconcile(0, &["max_unresolvable=1"]).await;
}
