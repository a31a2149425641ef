//! Step kind `verify-header`: downloads a sample from the live endpoint and compares it with the local files.

mod check;
mod sample;

use async_trait::async_trait;
use runbook_engine::artifact::Artifact;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use runbook_engine::step::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connections::http::{Http, http_of, segment};
use crate::connections::session::SessionValue;
use crate::kind::{Context, End, Step, would};
use crate::records::{read_records, write_records};
use crate::upload::Descriptor;
use crate::upload::files::Files;
use check::{Checked, Fetched, fetch};

/// Downloads a sample of what was uploaded and compares the headers, and the body, with the local files as they are now.
///
/// The sample is drawn by the run's seed: a partial Fisher-Yates shuffle of the keys in byte order, with splitmix64, `next %
/// remaining` for each draw. It is recorded before the first download, so that a resume checks the same ones, and anybody can
/// draw it again.
///
/// The session is refreshed first. When it is gone, or is not the one that the items were uploaded in, nothing can be downloaded
/// any more: the step that uploaded (`produced_by`) then runs again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyHeader {
    /// A connection of type `http`. Its session's secret, if it has one, is sent in the query.
    pub connection: String,
    /// Where one item is, below the connection's URL: `{name}` stands for a field of its descriptor, percent-encoded, such as
    /// `/chatkit/attachments/{attachment_id}`.
    pub path: String,
    /// What was uploaded: the `descriptors` of a step of kind `upload`.
    pub items: Artifact,
    /// A connection of type `directory` that the paths of the items are below. Without it they are absolute.
    #[serde(default)]
    pub directory: Option<String>,
    /// How many items are checked; all of them when there are fewer. Default 20.
    #[serde(default = "default_sample")]
    #[schemars(range(min = 1))]
    pub sample: usize,
    /// The id of the step that uploaded the items, which runs again when they can not be downloaded any more.
    #[serde(default)]
    pub produced_by: Option<String>,
    /// What is compared.
    #[serde(default)]
    pub checks: Checks,
}

fn default_sample() -> usize {
    20
}

/// What is compared; all of it by default.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// `Content-Type`, without parameters, with the media type that the upload was answered.
    pub content_type: bool,
    /// `Content-Length` with the size of the local file.
    pub content_length: bool,
    /// `ETag`, bare, quoted or weak, with the SHA-256 of the local file.
    pub etag: bool,
    /// The SHA-256 of the bytes received with that of the local file.
    pub body: bool,
}

impl Default for Checks {
    fn default() -> Self {
        Self { content_type: true, content_length: true, etag: true, body: true }
    }
}

/// What a step of kind `verify-header` leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Verified {
    /// How many items were checked, all of them right.
    pub checked: u64,
    /// How many items there were to draw from.
    pub population: u64,
    /// The keys that were drawn, in order; at most 100.
    pub sample: Vec<String>,
    /// The seed that they were drawn with, as a decimal text: it may be too large for a JSON number.
    pub seed: String,
    /// One record a line: `{key, attachment_id, status, expected, got, failures}`.
    pub results: Artifact,
    /// What a person should know, such as a media type that is not the file's. At most 50.
    pub discrepancies: Vec<String>,
}

/// How many keys the outputs hold, and how many items an error names.
const MOST: usize = 100;

#[async_trait]
impl Step for VerifyHeader {
    const NAME: &'static str = "verify-header";
    const SUMMARY: &'static str =
        "Compare type, length, ETag and bytes of live downloads with the local files";
    const EXAMPLE: &'static str = r#"id: verify
uses: verify-header
with:
  connection: gateway
  path: /chatkit/attachments/{attachment_id}
  items: "${{ steps.restore.outputs.descriptors }}"
  directory: archive
  sample: 20
  produced_by: restore
"#;
    type Outputs = Verified;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        Ok(would(format!("check at most {} downloads", self.sample)))
    }

    async fn run(self, cx: &Context) -> Result<End<Verified>, StepError> {
        let items: Vec<Descriptor> = read_records(cx, &self.items).await?;
        let keys = sample::drawn(cx, &items, &self.items.sha256, self.sample).await?;
        let mut verify = Verify {
            http: http_of(&cx.resources, &self.connection)?,
            files: Files::of(cx, self.directory.as_deref())?,
            with: &self,
            cx,
            session: None,
        };
        verify.refresh(&items).await?;
        let mut checked = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            cx.checkpoint()?;
            let one = match items.iter().find(|item| &item.key == key) {
                Some(item) => verify.one(item).await?,
                None => Checked::absent(key),
            };
            checked.push(one);
            show(cx, index + 1, keys.len(), &checked);
        }
        finish(cx, checked, keys, items.len()).await.map(End::Done)
    }
}

fn show(cx: &Context, done: usize, total: usize, checked: &[Checked]) {
    cx.live.progress(Progress {
        done: done as u64,
        total: Some(total as u64),
        unit: "downloads".to_owned(),
        failed: checked.iter().filter(|one| !one.failures.is_empty()).count() as u64,
        note: String::new(),
    });
}

async fn finish(
    cx: &Context,
    checked: Vec<Checked>,
    mut keys: Vec<String>,
    population: usize,
) -> Result<Verified, StepError> {
    let results = write_records(cx, "verified.jsonl", &checked).await?;
    let failing: Vec<&Checked> = checked.iter().filter(|one| !one.failures.is_empty()).collect();
    if !failing.is_empty() {
        let mut named: Vec<String> = failing
            .iter()
            .take(MOST)
            .map(|one| format!("{}: {}", one.key, one.failures.join(", ")))
            .collect();
        if failing.len() > MOST {
            named.push(format!("and {} more", failing.len() - MOST));
        }
        let message =
            format!("{} of {} downloads are not right: {}", failing.len(), checked.len(), named.join("; "));
        return Err(StepError::gate(message).with_help(format!(
            "everything expected and got is in the artifact {} ({})",
            results.name, results.sha256
        )));
    }
    let discrepancies = checked.iter().filter_map(|one| one.discrepancy.clone()).take(50).collect();
    let checked = checked.len() as u64;
    keys.truncate(MOST);
    let (sample, seed, population) = (keys, cx.run.seed.to_string(), population as u64);
    Ok(Verified { checked, population, sample, seed, results, discrepancies })
}

struct Verify<'a> {
    with: &'a VerifyHeader,
    cx: &'a Context,
    http: std::sync::Arc<Http>,
    files: Files,
    session: Option<SessionValue>,
}

impl Verify<'_> {
    /// A fresh secret of the session that every item was uploaded in.
    async fn refresh(&mut self, items: &[Descriptor]) -> Result<(), StepError> {
        let Some(session) = self.http.session() else { return Ok(()) };
        let fresh = match session.refresh().await {
            Ok(fresh) => fresh,
            Err(error) if error.kind == ErrorKind::Refused => {
                session.forget().await;
                return Err(self.lost(&format!("the session can not be refreshed ({})", error.message)));
            }
            Err(error) => return Err(error),
        };
        let other = |item: &&Descriptor| item.session_id.as_ref().is_some_and(|id| *id != fresh.id);
        if let Some(item) = items.iter().find(other) {
            let message = format!("{} was uploaded in another session than the live one", item.key);
            return Err(self.lost(&message));
        }
        self.session = Some(fresh);
        Ok(())
    }

    /// What was uploaded can not be downloaded any more by anybody.
    fn lost(&self, why: &str) -> StepError {
        let error = StepError::gate(format!("the uploads can not be downloaded any more: {why}"));
        match &self.with.produced_by {
            Some(step) => error.rewinding(step),
            None => {
                error.with_help("name the step that uploaded them with `produced_by`, so that it runs again")
            }
        }
    }

    async fn one(&mut self, item: &Descriptor) -> Result<Checked, StepError> {
        let Some((sha256, bytes)) = self.files.digest(&item.path).await? else {
            return Ok(Checked::without_file(item));
        };
        let path = filled(&self.with.path, item)?;
        let mut renewed = false;
        loop {
            let fetched =
                fetch(self.cx, &self.http, self.session.as_ref(), &path, self.with.checks.body).await?;
            match (fetched, self.http.session()) {
                (Fetched::NoSession(_), Some(session)) if !renewed => {
                    renewed = true;
                    match session.refresh().await {
                        Ok(fresh) => self.session = Some(fresh),
                        Err(error) if error.kind == ErrorKind::Refused => {
                            session.forget().await;
                            return Err(self.lost(&error.message));
                        }
                        Err(error) => return Err(error),
                    }
                }
                (Fetched::NoSession(why) | Fetched::NotOurs(why), Some(session)) => {
                    // Forgotten, so that the uploads are made again in a session that is known to be theirs.
                    session.forget().await;
                    return Err(self.lost(&why));
                }
                (Fetched::NoSession(why) | Fetched::NotOurs(why), None) => {
                    return Ok(Checked::failed(item, why));
                }
                (Fetched::Failed(status, why), _) => return Ok(Checked::refused(item, status, why)),
                (Fetched::Got(got), _) => {
                    return Ok(Checked::compared(item, self.with.checks, &sha256, bytes, *got));
                }
            }
        }
    }
}

/// The path of an item: each `{name}` is a field of its descriptor.
fn filled(template: &str, item: &Descriptor) -> Result<String, StepError> {
    let fields = serde_json::to_value(item).unwrap_or_default();
    let (mut path, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let unknown =
            |name: &str| StepError::invalid(format!("`path` names `{{{name}}}`, which no descriptor has"));
        let (name, after) =
            after.split_once('}').ok_or_else(|| StepError::invalid("`path` has `{` without `}`"))?;
        let value = match fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err(unknown(name)),
        };
        path.push_str(before);
        path.push_str(&segment(&value));
        rest = after;
    }
    path.push_str(rest);
    Ok(path)
}
