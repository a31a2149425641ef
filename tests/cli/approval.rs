//! What one person runs another one approves; what scripts report is checked; and the evidence is kept.

use std::fs;
use std::time::Duration;

use crate::place::{Place, Ran, finished};

/// A rollout whose report is checked, approved by somebody else, and archived.
fn rollout(report: &str, approval: &str) -> Place {
    let place = Place::new();
    let reports = place.path("reports");
    fs::create_dir(&reports).unwrap();
    let reports = reports.display();
    place.runbook(
        "rollout",
        &format!(
            "steps:
  - id: roll_out
    uses: command
    with:
      argv: [sh, -c, \"{report}\"]
      effect: {{ class: write, repeat: repeatable }}
  - id: check
    uses: check-report
    with:
      reports:
        - path: {reports}/policy-latest.md
          mode: apply
          fields: {{ Bucket: evidence-staging }}
  - id: reviewed
    uses: approval
    with:
      message: Is production next?
      role: release manager
      approvers: [ada, bob]
      facts: {{ verdict: \"${{{{ steps.check.outputs.reports[0].verdict }}}}\" }}
{approval}  - id: keep
    uses: archive
    with: {{ files: [\"{reports}/policy-latest.md\"], label: staging }}
"
        ),
    );
    place
}

const PASS: &str = "printf 'Date: %s\\\\nMode: `apply`\\\\nStatus: `PASS`\\\\n- Bucket: `evidence-staging`\\\\n' \
     $(date -u +%Y-%m-%dT%H:%M:%SZ) > reports/policy-latest.md";

fn by(place: &Place, user: &str, args: &[&str]) -> Ran {
    finished(place.command(args).env("USER", user).output().unwrap())
}

#[test]
fn somebody_else_in_the_role_approves_and_nobody_else() {
    let place = rollout(PASS, "      within: 1h\n");
    let ran = by(&place, "ada", &["exec", "rollout.yaml"]);
    assert_eq!(ran.code, 5, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("release manager (ada, bob), not ada@"), "{}", ran.err);
    let run = place.newest();
    for word in ["approve", "deny"] {
        assert!(ran.err.contains(&format!("runbook answer {run} reviewed {word}   ")), "{}", ran.err);
    }
    for (user, words) in
        [("ada", "runs it, and somebody else has to approve it"), ("eve", "is not release manager")]
    {
        let ran = by(&place, user, &["answer", &run, "approve"]);
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains(words) && ran.err.contains("nothing was recorded"), "{}", ran.err);
    }
    assert_eq!(by(&place, "bob", &["answer", &run, "yes"]).code, 2);
    assert_eq!(fs::read_dir(place.path("reports")).unwrap().count(), 1);

    let ran = by(&place, "bob", &["answer", &run, "deny: not before the weekend"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("denied it as release manager: not before the weekend"), "{}", ran.err);
    assert_eq!(fs::read_dir(place.path("reports")).unwrap().count(), 1);
    // Who resumes it is not asked either: ada asked for the run.
    assert_eq!(by(&place, "bob", &["resume", &run]).code, 5);
    assert_eq!(by(&place, "bob", &["answer", &run, "approve: seen on staging"]).code, 0);
    let outputs = place.json(&["show", &run]);
    let steps = outputs["steps"].as_array().unwrap();
    let of = |id: &str| &steps.iter().find(|step| step["id"] == id).unwrap()["outputs"];
    assert!(of("reviewed")["by"].as_str().unwrap().starts_with("bob@"));
    assert_eq!(of("reviewed")["reason"], "seen on staging");
    let copy = of("keep")["copies"][0]["to"].as_str().unwrap().to_owned();
    assert!(copy.contains("/policy-staging-2") && copy.ends_with("Z.md"), "{copy}");
    assert_eq!(fs::read_to_string(copy).unwrap(), place.text("reports/policy-latest.md"));
}

#[test]
fn an_approval_that_comes_too_late_stops_the_run() {
    let place = rollout(PASS, "      within: 1s\n");
    assert_eq!(by(&place, "eve", &["exec", "rollout.yaml"]).code, 5);
    std::thread::sleep(Duration::from_millis(1100));
    let ran = by(&place, "ada", &["answer", &place.newest(), "approve"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("the time for an approval was over"), "{}", ran.err);
    assert_eq!(fs::read_dir(place.path("reports")).unwrap().count(), 1);
}

#[test]
fn a_report_that_is_old_missing_wrong_or_of_another_target_stops_the_run() {
    for (report, words) in [
        ("true", "it is not there"),
        (&PASS.replace("PASS", "FAIL"), "it says FAIL, not PASS"),
        (&PASS.replace("Status: `PASS`", "Status: `DRY_RUN`"), "it says DRY_RUN, not PASS"),
        (&PASS.replace("apply", "dry-run"), "its mode is dry-run, not apply"),
        (
            &PASS.replace("evidence-staging", "evidence-dev"),
            "its `Bucket` is evidence-dev, not evidence-staging",
        ),
        (&PASS.replace("$(date -u +%Y-%m-%dT%H:%M:%SZ)", "2026-02-25T08:09:10Z"), "it is not of this run"),
    ] {
        let place = rollout(report, "");
        let ran = place.expect(4, &["exec", "rollout.yaml"]);
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
}

#[test]
fn a_plan_says_who_is_asked() {
    let place = rollout(PASS, "");
    // Of after the plan was begun, by a clock that is a little ahead.
    let date = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(1);
    place.write(
        "reports/policy-latest.md",
        &format!("Mode: apply\nStatus: PASS\nBucket: evidence-staging\nDate: {date}\n"),
    );
    let ran = place.expect(0, &["plan", "rollout.yaml"]);
    assert!(ran.out.contains("waits for the approval of: release manager (ada, bob)"), "{}", ran.out);
}
