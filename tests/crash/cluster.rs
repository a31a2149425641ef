//! Manifests applied to a cluster: planned, applied and verified by a real API server.

use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use runbook_sandbox::kubernetes::{ADMIN, KubernetesServer};
use serde_json::{Value, json};

use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// Where the API server of this process answers, and the certificates that vouch for it.
static SERVER: OnceLock<(String, PathBuf)> = OnceLock::new();
static NUMBER: AtomicU64 = AtomicU64::new(0);

struct Cluster {
    place: Place,
    /// What the objects of this world are called.
    name: String,
}

fn make() -> Box<dyn World> {
    let (url, authorities) = SERVER.get().unwrap();
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
    let text = format!(
        "secrets:\n  token: {{ env: CLUSTER_TOKEN }}\nconnections:\n  cluster: {{ type: kubernetes, server: \"{url}\", \
         token: \"${{{{ secrets.token }}}}\", ca_file: \"{}\" }}\nlock: cluster\nsteps:\n{}{}{}finally:\n  - {{ id: report, uses: report }}\n",
        authorities.display(),
        step("planned", "plan"),
        step("applied", "apply"),
        step("verified", "verify"),
    );
    place.runbook("cluster", &text);
    Box::new(Cluster { place, name })
}

impl Cluster {
    /// What the objects of this world hold, as the server tells.
    async fn objects(&self) -> Value {
        let (url, authorities) = SERVER.get().unwrap();
        let mut http = reqwest::Client::builder().no_proxy();
        for certificate in
            reqwest::Certificate::from_pem_bundle(&std::fs::read(authorities).unwrap()).unwrap()
        {
            http = http.add_root_certificate(certificate);
        }
        let get = http.build().unwrap().get(format!("{url}/api/v1/namespaces/default/configmaps"));
        let all: Value = get.bearer_auth(ADMIN).send().await.unwrap().json().await.unwrap();
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
        vec![(self.name.clone(), "WORLD".to_owned())]
    }

    /// The name of the world is in the file; what was applied already is found so after a crash.
    fn is_drawn(&self, member: &str) -> bool {
        ["sha256", "created", "unchanged", "action"].contains(&member)
    }

    fn picture(&self) -> Value {
        RUNTIME.block_on(self.objects())
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn manifests_are_applied_whatever_crashes() {
    // Started by this thread, with which it ends.
    let Some(server) = RUNTIME.block_on(KubernetesServer::start()).unwrap() else {
        eprintln!("LEFT OUT: there is no kube-apiserver; tests/kubernetes builds it");
        return;
    };
    SERVER.get_or_init(|| (server.url(), server.authorities()));
    explore(&Case { name: "cluster", recovery: Recovery::Resume, make, stride: 5, second_stride: 0 });
}
