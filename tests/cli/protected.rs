//! What is required of a branch, asked of a stand-in of GitHub that was made elsewhere.

use reqwest::Method;
use runbook_sandbox::emulate::{Emulate, OWNER, STRANGER};
use serde_json::{Value, json};

use crate::place::{Place, Ran};

const GATE: &str = "CI / release-gates";

/// A token of an app in the place of one of an installation: it is of nobody.
const OF_NOBODY: &str = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl";

struct Bench {
    github: Emulate,
    place: Place,
}

impl Bench {
    /// With a private repository `vault` of one branch.
    async fn start() -> Self {
        let github = Emulate::start().await.unwrap();
        github.make_repository("vault", true).await.unwrap();
        Self { github, place: Place::new() }
    }

    /// Sets what protects a branch, in the words of GitHub's API.
    async fn protect(&self, branch: &str, checks: Value) {
        let path = format!("/repos/{OWNER}/vault/branches/{branch}/protection");
        let whole = json!({
            "required_status_checks": checks, "enforce_admins": true, "required_pull_request_reviews": null, "restrictions": null,
        });
        self.github.call(Method::PUT, &path, whole).await.unwrap();
    }

    /// Runs a runbook of one step that looks, with these settings in place of the usual ones.
    fn look(&self, code: i32, with: Value) -> Ran {
        let mut settings = json!({
            "connection": "github", "repository": format!("{OWNER}/vault"), "required": GATE, "token": "owner",
        });
        for (name, value) in with.as_object().unwrap() {
            settings[name] = value.clone();
        }
        let token = settings.as_object_mut().unwrap().remove("token").unwrap();
        self.place.write("token", token.as_str().unwrap());
        let connection = json!({ "type": "github", "url": self.github.url, "token": "${{ secrets.token }}" });
        let step = json!({ "id": "gate", "uses": "branch-protection", "with": settings });
        let (connections, steps) = (json!({ "github": connection }), json!([step]));
        let secrets = "secrets: { token: { file: token } }";
        self.place.runbook("it", &format!("{secrets}\nconnections: {connections}\nsteps: {steps}\n"));
        self.place.expect(code, &["exec", "it.yaml"])
    }

    /// Looks, and says what was found.
    fn found(&self, with: Value) -> Value {
        self.look(0, with);
        let run = self.place.json(&["show"]);
        run["steps"][0]["outputs"].clone()
    }

    /// Looks, and says why it failed, in one line.
    fn failed(&self, with: Value) -> String {
        let ran = self.look(4, with);
        (ran.err + &ran.out).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The error of the step, as the run has it.
    fn error(&self) -> Value {
        self.place.json(&["show"])["steps"][0]["error"].clone()
    }
}

#[tokio::test]
async fn a_branch_passes_when_its_protection_requires_the_check_and_not_before() {
    let bench = Bench::start().await;
    let said = bench.failed(json!({}));
    assert!(
        said.contains(&format!("main of {OWNER}/vault at {} is not protected", bench.github.url)),
        "{said}"
    );
    assert!(said.contains(&format!("`{GATE}` must be required")), "{said}");
    let looked = bench.found(json!({ "mode": "plan" }));
    assert_eq!((&looked["status"], &looked["protected"]), (&json!("DRY_RUN"), &json!(false)));
    assert_eq!(looked["missing"], json!([GATE]));

    // A protection that requires nothing, and one that requires something else.
    bench.protect("main", Value::Null).await;
    let said = bench.failed(json!({}));
    assert!(said.contains(&format!("requires no checks, and `{GATE}` must be required")), "{said}");
    bench.protect("main", json!({ "strict": true, "contexts": ["lint", "release-gates"] })).await;
    let said = bench.failed(json!({}));
    assert!(
        said.contains(&format!("does not require `{GATE}`; it requires `lint`, `release-gates`")),
        "{said}"
    );
    assert!(said.contains(&format!("`release-gates` is another name than `{GATE}`")), "{said}");
    assert_eq!(bench.found(json!({ "mode": "plan" }))["missing"], json!([GATE]));

    bench.protect("main", json!({ "strict": true, "contexts": ["lint", GATE] })).await;
    let found = bench.found(json!({}));
    assert_eq!((&found["status"], &found["protected"]), (&json!("PASS"), &json!(true)));
    assert_eq!((&found["required"], &found["missing"]), (&json!([GATE, "lint"]), &json!([])));
    assert_eq!(bench.found(json!({ "mode": "plan" }))["status"], "DRY_RUN");

    // It is looked at anew each time.
    let path = format!("/repos/{OWNER}/vault/branches/main/protection");
    bench.github.call(Method::DELETE, &path, Value::Null).await.unwrap();
    assert!(bench.failed(json!({})).contains("is not protected"));
}

#[tokio::test]
async fn the_name_of_a_branch_may_have_a_slash() {
    let bench = Bench::start().await;
    let branch = format!("/repos/{OWNER}/vault/branches/main");
    let main = bench.github.call(Method::GET, &branch, Value::Null).await.unwrap();
    let made = json!({ "ref": "refs/heads/release/1", "sha": main["commit"]["sha"] });
    bench.github.call(Method::POST, &format!("/repos/{OWNER}/vault/git/refs"), made).await.unwrap();
    bench.protect("main", json!({ "strict": true, "contexts": [GATE] })).await;
    let said = bench.failed(json!({ "branch": "release/1" }));
    assert!(said.contains("release/1 of admin/vault at") && said.contains("is not protected"), "{said}");
    bench.protect("release%2F1", json!({ "strict": true, "contexts": [GATE] })).await;
    assert_eq!(bench.found(json!({ "branch": "release/1" }))["status"], "PASS");
}

#[tokio::test]
async fn who_may_not_look_and_what_is_not_there_say_nothing_about_the_branch() {
    let bench = Bench::start().await;
    for protected in [false, true] {
        if protected {
            bench.protect("main", json!({ "strict": true, "contexts": [GATE] })).await;
        }
        for (with, wrong) in [
            (json!({ "token": OF_NOBODY }), "status 401 Unauthorized: Requires authentication"),
            (json!({ "token": STRANGER }), "status 403 Forbidden: Forbidden"),
            (json!({ "repository": format!("{OWNER}/valut") }), "status 404 Not Found: Not Found"),
            (json!({ "branch": "mian" }), "status 404 Not Found: Not Found"),
        ] {
            // Not even when nobody asked whether it passes.
            for mode in ["check", "plan"] {
                let mut with = with.clone();
                with["mode"] = json!(mode);
                let said = bench.failed(with);
                assert!(
                    said.contains(wrong) && said.contains("this says nothing about the branch"),
                    "{said}"
                );
                assert!(!said.contains("not protected") && !said.contains("eyJ"), "{said}");
                assert_eq!(bench.error()["kind"], "refused");
            }
        }
    }
}

/// It knows of no rulesets, as older servers of GitHub Enterprise do not.
#[tokio::test]
async fn a_server_without_rulesets_passes_what_is_protected_and_nothing_else() {
    let bench = Bench::start().await;
    let rules = format!("/repos/{OWNER}/vault/rules/branches/main");
    let answer = bench.github.call(Method::GET, &rules, Value::Null).await.unwrap_err();
    assert!(answer.to_string().contains("404 Not Found"), "{answer}");
    assert!(bench.failed(json!({})).contains("is not protected"));
    assert_eq!(bench.error()["kind"], "gate");
    bench.protect("main", json!({ "strict": false, "contexts": [GATE] })).await;
    assert_eq!(bench.found(json!({}))["status"], "PASS");
    let said = bench.failed(json!({ "required": [GATE, "lint"] }));
    assert!(said.contains("does not require `lint`"), "{said}");
    assert_eq!(bench.error()["kind"], "gate");
}
