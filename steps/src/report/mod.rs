//! Step kind `report`: what the run did, for the incident notes.

mod facts;
mod failures;
mod markdown;
mod shown;

use std::path::PathBuf;

use async_trait::async_trait;
use runbook_engine::artifact::Artifact;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connections::directory::Directory;
use crate::kind::{Context, End, Step, would};
use crate::records::{blocking, write_text};
use facts::Facts;

/// Writes `report.md` for people and `report.json` for machines from the run's own record: what was destroyed, what was held and
/// put back, who answered what, what failed, how long everything took. It works however the run went; put it last in `finally`.
///
/// The verdict is `PASS` when every step that had to run has ended well so far, and `FAIL` otherwise. A failed step with
/// `on_failure: continue` is told but does not make a run fail. Secrets are left out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The heading. Default: the runbook's name.
    #[serde(default)]
    pub title: Option<String>,
    /// What else people should know, by label, in this order.
    #[serde(default)]
    pub notes: Map<String, Value>,
    /// The sections of `report.md`. Default: all. The header, and what to do after a failure, are always there; `report.json`
    /// always has everything.
    #[serde(default)]
    pub include: Option<Vec<Section>>,
    /// Where to write copies too: a folder (made when it is not there), for `RUN.md` and `RUN.json`, or a file whose name ends in
    /// `.md`, with the other beside it. Absolute.
    #[serde(default)]
    pub path: Option<String>,
}

/// A section of `report.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// Failures and discrepancies.
    Findings,
    /// What was destroyed.
    Destroyed,
    /// What was held and put back.
    Held,
    /// Every step.
    Steps,
    /// What steps put out.
    Outputs,
    /// What people answered.
    Answers,
    /// The inputs.
    Inputs,
    /// The notes.
    Notes,
}

/// What a step of kind `report` leaves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Reported {
    /// The report for people.
    pub markdown: Artifact,
    /// The report for machines.
    pub json: Artifact,
    /// Where the copy for people is, when `path` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `PASS` or `FAIL`.
    pub verdict: String,
}

#[async_trait]
impl Step for Report {
    const NAME: &'static str = "report";
    const SUMMARY: &'static str = "Write what the run did as Markdown and JSON, however it went";
    const EXAMPLE: &'static str = r"id: report
uses: report
with:
  title: ChatKit attachment reset
  notes: { Follow-up: none }
";
    type Outputs = Reported;

    fn effect(with: &Value) -> Effect {
        match with.get("path") {
            None | Some(Value::Null) => Effect::READ,
            Some(_) => Effect::WRITE,
        }
    }

    async fn foresee(self, _: Effect, _: &Context) -> Result<Foresight, StepError> {
        let Some(path) = &self.path else { return Ok(would("write the report")) };
        let copies = copies(path, "RUN")?;
        let root = copies.directory.root().join(&copies.markdown);
        let over = if root.exists() { ", over what is there" } else { "" };
        Ok(would(format!("write the report, with a copy as {} and {}{over}", root.display(), copies.json)))
    }

    async fn run(self, cx: &Context) -> Result<End<Reported>, StepError> {
        let copies = self.path.as_deref().map(|path| copies(path, &cx.run.id)).transpose()?;
        let facts = Facts::gather(&self, cx).await?;
        let value = serde_json::to_value(&facts)
            .map_err(|error| StepError::new(ErrorKind::Bug, "the report is no JSON").with_source(&error))?;
        let json = format!("{:#}\n", cx.redactor.value(&value));
        let text = cx.redactor.text(&markdown::render(&facts, self.include.as_deref()));
        let path = match copies {
            Some(copies) => Some(copies.write(&text, &json).await?),
            None => None,
        };
        Ok(End::Done(Reported {
            markdown: write_text(cx, "report.md", &text).await?,
            json: write_text(cx, "report.json", &json).await?,
            path,
            verdict: facts.verdict.to_owned(),
        }))
    }
}

/// Where the copies go.
struct Copies {
    directory: Directory,
    markdown: String,
    json: String,
}

fn copies(path: &str, run: &str) -> Result<Copies, StepError> {
    let path = PathBuf::from(path);
    let is_file = path.extension().is_some_and(|extension| extension == "md") && !path.is_dir();
    let parent = if is_file { path.parent().unwrap_or(&path) } else { &path };
    let stem = if is_file { path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) } else { None };
    let stem = stem.unwrap_or_else(|| run.to_owned());
    let directory = Directory::new(&parent.to_string_lossy())?;
    Ok(Copies { directory, markdown: format!("{stem}.md"), json: format!("{stem}.json") })
}

impl Copies {
    async fn write(self, markdown: &str, json: &str) -> Result<String, StepError> {
        let (markdown, json) = (markdown.to_owned(), json.to_owned());
        blocking("writing the copies of the report", move || {
            let written = self
                .directory
                .write(&self.json, json.as_bytes())
                .and_then(|_| self.directory.write(&self.markdown, markdown.as_bytes()));
            Ok(written.map(|path| path.display().to_string()))
        })
        .await?
    }
}
