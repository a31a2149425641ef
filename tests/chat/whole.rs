//! From an empty bucket to production.

use std::fs;

use runbook_sandbox::kubernetes::KubernetesServer;
use serde_json::json;

use crate::backend::beside;
use crate::{Bench, run_in};

#[tokio::test]
async fn in_a_sandbox_the_rule_is_set_beside_those_of_others_and_an_upload_comes_back() {
    let bench = Bench::start().await;
    let site = bench.site("sandbox").await;
    site.set_rules(&[("logs/", 7), ("chat-attachments/sandbox/", 60), ("chat-attachments/sand", 90)]).await;
    let before = site.rules().await;

    let said = bench.exec(&site, 5, &[]).await;
    assert!(said.contains("EXPIRE ATTACHMENTS"), "{said}");
    let required = "Required of what gets into the branch: CI / surreal-release-gates (main of gotong/royong";
    assert!(said.contains(required), "{said}");
    assert_eq!(site.rules().await, before, "nothing is changed before the answer");
    bench.expect("ada", 0, &["answer", &run_in(&said), crate::PHRASE]).await;
    let ours = |prefix: &str, days| (prefix.to_owned(), days);
    let after = [ours("chat-attachments/sand", 90), ours("chat-attachments/sandbox/", 45), ours("logs/", 7)];
    assert_eq!(site.rules().await, after);
    let keys = site.keys().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("chat-attachments/sandbox/")), "{keys:?}");
    let (_, report) = bench.report("sandbox");
    assert_eq!((&report["verdict"], &report["inputs"]["environment"]), (&json!("PASS"), &json!("sandbox")));
    assert!(!report.to_string().contains("X-Amz-") && !report.to_string().contains("sig="), "{report:#}");
    assert_eq!(bench.called(), "", "no recipe is needed here");

    // Again there is nothing to set, and nobody is asked.
    let app = format!("app_dir={}", bench.path("app").display());
    bench.exec(&site, 0, &[&app]).await;
    assert_eq!(site.rules().await, after);
    assert_eq!(site.keys().await.len(), 4);
    // With the application at hand its local gates are part of it, and the rollout is not.
    let called = bench.called();
    assert!(
        called.contains("release-gates-surreal") && called.contains("chat-attachment-alerts-verify"),
        "{called}"
    );
    assert!(!called.contains("hot-path-rollout"), "{called}");
    bench.recipes("hold");
    let said = bench.exec(&site, 4, &[&app]).await;
    assert!(said.contains("release-gates-surreal-latest.md: it says FAIL"), "{said}");
}

/// The reports that staging and production leave of the application's own tools, by what stands before `-latest`.
const REPORTS: [&str; 5] = [
    "hot-path-rollout",
    "chat-attachment-alerts-apply",
    "chat-attachment-lifecycle-policy",
    "chat-attachment-lifecycle-verify",
    "branch-protection-surreal-release-gates",
];

#[tokio::test]
async fn production_comes_after_staging_has_passed_and_somebody_else_has_approved() {
    let Some((bench, cluster)) = Bench::with_cluster().await else { return };
    let (staging, production) = (bench.site("staging").await, bench.site("production").await);
    bench.confirmed(&staging, 0, &[]).await;
    assert_eq!(staging.rules().await, [("chat-attachments/staging/".to_owned(), 45)]);
    let (proof, report) = bench.report("staging");
    assert_eq!((&report["verdict"], &report["inputs"]["environment"]), (&json!("PASS"), &json!("staging")));
    assert_eq!(report["notes"]["Debt CHAT-API-004"], json!("stays open"));
    let kept = bench.evidence();
    for report in REPORTS {
        let begin = format!("{report}-staging-");
        let copies = kept.iter().filter(|name| name.starts_with(&begin) && name.ends_with("Z.md"));
        assert_eq!(copies.count(), 1, "{report}: {kept:?}");
    }
    assert!(cluster.alert("staging").await.as_str().unwrap().ends_with("> 0.75"));
    assert!(cluster.alert("production").await.is_null(), "each environment has its own");
    let called = bench.called();
    let wanted = "hot-path-rollout monitoring-staging http://prometheus.staging.example 60s false true true true true \
                  staging http://s3.staging.example evidence-staging 45";
    assert!(called.contains(wanted), "{called}");
    // The kubeconfig says production; the recipes see the context of the inputs, by a file that is gone afterwards.
    let seen = called.lines().find(|line| line.starts_with("hot-path-rollout")).unwrap();
    assert!(seen.ends_with("current-context=\"staging\""), "{called}");
    let by_kubectl = called.lines().filter(|line| line.starts_with("kubectl: ")).collect::<Vec<_>>();
    assert!(by_kubectl.iter().all(|line| *line == "kubectl: staging of production staging "), "{called}");
    let first = called.lines().find_map(|line| line.strip_prefix("first: ")).unwrap();
    assert!(!first.is_empty() && !fs::exists(first).unwrap(), "{first} is left");

    let proof = format!("staging_report={}", proof.display());
    let said = bench.exec(&production, 5, &[&proof, "approvers=bob"]).await;
    assert!(said.contains("0 objects, 0 bytes: they go away within a day or two"), "{said}");
    assert!(said.contains("nothing: the bucket keeps no versions"), "{said}");
    let run = run_in(&said);
    let said = bench.expect("ada", 5, &["answer", &run, crate::PHRASE]).await;
    assert!(said.contains("release manager (bob)"), "{said}");
    let shown = bench.expect("ada", 0, &["show", &run, "--json"]).await;
    assert!(shown.contains("1 to be made, 0 to be changed in production"), "{shown}");
    assert!(production.rules().await.is_empty(), "nothing is changed before the approval");
    assert!(cluster.alert("production").await.is_null(), "nothing is changed before the approval");
    for user in ["ada", "eve"] {
        bench.expect(user, 2, &["answer", &run, "approve"]).await;
    }
    bench.expect("bob", 0, &["answer", &run, "approve: staging looks well"]).await;
    assert_eq!(production.rules().await, [("chat-attachments/production/".to_owned(), 45)]);
    assert_eq!(cluster.alert("production").await, cluster.alert("staging").await);
    let (_, report) = bench.report("production");
    assert_eq!(
        (&report["verdict"], &report["definition"]),
        (&json!("PASS"), &bench.report("staging").1["definition"])
    );
    assert_eq!(
        report["notes"]["Debt CHAT-API-004"],
        json!("can be closed: staging and production have passed")
    );
    let kept = bench.evidence();
    for report in REPORTS {
        assert!(
            kept.iter().any(|name| name.starts_with(&format!("{report}-production-"))),
            "{report}: {kept:?}"
        );
    }
    let copy =
        kept.iter().find(|name| name.contains("proof-of-staging")).unwrap_or_else(|| panic!("{kept:?}"));
    let copied = fs::read(bench.path("evidence").join(copy)).unwrap();
    assert_eq!(copied, fs::read(proof.trim_start_matches("staging_report=")).unwrap());

    // Denied, it stops before anything.
    production.set_rules(&[("chat-attachments/production/", 60)]).await;
    let said = bench.exec(&production, 5, &[&proof]).await;
    let run = run_in(&said);
    bench.expect("ada", 5, &["answer", &run, crate::PHRASE]).await;
    let said = bench.expect("bob", 4, &["answer", &run, "deny: not on a Friday"]).await;
    assert!(said.contains("not on a Friday"), "{said}");
    assert_eq!(bench.report("production").1["notes"]["Debt CHAT-API-004"], json!("stays open"));
    assert_eq!(production.rules().await, [("chat-attachments/production/".to_owned(), 60)]);
}

#[test]
fn beside_the_sandbox_a_reviewed_plan_is_applied_as_it_is() {
    let script = "set -e
        runbook plan chat-attachment-lifecycle --inputs \"$RUNBOOK_INPUTS\" -o \"$SANDBOX_DIR/plan.json\"
        test ! -e \"$SANDBOX_DIR/evidence\"
        runbook exec --plan \"$SANDBOX_DIR/plan.json\" --confirm 'confirm=EXPIRE ATTACHMENTS'
        grep -l '\"verdict\": \"PASS\"' \"$SANDBOX_DIR\"/evidence/*.json";
    let (code, said) = beside(&[], script);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("expire objects below chat-attachments/sandbox/") && said.contains("asks 1 question"),
        "{said}"
    );
    let (code, said) = beside(&["--unprotected"], script);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("main of gotong/royong") && said.contains("is not protected"), "{said}");
}

#[test]
fn beside_the_sandbox_with_its_environments_a_person_gets_to_production() {
    let script = r#"set -e
        # INPUTS ARGUMENTS...: begins it as ada and confirms the rule, which has to end with the code in $code.
        go() {
            inputs=$1; shift
            said=$(USER=ada runbook exec chat-attachment-lifecycle --inputs "$inputs" "$@" 2>&1 </dev/null) || test $? = 5
            run=$(echo "$said" | grep -o 'runbook answer [^ ]*' | head -n 1 | cut -d' ' -f3)
            last=0
            USER=ada runbook answer "$run" 'EXPIRE ATTACHMENTS' || last=$?
            test $last = $code || { echo "$said"; echo "exit code $last, and not $code"; exit 1; }
        }
        proof() { ls -t "$EVIDENCE_DIR"/chat-attachment-lifecycle-"$1"-*-????.json | head -n 1; }
        code=0
        go "$RUNBOOK_INPUTS"
        go "$STAGING_INPUTS" -i preflight_report="$(proof sandbox)"
        code=5
        go "$PRODUCTION_INPUTS" -i staging_report="$(proof staging)"
        USER=ada runbook answer "$run" approve && exit 1
        USER=bob runbook answer "$run" approve
        for environment in sandbox staging production; do
            grep -q '"verdict": "PASS"' "$(proof $environment)"
            grep -q "$(runbook show "$run" --json | grep -o '"definition": *"[^"]*"' | head -n 1)" "$(proof $environment)"
        done
        grep -q 'can be closed' "$(proof production)"
        sandbox restart chat-api-staging
        sandbox status chat-api-production"#;
    if !KubernetesServer::is_built() {
        let (code, said) = beside(&["--environments"], "exit 0");
        assert_ne!(code, Some(0));
        assert!(said.contains("tests/kubernetes builds it"), "{said}");
        return;
    }
    let (code, said) = beside(&["--environments"], script);
    assert_eq!(code, Some(0), "{said}");
}
