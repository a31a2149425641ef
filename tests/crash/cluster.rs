//! Manifests applied to a cluster while a workload of it is scaled down: planned, applied and verified by a real API server.

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use runbook_sandbox::kubernetes::{ADMIN, KubernetesServer};
use runbook_sandbox::workload::Workload;
use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// The API server of this process.
static SERVER: OnceLock<Arc<KubernetesServer>> = OnceLock::new();
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// How many pods the workload of a world has.
const REPLICAS: u32 = 3;

struct Cluster {
    place: Place,
    /// What the objects of this world are called.
    name: String,
    workload: Workload,
    /// What the server knows the workload by.
    uid: String,
}

fn make() -> Box<dyn World> {
    let server = SERVER.get().unwrap();
    let name = format!("world-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let place = Place::new();
    let objects = ["limits", "alerts"].map(|what| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name}-{what} }}\ndata: {{ days: '45' }}\n"
        )
    });
    place.write("manifest.yaml", &objects.join("---\n"));
    let file = place.path("manifest.yaml");
    let step = |id: &str, mode: &str| {
        format!(
            "  - {{ id: {id}, uses: kubernetes-apply, with: {{ connection: cluster, mode: {mode}, files: \"{}\", namespace: default }} }}\n",
            file.display()
        )
    };
    let (kind, gateway) = ("Deployment", format!("{name}-gateway"));
    let frozen = format!(
        "  - {{ id: frozen, uses: freeze, with: {{ max_hold: 1h, settle: 5s, kubernetes: {{ connection: cluster, kind: {kind}, namespace: default, name: {gateway}, replicas: 0 }} }} }}\n"
    );
    let text = format!(
        "secrets:\n  token: {{ env: CLUSTER_TOKEN }}\nconnections:\n  cluster: {{ type: kubernetes, server: \"{}\", \
         token: \"${{{{ secrets.token }}}}\", ca_file: \"{}\", timeout: 5s }}\nlock: cluster\nsteps:\n{}{frozen}{}{}  - {{ id: thawed, uses: unfreeze, with: {{ freeze: frozen }} }}\n\
         finally:\n  - {{ id: report, uses: report }}\n",
        server.url(),
        server.authorities().display(),
        step("planned", "plan"),
        step("applied", "apply"),
        step("verified", "verify"),
    );
    place.runbook("cluster", &text);
    let (workload, uid) = RUNTIME.block_on(async {
        let workload = Workload::create(server, kind, "default", &gateway, REPLICAS).await.unwrap();
        let uid = workload.object().await.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
        (workload, uid)
    });
    Box::new(Cluster { place, name, workload, uid })
}

impl Cluster {
    /// What the objects of this world hold, as the server tells.
    async fn objects(&self) -> Value {
        let server = SERVER.get().unwrap();
        let all = server.call("GET", "/api/v1/namespaces/default/configmaps", None).await.unwrap();
        let begin = format!("{}-", self.name);
        let ours = all["items"].as_array().unwrap().iter().filter_map(|one| {
            let name = one["metadata"]["name"].as_str()?.strip_prefix(&begin)?;
            let managers: Vec<&Value> =
                one["metadata"]["managedFields"].as_array()?.iter().map(|one| &one["manager"]).collect();
            Some(json!({ "name": name, "data": one["data"], "managers": managers }))
        });
        ours.collect()
    }
}

impl World for Cluster {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        let own = [("CLUSTER_TOKEN".to_owned(), ADMIN.to_owned())];
        run_in(&self.place, arguments, &[variables, &own].concat())
    }

    fn state(&self) -> PathBuf {
        self.place.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "cluster.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.name.clone(), "WORLD".to_owned()), (self.uid.clone(), "UID".to_owned())]
    }

    /// The name of the world is in the file; what was applied already is found so after a crash.
    fn is_drawn(&self, member: &str) -> bool {
        ["sha256", "created", "unchanged", "action"].contains(&member)
    }

    fn picture(&self) -> Value {
        RUNTIME.block_on(self.objects())
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        let replicas = RUNTIME.block_on(self.workload.replicas()).unwrap();
        let as_before = replicas == i64::from(REPLICAS);
        (!as_before).then(|| format!("the workload has {replicas} replicas")).into_iter().collect()
    }
}

#[test]
fn manifests_are_applied_whatever_crashes() {
    // Started by this thread, with which it ends.
    let Some(server) = RUNTIME.block_on(KubernetesServer::start()).unwrap() else {
        eprintln!("LEFT OUT: there is no kube-apiserver; tests/kubernetes builds it");
        return;
    };
    SERVER.get_or_init(|| Arc::new(server));
    explore(&Case { name: "cluster", recovery: Recovery::Resume, make, stride: 12, second_stride: 0 });
}
