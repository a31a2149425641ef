use std::collections::BTreeSet;

use reqwest::Method;
use runbook_sandbox::{Options, Server};
use serde_json::{Value, json};

use crate::client::{Sandbox, few};

const METADATA: &str = "attachment-metadata";

fn ids(documents: &Value) -> Vec<String> {
    let id = |document: &Value| document["attachmentId"].as_str().unwrap().to_owned();
    documents.as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn the_key_is_needed_but_for_health() {
    let sandbox = Sandbox::few().await;
    let get = async |path: &str, key: &str| {
        let url = format!("{}{path}", sandbox.store_url());
        crate::client::answer(sandbox.http.get(url).header("X-API-Key", key).send().await.unwrap()).await
    };
    assert_eq!(get("/health", "").await.status, 200);
    for path in ["/capabilities", "/corpora", "/corpora/chatkit/collections"] {
        let refused = get(path, "wrong").await;
        assert_eq!((refused.status.as_u16(), &refused.body["code"]), (401, &json!("unauthorized")));
        assert_eq!(get(path, sandbox.api_key()).await.status, 200);
    }
    assert!(sandbox.api_key().len() >= 32);
    assert!(['+', '/', '='].iter().all(|c| sandbox.api_key().contains(*c)));
}

#[tokio::test]
async fn capabilities_are_flags_and_what_is_missing_is_named() {
    let sandbox = Sandbox::few().await;
    let capabilities = sandbox.store(Method::GET, "/capabilities", None).await.body;
    assert_eq!(capabilities["documents"], json!(["upsert", "get", "delete"]));
    assert_eq!(capabilities["transactions"], json!([]));
    let sort = json!([{ "field": "storedAt", "ascending": true }, { "field": "fileName" }]);
    let refused = sandbox.query(METADATA, json!({ "sort": sort })).await;
    assert_eq!(refused.status, 501);
    assert_eq!(
        refused.body,
        json!({
            "code": "notSupported", "need": "query.sort.multi",
            "message": "capability request: need=query.sort.multi",
        })
    );
}

#[tokio::test]
async fn corpora_are_made_listed_and_deleted_with_all_they_hold() {
    let sandbox = Sandbox::few().await;
    let created = sandbox
        .store(Method::POST, "/corpora", Some(json!({ "corpusId": "other", "metadata": { "a": "b" } })))
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(created.body, json!({ "corpusId": "other", "message": "created" }));
    let read = sandbox.store(Method::GET, "/corpora/other", None).await.body;
    assert_eq!(read, json!({ "corpusId": "other", "metadata": { "a": "b" } }));
    let listed = sandbox.store(Method::GET, "/corpora?limit=1&offset=1", None).await.body;
    assert_eq!(listed, json!({ "total": 2, "corpora": ["other"] }));

    let collections = sandbox.store(Method::GET, "/corpora/chatkit/collections", None).await.body;
    assert_eq!(
        collections["collections"],
        json!([
            { "name": "attachment-metadata", "total": 8 },
            { "name": "attachments", "total": 10 },
            { "name": "threads", "total": 2 },
        ])
    );
    let deleted = sandbox.store(Method::DELETE, "/corpora/chatkit", None).await;
    assert_eq!(deleted.body, json!({ "corpusId": "chatkit", "message": "deleted" }));
    assert_eq!(sandbox.store(Method::DELETE, "/corpora/chatkit", None).await.status, 404);
    assert_eq!(sandbox.query("threads", json!({})).await.status, 404);
    sandbox.store(Method::POST, "/corpora", Some(json!({ "corpusId": "chatkit" }))).await;
    assert_eq!(sandbox.query("threads", json!({})).await.body, json!({ "total": 0, "documents": [] }));
    let ops: Vec<_> = sandbox.effects().await.unwrap().into_iter().map(|effect| effect.op).collect();
    assert_eq!(ops, ["create_corpus", "delete_corpus", "create_corpus"]);
}

#[tokio::test]
async fn paging_past_the_end_yields_the_last_document_again() {
    let sandbox = Sandbox::start(&Options { attachments: 25, ..few() }).await;
    let page = async |limit: u64, offset: u64| {
        let sort = json!([{ "field": "storedAt", "ascending": true }]);
        let query = json!({ "sort": sort, "limit": limit, "offset": offset });
        sandbox.query(METADATA, query).await.body
    };
    let all = ids(&page(1000, 0).await["documents"]);
    let mut paged = Vec::new();
    for offset in (0..25).step_by(10) {
        let page = page(10, offset).await;
        assert_eq!(page["total"], 25);
        paged.extend(ids(&page["documents"]));
    }
    assert_eq!(paged, all);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 25);
    for offset in [25, 30, 4_000_000] {
        assert_eq!(ids(&page(10, offset).await["documents"]), all[24..]);
    }
    let no_limit = sandbox.query(METADATA, json!({})).await.body;
    assert_eq!(no_limit["documents"].as_array().unwrap().len(), 25);
}

#[tokio::test]
async fn queries_filter_sort_strings_and_search() {
    let sandbox = Sandbox::few().await;
    sandbox.store(Method::POST, "/corpora", Some(json!({ "corpusId": "c" }))).await;
    for (id, rank, name) in
        [("a", json!(10), "Alpha"), ("b", json!(9), "beta"), ("c", json!("100"), "alphabet")]
    {
        let path = format!("/corpora/c/collections/k/docs/{id}");
        let document = json!({ "id": id, "rank": rank, "name": name });
        assert_eq!(sandbox.store(Method::PUT, &path, Some(document)).await.status, 200);
    }
    let found = async |query: Value| {
        let answer = sandbox.store(Method::POST, "/corpora/c/collections/k/query", Some(query)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let documents = answer.body["documents"].as_array().unwrap().clone();
        assert_eq!(answer.body["total"], documents.len());
        documents.iter().map(|document| document["id"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(found(json!({ "sort": [{ "field": "rank", "ascending": true }] })).await, "acb");
    assert_eq!(found(json!({ "sort": [{ "field": "rank", "ascending": false }] })).await, "bca");
    assert_eq!(found(json!({ "filters": { "rank": "9" } })).await, "b");
    assert_eq!(found(json!({ "filters": { "name": "ALPHA" } })).await, "");
    assert_eq!(found(json!({ "mode": "byIndexEq", "filters": { "name": "ALPHA" } })).await, "a");
    assert_eq!(found(json!({ "mode": "prefixScan", "filters": { "name": "alpha" } })).await, "c");
    assert_eq!(found(json!({ "mode": "byId", "filters": { "id": "b" } })).await, "b");
    assert_eq!(found(json!({ "text": "ALPHA" })).await, "ac");
    let injected = json!({ "filters": { "x') OR 1=1 --": "1" } });
    let refused = sandbox.store(Method::POST, "/corpora/c/collections/k/query", Some(injected)).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn documents_and_effects_outlive_a_restart_and_a_kill() {
    let sandbox = Sandbox::few().await;
    let before = sandbox.doc_ids("attachments").await.unwrap();
    let path = |id: &str| format!("/corpora/chatkit/collections/attachments/docs/{id}");
    let first = sandbox.store(Method::DELETE, &path(&before[0]), None).await;
    assert_eq!((first.status.as_u16(), first.body), (200, json!({ "deleted": true })));
    sandbox.restart(Server::Store).await.unwrap();
    let again = sandbox.store(Method::DELETE, &path(&before[0]), None).await;
    assert_eq!((again.status.as_u16(), again.body), (200, json!({ "deleted": false })));
    sandbox.store(Method::DELETE, &path(&before[1]), None).await;
    sandbox.kill(Server::Store).await.unwrap();
    assert!(sandbox.try_store(Method::GET, "/health", None).await.is_err());
    sandbox.restart(Server::Store).await.unwrap();

    assert_eq!(sandbox.doc_ids("attachments").await.unwrap(), before[2..]);
    assert_eq!(sandbox.store(Method::GET, &path(&before[0]), None).await.status, 404);
    let effects = sandbox.effects().await.unwrap();
    let seen: Vec<_> = effects
        .iter()
        .map(|effect| (effect.seq, effect.op.as_str(), effect.id.clone().unwrap(), effect.existed))
        .collect();
    assert_eq!(
        seen,
        [
            (1, "delete", before[0].clone(), true),
            (2, "delete", before[0].clone(), false),
            (3, "delete", before[1].clone(), true),
        ]
    );
}
