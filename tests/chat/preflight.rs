//! The preflight on the machine of an operator, whose store is started for the first time.

use std::fs;

use serde_json::json;

use crate::site::Site;
use crate::{Bench, PHRASE, run_in};

#[tokio::test]
async fn on_a_fresh_store_the_gates_pass_since_the_rule_is_set_before_them() {
    let bench = Bench::start().await;
    // Without a bucket the API has fallen back: all up to the upload is well.
    let fresh =
        Site::start(&bench, "sandbox", "evidence-fresh", &[("CHAT_ATTACHMENT_STORAGE_BACKEND", "auto")])
            .await;
    let app = format!("app_dir={}", bench.path("app").display());
    let alerts = r#"alerts_report_command=["just", "alerts-dry-run"]"#;
    // In the order of the prose they would not: that is what the rule is looked for.
    let error = bench.exec(&fresh, 4, &[&app, "bucket_command=[]"]).await;
    assert!(error.contains("lifecycle_plan") && error.contains("evidence-fresh"), "{error}");
    bench.cancel(&error).await;

    let said = bench.exec(&fresh, 5, &[&app, alerts]).await;
    assert!(!bench.called().contains("release-gates-surreal"), "not before the rule is there");
    let said = bench.expect("ada", 4, &["answer", &run_in(&said), PHRASE]).await;
    assert!(said.contains("status 200 OK and hands it out itself, where 307"), "{said}");
    assert_eq!(fresh.rules().await, [("chat-attachments/sandbox/".to_owned(), 45)]);
    let called = bench.called();
    let order = ["dev-db-up", "docker compose", "mc mb", "mc mb", "release-gates-surreal", "alerts-dry-run"];
    let mut rest =
        called.split("mc mb --ignore-existing store/evidence-fresh").collect::<Vec<_>>().join("mc mb");
    for one in order {
        let at = rest.find(one).unwrap_or_else(|| panic!("no {one} in its place in {called}"));
        rest = rest.split_off(at + one.len());
    }
    let (_, report) = bench.report("sandbox");
    for step in ["local_reports", "local_alerts_report"] {
        let all = report["steps"].as_array().unwrap();
        let one = all.iter().find(|one| one["id"] == step).unwrap();
        assert_eq!(one["status"], "succeeded", "{step}");
    }
    bench.cancel(&said).await;

    // A dry run that failed, or none of this run, is no pass.
    for (command, told) in [
        (r#"alerts_report_command=["just", "alerts-dry-run", "FAIL"]"#, "it says FAIL"),
        (r#"alerts_report_command=["true"]"#, "not of this run"),
    ] {
        let path = bench.path("app/docs/research/chat-attachment-alerts-apply-latest.md");
        let text = fs::read_to_string(&path).unwrap();
        let date = text.lines().find(|line| line.starts_with("Date: ")).unwrap();
        fs::write(&path, text.replace(date, "Date: 2026-02-25T08:09:10Z")).unwrap();
        let said = bench.exec(&fresh, 4, &[&app, command]).await;
        assert!(said.contains("local_alerts_report") && said.contains(told), "{said}");
        bench.cancel(&said).await;
    }
}

#[tokio::test]
async fn the_rule_is_kept_and_compared_with_the_one_under_version_control() {
    let bench = Bench::start().await;
    let site = bench.site("sandbox").await;
    let policy = |days: i32| json!({ "Rules": [{ "ID": "attachments", "Status": "Enabled", "Filter": { "Prefix": "chat-attachments/sandbox/" }, "Expiration": { "Days": days } }] });
    fs::write(bench.path("lifecycle.json"), policy(60).to_string()).unwrap();
    let file = format!("policy_file={}", bench.path("lifecycle.json").display());
    let run = run_in(&bench.exec(&site, 5, &[&file]).await);
    let differs = "expires after 60 days, and the bucket after 45 days";
    let shown = bench.expect("ada", 0, &["show", &run, "--json"]).await;
    assert!(shown.contains("Under version control") && shown.contains(differs), "{shown}");
    bench.expect("ada", 0, &["answer", &run, PHRASE]).await;
    let kept = format!("lifecycle-sandbox-{run}.json");
    assert!(bench.evidence().contains(&kept), "{:?}", bench.evidence());
    let text = fs::read(bench.path("evidence").join(&kept)).unwrap();
    let rule: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let mut ours = policy(45);
    ours["Rules"][0]["ID"] = json!("expire-chat-attachments-sandbox");
    assert_eq!(rule, ours);
    let (_, report) = bench.report("sandbox");
    assert!(report["findings"].to_string().contains(differs), "{report:#}");
    assert!(report.to_string().contains(&runbook_steps::digest::sha256(&text)), "{report:#}");
    // What was kept is taken as it is.
    let file = format!("policy_file={}", bench.path("evidence").join(kept).display());
    bench.exec(&site, 0, &[&file]).await;
    assert!(!bench.report("sandbox").1["findings"].to_string().contains("and the bucket"));
    let error = bench.exec(&site, 4, &["policy_file=/no/such/file"]).await;
    assert!(error.contains("/no/such/file can not be compared"), "{error}");
}
