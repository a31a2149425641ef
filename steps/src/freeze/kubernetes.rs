//! Freezing by the number of pods of a Kubernetes workload.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::autoscaling::v1::{HorizontalPodAutoscaler, Scale};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use runbook_engine::crash;
use runbook_engine::error::{ErrorKind, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::way::{Side, Way};
use crate::connections::kubernetes::Kubernetes;
use crate::kind::Context;
use crate::retry::patiently;

/// How often a change is tried that something else came before, such as the workload's own controller with a status.
const TRIES: usize = 10;

/// How many pods are named that are still there.
const NAMED: usize = 3;

/// What is said when something that has to be looked at may not be.
const RIGHTS: &str = "the account of the connection has to `get` and `update` the workload's `scale`, `get` the workload, and `list` pods and \
                      horizontalpodautoscalers in its namespace";

/// The number of replicas of a workload, usually 0. It is set by the subresource `scale`, on the condition that nobody has changed the
/// workload since it was looked at.
///
/// It is frozen when the workload's controller has seen the number, says that as many pods are there, and no other pod of the
/// workload's selector is: one that is being ended, and may still be writing, is waited for, for as long as `settle`. It is lifted
/// when the controller says that as many pods are there as before; whether they are ready is for a `wait-for` to ask.
///
/// Refused is a workload that a HorizontalPodAutoscaler scales too, because two would set the same number, and a StatefulSet whose
/// volumes are deleted when it is scaled down. What pods hold in memory or in an `emptyDir` does not survive.
///
/// The account needs the verbs `get` and `update` for `deployments/scale` or `statefulsets/scale`, `get` for `deployments` or
/// `statefulsets` (group `apps`), and `list` for `pods` and for `horizontalpodautoscalers` (group `autoscaling`), in the namespace.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesScale {
    /// The name of a connection of type `kubernetes`.
    connection: String,
    /// What kind of workload it is.
    kind: Workload,
    /// Its namespace.
    #[schemars(length(min = 1))]
    namespace: String,
    /// Its name.
    #[schemars(length(min = 1))]
    name: String,
    /// How many pods there are while it is frozen. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    replicas: i32,
}

/// A kind of workload whose pods are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Workload {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }

    fn resource(self) -> ApiResource {
        let plural = match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("apps", "v1", self.name()), plural)
    }
}

/// What is read and recorded: which object it is, for there may be another one of its name tomorrow, and its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    uid: String,
    replicas: i32,
}

impl Recorded {
    fn of(scale: &Scale) -> Self {
        Self {
            uid: scale.metadata.uid.clone().unwrap_or_default(),
            // A number of 0 may be left out.
            replicas: scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default(),
        }
    }

    fn from(value: &Value) -> Result<Self, StepError> {
        Self::deserialize(value).map_err(|error| {
            StepError::new(ErrorKind::Bug, "the record of the original value can not be read")
                .with_source(&error)
        })
    }
}

/// One workload.
pub(super) struct Scaling {
    config: KubernetesScale,
    uid: String,
}

/// A workload as it is reached.
struct Reached {
    cluster: Arc<Kubernetes>,
    client: kube::Client,
    api: Api<DynamicObject>,
}

impl KubernetesScale {
    /// The workload that was recorded, or the one of this name.
    pub(super) async fn way(&self, original: Option<&Value>, cx: &Context) -> Result<Scaling, StepError> {
        let uid = match original {
            Some(original) => Recorded::from(original)?.uid,
            None => Recorded::of(&self.scale(cx).await?).uid,
        };
        Ok(Scaling { config: self.clone(), uid })
    }

    fn words(&self) -> String {
        format!("{} {}/{}", self.kind.name(), self.namespace, self.name)
    }

    async fn reach(&self, cx: &Context) -> Result<Reached, StepError> {
        let cluster = cx.resources.connection::<Kubernetes>(&self.connection)?;
        let client = cluster.client().await?.clone();
        let api = Api::namespaced_with(client.clone(), &self.namespace, &self.kind.resource());
        Ok(Reached { cluster, client, api })
    }

    async fn scale(&self, cx: &Context) -> Result<Scale, StepError> {
        let Reached { cluster, api, .. } = self.reach(cx).await?;
        let what = format!("asking {} for the scale of {}", cluster.describe(), self.words());
        patiently(|| cluster.in_time(&what, api.get_scale(&self.name))).await.map_err(with_rights)
    }

    async fn object(&self, cx: &Context) -> Result<DynamicObject, StepError> {
        let Reached { cluster, api, .. } = self.reach(cx).await?;
        let what = format!("asking {} for {}", cluster.describe(), self.words());
        patiently(|| cluster.in_time(&what, api.get(&self.name))).await.map_err(with_rights)
    }

    /// Fails when an autoscaler sets the same number.
    async fn alone(&self, cx: &Context) -> Result<(), StepError> {
        let Reached { cluster, client, .. } = self.reach(cx).await?;
        let all: Api<HorizontalPodAutoscaler> = Api::namespaced(client, &self.namespace);
        let what = format!(
            "asking {} for autoscalers of {}, so that it is not known whether one would undo the freeze",
            cluster.describe(),
            self.words()
        );
        let every = ListParams::default();
        let found = patiently(|| cluster.in_time(&what, all.list(&every))).await.map_err(with_rights)?;
        let ours = found.items.into_iter().find(|one| {
            let target = &one.spec.scale_target_ref;
            target.kind == self.kind.name() && target.name == self.name
        });
        let Some(other) = ours else { return Ok(()) };
        let message = format!(
            "the HorizontalPodAutoscaler {}/{} sets the number of pods of {} too, and would undo the freeze",
            self.namespace,
            other.metadata.name.unwrap_or_default(),
            self.words()
        );
        Err(StepError::gate(message).with_help(
            "nothing was changed; take the autoscaler away for the time of the run, and start again",
        ))
    }

    /// The pods of the workload's selector that have not ended, by name.
    async fn pods(&self, scale: &Scale, cx: &Context) -> Result<Vec<String>, StepError> {
        let Reached { cluster, client, .. } = self.reach(cx).await?;
        let selector = scale.status.as_ref().and_then(|status| status.selector.as_deref());
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            return Err(StepError::refused(format!("{} does not say which pods are its own", self.words())));
        };
        let all: Api<Pod> = Api::namespaced(client, &self.namespace);
        let what = format!("asking {} for the pods of {}", cluster.describe(), self.words());
        let ours = ListParams::default().labels(selector);
        let found = patiently(|| cluster.in_time(&what, all.list(&ours))).await.map_err(with_rights)?;
        let ended = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let there = found.items.into_iter().filter(|pod| !ended(pod));
        Ok(there.filter_map(|pod| pod.metadata.name).collect())
    }

    async fn replaced(&self, cx: &Context, scale: &Scale, dry_run: bool) -> Result<(), StepError> {
        let Reached { cluster, api, .. } = self.reach(cx).await?;
        let doing = if dry_run { "trying to scale" } else { "scaling" };
        let what = format!("{doing} {} in {}", self.words(), cluster.describe());
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let put = cluster.in_time(&what, api.replace_scale(&self.name, &parameters, scale));
        let put = if dry_run { put.await } else { crash::around("freeze: scale", put).await };
        put.map(drop).map_err(with_rights)
    }
}

fn with_rights(error: StepError) -> StepError {
    if error.message.contains(": status 403 ") { error.with_help(RIGHTS) } else { error }
}

/// Why a workload would lose by being scaled down.
fn loses(object: &Value) -> Option<&'static str> {
    let kept = object.pointer("/spec/persistentVolumeClaimRetentionPolicy/whenScaled");
    (kept.and_then(Value::as_str) == Some("Delete")).then_some(
        "its persistentVolumeClaimRetentionPolicy deletes the volumes of pods that it is scaled down by",
    )
}

/// What a workload's controller has still to do, as its object tells.
fn to_be_done(object: &DynamicObject) -> Option<String> {
    let number = |pointer: &str| object.data.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let (wanted, there) = (number("/spec/replicas"), number("/status/replicas"));
    if number("/status/observedGeneration") < object.metadata.generation.unwrap_or_default() {
        return Some(format!("its controller has not seen yet that {wanted} replicas are wanted"));
    }
    (there != wanted).then(|| format!("{there} pods are there, and {wanted} are wanted"))
}

impl Scaling {
    /// Sets the number, if this is what is there.
    async fn set(&self, cx: &Context, from: &Recorded, to: i32) -> Result<Result<(), String>, StepError> {
        let mut conflict = None;
        for _ in 0..TRIES {
            let mut scale = self.config.scale(cx).await?;
            let present = Recorded::of(&scale);
            if present != *from {
                return Ok(Err(self.text(&json!(present))));
            }
            scale.spec.get_or_insert_default().replicas = Some(to);
            match self.config.replaced(cx, &scale, false).await {
                Err(error) if error.kind == ErrorKind::Gate => conflict = Some(error),
                end => return end.map(Ok),
            }
        }
        let message = format!("{} is changed all the time", self.config.words());
        let error = StepError::transient(message);
        Err(match conflict {
            Some(conflict) => error.with_source(&conflict),
            None => error,
        })
    }

    fn changed(&self, present: &str) -> String {
        format!("{} was changed by somebody else just now to {present}", self.label())
    }
}

#[async_trait]
impl Way for Scaling {
    fn target(&self) -> String {
        format!("kubernetes:{}, uid {}", self.config.words(), self.uid)
    }

    fn label(&self) -> String {
        format!("the replicas of {}", self.config.words())
    }

    fn replacement(&self) -> Value {
        json!(self.config.replicas)
    }

    async fn read(&self, cx: &Context) -> Result<Value, StepError> {
        let present = Recorded::of(&self.config.scale(cx).await?);
        if present.uid != self.uid {
            let (words, uid) = (self.config.words(), &self.uid);
            let message =
                format!("{words} is another one of this name: its uid is {}, and not {uid}", present.uid);
            return Err(StepError::gate(message).with_help(
                "it is in another cluster than the one that was frozen, or was made anew since: look at the kubeconfig and its context; nothing was changed",
            ));
        }
        Ok(json!(present))
    }

    fn text(&self, present: &Value) -> String {
        match Recorded::from(present) {
            Ok(present) if present.uid == self.uid => present.replicas.to_string(),
            Ok(present) => format!("{}, of another one of this name", present.replicas),
            Err(_) => present.to_string(),
        }
    }

    fn frozen(&self, present: &Value) -> bool {
        Recorded::from(present).is_ok_and(|present| present.replicas == self.config.replicas)
    }

    fn side(&self, present: &Value, original: &Value) -> Side {
        match (Recorded::from(present), Recorded::from(original)) {
            (Ok(present), Ok(original)) if present == original => Side::Original,
            (Ok(present), Ok(original)) if present.uid == original.uid && self.frozen(&json!(present)) => {
                Side::Ours
            }
            _ => Side::Foreign,
        }
    }

    async fn possible(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        let words = self.config.words();
        let there = Recorded::from(original)?.replicas;
        if there < self.config.replicas {
            let message = format!(
                "{words} has {there} replicas: {} would be more, and no freeze",
                self.config.replicas
            );
            return Err(StepError::invalid(message));
        }
        let object = self.config.object(cx).await?;
        if let Some(why) = loses(&object.data) {
            let message = format!("{words} would lose data: {why}");
            return Err(StepError::gate(message).with_help("nothing was changed; freeze it another way"));
        }
        self.config.alone(cx).await?;
        // What is not allowed shows before anything is recorded.
        let mut scale = self.config.scale(cx).await?;
        self.config.pods(&scale, cx).await?;
        scale.spec.get_or_insert_default().replicas = Some(self.config.replicas);
        // Whether it may be done does not hang on what was read.
        scale.metadata.resource_version = None;
        self.config.replaced(cx, &scale, true).await
    }

    async fn apply(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        let end = self.set(cx, &Recorded::from(original)?, self.config.replicas).await?;
        end.map_err(|present| StepError::gate(self.changed(&present)))
    }

    async fn put_back(&self, cx: &Context, original: &Value) -> Result<(), StepError> {
        let original = Recorded::from(original)?;
        let ours = Recorded { replicas: self.config.replicas, ..original.clone() };
        let end = self.set(cx, &ours, original.replicas).await?;
        // The release looks once more.
        end.map_err(|present| StepError::transient(self.changed(&present)))
    }

    fn call_takes(&self, cx: &Context) -> Result<Option<Duration>, StepError> {
        Ok(Some(cx.resources.connection::<Kubernetes>(&self.config.connection)?.timeout()))
    }

    fn proves(&self) -> bool {
        true
    }

    async fn unsettled(&self, cx: &Context) -> Result<Option<String>, StepError> {
        let words = self.config.words();
        if let Some(what) = to_be_done(&self.config.object(cx).await?) {
            return Ok(Some(format!("{words}: {what}")));
        }
        let scale = self.config.scale(cx).await?;
        if Recorded::of(&scale).replicas != self.config.replicas {
            return Ok(None);
        }
        // One that is being ended is not counted any more by the controller, and may still be writing.
        let there = self.config.pods(&scale, cx).await?;
        if there.len() <= usize::try_from(self.config.replicas).unwrap_or_default() {
            return Ok(None);
        }
        let names =
            there[..there.len().min(NAMED)].join(", ") + if there.len() > NAMED { " …" } else { "" };
        Ok(Some(format!("{words}: pods have not ended yet, {} of them: {names}", there.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(generation: i64, spec: i64, status: Value) -> DynamicObject {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a", "generation": generation },
            "spec": { "replicas": spec }, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_number_counts_once_the_controller_has_seen_it_and_done_it() {
        let done = |generation, spec, status| to_be_done(&workload(generation, spec, status));
        assert_eq!(done(2, 0, json!({ "observedGeneration": 2 })), None);
        assert_eq!(done(2, 3, json!({ "observedGeneration": 3, "replicas": 3 })), None);
        // No pod is there because the controller has not begun.
        assert!(done(2, 0, json!({ "observedGeneration": 1 })).unwrap().contains("has not seen yet"));
        assert!(done(1, 0, json!({})).unwrap().contains("has not seen yet"));
        let told = done(2, 0, json!({ "observedGeneration": 2, "replicas": 3 })).unwrap();
        assert_eq!(told, "3 pods are there, and 0 are wanted");
    }

    #[test]
    fn a_workload_that_would_lose_its_volumes_is_told() {
        let of = |policy: Value| json!({ "spec": { "persistentVolumeClaimRetentionPolicy": policy } });
        assert!(loses(&of(json!({ "whenScaled": "Delete" }))).is_some());
        assert!(loses(&of(json!({ "whenDeleted": "Delete", "whenScaled": "Retain" }))).is_none());
        assert!(loses(&json!({ "spec": {} })).is_none());
    }

    #[test]
    fn another_one_of_the_same_name_is_somebody_elses() {
        let config = json!({ "connection": "c", "kind": "StatefulSet", "namespace": "n", "name": "a" });
        let way = Scaling { config: serde_json::from_value(config).unwrap(), uid: "1".to_owned() };
        let of = |uid: &str, replicas: i32| json!({ "uid": uid, "replicas": replicas });
        let original = of("1", 3);
        assert_eq!(way.side(&of("1", 3), &original), Side::Original);
        assert_eq!(way.side(&of("1", 0), &original), Side::Ours);
        assert_eq!(way.side(&of("1", 2), &original), Side::Foreign);
        for replicas in [0, 3] {
            assert_eq!(way.side(&of("2", replicas), &original), Side::Foreign);
            assert!(way.text(&of("2", replicas)).contains("another one"));
        }
        assert_eq!(way.label(), "the replicas of StatefulSet n/a");
    }
}
