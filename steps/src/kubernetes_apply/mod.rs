//! Step kind `kubernetes-apply`: what manifests say is so in a cluster.

mod manifest;
mod work;

use std::path::PathBuf;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::work::Work;
use crate::apply_mode::Mode;
use crate::kind::{Context, End, Step, read_now, would};
use crate::one_or_many::OneOrMany;

/// Applies manifests to a Kubernetes cluster, or tells what that would change. The server itself works out what an object would be (server-side
/// apply; for `plan` and `verify` as a dry run), so what others own in it stays theirs.
///
/// After an apply all objects are compared again, and the step fails when one is not as the manifests say. A field that somebody else
/// manages and the manifests set to another value is a conflict: it fails the step, and `force` takes the field over.
///
/// A reviewed plan binds the files: when one of them holds something else by then, nothing is applied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesApply {
    /// The name of a connection of type `kubernetes`.
    pub connection: String,
    /// The manifests, YAML or JSON, absolute paths; a file may hold several objects.
    pub files: OneOrMany<PathBuf>,
    /// What the files must hold, the SHA-256 of each in their order, such as `sha256` of an earlier step with mode `plan`: what somebody has agreed to is
    /// what is applied. Default: whatever they hold.
    #[serde(default)]
    pub sha256: Option<OneOrMany<String>>,
    /// What is done: `plan` tells what `apply` would change, and `verify` fails unless that is nothing.
    pub mode: Mode,
    /// The namespace of objects that name none. Default: none, and such objects are refused.
    #[serde(default)]
    pub namespace: Option<String>,
    /// By which name the server remembers who set a field. Default `runbook`.
    #[serde(default = "default_manager")]
    pub field_manager: String,
    /// Whether fields that others manage are taken over. Default: no.
    #[serde(default)]
    pub force: bool,
}

fn default_manager() -> String {
    "runbook".to_owned()
}

/// What was found and done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// The mode.
    pub mode: Mode,
    /// The cluster.
    pub cluster: String,
    /// How many objects were made, or with `plan` would be.
    pub created: u64,
    /// How many were changed, or with `plan` would be.
    pub changed: u64,
    /// How many were as they should be.
    pub unchanged: u64,
    /// The objects, in the order of the files.
    pub objects: Vec<Object>,
    /// The SHA-256 of each file, 64 hex digits.
    pub sha256: Vec<String>,
}

/// An object of the manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Object {
    /// Its kind.
    pub kind: String,
    /// Its namespace, when it is in one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What became of it, or with `plan` would.
    pub action: Action,
    /// Where it changes: JSON pointers, at most twenty. Values are not shown.
    pub fields: Vec<String>,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed.
    Change,
    /// It is as it should be.
    Keep,
}

impl Object {
    /// The object in words, for people.
    pub(crate) fn words(&self) -> String {
        let namespace = self.namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
        format!("{} {namespace}{}", self.kind, self.name)
    }
}

#[async_trait]
impl Step for KubernetesApply {
    const NAME: &'static str = "kubernetes-apply";
    const SUMMARY: &'static str = "Apply manifests to a Kubernetes cluster, or tell what that would change";
    const EXAMPLE: &'static str = "\
- id: alerts
  uses: kubernetes-apply
  with:
    connection: cluster
    mode: apply
    files: /srv/app/deploy/monitoring/prometheusrule-chat-attachment-lifecycle.yaml
    namespace: monitoring
";
    type Outputs = Outputs;

    fn effect(with: &Value) -> Effect {
        match with.get("mode").and_then(Value::as_str) {
            Some("plan" | "verify") => Effect::READ,
            _ => Effect::WRITE,
        }
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        let work = Work::begin(&self, cx).await?;
        let before = work.foreseen().await?;
        match self.mode {
            Mode::Plan => {}
            Mode::Verify => work.same(&before)?,
            Mode::Apply => {
                work.as_reviewed()?;
                for (at, object) in before.iter().enumerate() {
                    if object.action != Action::Keep {
                        cx.checkpoint()?;
                        work.apply(at, object).await?;
                    }
                }
                work.same(&work.foreseen().await?)?;
            }
        }
        Ok(End::Done(work.outputs(before)))
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        if effect.class == runbook_engine::kinds::Class::Read {
            return read_now(self, cx).await;
        }
        let work = Work::begin(&self, cx).await?;
        let words = work.foreseen().await?.into_iter().map(|object| match object.action {
            Action::Create => format!("make {}", object.words()),
            Action::Change => format!("change {} at {}", object.words(), object.fields.join(", ")),
            Action::Keep => format!("keep {}", object.words()),
        });
        let does = words.collect::<Vec<_>>().join("; ");
        Ok(Foresight { binds: work.facts(), ..would(does) })
    }
}
