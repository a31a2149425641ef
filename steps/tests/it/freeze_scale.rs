//! `freeze` by scaling a workload, against a real API server; what a controller would do is done by the test.

mod meddler;

use std::sync::Arc;

use runbook_engine::drive::Purpose;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::plan::PlannedStep;
use runbook_engine::state::{RunState, RunStatus, StepStatus};
use runbook_engine::store::Store;
use runbook_sandbox::kubernetes::{ADMIN, KubernetesServer, NOBODY};
use runbook_sandbox::workload::Workload;
use serde_json::{Value, json};

use self::meddler::Meddler;
use crate::driven::{Driven, error, outputs, step};

/// A cluster, and a run on it.
struct Bench {
    server: Arc<KubernetesServer>,
    driven: Driven,
}

impl Bench {
    fn new(server: &Arc<KubernetesServer>, token: &str) -> Self {
        let connection = json!({
            "type": "kubernetes", "server": server.url(), "token": token, "ca_file": server.authorities(),
        });
        Self::by(server, &connection)
    }

    fn by(server: &Arc<KubernetesServer>, connection: &Value) -> Self {
        let driven = Driven::new(&json!({ "cluster": connection }), &json!({}));
        Self { server: Arc::clone(server), driven }
    }

    async fn workload(&self, kind: &str, name: &str, replicas: u32) -> Workload {
        Workload::create(&self.server, kind, "chat", name, replicas).await.unwrap()
    }

    /// A wait for the file `go` between the freeze and its end.
    fn held(&self, freeze: PlannedStep) -> Vec<PlannedStep> {
        let folder = self.driven.folder.path().display();
        let wait =
            format!("cd {folder} && touch held && while test -e $PWD && ! test -e go; do sleep 0.05; done");
        vec![freeze, step("hold", "command", json!({ "argv": ["sh", "-c", wait] })), unfreeze()]
    }

    /// Waits until it is frozen.
    async fn holds(&self) {
        crate::driven::until(|| self.driven.path("held").exists()).await;
    }

    fn go(&self) {
        std::fs::write(self.driven.path("go"), "").unwrap();
    }

    /// Nobody holds anything.
    async fn free(&self) {
        assert_eq!(self.driven.store.obligations().await.unwrap(), []);
    }

    /// A freeze that is refused before anything is recorded.
    async fn refused(&self, run: &str, freeze: PlannedStep) -> StepError {
        let state = self.driven.run(run, vec![freeze]).await;
        assert!(state.obligations.is_empty(), "{:?}", state.obligations);
        error(&state, "freeze").clone()
    }
}

fn freeze(kind: &str, name: &str, replicas: i32) -> PlannedStep {
    let scale = json!({ "connection": "cluster", "kind": kind, "namespace": "chat", "name": name, "replicas": replicas });
    step("freeze", "freeze", json!({ "kubernetes": scale, "settle": "20s" }))
}

fn unfreeze() -> PlannedStep {
    step("unfreeze", "unfreeze", json!({ "freeze": "freeze" }))
}

fn status(state: &RunState, id: &str) -> StepStatus {
    state.step(id).unwrap().status
}

#[tokio::test]
async fn a_workload_is_scaled_down_and_back_by_the_server_itself() {
    let Some(server) = KubernetesServer::start().await.unwrap() else {
        eprintln!("LEFT OUT: there is no kube-apiserver; tests/kubernetes builds it");
        return;
    };
    let server = Arc::new(server);
    there_and_back(&server).await;
    only_a_part(&server).await;
    without_a_controller(&server).await;
    pods_that_come_back(&server).await;
    somebody_else(&server).await;
    another_of_the_same_name(&server).await;
    between_look_and_change(&server).await;
    refusals(&server).await;
    rights(&server).await;
}

async fn there_and_back(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, ADMIN);
    let gateway = bench.workload("Deployment", "gateway", 3).await;
    gateway.pod("gateway-ending").await.unwrap();
    let run = bench.driven.run("r", bench.held(freeze("Deployment", "gateway", 0)));
    let (state, ()) = tokio::join!(run, async {
        gateway.wanted(0).await.unwrap();
        // The controller counts a pod that is being ended no more, and it may still be writing.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        let events = serde_json::to_string(&bench.driven.store.events("r", 0).await.unwrap()).unwrap();
        assert!(events.contains("changing") && !events.contains("applied"), "{events}");
        gateway.end("gateway-ending").await.unwrap();
        bench.go();
    });
    let out = outputs(&state, "freeze");
    assert_eq!(
        (&out["original"], &out["replacement"], &out["proven"]),
        (&json!("3"), &json!(0), &json!(true))
    );
    assert!(out["target"].as_str().unwrap().starts_with("kubernetes:Deployment chat/gateway, uid "), "{out}");
    let out = outputs(&state, "unfreeze");
    assert_eq!((&out["restored"], &out["how"]), (&json!("3"), &json!("restored")));
    assert_eq!(gateway.replicas().await.unwrap(), 3);
    bench.free().await;
}

async fn only_a_part(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, ADMIN);
    let db = bench.workload("StatefulSet", "db", 2).await;
    bench.go();
    let state = bench.driven.run("r", bench.held(freeze("StatefulSet", "db", 1))).await;
    assert_eq!(outputs(&state, "freeze")["replacement"], 1);
    assert_eq!(
        (outputs(&state, "unfreeze")["restored"].clone(), db.replicas().await.unwrap()),
        (json!("2"), 2)
    );
}

/// What nobody acts on is not frozen, whatever number stands there.
async fn without_a_controller(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, ADMIN);
    let idle = bench.workload("Deployment", "idle", 3).await;
    idle.works(false);
    let mut freeze = freeze("Deployment", "idle", 0);
    freeze.with["settle"] = json!("1s");
    let state = bench.driven.run("r", vec![freeze, unfreeze()]).await;
    let error = error(&state, "freeze");
    assert_eq!(error.kind, ErrorKind::Transient);
    assert!(error.message.contains("its controller has not seen yet that 0 replicas are wanted"), "{error}");
    assert_eq!((state.status, status(&state, "unfreeze")), (RunStatus::Failed, StepStatus::Pending));
    assert_eq!(idle.replicas().await.unwrap(), 0);
    idle.works(true);
    let state = bench.driven.ended("r", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!((state.status, idle.replicas().await.unwrap()), (RunStatus::Cancelled, 3));
    bench.free().await;
}

/// Nothing is destroyed while a pod is there, whatever number stands in the specification.
async fn pods_that_come_back(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, ADMIN);
    let store = bench.workload("Deployment", "store", 3).await;
    let mut freeze = freeze("Deployment", "store", 0);
    freeze.with["settle"] = json!("2s");
    let mut steps = bench.held(freeze);
    let wiped = bench.driven.path("wiped");
    let wipe = json!({ "argv": ["touch", wiped], "effect": { "class": "destroy", "repeat": "repeatable" } });
    steps.insert(2, step("wipe", "command", wipe));
    let (state, ()) = tokio::join!(bench.driven.run("r", steps), async {
        bench.holds().await;
        store.pod("store-by-hand").await.unwrap();
        bench.go();
    });
    let events = serde_json::to_string(&bench.driven.store.events("r", 0).await.unwrap()).unwrap();
    assert!(events.contains("pods have not ended yet, 1 of them: store-by-hand"), "{events}");
    assert_eq!((state.status, wiped.exists()), (RunStatus::Failed, false));
    assert_eq!(store.replicas().await.unwrap(), 3, "what is not effective is lifted");
    bench.free().await;
}

async fn somebody_else(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, ADMIN);
    let shared = bench.workload("Deployment", "shared", 3).await;
    let run = bench.driven.run("r", bench.held(freeze("Deployment", "shared", 0)));
    let (state, ()) = tokio::join!(run, async {
        bench.holds().await;
        shared.scale(5).await.unwrap();
        bench.go();
    });
    let error = error(&state, "unfreeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.contains("to 5") && error.message.contains("NOT back at 3"), "{error}");
    assert_eq!(shared.replicas().await.unwrap(), 5);
}

async fn another_of_the_same_name(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, ADMIN);
    let first = bench.workload("Deployment", "again", 3).await;
    let run = bench.driven.run("r", bench.held(freeze("Deployment", "again", 0)));
    let (state, second) = tokio::join!(run, async {
        bench.holds().await;
        server.call("DELETE", &first.path(), None).await.unwrap();
        let second = bench.workload("Deployment", "again", 0).await;
        bench.go();
        second
    });
    let error = error(&state, "unfreeze");
    assert!(error.message.contains("is another one of this name"), "{error}");
    assert_eq!(second.replicas().await.unwrap(), 0);
}

/// A change between the look and the write is noticed, and only one of the number is somebody else's.
async fn between_look_and_change(server: &Arc<KubernetesServer>) {
    let meddler = Meddler::start(server).await;
    let connection = json!({ "type": "kubernetes", "server": meddler.url });
    let bench = Bench::by(server, &connection);
    let busy = bench.workload("Deployment", "busy", 3).await;
    bench.go();
    meddler.before_the_next_change(&json!({ "metadata": { "annotations": { "seen": "yes" } } }));
    let state = bench.driven.run("note", bench.held(freeze("Deployment", "busy", 0))).await;
    assert_eq!(outputs(&state, "unfreeze")["restored"], "3");
    assert_eq!(busy.object().await.unwrap()["metadata"]["annotations"]["seen"], "yes");
    assert_eq!(meddler.left(), 0);

    meddler.before_the_next_change(&json!({ "spec": { "replicas": 5 } }));
    let state = bench.driven.run("number", bench.held(freeze("Deployment", "busy", 0))).await;
    let error = error(&state, "freeze");
    assert_eq!(error.kind, ErrorKind::Gate);
    assert!(error.message.ends_with("was changed by somebody else just now to 5"), "{error}");
    // Nothing was changed, so there is nothing to put back.
    bench.driven.ended("number", Purpose::Cancel("ada".to_owned())).await;
    assert_eq!((busy.replicas().await.unwrap(), meddler.left()), (5, 0));
    bench.free().await;
}

async fn refusals(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, ADMIN);
    let told = bench.refused("absent", freeze("Deployment", "absent", 0)).await;
    assert_eq!(told.kind, ErrorKind::Refused);
    assert!(told.message.contains("nothing was changed") && told.message.contains("status 404"), "{told}");

    let stopped = bench.workload("Deployment", "stopped", 0).await;
    let told = bench.refused("stopped", freeze("Deployment", "stopped", 0)).await;
    assert!(told.message.ends_with("the replicas of Deployment chat/stopped is already 0"), "{told}");
    let told = bench.refused("more", freeze("Deployment", "stopped", 2)).await;
    assert_eq!(told.kind, ErrorKind::Invalid);
    assert!(told.message.contains("2 would be more, and no freeze"), "{told}");
    assert_eq!(stopped.replicas().await.unwrap(), 0);

    // An autoscaler of another workload is no matter, one of this one is.
    let scaled = bench.workload("Deployment", "scaled", 3).await;
    for (name, of) in [("other", "stopped"), ("ours", "scaled")] {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": of });
        let body =
            json!({ "metadata": { "name": name }, "spec": { "maxReplicas": 9, "scaleTargetRef": target } });
        let path = "/apis/autoscaling/v1/namespaces/chat/horizontalpodautoscalers";
        server.call("POST", path, Some(&body)).await.unwrap();
        if name == "other" {
            bench.go();
            let state = bench.driven.run(name, bench.held(freeze("Deployment", "scaled", 0))).await;
            assert_eq!(state.status, RunStatus::Succeeded, "{state:?}");
        }
    }
    let told = bench.refused("ours", freeze("Deployment", "scaled", 0)).await;
    assert_eq!(told.kind, ErrorKind::Gate);
    assert!(
        told.message.starts_with("the HorizontalPodAutoscaler chat/ours sets the number of pods"),
        "{told}"
    );
    assert_eq!(scaled.replicas().await.unwrap(), 3);
}

/// What may not be done shows before anything is recorded, each right by itself.
async fn rights(server: &Arc<KubernetesServer>) {
    let bench = Bench::new(server, NOBODY);
    let guarded = bench.workload("Deployment", "guarded", 3).await;
    let subjects = json!([{ "kind": "User", "name": "nobody", "apiGroup": "rbac.authorization.k8s.io" }]);
    let role = json!({ "kind": "Role", "name": "freezer", "apiGroup": "rbac.authorization.k8s.io" });
    let body = json!({ "metadata": { "name": "freezer" }, "subjects": subjects, "roleRef": role });
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/chat";
    server
        .call("POST", &format!("{rbac}/roles"), Some(&json!({ "metadata": { "name": "freezer" } })))
        .await
        .unwrap();
    server.call("POST", &format!("{rbac}/rolebindings"), Some(&body)).await.unwrap();
    let mut rules = Vec::new();
    for (number, (group, resource, verb, told)) in [
        ("apps", "deployments/scale", "get", "for the scale of Deployment chat/guarded"),
        ("apps", "deployments", "get", "for Deployment chat/guarded"),
        (
            "autoscaling",
            "horizontalpodautoscalers",
            "list",
            "it is not known whether one would undo the freeze",
        ),
        ("", "pods", "list", "for the pods of Deployment chat/guarded"),
        ("apps", "deployments/scale", "update", "trying to scale Deployment chat/guarded"),
    ]
    .into_iter()
    .enumerate()
    {
        let error = bench.refused(&format!("r{number}"), freeze("Deployment", "guarded", 0)).await;
        assert!(error.message.contains(told) && error.message.contains("status 403"), "{error}");
        assert!(error.help.as_ref().unwrap().contains("`get` and `update`"), "{error:?}");
        rules.push(json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }));
        let body = json!({ "rules": rules });
        server.call("PATCH", &format!("{rbac}/roles/freezer"), Some(&body)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    bench.go();
    let state = bench.driven.run("all", bench.held(freeze("Deployment", "guarded", 0))).await;
    assert_eq!(outputs(&state, "unfreeze")["restored"], "3");
    assert_eq!(guarded.replicas().await.unwrap(), 3);
}
