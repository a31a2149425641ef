//! A workload of a cluster that is frozen by scaling it: put back whatever happened to the process, and bound by a plan.

use std::sync::Arc;

use runbook_sandbox::kubernetes::KubernetesServer;
use runbook_sandbox::workload::Workload;
use tokio::runtime::Runtime;

use crate::place::{Place, UNTIL_GO, asks, reads};

/// A cluster with a workload of 3 pods, and a runbook that freezes it until there is a file `go`.
struct Bench {
    runtime: Runtime,
    gateway: Workload,
    place: Place,
}

impl Bench {
    /// With or without a question before the freeze.
    fn start(asking: bool) -> Option<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let Some(server) = runtime.block_on(KubernetesServer::start()).unwrap() else {
            eprintln!("LEFT OUT: there is no kube-apiserver; tests/kubernetes builds it");
            return None;
        };
        let server = Arc::new(server);
        let gateway =
            runtime.block_on(Workload::create(&server, "Deployment", "chat", "gateway", 3)).unwrap();
        let place = Place::new();
        place.write("kube config", &server.kubeconfig(&["prod"]));
        let ask = if asking { asks("sure", "YES") } else { String::new() };
        let nap = reads("nap", UNTIL_GO);
        place.runbook(
            "hold",
            &format!(
                "inputs:\n  context: {{ type: string, default: prod }}\n\
                 connections:\n  cluster: {{ type: kubernetes, kubeconfig: \"{}\", context: \"${{{{ inputs.context }}}}\" }}\n\
                 steps:\n{ask}  - id: freeze\n    uses: freeze\n    with:\n      \
                 kubernetes: {{ connection: cluster, kind: Deployment, namespace: chat, name: gateway }}\n{nap}  - id: thaw\n    \
                 uses: unfreeze\n    with: {{ freeze: freeze }}\n",
                place.path("kube config").display()
            ),
        );
        Some(Self { runtime, gateway, place })
    }

    fn replicas(&self) -> i64 {
        self.runtime.block_on(self.gateway.replicas()).unwrap()
    }

    fn wanted(&self, replicas: i64) {
        self.runtime.block_on(self.gateway.wanted(replicas)).unwrap();
    }

    /// Kills a run once it has frozen, or while it freezes; its id.
    fn killed(&self, frozen: bool) -> String {
        self.gateway.works(frozen);
        let started = self.place.start(&["exec", "hold.yaml"]);
        self.wanted(0);
        if frozen {
            self.place.wait_for("nap", "running");
        }
        started.kill();
        self.gateway.works(true);
        self.place.newest()
    }

    fn free(&self, run: &str) {
        self.wanted(3);
        let ran = self.place.expect(0, &["runs"]);
        assert!(!ran.err.contains("HELD"), "{run}: {}", ran.err);
    }
}

#[test]
fn after_a_kill_the_pods_are_as_many_as_before() {
    let Some(bench) = Bench::start(false) else { return };
    let place = &bench.place;
    for frozen in [false, true] {
        // Given up, and gone on with.
        let run = bench.killed(frozen);
        assert_eq!(bench.replicas(), 0);
        let ran = place.expect(0, &["runs"]);
        assert!(
            ran.err.contains("HELD") && ran.err.contains("the replicas of Deployment chat/gateway"),
            "{}",
            ran.err
        );
        let ran = place.expect(6, &["cancel", &run]);
        assert!(ran.err.contains("back at its original value"), "{}", ran.err);
        bench.free(&run);

        let run = bench.killed(frozen);
        place.write("go", "");
        place.expect(0, &["resume", &run]);
        std::fs::remove_file(place.path("go")).unwrap();
        bench.free(&run);
        let steps = place.json(&["show", &run])["steps"].clone();
        let of = |id: &str| {
            steps.as_array().unwrap().iter().find(|one| one["id"] == id).unwrap()["outputs"].clone()
        };
        assert_eq!((&of("freeze")["original"], &of("thaw")["restored"]), (&"3".into(), &"3".into()));
    }

    // Somebody else's number is left alone, and what to type is said.
    let run = bench.killed(true);
    bench.runtime.block_on(bench.gateway.scale(5)).unwrap();
    let ran = place.expect(4, &["cancel", &run]);
    let line = format!(
        "this puts it back:  kubectl --kubeconfig '{}' --context prod -n chat scale deployment/gateway --replicas=3\n",
        place.path("kube config").display()
    );
    assert!(ran.err.contains("changed by somebody else to 5") && ran.err.contains(&line), "{}", ran.err);
    assert_eq!(bench.replicas(), 5);
}

#[test]
fn a_plan_is_of_the_workload_and_the_number_that_it_saw() {
    let Some(bench) = Bench::start(true) else { return };
    let place = &bench.place;
    place.write("go", "");
    for (now, code) in [(3, 0), (4, 9)] {
        let said = place.expect(0, &["plan", "hold.yaml", "-o", "plan.json"]);
        let said = format!("{}{}", said.out, said.err);
        assert!(said.contains("change the replicas of Deployment chat/gateway from 3 to 0"), "{said}");
        assert_eq!(bench.replicas(), 3, "a plan changes nothing");
        place.expect(5, &["exec", "--plan", "plan.json"]);
        bench.runtime.block_on(bench.gateway.scale(now)).unwrap();
        let ran = place.expect(code, &["answer", &place.newest(), "YES"]);
        assert_eq!(ran.err.contains("value: 3 then, and 4 now"), code == 9, "{}", ran.err);
        assert_eq!(bench.replicas(), i64::from(now));
    }
}
