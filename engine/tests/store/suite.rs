//! What every store must do.

use runbook_engine::event::EventKind;
use runbook_engine::state::RunStatus;
use runbook_engine::store::{Fence, LedgerRow, NewRun, Store, StoreError, Write};
use serde_json::{Value, json};

use crate::support::*;

/// One test of each function for each store.
macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(&crate::support::Kind::Memory).await; })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(&crate::support::Kind::Sqlite).await; })*
        }
    };
}

on_every_store!(
    keeps_a_run_as_it_was_given,
    refuses_a_second_run_of_the_same_id,
    lists_the_newest_first,
    refuses_a_claim_while_a_lease_lasts,
    fences_an_owner_that_was_replaced,
    lets_others_append_and_nothing_else,
    appends_only_after_the_last_event,
    keeps_all_or_none,
    holds_a_lock_until_it_is_given_back,
    lets_a_saved_plan_be_applied_once,
    gives_up_what_an_abandoned_run_has,
    takes_a_lock_over_from_a_run_that_ended,
    takes_the_lock_again_with_a_claim,
    holds_a_target_once_among_all_runs,
    dates_an_obligation_by_its_event,
    numbers_a_batch_once_and_settles_it_once,
    finds_the_cursor_below_every_unsettled_batch,
    keeps_a_null_cursor_apart_from_none,
    pages_through_batches,
    remembers_the_first_fact,
    counts_up_to_a_limit,
    leaves_and_renews,
    refuses_runs_that_do_not_exist,
    one_of_many_claims_wins,
    one_of_many_appends_wins,
    budget_holds_under_contention,
);

async fn keeps_a_run_as_it_was_given(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let new = new_run("a", Some("key"));
    store.create(new.clone()).await.unwrap();
    let row = store.run("a").await.unwrap().unwrap();
    assert_eq!((&row.id, &row.runbook, &row.plan), (&new.id, &new.runbook, &new.plan));
    assert_eq!((&row.definition, &row.source_name), (&new.definition, &new.source_name));
    assert_eq!((row.seed, &row.lock, row.created_at), (new.seed, &new.lock, new.first.at));
    assert_eq!((row.status, row.last_seq, row.epoch), (RunStatus::Running, 1, 0));
    assert_eq!((&row.owner, row.lease_until), (&None, None));
    assert_eq!(store.events("a", 0).await.unwrap(), [new.first]);
    let listed = store.runs(9).await.unwrap();
    assert_eq!((listed.len(), listed[0].plan.as_str(), listed[0].definition.as_str()), (1, "", ""));
    assert_eq!(listed[0].seed, row.seed);
}

async fn refuses_a_second_run_of_the_same_id(kind: &Kind) {
    let fresh = fresh(kind).await;
    create(&*fresh.store, "a").await;
    assert_eq!(fresh.store.create(new_run("a", Some("k"))).await, Err(StoreError::Conflict));
    // The refused creation has not taken the lock.
    fresh.store.create(new_run("b", Some("k"))).await.unwrap();
    let mut gap = new_run("c", None);
    gap.first.seq = 2;
    assert_eq!(fresh.store.create(gap).await, Err(StoreError::Conflict));
}

async fn lists_the_newest_first(kind: &Kind) {
    let fresh = fresh(kind).await;
    for (id, second) in [("early", 10), ("late", 30), ("middle", 20), ("middle_too", 20)] {
        let mut new = new_run(id, None);
        new.first.at = at(second);
        fresh.store.create(new).await.unwrap();
    }
    let ids =
        |rows: Vec<runbook_engine::store::RunRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(fresh.store.runs(9).await.unwrap()), ["late", "middle_too", "middle", "early"]);
    assert_eq!(ids(fresh.store.runs(2).await.unwrap()), ["late", "middle_too"]);
    assert_eq!(ids(fresh.store.runs(usize::MAX).await.unwrap()).len(), 4);
}

async fn refuses_a_claim_while_a_lease_lasts(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    create(store, "a").await;
    assert_eq!(store.claim("a", "one", at(0), at(30)).await, Ok(1));
    for who in ["one", "two"] {
        let busy = StoreError::Busy { owner: "one".to_owned(), until: at(30) };
        assert_eq!(store.claim("a", who, at(29), at(60)).await, Err(busy));
    }
    assert_eq!(store.run("a").await.unwrap().unwrap().epoch, 1);
    assert_eq!(store.claim("a", "two", at(30), at(60)).await, Ok(2));
    let row = store.run("a").await.unwrap().unwrap();
    assert_eq!(row.live_owner(at(59)), Some(("two", at(60))));
    assert_eq!(row.live_owner(at(60)), None);
}

async fn fences_an_owner_that_was_replaced(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    create(store, "a").await;
    let old = Fence::Owner(store.claim("a", "one", at(0), at(1)).await.unwrap());
    let new = Fence::Owner(store.claim("a", "two", at(2), at(9)).await.unwrap());
    let writes = [
        append(1, RunStatus::Failed),
        intend("s", 1, Vec::new()),
        open_obligation("o", "T"),
        Write::Renew { until: at(99) },
        Write::Leave,
        Write::Unlock,
    ];
    for write in writes {
        assert_eq!(commit(store, "a", old, vec![write]).await, Err(StoreError::Fenced));
    }
    assert_eq!(commit(store, "a", Fence::Owner(3), vec![Write::Leave]).await, Err(StoreError::Fenced));
    assert_eq!(store.run("a").await.unwrap().unwrap().live_owner(at(3)), Some(("two", at(9))));
    commit(store, "a", new, vec![append(1, RunStatus::Running)]).await.unwrap();
}

async fn lets_others_append_and_nothing_else(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    owned(store, "a").await;
    commit(store, "a", Fence::Foreign, vec![append(1, RunStatus::Running)]).await.unwrap();
    let others = [
        intend("s", 1, Vec::new()),
        settle("s", 1, Value::Null, 0),
        open_obligation("o", "T"),
        Write::CloseObligation { id: "o".to_owned() },
        Write::Remember { step: "s".to_owned(), name: "n".to_owned(), value: json!(1) },
        Write::Renew { until: at(9) },
        Write::Leave,
        Write::Unlock,
    ];
    for write in others {
        let both = vec![append(2, RunStatus::Running), write];
        assert_eq!(commit(store, "a", Fence::Foreign, both).await, Err(StoreError::Fenced));
    }
    assert_eq!(store.run("a").await.unwrap().unwrap().last_seq, 2);
}

async fn appends_only_after_the_last_event(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let fence = owned(store, "a").await;
    for after in [0, 2, 9] {
        let refused = commit(store, "a", fence, vec![append(after, RunStatus::Failed)]).await;
        assert_eq!(refused, Err(StoreError::Conflict), "after {after}");
    }
    let gap = Write::Append { after: 1, events: vec![event(2), event(4)], status: RunStatus::Failed };
    assert_eq!(commit(store, "a", fence, vec![gap]).await, Err(StoreError::Conflict));
    let two = Write::Append { after: 1, events: vec![event(2), event(3)], status: RunStatus::Running };
    commit(store, "a", fence, vec![two, append(3, RunStatus::Failed)]).await.unwrap();
    // No event, a status only.
    let status = Write::Append { after: 4, events: Vec::new(), status: RunStatus::Waiting };
    commit(store, "a", fence, vec![status]).await.unwrap();
    let row = store.run("a").await.unwrap().unwrap();
    assert_eq!((row.status, row.last_seq), (RunStatus::Waiting, 4));
    assert_eq!(store.events("a", 0).await.unwrap(), [event(1), event(2), event(3), event(4)]);
    assert_eq!(store.events("a", 3).await.unwrap(), [event(4)]);
    assert_eq!(store.events("a", 4).await.unwrap(), []);
}

async fn keeps_all_or_none(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    store.create(new_run("a", Some("key"))).await.unwrap();
    let fence = Fence::Owner(store.claim("a", "me", at(0), at(50)).await.unwrap());
    let start = vec![
        intend("s", 1, vec![charge("run:items", 5, None)]),
        open_obligation("o1", "T1"),
        open_obligation("o2", "T2"),
    ];
    commit(store, "a", fence, start).await.unwrap();
    let before = picture(store).await;
    // Everything a commit can do, and then something that is refused.
    type Expected = fn(&StoreError) -> bool;
    let refusals: [(Write, Expected); 5] = [
        (append(7, RunStatus::Running), |e| *e == StoreError::Conflict),
        (intend("s", 1, Vec::new()), |e| *e == StoreError::Conflict),
        (settle("s", 9, Value::Null, 0), |e| *e == StoreError::Conflict),
        (open_obligation("o9", "T2"), |e| matches!(e, StoreError::Held { .. })),
        (intend("s", 3, vec![charge("run:items", 1, Some(8))]), |e| matches!(e, StoreError::Limit { .. })),
    ];
    for (refused, expected) in refusals {
        let writes = vec![
            append(1, RunStatus::Succeeded),
            intend("s", 2, vec![charge("run:items", 3, Some(8)), charge("run:bytes", 7, None)]),
            settle("s", 1, json!("c"), 1),
            Write::Remember { step: "s".to_owned(), name: "n".to_owned(), value: json!(1) },
            Write::CloseObligation { id: "o1".to_owned() },
            open_obligation("o3", "T3"),
            Write::Renew { until: at(70) },
            Write::Unlock,
            Write::Leave,
            refused,
        ];
        let error = commit(store, "a", fence, writes).await.unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(picture(store).await, before, "after {error:?}");
    }
    // The lock is still held.
    let locked = StoreError::Locked { key: "key".to_owned(), run: "a".to_owned() };
    assert_eq!(store.create(new_run("b", Some("key"))).await, Err(locked));
}

/// Everything that can be read of run `a`.
async fn picture(store: &dyn Store) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        store.run("a").await,
        store.events("a", 0).await,
        store.ledger("a", "s").await,
        store.batches("a", "s", 0, 99, false).await,
        store.recall("a", "s", "n").await,
        store.counter("a", "run:items").await,
        store.counter("a", "run:bytes").await,
        store.obligations().await,
    )
}

async fn holds_a_lock_until_it_is_given_back(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    store.create(new_run("a", Some("key"))).await.unwrap();
    let locked = StoreError::Locked { key: "key".to_owned(), run: "a".to_owned() };
    assert_eq!(store.create(new_run("b", Some("key"))).await, Err(locked.clone()));
    assert_eq!(store.run("b").await, Ok(None));
    store.create(new_run("c", Some("other"))).await.unwrap();
    let fence = Fence::Owner(store.claim("a", "me", at(0), at(9)).await.unwrap());
    // A failed run can still be resumed, so it still holds its key.
    commit(store, "a", fence, vec![append(1, RunStatus::Failed)]).await.unwrap();
    assert_eq!(store.create(new_run("b", Some("key"))).await, Err(locked));
    // Unlocking a run of another key changes nothing for this one.
    let c = Fence::Owner(store.claim("c", "me", at(0), at(9)).await.unwrap());
    commit(store, "c", c, vec![Write::Unlock]).await.unwrap();
    assert!(matches!(store.create(new_run("b", Some("key"))).await, Err(StoreError::Locked { .. })));
    commit(store, "a", fence, vec![Write::Unlock, Write::Leave]).await.unwrap();
    store.create(new_run("b", Some("key"))).await.unwrap();
    // And now it is the other's: an unlock of the former holder does not take it away.
    commit(store, "a", fence, vec![Write::Unlock]).await.unwrap();
    assert!(matches!(store.create(new_run("d", Some("key"))).await, Err(StoreError::Locked { .. })));
}

async fn takes_a_lock_over_from_a_run_that_ended(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    for (n, status) in [RunStatus::Succeeded, RunStatus::Cancelled].into_iter().enumerate() {
        let key = format!("key{n}");
        let (first, second) = (format!("first{n}"), format!("second{n}"));
        store.create(new_run(&first, Some(&key))).await.unwrap();
        let fence = Fence::Owner(store.claim(&first, "me", at(0), at(9)).await.unwrap());
        commit(store, &first, fence, vec![append(1, status)]).await.unwrap();
        store.create(new_run(&second, Some(&key))).await.unwrap();
    }
}

async fn takes_the_lock_again_with_a_claim(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    store.create(new_run("a", Some("key"))).await.unwrap();
    let fence = Fence::Owner(store.claim("a", "me", at(0), at(9)).await.unwrap());
    let end = vec![append(1, RunStatus::Failed), Write::Unlock, Write::Leave];
    commit(store, "a", fence, end).await.unwrap();
    store.create(new_run("b", Some("key"))).await.unwrap();
    let locked = StoreError::Locked { key: "key".to_owned(), run: "b".to_owned() };
    assert_eq!(store.claim("a", "me", at(1), at(9)).await, Err(locked));
    let row = store.run("a").await.unwrap().unwrap();
    assert_eq!((row.epoch, row.owner), (1, None), "a refused claim leaves no trace");
    let b = Fence::Owner(store.claim("b", "me", at(1), at(9)).await.unwrap());
    commit(store, "b", b, vec![Write::Unlock, Write::Leave]).await.unwrap();
    assert_eq!(store.claim("a", "me", at(2), at(9)).await, Ok(2));
    let locked = StoreError::Locked { key: "key".to_owned(), run: "a".to_owned() };
    assert_eq!(store.claim("b", "me", at(2), at(9)).await, Err(locked));
}

async fn holds_a_target_once_among_all_runs(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    let b = owned(store, "b").await;
    commit(store, "a", a, vec![open_obligation("o", "T")]).await.unwrap();
    let held = StoreError::Held { label: obligation("T").label, run: "a".to_owned() };
    assert_eq!(commit(store, "b", b, vec![open_obligation("o", "T")]).await, Err(held.clone()));
    assert_eq!(commit(store, "a", a, vec![open_obligation("p", "T")]).await, Err(held.clone()));
    assert_eq!(commit(store, "a", a, vec![open_obligation("o", "U")]).await, Err(held));
    // The id is unique in its run only.
    commit(store, "b", b, vec![open_obligation("o", "U")]).await.unwrap();
    // Closing another run's obligation of the same id changes nothing for this one.
    commit(store, "b", b, vec![Write::CloseObligation { id: "o".to_owned() }]).await.unwrap();
    let open = store.obligations().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(
        (&open[0].run, &open[0].id, &open[0].obligation),
        (&"a".into(), &"o".into(), &obligation("T"))
    );
    assert_eq!(open[0].hold_until, at(100));
    commit(store, "a", a, vec![Write::CloseObligation { id: "o".to_owned() }]).await.unwrap();
    commit(store, "b", b, vec![open_obligation("o2", "T")]).await.unwrap();
}

async fn dates_an_obligation_by_its_event(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    // Without an event: the longest hold before the end of the hold.
    commit(store, "a", a, vec![open_obligation("o", "T")]).await.unwrap();
    commit(store, "a", a, vec![opened(2, "p", "U"), open_obligation("p", "U")]).await.unwrap();
    let open = store.obligations().await.unwrap();
    let dates: Vec<_> = open.iter().map(|one| (one.id.as_str(), one.opened_at)).collect();
    assert_eq!(dates, [("o", at(40)), ("p", at(41))], "oldest first");
}

async fn numbers_a_batch_once_and_settles_it_once(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    commit(store, "a", a, vec![intend("s", 1, Vec::new()), intend("t", 1, Vec::new())]).await.unwrap();
    assert_eq!(commit(store, "a", a, vec![intend("s", 1, Vec::new())]).await, Err(StoreError::Conflict));
    commit(store, "a", a, vec![settle("s", 1, json!("c"), 0)]).await.unwrap();
    assert_eq!(commit(store, "a", a, vec![settle("s", 1, json!("d"), 0)]).await, Err(StoreError::Conflict));
    assert_eq!(commit(store, "a", a, vec![intend("s", 1, Vec::new())]).await, Err(StoreError::Conflict));
    assert_eq!(commit(store, "a", a, vec![settle("s", 2, json!(0), 0)]).await, Err(StoreError::Conflict));
    assert_eq!(store.ledger("a", "s").await.unwrap().cursor, Some(json!("c")));
    assert_eq!(store.ledger("a", "t").await.unwrap().unsettled.len(), 1);
}

async fn finds_the_cursor_below_every_unsettled_batch(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    assert_eq!(store.ledger("a", "s").await.unwrap(), LedgerRow::default());
    let intents = (1..=5).map(|n| intend("s", n, Vec::new())).collect();
    commit(store, "a", a, intents).await.unwrap();
    commit(store, "a", a, vec![intend("z", 9, Vec::new())]).await.unwrap();
    let look = async || {
        let row = store.ledger("a", "s").await.unwrap();
        let unsettled: Vec<u64> = row.unsettled.iter().map(|batch| batch.batch).collect();
        (row.cursor, unsettled, row.last_batch, (row.done, row.already, row.failed))
    };
    assert_eq!(look().await, (None, vec![1, 2, 3, 4, 5], 5, (0, 0, 0)));
    commit(store, "a", a, vec![settle("s", 2, json!("two"), 1)]).await.unwrap();
    assert_eq!(look().await, (None, vec![1, 3, 4, 5], 5, (3, 2, 1)));
    commit(store, "a", a, vec![settle("s", 4, json!("four"), 0)]).await.unwrap();
    assert_eq!(look().await, (None, vec![1, 3, 5], 5, (6, 4, 1)));
    commit(store, "a", a, vec![settle("s", 1, json!("one"), 0)]).await.unwrap();
    assert_eq!(look().await, (Some(json!("two")), vec![3, 5], 5, (9, 6, 1)));
    commit(store, "a", a, vec![settle("s", 3, json!("three"), 0)]).await.unwrap();
    assert_eq!(look().await, (Some(json!("four")), vec![5], 5, (12, 8, 1)));
    commit(store, "a", a, vec![settle("s", 5, json!({ "at": 5 }), 0)]).await.unwrap();
    assert_eq!(look().await, (Some(json!({ "at": 5 })), vec![], 5, (15, 10, 1)));
    // An unsettled batch comes back exactly as it was announced.
    let z = store.ledger("a", "z").await.unwrap();
    let Write::Intend { batch, .. } = intend("z", 9, Vec::new()) else { unreachable!() };
    assert_eq!((z.cursor, z.last_batch, z.unsettled), (None, 9, vec![batch]));
}

async fn keeps_a_null_cursor_apart_from_none(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    commit(store, "a", a, vec![intend("s", 1, Vec::new()), intend("s", 2, Vec::new())]).await.unwrap();
    commit(store, "a", a, vec![settle("s", 1, Value::Null, 0)]).await.unwrap();
    let row = store.ledger("a", "s").await.unwrap();
    assert_eq!((row.cursor, row.unsettled.len()), (Some(Value::Null), 1));
    let settled = store.batches("a", "s", 0, 1, false).await.unwrap().remove(0).settled.unwrap();
    assert_eq!(settled.cursor, Value::Null);
}

async fn pages_through_batches(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    for n in 1..=20 {
        commit(store, "a", a, vec![intend("s", n, Vec::new())]).await.unwrap();
        if n % 2 == 0 {
            let failed = u64::from(n % 4 == 0);
            commit(store, "a", a, vec![settle("s", n, json!(n), failed)]).await.unwrap();
        }
    }
    let numbers = async |after, limit, failed| {
        let rows = store.batches("a", "s", after, limit, failed).await.unwrap();
        rows.iter().map(|row| row.batch).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0, 3, false).await, [1, 2, 3]);
    assert_eq!(numbers(18, 9, false).await, [19, 20]);
    assert_eq!(numbers(0, 3, true).await, [4, 8, 12]);
    assert_eq!(numbers(12, usize::MAX, true).await, [16, 20]);
    assert_eq!(numbers(u64::MAX, 9, false).await, [0; 0]);
    assert_eq!(store.batches("a", "other", 0, 9, false).await, Ok(Vec::new()));
}

async fn remembers_the_first_fact(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    let remember = |step: &str, value: Value| Write::Remember {
        step: step.to_owned(),
        name: "population".to_owned(),
        value,
    };
    assert_eq!(store.recall("a", "s", "population").await, Ok(None));
    commit(store, "a", a, vec![remember("s", Value::Null)]).await.unwrap();
    commit(store, "a", a, vec![remember("s", json!(7)), remember("t", json!(8))]).await.unwrap();
    assert_eq!(store.recall("a", "s", "population").await, Ok(Some(Value::Null)));
    assert_eq!(store.recall("a", "t", "population").await, Ok(Some(json!(8))));
}

async fn counts_up_to_a_limit(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    let b = owned(store, "b").await;
    commit(store, "a", a, vec![intend("s", 1, vec![charge("run:items", 60, Some(100))])]).await.unwrap();
    let limit = StoreError::Limit { counter: "run:items".to_owned(), max: 100, present: 60, amount: 41 };
    let over =
        vec![intend("s", 2, vec![charge("step:s:items", 41, None), charge("run:items", 41, Some(100))])];
    assert_eq!(commit(store, "a", a, over).await, Err(limit));
    assert_eq!(store.counter("a", "step:s:items").await, Ok(0));
    assert_eq!(store.ledger("a", "s").await.unwrap().last_batch, 1);
    commit(store, "a", a, vec![intend("s", 2, vec![charge("run:items", 40, Some(100))])]).await.unwrap();
    assert_eq!(store.counter("a", "run:items").await, Ok(100));
    // Two charges of one commit add up, and other runs have counters of their own.
    let twice = vec![charge("run:items", 6, Some(10)), charge("run:items", 6, Some(10))];
    let limit = StoreError::Limit { counter: "run:items".to_owned(), max: 10, present: 6, amount: 6 };
    assert_eq!(commit(store, "b", b, vec![intend("s", 1, twice)]).await, Err(limit));
    assert_eq!(store.counter("b", "run:items").await, Ok(0));
    let huge = vec![charge("run:bytes", u64::MAX, None), charge("run:bytes", u64::MAX, Some(u64::MAX))];
    commit(store, "b", b, vec![intend("s", 1, huge)]).await.unwrap();
    assert_eq!(store.counter("b", "run:bytes").await, Ok(i64::MAX.cast_unsigned()));
}

async fn leaves_and_renews(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let a = owned(store, "a").await;
    commit(store, "a", a, vec![Write::Renew { until: at(77) }]).await.unwrap();
    let row = store.run("a").await.unwrap().unwrap();
    assert_eq!(row.live_owner(at(76)), Some(("me", at(77))));
    commit(store, "a", a, vec![Write::Leave]).await.unwrap();
    let row = store.run("a").await.unwrap().unwrap();
    assert_eq!((row.owner.clone(), row.lease_until, row.epoch), (None, None, 1));
    // A late renewal does not bring the ownership back.
    commit(store, "a", a, vec![Write::Renew { until: at(99) }]).await.unwrap();
    assert_eq!(store.run("a").await.unwrap().unwrap(), row);
    assert_eq!(store.claim("a", "me", at(1), at(9)).await, Ok(2));
}

async fn refuses_runs_that_do_not_exist(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let no = StoreError::NoSuchRun("x".to_owned());
    assert_eq!(store.claim("x", "me", at(0), at(1)).await, Err(no.clone()));
    assert_eq!(
        commit(store, "x", Fence::Foreign, vec![append(0, RunStatus::Running)]).await,
        Err(no.clone())
    );
    assert_eq!(commit(store, "x", Fence::Owner(0), Vec::new()).await, Err(no));
    assert_eq!(store.run("x").await, Ok(None));
    assert_eq!(store.events("x", 0).await, Ok(Vec::new()));
    assert_eq!(store.ledger("x", "s").await, Ok(LedgerRow::default()));
    assert_eq!(store.batches("x", "s", 0, 9, false).await, Ok(Vec::new()));
    assert_eq!(store.recall("x", "s", "n").await, Ok(None));
    assert_eq!(store.counter("x", "c").await, Ok(0));
    assert_eq!(store.obligations().await, Ok(Vec::new()));
}

/// Races per run of a test; each has its own seed.
const RACES: u64 = 1000;

async fn one_of_many_claims_wins(kind: &Kind) {
    let fresh = fresh(kind).await;
    for seed in 0..RACES / 4 {
        let run = format!("run{seed}");
        create(&*fresh.store, &run).await;
        let mut lot = Lot(seed);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..2 + lot.draw(4) {
            let (store, run, spins) = (fresh.store.clone(), run.clone(), lot.draw(4));
            tasks.spawn(async move {
                for _ in 0..spins {
                    tokio::task::yield_now().await;
                }
                store.claim(&run, &format!("owner{n}"), at(0), at(9)).await
            });
        }
        let results = tasks.join_all().await;
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "seed {seed}: {results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(1) | Err(StoreError::Busy { .. }))));
    }
}

async fn one_of_many_appends_wins(kind: &Kind) {
    let fresh = fresh(kind).await;
    let fence = owned(&*fresh.store, "a").await;
    for seed in 0..RACES / 2 {
        let mut lot = Lot(seed ^ 0xabcd);
        let after = seed + 1;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..2 + lot.draw(3) {
            let (store, spins) = (fresh.store.clone(), lot.draw(4));
            let fence = if n == 0 { fence } else { Fence::Foreign };
            tasks.spawn(async move {
                for _ in 0..spins {
                    tokio::task::yield_now().await;
                }
                let mut mine = event(after + 1);
                mine.what = EventKind::CancelRequested { by: format!("{n}") };
                let write = Write::Append { after, events: vec![mine.clone()], status: RunStatus::Running };
                store.commit("a", fence, vec![write]).await.map(|()| mine)
            });
        }
        let results = tasks.join_all().await;
        let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok().cloned()).collect();
        assert_eq!(won.len(), 1, "seed {seed}: {results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(StoreError::Conflict))));
        assert_eq!(fresh.store.events("a", after).await.unwrap(), won);
    }
}

async fn budget_holds_under_contention(kind: &Kind) {
    let fresh = fresh(kind).await;
    for seed in 0..RACES / 4 {
        let run = format!("run{seed}");
        let fence = owned(&*fresh.store, &run).await;
        let mut lot = Lot(seed ^ 0x1234);
        let max = 10 + lot.draw(20);
        let mut tasks = tokio::task::JoinSet::new();
        for batch in 1..=6 {
            let (store, run, amount) = (fresh.store.clone(), run.clone(), 1 + lot.draw(9));
            tasks.spawn(async move {
                let charges = vec![charge("run:items", amount, Some(max))];
                store.commit(&run, fence, vec![intend("s", batch, charges)]).await.map(|()| amount)
            });
        }
        let results = tasks.join_all().await;
        let spent: u64 = results.iter().filter_map(|result| result.as_ref().ok()).sum();
        assert!(spent <= max, "seed {seed}: {results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(StoreError::Limit { .. }))));
        assert_eq!(fresh.store.counter(&run, "run:items").await, Ok(spent));
        let begun = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(fresh.store.ledger(&run, "s").await.unwrap().unsettled.len(), begun);
    }
}

async fn lets_a_saved_plan_be_applied_once(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    let applying =
        |id: &str, plan: &str| NewRun { applies: Some(plan.to_owned()), ..new_run(id, Some("key")) };
    store.create(applying("a", "p1")).await.unwrap();
    let applied = Err(StoreError::Applied { run: "a".to_owned() });
    assert_eq!(store.create(applying("b", "p1")).await, applied, "told before the lock");
    assert_eq!(store.run("b").await.unwrap(), None);
    let fence = Fence::Owner(store.claim("a", "me", at(0), at(1_000_000)).await.unwrap());
    store.commit("a", fence, vec![Write::Unlock]).await.unwrap();
    assert_eq!(store.create(applying("b", "p1")).await, applied, "also when that run is over");
    store.create(applying("c", "p2")).await.unwrap();
    assert_eq!(store.applied("p1").await.unwrap(), Some("a".to_owned()));
    assert_eq!(store.applied("p3").await.unwrap(), None);
    // Runs without a plan do not meet.
    store.create(new_run("d", None)).await.unwrap();
    store.create(new_run("e", None)).await.unwrap();
}

async fn gives_up_what_an_abandoned_run_has(kind: &Kind) {
    let fresh = fresh(kind).await;
    let store = &*fresh.store;
    store.create(new_run("a", Some("key"))).await.unwrap();
    store.create(new_run("b", Some("other"))).await.unwrap();
    let a = Fence::Owner(store.claim("a", "me", at(0), at(9)).await.unwrap());
    let b = Fence::Owner(store.claim("b", "me", at(0), at(9)).await.unwrap());
    commit(store, "a", a, vec![open_obligation("o1", "T1"), open_obligation("o2", "T2")]).await.unwrap();
    commit(store, "b", b, vec![open_obligation("o1", "T3")]).await.unwrap();
    assert_eq!(commit(store, "a", Fence::Foreign, vec![Write::Abandon]).await, Err(StoreError::Fenced));
    let before = picture(store).await;
    let conflict = commit(store, "a", a, vec![Write::Abandon, append(7, RunStatus::Failed)]).await;
    assert_eq!(conflict, Err(StoreError::Conflict));
    assert_eq!(picture(store).await, before, "all or none");
    commit(store, "a", a, vec![Write::Abandon]).await.unwrap();
    let row = store.run("a").await.unwrap().unwrap();
    assert_eq!((row.status, row.owner, row.lease_until), (RunStatus::Cancelled, None, None));
    let open = store.obligations().await.unwrap();
    assert_eq!(open.iter().map(|one| one.run.as_str()).collect::<Vec<_>>(), ["b"], "only its own");
    store.create(new_run("c", Some("key"))).await.unwrap();
    assert!(matches!(store.create(new_run("d", Some("other"))).await, Err(StoreError::Locked { .. })));
}
