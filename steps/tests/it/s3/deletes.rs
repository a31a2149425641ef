//! Requests that delete several objects: counted, refused as a whole or for some keys, and held to their conditions.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Response};
use runbook_steps::connections::s3::S3;

use super::proxy::First;

/// What is to become of deletes.
#[derive(Default)]
struct Told {
    /// The code that a key is answered with, and how many times more.
    refused: BTreeMap<String, (&'static str, u32)>,
    /// How many requests more are answered with `SlowDown` as a whole.
    busy: u32,
    /// Whether a key is left when its object has another ETag than the request says.
    conditional: bool,
    /// The keys of each request so far.
    requests: Vec<Vec<String>>,
}

/// Answers the requests that delete several objects. What it does not refuse is deleted from the store.
pub struct Deletes {
    store: Arc<S3>,
    told: Mutex<Told>,
}

impl Deletes {
    /// Those of this bucket.
    pub fn of(store: &Arc<S3>) -> Arc<Self> {
        Arc::new(Self { store: Arc::clone(store), told: Mutex::default() })
    }

    /// The next times somebody asks for this key to be deleted, it is left, and answered with this code.
    pub fn refuse(&self, key: &str, code: &'static str, times: u32) {
        self.told.lock().unwrap().refused.insert(key.to_owned(), (code, times));
    }

    /// The next requests are answered with `SlowDown`, and nothing is deleted.
    pub fn slow_down(&self, times: u32) {
        self.told.lock().unwrap().busy = times;
    }

    /// From now on the store is one that makes sure of ETags when it deletes.
    pub fn make_conditional(&self) {
        self.told.lock().unwrap().conditional = true;
    }

    /// The keys of each request since the last time.
    pub fn requests(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.told.lock().unwrap().requests)
    }

    /// The code that a key is refused with, once more.
    fn refusal(&self, key: &str) -> Option<&'static str> {
        let mut told = self.told.lock().unwrap();
        let (code, left) = told.refused.get_mut(key).filter(|(_, left)| *left > 0)?;
        *left -= 1;
        Some(*code)
    }

    async fn respond(&self, asked: Vec<Asked>) -> Response<Body> {
        let conditional = {
            let mut told = self.told.lock().unwrap();
            told.requests.push(asked.iter().map(|one| one.key.clone()).collect());
            if told.busy > 0 {
                told.busy -= 1;
                let text =
                    "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                return xml(503, text);
            }
            told.conditional
        };
        let (mut going, mut told) = (Vec::new(), String::new());
        for one in asked {
            let moved = conditional && one.etag.is_some() && etag_of(&self.store, &one).await != one.etag;
            match self.refusal(&one.key).or(moved.then_some("PreconditionFailed")) {
                Some(code) => told.push_str(&error(&one, code)),
                None => going.push(one),
            }
        }
        told.push_str(&delete(&self.store, &going).await);
        xml(200, &format!("<DeleteResult>{told}</DeleteResult>"))
    }
}

impl First for Deletes {
    fn answer<'a>(
        &'a self,
        head: &'a Parts,
        body: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send + 'a>> {
        Box::pin(async move {
            let query = head.uri.query().unwrap_or_default();
            let deletes = query.split('&').any(|part| part == "delete" || part == "delete=");
            if head.method != Method::POST || !deletes {
                return None;
            }
            Some(self.respond(asked(body)).await)
        })
    }
}

/// One object of a request.
struct Asked {
    key: String,
    version: Option<String>,
    etag: Option<String>,
}

fn between<'t>(text: &'t str, tag: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(inside, _)| inside)
}

fn asked(body: &[u8]) -> Vec<Asked> {
    let text = std::str::from_utf8(body).unwrap();
    let one = |object: &str| Asked {
        key: between(object, "Key").unwrap().replace("&amp;", "&"),
        version: between(object, "VersionId").map(str::to_owned),
        etag: between(object, "ETag").map(|etag| etag.replace("&quot;", "").replace('"', "")),
    };
    text.split("<Object>").skip(1).map(one).collect()
}

pub fn xml(status: u16, body: &str) -> Response<Body> {
    let answer = Response::builder().status(status).header("content-type", "application/xml");
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}");
    answer.body(Body::from(body)).unwrap()
}

async fn etag_of(s3: &S3, one: &Asked) -> Option<String> {
    let look = s3.client().await.head_object().bucket(s3.bucket()).key(&one.key).send().await.ok()?;
    look.e_tag().map(|etag| etag.replace('"', ""))
}

fn named(one: &Asked) -> String {
    let version = one.version.as_ref().map(|version| format!("<VersionId>{version}</VersionId>"));
    format!("<Key>{}</Key>{}", one.key.replace('&', "&amp;"), version.unwrap_or_default())
}

fn error(one: &Asked, code: &str) -> String {
    format!("<Error>{}<Code>{code}</Code><Message>as the test has it</Message></Error>", named(one))
}

/// Deletes what is not refused, and tells of it as the store did.
async fn delete(s3: &S3, going: &[Asked]) -> String {
    if going.is_empty() {
        return String::new();
    }
    let one =
        |one: &Asked| ObjectIdentifier::builder().key(&one.key).set_version_id(one.version.clone()).build();
    let objects: Vec<ObjectIdentifier> = going.iter().map(|each| one(each).unwrap()).collect();
    let delete = Delete::builder().set_objects(Some(objects)).build().unwrap();
    let request = s3.client().await.delete_objects().bucket(s3.bucket()).delete(delete);
    let answer = request.send().await.unwrap();
    assert!(answer.errors().is_empty(), "{:?}", answer.errors());
    assert_eq!(answer.deleted().len(), going.len());
    going.iter().map(|one| format!("<Deleted>{}</Deleted>", named(one))).collect()
}
