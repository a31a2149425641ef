//! One attempt of `kubernetes-apply`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::{Scope, pinned_kind};
use runbook_engine::crash;
use runbook_engine::error::StepError;
use serde_json::{Map, Value};

use super::manifest::{Wanted, read};
use super::{Action, KubernetesApply, Object, Outputs};
use crate::agreed::same_files;
use crate::bound::{Facts, as_reviewed};
use crate::connections::kubernetes::Kubernetes;
use crate::kind::Context;
use crate::retry::patiently;

/// How many fields of an object are named.
const FIELDS: usize = 20;

/// What the server keeps beside what anybody wants of an object.
const KEPT: [&str; 6] =
    ["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// One attempt.
pub(super) struct Work<'a> {
    step: &'a KubernetesApply,
    cx: &'a Context,
    cluster: Arc<Kubernetes>,
    objects: Vec<Known>,
    sha256: Vec<String>,
}

/// An object with where it is in the cluster.
struct Known {
    wanted: Wanted,
    namespace: Option<String>,
    api: Api<DynamicObject>,
}

impl<'a> Work<'a> {
    /// Reads the manifests, and asks the cluster for the kinds in them.
    pub(super) async fn begin(step: &'a KubernetesApply, cx: &'a Context) -> Result<Self, StepError> {
        let cluster = cx.resources.connection::<Kubernetes>(&step.connection)?;
        let (wanted, sha256) = read(&step.files.0).await?;
        if let Some(expected) = &step.sha256 {
            same_files(&step.files.0, &sha256, &expected.0)?;
        }
        cx.checkpoint()?;
        let client = cluster.client().await?;
        let mut objects = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let kind = &wanted.kind;
            let what = format!("asking {} for {} of {}", cluster.describe(), kind.kind, kind.api_version());
            let found = patiently(|| cluster.in_time(&what, pinned_kind(client, kind))).await;
            let (resource, capabilities) = found
                .map_err(|error| error.with_help("is what defines this kind installed in the cluster?"))?;
            let namespace = match capabilities.scope {
                Scope::Cluster => None,
                Scope::Namespaced => Some(step.namespace_of(&wanted)?),
            };
            let api = match &namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            objects.push(Known { wanted, namespace, api });
        }
        Ok(Self { step, cx, cluster, objects, sha256 })
    }

    /// Which files they are, and what is in them: what a plan binds.
    pub(super) fn facts(&self) -> Facts {
        let files = self.step.files.0.iter().zip(&self.sha256).enumerate();
        let fact = |(at, (path, sha256)): (usize, (&PathBuf, &String))| {
            let name = format!("file {} {}", at + 1, path.display());
            (self.cx.redactor.text(&name), format!("sha256 {sha256}"))
        };
        files.map(fact).collect()
    }

    /// Of kind drift when the run was started with a plan that saw other files. A plan that could not ask the cluster yet binds none.
    pub(super) fn as_reviewed(&self) -> Result<(), StepError> {
        let reviewed = self.cx.history.plan.reviewed.as_ref();
        let planned = reviewed.and_then(|reviewed| Some((reviewed, reviewed.binds.get(&self.cx.step)?)));
        planned.map_or(Ok(()), |(reviewed, planned)| as_reviewed(reviewed, planned, &self.facts(), "applied"))
    }

    /// What an apply would do to each object, told by the server.
    pub(super) async fn foreseen(&self) -> Result<Vec<Object>, StepError> {
        let mut all = Vec::with_capacity(self.objects.len());
        for known in &self.objects {
            let what = self.what("looking at", known);
            let present =
                patiently(|| self.cluster.in_time(&what, known.api.get_opt(&known.wanted.name))).await?;
            let what = self.what("trying to apply", known);
            let applied = patiently(|| self.cluster.in_time(&what, self.patched(known, true))).await?;
            let applied = plain(&applied)?;
            let (action, fields) = match present {
                None => (Action::Create, Vec::new()),
                Some(present) => {
                    let mut fields = BTreeSet::new();
                    differ(&plain(&present)?, &applied, &mut String::new(), &mut fields);
                    let action = if fields.is_empty() { Action::Keep } else { Action::Change };
                    (action, fields.into_iter().take(FIELDS).collect())
                }
            };
            all.push(Object {
                kind: known.wanted.kind.kind.clone(),
                namespace: known.namespace.clone(),
                name: known.wanted.name.clone(),
                action,
                fields,
            });
        }
        Ok(all)
    }

    /// Applies the object at this place.
    pub(super) async fn apply(&self, at: usize, object: &Object) -> Result<(), StepError> {
        let Some(known) = self.objects.get(at) else {
            return Err(StepError::invalid(format!("there is no {}", object.words())));
        };
        let what = self.what("applying", known);
        // Applied twice it is the same.
        let applied = patiently(|| self.cluster.in_time(&what, self.patched(known, false)));
        crash::around("kubernetes-apply", applied).await.map(drop)
    }

    async fn patched(&self, known: &Known, dry_run: bool) -> kube::Result<DynamicObject> {
        let parameters = PatchParams {
            dry_run,
            force: self.step.force,
            field_manager: Some(self.step.field_manager.clone()),
            ..PatchParams::default()
        };
        known.api.patch(&known.wanted.name, &parameters, &Patch::Apply(&known.wanted.object)).await
    }

    /// Fails unless nothing would change.
    pub(super) fn same(&self, objects: &[Object]) -> Result<(), StepError> {
        let wrong = objects.iter().filter_map(|object| match object.action {
            Action::Keep => None,
            Action::Create => Some(format!("there is no {}", object.words())),
            Action::Change => Some(format!("{} is another at {}", object.words(), object.fields.join(", "))),
        });
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let message =
            format!("{} is not as the manifests say: {}", self.cluster.describe(), wrong.join("; "));
        Err(StepError::gate(message)
            .with_help("something else changes it, or it was never applied: look at it, then resume"))
    }

    pub(super) fn outputs(self, objects: Vec<Object>) -> Outputs {
        let count = |action| objects.iter().filter(|object| object.action == action).count() as u64;
        Outputs {
            mode: self.step.mode,
            cluster: self.cluster.describe(),
            created: count(Action::Create),
            changed: count(Action::Change),
            unchanged: count(Action::Keep),
            sha256: self.sha256,
            objects,
        }
    }

    fn what(&self, doing: &str, known: &Known) -> String {
        let namespace =
            known.namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
        let (kind, name) = (&known.wanted.kind.kind, &known.wanted.name);
        format!("{doing} {kind} {namespace}{name} in {}", self.cluster.describe())
    }
}

impl KubernetesApply {
    /// The namespace of an object that is in one.
    fn namespace_of(&self, wanted: &Wanted) -> Result<String, StepError> {
        let (kind, name) = (&wanted.kind.kind, &wanted.name);
        match (&wanted.namespace, &self.namespace) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(StepError::invalid(format!(
                "{kind} {name} is of the namespace {theirs}, and `namespace` is {ours}"
            ))),
            (Some(namespace), _) | (None, Some(namespace)) => Ok(namespace.clone()),
            (None, None) => Err(StepError::invalid(format!(
                "{kind} {name} names no namespace, and `namespace` is missing"
            ))),
        }
    }
}

/// An object as people want it, without what the server keeps beside.
fn plain(object: &DynamicObject) -> Result<Value, StepError> {
    let mut value = serde_json::to_value(object)
        .map_err(|error| StepError::refused("an object of the cluster is no JSON").with_source(&error))?;
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in KEPT {
            metadata.remove(name);
        }
    }
    Ok(value)
}

/// Collects the pointers to what is in one and not so in the other.
fn differ(a: &Value, b: &Value, at: &mut String, found: &mut BTreeSet<String>) {
    if a == b {
        return;
    }
    let below = |name: &str, a: &Value, b: &Value, at: &mut String, found: &mut BTreeSet<String>| {
        let length = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        differ(a, b, at, found);
        at.truncate(length);
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let of = |map: &Map<String, Value>, name: &str| map.get(name).cloned().unwrap_or_default();
            for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                below(name, &of(a, name), &of(b, name), at, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                below(&index.to_string(), a, b, at, found);
            }
        }
        _ => {
            found.insert(at.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_told_by_where_they_are() {
        let a = json!({ "spec": { "a": 1, "b/c": [1, 2], "d": [1], "gone": 1 } });
        let b = json!({ "spec": { "a": 1, "b/c": [1, 3], "d": [1, 2], "new": null } });
        let mut found = BTreeSet::new();
        differ(&a, &b, &mut String::new(), &mut found);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["/spec/b~1c/1", "/spec/d", "/spec/gone"]);
    }
}
