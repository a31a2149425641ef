//! Each trap of the procedure, set on purpose: the run stops at the right gate, and nothing is harmed.

use std::fs;

use runbook_sandbox::application::ALERTS;
use serde_json::{Value, json};

use crate::{Bench, GATE, PHRASE, run_in};

#[tokio::test]
async fn defaults_of_developers_and_placeholders_are_refused_before_anything() {
    let bench = Bench::start().await;
    let staging = bench.site("staging").await;
    for wrong in [
        "s3_endpoint=ABSENT",
        "bucket=ABSENT",
        "region=ABSENT",
        "environment=development",
        "environment=Production",
        "expire_days=0",
        "expire_days=29",
        "expire_days=91",
        "prefix=chat-attachments/",
        "prefix=/chat-attachments",
        "prometheus_url=",
        "prometheus_url=http://<staging-prometheus-host>:9090",
        "repository=<owner/repo>",
    ] {
        bench.exec(&staging, 2, &[wrong]).await;
    }
    for (wrong, told) in [
        ("s3_endpoint=http://127.0.0.1:9000", "s3_endpoint is http://127.0.0.1:9000"),
        (
            "s3_endpoint=http://localhost:9000",
            "this machine is for the environment sandbox, and for no other",
        ),
        ("s3_endpoint=http://0x7f.1:9000", "this machine is for the environment sandbox"),
        ("app_url=http://[::1]:3000", "app_url is"),
        ("prometheus_url=http://host.docker.internal:9090", "prometheus_url is"),
        ("github_url=http://localhost", "github_url is"),
        ("bucket=gotong-royong-evidence-dev", "is that of developers, and not of staging"),
        ("app_dir=ABSENT", "app_dir is missing"),
        ("kubernetes_context=ABSENT", "kubernetes_context is missing"),
        ("kubernetes_context=", "kubernetes_context is missing"),
    ] {
        let said = bench.exec(&staging, 4, &[wrong]).await;
        assert!(said.contains(told), "{wrong}: {said}");
        bench.cancel(&said).await;
    }
    // The way in for a sandbox is no way out of it.
    let sandbox = bench.site("sandbox").await;
    for wrong in ["s3_endpoint=http://s3.staging.example", "app_url=http://app.staging.example"] {
        let said = bench.exec(&sandbox, 4, &[wrong]).await;
        assert!(said.contains("for the environment sandbox, and for no other"), "{said}");
        bench.cancel(&said).await;
    }
    assert_eq!(
        bench.names.asked("s3.staging.example"),
        bench.names.asked("s3.staging.example")[..1],
        "only by the API"
    );
    assert!(staging.rules().await.is_empty() && bench.called().is_empty());
}

#[tokio::test]
async fn an_api_that_keeps_attachments_elsewhere_is_found_out() {
    let bench = Bench::start().await;
    // It fell back to its own disk, and answers all the same.
    let local = bench.site_with("sandbox", &[("CHAT_ATTACHMENT_STORAGE_BACKEND", "local")]).await;
    let said = bench.confirmed(&local, 4, &[]).await;
    assert!(said.contains("status 200 OK and hands it out itself, where 307"), "{said}");
    assert!(local.keys().await.is_empty());
    bench.cancel(&said).await;
    drop(local);
    // It is of another environment than it is taken for: the rule would be about nothing.
    let other =
        crate::Site::start(&bench, "sandbox", "evidence-sandbox", &[("APP_ENV", "Development")]).await;
    let said = bench.exec(&other, 4, &[]).await;
    assert!(said.contains("/evidence-sandbox/chat-attachments/development/"), "{said}");
    bench.cancel(&said).await;
    // It is of another bucket.
    bench.weed.make_bucket("elsewhere").await.unwrap();
    let other =
        crate::Site::start(&bench, "sandbox", "evidence-sandbox", &[("S3_BUCKET", "elsewhere")]).await;
    let said = bench.exec(&other, 4, &[]).await;
    assert!(said.contains("the bucket \"elsewhere\" is another one"), "{said}");
    assert_eq!(bench.report("sandbox").1["verdict"], "FAIL");
}

#[tokio::test]
async fn only_a_preflight_that_passed_by_the_same_definition_leads_to_staging() {
    let bench = Bench::start().await;
    let staging = bench.site("staging").await;
    bench.preflight().await;
    let report: Value =
        serde_json::from_str(&fs::read_to_string(bench.path("preflight.json")).unwrap()).unwrap();
    let edited = bench.path("edited.json");
    let proof = format!("preflight_report={}", edited.display());
    let said = bench.exec(&staging, 4, &["preflight_report=ABSENT"]).await;
    assert!(said.contains("preflight_report is missing"), "{said}");
    bench.cancel(&said).await;
    let steps = report["steps"].as_array().unwrap();
    let gates = steps.iter().position(|step| step["id"] == "local_gates").unwrap();
    for (pointer, value, told) in [
        ("/verdict".to_owned(), json!("FAIL"), "it says FAIL, not PASS"),
        ("/definition".to_owned(), json!("0000"), "its `/definition` is 0000, not "),
        (
            "/inputs/environment".to_owned(),
            json!("staging"),
            "its `/inputs/environment` is staging, not sandbox",
        ),
        ("/inputs/expire_days".to_owned(), json!(30), "its `/inputs/expire_days` is 30, not 45"),
        // A sandbox without the application has no gates.
        (format!("/steps/{gates}/status"), json!("skipped"), "its `/steps/local_gates/status` is skipped"),
        ("/reported_at".to_owned(), json!("2026-01-01T00:00:00Z"), "it is of 2026-01-01T00:00:00Z, before"),
    ] {
        let mut wrong = report.clone();
        *wrong.pointer_mut(&pointer).unwrap() = value;
        fs::write(&edited, wrong.to_string()).unwrap();
        let said = bench.exec(&staging, 4, &[&proof]).await;
        assert!(said.contains(told), "{told}: {said}");
        bench.cancel(&said).await;
    }
    // As it is, it is taken: what fails then comes later.
    let said = bench.exec(&staging, 4, &[]).await;
    assert!(bench.report("staging").1.to_string().contains("preflight_passed"), "{said}");
    let (_, reported) = bench.report("staging");
    let passed = reported["steps"].as_array().unwrap().iter().find(|step| step["id"] == "preflight_passed");
    assert_eq!(passed.unwrap()["status"], "succeeded", "{said}");
    assert!(staging.rules().await.is_empty());
}

#[tokio::test]
async fn only_staging_that_passed_by_the_same_definition_leads_to_production() {
    let Some((bench, cluster)) = Bench::with_cluster().await else { return };
    let (sandbox, production) = (bench.site("sandbox").await, bench.site("production").await);
    let said = bench.exec(&production, 4, &[]).await;
    assert!(said.contains("staging_report is missing"), "{said}");
    bench.cancel(&said).await;
    bench.confirmed(&sandbox, 0, &[]).await;
    let (path, report) = bench.report("sandbox");
    let of = |edit: &[(&str, Value)]| {
        let mut report = report.clone();
        report["inputs"]["environment"] = json!("staging");
        report["inputs"]["kubernetes_context"] = json!("staging");
        for step in report["steps"].as_array_mut().unwrap() {
            step["status"] = json!("succeeded");
        }
        let alerts = fs::read(bench.path("app").join(ALERTS)).unwrap();
        report["notes"]["SHA-256 of the alerts"] = json!(runbook_steps::digest::sha256(&alerts));
        for (pointer, value) in edit {
            *report.pointer_mut(pointer).unwrap() = value.clone();
        }
        report
    };
    let edited = bench.path("edited.json");
    let proof = format!("staging_report={}", edited.display());
    for (what, told) in [
        (report.clone(), "its `/inputs/environment` is sandbox, not staging"),
        (of(&[("/verdict", json!("FAIL"))]), "it says FAIL, not PASS"),
        (
            of(&[("/notes/SHA-256 of the alerts", json!("0000"))]),
            "its `/notes/SHA-256 of the alerts` is 0000, not ",
        ),
        (of(&[("/definition", json!("0000"))]), "its `/definition` is 0000, not "),
        (of(&[("/runbook", json!("another"))]), "its `/runbook` is another"),
        (of(&[("/inputs/expire_days", json!(30))]), "its `/inputs/expire_days` is 30, not 45"),
        (
            of(&[("/inputs/bucket", json!("evidence-production"))]),
            "its `/inputs/bucket` is evidence-production too",
        ),
        // Another way to write it is no other one.
        (
            of(&[("/inputs/prometheus_url", json!("http://PROMETHEUS.production.example:80/"))]),
            "its `/inputs/prometheus_url` is http://prometheus.production.example too",
        ),
        (
            of(&[("/inputs/s3_endpoint", json!("http://s3.production.example"))]),
            "its `/inputs/s3_endpoint` is http://s3.production.example too",
        ),
        (of(&[("/inputs/app_url", json!("http://app.production.example"))]), "and must be another"),
        (
            of(&[("/inputs/kubernetes_context", json!("production"))]),
            "its `/inputs/kubernetes_context` is production too",
        ),
        (of(&[("/reported_at", json!("2026-01-01T00:00:00Z"))]), "it is of 2026-01-01T00:00:00Z, before"),
    ] {
        fs::write(&edited, what.to_string()).unwrap();
        let said = bench.exec(&production, 4, &[&proof]).await;
        assert!(said.contains(told), "{told}: {said}");
        bench.cancel(&said).await;
    }
    fs::remove_file(&edited).unwrap();
    let said = bench.exec(&production, 4, &[&proof]).await;
    assert!(said.contains("it is not there"), "{said}");
    bench.cancel(&said).await;
    // Of a preflight, or of a run that failed, more than a word has to be changed.
    let mut failed = of(&[]);
    failed["steps"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .find(|step| step["id"] == "rollout_reports")
        .unwrap()["status"] = json!("pending");
    fs::write(&edited, failed.to_string()).unwrap();
    let said = bench.exec(&production, 4, &[&proof]).await;
    assert!(said.contains("its `/steps/rollout_reports/status` is pending"), "{said}");
    bench.cancel(&said).await;
    // What is refused above is refused for what it says, and for nothing else.
    fs::write(&edited, of(&[]).to_string()).unwrap();
    let said = bench.exec(&production, 5, &[&proof]).await;
    bench.expect("ada", 6, &["cancel", &run_in(&said)]).await;
    // Two buckets of one store are told to be so.
    let shared = of(&[("/inputs/s3_endpoint", json!("http://s3.production.example"))]);
    fs::write(&edited, shared.to_string()).unwrap();
    bench.exec(&production, 5, &[&proof, "shared_store=true"]).await;
    assert!(path.exists() && production.rules().await.is_empty());
    assert!(cluster.alert("production").await.is_null());
    assert!(!bench.called().contains("hot-path-rollout"));
}

#[tokio::test]
async fn reports_of_another_run_a_dry_run_or_a_rollout_on_hold_stop_the_run() {
    let Some((bench, cluster)) = Bench::with_cluster().await else { return };
    let staging = bench.site("staging").await;
    // Left from before, and saying PASS.
    let reports = bench.path("app/docs/research");
    fs::create_dir_all(&reports).unwrap();
    let old = "Date: 2026-02-25T08:09:10Z\nGo/no-go mode: `live`\nOverall result: `PASS`\n";
    fs::write(reports.join("hot-path-rollout-latest.md"), old).unwrap();
    bench.recipes("stale");
    let said = bench.confirmed(&staging, 4, &[]).await;
    assert!(said.contains("it is of 2026-02-25T08:09:10Z") && said.contains("not of this run"), "{said}");
    bench.cancel(&said).await;
    bench.recipes("dry-run");
    let said = bench.exec(&staging, 4, &[]).await;
    assert!(said.contains("its mode is dry-run, not live"), "{said}");
    bench.cancel(&said).await;
    bench.recipes("hold");
    let said = bench.exec(&staging, 4, &[]).await;
    assert!(
        said.contains("rollout") && !said.contains("Its report is of this run and says PASS failed"),
        "{said}"
    );
    let copied = |name: &String| name.ends_with("Z.md");
    assert!(!bench.evidence().iter().any(copied), "nothing is kept as proof: {:?}", bench.evidence());
    assert_eq!(bench.report("staging").1["verdict"], "FAIL");
    // Once it is well again, the same run goes on.
    bench.recipes("right");
    let rest = said.split("runbook resume ").nth(1).unwrap();
    bench.expect("ada", 0, &["resume", rest.split_whitespace().next().unwrap()]).await;
    assert_eq!(bench.report("staging").1["verdict"], "PASS");
    assert!(cluster.alert("staging").await.as_str().unwrap().ends_with("> 0.75"));
}

#[tokio::test]
async fn each_of_the_five_reports_has_to_say_what_it_is_there_for() {
    let Some((bench, _cluster)) = Bench::with_cluster().await else { return };
    let staging = bench.site("staging").await;
    staging.set_rules(&[("chat-attachments/staging/", 45)]).await;
    for (how, told) in [
        ("alerts-dry-run", "chat-attachment-alerts-apply-latest.md: its mode is dry-run, not apply"),
        ("elsewhere", "its `Namespace` is monitoring-elsewhere, not monitoring-staging"),
        ("another-bucket", "its `Bucket` is gotong-royong-evidence-dev, not evidence-staging"),
        ("removed", "its `Rules removed` is 1, not 0"),
        ("unverified", "chat-attachment-lifecycle-verify-latest.md: it says FAIL, not PASS"),
        ("another-check", "its `Required check` is CI / lint, not CI / surreal-release-gates"),
        ("branch-fail", "branch_report: `just` exited with 1"),
    ] {
        bench.recipes(how);
        let said = bench.exec(&staging, 4, &[]).await;
        assert!(said.contains(told), "{how}: {said}");
        assert!(!bench.evidence().iter().any(|name| name.ends_with("Z.md")), "nothing is kept as proof");
        bench.cancel(&said).await;
    }
    // A report that is not asked for is neither checked nor kept.
    bench.exec(&staging, 0, &["branch_report_command=[]"]).await;
    let kept = bench.evidence().into_iter().filter(|name| name.ends_with("Z.md")).collect::<Vec<_>>();
    assert!(kept.len() == 4 && !kept.iter().any(|name| name.starts_with("branch-")), "{kept:?}");
}

#[tokio::test]
async fn every_required_prefix_has_to_have_its_rule() {
    let bench = Bench::start().await;
    let site = bench.site("sandbox").await;
    let ours = ("chat-attachments/sandbox/", 45);
    let required = r#"required_prefixes=["chat-attachments/smoke/", "chat-attachments/ci/"]"#;
    let smoke = ("chat-attachments/smoke/", 45);
    for (rules, told) in [
        (&[ours][..], "`chat-attachments/smoke/`: no rule expires it"),
        (&[ours, smoke], "`chat-attachments/ci/`: no rule expires it"),
        (&[ours, smoke, ("chat-attachments/ci/", 30)], "`chat-attachments/ci/`"),
    ] {
        site.set_rules(rules).await;
        let said = bench.exec(&site, 4, &[required]).await;
        assert!(said.contains("verify_again") && said.contains(told), "{told}: {said}");
        bench.cancel(&said).await;
    }
    assert_eq!(site.rules().await.len(), 3, "they are looked at, and not set");
    site.set_rules(&[ours, smoke, ("chat-attachments/ci/", 45)]).await;
    bench.exec(&site, 0, &[required]).await;
}

#[tokio::test]
async fn rules_of_others_for_the_same_prefix_are_not_left_to_the_rollout() {
    let Some((bench, _cluster)) = Bench::with_cluster().await else { return };
    let staging = bench.site("staging").await;
    staging.tidy_uploads("chat-attachments/staging/").await;
    let said = bench.exec(&staging, 4, &[]).await;
    assert!(said.contains("would remove all but one: ") && said.contains("tidy-uploads"), "{said}");
    assert_eq!(staging.rules().await.len(), 1, "nobody was asked yet, and nothing was written");
    assert!(!bench.called().contains("hot-path-rollout"), "it is not called then");
}

#[tokio::test]
async fn a_rule_of_others_that_comes_while_the_run_waits_is_not_left_to_the_rollout() {
    let Some((bench, _cluster)) = Bench::with_cluster().await else { return };
    let staging = bench.site("staging").await;
    let said = bench.exec(&staging, 5, &[]).await;
    staging.tidy_uploads("chat-attachments/staging/").await;
    let said = bench.expect("ada", 4, &["answer", &run_in(&said), PHRASE]).await;
    assert!(said.contains("somebody has set another rule") && said.contains("tidy-uploads"), "{said}");
    assert!(!bench.called().contains("hot-path-rollout"), "it is not called then");
}

#[tokio::test]
async fn a_rule_that_somebody_sets_while_the_run_waits_is_not_taken_away() {
    let bench = Bench::start().await;
    let site = bench.site("sandbox").await;
    site.set_rules(&[("chat-attachments/sandbox/", 60)]).await;
    let said = bench.exec(&site, 5, &[]).await;
    assert!(said.contains("\"days\":60"), "what goes is shown: {said}");
    site.set_rules(&[("chat-attachments/sandbox/", 7)]).await;
    let said = bench.expect("ada", 4, &["answer", &run_in(&said), PHRASE]).await;
    assert!(said.contains("was not there when that was agreed to"), "{said}");
    assert_eq!(site.rules().await, [("chat-attachments/sandbox/".to_owned(), 7)]);
    bench.cancel(&said).await;
}

#[tokio::test]
async fn alerts_that_somebody_else_sets_are_no_pass_and_taken_over_only_on_request() {
    let Some((bench, cluster)) = Bench::with_cluster().await else { return };
    let staging = bench.site("staging").await;
    bench.recipes("hold");
    let said = bench.confirmed(&staging, 4, &[]).await;
    // They were right before the rollout, and are not after it.
    cluster.meddle("staging", "vector(0)").await;
    bench.recipes("right");
    let rest = said.split("runbook resume ").nth(1).unwrap();
    let said = bench.expect("ada", 4, &["resume", rest.split_whitespace().next().unwrap()]).await;
    assert!(said.contains("alerts_in_place") && said.contains("helm"), "{said}");
    bench.cancel(&said).await;
    let said = bench.exec(&staging, 4, &[]).await;
    assert!(said.contains("alerts_plan") && said.contains("helm"), "{said}");
    bench.cancel(&said).await;
    assert_eq!(cluster.alert("staging").await, "vector(0)");
    bench.exec(&staging, 0, &["take_over_alerts=true"]).await;
    assert!(cluster.alert("staging").await.as_str().unwrap().ends_with("> 0.75"));
    assert_eq!(bench.report("staging").1["verdict"], "PASS");
}

#[tokio::test]
async fn alerts_that_are_other_ones_than_those_that_were_shown_are_not_applied() {
    let Some((bench, cluster)) = Bench::with_cluster().await else { return };
    let staging = bench.site("staging").await;
    let said = bench.exec(&staging, 5, &[]).await;
    let manifest = bench.path("app").join(ALERTS);
    let shown = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, shown.replace("> 0.75", "> 75")).unwrap();
    let said = bench.expect("ada", 4, &["answer", &run_in(&said), PHRASE]).await;
    assert!(said.contains("what was looked at is not what is there now"), "{said}");
    assert_eq!(cluster.alert("staging").await, Value::Null);
    bench.cancel(&said).await;
}

#[tokio::test]
async fn a_branch_without_the_gate_stops_the_run_and_so_does_not_knowing() {
    let bench = Bench::start().await;
    let site = bench.site("sandbox").await;
    for (checks, told) in [
        (json!(null), "requires no checks"),
        (json!({ "contexts": ["surreal-release-gates"] }), "is another name than"),
        (json!({ "contexts": ["ci / surreal-release-gates"] }), "does not require"),
    ] {
        bench.protect(checks).await;
        let said = bench.exec(&site, 4, &[]).await;
        assert!(said.contains(told), "{said}");
        bench.cancel(&said).await;
    }
    let said = bench.exec(&site, 4, &["branch=mian"]).await;
    assert!(said.contains("Branch not found") && said.contains("says nothing about the branch"), "{said}");
    bench.cancel(&said).await;
    assert!(site.rules().await.is_empty() && site.keys().await.is_empty());
    bench.protect(json!({ "checks": [{ "context": GATE }] })).await;
    bench.confirmed(&site, 0, &[]).await;
}

#[tokio::test]
async fn nothing_measured_is_no_pass() {
    let bench = Bench::start().await;
    let site = bench.site("sandbox").await;
    let said = bench.confirmed(&site, 4, &["metrics_job=gotong-apj"]).await;
    assert!(said.contains("no data: nothing is measured, which is not a pass"), "{said}");
    bench.cancel(&said).await;
    let said = bench.exec(&site, 4, &["max_p95_seconds=0"]).await;
    assert!(said.contains("and 0 is the most"), "{said}");
}

#[tokio::test]
async fn a_rule_that_is_not_there_is_set_once_more_and_then_the_run_stops() {
    let Some((bench, _cluster)) = Bench::with_cluster().await else { return };
    let staging = bench.site("staging").await;
    staging.set_rules(&[("chat-attachments/staging/", 60), ("logs/", 7)]).await;
    // The plan looks first, the change before and after, and then the check. What is set once more is there already.
    bench.names.blind([4]);
    bench.confirmed(&staging, 0, &[]).await;
    let ours = |days| [("chat-attachments/staging/".to_owned(), days), ("logs/".to_owned(), 7)];
    assert_eq!(staging.rules().await, ours(45));
    let report = bench.report("staging").1;
    assert_eq!(report["verdict"], "PASS");
    assert!(report["findings"].to_string().contains("no rule expires it"), "{report:#}");

    staging.set_rules(&[("chat-attachments/staging/", 60), ("logs/", 7)]).await;
    bench.names.blind([4, 6]);
    let said = bench.exec(&staging, 5, &[]).await;
    let said = bench.expect("ada", 4, &["answer", &run_in(&said), PHRASE]).await;
    assert!(said.contains("no rule expires it"), "{said}");
    assert!(bench.report("staging").1["verdict"] == "FAIL");
    assert_eq!(staging.rules().await, ours(45), "what is there stays");

    // At no time was there no rule: the lifecycle was only ever written as a whole.
    let asked = bench.names.asked("s3.staging.example");
    assert!(asked.iter().any(|line| line.starts_with("PUT ") && line.contains("?lifecycle")), "{asked:?}");
    assert!(!asked.iter().any(|line| line.starts_with("DELETE ")), "{asked:?}");
}
