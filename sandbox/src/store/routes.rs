//! The HTTP routes of the store.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Extension, Path, Query as UrlQuery, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    database::{Database, Place},
    query::{Query, Refusal},
};
use crate::{
    admin::{After, Effects},
    instrument::{WithheldCapability, not_supported},
};

/// The largest document accepted, in bytes.
const DOCUMENT_LIMIT: usize = 256 * 1024 * 1024;

/// An answer other than success.
enum Failure {
    Missing(&'static str),
    Invalid(String),
    NotSupported(&'static str),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::NotSupported(need) => return not_supported(need),
            Self::Missing(what) => (StatusCode::NOT_FOUND, "notFound", format!("{what} not found")),
            Self::Invalid(message) => (StatusCode::BAD_REQUEST, "invalidRequest", message),
            Self::Database(error) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()),
        };
        (status, Json(json!({ "code": code, "message": message }))).into_response()
    }
}

type Answer = Result<Response, Failure>;

/// The routes; all but `/health` and the admin routes need the key.
pub(crate) fn router(database: Database, api_key: String) -> Router {
    let keyed = Router::new()
        .route("/capabilities", get(capabilities))
        .route("/corpora", get(list_corpora).post(create_corpus))
        .route("/corpora/{corpus}", get(read_corpus).delete(delete_corpus))
        .route("/corpora/{corpus}/collections", get(list_collections))
        .route("/corpora/{corpus}/collections/{collection}/query", post(query))
        .route(
            "/corpora/{corpus}/collections/{collection}/docs/{id}",
            get(read_document).put(put_document).delete(delete_document),
        )
        .layer(DefaultBodyLimit::max(DOCUMENT_LIMIT))
        .layer(middleware::from_fn_with_state(api_key, require_key));
    Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/__sandbox/effects", get(list_effects))
        .merge(keyed)
        .with_state(database)
}

async fn require_key(State(api_key): State<String>, request: Request, next: Next) -> Response {
    let given = request.headers().get("x-api-key").map(axum::http::HeaderValue::as_bytes);
    if given == Some(api_key.as_bytes()) {
        return next.run(request).await;
    }
    let body = json!({ "code": "unauthorized", "message": "missing or wrong X-API-Key" });
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

async fn capabilities(withheld: Option<Extension<WithheldCapability>>) -> Json<Value> {
    let withheld = withheld.map(|Extension(WithheldCapability(need))| need).unwrap_or_default();
    let flags = |group: &str, names: &[&str]| -> Vec<String> {
        let present = names.iter().filter(|name| format!("{group}.{name}") != withheld);
        present.map(|name| (*name).to_owned()).collect()
    };
    Json(json!({
        "corpus": withheld != "corpus",
        "documents": flags("documents", &["upsert", "get", "delete"]),
        "query": flags("query", &["byId", "byIndexEq", "prefixScan", "filters", "sort", "text"]),
        "transactions": [],
        "admin": [],
        "experimental": [],
    }))
}

#[derive(Deserialize)]
struct CorporaPage {
    limit: Option<i64>,
    offset: Option<i64>,
}

async fn list_corpora(State(database): State<Database>, UrlQuery(page): UrlQuery<CorporaPage>) -> Answer {
    let limit = page.limit.unwrap_or(50);
    let offset = page.offset.unwrap_or(0);
    if !(1..=200).contains(&limit) || offset < 0 {
        return Err(Failure::Invalid("limit is 1 to 200, offset 0 or more".into()));
    }
    let (total, corpora) = database.corpora(limit, offset).await?;
    Ok(Json(json!({ "total": total, "corpora": corpora })).into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewCorpus {
    corpus_id: String,
    #[serde(default)]
    metadata: serde_json::Map<String, Value>,
}

async fn create_corpus(State(database): State<Database>, body: Bytes) -> Answer {
    let corpus: NewCorpus = parse(&body)?;
    if corpus.corpus_id.is_empty() {
        return Err(Failure::Invalid("corpusId is empty".into()));
    }
    database.create_corpus(&corpus.corpus_id, &Value::Object(corpus.metadata)).await?;
    let answer = json!({ "corpusId": corpus.corpus_id, "message": "created" });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn read_corpus(State(database): State<Database>, Path(corpus): Path<String>) -> Answer {
    let metadata = database.corpus(&corpus).await?.ok_or(Failure::Missing("corpus"))?;
    Ok(Json(json!({ "corpusId": corpus, "metadata": metadata })).into_response())
}

async fn delete_corpus(State(database): State<Database>, Path(corpus): Path<String>) -> Answer {
    if !database.delete_corpus(&corpus).await? {
        return Err(Failure::Missing("corpus"));
    }
    Ok(Json(json!({ "corpusId": corpus, "message": "deleted" })).into_response())
}

async fn list_collections(State(database): State<Database>, Path(corpus): Path<String>) -> Answer {
    let collections = database.collections(&corpus).await?.ok_or(Failure::Missing("corpus"))?;
    let rows: Vec<Value> =
        collections.into_iter().map(|(name, total)| json!({ "name": name, "total": total })).collect();
    Ok(Json(json!({ "collections": rows })).into_response())
}

async fn query(
    State(database): State<Database>,
    Path((corpus, collection)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let query: Query = parse(&body)?;
    query.check().map_err(|refusal| match refusal {
        Refusal::NotSupported(need) => Failure::NotSupported(need),
        Refusal::Invalid(message) => Failure::Invalid(message),
    })?;
    let place = Place { corpus: &corpus, collection: &collection };
    let found = database.query(place, &query).await?.ok_or(Failure::Missing("corpus"))?;
    let answer = format!("{{\"total\":{},\"documents\":[{}]}}", found.total, found.documents);
    Ok(json_text(answer))
}

type DocumentPath = Path<(String, String, String)>;

async fn read_document(
    State(database): State<Database>,
    Path((corpus, collection, id)): DocumentPath,
) -> Answer {
    let place = Place { corpus: &corpus, collection: &collection };
    let document = database.document(place, &id).await?.ok_or(Failure::Missing("document"))?;
    Ok(json_text(document))
}

async fn put_document(
    State(database): State<Database>,
    Path((corpus, collection, id)): DocumentPath,
    body: Bytes,
) -> Answer {
    let _: serde_json::Map<String, Value> = parse(&body)?;
    let text = std::str::from_utf8(&body).map_err(|error| Failure::Invalid(error.to_string()))?;
    let place = Place { corpus: &corpus, collection: &collection };
    let existed = database.put(place, &id, text).await?.ok_or(Failure::Missing("corpus"))?;
    Ok(Json(json!({ "id": id, "existed": existed })).into_response())
}

async fn delete_document(
    State(database): State<Database>,
    Path((corpus, collection, id)): DocumentPath,
) -> Answer {
    let place = Place { corpus: &corpus, collection: &collection };
    let deleted = database.delete(place, &id).await?.ok_or(Failure::Missing("corpus"))?;
    Ok(Json(json!({ "deleted": deleted })).into_response())
}

async fn list_effects(
    State(database): State<Database>,
    UrlQuery(After { after }): UrlQuery<After>,
) -> Answer {
    Ok(Json(Effects { effects: database.effects(after).await? }).into_response())
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Invalid(error.to_string()))
}

fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
